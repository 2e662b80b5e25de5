//! The manifest and the intent of a destination.
//!
//! The manifest (`.dor/manifest.jsonl.gz`) lists the objects of the last complete publish. The intent
//! (`.dor/manifest.next.jsonl.gz`) lists the objects that the destination may have while a publish
//! runs: those of the next manifest and those to delete. An intent without a lease that is held is
//! left by an interrupted publish; the next publish then lists the destination.
//!
//! Both are lines of JSON, compressed with gzip, ordered by key: a header; `["key", bytes, "etag"]` for each
//! object; in an intent such lines of the versions that the destination had before; and in a manifest
//! `["key", ["checksum", ...]]` with the results of each case that publishes have sent.

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
use crate::model::{ETag, Md5Digest};
use crate::store::{Lines, PutMode, PutOptions, Store, StoreError};

/// Key of the manifest.
pub(super) const MANIFEST: &str = ".dor/manifest.jsonl.gz";
/// Key of the intent.
pub(super) const INTENT: &str = ".dor/manifest.next.jsonl.gz";
const FORMAT: u32 = 3;
/// Sizes in bytes of the parts of a multipart upload that S3 accepts.
const PART_SIZES: RangeInclusive<u64> = 5 << 20..=5 << 30;
/// Largest size in bytes of a compressed manifest: tens of millions of objects.
const MAX_PACKED: u64 = 256 << 20;
/// Largest number of results of a case that a manifest has.
pub(super) const MAX_RESULTS: usize = 16;
/// Largest size in bytes of an uncompressed manifest.
const MAX_UNPACKED: u64 = 2 << 30;

/// The first line of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestHeader {
    /// Version of the file format.
    pub format: u32,
    /// Version of the published data, from 1; each publish that writes the manifest adds 1.
    pub version: u64,
    /// Time at which the publish ended, in whole seconds.
    pub published: DateTime<Utc>,
    /// Name and version of the program that wrote the manifest.
    pub program: String,
    /// Location of the source.
    pub source: String,
    /// Size in bytes of the parts of objects that are sent in several parts; larger for objects that
    /// would have too many parts. It never changes at a destination, so that ETags can be compared.
    #[serde(default)]
    pub part_size: u64,
    /// Conversion rules of each product, by the folder of the product.
    pub recipes: BTreeMap<String, Value>,
    /// Number of entries.
    pub objects: usize,
    /// Total size of the objects in bytes.
    pub bytes: u64,
}

/// Checksums of the results of each case, the last one last, by the key of the case manifest.
pub(super) type ResultHistory = BTreeMap<Box<str>, Vec<ETag>>;

/// A manifest or an intent.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Version, source and totals.
    pub header: ManifestHeader,
    /// Objects, ordered by key.
    pub entries: Vec<ObjectEntry>,
    /// Other versions of the objects of an intent, which the destination had when the intent was written,
    /// ordered by key.
    pub(super) found_versions: Vec<ObjectEntry>,
    /// Checksums of the results that publishes have sent, the last one last, by the key of the case manifest;
    /// also of cases that were deleted.
    pub(super) results: ResultHistory,
    /// Whether it could not be read completely and must be replaced.
    pub is_damaged: bool,
    /// The condition for replacing it only if it is still this version.
    condition: PutMode,
}

impl Manifest {
    /// The manifest that replaces `before`.
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
        let (found_versions, results) = (Vec::new(), ResultHistory::new());
        Self { header, entries, found_versions, results, is_damaged: false, condition }
    }

    /// A manifest without entries, before the first publish.
    pub(super) fn none(part_size: u64) -> Self {
        let mut none = Self::after(None, "", part_size, BTreeMap::new(), Vec::new());
        none.header.version = 0;
        none
    }

    /// Loads the manifest of a destination; `None` when there is none.
    ///
    /// # Errors
    /// [`PublishError::Manifest`] when it is damaged; errors of the destination.
    pub async fn load(destination: &Store) -> Result<Option<Self>, PublishError> {
        read(destination, MANIFEST, false).await
    }

    /// Loads the manifest of a destination. If it is damaged, returns an empty manifest that replaces
    /// it; invalid keys are left out.
    pub(super) async fn load_or_empty(destination: &Store) -> Result<Option<Self>, PublishError> {
        read_or_begin(destination, MANIFEST).await
    }

    /// Loads the intent of a destination; `None` when there is none. If it is damaged, returns an empty
    /// one with `is_damaged`.
    ///
    /// # Errors
    /// Errors of the destination.
    pub async fn load_intent(destination: &Store) -> Result<Option<Self>, PublishError> {
        read_or_begin(destination, INTENT).await
    }

    /// The entry with this key.
    pub fn entry(&self, key: &str) -> Option<&ObjectEntry> {
        find(&self.entries, key)
    }

    /// Loads the manifest that a publish to a folder of the destination has left, with keys from the
    /// destination; `None` when there is none, or when it has parts of another size.
    pub(super) async fn load_product(
        destination: &Store,
        folder: &str,
        part_size: u64,
    ) -> Result<Option<Self>, PublishError> {
        let manifest = read(destination, &format!("{folder}/{MANIFEST}"), true).await?;
        let manifest = manifest.filter(|manifest| manifest.header.part_size == part_size);
        let below = |entry: ObjectEntry| ObjectEntry {
            key: format!("{folder}/{}", entry.key).into(),
            ..entry
        };
        Ok(manifest.map(|manifest| Self {
            entries: manifest.entries.into_iter().map(below).collect(),
            results: (manifest.results.into_iter())
                .map(|(key, results)| (format!("{folder}/{key}").into(), results))
                .collect(),
            ..manifest
        }))
    }

    /// Writes the manifest, unless another publisher has replaced the previous one.
    pub(super) async fn save(&self, destination: &Store) -> Result<(), PublishError> {
        self.save_as(destination, MANIFEST).await
    }

    /// Writes this as the intent, unless another publisher has replaced the intent `before`.
    pub(super) async fn save_intent(
        &self,
        destination: &Store,
        before: Option<&Self>,
    ) -> Result<(), PublishError> {
        let condition = before.map_or(PutMode::Absent, |before| before.condition.clone());
        Self { condition, ..self.clone() }.save_as(destination, INTENT).await
    }

    /// Removes the intent.
    pub(super) async fn delete_intent(destination: &Store) -> Result<(), StoreError> {
        destination.delete(INTENT).await
    }

    async fn save_as(&self, destination: &Store, key: &str) -> Result<(), PublishError> {
        let url = destination.location().join(key).to_string();
        let bytes = self
            .pack()
            .map_err(|error| PublishError::Manifest { url, problem: error.to_string() })?;
        let options = PutOptions {
            content_type: Some("application/gzip".to_owned()),
            md5: Some(Md5Digest::of(&bytes)),
            condition: self.condition.clone(),
            ..PutOptions::default()
        };
        match destination.send(key, Bytes::from(bytes.clone()), &options).await {
            Ok(_) => Ok(()),
            // An earlier attempt whose response was lost may have written it, or somebody has
            // removed the previous one.
            Err(error)
                if error.is_not_found()
                    || matches!(error, StoreError::PreconditionFailed { .. }) =>
            {
                match destination.get_within(key, MAX_PACKED).await? {
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

    /// The content of the file: JSON lines, compressed. The header tells the number of entries; the further
    /// entries follow them.
    fn pack(&self) -> std::io::Result<Vec<u8>> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        serde_json::to_writer(&mut out, &self.header)?;
        for ObjectEntry { key, size, etag, .. } in self.entries.iter().chain(&self.found_versions) {
            out.write_all(b"\n")?;
            serde_json::to_writer(&mut out, &(key, size, etag))?;
        }
        for result in &self.results {
            out.write_all(b"\n")?;
            serde_json::to_writer(&mut out, &result)?;
        }
        out.write_all(b"\n")?;
        out.finish()
    }
}

/// The entries of a manifest; empty without one.
pub(super) fn entries(manifest: Option<&Manifest>) -> &[ObjectEntry] {
    manifest.map_or(&[], |manifest| &manifest.entries)
}

/// Finds an entry in a list that is ordered by key.
pub(super) fn find<'a>(entries: &'a [ObjectEntry], key: &str) -> Option<&'a ObjectEntry> {
    let at = entries.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
    entries.get(at)
}

/// Reads a manifest. Invalid keys are left out if `skips_invalid`, and are an error otherwise.
async fn read(
    destination: &Store,
    key: &str,
    skips_invalid: bool,
) -> Result<Option<Manifest>, PublishError> {
    let Some((bytes, info)) = destination.get_within(key, MAX_PACKED).await? else {
        return Ok(None);
    };
    let url = destination.location().join(key).to_string();
    let damaged = |problem: String| PublishError::Manifest { url: url.clone(), problem };
    let Unpacked { header, entries, found_versions, results, invalid } =
        unpack(&bytes, destination).map_err(damaged)?;
    let number = entries.len() + invalid.len();
    if header.format != FORMAT {
        let problem = format!("it has format {}, this program reads {FORMAT}", header.format);
        return Err(damaged(problem));
    }
    if number != header.objects {
        return Err(damaged(format!("it has {number} of {} entries", header.objects)));
    }
    if !PART_SIZES.contains(&header.part_size) {
        let problem = format!("its part size of {} bytes is not supported by S3", header.part_size);
        return Err(damaged(problem));
    }
    if let Some(first) = invalid.first() {
        if !skips_invalid {
            return Err(damaged(format!("it has the invalid key {first:?}")));
        }
        let number = invalid.len();
        tracing::warn!("{url} has {number} invalid key(s), such as {first:?}; they are ignored");
    }
    let condition = info.etag.map_or(PutMode::Always, PutMode::Is);
    let is_damaged = !invalid.is_empty();
    Ok(Some(Manifest { header, entries, found_versions, results, is_damaged, condition }))
}

/// Reads a manifest; a damaged one is returned as an empty one with `is_damaged`.
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

/// The parts of a parsed manifest.
struct Unpacked {
    header: ManifestHeader,
    /// Ordered by key.
    entries: Vec<ObjectEntry>,
    /// Ordered by key.
    found_versions: Vec<ObjectEntry>,
    results: ResultHistory,
    /// Keys that no object of the destination can have.
    invalid: Vec<String>,
}

/// A line after the header.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Object(Box<str>, u64, ETag),
    Results(Box<str>, Vec<ETag>),
}

/// Parses a manifest.
fn unpack(bytes: &[u8], destination: &Store) -> Result<Unpacked, String> {
    // A decoder of several gzip members also detects bytes that were appended to the file.
    let mut lines = Lines::new(MultiGzDecoder::new(bytes), MAX_UNPACKED);
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let line = lines.next_line().map_err(|error| text(&error))?.unwrap_or_default();
    let header: ManifestHeader = serde_json::from_slice(line).map_err(|error| text(&error))?;
    let (mut entries, mut found_versions): (Vec<ObjectEntry>, Vec<ObjectEntry>) =
        Default::default();
    let (mut results, mut invalid) = (ResultHistory::new(), Vec::new());
    while let Some(line) = lines.next_line().map_err(|error| text(&error))? {
        let (key, size, etag) = match serde_json::from_slice(line).map_err(|error| text(&error))? {
            Line::Object(key, size, etag) => (key, size, etag),
            Line::Results(key, etags) if etags.len() <= MAX_RESULTS => {
                results.insert(key, etags);
                continue;
            }
            Line::Results(key, _) => return Err(format!("it has too many results of {key}")),
        };
        if !destination.can_hold(&key) {
            invalid.push(key.into_string());
            continue;
        }
        let list = match entries.len() + invalid.len() < header.objects {
            true => &mut entries,
            false => &mut found_versions,
        };
        if list.last().is_some_and(|last| last.key >= key) {
            return Err("its entries are not in order".to_owned());
        }
        list.push(ObjectEntry { key, size, etag, parts: None });
    }
    Ok(Unpacked { header, entries, found_versions, results, invalid })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 16 << 20;

    fn entry(key: &str) -> ObjectEntry {
        ObjectEntry::of(key, key.as_bytes(), PART)
    }

    #[tokio::test]
    async fn a_manifest_is_read_as_written_and_does_not_replace_a_newer_one() {
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
    async fn the_error_of_a_damaged_manifest_names_it() {
        let store = Store::memory();
        store.put(MANIFEST, Bytes::from_static(b"no gzip")).await.unwrap();
        let damaged = async || Manifest::load(&store).await.unwrap_err().to_string();
        let error = damaged().await;
        assert!(error.contains("manifest.jsonl.gz") && error.contains("--audit"), "{error}");
        // Bytes appended to a valid manifest.
        let mut whole =
            Manifest::after(None, "", PART, BTreeMap::new(), Vec::new()).pack().unwrap();
        whole.extend_from_slice(b"junk");
        store.put(MANIFEST, Bytes::from(whole)).await.unwrap();
        assert!(damaged().await.contains("is damaged"));
        let outside = Manifest::after(None, "", PART, BTreeMap::new(), vec![entry("../x")]);
        let packed = outside.pack().unwrap();
        store.put(MANIFEST, Bytes::from(packed)).await.unwrap();
        assert!(damaged().await.contains("../x"));
        let audited = Manifest::load_or_empty(&store).await.unwrap().unwrap();
        assert!(audited.entries.is_empty() && audited.is_damaged, "it is written again");
        // A decompression bomb of repeated lines is refused at the second line.
        let twice = Manifest::after(None, "", PART, BTreeMap::new(), vec![entry("x"), entry("x")]);
        let packed = twice.pack().unwrap();
        store.put(MANIFEST, Bytes::from(packed)).await.unwrap();
        assert!(damaged().await.contains("not in order"));
    }
}
