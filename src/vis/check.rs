//! Verification of a store: compares metadata, coordinates, records and every chunk with what they should
//! be.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::create::{self, ExistingStore};
use super::finalize::{
    Completeness, completeness, other_weights, records, shared_chunks, unfinished,
};
use super::record::{CaseRecord, FileEntry, RecordedCases};
use super::schema::{PyramidOptions, StoreKind, axis_indices, case_keys, max_bytes};
use super::{RunContext, VisError, coverage};
use crate::encode::zarr::{Array, Hierarchy, StoreObject, ZarrVersion, chunk, v2, v3};
use crate::executor::{Pool, Stopped};
use crate::model::atlas::FILL;
use crate::model::case::{POLYGONS, describe_cases};
use crate::model::{Case, hex};
use crate::research::FilesInProgress;
use crate::store::{Store, StoreError};

/// Largest number of objects that are read at the same time.
const CONCURRENCY: usize = 16;
/// Memory to check a chunk, bytes.
const CHUNK_MEMORY: u64 = 4 << 20;
/// Memory to check a shard, bytes.
const SHARD_MEMORY: u64 = 200 << 20;

/// Result of checking one part of a store.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckedPart {
    /// Number of objects that were checked.
    pub objects: usize,
    /// Problems, each with the key of its object.
    pub problems: Vec<String>,
}

impl CheckedPart {
    /// Counts an object, with its problem if it has one.
    fn add(&mut self, problem: Option<String>) {
        self.objects += 1;
        self.problems.extend(problem);
    }
}

/// Result of checking a store.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Kind of the store.
    pub kind: StoreKind,
    /// Metadata objects.
    pub metadata: CheckedPart,
    /// Chunks of coordinate arrays.
    pub coordinates: CheckedPart,
    /// Chunks and shards of data arrays.
    pub chunks: CheckedPart,
    /// Records of cases.
    pub records: CheckedPart,
    /// Objects that are not part of the store.
    pub others: CheckedPart,
    /// Which cases of the catalogue have a result.
    pub cases: Completeness,
    /// Cases that have values and no case manifest.
    pub uncovered: Vec<Case>,
    /// Whether the store has any record. Without records the values are only checked to be finite.
    pub has_records: bool,
}

impl CheckReport {
    /// Whether there are no problems. Missing cases are no problem.
    pub fn is_sound(&self) -> bool {
        [&self.metadata, &self.coordinates, &self.chunks, &self.records, &self.others]
            .iter()
            .all(|part| part.problems.is_empty())
    }
}

/// Reads every object of a store and compares it with the schema and the records. Values without a record
/// are only checked to be complete and finite.
///
/// # Errors
/// The location has no store, an object or record cannot be read, or the run is stopped. Problems of the
/// store are in the report.
pub async fn check(store: &Store, context: &RunContext) -> Result<CheckReport, VisError> {
    let opened = create::open(store, "store1, 2 or 3").await?;
    let uncovered = coverage::uncovered(store, &opened.kind).await?;
    let records = records(store).await?;
    let unfinished = unfinished(store, &records).await?;
    let has_records = !RecordedCases::of(store).await?.is_empty();
    let hierarchy = opened.kind.hierarchy(opened.recipe.as_ref());
    let mut report = CheckReport {
        kind: opened.kind.clone(),
        metadata: CheckedPart::default(),
        coordinates: CheckedPart::default(),
        chunks: CheckedPart::default(),
        records: check_records(&records, &opened),
        others: CheckedPart::default(),
        cases: completeness(&records, &unfinished),
        uncovered: uncovered.iter().copied().collect(),
        has_records,
    };
    if !unfinished.is_empty() {
        let cases = describe_cases(&unfinished.iter().copied().collect::<Vec<_>>());
        report.records.problems.push(format!(
            "{cases} have only a part of their new maps: populate-store2 is writing them, or was interrupted; \
             populate them again"
        ));
    }
    let (metadata, coordinates) = expected_objects(&opened.kind, &hierarchy)?;
    let mut known: BTreeSet<String> =
        metadata.iter().chain(&coordinates).map(|object| object.key.clone()).collect();
    for object in metadata {
        report.metadata.add(metadata_problem(store, &object).await?);
    }
    for object in coordinates {
        report.coordinates.add(coordinate_problem(store, &object, &opened.kind).await?);
    }
    if has_records && !uncovered.is_empty() {
        let cases = describe_cases(&report.uncovered);
        report.records.problems.push(format!(
            "{cases} have values and no case manifest; keep them with `dor vis finalize --adopt`, or remove \
             them with `dor vis remove`"
        ));
    }
    let expected = match &opened.kind {
        StoreKind::Store1 | StoreKind::Store3 => {
            expected_shared_chunks(&opened.kind, &records, &uncovered)
        }
        StoreKind::Store2(pyramid) => {
            let arrays = hierarchy.arrays.iter().filter(|array| array.is_data());
            let keys = |array: &Array| -> Vec<String> {
                unfinished.iter().flat_map(|c| case_keys(array, pyramid.format, *c)).collect()
            };
            known.extend(arrays.flat_map(keys));
            expected_map_chunks(pyramid, &records, &uncovered)
        }
    };
    known.extend(expected.iter().map(|expected| expected.key.clone()));
    report.others = unknown_objects(store, &known).await?;
    report.chunks = check_chunks(store, context, expected).await?;
    Ok(report)
}

/// Returns the metadata objects and the coordinate chunks that a store must have.
fn expected_objects(
    kind: &StoreKind,
    hierarchy: &Hierarchy,
) -> Result<(Vec<StoreObject>, Vec<StoreObject>), VisError> {
    match kind.format() {
        ZarrVersion::V2 => {
            let mut metadata = v2::metadata(hierarchy);
            metadata.push(v2::consolidated(hierarchy));
            Ok((metadata, v2::coordinates(hierarchy)))
        }
        ZarrVersion::V3 => {
            let failed = |source| VisError::Shard { key: kind.name().to_owned(), source };
            let objects = v3::objects(hierarchy).map_err(failed)?;
            Ok(objects.into_iter().partition(|object| object.key.ends_with(v3::METADATA)))
        }
    }
}

/// Checks each record by itself, and that all records have the same regridding weights.
fn check_records(records: &BTreeMap<Case, CaseRecord>, opened: &ExistingStore) -> CheckedPart {
    let mut part = CheckedPart::default();
    for (case, record) in records {
        part.add(record_problem(*case, record, opened));
    }
    if let Some((one, other)) = other_weights(records) {
        part.problems.push(format!("cases {one} and {other} have different weights"));
    }
    part
}

/// Reads and checks the expected chunks and shards.
async fn check_chunks(
    store: &Store,
    context: &RunContext,
    expected: Vec<ExpectedChunk>,
) -> Result<CheckedPart, VisError> {
    let _in_progress = FilesInProgress::begin(&*context.progress, expected.len(), 0);
    let mut part = CheckedPart::default();
    let check = async |expected: ExpectedChunk| chunk_problem(store, context, expected).await;
    let mut problems = stream::iter(expected).map(check).buffered(CONCURRENCY);
    while let Some(problem) = problems.next().await {
        part.add(problem?);
        context.progress.file_done();
        if context.stop.is_cancelled() {
            return Err(Stopped.into());
        }
    }
    Ok(part)
}

/// Lists the objects outside hidden folders that are not part of the store.
async fn unknown_objects(store: &Store, known: &BTreeSet<String>) -> Result<CheckedPart, VisError> {
    let mut part = CheckedPart::default();
    if !store.can_list() {
        return Ok(part);
    }
    for object in store.list("").await? {
        let hidden = object.key.split('/').next().is_some_and(|first| first.starts_with('.'));
        if hidden && object.key.contains('/') || known.contains(&object.key) {
            continue;
        }
        let problem = "is no part of the store: move it away";
        part.add(Some(format!("{} {problem}", object.key)));
    }
    Ok(part)
}

/// Compares a metadata object with the schema; titles and versions may differ. Returns the problem, or
/// `None`.
async fn metadata_problem(
    store: &Store,
    expected: &StoreObject,
) -> Result<Option<String>, VisError> {
    let key = &expected.key;
    let Some((bytes, _)) = store.get(key).await? else {
        return Ok(Some(format!("{key} is missing")));
    };
    let parsed = (serde_json::from_slice(&bytes), serde_json::from_slice(&expected.bytes));
    let (Ok(mut found), Ok(mut required)): (Result<Value, _>, Result<Value, _>) = parsed else {
        return Ok(Some(format!("{key} is not strict JSON")));
    };
    let is_array = key.ends_with(".zarray");
    for document in [&mut found, &mut required] {
        remove_versions(document);
        if is_array {
            set_default_separator(document);
        }
        if key == v2::CONSOLIDATED
            && let Some(documents) = document["metadata"].as_object_mut()
        {
            for (name, document) in documents.iter_mut() {
                remove_versions(document);
                if name.ends_with(".zarray") {
                    set_default_separator(document);
                }
            }
        }
    }
    Ok((found != required).then(|| format!("{key} differs from the schema")))
}

/// Removes the attributes that may differ between versions of this program.
fn remove_versions(document: &mut Value) {
    for field in ["", "attributes"] {
        let attributes = if field.is_empty() { &mut *document } else { &mut document[field] };
        let Some(attributes) = attributes.as_object_mut() else { continue };
        for name in ["title", "version"] {
            attributes.remove(name);
        }
        if let Some(multiscales) = attributes.get_mut("multiscales") {
            multiscales[0]["metadata"] = Value::Object(Map::new());
        }
    }
}

/// Sets the default of the Zarr v2 field `dimension_separator` where it is absent.
fn set_default_separator(document: &mut Value) {
    if document.get("dimension_separator").is_none() {
        document["dimension_separator"] = ".".into();
    }
}

/// Compares the values of a coordinate array with the schema. Returns the problem, or `None`.
async fn coordinate_problem(
    store: &Store,
    expected: &StoreObject,
    kind: &StoreKind,
) -> Result<Option<String>, VisError> {
    let key = &expected.key;
    let Some((bytes, _)) = store.get(key).await? else {
        return Ok(Some(format!("{key} is missing")));
    };
    // Another program can compress the same values to other bytes.
    let is_same = match kind.format() {
        ZarrVersion::V3 => bytes == expected.bytes,
        ZarrVersion::V2 => {
            let length = kind.hierarchy(None).arrays.iter().find_map(|array| {
                let is_array = array.first_key() == *key;
                is_array.then(|| array.chunk_len() * v2::element_size(&array.content))
            });
            let decoded = |bytes: &[u8]| chunk::decode(bytes, length.unwrap_or_default());
            decoded(&bytes).is_ok() && decoded(&bytes) == decoded(&expected.bytes)
        }
    };
    Ok((!is_same).then(|| format!("{key} has other values than the schema")))
}

/// Checks that a record fits its case and its store. Returns the problem, or `None`.
fn record_problem(case: Case, record: &CaseRecord, opened: &ExistingStore) -> Option<String> {
    let kind = opened.kind.name();
    if record.store != kind || record.case != case.short() {
        return Some(format!(
            "the case manifest of {case} is for {} {}",
            record.store, record.case
        ));
    }
    if let Some(problem) = record.shape_problem(opened.kind.columns()) {
        return Some(problem);
    }
    let has = opened.recipe.as_ref();
    (has != Some(&record.recipe)).then(|| {
        let has = has.map_or("none".to_owned(), ToString::to_string);
        format!("case {case} is of recipe {}, the store of {has}", record.recipe)
    })
}

/// A chunk or shard that the store must have, with what is known of its content.
struct ExpectedChunk {
    key: String,
    /// Number of values.
    len: usize,
    /// Values that follow from the records; `None` in store 2.
    values: Option<Vec<f32>>,
    /// Polygons without a record, whose values are not compared.
    unknown: BTreeSet<usize>,
    /// Number of values of a polygon and month; 0 in store 2.
    columns: usize,
    /// SHA-256 of the bytes; `None` when no record has it.
    sha256: Option<String>,
    /// Array and index of a shard; `None` for a chunk.
    shard: Option<(Array, Vec<u64>)>,
}

/// Returns the chunks of store 1 or 3 with the values of the records.
fn expected_shared_chunks(
    kind: &StoreKind,
    records: &BTreeMap<Case, CaseRecord>,
    uncovered: &BTreeSet<Case>,
) -> Vec<ExpectedChunk> {
    let hierarchy = kind.hierarchy(None);
    let len = hierarchy.arrays.iter().find(|a| a.is_data()).map_or(0, Array::chunk_len);
    let objects = shared_chunks(kind, records, &[]).into_iter().enumerate();
    let expected = objects.map(|(season, StoreObject { key, bytes })| {
        let positions = uncovered.iter().map(|case| axis_indices(*case));
        ExpectedChunk {
            key,
            len,
            values: chunk::decode_floats(&bytes, len).ok(),
            unknown: positions.filter(|(_, s)| *s == season).map(|(polygon, _)| polygon).collect(),
            columns: kind.columns(),
            sha256: None,
            shard: None,
        }
    });
    expected.collect()
}

/// Returns the chunks or shards of store 2 with the checksums of the records.
fn expected_map_chunks(
    pyramid: &PyramidOptions,
    records: &BTreeMap<Case, CaseRecord>,
    uncovered: &BTreeSet<Case>,
) -> Vec<ExpectedChunk> {
    let hierarchy = StoreKind::Store2(pyramid.clone()).hierarchy(None);
    let data: Vec<Array> = hierarchy.arrays.into_iter().filter(Array::is_data).collect();
    let mut expected = Vec::new();
    for case in records.keys().chain(uncovered) {
        let files = records.get(case).map(|record| record.files.as_slice()).unwrap_or_default();
        let of = |file: &FileEntry| (file.key.clone(), file.content.sha256.clone());
        let sha256: BTreeMap<String, String> = files.iter().map(of).collect();
        for array in &data {
            for key in case_keys(array, pyramid.format, *case) {
                let (len, shard) = match pyramid.format {
                    ZarrVersion::V2 => (array.chunk_len(), None),
                    ZarrVersion::V3 => {
                        let (polygon, season) = axis_indices(*case);
                        let index = vec![polygon as u64, 0, season as u64, 0, 0, 0, 0];
                        let len = array.shards.iter().flatten().product();
                        (len, Some((array.clone(), index)))
                    }
                };
                expected.push(ExpectedChunk {
                    sha256: sha256.get(&key).cloned(),
                    key,
                    len,
                    values: None,
                    unknown: BTreeSet::new(),
                    columns: 0,
                    shard,
                });
            }
        }
    }
    expected
}

/// Reads a chunk or shard and checks its size, checksum and values. Returns the problem, or `None`.
async fn chunk_problem(
    store: &Store,
    context: &RunContext,
    expected: ExpectedChunk,
) -> Result<Option<String>, VisError> {
    let key = expected.key.clone();
    let bytes = match store.get_within(&key, max_bytes(expected.len)).await {
        Ok(Some((bytes, _))) => bytes,
        Ok(None) => return Ok(Some(format!("{key} is missing: the map would draw 0"))),
        Err(error @ StoreError::TooLarge { .. }) => return Ok(Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let memory = if expected.shard.is_some() { SHARD_MEMORY } else { CHUNK_MEMORY };
    let permit = context.pool.acquire(memory).await?;
    let work = move || {
        let digest = expected.sha256.is_some().then(|| hex(&Sha256::digest(&bytes)));
        let values = match &expected.shard {
            None => chunk::decode_floats(&bytes, expected.len).map_err(|e| e.to_string())?,
            Some((array, index)) => v3::decode(array, index, bytes).map_err(|e| e.to_string())?,
        };
        if values.len() != expected.len {
            return Err(format!("it has {} values, not {}", values.len(), expected.len));
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(format!(
                "value {at} is {}, where fill is {:e}",
                values[at],
                f64::from(FILL)
            ));
        }
        let differs = |required: &Vec<f32>| {
            let polygon = |at: usize| at / expected.columns.max(1) % usize::from(POLYGONS);
            let mut pairs = required.iter().zip(&values).enumerate();
            pairs.any(|(at, (a, b))| a != b && !expected.unknown.contains(&polygon(at)))
        };
        match &expected.values {
            Some(required) if differs(required) => {
                Err("it differs from the manifests of its cases; run `dor vis finalize`".to_owned())
            }
            _ if expected.sha256.is_some() && digest != expected.sha256 => Err(
                "its SHA-256 differs from the case manifest; populate the case again with --force"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    };
    let result: Result<(), String> = Pool::run(&permit, work).await?;
    Ok(result.err().map(|problem| format!("{key}: {problem}")))
}
