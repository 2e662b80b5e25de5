//! Assembly of the chunks and metadata that the cases of a store share.
//!
//! A chunk of store 1 or 3 holds all polygons of an intervention month. Each case therefore has its
//! values in a record, and [`finalize`] assembles the chunks from the records. It can run again at any
//! time, also while other processes fill cases. It deletes temporary files of killed processes.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::create::ExistingStore;
use super::record::{CaseRecord, FileEntry, RecordedCases, SharedRecord};
use super::schema::{StoreKind, axis_indices};
use super::{StoreRecipe, VisError, coverage, create};
use crate::case_manifest::values_sha256;
use crate::encode::zarr::{StoreObject, chunk};
use crate::model::Case;
use crate::model::atlas::FILL;
use crate::model::case::{MONTHS, POLYGONS};
use crate::store::Store;

/// Largest number of records that are read at the same time.
const CONCURRENCY: usize = 32;

/// Which cases of the catalogue have a result in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Cases with a result.
    pub done: Vec<Case>,
    /// Cases without a result; their values are fill.
    pub missing: Vec<Case>,
    /// Cases whose result lacks months; the values of these months are fill.
    pub partial: Vec<Case>,
    /// Cases that a process fills, or was stopped while it did.
    pub unfinished: Vec<Case>,
}

/// Assembles the shared chunks and writes the metadata, the consolidated metadata last.
///
/// # Errors
/// [`VisError::Uncovered`] when the store has values without a record, which would be lost; records that
/// do not fit the store; an error of the store.
pub async fn finalize(store: &Store) -> Result<(StoreKind, Completeness), VisError> {
    let assembly = AssembledStore::of(store, &BTreeSet::new()).await?;
    assembly.write_chunks(store).await?;
    assembly.end(store).await
}

/// Returns what [`finalize`] would return. Writes nothing.
///
/// # Errors
/// As [`finalize`].
pub async fn preview(store: &Store) -> Result<(StoreKind, Completeness), VisError> {
    let AssembledStore { opened, records, unfinished, .. } =
        AssembledStore::of(store, &BTreeSet::new()).await?;
    Ok((opened.kind, completeness(&records, &unfinished)))
}

/// The assembled chunks and records of a store, before anything is written.
pub(super) struct AssembledStore {
    opened: ExistingStore,
    records: BTreeMap<Case, CaseRecord>,
    /// Cases with a partial record only.
    unfinished: BTreeSet<Case>,
    recipe: Option<StoreRecipe>,
    /// Chunks that cases share; empty for store 2.
    chunks: Vec<StoreObject>,
}

impl AssembledStore {
    /// Assembles a store without the `excluded` cases. If there are any, values of other cases without a
    /// record are kept; otherwise they are an error.
    pub(super) async fn of(store: &Store, excluded: &BTreeSet<Case>) -> Result<Self, VisError> {
        let opened = create::open(store, "store1, 2 or 3").await?;
        let uncovered = match excluded.is_empty() {
            true => BTreeSet::new(),
            false => &coverage::uncovered(store, &opened.kind).await? - excluded,
        };
        coverage::refuse_uncovered(store, &opened.kind, &(excluded | &uncovered)).await?;
        let unrecorded = match opened.kind.columns() {
            0 => Vec::new(),
            _ => coverage::values_of(store, &opened.kind, &uncovered).await?,
        };
        let records = records_without(store, excluded).await?;
        let unfinished = &unfinished(store, &records).await? - excluded;
        let recipe = common_recipe(store, &opened, &records)?;
        let chunks = shared_chunks(&opened.kind, &records, &unrecorded);
        Ok(Self { opened, records, unfinished, recipe, chunks })
    }

    /// Writes the shared chunks.
    pub(super) async fn write_chunks(&self, store: &Store) -> Result<(), VisError> {
        for StoreObject { key, bytes } in &self.chunks {
            store.put(key, bytes.clone()).await?;
        }
        Ok(())
    }

    /// Writes the metadata, the consolidated metadata last, and then the record of shared objects.
    pub(super) async fn end(self, store: &Store) -> Result<(StoreKind, Completeness), VisError> {
        let Self { opened, records, unfinished, recipe, chunks } = self;
        let mut cases: BTreeSet<String> = records.keys().map(|case| case.short()).collect();
        // A case whose result is being replaced still belongs to the store, so that a publish waits for it.
        let before = SharedRecord::load(store).await?.map(|shared| shared.cases);
        let is_unfinished = |name: &String| unfinished.iter().any(|case| case.short() == *name);
        cases.extend(before.into_iter().flatten().filter(is_unfinished));
        let part_size = store.multipart_size();
        let cases = cases.into_iter().collect();
        let mut shared = SharedRecord::new(opened.kind.name(), recipe.clone(), cases, part_size);
        if opened.kind.columns() > 0 {
            let digest = |(case, record): (&Case, &CaseRecord)| {
                (case.short(), values_sha256(&record.values))
            };
            shared.values_sha256 = records.iter().map(digest).collect();
        }
        let entry = |StoreObject { key, bytes }: &StoreObject| {
            FileEntry::new(key.clone(), bytes, part_size)
        };
        shared.files.extend(chunks.iter().map(entry));
        store.remove_stale_temp_files("").await?;
        // Another process can have set the recipe since the store was opened.
        let recipe = match recipe {
            None => create::open(store, opened.kind.name()).await?.recipe,
            recipe => recipe,
        };
        shared.files.extend(create::write_metadata(store, &opened.kind, recipe.as_ref()).await?);
        shared.save(store).await?;
        Ok((opened.kind, completeness(&records, &unfinished)))
    }
}

/// Returns the recipe that a store and all its records have in common; `None` in a store without cases.
///
/// # Errors
/// A record is of another store or case or is damaged, or two records have different recipes or weights.
fn common_recipe(
    store: &Store,
    opened: &ExistingStore,
    records: &BTreeMap<Case, CaseRecord>,
) -> Result<Option<StoreRecipe>, VisError> {
    let url = || store.location().to_string();
    let mismatch = |problem: String| VisError::Mismatch { url: url(), problem };
    let mut recipe = opened.recipe.clone();
    for (case, record) in records {
        if record.store != opened.kind.name() || record.case != case.short() {
            return Err(mismatch(format!(
                "has a record of case {} for {} in the file of case {}; populate this case again with \
                 --force",
                record.case,
                record.store,
                case.short()
            )));
        }
        if let Some(problem) = record.shape_problem(opened.kind.columns()) {
            return Err(mismatch(format!(
                "has a damaged case manifest: {problem}; populate the case again with --force"
            )));
        }
        let has = recipe.get_or_insert_with(|| record.recipe.clone());
        if *has != record.recipe {
            return Err(VisError::Recipe {
                url: format!("{}, except case {case},", url()),
                has: has.to_string(),
                wanted: record.recipe.to_string(),
            });
        }
    }
    match other_weights(records) {
        None => Ok(recipe),
        Some((one, other)) => Err(mismatch(format!(
            "has maps of two sets of weights, in cases {one} and {other}; populate one of them \
             again with the grid file of the other"
        ))),
    }
}

/// Reads the records of all complete cases.
pub async fn records(store: &Store) -> Result<BTreeMap<Case, CaseRecord>, VisError> {
    records_without(store, &BTreeSet::new()).await
}

/// The cases that have a partial record and none of `records`.
pub async fn unfinished(
    store: &Store,
    records: &BTreeMap<Case, CaseRecord>,
) -> Result<BTreeSet<Case>, VisError> {
    let mut partial = RecordedCases::of(store).await?.partial;
    partial.retain(|case| !records.contains_key(case));
    Ok(partial)
}

/// Reads the records of all complete cases except the `excluded` ones.
async fn records_without(
    store: &Store,
    excluded: &BTreeSet<Case>,
) -> Result<BTreeMap<Case, CaseRecord>, VisError> {
    let load = async |case: Case| Ok((case, CaseRecord::load(store, case).await?));
    let loaded = stream::iter(&RecordedCases::of(store).await?.done - excluded)
        .map(load)
        .buffered(CONCURRENCY);
    let existing = loaded.try_filter_map(async |(case, record)| Ok(record.map(|r| (case, r))));
    existing.try_collect::<BTreeMap<_, _>>().await
}

/// Returns two cases whose records have different regridding weights; `None` when all are the same.
pub fn other_weights(records: &BTreeMap<Case, CaseRecord>) -> Option<(Case, Case)> {
    let weights = |(case, record): (&Case, &CaseRecord)| {
        Some((*case, record.settings.weights_sha256.clone()?))
    };
    let mut known = records.iter().filter_map(weights);
    let (first, first_weights) = known.next()?;
    let (other, _) = known.find(|(_, weights)| *weights != first_weights)?;
    Some((first, other))
}

/// Sorts the cases of the catalogue by the state of their records.
pub fn completeness(
    records: &BTreeMap<Case, CaseRecord>,
    unfinished: &BTreeSet<Case>,
) -> Completeness {
    let of = |matches: fn(Option<&CaseRecord>) -> bool| {
        Case::all().filter(|case| matches(records.get(case))).collect()
    };
    Completeness {
        done: of(|record| record.is_some()),
        missing: of(|record| record.is_none()),
        partial: of(|record| record.is_some_and(|record| !record.missing_months.is_empty())),
        unfinished: unfinished.iter().copied().collect(),
    }
}

/// Assembles the chunks of stores 1 and 3; empty for store 2. A chunk holds all polygons of an
/// intervention month: the values of `records`, the values of `unrecorded` cases, and fill for others.
pub fn shared_chunks(
    kind: &StoreKind,
    records: &BTreeMap<Case, CaseRecord>,
    unrecorded: &[(Case, Vec<Vec<f32>>)],
) -> Vec<StoreObject> {
    let columns = kind.columns();
    if columns == 0 {
        return Vec::new();
    }
    let hierarchy = kind.hierarchy(None);
    let Some(array) = hierarchy.arrays.iter().find(|array| array.is_data()) else {
        return Vec::new();
    };
    let keys = array.chunk_keys().into_iter().enumerate();
    let objects = keys.map(|(season, key)| {
        let mut values = vec![FILL; array.chunk_len()];
        let mut fill = |case: Case, month: usize, row: &mut dyn Iterator<Item = f32>| {
            let at = (month * usize::from(POLYGONS) + axis_indices(case).0) * columns;
            values[at..at + columns].iter_mut().zip(row).for_each(|(value, new)| *value = new);
        };
        let is_in_chunk = |case: &Case| axis_indices(*case).1 == season;
        for (case, record) in records.iter().filter(|(case, _)| is_in_chunk(case)) {
            for (month, row) in record.values.iter().take(MONTHS).enumerate() {
                fill(*case, month, &mut row.iter().map(|value| value.unwrap_or(FILL)));
            }
        }
        for (case, rows) in unrecorded.iter().filter(|(case, _)| is_in_chunk(case)) {
            for (month, row) in rows.iter().take(MONTHS).enumerate() {
                fill(*case, month, &mut row.iter().copied());
            }
        }
        StoreObject { key, bytes: chunk::encode_floats(&values) }
    });
    objects.collect()
}
