//! Coverage of the values of a store by case records.
//!
//! A value is covered if its case has a record. Values without a record are results of another program or
//! of an older version, so operations that would overwrite them fail.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::VisError;
use super::record::{CaseRecord, RecordedCases};
use super::schema::{self, PyramidOptions, StoreKind, case_keys};
use crate::encode::zarr::{Array, Hierarchy, ZarrVersion, chunk};
use crate::model::atlas::FILL;
use crate::model::case::{MONTHS, POLYGONS, describe_cases};
use crate::model::{Case, InterventionMonth};
use crate::store::Store;

/// Largest number of arrays that are listed at the same time.
const CONCURRENCY: usize = 8;

/// Returns the cases that have values in the chunks of a store, and no record.
pub async fn uncovered(store: &Store, kind: &StoreKind) -> Result<BTreeSet<Case>, VisError> {
    let with_values = with_values(store, kind).await?;
    without_record(store, with_values).await
}

/// Returns those of the cases that have no record.
async fn without_record(
    store: &Store,
    cases: BTreeMap<Case, usize>,
) -> Result<BTreeSet<Case>, VisError> {
    let mut cases: BTreeSet<Case> = cases.into_keys().collect();
    // A listing can miss a case whose partial record is replaced by a complete one meanwhile, so a second
    // listing follows.
    for _ in 0..2 {
        if cases.is_empty() {
            break;
        }
        let recorded = RecordedCases::of(store).await?;
        cases.retain(|case| !recorded.has(case));
    }
    Ok(cases)
}

/// Checks that store 2 has all objects of the `complete` cases. `objects_of` is the number of objects that
/// exist for each case.
async fn refuse_incomplete(
    store: &Store,
    kind: &StoreKind,
    complete: &BTreeSet<Case>,
    objects_of: &BTreeMap<Case, usize>,
) -> Result<(), VisError> {
    let StoreKind::Store2(pyramid) = kind else { return Ok(()) };
    let hierarchy = kind.hierarchy(None);
    let data = || hierarchy.arrays.iter().filter(|array| array.is_data());
    let objects = |case| data().map(|a| case_keys(a, pyramid.format, case).len()).sum::<usize>();
    let Some(expected) = complete.first().map(|case| objects(*case)) else { return Ok(()) };
    let is_incomplete = |case: &&Case| objects_of.get(case).is_none_or(|n| *n < expected);
    let incomplete: Vec<Case> = complete.iter().filter(is_incomplete).copied().collect();
    if incomplete.is_empty() || !store.can_list() {
        return Ok(());
    }
    let url = store.location().to_string();
    let problem = format!(
        "lacks chunks of cases that have a record: {}; restore them from a copy, or populate these \
         cases again with --force",
        describe_cases(&incomplete)
    );
    Err(VisError::Mismatch { url, problem })
}

/// Checks that a store has no values without a record, and that store 2 has all objects of cases with a
/// record. Does not check the cases in `except`.
///
/// # Errors
/// [`VisError::Uncovered`], or [`VisError::Mismatch`] for missing or damaged chunks.
pub async fn refuse_uncovered(
    store: &Store,
    kind: &StoreKind,
    except: &BTreeSet<Case>,
) -> Result<(), VisError> {
    // Records are listed before chunks, because other processes can complete cases meanwhile.
    let complete = RecordedCases::of(store).await?.done;
    let with_values = with_values(store, kind).await?;
    refuse_incomplete(store, kind, &(&complete - except), &with_values).await?;
    let mut uncovered = without_record(store, with_values).await?;
    uncovered.retain(|case| !except.contains(case));
    let recorded = RecordedCases::of(store).await?;
    let has_case_in = |season| {
        recorded.done.iter().chain(except).any(|case| schema::axis_indices(*case).1 == season)
    };
    // `finalize` replaces a damaged chunk for which there are records.
    for (season, key) in damaged_chunks(store, kind).await? {
        if !has_case_in(season) {
            return Err(damaged(store, &key));
        }
    }
    match uncovered.is_empty() {
        true => Ok(()),
        false => Err(error(store, uncovered)),
    }
}

/// Checks that the maps of a case may be written to store 2. A partial record allows it. Otherwise the
/// store must not have the first object of any array of the case, and a store without any record must not
/// have values.
///
/// # Errors
/// [`VisError::Uncovered`].
pub async fn refuse_uncovered_maps(
    store: &Store,
    pyramid: &PyramidOptions,
    case: Case,
) -> Result<(), VisError> {
    if CaseRecord::has_partial(store, case).await? {
        return Ok(());
    }
    let hierarchy = StoreKind::Store2(pyramid.clone()).hierarchy(None);
    let first = |array: &Array| case_keys(array, pyramid.format, case).into_iter().next();
    for key in hierarchy.arrays.iter().filter(|array| array.is_data()).filter_map(first) {
        if store.head(&key).await?.is_some() {
            return Err(error(store, [case].into()));
        }
    }
    if !RecordedCases::of(store).await?.is_empty() {
        return Ok(());
    }
    let uncovered = uncovered(store, &StoreKind::Store2(pyramid.clone())).await?;
    match uncovered.is_empty() {
        true => Ok(()),
        false => Err(error(store, uncovered)),
    }
}

/// The error for a damaged chunk whose values are in no record.
pub fn damaged(store: &Store, key: &str) -> VisError {
    let url = store.location().join(key).to_string();
    let problem =
        "is damaged, and no case manifest has its values; restore it from a copy, or remove it";
    VisError::Mismatch { url, problem: problem.to_owned() }
}

/// The error for values without a record.
fn error(store: &Store, cases: BTreeSet<Case>) -> VisError {
    let cases: Vec<Case> = cases.into_iter().collect();
    VisError::Uncovered { url: store.location().to_string(), cases: describe_cases(&cases) }
}

/// Returns the cases that have values in the chunks of a store, each with the number of its own objects: 0
/// in stores 1 and 3, whose chunks are shared.
pub async fn with_values(
    store: &Store,
    kind: &StoreKind,
) -> Result<BTreeMap<Case, usize>, VisError> {
    let hierarchy = kind.hierarchy(None);
    match kind {
        StoreKind::Store2(pyramid) => objects_by_case(store, &hierarchy, pyramid.format).await,
        StoreKind::Store1 | StoreKind::Store3 => {
            let Some(array) = hierarchy.arrays.iter().find(|array| array.is_data()) else {
                return Ok(BTreeMap::new());
            };
            let chunks = shared_values(store, kind, array).await?;
            let cases = Case::all().filter(|case| {
                chunks.iter().any(|chunk| !chunk.of(*case).iter().flatten().all(|v| *v == FILL))
            });
            Ok(cases.map(|case| (case, 0)).collect())
        }
    }
}

/// Values of a decoded chunk of store 1 or 3: all polygons of an intervention month.
pub struct SharedValues {
    /// Index of the intervention month.
    season: usize,
    /// Number of values of a polygon and month.
    columns: usize,
    values: Vec<f32>,
}

impl SharedValues {
    /// The values of a case by month and column; empty for a case of another intervention month.
    pub fn of(&self, case: Case) -> Vec<Vec<f32>> {
        let (polygon, season) = schema::axis_indices(case);
        if season != self.season {
            return Vec::new();
        }
        let rows = (0..MONTHS).map(|month| {
            let at = (month * usize::from(POLYGONS) + polygon) * self.columns;
            self.values[at..at + self.columns].to_vec()
        });
        rows.collect()
    }
}

/// Reads the chunks of stores 1 and 3. Skips missing and damaged chunks.
pub async fn shared_values(
    store: &Store,
    kind: &StoreKind,
    array: &Array,
) -> Result<Vec<SharedValues>, VisError> {
    let mut chunks = Vec::new();
    for (season, key) in array.chunk_keys().into_iter().enumerate() {
        let Some((bytes, _)) = store.get(&key).await? else { continue };
        if let Ok(values) = chunk::decode_floats(&bytes, array.chunk_len()) {
            chunks.push(SharedValues { season, columns: kind.columns(), values });
        }
    }
    Ok(chunks)
}

/// Reads the values of `cases` from the chunks of stores 1 and 3, by month and column.
pub async fn values_of(
    store: &Store,
    kind: &StoreKind,
    cases: &BTreeSet<Case>,
) -> Result<Vec<(Case, Vec<Vec<f32>>)>, VisError> {
    let hierarchy = kind.hierarchy(None);
    let Some(array) = hierarchy.arrays.iter().find(|array| array.is_data()) else {
        return Ok(Vec::new());
    };
    let chunks = shared_values(store, kind, array).await?;
    let of = |case: &Case| chunks.iter().map(|chunk| (*case, chunk.of(*case))).collect::<Vec<_>>();
    Ok(cases.iter().flat_map(of).filter(|(_, rows)| !rows.is_empty()).collect())
}

/// Returns the chunks of stores 1 and 3 that cannot be decoded: the index of the intervention month and
/// the key of each.
pub async fn damaged_chunks(
    store: &Store,
    kind: &StoreKind,
) -> Result<Vec<(usize, String)>, VisError> {
    let hierarchy = kind.hierarchy(None);
    let mut damaged = Vec::new();
    for array in hierarchy.arrays.iter().filter(|array| array.is_data() && kind.columns() > 0) {
        for (season, key) in array.chunk_keys().into_iter().enumerate() {
            let Some((bytes, _)) = store.get(&key).await? else { continue };
            if chunk::decode_floats(&bytes, array.chunk_len()).is_err() {
                damaged.push((season, key));
            }
        }
    }
    Ok(damaged)
}

/// Counts the data objects of each case in store 2; empty over https, which has no listing.
async fn objects_by_case(
    store: &Store,
    hierarchy: &Hierarchy,
    format: ZarrVersion,
) -> Result<BTreeMap<Case, usize>, VisError> {
    if !store.can_list() {
        return Ok(BTreeMap::new());
    }
    let arrays = hierarchy.arrays.iter().filter(|array| array.is_data());
    let cases = async |array: &Array| cases_of(array, format, store).await;
    let listed: Vec<Vec<Case>> =
        stream::iter(arrays).map(cases).buffer_unordered(CONCURRENCY).try_collect().await?;
    let mut counts = BTreeMap::new();
    for case in listed.into_iter().flatten() {
        *counts.entry(case).or_default() += 1;
    }
    Ok(counts)
}

/// Lists the objects of an array and returns the case of each.
async fn cases_of(
    array: &Array,
    format: ZarrVersion,
    store: &Store,
) -> Result<Vec<Case>, VisError> {
    let objects = store.list(&array.path).await?;
    let case = |key: &str| {
        let name = key.strip_prefix(&array.path)?.strip_prefix('/')?;
        let mut parts = match format {
            ZarrVersion::V2 => name.split('.'),
            ZarrVersion::V3 => name.strip_prefix("c/")?.split('/'),
        };
        let polygon: u16 = parts.next()?.parse().ok()?;
        let season: usize = parts.nth(1)?.parse().ok()?;
        Case::new(polygon, *InterventionMonth::ALL.get(season)?).ok()
    };
    Ok(objects.iter().filter_map(|object| case(&object.key)).collect())
}
