//! The https backend: read-only, without listings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::http::HttpStore;

use super::backend::Backend;
use super::base::Base;
use super::error::StoreError;
use super::folder_walk::{ExpectedFiles, FolderContents};
use super::http_client::ClientStats;
use super::object_meta::ObjectMeta;
use super::put_options::PutOptions;
use super::sink::Sink;

/// Objects below an https URL.
pub(super) struct HttpBackend {
    pub base: Base,
    pub client: Arc<HttpStore>,
    pub stats: Arc<ClientStats>,
}

#[async_trait]
impl Backend for HttpBackend {
    fn base(&self) -> &Base {
        &self.base
    }

    async fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(Arc::clone(&self.client) as _)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn may_ignore_ranges(&self) -> bool {
        true
    }

    fn ignores_ranges(&self) -> bool {
        self.stats.ignores_ranges.load(Ordering::Relaxed)
    }

    fn can_list(&self) -> bool {
        false
    }

    async fn list(
        &self,
        _: &str,
        action: &'static str,
        _: bool,
        _: ExpectedFiles,
    ) -> Result<FolderContents, StoreError> {
        Err(StoreError::Unsupported { url: self.base.location.to_string(), action })
    }

    async fn exists(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn ensure_writable(&self) -> Result<(), StoreError> {
        Err(self.base.read_only())
    }

    async fn put(&self, _: &str, _: Vec<Bytes>, _: &PutOptions) -> Result<ObjectMeta, StoreError> {
        Err(self.base.read_only())
    }

    async fn create(&self, _: &str) -> Result<Sink, StoreError> {
        Err(self.base.read_only())
    }
}
