//! The settings of places, refused where these cannot be used.

use crate::config::{ConfigError, Setting};
use crate::research::places;
use crate::store::{Location, Store};

/// Refuses an output in which raw and research-grade files would lie in the same folders.
pub(crate) fn refuse_mixed(
    archive: &Setting<Location>,
    output: &Setting<Location>,
) -> Result<(), ConfigError> {
    if !places::are_mixed(&archive.value, &output.value) {
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
    match places::results_around(out).await {
        None => Ok(()),
        Some(other) => Err(inside(&other, output)),
    }
}

/// The output lies among other results.
pub(super) fn inside(other: &Location, output: &Setting<Location>) -> ConfigError {
    let reason = format!("{other} holds results of its own; give the output another place");
    unusable("output_dir", output, reason)
}

/// Refuses the place of a setting when it is not there; for when no file was found in it.
pub(super) async fn refuse_absent(
    store: &Store,
    setting: &Setting<Location>,
    key: &str,
) -> anyhow::Result<()> {
    match places::absence(store).await? {
        None => Ok(()),
        Some(reason) => Err(unusable(key, setting, reason.to_owned()).into()),
    }
}

/// A place that a setting gives cannot be used.
pub(super) fn unusable(
    key: &str,
    Setting { value, source }: &Setting<Location>,
    reason: String,
) -> ConfigError {
    let (key, value) = (key.to_owned(), value.to_string());
    ConfigError::BadValue { key, origin: source.clone(), value, reason }
}
