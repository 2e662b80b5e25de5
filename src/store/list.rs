//! Listing: whole trees by pages of 1000 keys, or one level.
//!
//! A listing is a list of whatever lies there. What cannot be addressed or read, and what is no file, is
//! passed over and counted ([`Store::skipped`]), unless the caller says that it should be one of its own.

use super::error::StoreError;
use super::folder_walk::ExpectedFiles;
use super::object_meta::ObjectMeta;
use super::registry::Store;
use super::skipped::SkipReason;
use super::tree_walk::{SourceFile, public_keys};

impl Store {
    /// All objects below the folder `prefix` (`""`: the root), sorted by key. One request for
    /// every 1000 of them, and none for each. An absent folder is empty. Files that a writer has
    /// not finished are not listed.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        self.list_ours(prefix, |_| false).await
    }

    /// The same where keys that are `ours` must be those of objects: what has the name of one on disk
    /// and is no file, or leads to none, is an error.
    pub async fn list_ours(
        &self,
        prefix: &str,
        ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let expected = ExpectedFiles::Files(Box::new(ours));
        Ok(self.backend().list(prefix, "list", true, expected).await?.files)
    }

    /// The folders directly in the folder `prefix`, as keys, sorted. An absent folder has none.
    pub async fn list_prefixes(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.list_dirs_ours(prefix, |_| false).await
    }

    /// The same where keys that are `ours` must be those of folders: a link on disk that leads
    /// nowhere and has the name of one is an error.
    pub async fn list_dirs_ours(
        &self,
        prefix: &str,
        ours: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<String>, StoreError> {
        let expected = ExpectedFiles::Folders(Box::new(ours));
        Ok(self.backend().list(prefix, "list folders", false, expected).await?.folders)
    }

    /// The objects directly in the folder `prefix`, sorted by key.
    pub async fn list_with_delimiter(&self, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
        Ok(self.backend().list(prefix, "list", false, ExpectedFiles::nothing()).await?.files)
    }

    /// Whether there are listings: over https there are none.
    pub fn can_list(&self) -> bool {
        self.backend().can_list()
    }

    /// The public objects in the folder `prefix` (`""`: the root) that are `wanted`, sorted by key;
    /// with `deep` also those in its folders. On disk, links that lead nowhere or in a circle,
    /// files and folders that cannot be read, and what is no file are errors: they may have been
    /// readable when they were published. What no object can be named is passed over.
    pub async fn survey(
        &self,
        prefix: &str,
        deep: bool,
        wanted: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<SourceFile>, StoreError> {
        let mut found = self.backend().survey(prefix, deep, Box::new(wanted)).await?;
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// Keys of all public objects. What is hidden and not `ours` counts as passed over, a folder on disk once.
    pub async fn list_keys(&self, ours: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
        let (listed, root) = (self.list("").await?, self.backend().disk_path(""));
        let (found, passed) = public_keys(listed, root.as_deref(), ours);
        self.backend().base().note_passed(passed);
        Ok(found)
    }

    /// What the listings of this store have passed over so far: why, how many, and one of them.
    pub fn skipped(&self) -> Vec<(SkipReason, usize, String)> {
        self.backend().base().passed().counts()
    }

    /// Says in one warning what was passed over, unless that has been said. Otherwise it is said
    /// when the last handle of the store goes.
    pub fn log_skipped(&self) {
        self.backend().base().passed().tell(self.location());
    }
}
