//! Folders of a store on disk; elsewhere there are none.

use super::error::StoreError;
use super::path_conflicts::PathConflicts;
use super::registry::Store;

impl Store {
    /// Makes the folder on disk; elsewhere there are no folders to make.
    pub async fn make_root(&self) -> Result<(), StoreError> {
        self.backend().make_root().await
    }

    /// Removes the folders on disk that an object was in, as far as they are empty. Others must not
    /// write there meanwhile.
    pub async fn remove_empty_parents(&self, key: &str) -> Result<(), StoreError> {
        self.backend().remove_empty_parents(key).await
    }

    /// Removes what killed writers left below the folder `prefix` on disk: unfinished files of
    /// dead processes of this host, and of other hosts when older than a day. How many.
    pub async fn remove_stale_temp_files(&self, prefix: &str) -> Result<usize, StoreError> {
        self.backend().remove_stale_temp_files(prefix).await
    }

    /// What is in the way of these objects; nothing ever is but on disk.
    pub async fn obstacles(&self, keys: Vec<String>) -> Result<PathConflicts, StoreError> {
        self.backend().obstacles(keys).await
    }

    /// Removes folders that have the names of objects, as far as no files are in them.
    pub async fn remove_empty_folders(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.backend().remove_empty_folders(keys).await
    }
}
