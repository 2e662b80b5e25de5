//! Looking at the destination itself: what lies there, and whether it is what was sent.
//!
//! A listing of S3 tells the ETag of an object, from which its bytes follow. On a disk, and where a
//! bucket encrypts (SSE-KMS), a listing tells the size only: that is enough for what the manifest has
//! and no publish has been about to change since; anything else is read.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::changes::upload_phase;
use super::checksum_cache::hash;
use super::error::is_fatal;
use super::manifest::find;
use super::{FOLDER, ObjectEntry, PublishError};
use crate::executor::Stopped;
use crate::model::{ETag, Parts};
use crate::store::{ObjectMeta, Store, StoreError};

/// Folders that are listed at the same time, and objects that are read.
const LISTS: usize = 32;
const READS: usize = 32;
/// Objects up to this are read in one request.
const SMALL: u64 = 4 << 20;

/// The objects of a destination, by key.
pub(super) type Listing = HashMap<String, ObjectMeta>;

/// Lists a destination, folder by folder at the same time; on disk in one walk, which passes over what is
/// closed to us.
pub(super) async fn list(destination: &Store) -> Result<Listing, PublishError> {
    if destination.location().is_local() {
        let found = destination.list("").await?;
        return Ok(found.into_iter().map(|info| (info.key.clone(), info)).collect());
    }
    let mut folders = Vec::new();
    let mut prefixes = destination.list_prefixes("").await?;
    let mut found = destination.list_with_delimiter("").await?;
    // Two levels down there are enough folders to list side by side.
    for folder in &prefixes {
        found.extend(destination.list_with_delimiter(folder).await?);
    }
    for folder in prefixes.drain(..) {
        folders.extend(destination.list_prefixes(&folder).await?);
    }
    let lists = stream::iter(folders).map(async |folder| destination.list(&folder).await);
    let listed: Vec<Vec<ObjectMeta>> = lists.buffer_unordered(LISTS).try_collect().await?;
    found.extend(listed.into_iter().flatten());
    Ok(found.into_iter().map(|info| (info.key.clone(), info)).collect())
}

/// The ETag that a listing of a destination tells, where it is made of MD5s.
pub(super) fn etag_of(destination: &Store, info: &ObjectMeta) -> Option<ETag> {
    let etag = info.etag.as_deref().filter(|_| destination.etag_is_md5());
    etag.and_then(|etag| etag.parse().ok())
}

/// What a listing of the destination says of the objects that should be there.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// Objects that are what they should be, as far as was looked.
    pub right: usize,
    /// Those of them of which a listing tells the size only: on a disk, or encrypted.
    pub by_size: usize,
    /// Objects that are not there.
    pub missing: Vec<String>,
    /// Objects with other bytes.
    pub wrong: Vec<String>,
    /// Objects that nobody has published.
    pub unknown: Vec<String>,
}

/// What is known of a destination before it is listed: entries ordered by key.
pub(super) struct KnownObjects<'a> {
    /// What it is to be given.
    pub source: &'a [ObjectEntry],
    /// What it was given,
    pub manifest: &'a [ObjectEntry],
    /// and what it was to be given by a publish that has not ended.
    pub intent: &'a [ObjectEntry],
    /// Whether anything may have been changed since.
    pub is_dirty: bool,
    /// Whether all is to be read.
    pub reads_all: bool,
    /// Bytes of the parts in which objects are sent.
    pub part_size: u64,
}

impl KnownObjects<'_> {
    /// What an object should be: as in the source, else as published.
    fn expected(&self, key: &str) -> Option<&ObjectEntry> {
        [self.source, self.manifest, self.intent].into_iter().find_map(|of| find(of, key))
    }

    /// What an object is of which a listing tells only the size, if that is enough to know.
    fn by_size(&self, key: &str, size: u64) -> Option<&ObjectEntry> {
        let published = find(self.manifest, key).filter(|entry| entry.size == size)?;
        let is_settled = find(self.intent, key).is_none_or(|next| next == published);
        (is_settled && !self.is_dirty && !self.reads_all).then_some(published)
    }

    fn keys(&self) -> BTreeSet<&str> {
        let all = [self.source, self.manifest, self.intent].into_iter().flatten();
        all.map(|entry| &*entry.key).collect()
    }
}

/// What lies at a destination of the objects that are known, ordered by key, with the ETags that these
/// bytes have when sent in parts of the usual size; and how that compares with what should be there.
pub(super) async fn look(
    destination: &Store,
    mut listed: Listing,
    known: &KnownObjects<'_>,
    stop: &CancellationToken,
) -> Result<(Vec<ObjectEntry>, Audit), PublishError> {
    let (mut there, mut to_read, mut audit) = (Vec::new(), Vec::new(), Audit::default());
    for key in known.keys() {
        let Some(expected) = known.expected(key) else { continue };
        let Some(info) = listed.remove(key) else {
            audit.missing.push(key.to_owned());
            continue;
        };
        let etag = etag_of(destination, &info);
        let found = match etag {
            Some(etag) if etag.is_comparable(&expected.etag) => {
                Some(ObjectEntry { key: key.into(), size: info.size, etag, parts: None })
            }
            // Others have sent it, in parts of another size.
            Some(_) => None,
            None => known.by_size(key, info.size).cloned(),
        };
        // What has another size will be replaced, whatever it is.
        let is_replaced = info.size != expected.size && find(known.source, key).is_some();
        match found {
            Some(found) if found != *expected || !known.reads_all => {
                audit.by_size += usize::from(etag.is_none() && found == *expected);
                there.push(found);
            }
            None if is_replaced => there.push(ObjectEntry { size: info.size, ..expected.clone() }),
            _ => to_read.push((key, info.size)),
        }
    }
    let read = async |(key, size): (&str, u64)| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        read(destination, key, size, known.part_size).await
    };
    let read: Vec<Result<ObjectEntry, String>> =
        stream::iter(to_read).map(read).buffer_unordered(READS).try_collect().await?;
    let mut unreadable = Vec::new();
    for found in read {
        match found {
            Ok(entry) => there.push(entry),
            Err(key) => unreadable.push(key),
        }
    }
    there.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    for entry in &there {
        match known.expected(&entry.key) == Some(entry) {
            true => audit.right += 1,
            false => audit.wrong.push(entry.key.to_string()),
        }
    }
    audit.wrong.extend(unreadable);
    audit.wrong.sort_unstable();
    let own = format!("{FOLDER}/");
    audit.unknown = listed.into_keys().filter(|key| !key.starts_with(&own)).collect();
    audit.unknown.sort_unstable();
    Ok((there, audit))
}

/// The entry of an object as it lies there; its key when it is gone or cannot be read.
async fn read(
    destination: &Store,
    key: &str,
    size: u64,
    part_size: u64,
) -> Result<Result<ObjectEntry, String>, PublishError> {
    match parts_of(destination, key, size, part_size).await {
        Ok(Some((size, parts))) => {
            Ok(Ok(ObjectEntry { parts: None, ..ObjectEntry::new(key, size, parts) }))
        }
        Ok(None) => Ok(Err(key.to_owned())),
        // What this one object comes to, if the rest can be had.
        Err(error) if !is_fatal(&error) && destination.list_prefixes("").await.is_ok() => {
            tracing::warn!("{key} cannot be read: {error}");
            Ok(Err(key.to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// How much of a destination is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyScope {
    /// All metadata, and one in a hundred of the rest, at least so many as there are up to 20.
    Sample,
    /// All.
    All,
}

/// An object that is not what was published.
#[derive(Clone, Debug, Serialize)]
pub struct Mismatch {
    /// Place.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads objects at the destination and compares their bytes with what was published, in parts of
/// `part_size`; how many were read, and those that are wrong.
pub(super) async fn verify(
    destination: &Store,
    (entries, part_size): (&[ObjectEntry], u64),
    extent: VerifyScope,
    stop: &CancellationToken,
) -> Result<(usize, Vec<Mismatch>), PublishError> {
    let step = (entries.len() / 20).clamp(1, 100);
    let chosen: Vec<&ObjectEntry> = entries
        .iter()
        .enumerate()
        .filter(|(n, entry)| {
            extent == VerifyScope::All || n % step == 0 || upload_phase(&entry.key) > 0
        })
        .map(|(_, entry)| entry)
        .collect();
    let looked_at = chosen.len();
    let read = async |entry: &ObjectEntry| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        let problem = match parts_of(destination, &entry.key, entry.size, part_size).await {
            Err(error) if !is_fatal(&error) && destination.list_prefixes("").await.is_ok() => {
                Some(format!("it cannot be read: {error}"))
            }
            Err(error) => return Err(error),
            Ok(None) => Some("it is missing".to_owned()),
            Ok(Some((size, _))) if size != entry.size => {
                Some(format!("it has {size} bytes, not {}", entry.size))
            }
            Ok(Some((_, parts))) => {
                let found = parts.etag();
                (found != entry.etag).then(|| format!("its MD5 is {found}, not {}", entry.etag))
            }
        };
        Ok(problem.map(|problem| Mismatch { key: entry.key.to_string(), problem }))
    };
    // In any order: one that must be asked for again keeps nobody waiting.
    let wrong = stream::iter(chosen).map(read).buffer_unordered(READS);
    let wrong = wrong.try_filter_map(async |wrong| Ok(wrong)).try_collect::<Vec<_>>();
    let mut wrong = wrong.await?;
    wrong.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok((looked_at, wrong))
}

/// Bytes of an object and, where it has `size` of them, the MD5s of its parts; `None` when there is none.
async fn parts_of(
    destination: &Store,
    key: &str,
    size: u64,
    part_size: u64,
) -> Result<Option<(u64, Parts)>, PublishError> {
    let other = |size: u64| Ok(Some((size, Parts::of(&[], part_size))));
    if size <= SMALL {
        return match destination.get_within(key, size).await {
            Ok(found) => {
                Ok(found.map(|(data, _)| (data.len() as u64, Parts::of(&data, part_size))))
            }
            Err(StoreError::TooLarge { size: Some(size), .. }) => other(size),
            Err(error) => Err(error.into()),
        };
    }
    let object = match destination.open(key).await {
        Ok(object) if object.info().size != size => return other(object.info().size),
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let [parts] = hash(&object, [part_size]).await?;
    Ok(Some((size, parts)))
}
