//! Checks of the locations of the archive and the output.

use crate::model::Case;
use crate::model::case::POLYGONS;
use crate::store::Location;

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
