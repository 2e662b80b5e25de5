//! `dor plan`: creates the plan of a campaign.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::campaign::draft::{self, PlanDraft};
use crate::campaign::{self, Locations, Product};
use crate::case_manifest::enclosing_results;
use crate::cli::arguments::{CaseArgs, from_one, product, size};
use crate::cli::output::{bytes, count};
use crate::cli::report::{Report, ReportArgs};
use crate::cli::research_data::{data_dir, refuse_inside, refuse_mixed};
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::{grid_file, stores};
use crate::cli::vis::{centers_unset, print_polygons_without_files};
use crate::cli::{Exit, GlobalArgs};
use crate::config::{Config, ConfigError, Overrides, Setting};
use crate::executor::unless_stopped;
use crate::store::{Location, LocationError, StoreRegistry};
use crate::vis::VisError;

/// Bytes of raw files per second that one core converts to all products, measured on two cores (docs/benchmarks.md).
const CORE_RATE: f64 = 75e6;
/// Default number of cores of a node.
pub(crate) const CORES: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// Create a plan: which cases to process, and how
///
/// A plan never changes, and every node reads the same plan. It contains the locations of inputs and outputs, so
/// that `dor run`, `status` and `finalize` need no other setting than credentials. Locations below the folder of
/// the plan are relative to that folder, so that the folder can be moved.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// Plan file to write: a path or URL that every node can read
    #[arg(short, long, value_name = "PLAN", value_parser = file)]
    output: Location,
    #[command(flatten)]
    cases: CaseArgs,
    /// Products
    #[arg(long = "products", aliases = ["stages", "only"], value_name = "PRODUCT", value_delimiter = ',', default_values_t = Product::ALL, value_parser = product())]
    products: Vec<Product>,
    /// Archive of raw history, CASE/ocn/hist/*.nc [default: data_dir of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    data_dir: Option<Location>,
    /// Folder of research-grade files [default: output_dir of the configuration]
    #[arg(long, value_name = "LOCATION")]
    output_dir: Option<Location>,
    /// Store 1 [default: store1 of the configuration]
    #[arg(long, value_name = "LOCATION")]
    store1: Option<Location>,
    /// Store 2 [default: store2 of the configuration]
    #[arg(long, value_name = "LOCATION")]
    store2: Option<Location>,
    /// Store 3 [default: store3 of the configuration]
    #[arg(long, value_name = "LOCATION")]
    store3: Option<Location>,
    /// Grid file with the full TLAT and TLONG [default: grid of the configuration]
    #[arg(long, value_name = "LOCATION")]
    grid: Option<Location>,
    /// Sea surface height of the reference run, for DIC of store 2 [default: ssh of the configuration]
    #[arg(long, value_name = "LOCATION")]
    ssh: Option<Location>,
    /// Centers of the polygons, for store 3 [default: centers of the configuration]
    #[arg(long, value_name = "LOCATION")]
    centers: Option<Location>,
    /// Accept cases with missing months
    #[arg(long)]
    allow_missing: bool,
    /// Reproduce the known defects of the published atlas in stores 2 and 3
    #[arg(long)]
    reference_compat: bool,
    /// For the estimate: cores of a node
    #[arg(long, value_name = "N", default_value_t = CORES, value_parser = from_one)]
    cores: NonZeroUsize,
    /// For the estimate: bytes that a node reads per second; `dor run` prints the rate at its end [default: 75 MB per core]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    node_rate: Option<u64>,
    #[command(flatten)]
    report: ReportArgs,
}

/// Parses the location of a file.
fn file(text: &str) -> Result<Location, String> {
    match text.ends_with('/') {
        true => {
            Err(format!("the location is a folder; name a file in it, such as {text}plan.json"))
        }
        false => text.parse().map_err(|error: LocationError| error.to_string()),
    }
}

impl Plan {
    pub async fn run(mut self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        self.products.sort_unstable();
        self.products.dedup();
        let overrides = Overrides {
            data_dir: self.data_dir.clone(),
            output_dir: self.output_dir.clone(),
            grid: self.grid.clone(),
            ssh: self.ssh.clone(),
            centers: self.centers.clone(),
            ..global.overrides()
        };
        let config = Config::load(&overrides)?;
        let stores = stores(&config);
        let draft = self.draft(&config, &stores).await?;
        let choice = self.cases.choice()?;
        let stop = CancellationToken::new();
        if draft.locations.ssh.is_some() {
            // Reading the whole series takes minutes, so a signal must stop it.
            stop_on_signals(stop.clone());
        }
        let chosen = unless_stopped(&stop, draft.cases(&choice, &stores)).await??;
        print_polygons_without_files(&chosen, &draft.archive(&stores)?.location().to_string());
        let output = self.output.absolute();
        let planning = draft.plan(chosen.cases, &output, &stores, &stop);
        let plan = unless_stopped(&stop, planning).await??;
        refuse_among_data(&output, &config, &stores).await?;
        draft::write(&plan, &output, &stores, self.report.dry_run).await?;
        let rate = self.node_rate.map_or(node_rate(self.cores), |rate| rate as f64);
        let mut report = self.report.report(out);
        write_plan(&mut report, &self.output, &plan, rate)?;
        report.end()?;
        Ok(Exit::Done)
    }

    /// Collects the inputs of the plan.
    ///
    /// # Errors
    /// A location that the products need is not set, or the output folder lies in the archive or in other results.
    async fn draft(&self, config: &Config, stores: &StoreRegistry) -> anyhow::Result<PlanDraft> {
        let locations = self.locations(config)?;
        if let (Some(archive), Some(output)) = (&config.data_dir, &config.output_dir)
            && self.products.contains(&Product::Research)
        {
            refuse_mixed(archive, output)?;
            refuse_inside(&stores.open(&output.value)?, output).await?;
        }
        Ok(PlanDraft {
            products: self.products.clone(),
            locations,
            grid: grid_file(config),
            allow_missing: self.allow_missing,
            reference_compat: self.reference_compat,
        })
    }

    /// Returns the absolute locations of the inputs and outputs of the products.
    ///
    /// # Errors
    /// A location that the products need is not set.
    fn locations(&self, config: &Config) -> anyhow::Result<Locations> {
        let absolute = |flag: &Option<Location>, configured: &Option<Setting<Location>>| {
            let setting = configured.as_ref().map(|setting| &setting.value);
            flag.as_ref().or(setting).map(Location::absolute)
        };
        let mut locations = Locations {
            data_dir: absolute(&None, &config.data_dir),
            grid: absolute(&None, &config.grid),
            ..Locations::default()
        };
        for product in &self.products {
            let (location, key, flag, variable) = match product {
                Product::Research => {
                    locations.output_dir = absolute(&None, &config.output_dir);
                    (&locations.output_dir, "output_dir", "--output-dir", "DOR_OUTPUT_DIR")
                }
                Product::Store1 => {
                    locations.store1 = absolute(&self.store1, &config.store1);
                    (&locations.store1, "store1", "--store1", "OCEAN_CDR_STORE_1_PATH")
                }
                Product::Store2 => {
                    locations.ssh = absolute(&None, &config.ssh);
                    locations.store2 = absolute(&self.store2, &config.store2);
                    (&locations.store2, "store2", "--store2", "OCEAN_CDR_STORE_2_PATH")
                }
                Product::Store3 => {
                    locations.centers = absolute(&None, &config.centers);
                    if locations.centers.is_none() {
                        return Err(centers_unset().into());
                    }
                    locations.store3 = absolute(&self.store3, &config.store3);
                    let variable = "OCEAN_CDR_CUMULATIVE_FG_CO2_PERCENT_STORE_PATH";
                    (&locations.store3, "store3", "--store3", variable)
                }
            };
            if location.is_none() {
                return Err(ConfigError::Unset { key, flag, variable }.into());
            }
        }
        data_dir(config)?;
        Ok(locations)
    }
}

/// Estimates the bytes per second that a node with this number of cores reads.
pub(crate) fn node_rate(cores: NonZeroUsize) -> f64 {
    CORE_RATE * cores.get() as f64
}

/// Prints the cases and products of a plan, and the estimated node-hours. `rate`: bytes that a node reads per
/// second.
pub(crate) fn write_plan(
    out: &mut Report<'_>,
    location: &Location,
    plan: &campaign::CampaignPlan,
    rate: f64,
) -> std::io::Result<()> {
    let products: Vec<_> = plan.products.iter().map(|product| product.name()).collect();
    let hours = plan.bytes() as f64 / rate / 3600.0;
    let cases: Vec<_> = plan.cases.iter().map(|planned| &planned.case).collect();
    out.set("plan", json!(location.to_string()));
    out.set("cases", json!(cases));
    out.set("products", json!(products));
    out.set("bytes_to_read", json!(plan.bytes()));
    out.set("node_hours", json!(hours));
    out.set("sha256", json!(plan.sha256));
    writeln!(
        out,
        "{location}: {} for {}, {} to read, {hours:.1} node-hours at {}/s per node\nSHA-256 {}",
        count(plan.cases.len(), "case"),
        products.join(", "),
        bytes(plan.bytes()),
        bytes(rate as u64),
        plan.sha256
    )
}

/// Refuses a plan file in the archive or among results.
async fn refuse_among_data(
    output: &Location,
    config: &Config,
    stores: &StoreRegistry,
) -> anyhow::Result<()> {
    let Some(folder) = output.parent() else { return Ok(()) };
    let archive = config.data_dir.as_ref().map(|setting| &setting.value);
    let is_in = |archive: &&Location| {
        folder.canonical() == archive.canonical() || folder.below(archive).is_some()
    };
    let around = match archive.filter(is_in) {
        Some(archive) => Some(archive.clone()),
        None => enclosing_results(&stores.open(&folder)?).await,
    };
    match around {
        None => Ok(()),
        Some(other) => {
            let problem =
                format!("{output} lies in {other}, which holds data; give another --output");
            Err(VisError::Settings(problem).into())
        }
    }
}
