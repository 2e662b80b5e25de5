//! Whether the archive and the output are where they can be.

use crate::case_manifest::{COMPLETE, TOGETHER};
use crate::model::Case;
use crate::model::case::POLYGONS;
use crate::store::{Location, Store, StoreError};

/// Whether raw and research-grade files would lie in the same folders.
pub fn are_mixed(raw: &Location, out: &Location) -> bool {
    let first = |inner: &Location, outer: &Location| {
        inner.below(outer).map(|way| way.split('/').next().unwrap_or_default().to_owned())
    };
    // Below the archive are folders of cases, below the output folders of polygons.
    let in_case = first(out, raw)
        .is_some_and(|first| first.parse().is_ok_and(|case: Case| case.to_string() == first));
    let in_polygon = first(raw, out)
        .is_some_and(|first| first.len() == 3 && first.parse().is_ok_and(|p: u16| p < POLYGONS));
    raw.real() == out.real() || in_case || in_polygon
}

/// The other results that an output would lie among: a map store, or the files of a case.
pub async fn results_around(out: &Store) -> Option<Location> {
    match out.within(&TOGETHER).await {
        None if is_polygon(out).await => Some(out.location().clone()),
        other => other,
    }
}

/// Whether a folder is that of a polygon, with folders of finished cases. What may not be looked at is not.
async fn is_polygon(out: &Store) -> bool {
    for folder in out.list_prefixes("").await.unwrap_or_default() {
        let is_month = folder.len() == 2 && folder.bytes().all(|b| b.is_ascii_digit());
        if is_month && matches!(out.head(&format!("{folder}/{COMPLETE}")).await, Ok(Some(_))) {
            return true;
        }
    }
    false
}

/// Why nothing is found in a place, when it is not there; for when no file was found in it.
///
/// # Errors
/// It may not be looked at.
pub async fn absence(store: &Store) -> Result<Option<&'static str>, StoreError> {
    let check = store.check(false).await;
    check.readable?;
    Ok(match (check.exists, store.location().is_local()) {
        (true, _) => None,
        (false, true) => Some("there is no such folder"),
        (false, false) => Some("there is no object below it"),
    })
}
