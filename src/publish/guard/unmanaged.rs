//! Refusal to replace objects that no publish has sent by objects with other bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};

use super::{ADVICE_REPLACE, READS, ReplacementCheck, folder_of};
use crate::encode::zarr::chunk;
use crate::encode::zarr::consolidated::HierarchySummary;
use crate::model::atlas::FILL;
use crate::publish::changes::upload_phase;
use crate::publish::checksum_cache::hash;
use crate::publish::destination::etag_of;
use crate::publish::manifest::find;
use crate::publish::{ObjectEntry, PublishError, is_publishable};
use crate::store::{ObjectMeta, StoreError};

impl ReplacementCheck<'_> {
    /// Whether a map store without records has values that neither the source has nor a publish has
    /// sent.
    pub(super) async fn replaces_unrecorded(
        &self,
        root: &str,
        arrays: Option<&HierarchySummary>,
    ) -> Result<bool, PublishError> {
        let listed = self.destination.list(root.trim_end_matches('/')).await?;
        for info in listed {
            let Some((array, _)) = info.key.strip_prefix(root).and_then(|key| key.rsplit_once('/'))
            else {
                continue;
            };
            if upload_phase(&info.key) > 0 || !is_publishable(&info.key) {
                continue;
            }
            let mut is_same = false;
            // A chunk that a publish has sent is replaced by a later version of the source.
            for list in self.sent_versions.into_iter().chain([&self.inventory.entries[..]]) {
                if let Some(entry) = find(list, &info.key).filter(|_| !is_same) {
                    is_same = self.is_same(entry, &info).await?;
                }
            }
            let floats = arrays.and_then(|arrays| arrays.floats.get(array));
            // Only chunks that cases share may be written without a value.
            let is_shared = arrays.is_some_and(|arrays| !arrays.is_pyramid());
            let is_empty = match floats.filter(|_| is_shared && !is_same) {
                Some(floats) => self.is_empty_chunk(&info, *floats).await?,
                None => false,
            };
            if !is_same && !is_empty {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a chunk at the destination, of this number of `f32` values, has only fill values.
    async fn is_empty_chunk(&self, info: &ObjectMeta, floats: usize) -> Result<bool, PublishError> {
        // Compression may enlarge the 4 bytes of a value a little.
        let max_size = (floats as u64).saturating_mul(5).saturating_add(1 << 20);
        let Some((bytes, _)) = self.destination.get_within(&info.key, max_size).await? else {
            return Ok(true);
        };
        let values = chunk::decode_floats(&bytes, floats);
        Ok(values.is_ok_and(|values| values.iter().all(|value| *value == FILL)))
    }

    /// Refuses to replace objects that no publish has sent and that have other bytes than the source.
    /// Of folders whose records were compared, only foreign objects are checked.
    pub(super) async fn refuse_unmanaged(
        &self,
        compared_folders: &BTreeSet<String>,
    ) -> Result<(), PublishError> {
        let is_compared =
            |key: &str| compared_folders.iter().any(|folder| key.starts_with(folder.as_str()));
        let sent = self.changes.send.iter().map(|(entry, _)| entry);
        let is_unmanaged = |entry: &&ObjectEntry| {
            let key = &*entry.key;
            (self.is_foreign)(key) || !(self.is_known)(key) && !is_compared(key)
        };
        let unmanaged: Vec<ObjectEntry> = sent.filter(is_unmanaged).cloned().collect();
        let mut folders: BTreeMap<String, Vec<Box<str>>> = BTreeMap::new();
        for entry in &unmanaged {
            folders.entry(folder_of(&entry.key)).or_default().push(entry.key.clone());
        }
        let list = async |(folder, keys): (String, Vec<Box<str>>)| {
            match self.destination.list_with_delimiter(folder.trim_end_matches('/')).await {
                // On a disk, the folder is a file: the plan reports this as a path conflict.
                Err(StoreError::BadLocation(_) | StoreError::UnsupportedFileType { .. }) => {
                    Ok(Vec::new())
                }
                // The folder can be written but not listed.
                Err(StoreError::PermissionDenied { .. }) => {
                    let mut found = Vec::new();
                    for key in keys {
                        found.extend(self.destination.head(&key).await?);
                    }
                    Ok(found)
                }
                listed => listed,
            }
        };
        let listed = stream::iter(folders).map(list).buffer_unordered(READS);
        let listed: Vec<Vec<ObjectMeta>> = listed.try_collect().await?;
        let mut listed: HashMap<String, ObjectMeta> =
            listed.into_iter().flatten().map(|info| (info.key.clone(), info)).collect();
        let existing: Vec<_> = unmanaged
            .into_iter()
            .filter_map(|entry| Some((listed.remove(&*entry.key)?, entry)))
            .collect();
        let compare = async |(info, entry): (ObjectMeta, ObjectEntry)| {
            let is_same = self.is_same(&entry, &info).await?;
            Ok::<_, PublishError>((!is_same).then(|| entry.key.to_string()))
        };
        let compared = stream::iter(existing).map(compare).buffered(READS);
        let different: Vec<String> =
            compared.try_filter_map(async |key| Ok(key)).try_collect().await?;
        let Some(first) = different.first() else { return Ok(()) };
        let number = different.len();
        let what =
            format!("other bytes in {number} object(s) that no publish has sent, such as {first}");
        Err(PublishError::WouldLose { url: self.url(""), what, advice: ADVICE_REPLACE })
    }

    /// Whether an object at the destination has the bytes of an entry. The object is read only if its
    /// listing has no comparable ETag.
    async fn is_same(&self, entry: &ObjectEntry, info: &ObjectMeta) -> Result<bool, PublishError> {
        if info.size != entry.size {
            return Ok(false);
        }
        let listed = etag_of(self.destination, info);
        if let Some(listed) = listed.filter(|listed| listed.is_comparable(&entry.etag)) {
            return Ok(listed == entry.etag);
        }
        let object = self.destination.open(&entry.key).await?;
        let [parts] = hash(&object, [self.part_size]).await?;
        Ok(parts.etag() == entry.etag)
    }
}
