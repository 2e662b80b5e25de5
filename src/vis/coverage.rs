//! Which cases a store holds values of, and which of them a record covers. Values without a record are
//! somebody's results all the same: nothing that would drop them goes on.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::VisError;
use super::record::{CaseRecord, RecordedCases};
use super::schema::{self, PyramidOptions, StoreKind, case_keys};
use crate::encode::zarr::{Array, Hierarchy, ZarrVersion, chunk};
use crate::model::atlas::FILL;
use crate::model::case::{MONTHS, POLYGONS, in_short};
use crate::model::{Case, InterventionMonth};
use crate::store::Store;

/// Arrays that are listed at the same time.
const LISTS: usize = 8;

/// Cases whose values lie in the chunks and that have no record.
pub async fn uncovered(store: &Store, kind: &StoreKind) -> Result<BTreeSet<Case>, VisError> {
    let found = with_values(store, kind).await?;
    without_record(store, found).await
}

async fn without_record(
    store: &Store,
    found: BTreeMap<Case, usize>,
) -> Result<BTreeSet<Case>, VisError> {
    let mut found: BTreeSet<Case> = found.into_keys().collect();
    // A case may be completed while its records are listed: a second listing has it.
    for _ in 0..2 {
        if found.is_empty() {
            break;
        }
        let recorded = RecordedCases::of(store).await?;
        found.retain(|case| !recorded.has(case));
    }
    Ok(found)
}

/// Refuses a store of maps that lacks objects of cases which a record calls complete, other than of the
/// cases in `except`.
async fn refuse_incomplete(
    store: &Store,
    kind: &StoreKind,
    complete: &BTreeSet<Case>,
    found: &BTreeMap<Case, usize>,
) -> Result<(), VisError> {
    let StoreKind::Store2(pyramid) = kind else { return Ok(()) };
    let hierarchy = kind.hierarchy(None);
    let data = || hierarchy.arrays.iter().filter(|array| array.is_data());
    let objects = |case| data().map(|a| case_keys(a, pyramid.format, case).len()).sum::<usize>();
    let Some(wanted) = complete.first().map(|case| objects(*case)) else { return Ok(()) };
    let lacks = |case: &&Case| found.get(case).is_none_or(|found| *found < wanted);
    let lacking: Vec<Case> = complete.iter().filter(lacks).copied().collect();
    if lacking.is_empty() || !store.can_list() {
        return Ok(());
    }
    let url = store.location().to_string();
    let problem = format!(
        "lacks chunks of cases that have a record: {}; bring them back from a copy, or populate these \
         cases again with --force",
        in_short(&lacking)
    );
    Err(VisError::Mismatch { url, problem })
}

/// Refuses a store with values that no record covers, and one of maps that lacks chunks of cases with a
/// record; but for the cases in `except`.
pub async fn refuse_uncovered(
    store: &Store,
    kind: &StoreKind,
    except: &BTreeSet<Case>,
) -> Result<(), VisError> {
    // Before the chunks are listed: cases are completed meanwhile.
    let complete = RecordedCases::of(store).await?.done;
    let found = with_values(store, kind).await?;
    refuse_incomplete(store, kind, &(&complete - except), &found).await?;
    let mut uncovered = without_record(store, found).await?;
    uncovered.retain(|case| !except.contains(case));
    let recorded = RecordedCases::of(store).await?;
    let of_season =
        |season| recorded.done.iter().chain(except).any(|case| schema::place(*case).1 == season);
    // One that records cover is made again from them.
    for (season, key) in damaged_chunks(store, kind).await? {
        if !of_season(season) {
            return Err(damaged(store, &key));
        }
    }
    match uncovered.is_empty() {
        true => Ok(()),
        false => Err(error(store, uncovered)),
    }
}

/// Refuses to write over maps of a case that no record covers, of which it looks for one object of each
/// variable; and into a store that has values and no record at all.
pub async fn refuse_uncovered_maps(
    store: &Store,
    pyramid: &PyramidOptions,
    case: Case,
) -> Result<(), VisError> {
    if CaseRecord::is_begun(store, case).await? {
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

/// That a chunk holds values which nothing tells.
pub fn damaged(store: &Store, key: &str) -> VisError {
    let url = store.location().join(key).to_string();
    let problem =
        "is damaged, and no record tells its values; bring it back from a copy, or remove it";
    VisError::Mismatch { url, problem: problem.to_owned() }
}

fn error(store: &Store, cases: BTreeSet<Case>) -> VisError {
    let cases: Vec<Case> = cases.into_iter().collect();
    VisError::Uncovered { url: store.location().to_string(), cases: in_short(&cases) }
}

/// Cases that the chunks of a store hold values of, and how many chunks are a case's own.
pub async fn with_values(
    store: &Store,
    kind: &StoreKind,
) -> Result<BTreeMap<Case, usize>, VisError> {
    let hierarchy = kind.hierarchy(None);
    match kind {
        StoreKind::Store2(pyramid) => of_maps(store, &hierarchy, pyramid.format).await,
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

/// Values of a season that all polygons share.
pub struct SharedValues {
    season: usize,
    columns: usize,
    values: Vec<f32>,
}

impl SharedValues {
    /// The values of a case, month by month; none when it is of another season.
    pub fn of(&self, case: Case) -> Vec<Vec<f32>> {
        let (polygon, season) = schema::place(case);
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

/// The chunks of stores 1 and 3. One that cannot be decoded holds nothing that could be kept.
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

/// The values of `cases` that the chunks of stores 1 and 3 hold, month by month.
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

/// Season and key of the chunks of stores 1 and 3 that are there and cannot be decoded.
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

/// Cases that any variable and level of the pyramid has objects of, and how many.
async fn of_maps(
    store: &Store,
    hierarchy: &Hierarchy,
    format: ZarrVersion,
) -> Result<BTreeMap<Case, usize>, VisError> {
    if !store.can_list() {
        return Ok(BTreeMap::new());
    }
    let arrays = hierarchy.arrays.iter().filter(|array| array.is_data());
    let cases = async |array: &Array| cases_of(array, format, store).await;
    let found: Vec<Vec<Case>> =
        stream::iter(arrays).map(cases).buffer_unordered(LISTS).try_collect().await?;
    let mut counts = BTreeMap::new();
    for case in found.into_iter().flatten() {
        *counts.entry(case).or_default() += 1;
    }
    Ok(counts)
}

/// The case of each object of an array.
async fn cases_of(
    array: &Array,
    format: ZarrVersion,
    store: &Store,
) -> Result<Vec<Case>, VisError> {
    let found = store.list(&array.path).await?;
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
    Ok(found.iter().filter_map(|object| case(&object.key)).collect())
}
