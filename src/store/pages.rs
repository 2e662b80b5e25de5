//! Listings of buckets, page by page and with bounds: the server need not come to an end by itself, nor keep
//! to the folder that it was asked for.

use std::collections::HashSet;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path as ObjectPath;
use object_store::{ListResult, ObjectMeta};
use tracing::warn;

use super::error::StoreError;
use super::open::{Backend, Store};

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

impl Store {
    /// What is below the folder `prefix`: of one level, or all objects.
    pub(super) async fn listing(
        &self,
        prefix: &str,
        action: &'static str,
        one_level: bool,
    ) -> Result<ListResult, StoreError> {
        if let Backend::S3(_) = self.backend() {
            return self.pages(prefix, action, one_level, NAMES).await;
        }
        let path = self.prefix(prefix)?;
        let objects = self.objects().await?;
        let list = async || match one_level {
            true => objects.list_with_delimiter(Some(&path)).await,
            false => {
                let objects = objects.list(Some(&path)).try_collect().await?;
                let (common_prefixes, extensions) = Default::default();
                Ok(ListResult { common_prefixes, objects, extensions })
            }
        };
        self.attempt(prefix, action, list).await
    }

    /// Whether there is anything below the folder `prefix`.
    pub(super) async fn has_any(&self, prefix: &str) -> Result<bool, StoreError> {
        if let Backend::S3(_) = self.backend() {
            let found = self.pages(prefix, "list", false, 1).await?;
            return Ok(!found.objects.is_empty());
        }
        let (objects, path) = (self.objects().await?, self.prefix(prefix)?);
        let first = async || objects.list(Some(&path)).try_next().await;
        Ok(self.attempt(prefix, "list", first).await?.is_some())
    }

    /// Pages of a bucket until the last; with `most` 1, until one tells of an object.
    async fn pages(
        &self,
        prefix: &str,
        action: &'static str,
        one_level: bool,
        most: usize,
    ) -> Result<ListResult, StoreError> {
        let Backend::S3(bucket) = self.backend() else { return Err(self.read_only()) };
        let (client, path) = (bucket.client().await?, self.prefix(prefix)?);
        let folder = (!path.is_root()).then(|| format!("{path}/"));
        let wrong = |detail: String| StoreError::BadListing { url: self.url(prefix), detail };
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
            let page = self.reading(prefix, action, ask).await?;
            let ListResult { objects: new, common_prefixes: folders, .. } = page.result;
            empty = if new.is_empty() && folders.is_empty() { empty + 1 } else { 0 };
            for ObjectMeta { size, location, .. } in &new {
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
            let (names, room) = (objects.len() + common_prefixes.len(), self.listing_limit());
            if held > room {
                let url = self.url(prefix);
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
            let place = self.location();
            warn!("{place}: the server listed {others} names outside of {folder}/: passed over");
        }
        found
    }
}
