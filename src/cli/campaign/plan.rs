//! `dor plan`: what a campaign is to do, written down.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::campaign::draft::{self, PlanDraft};
use crate::campaign::{self, Locations, Product};
use crate::cli::arguments::{CaseArgs, from_one, size};
use crate::cli::output::{bytes, count};
use crate::cli::research_data::{data_dir, refuse_inside, refuse_mixed};
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::{grid_file, stores};
use crate::cli::vis::{centers_unset, say_without};
use crate::cli::{Exit, GlobalArgs};
use crate::config::{Config, ConfigError, Overrides};
use crate::executor::unless_stopped;
use crate::store::{Location, LocationError, StoreRegistry};

/// Bytes of raw files that a core makes all products of in a second, as measured on two cores
/// (docs/benchmarks.md).
const CORE_RATE: f64 = 75e6;
/// Cores of a node, unless given.
pub(crate) const CORES: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// Write down what is to be done for which cases
///
/// The plan never changes: every node goes by the same. It names the places, so that `dor run`, `status`
/// and `finalize` need no other setting than the credentials; what lies below the plan's folder is named
/// relative to it, so that all can be moved together.
#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// Where the plan goes: a path or URL that every node can read
    #[arg(short, long, value_name = "PLAN", value_parser = file)]
    output: Location,
    #[command(flatten)]
    cases: CaseArgs,
    /// Products: research, store1, store2 and store3
    #[arg(long = "products", aliases = ["stages", "only"], value_name = "PRODUCT", value_delimiter = ',', default_values_t = Product::ALL)]
    stages: Vec<Product>,
    /// The archive of raw history, CASE/ocn/hist/*.nc [default: data_dir of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    data_dir: Option<Location>,
    /// Where research-grade files go [default: output_dir of the configuration]
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
    /// Series of sea surface height of the reference run, for DIC of store 2 [default: ssh of the configuration]
    #[arg(long, value_name = "LOCATION")]
    ssh: Option<Location>,
    /// Centres of the polygons, for store 3 [default: centers of the configuration]
    #[arg(long, value_name = "LOCATION")]
    centers: Option<Location>,
    /// Use the months that are there when others are missing
    #[arg(long)]
    allow_missing: bool,
    /// Reproduce the known defects of the published atlas in stores 2 and 3
    #[arg(long)]
    reference_compat: bool,
    /// For the estimate: cores of a node
    #[arg(long, value_name = "N", default_value_t = CORES, value_parser = from_one)]
    cores: NonZeroUsize,
    /// For the estimate: bytes that a node goes through in a second, as `dor run` tells at its end [default: 75 MB for each core, as measured]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    node_rate: Option<u64>,
}

/// Where a file goes.
fn file(text: &str) -> Result<Location, String> {
    match text.ends_with('/') {
        true => Err(format!("it is a folder: name a file in it, such as {text}plan.json")),
        false => text.parse().map_err(|error: LocationError| error.to_string()),
    }
}

impl Plan {
    pub async fn run(mut self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        self.stages.sort_unstable();
        self.stages.dedup();
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
        if draft.places.ssh.is_some() {
            // The series is long.
            stop_on_signals(stop.clone());
        }
        let chosen = unless_stopped(&stop, draft.cases(&choice, &stores)).await??;
        say_without(&chosen, &draft.archive(&stores)?.location().to_string());
        let output = self.output.absolute();
        let planning = draft.plan(chosen.cases, &output, &stores, &stop);
        let plan = unless_stopped(&stop, planning).await??;
        draft::write(&plan, &output, &stores).await?;
        let rate = self.node_rate.map_or(node_rate(self.cores), |rate| rate as f64);
        write_plan(out, &self.output, &plan, rate)?;
        Ok(Exit::Done)
    }

    /// What the plan is to be of; products are kept apart from each other's input.
    async fn draft(&self, config: &Config, stores: &StoreRegistry) -> anyhow::Result<PlanDraft> {
        let places = self.places(config)?;
        if let (Some(archive), Some(output)) = (&config.data_dir, &config.output_dir)
            && self.stages.contains(&Product::Research)
        {
            refuse_mixed(archive, output)?;
            refuse_inside(&stores.open(&output.value)?, output).await?;
        }
        Ok(PlanDraft {
            stages: self.stages.clone(),
            places,
            grid: grid_file(config),
            allow_missing: self.allow_missing,
            reference_compat: self.reference_compat,
        })
    }

    /// Where everything is; what the stages need must be known.
    fn places(&self, config: &Config) -> anyhow::Result<Locations> {
        let or = |flag: &Option<Location>, configured: &Option<_>| {
            let setting =
                configured.as_ref().map(|set: &crate::config::Setting<Location>| &set.value);
            flag.as_ref().or(setting).map(Location::absolute)
        };
        let mut places = Locations {
            data_dir: or(&None, &config.data_dir),
            grid: or(&None, &config.grid),
            ..Locations::default()
        };
        for stage in &self.stages {
            let (place, key, flag, variable) = match stage {
                Product::Research => {
                    places.output_dir = or(&None, &config.output_dir);
                    (&places.output_dir, "output_dir", "--output-dir", "DOR_OUTPUT_DIR")
                }
                Product::Store1 => {
                    places.store1 = or(&self.store1, &config.store1);
                    (&places.store1, "store1", "--store1", "OCEAN_CDR_STORE_1_PATH")
                }
                Product::Store2 => {
                    places.ssh = or(&None, &config.ssh);
                    places.store2 = or(&self.store2, &config.store2);
                    (&places.store2, "store2", "--store2", "OCEAN_CDR_STORE_2_PATH")
                }
                Product::Store3 => {
                    places.centers = or(&None, &config.centers);
                    if places.centers.is_none() {
                        return Err(centers_unset().into());
                    }
                    places.store3 = or(&self.store3, &config.store3);
                    let variable = "OCEAN_CDR_CUMULATIVE_FG_CO2_PERCENT_STORE_PATH";
                    (&places.store3, "store3", "--store3", variable)
                }
            };
            if place.is_none() {
                return Err(ConfigError::Unset { key, flag, variable }.into());
            }
        }
        data_dir(config)?;
        Ok(places)
    }
}

/// Bytes that a node of so many cores goes through in a second.
pub(crate) fn node_rate(cores: NonZeroUsize) -> f64 {
    CORE_RATE * cores.get() as f64
}

/// Says what a plan is of, and about how long it takes when a node goes through `rate` bytes a second.
pub(crate) fn write_plan(
    out: &mut dyn Write,
    location: &Location,
    plan: &campaign::CampaignPlan,
    rate: f64,
) -> std::io::Result<()> {
    let stages: Vec<_> = plan.stages.iter().map(|stage| stage.name()).collect();
    writeln!(
        out,
        "{location}: {} for {}, {} to read, {:.1} node-hours if a node goes through {} a second\nSHA-256 {}",
        count(plan.cases.len(), "case"),
        stages.join(", "),
        bytes(plan.bytes()),
        plan.bytes() as f64 / rate / 3600.0,
        bytes(rate as u64),
        plan.sha256
    )
}
