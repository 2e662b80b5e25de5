//! Finding the results or raw history in which a location lies.

use super::{CASE_MANIFEST, RESULT_MARKERS};
use crate::model::Case;
use crate::store::{Location, Store};

/// The map store, case, folder of a polygon, or archive of raw history that a location is, or lies in. `None`:
/// there is none, or a request fails.
pub async fn enclosing_results(store: &Store) -> Option<Location> {
    let own = store.location();
    if let Some(raw) = enclosing_raw_case(own) {
        return Some(raw);
    }
    match store.enclosing(&RESULT_MARKERS).await {
        None if holds_cases(store).await => Some(own.clone()),
        other => other,
    }
}

/// The folder of a raw case, `CASE/ocn/...`, that a location lies in.
fn enclosing_raw_case(location: &Location) -> Option<Location> {
    let path = location.canonical();
    let mut parts: Vec<&str> = path.split('/').collect();
    while let Some(last) = parts.pop() {
        if last == "ocn" && parts.last().is_some_and(|name| is_case_name(name)) {
            return parts.join("/").parse().ok();
        }
    }
    None
}

/// Whether a name is the full name of a case, which its folder of raw history has.
fn is_case_name(name: &str) -> bool {
    name.parse().is_ok_and(|case: Case| case.to_string() == name)
}

/// Whether a folder is that of a polygon, with folders of complete cases, or that of a raw case or an archive of
/// them. A folder that cannot be read is none of these.
async fn holds_cases(store: &Store) -> bool {
    let is_raw_case = store.location().file_name().is_some_and(is_case_name);
    for folder in store.list_folders("").await.unwrap_or_default() {
        if is_case_name(&folder) || is_raw_case && folder == "ocn" {
            return true;
        }
        let is_month = folder.len() == 2 && folder.bytes().all(|b| b.is_ascii_digit());
        if is_month && matches!(store.head(&format!("{folder}/{CASE_MANIFEST}")).await, Ok(Some(_)))
        {
            return true;
        }
    }
    false
}
