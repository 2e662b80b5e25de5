//! `dor vis populate-store2`: computes the maps of the pyramid.

use std::io::Write;

use clap::Args;

use super::arguments::{GridArgs, InputArgs, WorkArgs, config};
use super::create::store_of;
use super::run::{chosen, each, run_context};
use crate::cli::arguments::{CaseArgs, levels};
use crate::cli::publish_to::PublishTo;
use crate::cli::stores::{grid_file, stores};
use crate::cli::{Exit, GlobalArgs};
use crate::config::{Config, Setting};
use crate::executor::until;
use crate::model::Case;
use crate::store::Location;
use crate::vis::StoreKind;
use crate::vis::maps::MapOptions;
use crate::vis::schema::PyramidOptions;

/// Compute the maps of cases for store 2
///
/// Reads research-grade or raw files, of which only the fields of the maps are read. Skips a case that is done, and
/// makes a case again that was stopped. --publish-to publishes each map when it is done; `dor vis finalize
/// --publish-to` publishes the metadata.
#[derive(Args, Debug)]
pub(super) struct PopulateStore2 {
    /// Store to fill: a path or URL [default: store2 of the configuration]
    #[arg(short, long = "output", visible_alias = "output-store", value_name = "LOCATION")]
    output_store: Option<Location>,
    #[command(flatten)]
    cases: CaseArgs,
    #[command(flatten)]
    months: InputArgs,
    #[command(flatten)]
    maps: Maps,
    #[command(flatten)]
    grid: GridArgs,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    publish_to: PublishTo,
}

/// Options of the maps.
#[derive(Args, Debug, Default)]
struct Maps {
    /// Regridding weights in the xESMF layout; computed and written if the file does not exist; not with --reference-compat [default: weights_store of the configuration]
    #[arg(long, value_name = "LOCATION", conflicts_with = "reference_compat")]
    weights_store: Option<Location>,
    /// Number of levels that the store must have
    #[arg(short, long, value_name = "N", value_parser = levels())]
    levels: Option<u8>,
    /// Sea surface height of the reference run; needed for DIC [default: ssh of the configuration]
    #[arg(long, value_name = "LOCATION")]
    ssh: Option<Location>,
    /// Reproduce the known defects of the published atlas: U points, sea surface height a month late, 0 outside
    #[arg(long)]
    reference_compat: bool,
}

impl PopulateStore2 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let choice = self.cases.choice()?;
        let config = config(global, Some(&self.work), Some(&self.grid))?;
        let stores = stores(&config);
        let kind = StoreKind::Store2(PyramidOptions::default());
        let location = store_of(&kind, self.output_store.as_ref(), &config)?;
        let context = run_context(&config);
        let reading = until(&context.stop, &stores);
        let store = reading.open(&location)?;
        let input = self.months.open(&reading, &config)?;
        let cases = chosen(&choice, input.cases().await?, &input.url())?;
        let workers = (&context.pool, &context.stop);
        let publishing = self.publish_to.queue(&stores, &store, workers).await?;
        let options =
            MapOptions { dry_run: self.work.report.dry_run, ..self.maps.options(&config) };
        let atlas = options.open_map_context(store, &reading, (&input, &cases), &context).await?;
        let fill = async |case: Case| {
            let filled = atlas.fill_from(&input, case, self.work.options()).await?;
            if !self.work.report.dry_run {
                publishing.add(case);
            }
            Ok(filled)
        };
        let mut report = self.work.report.report(out);
        let exit = each(&cases, &context, &mut report, fill).await?;
        let exit = publishing.end(exit, &mut report).await?;
        report.end()?;
        Ok(exit)
    }
}

impl Maps {
    /// Returns the options, with defaults of the configuration. `--reference-compat` uses no weights.
    fn options(self, config: &Config) -> MapOptions {
        let Self { weights_store, levels, ssh, reference_compat } = self;
        let value = |setting: &Option<Setting<Location>>| setting.as_ref().map(|s| s.value.clone());
        let configured = value(&config.weights_store).filter(|_| !reference_compat);
        MapOptions {
            grid: grid_file(config),
            weights_store: weights_store.or(configured),
            levels,
            ssh: ssh.or_else(|| value(&config.ssh)),
            reference_compat,
            dry_run: false,
        }
    }
}
