//! Arguments that several commands of `dor research-data` share.

use std::num::NonZeroUsize;

use clap::Args;

use crate::cli::GlobalArgs;
use crate::cli::arguments::workers;
use crate::cli::report::ReportArgs;
use crate::config::{Config, ConfigError, Setting};
use crate::store::Location;

/// Locations of the raw history and the research-grade files.
#[derive(Args, Debug)]
pub(super) struct ResearchArgs {
    /// Folder of research-grade files: a path or URL [default: output_dir of the configuration]
    #[arg(short, long = "output", visible_alias = "output-dir", value_name = "LOCATION")]
    output_dir: Option<Location>,
    /// Archive of raw history: a path or URL [default: data_dir of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    data_dir: Option<Location>,
}

impl ResearchArgs {
    /// Loads the configuration with the options of the command.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub fn config(
        &self,
        global: &GlobalArgs,
        conversion: Option<&ConversionArgs>,
    ) -> Result<Config, ConfigError> {
        let mut overrides = global.overrides();
        overrides.data_dir = self.data_dir.clone();
        overrides.output_dir = self.output_dir.clone();
        overrides.workers = conversion.and_then(|c| c.workers);
        overrides.grid = conversion.and_then(|c| c.grid.clone());
        Config::load(&overrides)
    }
}

/// Returns the archive of raw history.
///
/// # Errors
/// No archive is configured.
pub(crate) fn data_dir(config: &Config) -> Result<&Setting<Location>, ConfigError> {
    config.data_dir.as_ref().ok_or(ConfigError::Unset {
        key: "data_dir",
        flag: "--data-dir",
        variable: "OCEAN_CDR_DATA_ARCHIVE_DIR",
    })
}

/// Options of a conversion.
#[derive(Args, Debug, Default)]
pub(super) struct ConversionArgs {
    /// Files converted at the same time [default: workers of the configuration, or all cores]
    #[arg(short, long, value_name = "N", value_parser = workers)]
    pub workers: Option<NonZeroUsize>,
    /// Grid file with the full TLAT and TLONG: NetCDF, or CESM's horiz_grid_*.ieeer8
    #[arg(long, value_name = "LOCATION")]
    pub grid: Option<Location>,
    /// Convert files again that are done, even if they were made with other settings or inputs
    #[arg(long)]
    pub force: bool,
    /// Accept cases with missing months
    #[arg(long)]
    pub allow_missing: bool,
    #[command(flatten)]
    pub report: ReportArgs,
}
