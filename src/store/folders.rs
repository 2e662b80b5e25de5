//! Operations on the folders of a store on disk. Other stores have no folders; there they do nothing.

use super::error::StoreError;
use super::path_conflicts::PathConflicts;
use super::registry::Store;

impl Store {
    /// Creates the root folder of the store, if it is on disk.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub async fn make_root(&self) -> Result<(), StoreError> {
        self.backend().make_root().await
    }

    /// Removes the parent folders of an object on disk that are empty. Other processes must not write
    /// there at the same time.
    ///
    /// # Errors
    /// A folder cannot be removed.
    pub async fn remove_empty_parents(&self, key: &str) -> Result<(), StoreError> {
        self.backend().remove_empty_parents(key).await
    }

    /// Removes temporary files on disk below the folder `prefix` whose writer no longer runs: those of
    /// dead processes of this host, and those of other hosts that are older than a day. Returns their
    /// number.
    ///
    /// # Errors
    /// A folder cannot be listed, or a file cannot be removed.
    pub async fn remove_stale_temp_files(&self, prefix: &str) -> Result<usize, StoreError> {
        self.backend().remove_stale_temp_files(prefix).await
    }

    /// Files and folders on disk that prevent writing these objects. Empty for other stores.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub async fn path_conflicts(&self, keys: Vec<String>) -> Result<PathConflicts, StoreError> {
        self.backend().path_conflicts(keys).await
    }

    /// Removes folders whose names are keys of objects. A folder that contains files stays.
    ///
    /// # Errors
    /// A folder cannot be listed or removed.
    pub async fn remove_empty_folders(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.backend().remove_empty_folders(keys).await
    }
}
