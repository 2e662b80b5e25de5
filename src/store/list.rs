//! Listing: whole trees by pages of 1000 keys, or one level.
//!
//! A listing is a list of whatever lies there. What cannot be addressed or read, and what is no file, is
//! passed over and counted ([`Store::passed_over`]), unless the caller says that it should be one of its own.

use object_store::ObjectMeta;

use super::blocking::blocking;
use super::error::StoreError;
use super::object_info::ObjectInfo;
use super::open::{Backend, Store};
use super::passed::noting;
use super::walk::{Expected, Found, walk};

impl Store {
    /// All objects below the folder `prefix` (`""`: the root), sorted by key. One request for
    /// every 1000 of them, and none for each. An absent folder is empty. Files that a writer has
    /// not finished are not listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.list_ours(prefix, |_| false).await
    }

    /// The same where keys that are `ours` must be those of objects: what has the name of one on disk
    /// and is no file, or leads to none, is an error.
    pub async fn list_ours(
        &self,
        prefix: &str,
        ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<ObjectInfo>, StoreError> {
        if let Some(found) = self.walk(prefix, true, Expected::Files(Box::new(ours))).await? {
            return Ok(found.files);
        }
        self.refuse_unlistable("list")?;
        let found = self.noted(self.listing(prefix, "list", false)).await?;
        Ok(self.infos(found.objects))
    }

    /// The folders directly in the folder `prefix`, as keys, sorted. An absent folder has none.
    pub async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.list_dirs_ours(prefix, |_| false).await
    }

    /// The same where keys that are `ours` must be those of folders: a link on disk that leads
    /// nowhere and has the name of one is an error.
    pub async fn list_dirs_ours(
        &self,
        prefix: &str,
        ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<String>, StoreError> {
        if let Some(found) = self.walk(prefix, false, Expected::Folders(Box::new(ours))).await? {
            return Ok(found.folders);
        }
        self.refuse_unlistable("list folders")?;
        let found = self.noted(self.listing(prefix, "list folders", true)).await?;
        let mut folders: Vec<_> =
            found.common_prefixes.iter().filter_map(|path| self.key(path)).collect();
        folders.sort_unstable();
        Ok(folders)
    }

    /// The objects directly in the folder `prefix`, sorted by key.
    pub async fn list_level(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        if let Some(found) = self.walk(prefix, false, Expected::nothing()).await? {
            return Ok(found.files);
        }
        self.refuse_unlistable("list")?;
        let found = self.noted(self.listing(prefix, "list", true)).await?;
        Ok(self.infos(found.objects))
    }

    /// Whether there are listings: over https there are none.
    pub fn can_list(&self) -> bool {
        !matches!(self.backend(), Backend::Http(..))
    }

    fn refuse_unlistable(&self, action: &'static str) -> Result<(), StoreError> {
        match self.can_list() {
            true => Ok(()),
            false => Err(StoreError::Unsupported { url: self.location().to_string(), action }),
        }
    }

    fn infos(&self, found: Vec<ObjectMeta>) -> Vec<ObjectInfo> {
        let info = |meta: ObjectMeta| Some(ObjectInfo::new(self.key(&meta.location)?, meta));
        let mut infos: Vec<_> = found.into_iter().filter_map(info).collect();
        infos.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        infos
    }

    /// Lists a bucket, and keeps what was passed over.
    async fn noted<T>(
        &self,
        listing: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (result, noted) = noting(listing).await;
        self.note_passed(noted);
        result
    }

    /// What lies in a folder on disk, sorted; `None` when the store is not on disk.
    async fn walk(
        &self,
        prefix: &str,
        deep: bool,
        expected: Expected,
    ) -> Result<Option<Found>, StoreError> {
        let Some(folder) = self.folder(prefix)? else { return Ok(None) };
        let key = prefix.trim_end_matches('/').to_owned();
        let list = move || Ok(walk(&folder, &key, deep, &expected));
        let mut found = blocking(&self.url(prefix), "list", list).await??;
        self.note_passed(std::mem::take(&mut found.passed));
        Ok(Some(found))
    }
}
