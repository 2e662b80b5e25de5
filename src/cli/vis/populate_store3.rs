//! `dor vis populate-store3`: computes uptake by distance.

use std::io::Write;
use std::sync::Arc;

use clap::Args;

use super::arguments::{GridArgs, InputArgs, WorkArgs, centers_unset, config};
use super::create::store_of;
use super::run::{chosen, each, run_context};
use crate::cli::arguments::CaseArgs;
use crate::cli::report::Report;
use crate::cli::stores::{grid_file, stores};
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::executor::until;
use crate::model::{Case, Grid};
use crate::read::centers::Centers;
use crate::store::{Location, Store, StoreRegistry};
use crate::vis::cases::CaseChoice;
use crate::vis::create::OpenStore;
use crate::vis::input::CaseSource;
use crate::vis::populate::UptakeRun;
use crate::vis::store3::{self, UptakeContext, center};
use crate::vis::{RunContext, StoreKind, StoreRecipe, VisError, centers, excess, zarr};

/// Compute the uptake of cases by distance for store 3
///
/// Reads research-grade or raw files, of which only the two-dimensional fluxes are read, or excess stores. `dor vis
/// finalize` then writes the results to the arrays of the store.
#[derive(Args, Debug)]
pub(super) struct PopulateStore3 {
    /// Store to fill: a path or URL [default: store3 of the configuration]
    #[arg(short, long = "output", visible_alias = "output-store", value_name = "LOCATION")]
    output_store: Option<Location>,
    #[command(flatten)]
    cases: CaseArgs,
    /// Read the additional flux from excess stores, CASE.excess.zarr, in this folder; needs --grid
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["input_dir", "data_dir", "with_store1"])]
    excess_dir: Option<Location>,
    #[command(flatten)]
    months: InputArgs,
    #[command(flatten)]
    grid: GridArgs,
    /// Centers of the polygons: a table with polygon_id,lon,lat; a folder with the arrays of the basins; or data.zip [default: centers of the configuration]
    #[arg(long, value_name = "LOCATION")]
    centers: Option<Location>,
    /// Also fill this store 1, from the same files, which are read once
    #[arg(long, value_name = "LOCATION")]
    with_store1: Option<Location>,
    /// Reproduce the known defects of the published atlas: radii 50 km too large, all months equally long
    #[arg(long)]
    reference_compat: bool,
    #[command(flatten)]
    work: WorkArgs,
}

/// Inputs of the distances.
struct Geometry {
    /// Centers of the polygons, and the URL of their file.
    centers: (Centers, String),
    /// The full grid, and the SHA-256 of its file. `None`: no grid file is set.
    grid: Option<(Grid, String)>,
}

impl PopulateStore3 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, Some(&self.work), Some(&self.grid))?;
        let context = run_context(&config);
        let stores = until(&context.stop, &stores(&config));
        let location = store_of(&StoreKind::Store3, self.output_store.as_ref(), &config)?;
        let store = stores.open(&location)?;
        let store1 = self.with_store1.as_ref().map(|at| stores.open(at)).transpose()?;
        let geometry = self.geometry(&stores, &config).await?;
        let choice = self.cases.choice()?;
        let mut report = self.work.report.report(out);
        let out = &mut report;
        let exit = match &self.excess_dir {
            Some(excesses) => {
                let Geometry { centers, grid } = geometry;
                let problem = "--excess-dir needs the grid file; give --grid";
                let grid = grid.ok_or_else(|| VisError::Settings(problem.to_owned()))?;
                let stores = (store, stores.open(excesses)?);
                self.fill_from_excesses(stores, (&centers, &grid), &choice, &context, out).await
            }
            None => {
                let input = self.months.open(&stores, &config)?;
                let stores = (store, store1);
                self.fill_from_files(stores, geometry, input, &choice, &context, out).await
            }
        };
        let exit = exit?;
        report.end()?;
        Ok(exit)
    }

    /// Loads the centers of the polygons and the grid file.
    async fn geometry(&self, stores: &StoreRegistry, config: &Config) -> anyhow::Result<Geometry> {
        let configured = config.centers.as_ref().map(|setting| &setting.value);
        let centers = self.centers.as_ref().or(configured).ok_or_else(centers_unset)?;
        let centers = (centers::load(stores, centers).await?, centers.to_string());
        let grid = match grid_file(config) {
            Some(file) => Some(file.load(stores).await?),
            None => None,
        };
        Ok(Geometry { centers, grid })
    }

    async fn fill_from_excesses(
        &self,
        (store, excesses): (Store, Store),
        ((centers, url), grid): (&(Centers, String), &(Grid, String)),
        choice: &CaseChoice,
        context: &RunContext,
        out: &mut Report<'_>,
    ) -> anyhow::Result<Exit> {
        let available = zarr::cases(&excesses, excess::SUFFIX).await?;
        let cases = chosen(choice, available, &excesses.location().to_string())?;
        let recipe = StoreRecipe::new(self.reference_compat);
        let store3 = OpenStore::open(store, "store3", recipe).await?;
        let work = (self.work.options(), context);
        let fill = async |case: Case| {
            let center = center(centers, url, case)?;
            store3::fill_from_excess(&store3, &excesses, case, grid, center, work).await
        };
        each(&cases, context, out, fill).await
    }

    async fn fill_from_files(
        &self,
        (store, store1): (Store, Option<Store>),
        Geometry { centers, grid }: Geometry,
        input: CaseSource,
        choice: &CaseChoice,
        context: &RunContext,
        out: &mut Report<'_>,
    ) -> anyhow::Result<Exit> {
        let cases = chosen(choice, input.cases().await?, &input.url())?;
        let recipe = StoreRecipe::new(self.reference_compat);
        let destination = OpenStore::open(store, "store3", recipe).await?;
        let store1 = match store1 {
            Some(store) => Some(OpenStore::open(store, "store1", StoreRecipe::new(false)).await?),
            None => None,
        };
        let grid = grid.map(|(grid, sha256)| (Arc::new(grid), sha256));
        let store3 = UptakeContext { destination, centers, grid };
        let options = self.work.options();
        let uptakes = UptakeRun { store3, store1, input, options, context };
        each(&cases, context, out, async |case| uptakes.fill(case).await).await
    }
}
