//! Finding the results in which a location lies.

use super::{CASE_MANIFEST, RESULT_MARKERS};
use crate::store::{Location, Store};

/// The map store, case or folder of a polygon that a location is, or lies in. `None`: there is none, or a
/// request fails.
pub async fn enclosing_results(store: &Store) -> Option<Location> {
    match store.enclosing(&RESULT_MARKERS).await {
        None if is_polygon(store).await => Some(store.location().clone()),
        other => other,
    }
}

/// Whether a folder is that of a polygon, with folders of complete cases. A folder that cannot be read is not.
async fn is_polygon(store: &Store) -> bool {
    for folder in store.list_folders("").await.unwrap_or_default() {
        let is_month = folder.len() == 2 && folder.bytes().all(|b| b.is_ascii_digit());
        if is_month && matches!(store.head(&format!("{folder}/{CASE_MANIFEST}")).await, Ok(Some(_)))
        {
            return true;
        }
    }
    false
}
