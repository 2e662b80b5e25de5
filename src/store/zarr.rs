//! A store as `zarrs` reads hierarchies: any codec, both versions of the format.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::prefix::PrefixStore;
use zarrs::storage::byte_range::ByteRangeIterator;
use zarrs::storage::{
    AsyncMaybeBytesIterator, AsyncReadableStorage, AsyncReadableStorageTraits, MaybeBytes,
    StorageError, StoreKey,
};
use zarrs_object_store::AsyncObjectStore;

use super::error::StoreError;
use super::open::Store;

/// The longest object that is read: a chunk of the arrays that others make has less.
const LONGEST: u64 = 256 << 20;

impl Store {
    /// The hierarchy below the folder `prefix` (`""`: the root), for reading.
    pub async fn zarr(&self, prefix: &str) -> Result<AsyncReadableStorage, StoreError> {
        let root = self.prefix(prefix)?;
        let all = AsyncObjectStore::new(PrefixStore::new(self.objects().await?, root));
        Ok(Arc::new(Limited(all)))
    }
}

/// Objects up to [`LONGEST`]: the library asks for those that are named by metadata, and whole.
struct Limited<T>(T);

impl<T: AsyncReadableStorageTraits> Limited<T> {
    async fn check(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        match self.0.size_key(key).await? {
            Some(size) if size > LONGEST => Err(StorageError::Other(format!(
                "{key} has {size} bytes, more than any chunk that is read here ({LONGEST})"
            ))),
            found => Ok(found),
        }
    }
}

#[async_trait]
impl<T: AsyncReadableStorageTraits> AsyncReadableStorageTraits for Limited<T> {
    async fn get(&self, key: &StoreKey) -> Result<MaybeBytes, StorageError> {
        match self.check(key).await? {
            Some(_) => self.0.get(key).await,
            None => Ok(None),
        }
    }

    async fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        ranges: ByteRangeIterator<'a>,
    ) -> Result<AsyncMaybeBytesIterator<'a>, StorageError> {
        match self.check(key).await? {
            Some(_) => self.0.get_partial_many(key, ranges).await,
            None => Ok(None),
        }
    }

    async fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        self.0.size_key(key).await
    }

    fn supports_get_partial(&self) -> bool {
        self.0.supports_get_partial()
    }
}
