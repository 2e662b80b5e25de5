//! The settings of command line flags.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use serde::Serialize;

use crate::store::{Location, S3Options};

/// The settings of the flags of a command, the layer of highest precedence. `None`: the flag is not given.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Overrides {
    /// `--config`: the configuration file to read instead of the default search.
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// `--data-dir`.
    pub data_dir: Option<Location>,
    /// `--output-dir`.
    pub output_dir: Option<Location>,
    /// `--grid`.
    pub grid: Option<Location>,
    /// `--ssh`.
    pub ssh: Option<Location>,
    /// `--centers`.
    pub centers: Option<Location>,
    /// `--weights-store`.
    pub weights_store: Option<Location>,
    /// `--plan`.
    pub plan: Option<Location>,
    /// `--workers`.
    pub workers: Option<NonZeroUsize>,
    /// `--profile`, `--endpoint-url` and the other flags about S3.
    #[serde(skip)]
    pub s3: S3Options,
}
