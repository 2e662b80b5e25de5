//! Looking at the destination itself: what lies there, and whether it is what was sent.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::error::ends_all;
use super::hashes::hash;
use super::plan::stage;
use super::{Entry, FOLDER, PublishError};
use crate::model::{ETag, Parts};
use crate::pipeline::Stopped;
use crate::store::{ObjectInfo, Store, StoreError};

/// Folders that are listed at the same time, and objects that are read.
const LISTS: usize = 32;
const READS: usize = 32;
/// Objects up to this are read in one request.
const SMALL: u64 = 4 << 20;

/// What a listing of the destination says of the objects that should be there.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// Objects that are what was published, as far as was looked.
    pub right: usize,
    /// Those of them of which a listing tells the size only: on a disk, or encrypted.
    pub by_size: usize,
    /// Objects that are not there.
    pub missing: Vec<String>,
    /// Objects with another size or ETag.
    pub wrong: Vec<String>,
    /// Objects that nobody has published.
    pub unknown: Vec<String>,
}

/// Compares what was listed with `entries`. What is right, by key, and `None` for what is not; the rest is in
/// the audit. Objects that `read` names are read, in parts of `part_size`; it is told whether the listing has
/// their MD5s. So are those that others have sent in parts of another size.
pub async fn audit(
    destination: &Store,
    listed: &Listing,
    (entries, part_size): (&[Entry], u64),
    read: impl Fn(&Entry, &ObjectInfo, bool) -> bool,
    stop: &CancellationToken,
) -> Result<(Audit, Arrived), PublishError> {
    let mut found: HashMap<&str, &ObjectInfo> =
        listed.iter().map(|(key, info)| (key.as_str(), info)).collect();
    let mut audit = Audit::default();
    let (mut states, mut to_read) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let Some(info) = found.remove(&*entry.key) else {
            audit.missing.push(entry.key.to_string());
            states.insert(entry.key.to_string(), None);
            continue;
        };
        let etag = etag_of(destination, info);
        let told = etag.filter(|etag| etag.is_comparable(&entry.etag));
        let is_right = info.size == entry.size && told.is_none_or(|told| told == entry.etag);
        if !is_right {
            audit.wrong.push(entry.key.to_string());
        } else if read(entry, info, told.is_some()) || etag.is_some() && told.is_none() {
            to_read.push(entry);
        } else {
            audit.right += 1;
            audit.by_size += usize::from(told.is_none());
        }
        states.insert(entry.key.to_string(), is_right.then_some(entry.etag));
    }
    let number = to_read.len();
    let wrong = problems(destination, (to_read, part_size), stop).await?;
    audit.right += number - wrong.len();
    for Wrong { key, .. } in wrong {
        states.insert(key.clone(), None);
        audit.wrong.push(key);
    }
    let own = format!("{FOLDER}/");
    let unknown = found.into_keys().filter(|key| !key.starts_with(&own));
    audit.unknown = unknown.map(str::to_owned).collect();
    audit.unknown.sort_unstable();
    Ok((audit, states))
}

/// What lies at a destination, by key; `None` where that is not known.
pub type Arrived = BTreeMap<String, Option<ETag>>;

/// The objects of a destination, by key.
pub type Listing = HashMap<String, ObjectInfo>;

/// What tells two listings apart, but for what publishers keep there.
pub fn fingerprint(listed: &Listing) -> [u8; 32] {
    let mut objects: Vec<&ObjectInfo> = listed.values().collect();
    objects.retain(|info| !info.key.starts_with(&format!("{FOLDER}/")));
    objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let mut digest = Sha256::new();
    for ObjectInfo { key, size, modified, etag } in objects {
        digest.update(format!("{key}\n{size} {modified:?} {etag:?}\n"));
    }
    digest.finalize().into()
}

/// The ETag that a listing of a destination tells, where it is made of MD5s.
pub(super) fn etag_of(destination: &Store, info: &ObjectInfo) -> Option<ETag> {
    let etag = info.etag.as_deref().filter(|_| destination.tells_md5());
    etag.and_then(|etag| etag.parse().ok())
}

/// Takes back what a journal tells of objects that a listing does not have, or has otherwise.
pub fn confirm(destination: &Store, arrived: &mut Arrived, listed: &Listing) {
    for (key, state) in arrived {
        let found = listed.get(key);
        let may_be =
            |found: &ObjectInfo, etag| etag_of(destination, found).is_none_or(|is| is == etag);
        *state = state.filter(|etag| found.is_some_and(|found| may_be(found, *etag)));
    }
}

/// Lists a destination, folder by folder at the same time; on disk in one walk, which passes over what is
/// closed to us.
pub async fn list(destination: &Store) -> Result<Listing, PublishError> {
    if destination.location().is_local() {
        let found = destination.list("").await?;
        return Ok(found.into_iter().map(|info| (info.key.clone(), info)).collect());
    }
    let mut folders = Vec::new();
    let mut prefixes = destination.list_dirs("").await?;
    let mut found = destination.list_level("").await?;
    // Two levels down there are enough folders to list side by side.
    for folder in &prefixes {
        found.extend(destination.list_level(folder).await?);
    }
    for folder in prefixes.drain(..) {
        folders.extend(destination.list_dirs(&folder).await?);
    }
    let lists = stream::iter(folders).map(async |folder| destination.list(&folder).await);
    let listed: Vec<Vec<ObjectInfo>> = lists.buffer_unordered(LISTS).try_collect().await?;
    found.extend(listed.into_iter().flatten());
    Ok(found.into_iter().map(|info| (info.key.clone(), info)).collect())
}

/// How much of a destination is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All metadata, and one in a hundred of the rest, at least so many as there are up to 20.
    Sample,
    /// All.
    All,
}

/// An object that is not what was published.
#[derive(Clone, Debug, Serialize)]
pub struct Wrong {
    /// Place.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads objects at the destination and compares their bytes with what was published, in parts of
/// `part_size`; how many were read, and those that are wrong.
pub async fn verify(
    destination: &Store,
    (entries, part_size): (&[Entry], u64),
    extent: Extent,
    stop: &CancellationToken,
) -> Result<(usize, Vec<Wrong>), PublishError> {
    let step = (entries.len() / 20).clamp(1, 100);
    let chosen: Vec<&Entry> = entries
        .iter()
        .enumerate()
        .filter(|(n, entry)| extent == Extent::All || n % step == 0 || stage(&entry.key) > 0)
        .map(|(_, entry)| entry)
        .collect();
    let looked_at = chosen.len();
    Ok((looked_at, problems(destination, (chosen, part_size), stop).await?))
}

/// Reads objects; those that are wrong.
async fn problems(
    destination: &Store,
    (entries, part_size): (Vec<&Entry>, u64),
    stop: &CancellationToken,
) -> Result<Vec<Wrong>, PublishError> {
    let read = async |entry: &Entry| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        let problem = match problem(destination, entry, part_size).await {
            // What this one object comes to, if the rest can be had.
            Err(error) if !ends_all(&error) && destination.list_dirs("").await.is_ok() => {
                Some(format!("it cannot be read: {error}"))
            }
            problem => problem?,
        };
        Ok(problem.map(|problem| Wrong { key: entry.key.to_string(), problem }))
    };
    // In any order: one that must be asked for again keeps nobody waiting.
    let wrong = stream::iter(entries).map(read).buffer_unordered(READS);
    let wrong = wrong.try_filter_map(async |wrong| Ok(wrong)).try_collect::<Vec<_>>();
    let mut wrong = wrong.await?;
    wrong.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(wrong)
}

async fn problem(
    destination: &Store,
    entry: &Entry,
    part_size: u64,
) -> Result<Option<String>, PublishError> {
    let missing = || Ok(Some("it is missing".to_owned()));
    let other_size = |size: u64| Ok(Some(format!("it has {size} bytes, not {}", entry.size)));
    let other_md5 = |found: Parts| {
        let found = found.etag();
        (found != entry.etag).then(|| format!("its MD5 is {found}, not {}", entry.etag))
    };
    if entry.size <= SMALL {
        return match destination.read_within(&entry.key, entry.size).await {
            Ok(None) => missing(),
            Ok(Some((data, _))) if data.len() as u64 != entry.size => other_size(data.len() as u64),
            Ok(Some((data, _))) => Ok(other_md5(Parts::of(&data, part_size))),
            Err(StoreError::TooLarge { size: Some(size), .. }) => other_size(size),
            Err(error) => Err(error.into()),
        };
    }
    let object = match destination.object(&entry.key).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return missing(),
        Err(error) => return Err(error.into()),
    };
    let size = object.info().size;
    if size != entry.size {
        return other_size(size);
    }
    let [found] = hash(&object, [part_size]).await?;
    Ok(other_md5(found))
}
