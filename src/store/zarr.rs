//! Zarr hierarchies in a store, for reading with `zarrs` (Zarr v2 and v3).

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
use super::registry::Store;

/// Bytes that codecs may add to a chunk (checksums, frames, the index of a shard).
const SLACK: u64 = 1 << 20;

impl Store {
    /// The hierarchy below the folder `prefix` (`""`: the root). Objects of more than `max_chunk` bytes,
    /// plus an allowance for codecs, are errors.
    ///
    /// # Errors
    /// The prefix is invalid, or the client cannot be created.
    pub async fn zarr(
        &self,
        prefix: &str,
        max_chunk: u64,
    ) -> Result<AsyncReadableStorage, StoreError> {
        let root = self.backend().base().prefix(prefix)?;
        let inner = AsyncObjectStore::new(PrefixStore::new(self.backend().objects().await?, root));
        Ok(Arc::new(SizeLimited { inner, limit: max_chunk.saturating_add(SLACK) }))
    }
}

/// Rejects objects of more than `limit` bytes. `zarrs` reads whole objects into memory.
struct SizeLimited<T> {
    inner: T,
    /// In bytes.
    limit: u64,
}

impl<T: AsyncReadableStorageTraits> SizeLimited<T> {
    /// The size of an object; `None` if it does not exist.
    async fn check(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        match self.inner.size_key(key).await? {
            Some(size) if size > self.limit => Err(StorageError::Other(format!(
                "{key} has {size} bytes, more than the limit of {} bytes for a chunk",
                self.limit
            ))),
            size => Ok(size),
        }
    }
}

#[async_trait]
impl<T: AsyncReadableStorageTraits> AsyncReadableStorageTraits for SizeLimited<T> {
    async fn get(&self, key: &StoreKey) -> Result<MaybeBytes, StorageError> {
        match self.check(key).await? {
            Some(_) => self.inner.get(key).await,
            None => Ok(None),
        }
    }

    async fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        ranges: ByteRangeIterator<'a>,
    ) -> Result<AsyncMaybeBytesIterator<'a>, StorageError> {
        match self.check(key).await? {
            Some(_) => self.inner.get_partial_many(key, ranges).await,
            None => Ok(None),
        }
    }

    async fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        self.inner.size_key(key).await
    }

    fn supports_get_partial(&self) -> bool {
        self.inner.supports_get_partial()
    }
}
