//! Listings of a store: recursive, or of one level.
//!
//! A listing skips and counts ([`Store::skipped`]) entries that cannot be addressed or read, and special
//! files. The methods `..._ours` fail instead if the caller expects the key of such an entry.

use super::error::StoreError;
use super::folder_walk::ExpectedFiles;
use super::object_meta::ObjectMeta;
use super::registry::Store;
use super::skipped::SkipReason;
use super::tree_walk::{SourceFile, public_keys};

impl Store {
    /// Lists all objects below the folder `prefix` (`""`: the root), sorted by key. On S3 this takes one
    /// request per 1000 objects. An absent folder is empty. Temporary files are not listed.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.list_expecting_files(prefix, |_| false).await
    }

    /// Like [`Store::list`], but an entry whose key `ours` accepts must be a readable file.
    ///
    /// # Errors
    /// The folder cannot be listed, or an entry that `ours` accepts is on disk and not a readable file.
    pub async fn list_expecting_files(
        &self,
        prefix: &str,
        ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let expected = ExpectedFiles::Files(Box::new(ours));
        Ok(self.backend().list(prefix, "list", true, expected).await?.files)
    }

    /// Lists the keys of the direct subfolders of the folder `prefix`, sorted. An absent folder is empty.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.list_expecting_folders(prefix, |_| false).await
    }

    /// Like [`Store::list_folders`], but an entry whose key `ours` accepts must be a folder.
    ///
    /// # Errors
    /// The folder cannot be listed, or an entry that `ours` accepts is on disk and a dangling link.
    pub async fn list_expecting_folders(
        &self,
        prefix: &str,
        ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<String>, StoreError> {
        let expected = ExpectedFiles::Folders(Box::new(ours));
        Ok(self.backend().list(prefix, "list folders", false, expected).await?.folders)
    }

    /// Lists the direct objects of the folder `prefix`, sorted by key.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub async fn list_with_delimiter(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        Ok(self.backend().list(prefix, "list", false, ExpectedFiles::nothing()).await?.files)
    }

    /// Whether the store supports listings; over https it does not.
    pub fn can_list(&self) -> bool {
        self.backend().can_list()
    }

    /// Lists the public objects in the folder `prefix` (`""`: the root) whose keys `filter` accepts,
    /// sorted by key; with `deep` also those of its subfolders. Names that cannot be object keys are
    /// skipped.
    ///
    /// # Errors
    /// The folder cannot be listed. On disk also a dangling or circular link, an unreadable file or
    /// folder, or a special file: an earlier publication may contain it, so it does not count as absent.
    pub async fn list_publishable(
        &self,
        prefix: &str,
        deep: bool,
        filter: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<SourceFile>, StoreError> {
        let mut files = self.backend().list_publishable(prefix, deep, Box::new(filter)).await?;
        files.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(files)
    }

    /// Lists the keys of all public objects. A hidden object that `ours` does not accept counts as
    /// skipped; on disk a hidden folder counts once.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn list_keys(&self, ours: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let (listed, root) = (self.list("").await?, self.backend().disk_path(""));
        let (keys, skipped) = public_keys(listed, root.as_deref(), ours);
        self.backend().base().record_skipped(skipped);
        Ok(keys)
    }

    /// The entries that the listings of this store have skipped so far: reason, number, and one name.
    pub fn skipped(&self) -> Vec<(SkipReason, usize, String)> {
        self.backend().base().skip_counts().counts()
    }

    /// Logs one warning about skipped entries, if there are new ones. Dropping the last handle of the
    /// store does the same.
    pub fn log_skipped(&self) {
        self.backend().base().skip_counts().warn_new(self.location());
    }
}
