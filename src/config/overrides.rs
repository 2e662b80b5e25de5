//! The settings that flags give.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Serialize;

use crate::store::{Location, S3Options};

/// What a command's flags say; the top layer. Anything `None` is left to the layers below.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Overrides {
    /// `--config`: the configuration file to read instead of those that are looked for.
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<Location>,
    /// `--output-dir`.
    pub output_dir: Option<Location>,
    /// `--grid`.
    pub grid: Option<Location>,
    /// `--plan`.
    pub plan: Option<Location>,
    /// `--workers`.
    pub workers: Option<NonZeroUsize>,
    /// `--profile`, `--endpoint-url` and the other flags about S3.
    #[serde(skip)]
    pub s3: S3Options,
}
