//! The S3 backend. Listings are read page by page with limits, because a faulty server may return an
//! endless listing, or names outside of the requested folder.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use object_store::{ListResult, ObjectStore};
use tracing::warn;

use super::backend::{Backend, attempt, attempt_read, sorted_contents};
use super::base::Base;
use super::bucket::Bucket;
use super::error::StoreError;
use super::folder_walk::{ExpectedFiles, FolderContents};
use super::multipart_cleanup::UploadedPart;
use super::object_meta::ObjectMeta;
use super::put::put_whole;
use super::put_options::{PutMode, PutOptions};
use super::sink::Sink;
use super::skipped::with_skipped;
use super::translate::{ErrorContext, translate};

/// Memory per name of a listing beyond its text, in bytes, in this module and in its callers.
const NAME_OVERHEAD: u64 = 256;
/// Most names of one listing, for any amount of memory.
const MAX_NAMES: usize = 20_000_000;
/// Most consecutive empty pages of a listing.
const MAX_EMPTY_PAGES: usize = 1000;
/// Largest plausible object, in bytes. The limit of S3 is 50 TB.
const MAX_OBJECT: u64 = 1 << 50;
/// Largest plausible total of a listing, in bytes. It keeps sums from overflowing.
const MAX_TOTAL: u64 = 1 << 60;

/// Number of retries of a conditional write after a lost connection.
const RETRIES: u32 = 3;
/// Pause before each of these retries.
const PAUSE: Duration = Duration::from_secs(1);
/// A conditional write that failed after this time is not retried: the server is unreachable or
/// overloaded.
const RETRY_WITHIN: Duration = Duration::from_secs(25);

/// Objects below a prefix of a bucket.
pub(super) struct S3Backend {
    pub base: Base,
    pub bucket: Arc<Bucket>,
}

#[async_trait]
impl Backend for S3Backend {
    fn base(&self) -> &Base {
        &self.base
    }

    fn parent(&self) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { base: self.base.parent()?, bucket: Arc::clone(&self.bucket) }))
    }

    async fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(self.bucket.client().await? as _)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn translate(&self, key: &str, action: &'static str, error: object_store::Error) -> StoreError {
        let (endpoint, advice) = self.bucket.endpoint_and_advice();
        let context = ErrorContext {
            url: self.base.url(key),
            action,
            bucket: &self.bucket.name,
            endpoint,
            advice,
            anonymous: self.bucket.session.options.is_anonymous(),
            is_source_coop: self.is_source_coop(),
        };
        translate(error, context)
    }

    fn renew_credentials(&self, time: SystemTime) -> bool {
        self.bucket.renew_if_older(time)
    }

    /// A response to HEAD has no body, so it does not distinguish an absent bucket from an absent key,
    /// or rejected credentials from a forbidden object. The error of a listing does.
    async fn explain_error(&self, key: &str, error: StoreError) -> StoreError {
        let is_ambiguous = matches!(
            error,
            StoreError::NotFound { .. }
                | StoreError::PermissionDenied { .. }
                | StoreError::Refused { .. }
        );
        if !is_ambiguous {
            return error;
        }
        match self.pages(key, "list", false, 1).await {
            Err(
                precise @ (StoreError::NoSuchBucket { .. }
                | StoreError::NoSuchProduct { .. }
                | StoreError::Credentials { .. }
                | StoreError::WrongRegion { .. }),
            ) => precise,
            _ => error,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        action: &'static str,
        deep: bool,
        _: ExpectedFiles,
    ) -> Result<FolderContents, StoreError> {
        let (listed, skipped) = with_skipped(self.pages(prefix, action, !deep, MAX_NAMES)).await;
        self.base.record_skipped(skipped);
        Ok(sorted_contents(&self.base, listed?))
    }

    async fn exists(&self) -> Result<bool, StoreError> {
        Ok(!self.pages("", "list", false, 1).await?.objects.is_empty())
    }

    async fn put(
        &self,
        key: &str,
        data: Vec<Bytes>,
        options: &PutOptions,
    ) -> Result<ObjectMeta, StoreError> {
        // `object_store` does not retry a write that the server may have executed. The condition makes
        // such a retry safe.
        let (mut left, most) = match options.condition {
            PutMode::Always => (0, 0),
            PutMode::Absent | PutMode::Is(_) => {
                (RETRIES, self.bucket.session.options.max_retries())
            }
        };
        loop {
            match put_whole(self, key, data.clone(), options).await {
                Err(StoreError::RetriesExhausted { attempts, elapsed, .. })
                    if left > 0
                        && elapsed < RETRY_WITHIN
                        && (attempts == 1 || attempts as usize <= most) =>
                {
                    left -= 1;
                }
                result => return result,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn create(&self, key: &str) -> Result<Sink, StoreError> {
        let path = self.path(key)?;
        Ok(Sink::parts(self.bucket.client().await?, path))
    }

    async fn uploads(&self, key: &str) -> Result<Vec<String>, StoreError> {
        self.bucket.uploads(&self.path(key)?).await
    }

    async fn list_parts(&self, key: &str, id: &str) -> Result<Vec<UploadedPart>, StoreError> {
        self.bucket.list_parts(&self.path(key)?, id).await
    }

    async fn abort_upload(&self, key: &str, id: &String) -> Result<bool, StoreError> {
        let (path, client) = (self.path(key)?, self.bucket.client().await?);
        match attempt(self, key, "abort", || client.abort_multipart(&path, id)).await {
            Ok(()) => return Ok(true),
            Err(error) if error.is_not_found() => {}
            // The parts only take space, so the caller goes on.
            Err(error) => {
                warn!(%error, upload = %id, "cannot abort an unfinished upload; its parts remain")
            }
        }
        Ok(false)
    }

    fn is_source_coop(&self) -> bool {
        self.bucket.is_source_coop()
    }

    fn hides_md5(&self) -> bool {
        self.bucket.session.stats.hides_md5.load(Ordering::Relaxed)
    }

    fn failures(&self) -> u64 {
        self.bucket.session.stats.failures.load(Ordering::Relaxed)
    }
}

impl S3Backend {
    /// Lists all pages of a bucket; with `most` 1, the pages up to the first that has a name.
    ///
    /// # Errors
    /// [`StoreError::BadListing`] if the listing is invalid or endless, [`StoreError::ListingTooLong`]
    /// if it exceeds the memory of the [`Base`], or another error of a request.
    async fn pages(
        &self,
        prefix: &str,
        action: &'static str,
        one_level: bool,
        most: usize,
    ) -> Result<ListResult, StoreError> {
        let (client, path) = (self.bucket.client().await?, self.base.prefix(prefix)?);
        let folder = (!path.is_root()).then(|| format!("{path}/"));
        let invalid =
            |detail: String| StoreError::BadListing { url: self.base.url(prefix), detail };
        let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
        let (mut token, mut tokens) = (None::<String>, HashSet::new());
        let (mut empty, mut bytes, mut memory) = (0, 0u64, 0u64);
        loop {
            let request = || {
                let options = PaginatedListOptions {
                    delimiter: one_level.then(|| "/".into()),
                    page_token: token.clone(),
                    ..PaginatedListOptions::default()
                };
                let (client, folder) = (Arc::clone(&client), folder.clone());
                async move { client.list_paginated(folder.as_deref(), options).await }
            };
            let page = attempt_read(self, prefix, action, request).await?;
            let ListResult { objects: new, common_prefixes: folders, .. } = page.result;
            empty = if new.is_empty() && folders.is_empty() { empty + 1 } else { 0 };
            for object_store::ObjectMeta { size, location, .. } in &new {
                bytes = bytes.saturating_add(*size);
                if *size > MAX_OBJECT || bytes > MAX_TOTAL {
                    let detail =
                        format!("it states {size} bytes for {location} and {bytes} bytes in total");
                    return Err(invalid(detail));
                }
            }
            let names = new.iter().map(|object| &object.location).chain(&folders);
            memory += names.map(|name| NAME_OVERHEAD + 2 * name.as_ref().len() as u64).sum::<u64>();
            objects.extend(new);
            common_prefixes.extend(folders);
            token = page.page_token.filter(|token| !token.is_empty());
            let Some(token) = &token else { break };
            memory += token.len() as u64;
            let (names, limit) = (objects.len() + common_prefixes.len(), self.base.listing_memory);
            if memory > limit {
                let url = self.base.url(prefix);
                return Err(StoreError::ListingTooLong { url, names, most: limit });
            }
            if !tokens.insert(token.clone()) {
                return Err(invalid("it returns the same continuation token twice".to_owned()));
            }
            match names {
                count if most == 1 && count > 0 => break,
                count if count > MAX_NAMES || empty > MAX_EMPTY_PAGES => {
                    let pages = tokens.len();
                    return Err(invalid(format!("it does not end: {pages} pages, {count} names")));
                }
                _ => {}
            }
        }
        let extensions = Default::default();
        Ok(self.below(&path, ListResult { objects, common_prefixes, extensions }))
    }

    /// Removes the names that are not below the requested folder, which a faulty server may return.
    fn below(&self, folder: &ObjectPath, mut listing: ListResult) -> ListResult {
        let is_below = |name: &ObjectPath| {
            folder.is_root()
                || name.as_ref().strip_prefix(folder.as_ref()).is_some_and(|n| n.starts_with('/'))
        };
        let before = listing.objects.len() + listing.common_prefixes.len();
        listing.objects.retain(|object| is_below(&object.location));
        listing.common_prefixes.retain(is_below);
        let others = before - listing.objects.len() - listing.common_prefixes.len();
        if others > 0 {
            let location = &self.base.location;
            warn!(
                "{location}: skipped {others} names outside of {folder}/ in the listing of the server"
            );
        }
        listing
    }
}
