//! What was made of a case for a store: its numbers (stores 1 and 3) or the names of its chunks
//! (store 2), and from what. Written last, below a folder that readers and publishers pass over.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Recipe, VisError};
use crate::ledger::InputRecord;
use crate::model::Case;
use crate::store::{Store, StoreError};

/// Folder of the records in a store.
pub(super) const CASES: &str = ".cases";
/// Version of the records' form.
const FORMAT: u32 = 1;

/// What was made of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRecord {
    /// Version of the record's form.
    pub format: u32,
    /// Which of the stores: `store1`, `store2` or `store3`.
    pub store: String,
    /// Polygon and month, such as `112-04`.
    pub case: String,
    /// The rules.
    pub recipe: Recipe,
    /// What else the result depends on, such as the centre of the polygon.
    pub settings: serde_json::Value,
    /// Model months without input, when that was allowed.
    pub missing_months: Vec<String>,
    /// The input files.
    pub inputs: Vec<InputRecord>,
    /// The case's numbers month by month, where chunks are shared with other cases.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: Vec<Vec<Option<f32>>>,
    /// The case's own objects.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub files: Vec<FileEntry>,
}

/// An object of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the store.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// MD5 in hexadecimal.
    pub md5: String,
}

impl CaseRecord {
    /// Of a case, without results yet.
    pub fn new(
        store: &str,
        case: Case,
        recipe: Recipe,
        settings: serde_json::Value,
        missing_months: Vec<String>,
        inputs: Vec<InputRecord>,
    ) -> Self {
        Self {
            format: FORMAT,
            store: store.to_owned(),
            case: case.short(),
            recipe,
            settings,
            missing_months,
            inputs,
            values: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Whether `other` was made from the same under the same rules.
    pub fn is_like(&self, other: &Self) -> bool {
        let bare = |record: &Self| Self { values: Vec::new(), files: Vec::new(), ..record.clone() };
        bare(self) == bare(other)
    }

    fn key(case: Case) -> String {
        format!("{CASES}/{}.json", case.short())
    }

    /// Reads the record of a case.
    pub async fn load(store: &Store, case: Case) -> Result<Option<Self>, VisError> {
        let key = Self::key(case);
        let Some((bytes, _)) = store.read(&key).await? else { return Ok(None) };
        let damaged =
            |source| VisError::Record { url: store.location().join(&key).to_string(), source };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// Writes the record.
    pub async fn save(&self, store: &Store, case: Case) -> Result<(), VisError> {
        let key = Self::key(case);
        let damaged = |source| VisError::Record { url: key.clone(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(damaged)?;
        text.push(b'\n');
        store.put(&key, Bytes::from(text)).await?;
        Ok(())
    }

    /// Removes the record: its case is about to change.
    pub async fn remove(store: &Store, case: Case) -> Result<(), StoreError> {
        store.delete(&Self::key(case)).await
    }

    /// The cases that have a record.
    pub async fn cases(store: &Store) -> Result<Vec<Case>, StoreError> {
        let found = store.list(CASES).await?;
        let case = |key: &str| {
            let name = key.strip_prefix(CASES)?.strip_prefix('/')?;
            name.strip_suffix(".json")?.parse().ok()
        };
        let mut cases: Vec<Case> = found.iter().filter_map(|object| case(&object.key)).collect();
        cases.sort_unstable();
        Ok(cases)
    }
}
