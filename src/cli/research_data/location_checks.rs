//! Errors about locations of the configuration that cannot be used.

use crate::case_manifest::enclosing_results;
use crate::config::{ConfigError, Setting};
use crate::research::locations;
use crate::store::{Location, Store};

/// Checks that raw and research-grade files do not lie in the same folders.
///
/// # Errors
/// The output location and the archive overlap.
pub(crate) fn refuse_mixed(
    archive: &Setting<Location>,
    output: &Setting<Location>,
) -> Result<(), ConfigError> {
    if !locations::are_mixed(&archive.value, &output.value) {
        return Ok(());
    }
    let reason = format!(
        "raw and research-grade files would be mixed with `data_dir` from {}: `{}`; \
         choose another output folder",
        archive.source, archive.value
    );
    Err(unusable("output_dir", output, reason))
}

/// Checks that the output location is not inside other results: a map store, or the folder of a case.
///
/// # Errors
/// The output location is inside other results.
pub(crate) async fn refuse_inside(
    out: &Store,
    output: &Setting<Location>,
) -> Result<(), ConfigError> {
    match enclosing_results(out).await {
        None => Ok(()),
        Some(other) => Err(inside(&other, output)),
    }
}

/// Returns the error for an output location inside other results.
pub(super) fn inside(other: &Location, output: &Setting<Location>) -> ConfigError {
    let reason = format!("{other} holds results of its own; choose another output folder");
    unusable("output_dir", output, reason)
}

/// Checks that the location of a setting exists. Call it when the location has no files.
///
/// # Errors
/// The location does not exist, or cannot be listed.
pub(super) async fn refuse_absent(
    store: &Store,
    setting: &Setting<Location>,
    key: &str,
) -> anyhow::Result<()> {
    match store.absence().await? {
        None => Ok(()),
        Some(reason) => Err(unusable(key, setting, reason.to_owned()).into()),
    }
}

/// Returns the error for a setting whose location cannot be used.
pub(super) fn unusable(
    key: &str,
    Setting { value, source }: &Setting<Location>,
    reason: String,
) -> ConfigError {
    let (key, value) = (key.to_owned(), value.to_string());
    ConfigError::BadValue { key, origin: source.clone(), value, reason }
}
