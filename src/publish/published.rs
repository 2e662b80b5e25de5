//! The published manifest: what a destination was given, as of its last complete publish. It is
//! written last and on condition that nobody else wrote one meanwhile.
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
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Entry, FOLDER, PublishError};
use crate::model::Digest;
use crate::store::{Condition, Lines, Sending, Store, StoreError};

const FORMAT: u32 = 2;
/// Bytes of parts that S3 takes.
const PART_SIZES: RangeInclusive<u64> = 5 << 20..=5 << 30;
/// Bytes of a manifest, compressed and not: tens of millions of objects.
pub(super) const PACKED: u64 = 256 << 20;
const UNPACKED: u64 = 2 << 30;

/// What stands at the head of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
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

/// A published manifest.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its head.
    pub header: Header,
    /// Objects, ordered by key.
    pub entries: Vec<Entry>,
    /// When it was written, by the clock of the destination.
    pub written: DateTime<Utc>,
    /// Whether it stands for one that is damaged, and must be replaced.
    pub is_damaged: bool,
    /// The manifest's ETag.
    etag: Option<String>,
}

impl Published {
    /// The next version of what `before` was.
    pub fn after(
        before: Option<&Self>,
        source: &str,
        part_size: u64,
        recipes: BTreeMap<String, Value>,
        entries: Vec<Entry>,
    ) -> Self {
        let header = Header {
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
        let etag = before.and_then(|before| before.etag.clone());
        Self { written: header.published, header, entries, is_damaged: false, etag }
    }

    /// Where the manifest of a destination is.
    pub fn key() -> String {
        format!("{FOLDER}/published.jsonl.gz")
    }

    /// Reads the manifest of a destination; `None` when there is none.
    pub async fn load(destination: &Store) -> Result<Option<Self>, PublishError> {
        Self::load_as(destination, false).await
    }

    /// The same where keys that no object can have may be left out.
    async fn load_as(destination: &Store, lenient: bool) -> Result<Option<Self>, PublishError> {
        let key = Self::key();
        let Some((bytes, info)) = destination.read_within(&key, PACKED).await? else {
            return Ok(None);
        };
        let url = destination.location().join(&key).to_string();
        let damaged = |problem: String| PublishError::Published { url: url.clone(), problem };
        let unpacked = unpack::<Header>(&bytes, destination).map_err(damaged)?;
        let (header, number) = (&unpacked.header, unpacked.entries.len() + unpacked.refused.len());
        if number != header.objects {
            let problem = format!("it has {number} of {} entries", header.objects);
            return Err(damaged(problem));
        }
        if header.format != FORMAT {
            let problem = format!("it has format {}, this program knows {FORMAT}", header.format);
            return Err(damaged(problem));
        }
        if !PART_SIZES.contains(&header.part_size) {
            let problem =
                format!("it has parts of {} bytes, which S3 does not take", header.part_size);
            return Err(damaged(problem));
        }
        if let Some(refused) = unpacked.refused.first().filter(|_| !lenient) {
            return Err(damaged(format!("it names {refused:?}, which no object can have")));
        }
        let is_damaged = !unpacked.refused.is_empty();
        let (header, entries) = unpacked.without_refused(destination, &key);
        let (written, etag) = (info.modified, info.etag);
        Ok(Some(Self { header, entries, written, is_damaged, etag }))
    }

    /// The same where a damaged manifest counts as one of nothing, to be replaced, and keys that no object
    /// can have are left out.
    pub async fn load_or_begin(destination: &Store) -> Result<Option<Self>, PublishError> {
        match Self::load_as(destination, true).await {
            Err(error @ PublishError::Published { .. }) => {
                let Some(info) = destination.find(&Self::key()).await? else { return Err(error) };
                tracing::warn!("{error}");
                let part_size = destination.multipart_size();
                let empty = Self::after(None, "", part_size, BTreeMap::new(), Vec::new());
                Ok(Some(Self { is_damaged: true, etag: info.etag, ..empty }))
            }
            loaded => loaded,
        }
    }

    /// Whether the destination still has this manifest, as far as it can tell.
    pub async fn is_current(this: Option<&Self>, destination: &Store) -> Result<bool, StoreError> {
        let found = destination.find(&Self::key()).await?;
        Ok(match (this, found) {
            (Some(this), Some(found)) => this.etag == found.etag,
            (this, found) => this.is_none() && found.is_none(),
        })
    }

    /// The entry of an object.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
        self.entries.get(at)
    }

    /// Writes the manifest, unless the one that it follows has been replaced.
    pub async fn save(&mut self, destination: &Store) -> Result<(), PublishError> {
        let key = Self::key();
        let url = destination.location().join(&key).to_string();
        let bytes = pack(&self.header, self.entries.iter());
        let bytes =
            bytes.map_err(|error| PublishError::Published { url, problem: error.to_string() })?;
        let condition = match &self.etag {
            None => Condition::Absent,
            Some(etag) => Condition::Is(etag.clone()),
        };
        let sending = Sending {
            content_type: Some("application/gzip".to_owned()),
            md5: Some(Digest::of(&bytes)),
            condition,
            ..Sending::default()
        };
        let sent = destination.send(&key, Bytes::from(bytes.clone()), &sending).await;
        match sent {
            Ok(info) => self.etag = info.etag,
            // A try whose answer was lost may have written it.
            Err(StoreError::Overtaken { .. }) => match destination.read_within(&key, PACKED).await?
            {
                Some((found, info)) if found == bytes => self.etag = info.etag,
                _ => {
                    let url = destination.location().to_string();
                    return Err(PublishError::Overtaken { url });
                }
            },
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// Whether a key is that of an object below the place that it is given for.
pub(super) fn is_object(key: &str) -> bool {
    !key.split('/').any(|part| ["", ".", ".."].contains(&part))
}

/// A header and entries, as objects of this folder hold them.
pub(super) fn pack<'a>(
    header: &impl Serialize,
    entries: impl Iterator<Item = &'a Entry>,
) -> std::io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut out, header)?;
    for Entry { key, size, etag, .. } in entries {
        out.write_all(b"\n")?;
        serde_json::to_writer(&mut out, &(key, size, etag))?;
    }
    out.write_all(b"\n")?;
    out.finish()
}

/// What was packed for a place.
pub(super) struct Unpacked<H> {
    pub header: H,
    /// Entries, ordered by key.
    pub entries: Vec<Entry>,
    /// Keys that no object there can have: this program has not written them.
    pub refused: Vec<String>,
}

impl<H> Unpacked<H> {
    /// The same where such keys are only warned of.
    pub(super) fn without_refused(self, destination: &Store, key: &str) -> (H, Vec<Entry>) {
        let Self { header, entries, refused } = self;
        if let Some(first) = refused.first() {
            tracing::warn!(
                "{} names {} that no object there can have, such as {first:?}: passed over",
                destination.location().join(key),
                match refused.len() {
                    1 => "a key".to_owned(),
                    number => format!("{number} keys"),
                }
            );
        }
        (header, entries)
    }
}

/// What was packed for `destination`; entries must be in order of their keys.
pub(super) fn unpack<H: DeserializeOwned>(
    bytes: &[u8],
    destination: &Store,
) -> Result<Unpacked<H>, String> {
    // Several members, so that what was appended to the one is seen.
    let mut lines = Lines::new(MultiGzDecoder::new(bytes), UNPACKED);
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let line = lines.next_line().map_err(|error| told(&error))?.unwrap_or_default();
    let header = serde_json::from_slice(line).map_err(|error| told(&error))?;
    let (mut entries, mut refused): (Vec<Entry>, _) = (Vec::new(), Vec::new());
    while let Some(line) = lines.next_line().map_err(|error| told(&error))? {
        let (key, size, etag) = serde_json::from_slice(line).map_err(|error| told(&error))?;
        let entry = Entry { key, size, etag, parts: None };
        if !destination.can_hold(&entry.key) {
            refused.push(entry.key.to_string());
            continue;
        }
        if entries.last().is_some_and(|last| last.key >= entry.key) {
            return Err("its entries are not in order".to_owned());
        }
        entries.push(entry);
    }
    Ok(Unpacked { header, entries, refused })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 16 << 20;

    fn entry(key: &str) -> Entry {
        Entry::of(key, key.as_bytes(), PART)
    }

    #[tokio::test]
    async fn a_manifest_is_read_as_written_and_not_over_another() {
        let store = Store::memory();
        assert!(Published::load(&store).await.unwrap().is_none());
        let entries = vec![entry("a"), entry("b \"c\"")];
        let mut first = Published::after(None, "here", PART, BTreeMap::new(), entries.clone());
        let mut other = first.clone();
        first.save(&store).await.unwrap();
        let read = Published::load(&store).await.unwrap().unwrap();
        assert_eq!((&read.header, &read.entries), (&first.header, &entries));
        assert_eq!(read.entry("b \"c\"").unwrap().size, 5);
        other.header.source = "there".to_owned();
        assert!(matches!(other.save(&store).await, Err(PublishError::Overtaken { .. })));
        let mut second =
            Published::after(Some(&read), "here", PART, BTreeMap::new(), vec![entry("z")]);
        assert_eq!(second.header.version, 2);
        second.save(&store).await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_manifest_is_named() {
        let store = Store::memory();
        store.put(&Published::key(), Bytes::from_static(b"no gzip")).await.unwrap();
        let damaged = async || Published::load(&store).await.unwrap_err().to_string();
        let error = damaged().await;
        assert!(error.contains("published.jsonl.gz") && error.contains("--audit"), "{error}");
        // Appended to a whole one.
        let mut whole =
            pack(&Published::after(None, "", PART, BTreeMap::new(), Vec::new()).header, [].iter())
                .unwrap();
        whole.extend_from_slice(b"junk");
        store.put(&Published::key(), Bytes::from(whole)).await.unwrap();
        assert!(damaged().await.contains("is damaged"));
        let outside = Published::after(None, "", PART, BTreeMap::new(), vec![entry("../x")]);
        let packed = pack(&outside.header, outside.entries.iter()).unwrap();
        store.put(&Published::key(), Bytes::from(packed)).await.unwrap();
        assert!(damaged().await.contains("../x"));
        let audited = Published::load_or_begin(&store).await.unwrap().unwrap();
        assert!(audited.entries.is_empty() && audited.is_damaged, "it is written anew");
        // Of the same line again and again, a bomb is refused at the second.
        let twice = Published::after(None, "", PART, BTreeMap::new(), vec![entry("x"), entry("x")]);
        let packed = pack(&twice.header, twice.entries.iter()).unwrap();
        store.put(&Published::key(), Bytes::from(packed)).await.unwrap();
        assert!(damaged().await.contains("not in order"));
    }
}
