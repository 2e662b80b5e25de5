//! Checks of the locations of the archive and the output.

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
    raw.canonical() == out.canonical() || in_case || in_polygon
}

/// Why a location without files is not the one that was meant: it does not exist, or it is an empty folder,
/// such as the place of a file system that is not mounted. `None` for any other.
///
/// # Errors
/// The location cannot be read.
pub async fn absence(store: &Store) -> Result<Option<&'static str>, StoreError> {
    let report = store.check(false).await;
    report.readable?;
    let is_local = store.location().is_local();
    let is_empty = async || {
        let has_folders = !store.list_folders("").await?.is_empty();
        Ok::<_, StoreError>(!has_folders && store.list_with_delimiter("").await?.is_empty())
    };
    Ok(match (report.exists, is_local) {
        (true, true) if is_empty().await? => Some("the folder is empty"),
        (true, _) => None,
        (false, true) => Some("there is no such folder"),
        (false, false) => Some("there is no object below it"),
    })
}
