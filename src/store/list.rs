//! Listing: whole trees by pages of 1000 keys, or one level.

use futures::TryStreamExt;
use object_store::ObjectMeta;

use super::error::StoreError;
use super::open::{Backend, Store};
use super::read::ObjectInfo;
use super::staged;

impl Store {
    /// All objects below the folder `prefix` (`""`: the root), sorted by key. One request for
    /// every 1000 of them, and none for each. An absent folder is empty. Files that a writer has
    /// not finished are not listed, nor, on disk, symbolic links that lead nowhere.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.listable("list").await?;
        let path = self.prefix(prefix)?;
        let found: Vec<ObjectMeta> =
            self.attempt(prefix, "list", || objects.list(Some(&path)).try_collect()).await?;
        let mut infos: Vec<_> = found
            .into_iter()
            .filter(|meta| !self.is_staged(meta))
            .filter_map(|meta| Some(ObjectInfo::new(self.key(&meta.location)?, meta)))
            .collect();
        infos.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(infos)
    }

    /// The folders directly in the folder `prefix`, as keys, sorted. An absent folder has none.
    pub async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let objects = self.listable("list folders").await?;
        let path = self.prefix(prefix)?;
        let found = self
            .attempt(prefix, "list folders", || objects.list_with_delimiter(Some(&path)))
            .await?;
        let mut folders: Vec<_> =
            found.common_prefixes.iter().filter_map(|path| self.key(path)).collect();
        folders.sort_unstable();
        Ok(folders)
    }

    async fn listable(
        &self,
        action: &'static str,
    ) -> Result<std::sync::Arc<dyn object_store::ObjectStore>, StoreError> {
        match self.backend() {
            Backend::Http(_) => {
                Err(StoreError::Unsupported { url: self.location().to_string(), action })
            }
            _ => self.objects().await,
        }
    }

    fn is_staged(&self, meta: &ObjectMeta) -> bool {
        matches!(self.backend(), Backend::Local(_))
            && meta.location.filename().is_some_and(staged::is_staged)
    }
}
