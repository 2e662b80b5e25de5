//! Verifying a store against its contract: metadata, coordinates, every chunk, every case.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::create::{self, ExistingStore};
use super::finalize::{Completeness, completeness, other_weights, records, shared_chunks};
use super::record::{CaseRecord, FileEntry, RecordedCases};
use super::schema::{PyramidOptions, StoreKind, case_keys, most_bytes, place};
use super::{RunContext, VisError, coverage};
use crate::encode::zarr::{Array, StoreObject, ZarrVersion, chunk, v2, v3};
use crate::executor::{Pool, Stopped};
use crate::model::atlas::FILL;
use crate::model::case::{POLYGONS, in_short};
use crate::model::{Case, hex};
use crate::store::{Store, StoreError};

/// Objects that are read at the same time.
const READS: usize = 16;
/// Memory for a chunk and for a shard.
const MEMORY: [u64; 2] = [4 << 20, 200 << 20];

/// What was looked at and what was wrong with it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CheckedPart {
    /// Objects that were looked at.
    pub objects: usize,
    /// What is wrong, each with the name of the object.
    pub problems: Vec<String>,
}

impl CheckedPart {
    fn note(&mut self, problem: Option<String>) {
        self.objects += 1;
        self.problems.extend(problem);
    }
}

/// The result of a check.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Which store.
    pub kind: StoreKind,
    /// Metadata objects.
    pub metadata: CheckedPart,
    /// Chunks of coordinates.
    pub coordinates: CheckedPart,
    /// Chunks of data.
    pub chunks: CheckedPart,
    /// Records of cases.
    pub records: CheckedPart,
    /// Objects that belong to nothing of that.
    pub others: CheckedPart,
    /// Which cases there are.
    pub cases: Completeness,
    /// Cases whose values lie in the store without a record.
    pub uncovered: Vec<Case>,
    /// Whether the store has records at all; without them its values can be compared with nothing.
    pub has_records: bool,
}

impl CheckReport {
    /// Whether nothing is wrong. Missing cases are not.
    pub fn is_sound(&self) -> bool {
        [&self.metadata, &self.coordinates, &self.chunks, &self.records, &self.others]
            .iter()
            .all(|part| part.problems.is_empty())
    }
}

/// Reads a store whole and compares it with what it should be. Values that no record covers must be
/// whole and finite.
pub async fn check(store: &Store, workshop: &RunContext) -> Result<CheckReport, VisError> {
    let opened = create::open(store, "store1, 2 or 3").await?;
    let uncovered = coverage::uncovered(store, &opened.kind).await?;
    let records = records(store).await?;
    let has_records = !RecordedCases::of(store).await?.is_empty();
    let hierarchy = opened.kind.hierarchy(opened.recipe.as_ref());
    let mut report = CheckReport {
        kind: opened.kind.clone(),
        metadata: CheckedPart::default(),
        coordinates: CheckedPart::default(),
        chunks: CheckedPart::default(),
        records: CheckedPart::default(),
        others: CheckedPart::default(),
        cases: completeness(&records),
        uncovered: uncovered.iter().copied().collect(),
        has_records,
    };
    let (metadata, coordinates) = match opened.kind.format() {
        ZarrVersion::V2 => {
            let mut metadata = v2::metadata(&hierarchy);
            metadata.push(v2::consolidated(&hierarchy));
            (metadata, v2::coordinates(&hierarchy))
        }
        ZarrVersion::V3 => {
            let failed = |source| VisError::Shard { key: opened.kind.name().to_owned(), source };
            let objects = v3::objects(&hierarchy).map_err(failed)?;
            objects.into_iter().partition(|object| object.key.ends_with(v3::METADATA))
        }
    };
    let mut known: BTreeSet<String> =
        metadata.iter().chain(&coordinates).map(|object| object.key.clone()).collect();
    for object in metadata {
        report.metadata.note(metadata_problem(store, &object).await?);
    }
    for object in coordinates {
        report.coordinates.note(coordinate_problem(store, &object, &opened.kind).await?);
    }
    for (case, record) in &records {
        report.records.note(record_problem(*case, record, &opened));
    }
    if let Some((one, other)) = other_weights(&records) {
        report.records.problems.push(format!("cases {one} and {other} have different weights"));
    }
    let expected: Vec<ExpectedChunk> = match &opened.kind {
        StoreKind::Store1 | StoreKind::Store3 => shared(&opened.kind, &records, &uncovered),
        StoreKind::Store2(pyramid) => own(pyramid, &records, &uncovered),
    };
    if has_records && !uncovered.is_empty() {
        let cases = in_short(&report.uncovered);
        report.records.problems.push(format!(
            "{cases} have values and no record: keep them with dor vis finalize --adopt, or take \
             them out with dor vis remove"
        ));
    }
    known.extend(expected.iter().map(|expected| expected.key.clone()));
    report.others = others(store, &known).await?;
    let check = async |expected: ExpectedChunk| chunk_problem(store, workshop, expected).await;
    let mut problems = stream::iter(expected).map(check).buffered(READS);
    while let Some(problem) = problems.next().await {
        report.chunks.note(problem?);
        workshop.progress.file_done();
        if workshop.stop.is_cancelled() {
            return Err(Stopped.into());
        }
    }
    Ok(report)
}

/// Objects that readers may find and that nobody has recorded.
async fn others(store: &Store, known: &BTreeSet<String>) -> Result<CheckedPart, VisError> {
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
        part.note(Some(format!("{} {problem}", object.key)));
    }
    Ok(part)
}

/// Strict JSON that says what it should. Versions and titles may be older ones.
async fn metadata_problem(
    store: &Store,
    expected: &StoreObject,
) -> Result<Option<String>, VisError> {
    let key = &expected.key;
    let Some((bytes, _)) = store.get(key).await? else {
        return Ok(Some(format!("{key} is missing")));
    };
    let parsed = (serde_json::from_slice(&bytes), serde_json::from_slice(&expected.bytes));
    let (Ok(mut found), Ok(mut wanted)): (Result<Value, _>, Result<Value, _>) = parsed else {
        return Ok(Some(format!("{key} is not strict JSON")));
    };
    let of_array = key.ends_with(".zarray");
    for document in [&mut found, &mut wanted] {
        loosen(document);
        if of_array {
            normal_separator(document);
        }
        if key == v2::CONSOLIDATED
            && let Some(documents) = document["metadata"].as_object_mut()
        {
            for (name, document) in documents.iter_mut() {
                loosen(document);
                if name.ends_with(".zarray") {
                    normal_separator(document);
                }
            }
        }
    }
    Ok((found != wanted).then(|| format!("{key} is not what it should be")))
}

/// Leaves out what may differ between versions of this program.
fn loosen(document: &mut Value) {
    for place in ["", "attributes"] {
        let attributes = if place.is_empty() { &mut *document } else { &mut document[place] };
        let Some(attributes) = attributes.as_object_mut() else { continue };
        for name in ["title", "version"] {
            attributes.remove(name);
        }
        if let Some(multiscales) = attributes.get_mut("multiscales") {
            multiscales[0]["metadata"] = Value::Object(Map::new());
        }
    }
}

fn normal_separator(document: &mut Value) {
    if document.get("dimension_separator").is_none() {
        document["dimension_separator"] = ".".into();
    }
}

async fn coordinate_problem(
    store: &Store,
    expected: &StoreObject,
    kind: &StoreKind,
) -> Result<Option<String>, VisError> {
    let key = &expected.key;
    let Some((bytes, _)) = store.get(key).await? else {
        return Ok(Some(format!("{key} is missing")));
    };
    // Others may compress the same values otherwise.
    let same = match kind.format() {
        ZarrVersion::V3 => bytes == expected.bytes,
        ZarrVersion::V2 => {
            let length = kind.hierarchy(None).arrays.iter().find_map(|array| {
                let own = array.first_key() == *key;
                own.then(|| array.chunk_len() * v2::element(&array.content))
            });
            let decoded = |bytes: &[u8]| chunk::decode(bytes, length.unwrap_or_default());
            decoded(&bytes).is_ok() && decoded(&bytes) == decoded(&expected.bytes)
        }
    };
    Ok((!same).then(|| format!("{key} has other values")))
}

fn record_problem(case: Case, record: &CaseRecord, opened: &ExistingStore) -> Option<String> {
    let kind = opened.kind.name();
    if record.store != kind || record.case != case.short() {
        return Some(format!("the record of case {case} is for {} {}", record.store, record.case));
    }
    if let Some(problem) = record.misshapen(opened.kind.columns()) {
        return Some(problem);
    }
    let has = opened.recipe.as_ref();
    (has != Some(&record.recipe)).then(|| {
        let has = has.map_or("none".to_owned(), ToString::to_string);
        format!("case {case} is of recipe {}, the store of {has}", record.recipe)
    })
}

/// A chunk or shard that must be there.
struct ExpectedChunk {
    key: String,
    len: usize,
    /// Its values, where they follow from the records,
    values: Option<Vec<f32>>,
    /// but for those of these polygons, which no record covers,
    unknown: BTreeSet<usize>,
    /// and so many values of a polygon and month.
    columns: usize,
    /// SHA-256 of its bytes, where a record tells it.
    sha256: Option<String>,
    /// The array and the place in it, for what the library must decode.
    shard: Option<(Array, Vec<u64>)>,
}

fn shared(
    kind: &StoreKind,
    records: &BTreeMap<Case, CaseRecord>,
    uncovered: &BTreeSet<Case>,
) -> Vec<ExpectedChunk> {
    let hierarchy = kind.hierarchy(None);
    let len = hierarchy.arrays.iter().find(|a| a.is_data()).map_or(0, Array::chunk_len);
    let objects = shared_chunks(kind, records, &[]).into_iter().enumerate();
    let expected = objects.map(|(season, StoreObject { key, bytes })| {
        let of_season = uncovered.iter().map(|case| place(*case));
        ExpectedChunk {
            key,
            len,
            values: chunk::decode_floats(&bytes, len).ok(),
            unknown: of_season.filter(|(_, own)| *own == season).map(|(p, _)| p).collect(),
            columns: kind.columns(),
            sha256: None,
            shard: None,
        }
    });
    expected.collect()
}

fn own(
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
                        let (polygon, season) = place(*case);
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

async fn chunk_problem(
    store: &Store,
    workshop: &RunContext,
    expected: ExpectedChunk,
) -> Result<Option<String>, VisError> {
    let key = expected.key.clone();
    let bytes = match store.get_within(&key, most_bytes(expected.len)).await {
        Ok(Some((bytes, _))) => bytes,
        Ok(None) => return Ok(Some(format!("{key} is missing: the map would draw 0"))),
        Err(error @ StoreError::TooLarge { .. }) => return Ok(Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    let memory = MEMORY[usize::from(expected.shard.is_some())];
    let place = workshop.pool.place(memory).await?;
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
        let is_other = |wanted: &Vec<f32>| {
            let polygon = |at: usize| at / expected.columns.max(1) % usize::from(POLYGONS);
            let mut pairs = wanted.iter().zip(&values).enumerate();
            pairs.any(|(at, (a, b))| a != b && !expected.unknown.contains(&polygon(at)))
        };
        match &expected.values {
            Some(wanted) if is_other(wanted) => {
                Err("it differs from the records of its cases; run dor vis finalize".to_owned())
            }
            _ if expected.sha256.is_some() && digest != expected.sha256 => {
                Err("it is not what was written: run populate again with --force".to_owned())
            }
            _ => Ok(()),
        }
    };
    let result: Result<(), String> = Pool::run(&place, work).await?;
    Ok(result.err().map(|problem| format!("{key}: {problem}")))
}
