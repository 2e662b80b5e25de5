//! Finding the results or raw history in which a location lies.

use super::{CASE_MANIFEST, RESULT_MARKERS};
use crate::model::Case;
use crate::store::{Location, Store};

/// The map store, case, folder of a polygon, or archive of raw history that a location is, or lies in. `None`:
/// there is none, or a request fails.
pub async fn enclosing_results(store: &Store) -> Option<Location> {
    if let Some(raw) = enclosing_raw_history(store).await {
        return Some(raw);
    }
    match store.enclosing(&RESULT_MARKERS).await {
        None if is_polygon(store).await => Some(store.location().clone()),
        other => other,
    }
}

/// The folder of a raw case that a location is or lies in, or the archive of raw history that it is. Symbolic links
/// are resolved.
pub async fn enclosing_raw_history(store: &Store) -> Option<Location> {
    let path = store.location().canonical();
    let mut parts: Vec<&str> = path.split('/').collect();
    while let Some(last) = parts.pop() {
        if last == "ocn" && parts.last().is_some_and(|name| is_case_name(name)) {
            return parts.join("/").parse().ok();
        }
    }
    let is_case = path.rsplit('/').next().is_some_and(is_case_name);
    let folders = store.list_folders("").await.unwrap_or_default();
    let is_raw = |folder: &String| is_case_name(folder) || is_case && folder == "ocn";
    folders.iter().any(is_raw).then(|| store.location().clone())
}

/// Whether a name is the full name of a case, which its folder of raw history has.
fn is_case_name(name: &str) -> bool {
    name.parse().is_ok_and(|case: Case| case.to_string() == name)
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
