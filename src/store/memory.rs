//! The memory backend, for tests.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ListResult, ObjectStore};

use super::backend::{Backend, attempt, sorted_contents};
use super::base::Base;
use super::error::StoreError;
use super::folder_walk::{ExpectedFiles, FolderContents};
use super::object_meta::ObjectMeta;
use super::put::put_whole;
use super::put_options::PutOptions;
use super::sink::Sink;

/// Objects in the memory of this process.
pub(super) struct MemoryBackend {
    base: Base,
    objects: Arc<InMemory>,
}

impl MemoryBackend {
    pub(super) fn new(base: Base) -> Self {
        Self { base, objects: Arc::new(InMemory::new()) }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn base(&self) -> &Base {
        &self.base
    }

    async fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(Arc::clone(&self.objects) as _)
    }

    fn is_remote(&self) -> bool {
        false
    }

    async fn list(
        &self,
        prefix: &str,
        action: &'static str,
        deep: bool,
        _: ExpectedFiles,
    ) -> Result<FolderContents, StoreError> {
        let path = self.base.prefix(prefix)?;
        let list = async || match deep {
            false => self.objects.list_with_delimiter(Some(&path)).await,
            true => {
                let objects = self.objects.list(Some(&path)).try_collect().await?;
                let (common_prefixes, extensions) = Default::default();
                Ok(ListResult { common_prefixes, objects, extensions })
            }
        };
        Ok(sorted_contents(&self.base, attempt(self, prefix, action, list).await?))
    }

    async fn exists(&self) -> Result<bool, StoreError> {
        let first = async || self.objects.list(Some(&self.base.root)).try_next().await;
        Ok(attempt(self, "", "list", first).await?.is_some())
    }

    async fn put(
        &self,
        key: &str,
        data: Vec<Bytes>,
        options: &PutOptions,
    ) -> Result<ObjectMeta, StoreError> {
        put_whole(self, key, data, options).await
    }

    async fn create(&self, key: &str) -> Result<Sink, StoreError> {
        Ok(Sink::parts(Arc::clone(&self.objects) as _, self.path(key)?))
    }
}
