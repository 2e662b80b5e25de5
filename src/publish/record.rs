//! Records of conversions, from which it is known what a source holds.

use serde::Deserialize;
use serde_json::Value;

use super::manifest::is_object;
use super::{Entry, PublishError};
use crate::ledger::FORMAT;
use crate::model::Parts;
use crate::store::{Store, is_public};

/// A record of a conversion, as far as publishing needs it.
#[derive(Deserialize)]
pub(super) struct Record {
    #[serde(default)]
    format: u32,
    pub(super) recipe: Value,
    /// Bytes of the parts of which it has the MD5s.
    #[serde(default)]
    pub(super) part_size: u64,
    /// Its own objects; none where cases share them.
    #[serde(default)]
    pub(super) files: Vec<FileOf>,
    /// Which store.
    #[serde(default)]
    pub(super) store: String,
    /// Cases that are in the shared chunks.
    #[serde(default)]
    pub(super) cases: Vec<String>,
    /// Months without input.
    #[serde(default)]
    pub(super) missing_months: Vec<String>,
    /// What else a result depends on.
    #[serde(default)]
    pub(super) settings: Value,
}

/// An object of a record.
#[derive(Deserialize)]
pub(super) struct FileOf {
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) md5: Parts,
}

/// A record, and the entry of the object that it is, in parts of `part_size`.
pub(super) async fn read_record(
    source: &Store,
    key: &str,
    part_size: u64,
) -> Result<Option<(Record, Entry)>, PublishError> {
    let Some((bytes, _)) = source.read(key).await? else { return Ok(None) };
    let url = || source.location().join(key).to_string();
    let unusable = |source| PublishError::Record { url: url(), source };
    let record: Record = serde_json::from_slice(&bytes).map_err(unusable)?;
    let refused = |problem: String| Err(unusable(serde::de::Error::custom(problem)));
    if record.format != FORMAT {
        return refused(format!("it has format {}, this program knows {FORMAT}", record.format));
    }
    let is_odd = |file: &&FileOf| !is_object(&file.key) || !is_public(&file.key);
    if let Some(FileOf { key, .. }) = record.files.iter().find(is_odd) {
        return refused(format!("it names {key:?}, which nobody would publish"));
    }
    let is_unfit = |file: &&FileOf| !file.md5.fit(record.part_size, file.size);
    if let Some(FileOf { key, md5, .. }) = record.files.iter().find(is_unfit) {
        let number = md5.digests().len();
        return refused(format!("of {key} it has {number} MD5s, and there are other parts"));
    }
    let own = Entry::of(key, &bytes, part_size);
    Ok(Some((record, own)))
}
