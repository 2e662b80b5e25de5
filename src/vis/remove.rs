//! Removal of cases from a store: deletes their records and values, and assembles shared chunks again.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::finalize::{AssembledStore, Completeness};
use super::record::{CaseRecord, RecordedCases, SharedRecord};
use super::schema::{StoreKind, case_keys};
use super::{VisError, coverage, create};
use crate::model::Case;
use crate::store::Store;

/// Objects that are deleted at the same time.
const DELETES: usize = 16;

/// Returns those of the `asked` cases that have values or a record in the store.
pub async fn present(store: &Store, asked: &BTreeSet<Case>) -> Result<BTreeSet<Case>, VisError> {
    let opened = create::open(store, "store1, 2 or 3").await?;
    let mut present: BTreeSet<Case> =
        coverage::with_values(store, &opened.kind).await?.into_keys().collect();
    let recorded = RecordedCases::of(store).await?;
    present.extend(recorded.done.into_iter().chain(recorded.partial));
    // After an interrupted removal, the record of the shared chunks can be the only trace of a case.
    let shared = SharedRecord::load(store).await?.map(|shared| shared.cases).unwrap_or_default();
    present.extend(shared.iter().filter_map(|case| case.parse::<Case>().ok()));
    Ok(&present & asked)
}

/// Removes cases. Other cases keep their values, with or without a record. A second call completes an
/// interrupted removal.
///
/// # Errors
/// The store without the cases cannot be assembled, in which case nothing is removed; the store fails.
pub async fn remove(
    store: &Store,
    cases: &BTreeSet<Case>,
) -> Result<(StoreKind, Completeness), VisError> {
    let opened = create::open(store, "store1, 2 or 3").await?;
    let assembly = AssembledStore::of(store, cases).await?;
    // Shared chunks can be assembled again from the records, so they are written before the records are
    // deleted. Maps cannot be restored from records, so they are deleted after the records.
    assembly.write_chunks(store).await?;
    for case in cases {
        CaseRecord::remove(store, *case).await?;
    }
    if let StoreKind::Store2(pyramid) = &opened.kind {
        let hierarchy = opened.kind.hierarchy(None);
        for array in hierarchy.arrays.iter().filter(|array| array.is_data()) {
            let keys = cases.iter().flat_map(|case| case_keys(array, pyramid.format, *case));
            let delete = async |key: String| store.delete(&key).await;
            stream::iter(keys).map(delete).buffer_unordered(DELETES).try_collect::<()>().await?;
        }
    }
    assembly.end(store).await
}
