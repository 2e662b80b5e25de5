//! Objects on the web, which can only be read, and not be listed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::http::HttpStore;

use super::backend::Backend;
use super::base::Base;
use super::connect::Seen;
use super::error::StoreError;
use super::object_info::ObjectInfo;
use super::send::Sending;
use super::sink::Sink;
use super::walk::{Expected, Found};

pub(super) struct Http {
    pub base: Base,
    pub client: Arc<HttpStore>,
    pub seen: Arc<Seen>,
}

#[async_trait]
impl Backend for Http {
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
        self.seen.ignores_ranges.load(Ordering::Relaxed)
    }

    fn can_list(&self) -> bool {
        false
    }

    async fn list(
        &self,
        _: &str,
        action: &'static str,
        _: bool,
        _: Expected,
    ) -> Result<Found, StoreError> {
        Err(StoreError::Unsupported { url: self.base.location.to_string(), action })
    }

    async fn exists(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn refuse_read_only(&self) -> Result<(), StoreError> {
        Err(self.base.read_only())
    }

    async fn put(&self, _: &str, _: Vec<Bytes>, _: &Sending) -> Result<ObjectInfo, StoreError> {
        Err(self.base.read_only())
    }

    async fn create(&self, _: &str) -> Result<Sink, StoreError> {
        Err(self.base.read_only())
    }
}
