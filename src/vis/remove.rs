//! Taking cases out of a store: their records and values go, and what cases share is assembled again.

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

/// Those of the cases `asked` that a store has values or a record of.
pub async fn present(store: &Store, asked: &BTreeSet<Case>) -> Result<BTreeSet<Case>, VisError> {
    let opened = create::open(store, "store1, 2 or 3").await?;
    let mut present: BTreeSet<Case> =
        coverage::with_values(store, &opened.kind).await?.into_keys().collect();
    let recorded = RecordedCases::of(store).await?;
    present.extend(recorded.done.into_iter().chain(recorded.begun));
    // A removal that was interrupted may have left no more than this.
    let shared = SharedRecord::load(store).await?.map(|shared| shared.cases).unwrap_or_default();
    present.extend(shared.iter().filter_map(|case| case.parse::<Case>().ok()));
    Ok(&present & asked)
}

/// Removes cases; others keep their values, whether a record covers them or not. Nothing is removed from a store
/// that could not be put together without them. A removal that was interrupted is completed by the same call.
pub async fn remove(
    store: &Store,
    cases: &BTreeSet<Case>,
) -> Result<(StoreKind, Completeness), VisError> {
    let opened = create::open(store, "store1, 2 or 3").await?;
    let assembly = AssembledStore::of(store, cases).await?;
    // Curves go before their records, from which they could be made again; maps could not.
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
