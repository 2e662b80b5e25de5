//! A store as `zarrs` reads hierarchies: any codec, both versions of the format.

use std::sync::Arc;

use object_store::prefix::PrefixStore;
use zarrs::storage::AsyncReadableStorage;
use zarrs_object_store::AsyncObjectStore;

use super::error::StoreError;
use super::open::Store;

impl Store {
    /// The hierarchy below the folder `prefix` (`""`: the root), for reading.
    pub async fn zarr(&self, prefix: &str) -> Result<AsyncReadableStorage, StoreError> {
        let root = self.prefix(prefix)?;
        Ok(Arc::new(AsyncObjectStore::new(PrefixStore::new(self.objects().await?, root))))
    }
}
