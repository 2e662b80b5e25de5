//! Case records of a store: the values of a case (stores 1 and 3) or the list of its objects (store 2),
//! with the inputs and settings of the result.
//!
//! A record is written after the objects of its case. Records are in a folder whose name starts with a
//! dot, which Zarr readers ignore.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::{StoreRecipe, VisError};
use crate::case_manifest::{CASES_FOLDER, CaseValues, FORMAT, InputRecord, SHARED_MANIFEST};
use crate::model::case::MONTHS;
use crate::model::{Case, Checksums, LatLon, YearMonth};
use crate::research::PlanError;
use crate::store::{PutMode, PutOptions, Store, StoreError};

/// Suffix in the file name of a partial record, which exists while the objects of a case are written.
const PARTIAL_MANIFEST: &str = ".partial";

/// Record of the result of a case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseRecord {
    /// Version of the record format.
    pub format: u32,
    /// Name of the store: `store1`, `store2` or `store3`.
    pub store: String,
    /// Short name of the case, such as `112-04`.
    pub case: String,
    /// Recipe of the result.
    pub recipe: StoreRecipe,
    /// Other settings that the result depends on.
    #[serde(
        skip_serializing_if = "ResultSettings::is_empty",
        default,
        deserialize_with = "or_none"
    )]
    pub settings: ResultSettings,
    /// Model months without an input file; empty unless missing months were allowed.
    pub missing_months: Vec<String>,
    /// Input files, with their checksums where known.
    pub inputs: Vec<InputRecord>,
    /// Values by month and column (stores 1 and 3), `None` for fill; empty in store 2.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub values: CaseValues,
    /// Part size of the multipart checksums in `files`, bytes.
    pub part_size: u64,
    /// Objects of the case (store 2), in order of their keys; empty in stores 1 and 3.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub files: Vec<FileEntry>,
}

/// Settings that a result depends on besides its input files and recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultSettings {
    /// SHA-256 of the grid file; `None` for the points of the input files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grid_sha256: Option<String>,
    /// SHA-256 of the regridding weights of all levels; `None` for stores 1 and 3.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub weights_sha256: Option<String>,
    /// File with the series of sea surface height; `None` without the variable `DIC` of store 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ssh: Option<InputRecord>,
    /// Center of the polygon, from which distances are measured; `None` for stores 1 and 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub center: Option<LatLon>,
    /// Number of points of the model grid, `[nlat, nlon]`, of stores 1 and 3; `None` for a result from an
    /// analysis or excess store, and for store 2, whose weights are those of a grid.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grid_shape: Option<[usize; 2]>,
    /// Whether `dor vis finalize --adopt` created the record from values in the store.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub adopted: bool,
}

/// Reads settings; `null` stands for the default.
fn or_none<'de, D: Deserializer<'de>>(from: D) -> Result<ResultSettings, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl ResultSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An object in a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Key of the object in the store.
    pub key: String,
    /// Size and checksums of the object.
    #[serde(flatten)]
    pub content: Checksums,
}

impl FileEntry {
    /// Computes the entry of an object with these bytes. `part_size` is the part size of multipart
    /// checksums, bytes.
    pub fn new(key: String, bytes: &[u8], part_size: u64) -> Self {
        Self { key, content: Checksums::of(bytes, part_size) }
    }
}

/// Record of the objects that the cases of a store share, as the last `dor vis finalize` wrote them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedRecord {
    /// Version of the record format.
    pub format: u32,
    /// Name of the store: `store1`, `store2` or `store3`.
    pub store: String,
    /// Recipe of the store; `None` for a store without cases.
    pub recipe: Option<StoreRecipe>,
    /// Short names of the cases with a result.
    pub cases: Vec<String>,
    /// SHA-256 of the values of each case in the shared chunks; empty in store 2.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub values_sha256: BTreeMap<String, String>,
    /// Part size of the multipart checksums in `files`, bytes.
    pub part_size: u64,
    /// Metadata, coordinates, and the chunks that hold several cases.
    pub files: Vec<FileEntry>,
}

impl SharedRecord {
    /// Creates a record without files.
    pub fn new(
        store: &str,
        recipe: Option<StoreRecipe>,
        cases: Vec<String>,
        part_size: u64,
    ) -> Self {
        let (format, store, files) = (FORMAT, store.to_owned(), Vec::new());
        let values_sha256 = BTreeMap::new();
        Self { format, store, recipe, cases, values_sha256, part_size, files }
    }

    /// Reads the record of a store; `None` before the first `dor vis finalize`.
    pub async fn load(store: &Store) -> Result<Option<Self>, VisError> {
        load(store, &format!("{CASES_FOLDER}/{SHARED_MANIFEST}")).await
    }

    /// Writes the record.
    pub async fn save(&self, store: &Store) -> Result<(), VisError> {
        save(store, format!("{CASES_FOLDER}/{SHARED_MANIFEST}"), self).await
    }
}

/// The cases that have a record in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedCases {
    /// Cases whose results are complete.
    pub done: BTreeSet<Case>,
    /// Cases with a partial record: a process writes them, or was interrupted while it did.
    pub partial: BTreeSet<Case>,
}

impl RecordedCases {
    /// Lists the records. Over https, which has no listing, reads the cases from [`SharedRecord`].
    pub async fn of(store: &Store) -> Result<Self, VisError> {
        let mut recorded = Self::default();
        if !store.can_list() {
            let cases = SharedRecord::load(store).await?.map(|shared| shared.cases);
            let cases = cases.unwrap_or_default().into_iter();
            recorded.done = cases.filter_map(|case| case.parse().ok()).collect();
            return Ok(recorded);
        }
        for object in store.list_expecting_files(CASES_FOLDER, |key| case_of(key).is_some()).await?
        {
            match case_of(&object.key) {
                Some((case, CaseProgress::Done)) => recorded.done.insert(case),
                Some((case, CaseProgress::Partial)) => recorded.partial.insert(case),
                None => false,
            };
        }
        Ok(recorded)
    }

    /// Whether no case has a record.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty() && self.partial.is_empty()
    }

    /// Whether a case has a complete or partial record.
    pub fn has(&self, case: &Case) -> bool {
        self.done.contains(case) || self.partial.contains(case)
    }
}

/// Kind of a case record.
enum CaseProgress {
    /// The result is complete.
    Done,
    /// A process has started to write the objects.
    Partial,
}

/// Parses the key of a case record; `None` for other keys.
fn case_of(key: &str) -> Option<(Case, CaseProgress)> {
    let name = key.strip_prefix(CASES_FOLDER)?.strip_prefix('/')?.strip_suffix(".json")?;
    match name.strip_suffix(PARTIAL_MANIFEST) {
        Some(case) => Some((case.parse().ok()?, CaseProgress::Partial)),
        None => Some((name.parse().ok()?, CaseProgress::Done)),
    }
}

/// The field that records of every format version have.
#[derive(Deserialize)]
struct RecordFormat {
    format: u32,
}

/// Reads a record; `None` when it does not exist.
pub(super) async fn load<T: DeserializeOwned>(
    store: &Store,
    key: &str,
) -> Result<Option<T>, VisError> {
    Ok(load_version(store, key).await?.0)
}

/// Reads a record, with the write condition that holds as long as no other process has replaced it.
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

/// Writes a record if `condition` holds. Returns whether it held. A service without conditional writes
/// always writes the record.
async fn save_on(
    store: &Store,
    key: String,
    record: &impl Serialize,
    condition: PutMode,
) -> Result<bool, VisError> {
    let options = PutOptions { condition, ..PutOptions::default() };
    match store.send(&key, to_json(&key, record)?, &options).await {
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

/// Encodes a record as JSON; `key` is for messages.
pub(super) fn to_json(key: &str, record: &impl Serialize) -> Result<Bytes, VisError> {
    let mut text = serde_json::to_vec_pretty(record)
        .map_err(|source| VisError::Record { url: key.to_owned(), source })?;
    text.push(b'\n');
    Ok(text.into())
}

impl CaseRecord {
    /// Creates a record without values and objects. `part_size` is the part size of multipart checksums,
    /// bytes.
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

    /// Checks the shape of the values for a store with `columns` values for each month. Returns the
    /// problem, or `None`.
    pub fn shape_problem(&self, columns: usize) -> Option<String> {
        let months = if columns == 0 { 0 } else { MONTHS };
        let fits = |row: &Vec<Option<f32>>| row.len() == columns;
        let is_valid = self.values.len() == months && self.values.iter().all(fits);
        (!is_valid).then(|| {
            format!("the values of case {} are not {months} months of {columns}", self.case)
        })
    }

    /// Whether both records are of the same inputs, settings and rules.
    pub fn is_of_same_work(&self, other: &Self) -> bool {
        self.recipe == other.recipe
            && self.settings == other.settings
            && self.inputs.len() == other.inputs.len()
            && self.inputs.iter().zip(&other.inputs).all(|(a, b)| a.is_same_version(b))
    }

    /// Checks that a new result would keep all months of this record. `missing` are the months without an
    /// input file now.
    ///
    /// # Errors
    /// [`PlanError::WouldLose`] when this record has one of the missing months.
    pub fn check_months_kept(&self, case: Case, missing: &[YearMonth]) -> Result<(), PlanError> {
        let has = |month: &&YearMonth| !self.missing_months.contains(&month.to_string());
        let months: Vec<YearMonth> = missing.iter().filter(has).copied().collect();
        match months.is_empty() {
            true => Ok(()),
            false => Err(PlanError::WouldLose { case, months }),
        }
    }

    fn key(case: Case) -> String {
        format!("{CASES_FOLDER}/{}.json", case.short())
    }

    fn partial_key(case: Case) -> String {
        format!("{CASES_FOLDER}/{}{PARTIAL_MANIFEST}.json", case.short())
    }

    /// URL of the record of a case, for messages.
    pub fn url(store: &Store, case: Case) -> String {
        store.location().join(&Self::key(case)).to_string()
    }

    /// Reads the record of a case; `None` when the case has no complete result.
    pub async fn load(store: &Store, case: Case) -> Result<Option<Self>, VisError> {
        load(store, &Self::key(case)).await
    }

    /// Reads the record of a case, with the write condition that holds as long as no other process has
    /// replaced it.
    pub async fn load_version(
        store: &Store,
        case: Case,
    ) -> Result<(Option<Self>, PutMode), VisError> {
        load_version(store, &Self::key(case)).await
    }

    /// Reads the partial record of a case; `None` when no process has started to write it.
    pub async fn load_partial(store: &Store, case: Case) -> Result<Option<Self>, VisError> {
        load(store, &Self::partial_key(case)).await
    }

    /// Writes the partial record of a case if `condition` holds. Returns whether it held. The caller
    /// writes the partial record before the objects, so that a killed process leaves no objects without
    /// a record.
    pub async fn save_partial(
        &self,
        store: &Store,
        case: Case,
        condition: PutMode,
    ) -> Result<bool, VisError> {
        save_on(store, Self::partial_key(case), self, condition).await
    }

    /// Deletes the complete record of a case, after [`Self::save_partial`] and before its objects are written.
    pub async fn remove_complete(store: &Store, case: Case) -> Result<(), StoreError> {
        store.delete(&Self::key(case)).await
    }

    /// Deletes the partial record that [`Self::save_partial`] wrote.
    pub async fn remove_partial(store: &Store, case: Case) -> Result<(), StoreError> {
        store.delete(&Self::partial_key(case)).await
    }

    /// Writes the record, which makes the case complete.
    pub async fn save(&self, store: &Store, case: Case) -> Result<(), VisError> {
        save(store, Self::key(case), self).await
    }

    /// Writes the record if `condition` holds. Returns whether it held.
    pub async fn save_on(
        &self,
        store: &Store,
        case: Case,
        condition: PutMode,
    ) -> Result<bool, VisError> {
        save_on(store, Self::key(case), self, condition).await
    }

    /// Writes the record of a case, and deletes its partial record.
    pub async fn complete(&self, store: &Store, case: Case) -> Result<(), VisError> {
        self.save(store, case).await?;
        Ok(store.delete(&Self::partial_key(case)).await?)
    }

    /// Whether the case has a partial record.
    pub async fn has_partial(store: &Store, case: Case) -> Result<bool, StoreError> {
        Ok(store.head(&Self::partial_key(case)).await?.is_some())
    }

    /// Deletes the complete and the partial record of a case.
    pub async fn remove(store: &Store, case: Case) -> Result<(), StoreError> {
        store.delete(&Self::key(case)).await?;
        store.delete(&Self::partial_key(case)).await
    }
}
