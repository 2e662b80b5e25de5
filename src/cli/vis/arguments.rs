//! Arguments that several commands of `dor vis` share.

use std::num::NonZeroUsize;

use clap::Args;

use crate::cli::GlobalArgs;
use crate::cli::arguments::workers;
use crate::cli::report::ReportArgs;
use crate::config::{Config, ConfigError, Setting};
use crate::store::{Location, StoreRegistry};
use crate::vis::input::CaseSource;
use crate::vis::populate;

/// Location of the input files.
#[derive(Args, Debug, Default)]
#[group(multiple = false)]
pub(super) struct InputArgs {
    /// Research-grade files, PPP/MM/*.nc [default: output_dir of the configuration]
    #[arg(short, long = "input", visible_alias = "input-dir", value_name = "LOCATION")]
    pub input_dir: Option<Location>,
    /// Raw history, CASE/ocn/hist/*.nc
    #[arg(short, long, value_name = "LOCATION")]
    pub data_dir: Option<Location>,
}

impl InputArgs {
    /// Opens the raw history of `--data-dir`, or else the research-grade files.
    ///
    /// # Errors
    /// No location is set, or it cannot be opened.
    pub fn open(&self, stores: &StoreRegistry, config: &Config) -> anyhow::Result<CaseSource> {
        if let Some(raw) = &self.data_dir {
            return Ok(CaseSource::Raw(stores.open(raw)?));
        }
        let unset =
            ConfigError::Unset { key: "output_dir", flag: "--input", variable: "DOR_OUTPUT_DIR" };
        let configured = config.output_dir.as_ref().map(|setting| &setting.value);
        let research = self.input_dir.as_ref().or(configured).ok_or(unset)?;
        Ok(CaseSource::Research(stores.open(research)?))
    }
}

/// Options of the commands that fill stores.
#[derive(Args, Debug, Default)]
pub(super) struct WorkArgs {
    /// Months processed at the same time [default: workers of the configuration, or all cores]
    #[arg(short, long, value_name = "N", value_parser = workers)]
    pub workers: Option<NonZeroUsize>,
    /// Fill cases again that are done
    #[arg(long)]
    pub force: bool,
    /// Accept cases with missing months, which get the fill value
    #[arg(long)]
    pub allow_missing: bool,
    #[command(flatten)]
    pub report: ReportArgs,
}

impl WorkArgs {
    /// Returns the options of the library.
    pub fn options(&self) -> populate::FillOptions {
        let Self { force, allow_missing, report: ReportArgs { dry_run, .. }, .. } = *self;
        populate::FillOptions { force, allow_missing, dry_run }
    }
}

/// The option `--grid`.
#[derive(Args, Debug, Default)]
pub(super) struct GridArgs {
    /// Grid file with the full TLAT and TLONG: NetCDF, or CESM's horiz_grid_*.ieeer8 [default: the T points of the files]
    #[arg(long, value_name = "LOCATION")]
    pub grid: Option<Location>,
}

/// Loads the configuration with the options of a command.
///
/// # Errors
/// The configuration is not valid.
pub(super) fn config(
    global: &GlobalArgs,
    work: Option<&WorkArgs>,
    grid: Option<&GridArgs>,
) -> Result<Config, ConfigError> {
    let mut overrides = global.overrides();
    overrides.workers = work.and_then(|work| work.workers);
    overrides.grid = grid.and_then(|grid| grid.grid.clone());
    Config::load(&overrides)
}

/// Returns the error for store 3 without the centers of the polygons.
pub(crate) fn centers_unset() -> ConfigError {
    ConfigError::Unset { key: "centers", flag: "--centers", variable: "DOR_CENTERS" }
}

/// Returns the location of a store: from the flag, or else from the configuration.
///
/// # Errors
/// Neither is set.
pub(super) fn output(
    flag: Option<&Location>,
    configured: Option<&Setting<Location>>,
    key: &'static str,
    variable: &'static str,
) -> Result<Location, ConfigError> {
    let unset = ConfigError::Unset { key, flag: "--output", variable };
    flag.or(configured.map(|setting| &setting.value)).cloned().ok_or(unset)
}
