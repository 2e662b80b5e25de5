//! What was made of a case for a store: its numbers (stores 1 and 3) or the names of its chunks
//! (store 2), and from what. Written last, below a folder that readers and publishers pass over.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::{StoreRecipe, VisError};
use crate::case_manifest::{CASES, FORMAT, InputRecord, SHARED};
use crate::model::case::MONTHS;
use crate::model::{Case, Checksums, LatLon, YearMonth};
use crate::research::PlanError;
use crate::store::{PutMode, PutOptions, Store, StoreError};

/// Follows the case in the name of the record of a case that is being written.
const BEGUN: &str = ".partial";

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
    pub recipe: StoreRecipe,
    /// What else the result depends on.
    #[serde(
        skip_serializing_if = "ResultSettings::is_empty",
        default,
        deserialize_with = "or_none"
    )]
    pub settings: ResultSettings,
    /// Model months without input, when that was allowed.
    pub missing_months: Vec<String>,
    /// The input files.
    pub inputs: Vec<InputRecord>,
    /// The case's numbers month by month, where chunks are shared with other cases.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: Vec<Vec<Option<f32>>>,
    /// Bytes of the parts of objects of which the MD5s are recorded.
    pub part_size: u64,
    /// The case's own objects.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub files: Vec<FileEntry>,
}

/// What a result depends on besides its input files and the rules.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultSettings {
    /// SHA-256 of the grid file; none when the points of the input files were used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grid_sha256: Option<String>,
    /// SHA-256 of the regridding weights of all levels (store 2).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights_sha256: Option<String>,
    /// The series of sea surface height, where the variable DIC needs it (store 2).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ssh: Option<InputRecord>,
    /// Centre of the polygon, from which distances are taken (store 3).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub center: Option<LatLon>,
    /// Whether the record was made of what lay in the store (`vis finalize --adopt`).
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub adopted: bool,
}

/// Settings, or `null` where there are none.
fn or_none<'de, D: Deserializer<'de>>(from: D) -> Result<ResultSettings, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl ResultSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An object of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name in the store.
    pub key: String,
    /// Size and checksums.
    #[serde(flatten)]
    pub content: Checksums,
}

impl FileEntry {
    /// Of an object that is written, in a record of parts of so many bytes.
    pub fn new(key: String, bytes: &[u8], part_size: u64) -> Self {
        Self { key, content: Checksums::of(bytes, part_size) }
    }
}

/// What the cases of a store share, as it was put together last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedRecord {
    /// Version of the record's form.
    pub format: u32,
    /// Which of the stores.
    pub store: String,
    /// The rules; none in a store without cases.
    pub recipe: Option<StoreRecipe>,
    /// Cases that were there.
    pub cases: Vec<String>,
    /// Bytes of the parts of objects of which the MD5s are recorded.
    pub part_size: u64,
    /// Metadata, coordinates, and the chunks that hold several cases.
    pub files: Vec<FileEntry>,
}

impl SharedRecord {
    /// Of a store, without its parts yet.
    pub fn new(
        store: &str,
        recipe: Option<StoreRecipe>,
        cases: Vec<String>,
        part_size: u64,
    ) -> Self {
        let (format, store, files) = (FORMAT, store.to_owned(), Vec::new());
        Self { format, store, recipe, cases, part_size, files }
    }

    /// Reads the record of a store.
    pub async fn load(store: &Store) -> Result<Option<Self>, VisError> {
        load(store, &format!("{CASES}/{SHARED}")).await
    }

    /// Writes the record.
    pub async fn save(&self, store: &Store) -> Result<(), VisError> {
        save(store, format!("{CASES}/{SHARED}"), self).await
    }
}

/// The cases that the records of a store name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedCases {
    /// Cases whose results are complete.
    pub done: BTreeSet<Case>,
    /// Cases that a process has begun to write: it is at work, or was interrupted.
    pub begun: BTreeSet<Case>,
}

impl RecordedCases {
    /// Lists the records. Over https, where nothing can be listed, the last `finalize` tells them.
    pub async fn of(store: &Store) -> Result<Self, VisError> {
        let mut recorded = Self::default();
        if !store.can_list() {
            let cases = SharedRecord::load(store).await?.map(|shared| shared.cases);
            let cases = cases.unwrap_or_default().into_iter();
            recorded.done = cases.filter_map(|case| case.parse().ok()).collect();
            return Ok(recorded);
        }
        for object in store.list_ours(CASES, |key| case_of(key).is_some()).await? {
            match case_of(&object.key) {
                Some((case, CaseProgress::Done)) => recorded.done.insert(case),
                Some((case, CaseProgress::Begun)) => recorded.begun.insert(case),
                None => false,
            };
        }
        Ok(recorded)
    }

    /// Whether no case has a record.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.begun.is_empty()
    }

    /// Whether a case has a record, complete or begun.
    pub fn has(&self, case: &Case) -> bool {
        self.done.contains(case) || self.begun.contains(case)
    }
}

/// How far a case is that has a record.
enum CaseProgress {
    Done,
    Begun,
}

/// The case whose record a key names.
fn case_of(key: &str) -> Option<(Case, CaseProgress)> {
    let name = key.strip_prefix(CASES)?.strip_prefix('/')?.strip_suffix(".json")?;
    match name.strip_suffix(BEGUN) {
        Some(case) => Some((case.parse().ok()?, CaseProgress::Begun)),
        None => Some((name.parse().ok()?, CaseProgress::Done)),
    }
}

/// What every form of a record has.
#[derive(Deserialize)]
struct RecordFormat {
    format: u32,
}

pub(super) async fn load<T: DeserializeOwned>(
    store: &Store,
    key: &str,
) -> Result<Option<T>, VisError> {
    Ok(load_version(store, key).await?.0)
}

/// Reads a record, with the condition under which it is replaced only while nobody else has done so.
async fn load_version<T: DeserializeOwned>(
    store: &Store,
    key: &str,
) -> Result<(Option<T>, PutMode), VisError> {
    let Some((bytes, info)) = store.get(key).await? else { return Ok((None, PutMode::Absent)) };
    let damaged = |source| VisError::Record { url: store.location().join(key).to_string(), source };
    if let Ok(RecordFormat { format }) = serde_json::from_slice(&bytes)
        && format != FORMAT
    {
        let url = store.location().join(key).to_string();
        return Err(VisError::Format { url, found: format });
    }
    let record = serde_json::from_slice(&bytes).map_err(damaged)?;
    Ok((Some(record), info.etag.map_or(PutMode::Always, PutMode::Is)))
}

/// Writes a record where `condition` holds; whether it held. A service that knows no conditions has it
/// written in any case.
async fn save_on(
    store: &Store,
    key: String,
    record: &impl Serialize,
    condition: PutMode,
) -> Result<bool, VisError> {
    let sending = PutOptions { condition, ..PutOptions::default() };
    match store.send(&key, to_json(&key, record)?, &sending).await {
        Ok(_) => Ok(true),
        Err(StoreError::PreconditionFailed { .. }) => Ok(false),
        Err(StoreError::NotImplemented { .. }) => save(store, key, record).await.map(|()| true),
        Err(error) => Err(error.into()),
    }
}

async fn save(store: &Store, key: String, record: &impl Serialize) -> Result<(), VisError> {
    store.put(&key, to_json(&key, record)?).await?;
    Ok(())
}

pub(super) fn to_json(key: &str, record: &impl Serialize) -> Result<Bytes, VisError> {
    let mut text = serde_json::to_vec_pretty(record)
        .map_err(|source| VisError::Record { url: key.to_owned(), source })?;
    text.push(b'\n');
    Ok(text.into())
}

impl CaseRecord {
    /// Of a case, without results yet, in a record of parts of so many bytes.
    pub fn new(
        store: &str,
        case: Case,
        recipe: StoreRecipe,
        settings: ResultSettings,
        missing_months: Vec<String>,
        inputs: Vec<InputRecord>,
        part_size: u64,
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
            part_size,
            files: Vec::new(),
        }
    }

    /// What is wrong with its numbers, in a store that takes so many of each month.
    pub fn misshapen(&self, columns: usize) -> Option<String> {
        let months = if columns == 0 { 0 } else { MONTHS };
        let fits = |row: &Vec<Option<f32>>| row.len() == columns;
        let is_well = self.values.len() == months && self.values.iter().all(fits);
        (!is_well)
            .then(|| format!("case {} has not {months} months of {columns} values", self.case))
    }

    /// Refuses to give up months that this record has, when they are `missing` now.
    pub fn keep(&self, case: Case, missing: &[YearMonth]) -> Result<(), PlanError> {
        let had = |month: &&YearMonth| !self.missing_months.contains(&month.to_string());
        let months: Vec<YearMonth> = missing.iter().filter(had).copied().collect();
        match months.is_empty() {
            true => Ok(()),
            false => Err(PlanError::WouldLose { case, months }),
        }
    }

    fn key(case: Case) -> String {
        format!("{CASES}/{}.json", case.short())
    }

    fn begun_key(case: Case) -> String {
        format!("{CASES}/{}{BEGUN}.json", case.short())
    }

    /// Where the record of a case is, for messages.
    pub fn url(store: &Store, case: Case) -> String {
        store.location().join(&Self::key(case)).to_string()
    }

    /// Reads the record of a case.
    pub async fn load(store: &Store, case: Case) -> Result<Option<Self>, VisError> {
        load(store, &Self::key(case)).await
    }

    /// Reads the record of a case, with the condition under which nobody has replaced it since.
    pub async fn load_version(
        store: &Store,
        case: Case,
    ) -> Result<(Option<Self>, PutMode), VisError> {
        load_version(store, &Self::key(case)).await
    }

    /// Reads the record of a case that a process has begun to write and has not completed.
    pub async fn load_begun(store: &Store, case: Case) -> Result<Option<Self>, VisError> {
        load(store, &Self::begun_key(case)).await
    }

    /// Notes that the case's objects are about to be written, unless `condition` does not hold; whether
    /// it held. A process that is killed leaves objects that this note covers.
    pub async fn note(
        &self,
        store: &Store,
        case: Case,
        condition: PutMode,
    ) -> Result<bool, VisError> {
        save_on(store, Self::begun_key(case), self, condition).await
    }

    /// After [`Self::note`]: from now on the case is not complete.
    pub async fn begin(store: &Store, case: Case) -> Result<(), StoreError> {
        store.delete(&Self::key(case)).await
    }

    /// Takes back what [`Self::note`] noted.
    pub async fn give_up(store: &Store, case: Case) -> Result<(), StoreError> {
        store.delete(&Self::begun_key(case)).await
    }

    /// Writes the record: the case is complete.
    pub async fn save(&self, store: &Store, case: Case) -> Result<(), VisError> {
        save(store, Self::key(case), self).await
    }

    /// The same where `condition` holds; whether it held.
    pub async fn save_on(
        &self,
        store: &Store,
        case: Case,
        condition: PutMode,
    ) -> Result<bool, VisError> {
        save_on(store, Self::key(case), self, condition).await
    }

    /// Writes the record of a case that was begun with [`Self::note`].
    pub async fn complete(&self, store: &Store, case: Case) -> Result<(), VisError> {
        self.save(store, case).await?;
        Ok(store.delete(&Self::begun_key(case)).await?)
    }

    /// Whether a process has begun to write the case's objects and has not completed it.
    pub async fn is_begun(store: &Store, case: Case) -> Result<bool, StoreError> {
        Ok(store.head(&Self::begun_key(case)).await?.is_some())
    }

    /// Removes the records of a case.
    pub async fn remove(store: &Store, case: Case) -> Result<(), StoreError> {
        store.delete(&Self::key(case)).await?;
        store.delete(&Self::begun_key(case)).await
    }
}
