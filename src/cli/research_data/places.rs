//! Whether the archive and the output are where they can be.

use crate::config::{ConfigError, Setting};
use crate::ledger::{COMPLETE, TOGETHER};
use crate::model::Case;
use crate::model::case::POLYGONS;
use crate::store::{Location, Store};

/// Refuses an output in which raw and research-grade files would lie in the same folders.
pub(crate) fn refuse_mixed(
    archive: &Setting<Location>,
    output: &Setting<Location>,
) -> Result<(), ConfigError> {
    let (raw, out) = (&archive.value, &output.value);
    let first = |inner: &Location, outer: &Location| {
        inner.below(outer).map(|way| way.split('/').next().unwrap_or_default().to_owned())
    };
    // Below the archive are folders of cases, below the output folders of polygons.
    let in_case = first(out, raw)
        .is_some_and(|first| first.parse().is_ok_and(|case: Case| case.to_string() == first));
    let in_polygon = first(raw, out)
        .is_some_and(|first| first.len() == 3 && first.parse().is_ok_and(|p: u16| p < POLYGONS));
    if raw.real() != out.real() && !in_case && !in_polygon {
        return Ok(());
    }
    let reason = format!(
        "raw and research-grade files would be mixed with `data_dir` from {}: `{}`; \
         give the output a place of its own",
        archive.source, archive.value
    );
    Err(unusable("output_dir", output, reason))
}

/// Refuses an output among other results: in a map store, or among the files of a case.
pub(crate) async fn refuse_inside(
    out: &Store,
    output: &Setting<Location>,
) -> Result<(), ConfigError> {
    let other = match out.within(&TOGETHER).await {
        None if is_polygon(out).await => Some(output.value.clone()),
        other => other,
    };
    match other {
        None => Ok(()),
        Some(other) => {
            let reason = format!("{other} holds results of its own; give the output another place");
            Err(unusable("output_dir", output, reason))
        }
    }
}

/// Whether a folder is that of a polygon, with folders of finished cases. What may not be looked at is not.
async fn is_polygon(out: &Store) -> bool {
    for folder in out.list_dirs("").await.unwrap_or_default() {
        let is_month = folder.len() == 2 && folder.bytes().all(|b| b.is_ascii_digit());
        if is_month && matches!(out.find(&format!("{folder}/{COMPLETE}")).await, Ok(Some(_))) {
            return true;
        }
    }
    false
}

/// Refuses the place of a setting when it is not there; for when no file was found in it.
pub(super) async fn refuse_absent(
    store: &Store,
    setting: &Setting<Location>,
    key: &str,
) -> anyhow::Result<()> {
    let check = store.check(false).await;
    check.readable?;
    if check.exists {
        return Ok(());
    }
    let reason = match setting.value.is_local() {
        true => "there is no such folder",
        false => "there is no object below it",
    };
    Err(unusable(key, setting, reason.to_owned()).into())
}

fn unusable(
    key: &str,
    Setting { value, source }: &Setting<Location>,
    reason: String,
) -> ConfigError {
    let (key, value) = (key.to_owned(), value.to_string());
    ConfigError::BadValue { key, origin: source.clone(), value, reason }
}
