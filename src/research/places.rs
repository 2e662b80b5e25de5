//! Checks of the locations of the archive and the output.

use crate::case_manifest::{COMPLETE, TOGETHER};
use crate::model::Case;
use crate::model::case::POLYGONS;
use crate::store::{Location, Store, StoreError};

/// Whether raw and research-grade files would share folders.
pub fn are_mixed(raw: &Location, out: &Location) -> bool {
    let first = |inner: &Location, outer: &Location| {
        inner.below(outer).map(|path| path.split('/').next().unwrap_or_default().to_owned())
    };
    // The archive has a folder for each case, the output a folder for each polygon.
    let in_case = first(out, raw)
        .is_some_and(|first| first.parse().is_ok_and(|case: Case| case.to_string() == first));
    let in_polygon = first(raw, out)
        .is_some_and(|first| first.len() == 3 && first.parse().is_ok_and(|p: u16| p < POLYGONS));
    raw.real() == out.real() || in_case || in_polygon
}

/// The map store or the folder of a polygon that contains an output location, if there is one.
pub async fn results_around(out: &Store) -> Option<Location> {
    match out.within(&TOGETHER).await {
        None if is_polygon(out).await => Some(out.location().clone()),
        other => other,
    }
}

/// Whether the output is the folder of a polygon, with folders of complete cases. A folder that cannot be read
/// is not.
async fn is_polygon(out: &Store) -> bool {
    for folder in out.list_prefixes("").await.unwrap_or_default() {
        let is_month = folder.len() == 2 && folder.bytes().all(|b| b.is_ascii_digit());
        if is_month && matches!(out.head(&format!("{folder}/{COMPLETE}")).await, Ok(Some(_))) {
            return true;
        }
    }
    false
}

/// Why a location without files does not exist; `None` when it exists.
///
/// # Errors
/// The location cannot be read.
pub async fn absence(store: &Store) -> Result<Option<&'static str>, StoreError> {
    let report = store.check(false).await;
    report.readable?;
    Ok(match (report.exists, store.location().is_local()) {
        (true, _) => None,
        (false, true) => Some("there is no such folder"),
        (false, false) => Some("there is no object below it"),
    })
}
