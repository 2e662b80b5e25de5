//! Putting together what cases share: the chunks of stores 1 and 3 hold every polygon of a season,
//! so each case leaves its numbers in a record, and one process assembles the chunks. Safe to run
//! again, also while cases are still being made. What killed writers left on disk is removed.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::create::ExistingStore;
use super::record::{CaseRecord, FileEntry, RecordedCases, SharedRecord};
use super::schema::{StoreKind, place};
use super::{StoreRecipe, VisError, coverage, create};
use crate::encode::zarr::{StoreObject, chunk};
use crate::model::Case;
use crate::model::atlas::FILL;
use crate::model::case::{MONTHS, POLYGONS};
use crate::store::Store;

/// Records that are read at the same time.
const READS: usize = 32;

/// How complete a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// Cases with results.
    pub done: Vec<Case>,
    /// Cases without: fill.
    pub missing: Vec<Case>,
    /// Cases of which months are missing: partly fill.
    pub partial: Vec<Case>,
}

/// Assembles the shared chunks and writes the metadata, the consolidated metadata last. A store with
/// values that no record covers is refused: they would be dropped.
pub async fn finalize(store: &Store) -> Result<(StoreKind, Completeness), VisError> {
    let assembly = AssembledStore::of(store, &BTreeSet::new()).await?;
    assembly.write_chunks(store).await?;
    assembly.end(store).await
}

/// A store put together, before anything is written.
pub(super) struct AssembledStore {
    opened: ExistingStore,
    records: BTreeMap<Case, CaseRecord>,
    recipe: Option<StoreRecipe>,
    /// The chunks that cases share.
    chunks: Vec<StoreObject>,
}

impl AssembledStore {
    /// Puts a store together; the cases `without` are left out, and the values of others without a record are
    /// kept where some are left out.
    pub(super) async fn of(store: &Store, without: &BTreeSet<Case>) -> Result<Self, VisError> {
        let opened = create::open(store, "store1, 2 or 3").await?;
        let uncovered = match without.is_empty() {
            true => BTreeSet::new(),
            false => &coverage::uncovered(store, &opened.kind).await? - without,
        };
        coverage::refuse_uncovered(store, &opened.kind, &(without | &uncovered)).await?;
        let unrecorded = match opened.kind.columns() {
            0 => Vec::new(),
            _ => coverage::values_of(store, &opened.kind, &uncovered).await?,
        };
        let records = records_without(store, without).await?;
        let recipe = agreed(store, &opened, &records)?;
        let chunks = shared_chunks(&opened.kind, &records, &unrecorded);
        Ok(Self { opened, records, recipe, chunks })
    }

    /// Writes the chunks that cases share.
    pub(super) async fn write_chunks(&self, store: &Store) -> Result<(), VisError> {
        for StoreObject { key, bytes } in &self.chunks {
            store.put(key, bytes.clone()).await?;
        }
        Ok(())
    }

    /// Writes the metadata, the consolidated metadata last, and what the store holds now.
    pub(super) async fn end(self, store: &Store) -> Result<(StoreKind, Completeness), VisError> {
        let Self { opened, records, recipe, chunks } = self;
        let cases = records.keys().map(|case| case.short()).collect();
        let part_size = store.multipart_size();
        let mut shared = SharedRecord::new(opened.kind.name(), recipe.clone(), cases, part_size);
        let entry = |StoreObject { key, bytes }: &StoreObject| {
            FileEntry::new(key.clone(), bytes, part_size)
        };
        shared.files.extend(chunks.iter().map(entry));
        store.remove_stale_temp_files("").await?;
        // The first case may have been begun since the store was opened.
        let recipe = match recipe {
            None => create::open(store, opened.kind.name()).await?.recipe,
            recipe => recipe,
        };
        shared.files.extend(create::write_metadata(store, &opened.kind, recipe.as_ref()).await?);
        shared.save(store).await?;
        Ok((opened.kind, completeness(&records)))
    }
}

/// The rules that a store and all its records agree on; none in a store without cases.
fn agreed(
    store: &Store,
    opened: &ExistingStore,
    records: &BTreeMap<Case, CaseRecord>,
) -> Result<Option<StoreRecipe>, VisError> {
    let url = || store.location().to_string();
    let mismatch = |problem: String| VisError::Mismatch { url: url(), problem };
    let mut recipe = opened.recipe.clone();
    for (case, record) in records {
        if record.store != opened.kind.name() || record.case != case.short() {
            let (of, place) = (&record.case, case.short());
            let of_store = &record.store;
            return Err(mismatch(format!(
                "has a result of {of} for {of_store} in the place of {place}"
            )));
        }
        if let Some(problem) = record.misshapen(opened.kind.columns()) {
            return Err(mismatch(format!(
                "has a damaged record: {problem}; fill it again with --force"
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
            "has maps of two sets of weights, in cases {one} and {other}: fill one of them \
             again with the grid file of the other"
        ))),
    }
}

/// The records of all cases.
pub async fn records(store: &Store) -> Result<BTreeMap<Case, CaseRecord>, VisError> {
    records_without(store, &BTreeSet::new()).await
}

async fn records_without(
    store: &Store,
    without: &BTreeSet<Case>,
) -> Result<BTreeMap<Case, CaseRecord>, VisError> {
    let load = async |case: Case| Ok((case, CaseRecord::load(store, case).await?));
    let loaded =
        stream::iter(&RecordedCases::of(store).await?.done - without).map(load).buffered(READS);
    let found = loaded.try_filter_map(async |(case, record)| Ok(record.map(|r| (case, r))));
    found.try_collect::<BTreeMap<_, _>>().await
}

/// Two cases whose maps were made with different weights, as far as their records tell them.
pub fn other_weights(records: &BTreeMap<Case, CaseRecord>) -> Option<(Case, Case)> {
    let weights = |(case, record): (&Case, &CaseRecord)| {
        Some((*case, record.settings.weights_sha256.clone()?))
    };
    let mut known = records.iter().filter_map(weights);
    let (first, of_first) = known.next()?;
    let (other, _) = known.find(|(_, weights)| *weights != of_first)?;
    Some((first, other))
}

/// Which cases of the catalogue have results.
pub fn completeness(records: &BTreeMap<Case, CaseRecord>) -> Completeness {
    let of = |wanted: fn(Option<&CaseRecord>) -> bool| {
        Case::all().filter(|case| wanted(records.get(case))).collect()
    };
    Completeness {
        done: of(|record| record.is_some()),
        missing: of(|record| record.is_none()),
        partial: of(|record| record.is_some_and(|record| !record.missing_months.is_empty())),
    }
}

/// The chunks that hold every polygon of a season: the values of records, those of cases without a
/// record that are kept, fill where there is no result.
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
            let at = (month * usize::from(POLYGONS) + place(case).0) * columns;
            values[at..at + columns].iter_mut().zip(row).for_each(|(value, found)| *value = found);
        };
        let of_season = |case: &Case| place(*case).1 == season;
        for (case, record) in records.iter().filter(|(case, _)| of_season(case)) {
            for (month, row) in record.values.iter().take(MONTHS).enumerate() {
                fill(*case, month, &mut row.iter().map(|value| value.unwrap_or(FILL)));
            }
        }
        for (case, rows) in unrecorded.iter().filter(|(case, _)| of_season(case)) {
            for (month, row) in rows.iter().take(MONTHS).enumerate() {
                fill(*case, month, &mut row.iter().copied());
            }
        }
        StoreObject { key, bytes: chunk::encode_floats(&values) }
    });
    objects.collect()
}
