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
use super::registry::Store;

/// Bytes that a codec may add to a chunk: checksums, frames, the index of a shard.
const SLACK: u64 = 1 << 20;

impl Store {
    /// The hierarchy below the folder `prefix` (`""`: the root), for reading objects of chunks of up to
    /// `longest` bytes.
    pub async fn zarr(
        &self,
        prefix: &str,
        longest: u64,
    ) -> Result<AsyncReadableStorage, StoreError> {
        let root = self.backend().base().prefix(prefix)?;
        let all = AsyncObjectStore::new(PrefixStore::new(self.backend().objects().await?, root));
        Ok(Arc::new(SizeLimited { all, longest: longest.saturating_add(SLACK) }))
    }
}

/// Objects up to a length: the library asks for those that are named by metadata, and whole.
struct SizeLimited<T> {
    all: T,
    longest: u64,
}

impl<T: AsyncReadableStorageTraits> SizeLimited<T> {
    async fn check(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        match self.all.size_key(key).await? {
            Some(size) if size > self.longest => Err(StorageError::Other(format!(
                "{key} has {size} bytes, more than any chunk that is read here ({})",
                self.longest
            ))),
            found => Ok(found),
        }
    }
}

#[async_trait]
impl<T: AsyncReadableStorageTraits> AsyncReadableStorageTraits for SizeLimited<T> {
    async fn get(&self, key: &StoreKey) -> Result<MaybeBytes, StorageError> {
        match self.check(key).await? {
            Some(_) => self.all.get(key).await,
            None => Ok(None),
        }
    }

    async fn get_partial_many<'a>(
        &'a self,
        key: &StoreKey,
        ranges: ByteRangeIterator<'a>,
    ) -> Result<AsyncMaybeBytesIterator<'a>, StorageError> {
        match self.check(key).await? {
            Some(_) => self.all.get_partial_many(key, ranges).await,
            None => Ok(None),
        }
    }

    async fn size_key(&self, key: &StoreKey) -> Result<Option<u64>, StorageError> {
        self.all.size_key(key).await
    }

    fn supports_get_partial(&self) -> bool {
        self.all.supports_get_partial()
    }
}
