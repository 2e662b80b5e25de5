//! `dor vis populate-store2`: the map pyramid.

use std::io::Write;
use std::sync::Arc;

use clap::Args;

use super::arguments::{GridFile, Months, Work, config};
use super::create::store_of;
use super::populate_store1::chosen;
use super::run::{each, workshop};
use crate::cli::arguments::{Cases, in_order, polygon};
use crate::cli::grid::load_grid;
use crate::cli::publish_to::PublishTo;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::ledger::{InputRecord, sha256};
use crate::model::{Case, Grid};
use crate::pipeline::{ObjectSource, Pool, unless_stopped, until};
use crate::read::ssh::SeaSurfaceHeight;
use crate::regrid::Weights;
use crate::store::{Location, Store, Stores};
use crate::vis::contract::Pyramid;
use crate::vis::input::Input;
use crate::vis::series::Filled;
use crate::vis::store2::{self, Atlas};
use crate::vis::template::Destination;
use crate::vis::{Kind, Recipe, VisError, Workshop, weights};

/// Compute the maps of cases for store 2
///
/// From research-grade or raw files, of which only the fields of the maps are read. A case that
/// is done is passed over; one that was stopped is made again. With --publish-to, maps go out as they
/// are done, and the metadata that names them with `dor vis finalize --publish-to`.
#[derive(Args, Debug)]
pub(super) struct PopulateStore2 {
    /// The store: a path or URL [default: store2 of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    output_store: Option<Location>,
    #[command(flatten)]
    cases: Cases,
    /// Polygons from A to B
    #[arg(long, num_args = 2, value_names = ["A", "B"], value_parser = polygon)]
    polygon_range: Option<Vec<u16>>,
    #[command(flatten)]
    months: Months,
    #[command(flatten)]
    maps: Maps,
    #[command(flatten)]
    grid: GridFile,
    #[command(flatten)]
    work: Work,
    #[command(flatten)]
    publish_to: PublishTo,
}

/// How maps are made.
#[derive(Args, Debug, Default)]
pub(crate) struct Maps {
    /// Regridding weights in the xESMF layout: read when they exist, else computed and written; not with --reference-compat
    #[arg(short, long, value_name = "LOCATION", conflicts_with = "reference_compat")]
    pub weights_store: Option<Location>,
    /// Levels that the store must have
    #[arg(short, long, value_name = "N")]
    pub levels: Option<u8>,
    /// Series of sea surface height of the reference run; needed for DIC
    #[arg(long, value_name = "LOCATION")]
    pub ssh: Option<Location>,
    /// Reproduce the known defects of the published atlas: U points, sea surface height a month late, 0 outside
    #[arg(long)]
    pub reference_compat: bool,
}

impl PopulateStore2 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        in_order(self.polygon_range.as_deref())?;
        let config = config(global, Some(&self.work), Some(&self.grid))?;
        let stores = stores(&config);
        let kind = Kind::Store2(Pyramid::default());
        let location = store_of(&kind, self.output_store.as_ref(), &config)?;
        let workshop = workshop(&config);
        let reading = until(&workshop.stop, &stores);
        let store = reading.open(&location)?;
        let input = self.months.open(&reading, &config)?;
        let range = self.polygon_range.as_deref();
        let cases = chosen(&self.cases, range, input.cases().await?, &input.url())?;
        let beside = (&workshop.pool, &workshop.stop);
        let publishing = self.publish_to.queue(&stores, &store, beside).await?;
        let atlas =
            self.maps.atlas(store, (&reading, &config), (&input, &cases), &workshop).await?;
        let fill = async |case: Case| {
            let files = input.case(case, self.work.allow_missing).await?;
            workshop.progress.begin(case, files.len(), files.size());
            let missing = files.missing.clone();
            let filled = atlas.fill(&files, self.work.force).await?;
            publishing.add(case);
            Ok(Filled { missing, ..filled })
        };
        let exit = each(&cases, &workshop, out, fill).await?;
        publishing.end(exit, out).await
    }
}

impl Maps {
    /// The store with what all its maps are made by.
    pub async fn atlas<'a>(
        &self,
        store: Store,
        (stores, config): (&Stores, &Config),
        (input, cases): (&Input, &[Case]),
        workshop: &'a Workshop,
    ) -> anyhow::Result<Atlas<'a>> {
        let ssh = match &self.ssh {
            Some(location) => Some(load_ssh(stores, location, workshop).await?),
            None => None,
        };
        let recipe = Recipe::new(self.reference_compat);
        let store2 = Destination::open(store, "store2", recipe).await?;
        let url = store2.store.location().to_string();
        let Kind::Store2(pyramid) = store2.kind.clone() else {
            return Err(VisError::Mismatch { url, problem: "is no store 2".to_owned() }.into());
        };
        if self.levels.is_some_and(|levels| levels != pyramid.levels) {
            let problem = format!("has {} levels; leave out --levels", pyramid.levels);
            return Err(VisError::Mismatch { url, problem }.into());
        }
        let (grid, name, sha256) = self.points(stores, config, input, cases, workshop).await?;
        let grid = Arc::new(grid);
        let weights = self.weights(stores, grid.clone(), pyramid.levels, workshop).await?;
        Ok(Atlas {
            destination: Arc::new(store2),
            pyramid,
            digest: store2::digest(&weights),
            weights: Arc::new(weights),
            grid: name,
            shape: (grid.nlat, grid.nlon),
            given: sha256.map(|sha256| (grid, sha256)),
            ssh,
            workshop,
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The points to regrid from, with a name for messages, and the SHA-256 of the grid file that they are
    /// of.
    async fn points(
        &self,
        stores: &Stores,
        config: &Config,
        input: &Input,
        cases: &[Case],
        workshop: &Workshop,
    ) -> anyhow::Result<(Grid, String, Option<String>)> {
        if let (Some(setting), false) = (&config.grid, self.reference_compat) {
            let (grid, sha256) = load_grid(stores, setting).await?;
            return Ok((grid, setting.value.to_string(), Some(sha256)));
        }
        // Cases are of one model grid; fields of another size are refused one by one. One that cannot be
        // read fails by itself later.
        let recipe = Recipe::new(self.reference_compat);
        let mut failure = VisError::Needs("no case was chosen".to_owned());
        for &case in cases {
            let grid = async {
                let files = input.case(case, true).await?;
                store2::grid_of(&files, &recipe, workshop).await
            };
            match grid.await {
                Ok(grid) => return Ok((grid, format!("the first file of case {case}"), None)),
                Err(error) => failure = error,
            }
        }
        Err(failure.into())
    }

    /// Weights that were stored, or computed.
    async fn weights(
        &self,
        stores: &Stores,
        grid: Arc<Grid>,
        levels: u8,
        workshop: &Workshop,
    ) -> anyhow::Result<Vec<Weights>> {
        let store = self.weights_store.as_ref().map(|at| stores.open(at)).transpose()?;
        if let Some(store) = &store
            && let load = weights::load(store, levels, &grid)
            && let Some(weights) = workshop.within(weights::memory(levels), load).await?
        {
            return Ok(weights);
        }
        let place = workshop.pool.place(0).await?;
        let weights = Pool::run(&place, move || weights::compute(&grid, levels)).await?;
        drop(place);
        if let Some(store) = &store {
            weights::save(store, &weights).await?;
        }
        Ok(weights)
    }
}

/// The series of sea surface height, and the file that it is in.
pub(crate) async fn load_ssh(
    stores: &Stores,
    location: &Location,
    workshop: &Workshop,
) -> anyhow::Result<(Arc<SeaSurfaceHeight>, InputRecord)> {
    let (Some(folder), Some(name)) = (location.parent(), location.file_name()) else {
        let needed = format!("--ssh {location}: name the file, not a folder");
        return Err(VisError::Needs(needed).into());
    };
    let object = match stores.open(&folder)?.object(name).await {
        Err(error) if error.is_not_found() => {
            let needed = format!("--ssh {location}: there is no such file");
            return Err(VisError::Needs(needed).into());
        }
        object => object?,
    };
    let info = object.info().clone();
    // First what it is: a large file of something else is not read to its end for that.
    let source = ObjectSource::new(object, workshop.stop.clone(), |_| {});
    let place = workshop.pool.place(0).await?;
    let open = move || SeaSurfaceHeight::open(Box::new(source));
    let ssh = Pool::run(&place, open).await?.map_err(VisError::from)?;
    let folder = stores.open(&folder)?;
    let sha256 = unless_stopped(&workshop.stop, sha256(&folder, &info)).await??;
    let mut record = InputRecord::new(&info, Some(sha256));
    if location.is_local() {
        record.etag = None;
    }
    Ok((Arc::new(ssh), record))
}
