//! The manifest (`.dor/manifest.jsonl.gz`) tells what a destination held after its last complete publish. The
//! intent (`.dor/manifest.next.jsonl.gz`) tells what it may hold while a publish runs: the next manifest and the
//! objects to delete. An intent that nobody holds a lease for tells of a publish that is not complete: the next
//! one lists the destination.
//!
//! Lines of JSON, compressed with gzip: a header, then `["key", bytes, "etag"]` in order of the keys.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::RangeInclusive;

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, Utc};
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ObjectEntry, PublishError};
use crate::model::Md5Digest;
use crate::store::{Lines, PutMode, PutOptions, Store, StoreError};

/// Where the manifest of a destination lies,
pub(super) const MANIFEST: &str = ".dor/manifest.jsonl.gz";
/// and the intent.
pub(super) const INTENT: &str = ".dor/manifest.next.jsonl.gz";
const FORMAT: u32 = 2;
/// Bytes of parts that S3 takes.
const PART_SIZES: RangeInclusive<u64> = 5 << 20..=5 << 30;
/// Bytes of a manifest, compressed and not: tens of millions of objects.
const PACKED: u64 = 256 << 20;
const UNPACKED: u64 = 2 << 30;

/// What stands at the head of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestHeader {
    /// Version of the manifest's form.
    pub format: u32,
    /// One more with every publish that changed something.
    pub version: u64,
    /// When it was completed.
    pub published: DateTime<Utc>,
    /// Program that did.
    pub program: String,
    /// Where from.
    pub source: String,
    /// Bytes of the parts of objects that were sent in several; more where there would be too many. It stays
    /// as it is, so that ETags can be compared.
    #[serde(default)]
    pub part_size: u64,
    /// The rules that each part was made under, by its folder.
    pub recipes: BTreeMap<String, Value>,
    /// Number of objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A manifest, or an intent.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its head.
    pub header: ManifestHeader,
    /// Objects, ordered by key.
    pub entries: Vec<ObjectEntry>,
    /// Whether it is not as it was written: it must be replaced.
    pub is_damaged: bool,
    /// The condition under which it is replaced only while nobody else has done so.
    condition: PutMode,
}

impl Manifest {
    /// What follows `before`.
    pub(super) fn after(
        before: Option<&Self>,
        source: &str,
        part_size: u64,
        recipes: BTreeMap<String, Value>,
        entries: Vec<ObjectEntry>,
    ) -> Self {
        let header = ManifestHeader {
            format: FORMAT,
            version: before.map_or(0, |before| before.header.version) + 1,
            published: Utc::now().trunc_subsecs(0),
            program: format!("dor {}", crate::VERSION),
            source: source.to_owned(),
            part_size,
            recipes,
            objects: entries.len(),
            bytes: entries.iter().map(|entry| entry.size).sum(),
        };
        let condition = before.map_or(PutMode::Absent, |before| before.condition.clone());
        Self { header, entries, is_damaged: false, condition }
    }

    /// The manifest of a destination; `None` when there is none.
    pub async fn load(destination: &Store) -> Result<Option<Self>, PublishError> {
        read(destination, MANIFEST, false).await
    }

    /// The same, but a damaged manifest is an empty one that is to be replaced, and keys that no object can have
    /// are left out.
    pub(super) async fn load_or_begin(destination: &Store) -> Result<Option<Self>, PublishError> {
        read_or_begin(destination, MANIFEST).await
    }

    /// The intent at a destination. One that cannot be read is an empty, damaged one: the destination is listed.
    pub async fn load_intent(destination: &Store) -> Result<Option<Self>, PublishError> {
        read_or_begin(destination, INTENT).await
    }

    /// The entry of an object.
    pub fn entry(&self, key: &str) -> Option<&ObjectEntry> {
        find(&self.entries, key)
    }

    /// Writes it, unless the one that it follows has been replaced.
    pub(super) async fn save(&self, destination: &Store) -> Result<(), PublishError> {
        self.save_as(destination, MANIFEST).await
    }

    /// Writes it as the intent, over the intent `before` unless that has been replaced.
    pub(super) async fn save_intent(
        &self,
        destination: &Store,
        before: Option<&Self>,
    ) -> Result<(), PublishError> {
        let condition = before.map_or(PutMode::Absent, |before| before.condition.clone());
        Self { condition, ..self.clone() }.save_as(destination, INTENT).await
    }

    /// Removes the intent.
    pub(super) async fn end_intent(destination: &Store) -> Result<(), StoreError> {
        destination.delete(INTENT).await
    }

    async fn save_as(&self, destination: &Store, key: &str) -> Result<(), PublishError> {
        let url = destination.location().join(key).to_string();
        let bytes = self
            .pack()
            .map_err(|error| PublishError::Manifest { url, problem: error.to_string() })?;
        let sending = PutOptions {
            content_type: Some("application/gzip".to_owned()),
            md5: Some(Md5Digest::of(&bytes)),
            condition: self.condition.clone(),
            ..PutOptions::default()
        };
        match destination.send(key, Bytes::from(bytes.clone()), &sending).await {
            Ok(_) => Ok(()),
            // A try whose answer was lost may have written it.
            Err(StoreError::PreconditionFailed { .. }) => {
                match destination.get_within(key, PACKED).await? {
                    Some((found, _)) if found == bytes => Ok(()),
                    _ => {
                        let url = destination.location().to_string();
                        Err(PublishError::ManifestConflict { url })
                    }
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn pack(&self) -> std::io::Result<Vec<u8>> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut out, &self.header)?;
        for ObjectEntry { key, size, etag, .. } in &self.entries {
            out.write_all(b"\n")?;
            serde_json::to_writer(&mut out, &(key, size, etag))?;
        }
        out.write_all(b"\n")?;
        out.finish()
    }
}

/// An entry among those that are ordered by key.
pub(super) fn find<'a>(entries: &'a [ObjectEntry], key: &str) -> Option<&'a ObjectEntry> {
    let at = entries.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
    entries.get(at)
}

/// Reads a manifest; keys that no object can have are damage, or are left out.
async fn read(
    destination: &Store,
    key: &str,
    leaves_out: bool,
) -> Result<Option<Manifest>, PublishError> {
    let Some((bytes, info)) = destination.get_within(key, PACKED).await? else { return Ok(None) };
    let url = destination.location().join(key).to_string();
    let damaged = |problem: String| PublishError::Manifest { url: url.clone(), problem };
    let (header, entries, refused) = unpack(&bytes, destination).map_err(damaged)?;
    let number = entries.len() + refused.len();
    if header.format != FORMAT {
        let problem = format!("it has format {}, this program knows {FORMAT}", header.format);
        return Err(damaged(problem));
    }
    if number != header.objects {
        return Err(damaged(format!("it has {number} of {} entries", header.objects)));
    }
    if !PART_SIZES.contains(&header.part_size) {
        let problem = format!("it has parts of {} bytes, which S3 does not take", header.part_size);
        return Err(damaged(problem));
    }
    if let Some(first) = refused.first() {
        if !leaves_out {
            return Err(damaged(format!("it names {first:?}, which no object can have")));
        }
        let number = refused.len();
        tracing::warn!(
            "{url} names {number} key(s) that no object there can have, such as {first:?}: passed over"
        );
    }
    let condition = info.etag.map_or(PutMode::Always, PutMode::Is);
    Ok(Some(Manifest { header, entries, is_damaged: !refused.is_empty(), condition }))
}

async fn read_or_begin(destination: &Store, key: &str) -> Result<Option<Manifest>, PublishError> {
    match read(destination, key, true).await {
        Err(error @ PublishError::Manifest { .. }) => {
            let Some(info) = destination.head(key).await? else { return Err(error) };
            tracing::warn!("{error}");
            let part_size = destination.multipart_size();
            let empty = Manifest::after(None, "", part_size, BTreeMap::new(), Vec::new());
            let condition = info.etag.map_or(PutMode::Always, PutMode::Is);
            Ok(Some(Manifest { is_damaged: true, condition, ..empty }))
        }
        read => read,
    }
}

/// A header, entries in order of their keys, and keys that no object of `destination` can have: this program
/// has not written them.
fn unpack(
    bytes: &[u8],
    destination: &Store,
) -> Result<(ManifestHeader, Vec<ObjectEntry>, Vec<String>), String> {
    // Several members, so that what was appended to the one is seen.
    let mut lines = Lines::new(MultiGzDecoder::new(bytes), UNPACKED);
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let line = lines.next_line().map_err(|error| told(&error))?.unwrap_or_default();
    let header = serde_json::from_slice(line).map_err(|error| told(&error))?;
    let (mut entries, mut refused): (Vec<ObjectEntry>, _) = (Vec::new(), Vec::new());
    while let Some(line) = lines.next_line().map_err(|error| told(&error))? {
        let (key, size, etag) = serde_json::from_slice(line).map_err(|error| told(&error))?;
        let entry = ObjectEntry { key, size, etag, parts: None };
        if !destination.can_hold(&entry.key) {
            refused.push(entry.key.to_string());
            continue;
        }
        if entries.last().is_some_and(|last| last.key >= entry.key) {
            return Err("its entries are not in order".to_owned());
        }
        entries.push(entry);
    }
    Ok((header, entries, refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 16 << 20;

    fn entry(key: &str) -> ObjectEntry {
        ObjectEntry::of(key, key.as_bytes(), PART)
    }

    #[tokio::test]
    async fn a_manifest_is_read_as_written_and_not_over_another() {
        let store = Store::memory();
        assert!(Manifest::load(&store).await.unwrap().is_none());
        let entries = vec![entry("a"), entry("b \"c\"")];
        let first = Manifest::after(None, "here", PART, BTreeMap::new(), entries.clone());
        let mut other = first.clone();
        first.save(&store).await.unwrap();
        let read = Manifest::load(&store).await.unwrap().unwrap();
        assert_eq!((&read.header, &read.entries), (&first.header, &entries));
        assert_eq!(read.entry("b \"c\"").unwrap().size, 5);
        other.header.source = "there".to_owned();
        assert!(matches!(other.save(&store).await, Err(PublishError::ManifestConflict { .. })));
        let second = Manifest::after(Some(&read), "here", PART, BTreeMap::new(), vec![entry("z")]);
        assert_eq!(second.header.version, 2);
        second.save(&store).await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_manifest_is_named() {
        let store = Store::memory();
        store.put(MANIFEST, Bytes::from_static(b"no gzip")).await.unwrap();
        let damaged = async || Manifest::load(&store).await.unwrap_err().to_string();
        let error = damaged().await;
        assert!(error.contains("manifest.jsonl.gz") && error.contains("--audit"), "{error}");
        // Appended to a whole one.
        let mut whole =
            Manifest::after(None, "", PART, BTreeMap::new(), Vec::new()).pack().unwrap();
        whole.extend_from_slice(b"junk");
        store.put(MANIFEST, Bytes::from(whole)).await.unwrap();
        assert!(damaged().await.contains("is damaged"));
        let outside = Manifest::after(None, "", PART, BTreeMap::new(), vec![entry("../x")]);
        let packed = outside.pack().unwrap();
        store.put(MANIFEST, Bytes::from(packed)).await.unwrap();
        assert!(damaged().await.contains("../x"));
        let audited = Manifest::load_or_begin(&store).await.unwrap().unwrap();
        assert!(audited.entries.is_empty() && audited.is_damaged, "it is written anew");
        // Of the same line again and again, a bomb is refused at the second.
        let twice = Manifest::after(None, "", PART, BTreeMap::new(), vec![entry("x"), entry("x")]);
        let packed = twice.pack().unwrap();
        store.put(MANIFEST, Bytes::from(packed)).await.unwrap();
        assert!(damaged().await.contains("not in order"));
    }
}
