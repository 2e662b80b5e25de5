//! Adoption of values without a case record, which another program or an older version wrote: creates
//! records from the values in the store.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::record::{CaseRecord, FileEntry, ResultSettings};
use super::schema::{PyramidOptions, StoreKind, case_keys, max_bytes};
use super::{StoreRecipe, VisError, coverage, create};
use crate::encode::zarr::{Array, ZarrVersion};
use crate::model::Case;
use crate::model::atlas::FILL;
use crate::model::case::describe_cases;
use crate::store::Store;

/// Largest number of objects that are read at the same time.
const CONCURRENCY: usize = 16;

/// Writes a record for each case that has values and no record, unless `dry_run` is set. Returns these cases.
///
/// The recipe of the records is that of the store, or `recipe` for a store without one. The inputs of the
/// values are unknown, so the records have none.
///
/// # Errors
/// A chunk is damaged or missing; the store has no recipe and `recipe` is `None`; the store fails.
pub async fn adopt(
    store: &Store,
    recipe: Option<StoreRecipe>,
    dry_run: bool,
) -> Result<BTreeSet<Case>, VisError> {
    let opened = create::open(store, "store1, 2 or 3").await?;
    if let Some((_, key)) = coverage::damaged_chunks(store, &opened.kind).await?.first() {
        return Err(coverage::damaged(store, key));
    }
    let cases = coverage::uncovered(store, &opened.kind).await?;
    if cases.is_empty() {
        return Ok(cases);
    }
    let no_recipe = || {
        VisError::Settings(format!(
            "{} does not state the recipe of its values; if the reference program wrote them, give \
             --reference-compat",
            store.location()
        ))
    };
    let recipe = opened.recipe.or(recipe).ok_or_else(no_recipe)?;
    let record = |case| {
        let settings = ResultSettings { adopted: true, ..ResultSettings::default() };
        let (kind, recipe) = (opened.kind.name(), recipe.clone());
        let part_size = store.multipart_size();
        CaseRecord::new(kind, case, recipe, settings, Vec::new(), Vec::new(), part_size)
    };
    let records = match &opened.kind {
        StoreKind::Store1 | StoreKind::Store3 => {
            series_records(store, &opened.kind, &cases, record).await?
        }
        StoreKind::Store2(pyramid) => map_records(store, pyramid, &cases, record).await?,
    };
    for (case, record) in records.into_iter().filter(|_| !dry_run) {
        record.save(store, case).await?;
    }
    Ok(cases)
}

/// Creates the case manifests in store 1 or 3, with the values in the shared chunks.
async fn series_records(
    store: &Store,
    kind: &StoreKind,
    cases: &BTreeSet<Case>,
    record: impl Fn(Case) -> CaseRecord,
) -> Result<BTreeMap<Case, CaseRecord>, VisError> {
    let mut records: BTreeMap<Case, CaseRecord> =
        cases.iter().map(|case| (*case, record(*case))).collect();
    for (case, rows) in coverage::values_of(store, kind, cases).await? {
        let Some(record) = records.get_mut(&case) else { continue };
        let months = case.months().zip(&rows);
        let missing = months.filter(|(_, row)| row.iter().all(|value| *value == FILL));
        record.missing_months = missing.map(|(month, _)| month.to_string()).collect();
        let without_fill = |value: f32| (value != FILL).then_some(value);
        record.values =
            rows.into_iter().map(|row| row.into_iter().map(without_fill).collect()).collect();
    }
    Ok(records)
}

/// Creates the case manifests in store 2, with the checksums of their objects.
async fn map_records(
    store: &Store,
    pyramid: &PyramidOptions,
    cases: &BTreeSet<Case>,
    record: impl Fn(Case) -> CaseRecord,
) -> Result<BTreeMap<Case, CaseRecord>, VisError> {
    let arrays: Vec<Array> = StoreKind::Store2(pyramid.clone()).hierarchy(None).arrays;
    let mut records = BTreeMap::new();
    let mut incomplete = Vec::new();
    for &case in cases {
        let data = arrays.iter().filter(|array| array.is_data());
        let objects = data.flat_map(|array| {
            let floats = match pyramid.format {
                ZarrVersion::V2 => array.chunk_len(),
                ZarrVersion::V3 => array.shards.iter().flatten().product(),
            };
            let keys = case_keys(array, pyramid.format, case).into_iter();
            keys.map(move |key| (key, max_bytes(floats)))
        });
        let objects: Vec<(String, u64)> = objects.collect();
        let expected = objects.len();
        let entry = async |(key, most): (String, u64)| {
            let object = store.get_within(&key, most).await?;
            Ok::<_, VisError>(
                object.map(|(bytes, _)| FileEntry::new(key, &bytes, store.multipart_size())),
            )
        };
        let entries: Vec<Option<FileEntry>> =
            stream::iter(objects).map(entry).buffered(CONCURRENCY).try_collect().await?;
        let mut files: Vec<FileEntry> = entries.into_iter().flatten().collect();
        if files.len() < expected {
            incomplete.push(case);
            continue;
        }
        files.sort_by(|a, b| a.key.cmp(&b.key));
        records.insert(case, CaseRecord { files, ..record(case) });
    }
    match incomplete.is_empty() {
        true => Ok(records),
        false => Err(VisError::Mismatch {
            url: store.location().to_string(),
            problem: format!(
                "lacks chunks of cases without a record: {}; remove these cases with `dor vis \
                 remove`, or populate them again with --force",
                describe_cases(&incomplete)
            ),
        }),
    }
}
