//! Taking cases out of a store: their records and values go, and what cases share is assembled again.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::contract::{Kind, case_keys};
use super::finalize::{Completeness, assemble};
use super::record::{CaseRecord, Recorded};
use super::{VisError, coverage, template};
use crate::model::Case;
use crate::store::Store;

/// Objects that are deleted at the same time.
const DELETES: usize = 16;

/// Those of the cases `asked` that a store has values or a record of.
pub async fn present(store: &Store, asked: &BTreeSet<Case>) -> Result<BTreeSet<Case>, VisError> {
    let opened = template::open(store, "store1, 2 or 3").await?;
    let mut present: BTreeSet<Case> =
        coverage::with_values(store, &opened.kind).await?.into_keys().collect();
    let recorded = Recorded::of(store).await?;
    present.extend(recorded.done.into_iter().chain(recorded.begun));
    Ok(&present & asked)
}

/// Removes cases; others keep their values, whether a record covers them or not. A removal that was
/// interrupted is completed by the same call: the records go first, and values without a record keep a
/// store from being finalized.
pub async fn remove(
    store: &Store,
    cases: &BTreeSet<Case>,
) -> Result<(Kind, Completeness), VisError> {
    let opened = template::open(store, "store1, 2 or 3").await?;
    for case in cases {
        CaseRecord::remove(store, *case).await?;
    }
    if let Kind::Store2(pyramid) = &opened.kind {
        let hierarchy = opened.kind.hierarchy(None);
        for array in hierarchy.arrays.iter().filter(|array| array.is_data()) {
            let keys = cases.iter().flat_map(|case| case_keys(array, pyramid.format, *case));
            let delete = async |key: String| store.delete(&key).await;
            stream::iter(keys).map(delete).buffer_unordered(DELETES).try_collect::<()>().await?;
        }
    }
    assemble(store, cases).await
}
