//! `dor plan`: what a campaign is to do, written down.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};

use super::arguments::plan_file;
use crate::batch::{self, Givens, Places, Planned, Stage};
use crate::cli::arguments::{Cases, from_one, in_order, polygon, size};
use crate::cli::grid::load_grid;
use crate::cli::output::{bytes, count};
use crate::cli::research_data::{refuse_inside, refuse_mixed};
use crate::cli::stores::stores;
use crate::cli::vis::{chosen, load_ssh, workshop};
use crate::cli::{Exit, GlobalArgs};
use crate::config::{Config, ConfigError, Overrides};
use crate::model::Case;
use crate::model::atlas::MapVariable;
use crate::pipeline::until;
use crate::read::centers::Centers;
use crate::research::plan::{missing_months, raw_files};
use crate::store::{Location, LocationError, Store, Stores};
use crate::vis::input::Input;
use crate::vis::{Kind, VisError, centers, store2, template};

/// Bytes of raw files that a core makes all products of in a second, as measured on two cores
/// (docs/benchmarks.md).
const CORE_RATE: f64 = 75e6;
/// Cases whose files are counted at the same time.
const LISTINGS: usize = 16;

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
    cases: Cases,
    /// Polygons from A to B
    #[arg(long, num_args = 2, value_names = ["A", "B"], value_parser = polygon)]
    polygon_range: Option<Vec<u16>>,
    /// Products, of research, store1, store2 and store3
    #[arg(long, value_name = "STAGE", value_delimiter = ',', default_values_t = Stage::ALL)]
    stages: Vec<Stage>,
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
    /// Series of sea surface height of the reference run; needed for DIC of store 2
    #[arg(long, value_name = "LOCATION")]
    ssh: Option<Location>,
    /// Centres of the polygons, for store 3
    #[arg(long, value_name = "LOCATION")]
    centers: Option<Location>,
    /// Use the months that are there when others are missing
    #[arg(long)]
    allow_missing: bool,
    /// Reproduce the known defects of the published atlas in stores 2 and 3
    #[arg(long)]
    reference_compat: bool,
    /// For the estimate: cores of a node
    #[arg(long, value_name = "N", default_value = "128", value_parser = from_one)]
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

/// Refuses products that would lie within each other.
fn refuse_shared(places: &Places) -> Result<(), VisError> {
    let all: Vec<&Location> = Stage::ALL.iter().filter_map(|stage| places.of(*stage)).collect();
    for (n, one) in all.iter().enumerate() {
        for other in &all[n + 1..] {
            if one.overlaps(other) {
                return Err(VisError::Needs(format!(
                    "{one} and {other} are the same place, or one lies within the other: give each product a place of its own"
                )));
            }
        }
    }
    Ok(())
}

impl Plan {
    pub async fn run(mut self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        self.stages.sort_unstable();
        self.stages.dedup();
        let overrides = Overrides {
            data_dir: self.data_dir.clone(),
            output_dir: self.output_dir.clone(),
            grid: self.grid.clone(),
            ..global.overrides()
        };
        let config = Config::load(&overrides)?;
        let stores = stores(&config);
        let places = self.places(&config)?;
        let unset = ConfigError::Unset {
            key: "data_dir",
            flag: "--data-dir",
            variable: "OCEAN_CDR_DATA_ARCHIVE_DIR",
        };
        if let (Some(archive), Some(output)) = (&config.data_dir, &config.output_dir)
            && self.stages.contains(&Stage::Research)
        {
            refuse_mixed(archive, output)?;
            refuse_inside(&stores.open(&output.value)?, output).await?;
        }
        refuse_shared(&places)?;
        if let (Some(at), None) = (&places.store2, &places.ssh)
            && let Ok(opened) = template::open(&stores.open(at)?, "store2").await
            && matches!(&opened.kind, Kind::Store2(maps) if maps.variables.contains(&MapVariable::Dic))
        {
            return Err(VisError::Needs(store2::NEEDS_SSH.to_owned()).into());
        }
        let raw = stores.open(places.data_dir.as_ref().ok_or(unset)?)?;
        let input = Input::Raw(raw.clone());
        let range = self.polygon_range.as_deref();
        in_order(range)?;
        let cases = chosen(&self.cases, range, input.cases().await?, &input.url())?;
        let centers = match &places.centers {
            Some(at) => Some((centers::load(&stores, at).await?, at.to_string())),
            None => None,
        };
        let givens = Self::givens(&places, &config, &stores).await?;
        let planned = self.count(&raw, cases, centers.as_ref()).await?;
        let (store, key) = plan_file(&stores, &self.output.absolute())?;
        places.prepare(&stores).await?;
        let places = places.relative_to(store.location());
        let plan = batch::Plan::new(self.stages, places, planned)
            .with_givens(givens)
            .with_rules(self.allow_missing, self.reference_compat);
        plan.save(&store, &key).await?;
        let of_cores = CORE_RATE * self.cores.get() as f64;
        let rate = self.node_rate.map_or(of_cores, |rate| rate as f64);
        let stages: Vec<_> = plan.stages.iter().map(|stage| stage.name()).collect();
        writeln!(
            out,
            "{}: {} for {}, {} to read, {:.1} node-hours if a node goes through {} a second\nSHA-256 {}",
            self.output,
            count(plan.cases.len(), "case"),
            stages.join(", "),
            bytes(plan.bytes()),
            plan.bytes() as f64 / rate / 3600.0,
            bytes(rate as u64),
            plan.sha256
        )?;
        Ok(Exit::Done)
    }

    /// Where everything is; what the stages need must be known.
    fn places(&self, config: &Config) -> anyhow::Result<Places> {
        let or = |flag: &Option<Location>, configured: &Option<_>| {
            let setting =
                configured.as_ref().map(|set: &crate::config::Setting<Location>| &set.value);
            flag.as_ref().or(setting).map(Location::absolute)
        };
        let mut places = Places {
            data_dir: or(&None, &config.data_dir),
            grid: or(&None, &config.grid),
            ..Places::default()
        };
        for stage in &self.stages {
            let (place, key, flag, variable) = match stage {
                Stage::Research => {
                    places.output_dir = or(&None, &config.output_dir);
                    (&places.output_dir, "output_dir", "--output-dir", "DOR_OUTPUT_DIR")
                }
                Stage::Store1 => {
                    places.store1 = or(&self.store1, &config.store1);
                    (&places.store1, "store1", "--store1", "OCEAN_CDR_STORE_1_PATH")
                }
                Stage::Store2 => {
                    places.ssh = or(&self.ssh, &None);
                    places.store2 = or(&self.store2, &config.store2);
                    (&places.store2, "store2", "--store2", "OCEAN_CDR_STORE_2_PATH")
                }
                Stage::Store3 => {
                    let needed = || VisError::Needs("store 3 needs --centers".to_owned());
                    places.centers = Some(or(&self.centers, &None).ok_or_else(needed)?);
                    places.store3 = or(&self.store3, &config.store3);
                    let variable = "OCEAN_CDR_CUMULATIVE_FG_CO2_PERCENT_STORE_PATH";
                    (&places.store3, "store3", "--store3", variable)
                }
            };
            if place.is_none() {
                return Err(ConfigError::Unset { key, flag, variable }.into());
            }
        }
        Ok(places)
    }

    /// What the results depend on besides the archive, as it is now.
    async fn givens(places: &Places, config: &Config, stores: &Stores) -> anyhow::Result<Givens> {
        let mut givens = Givens::default();
        if let Some(setting) = &config.grid {
            givens.grid_sha256 = Some(load_grid(stores, setting).await?.1);
        }
        if let Some(at) = &places.ssh {
            let workshop = workshop(config);
            let stores = until(&workshop.stop, stores);
            givens.ssh = Some(load_ssh(&stores, at, &workshop).await?.1);
        }
        Ok(givens)
    }

    /// What there is to read of each case.
    async fn count(
        &self,
        raw: &Store,
        cases: Vec<Case>,
        centers: Option<&(Centers, String)>,
    ) -> Result<Vec<Planned>, VisError> {
        let count = async |case: Case| {
            let polygon = case.polygon();
            let center = centers.map(|(centers, url)| {
                let none = || VisError::NoCenter { url: url.clone(), polygon };
                centers.of(polygon).ok_or_else(none)
            });
            let center = center.transpose()?;
            let files = raw_files(raw, case).await?;
            missing_months(case, &files, self.allow_missing)?;
            let bytes = files.values().map(|info| info.size).sum();
            Ok(Planned { case: case.short(), files: files.len(), bytes, center })
        };
        stream::iter(cases).map(count).buffered(LISTINGS).try_collect().await
    }
}
