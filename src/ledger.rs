//! Completion records: what is done, from what, under which recipe.
//!
//! A case's record lies beside its files and is written last: where it is, the case is complete.
//! Until then a record under another name says which files are done, so that a case that was
//! stopped continues. Records hold no times and no machine names: the same case from the same
//! input has the same record. They are also the manifests that publishing compares.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::{ObjectInfo, Store, StoreError};

/// Name of the record of a complete case, in the folder of its files.
pub const COMPLETE: &str = "manifest.json";
/// Name of the record of a case that is not complete.
pub const PARTIAL: &str = "manifest.partial.json";
/// Folder of the records in a map store, which readers pass over: `PPP-MM.json` for each case,
pub const CASES: &str = ".cases";
/// and this for what the cases share: metadata, coordinates, the chunks that hold all of them.
pub const SHARED: &str = "shared.json";
/// There, the rules that the store is filled under, decided by the first process that fills it.
pub const RULES: &str = "recipe.json";
/// Version of the form of the records.
const FORMAT: u32 = 1;

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The object is no record.
    #[error("{url} is not a record of this program; move it away or use --force")]
    Damaged {
        /// Object.
        url: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// The record is of a form that this program does not know.
    #[error("{url} has record format {found}, this program knows {FORMAT}; use a newer dor")]
    Format {
        /// Object.
        url: String,
        /// Its format.
        found: u32,
    },
}

/// What was done for a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of the record's form.
    pub format: u32,
    /// Name of the case.
    pub case: String,
    /// What was made and under which rules.
    pub recipe: Recipe,
    /// Model months without input, when that was allowed.
    pub missing_months: Vec<String>,
    /// A file each, by key.
    pub files: Vec<FileRecord>,
}

/// The rules that outputs were made under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Product, such as `research-grade`.
    pub product: String,
    /// Version of the rules.
    pub version: u32,
    /// SHA-256 of the grid file; none when the raw files' own coordinates were kept.
    pub grid_sha256: Option<String>,
}

/// An input and the output made from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Key of the output, relative to the output location.
    pub key: String,
    /// Bytes of the output.
    pub size: u64,
    /// MD5 of the output, in hexadecimal.
    pub md5: String,
    /// What it was made from.
    pub input: InputRecord,
}

/// An input as it was when it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputRecord {
    /// Key, relative to the input location.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Last modification, RFC 3339.
    pub modified: String,
    /// ETag, where the store has real ones.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub etag: Option<String>,
    /// SHA-256 of the content, in hexadecimal; none of files that were not read to the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

impl InputRecord {
    /// Describes an object that was read.
    pub fn new(info: &ObjectInfo, sha256: Option<String>) -> Self {
        Self {
            key: info.key.clone(),
            size: info.size,
            modified: info.modified.to_rfc3339(),
            etag: info.etag.clone(),
            sha256,
        }
    }

    /// Whether the object is still the one that was read: size and ETag, or time where one of the
    /// two has no ETag.
    pub fn is_still(&self, info: &ObjectInfo) -> bool {
        let same = match (&self.etag, &info.etag) {
            (Some(a), Some(b)) => a == b,
            _ => self.modified == info.modified.to_rfc3339(),
        };
        self.key == info.key && self.size == info.size && same
    }
}

impl Record {
    /// An empty record.
    pub fn new(case: String, recipe: Recipe, missing_months: Vec<String>) -> Self {
        Self { format: FORMAT, case, recipe, missing_months, files: Vec::new() }
    }

    /// Adds or replaces the entry of a file; entries stay ordered by key.
    pub fn insert(&mut self, file: FileRecord) {
        match self.files.binary_search_by(|f| f.key.cmp(&file.key)) {
            Ok(at) => self.files[at] = file,
            Err(at) => self.files.insert(at, file),
        }
    }

    /// The entry of an output.
    pub fn file(&self, key: &str) -> Option<&FileRecord> {
        let at = self.files.binary_search_by(|f| f.key.as_str().cmp(key)).ok()?;
        self.files.get(at)
    }

    /// Reads the record in `folder` under one of the two names.
    pub async fn load(
        store: &Store,
        folder: &str,
        name: &str,
    ) -> Result<Option<Self>, LedgerError> {
        let key = format!("{folder}/{name}");
        let Some((bytes, _)) = store.read(&key).await? else { return Ok(None) };
        let url = store.location().join(&key).to_string();
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |source| LedgerError::Damaged { url: url.clone(), source };
        let Format { format } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(LedgerError::Format { url, found: format });
        }
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Writes the record to `folder` under one of the two names.
    pub async fn save(&self, store: &Store, folder: &str, name: &str) -> Result<(), LedgerError> {
        let key = format!("{folder}/{name}");
        let damaged = |source| LedgerError::Damaged { url: key.clone(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(damaged)?;
        text.push(b'\n');
        store.put(&key, Bytes::from(text)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let recipe = Recipe { product: "research-grade".to_owned(), version: 1, grid_sha256: None };
        Record::new("case".to_owned(), recipe, Vec::new())
    }

    fn info(size: u64, etag: Option<&str>) -> ObjectInfo {
        ObjectInfo {
            key: "a".to_owned(),
            size,
            modified: chrono::DateTime::UNIX_EPOCH,
            etag: etag.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn a_record_is_read_as_it_was_written_and_keeps_its_order() {
        let store = Store::memory();
        let mut record = record();
        for key in ["b", "a", "c", "a"] {
            let input = InputRecord::new(&info(1, None), Some("00".to_owned()));
            record.insert(FileRecord { key: key.to_owned(), size: 2, md5: key.to_owned(), input });
        }
        assert_eq!(
            record.files.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        record.save(&store, "112/04", COMPLETE).await.unwrap();
        let read = Record::load(&store, "112/04", COMPLETE).await.unwrap();
        assert_eq!(read.as_ref(), Some(&record));
        assert_eq!(Record::load(&store, "112/04", PARTIAL).await.unwrap(), None);
    }

    #[tokio::test]
    async fn other_objects_and_newer_formats_are_refused_by_name() {
        let store = Store::memory();
        for text in [r#"{"format": 9}"#, "hello", r#"{"format": 1}"#] {
            store.put("x/manifest.json", Bytes::from(text)).await.unwrap();
            let error = Record::load(&store, "x", COMPLETE).await.unwrap_err();
            assert!(error.to_string().contains("x/manifest.json"), "{error}");
        }
    }

    #[test]
    fn an_input_changes_with_size_etag_or_time() {
        let with_etag = InputRecord::new(&info(5, Some("e")), None);
        assert!(with_etag.is_still(&info(5, Some("e"))));
        assert!(!with_etag.is_still(&info(5, Some("f"))));
        assert!(!with_etag.is_still(&info(6, Some("e"))));
        let mut later = info(5, None);
        assert!(with_etag.is_still(&later));
        later.modified += chrono::Duration::seconds(1);
        assert!(!with_etag.is_still(&later));
    }
}
