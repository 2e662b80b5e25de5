//! A bucket of S3. Listings are read page by page and with bounds: the server need not come to an end by itself,
//! nor keep to the folder that it was asked for.

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

use super::backend::{Backend, attempt, found, reading};
use super::base::Base;
use super::bucket::Bucket;
use super::error::StoreError;
use super::folder_walk::{ExpectedFiles, FolderContents};
use super::multipart_cleanup::UploadedPart;
use super::object_meta::ObjectMeta;
use super::put::put_whole;
use super::put_options::{PutMode, PutOptions};
use super::sink::Sink;
use super::skipped::noting;
use super::translate::{ErrorContext, translate};

/// Bytes of memory that a name takes beside its own, here and where it is worked on.
const OF_NAME: u64 = 256;
/// Most names of one listing, whatever the memory.
const NAMES: usize = 20_000_000;
/// Most pages in a row that tell of nothing.
const EMPTY: usize = 1000;
/// Most bytes of an object: S3 takes 50 TB.
const LARGEST: u64 = 1 << 50;
/// Most bytes of all objects of a listing, so that they can be added up.
const ALL: u64 = 1 << 60;

/// How often a write on a condition is tried again when its connection was lost, and how long after.
const AGAIN: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// What has been tried for so long is not begun anew: the server cannot be reached, or is busy for good.
const LONG: Duration = Duration::from_secs(25);

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
        let site = ErrorContext {
            url: self.base.url(key),
            action,
            bucket: &self.bucket.name,
            endpoint,
            advice,
            anonymous: self.bucket.session.options.is_anonymous(),
            is_source_coop: self.is_source_coop(),
        };
        translate(error, site)
    }

    fn renew_credentials(&self, than: SystemTime) -> bool {
        self.bucket.renew_if_older(than)
    }

    /// Answers to HEAD have no body, so they cannot tell an absent bucket from an absent key or
    /// bad credentials from a forbidden object: a listing can.
    async fn explained(&self, key: &str, error: StoreError) -> StoreError {
        let vague = matches!(
            error,
            StoreError::NotFound { .. }
                | StoreError::PermissionDenied { .. }
                | StoreError::Refused { .. }
        );
        if !vague {
            return error;
        }
        match self.pages(key, "list", false, 1).await {
            Err(
                clear @ (StoreError::NoSuchBucket { .. }
                | StoreError::NoSuchProduct { .. }
                | StoreError::Credentials { .. }
                | StoreError::WrongRegion { .. }),
            ) => clear,
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
        let (listed, noted) = noting(self.pages(prefix, action, !deep, NAMES)).await;
        self.base.note_passed(noted);
        Ok(found(&self.base, listed?))
    }

    async fn exists(&self) -> Result<bool, StoreError> {
        Ok(!self.pages("", "list", false, 1).await?.objects.is_empty())
    }

    async fn put(
        &self,
        key: &str,
        data: Vec<Bytes>,
        sending: &PutOptions,
    ) -> Result<ObjectMeta, StoreError> {
        // The client does not send again what the server may have done, however many tries it has left: here
        // the condition guards it.
        let (mut left, most) = match sending.condition {
            PutMode::Always => (0, 0),
            PutMode::Absent | PutMode::Is(_) => (AGAIN, self.bucket.session.options.max_retries()),
        };
        loop {
            match put_whole(self, key, data.clone(), sending).await {
                Err(StoreError::RetriesExhausted { attempts, elapsed, .. })
                    if left > 0
                        && elapsed < LONG
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

    async fn parts_of(&self, key: &str, id: &str) -> Result<Vec<UploadedPart>, StoreError> {
        self.bucket.parts_of(&self.path(key)?, id).await
    }

    async fn abort_upload(&self, key: &str, id: &String) -> Result<bool, StoreError> {
        let (path, client) = (self.path(key)?, self.bucket.client().await?);
        match attempt(self, key, "abort", || client.abort_multipart(&path, id)).await {
            Ok(()) => return Ok(true),
            Err(error) if error.is_not_found() => {}
            // It takes room, and harms nobody.
            Err(error) => warn!(%error, upload = %id, "an unfinished upload stays"),
        }
        Ok(false)
    }

    fn is_source_coop(&self) -> bool {
        self.bucket.is_source_coop()
    }

    fn hides_md5(&self) -> bool {
        self.bucket.session.seen.hides_md5.load(Ordering::Relaxed)
    }

    fn failures(&self) -> u64 {
        self.bucket.session.seen.failures.load(Ordering::Relaxed)
    }
}

impl S3Backend {
    /// Pages of a bucket until the last; with `most` 1, until one tells of an object.
    async fn pages(
        &self,
        prefix: &str,
        action: &'static str,
        one_level: bool,
        most: usize,
    ) -> Result<ListResult, StoreError> {
        let (client, path) = (self.bucket.client().await?, self.base.prefix(prefix)?);
        let folder = (!path.is_root()).then(|| format!("{path}/"));
        let wrong = |detail: String| StoreError::BadListing { url: self.base.url(prefix), detail };
        let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
        let (mut token, mut tokens) = (None::<String>, HashSet::new());
        let (mut empty, mut bytes, mut held) = (0, 0u64, 0u64);
        loop {
            let ask = || {
                let options = PaginatedListOptions {
                    delimiter: one_level.then(|| "/".into()),
                    page_token: token.clone(),
                    ..PaginatedListOptions::default()
                };
                let (client, folder) = (Arc::clone(&client), folder.clone());
                async move { client.list_paginated(folder.as_deref(), options).await }
            };
            let page = reading(self, prefix, action, ask).await?;
            let ListResult { objects: new, common_prefixes: folders, .. } = page.result;
            empty = if new.is_empty() && folders.is_empty() { empty + 1 } else { 0 };
            for object_store::ObjectMeta { size, location, .. } in &new {
                bytes = bytes.saturating_add(*size);
                if *size > LARGEST || bytes > ALL {
                    let detail =
                        format!("it tells of {size} bytes in {location}, and {bytes} in all");
                    return Err(wrong(detail));
                }
            }
            let names = new.iter().map(|object| &object.location).chain(&folders);
            held += names.map(|name| OF_NAME + 2 * name.as_ref().len() as u64).sum::<u64>();
            objects.extend(new);
            common_prefixes.extend(folders);
            token = page.page_token.filter(|token| !token.is_empty());
            let Some(token) = &token else { break };
            held += token.len() as u64;
            let (names, room) = (objects.len() + common_prefixes.len(), self.base.listing);
            if held > room {
                let url = self.base.url(prefix);
                return Err(StoreError::ListingTooLong { url, names, most: room });
            }
            if !tokens.insert(token.clone()) {
                return Err(wrong("it gives the same continuation token twice".to_owned()));
            }
            match names {
                found if most == 1 && found > 0 => break,
                found if found > NAMES || empty > EMPTY => {
                    let pages = tokens.len();
                    return Err(wrong(format!("it does not end: {pages} pages, {found} names")));
                }
                _ => {}
            }
        }
        let extensions = Default::default();
        Ok(self.below(&path, ListResult { objects, common_prefixes, extensions }))
    }

    /// Only what is below the folder that was asked for. Whatever else a server tells of is passed over.
    fn below(&self, folder: &ObjectPath, mut found: ListResult) -> ListResult {
        let is_below = |name: &ObjectPath| {
            folder.is_root()
                || name.as_ref().strip_prefix(folder.as_ref()).is_some_and(|n| n.starts_with('/'))
        };
        let before = found.objects.len() + found.common_prefixes.len();
        found.objects.retain(|object| is_below(&object.location));
        found.common_prefixes.retain(is_below);
        let others = before - found.objects.len() - found.common_prefixes.len();
        if others > 0 {
            let place = &self.base.location;
            warn!("{place}: the server listed {others} names outside of {folder}/: passed over");
        }
        found
    }
}
