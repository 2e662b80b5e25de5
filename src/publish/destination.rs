//! Listing and reading the destination, and comparing its objects with those that were sent.
//!
//! A listing of S3 has the ETag of each object, which identifies its bytes. On a disk, and where a
//! bucket encrypts (SSE-KMS), a listing has only the size. The size is enough for an object that the
//! manifest names and that no unfinished publish was going to change; every other object is read.

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

/// Folders that are listed at the same time.
const LISTS: usize = 32;
/// Objects that are read at the same time.
const READS: usize = 32;
/// Largest object, in bytes, that is read with one request.
const SMALL: u64 = 4 << 20;

/// The objects of a destination, by key.
type Listing = HashMap<String, ObjectMeta>;

/// Lists all objects of a destination. In S3, several folders are listed at the same time; a disk is
/// walked once, without the folders that this process may not read.
async fn list(destination: &Store) -> Result<Listing, PublishError> {
    let objects = match destination.location().is_local() {
        true => destination.list("").await?,
        false => list_by_folder(destination).await?,
    };
    Ok(objects.into_iter().map(|info| (info.key.clone(), info)).collect())
}

async fn list_by_folder(destination: &Store) -> Result<Vec<ObjectMeta>, PublishError> {
    let mut folders = Vec::new();
    let mut objects = destination.list_with_delimiter("").await?;
    // Folders of the second level are enough to list many at the same time.
    for folder in destination.list_folders("").await? {
        objects.extend(destination.list_with_delimiter(&folder).await?);
        folders.extend(destination.list_folders(&folder).await?);
    }
    let lists = stream::iter(folders).map(async |folder| destination.list(&folder).await);
    let listed: Vec<Vec<ObjectMeta>> = lists.buffer_unordered(LISTS).try_collect().await?;
    objects.extend(listed.into_iter().flatten());
    Ok(objects)
}

/// The ETag of an object in a listing, where the destination computes ETags from MD5s.
pub(super) fn etag_of(destination: &Store, info: &ObjectMeta) -> Option<ETag> {
    let etag = info.etag.as_deref().filter(|_| destination.etag_is_md5());
    etag.and_then(|etag| etag.parse().ok())
}

/// The result of comparing the destination with the objects that should be there.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// Number of objects that are as expected.
    pub right: usize,
    /// Number of the `right` objects that were compared by size only: on a disk, or encrypted.
    pub by_size: usize,
    /// Keys of expected objects that are missing.
    pub missing: Vec<String>,
    /// Keys of objects with other bytes, and of those that cannot be read.
    pub wrong: Vec<String>,
    /// Keys of objects that no publish has sent, and of known objects that another program has replaced.
    pub unmanaged: Vec<String>,
}

/// The objects that a destination is known to have or will have; each list is ordered by key.
pub(super) struct KnownObjects<'a> {
    /// Objects of the source.
    pub source: &'a [ObjectEntry],
    /// Objects of the last complete publish.
    pub manifest: &'a [ObjectEntry],
    /// Objects of a publish that is not complete.
    pub intent: &'a [ObjectEntry],
    /// Other versions of the objects of `intent` that the destination had when it was written.
    pub found_versions: &'a [ObjectEntry],
    /// Whether a publisher that had lost its lease may have changed objects.
    pub is_dirty: bool,
    /// Whether published objects with other bytes are sent again, for `--audit` and `--overwrite`.
    pub repairs: bool,
    /// Whether every object is read, even if the listing has its ETag.
    pub reads_all: bool,
    /// Size in bytes of the parts of objects that are sent in several.
    pub part_size: u64,
}

impl KnownObjects<'_> {
    /// The expected entry of an object: that of the source, else the published one.
    fn expected(&self, key: &str) -> Option<&ObjectEntry> {
        [self.source, self.manifest, self.intent].into_iter().find_map(|list| find(list, key))
    }

    /// The entry of an object of which the listing has only the size, if the size is enough.
    fn by_size(&self, key: &str, size: u64) -> Option<&ObjectEntry> {
        let published = find(self.manifest, key).filter(|entry| entry.size == size)?;
        let is_settled = find(self.intent, key).is_none_or(|next| next == published);
        (is_settled && !self.is_dirty && !self.reads_all).then_some(published)
    }

    /// Whether another program has put an object at the key of a publish: the object is none of the
    /// versions that `is_version` accepts. With `repairs`, an object that is published and that the
    /// source has is a damaged one, which is sent again.
    fn is_foreign(&self, key: &str, is_version: &dyn Fn(&ObjectEntry) -> bool) -> bool {
        let version_in = |list| find(list, key).is_some_and(is_version);
        if [self.source, self.manifest, self.intent, self.found_versions]
            .into_iter()
            .any(version_in)
        {
            return false;
        }
        match (find(self.manifest, key), find(self.source, key)) {
            (Some(_), None) => true,
            // A publisher that had lost its lease may have sent a version that no list has.
            (Some(_), Some(_)) => !self.repairs && !self.is_dirty,
            (None, _) => find(self.intent, key).is_some() && !self.is_dirty,
        }
    }

    fn keys(&self) -> BTreeSet<&str> {
        let entries = [self.source, self.manifest, self.intent].into_iter().flatten();
        entries.map(|entry| &*entry.key).collect()
    }
}

/// Lists a destination and compares it with the known objects, reading those that the listing does
/// not identify. Returns the known objects that are there, ordered by key, with ETags for parts of
/// the usual size, and the result of the comparison.
pub(super) async fn list_and_compare(
    destination: &Store,
    known: &KnownObjects<'_>,
    stop: &CancellationToken,
) -> Result<(Vec<ObjectEntry>, Audit), PublishError> {
    let mut listed = list(destination).await?;
    let (mut present, mut to_read, mut audit) = (Vec::new(), Vec::new(), Audit::default());
    let mut unmanaged = Vec::new();
    let mut add = |found: ObjectEntry, is_version: &dyn Fn(&ObjectEntry) -> bool| match known
        .is_foreign(&found.key, is_version)
    {
        true => unmanaged.push(found.key.into_string()),
        false => present.push(found),
    };
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
            // Another program has sent it in parts of another size.
            Some(_) => None,
            None => known.by_size(key, info.size).cloned(),
        };
        // An object of another size is replaced, so its size is enough.
        let is_replaced = info.size != expected.size && find(known.source, key).is_some();
        match found {
            Some(found) if found != *expected || !known.reads_all => {
                audit.by_size += usize::from(etag.is_none() && found == *expected);
                add(found.clone(), &|version| *version == found);
            }
            None if is_replaced => {
                let size = info.size;
                add(ObjectEntry { size, ..expected.clone() }, &|version| version.size == size);
            }
            _ => to_read.push((key, info.size)),
        }
    }
    let read = async |(key, size): (&str, u64)| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        read(destination, key, size, known.part_size).await
    };
    let results: Vec<Result<ObjectEntry, String>> =
        stream::iter(to_read).map(read).buffer_unordered(READS).try_collect().await?;
    for result in results {
        match result {
            Ok(entry) => add(entry.clone(), &|version| *version == entry),
            Err(key) => audit.wrong.push(key),
        }
    }
    present.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    for entry in &present {
        match known.expected(&entry.key) == Some(entry) {
            true => audit.right += 1,
            false => audit.wrong.push(entry.key.to_string()),
        }
    }
    audit.wrong.sort_unstable();
    let own_folder = format!("{FOLDER}/");
    audit.unmanaged = unmanaged;
    audit.unmanaged.extend(listed.into_keys().filter(|key| !key.starts_with(&own_folder)));
    audit.unmanaged.sort_unstable();
    Ok((present, audit))
}

/// Keys of published objects that another program has replaced since, as far as size and ETag tell.
pub(super) async fn find_changed_by_others(
    destination: &Store,
    published: &[ObjectEntry],
) -> Result<BTreeSet<Box<str>>, PublishError> {
    let find = async |entry: &ObjectEntry| {
        let found = match destination.head(&entry.key).await {
            // On a disk, the path of the object is now a folder, or one of its folders is a file.
            Err(StoreError::BadLocation(_) | StoreError::UnsupportedFileType { .. }) => None,
            found => found?,
        };
        let is_replaced = found.is_some_and(|found| {
            let etag = etag_of(destination, &found);
            let etag = etag.filter(|etag| etag.is_comparable(&entry.etag));
            found.size != entry.size || etag.is_some_and(|etag| etag != entry.etag)
        });
        Ok(is_replaced.then(|| entry.key.clone()))
    };
    let checked = stream::iter(published).map(find).buffered(READS);
    checked.try_filter_map(async |key| Ok(key)).try_collect().await
}

/// Reads an object and returns its entry, or `Err` with its key when it is missing or unreadable.
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
        // Only this object is unreadable if the destination can still be listed.
        Err(error) if !is_fatal(&error) && destination.list_folders("").await.is_ok() => {
            tracing::warn!("{} cannot be read: {error}", destination.location().join(key));
            Ok(Err(key.to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// The objects that are read back from a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyScope {
    /// All metadata plus 1 % of the other objects, at least 20.
    Sample,
    /// Every object.
    All,
}

/// An object at the destination that differs from the source.
#[derive(Clone, Debug, Serialize)]
pub struct Mismatch {
    /// Key of the object.
    pub key: String,
    /// The difference.
    pub problem: String,
}

/// Reads objects at the destination and compares their checksums, for parts of `part_size` bytes,
/// with those of `entries`. Returns the number of objects read and those that differ.
pub(super) async fn verify(
    destination: &Store,
    (entries, part_size): (&[ObjectEntry], u64),
    scope: VerifyScope,
    stop: &CancellationToken,
) -> Result<(usize, Vec<Mismatch>), PublishError> {
    let step = (entries.len() / 20).clamp(1, 100);
    let selected: Vec<&ObjectEntry> = entries
        .iter()
        .enumerate()
        .filter(|(n, entry)| {
            scope == VerifyScope::All || n % step == 0 || upload_phase(&entry.key) > 0
        })
        .map(|(_, entry)| entry)
        .collect();
    let count = selected.len();
    let read = async |entry: &ObjectEntry| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        let problem = match parts_of(destination, &entry.key, entry.size, part_size).await {
            Err(error) if !is_fatal(&error) && destination.list_folders("").await.is_ok() => {
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
    let results = stream::iter(selected).map(read).buffer_unordered(READS);
    let mut wrong: Vec<Mismatch> =
        results.try_filter_map(async |mismatch| Ok(mismatch)).try_collect().await?;
    wrong.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok((count, wrong))
}

/// Reads an object: its size in bytes and the MD5s of its parts. The MD5s are those of no bytes when
/// the size is not `size`. `None`: there is no such object.
async fn parts_of(
    destination: &Store,
    key: &str,
    size: u64,
    part_size: u64,
) -> Result<Option<(u64, Parts)>, PublishError> {
    let other_size = |size: u64| Ok(Some((size, Parts::of(&[], part_size))));
    if size <= SMALL {
        return match destination.get_within(key, size).await {
            Ok(found) => {
                Ok(found.map(|(data, _)| (data.len() as u64, Parts::of(&data, part_size))))
            }
            Err(StoreError::TooLarge { size: Some(size), .. }) => other_size(size),
            Err(error) => Err(error.into()),
        };
    }
    let object = match destination.open(key).await {
        Ok(object) if object.info().size != size => return other_size(object.info().size),
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let [parts] = hash(&object, [part_size]).await?;
    Ok(Some((size, parts)))
}
