//! Folders of a store on disk; elsewhere there are none.

use std::path::PathBuf;

use super::blocking::blocking;
use super::error::StoreError;
use super::open::{Backend, Store};
use super::staged;

impl Store {
    /// Makes the folder on disk; elsewhere there are no folders to make.
    pub async fn make_root(&self) -> Result<(), StoreError> {
        match self.folder("")? {
            None => Ok(()),
            Some(folder) => {
                let make = move || staged::create_folders(&folder);
                blocking(&self.location().to_string(), "make", make).await
            }
        }
    }

    /// Removes the folders on disk that an object was in, as far as they are empty. Others must not
    /// write there meanwhile.
    pub async fn prune(&self, key: &str) -> Result<(), StoreError> {
        let Some(root) = self.folder("")? else { return Ok(()) };
        let folders: Vec<_> =
            key.rmatch_indices('/').map(|(end, _)| root.join(&key[..end])).collect();
        let prune = move || {
            // The first that is not empty ends it.
            let _ = folders.iter().try_for_each(std::fs::remove_dir);
            Ok(())
        };
        blocking(&self.url(key), "remove the folder of", prune).await
    }

    /// Removes what killed writers left below the folder `prefix` on disk: unfinished files of
    /// dead processes of this host, and of other hosts when older than a day. How many.
    pub async fn sweep(&self, prefix: &str) -> Result<usize, StoreError> {
        match self.folder(prefix)? {
            None => Ok(0),
            Some(folder) => {
                blocking(&self.url(prefix), "sweep", move || staged::sweep(&folder)).await
            }
        }
    }

    /// The folder on disk that `prefix` names; `None` when the store is not on disk.
    pub(super) fn folder(&self, prefix: &str) -> Result<Option<PathBuf>, StoreError> {
        let Backend::Local(disk) = self.backend() else {
            return Ok(None);
        };
        let path = self.prefix(prefix)?;
        if path.is_root() {
            return Ok(Some(PathBuf::from("/")));
        }
        disk.path_to_filesystem(&path).map(Some).map_err(|source| StoreError::Library {
            url: self.url(prefix),
            action: "find",
            source,
        })
    }
}
