//! `dor vis populate-store3`: uptake by distance.

use std::io::Write;
use std::sync::Arc;

use clap::Args;

use super::arguments::{GridFile, Months, Work, config};
use super::create::store_of;
use super::populate_store1::chosen;
use super::run::{each, workshop};
use crate::cli::arguments::Cases;
use crate::cli::grid::load_grid;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::pipeline::until;
use crate::store::Location;
use crate::vis::series::{self, Filled, Spread, Wanted};
use crate::vis::template::Destination;
use crate::vis::{Kind, Recipe, VisError, centers, excess, store1, store3, zarr};

/// Compute the uptake of cases by distance for store 3
///
/// From research-grade or raw files, of which only the two-dimensional fluxes are read. `dor vis
/// finalize` puts the results into the store.
#[derive(Args, Debug)]
pub(super) struct PopulateStore3 {
    /// The store: a path or URL [default: store3 of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    output_store: Option<Location>,
    #[command(flatten)]
    cases: Cases,
    /// Excess stores, CASE.excess.zarr, to take the additional flux from; needs --grid
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["input_dir", "data_dir", "with_store1"])]
    excess_dir: Option<Location>,
    #[command(flatten)]
    months: Months,
    #[command(flatten)]
    grid: GridFile,
    /// Centres of the polygons: a table polygon_id,lon,lat; a folder of the arrays of the basins; or data.zip
    #[arg(long, value_name = "LOCATION")]
    centers: Location,
    /// Fill this store 1 in the same pass over the files
    #[arg(long, value_name = "LOCATION")]
    with_store1: Option<Location>,
    /// Reproduce the known defects of the published atlas: radii 50 km too large, one month length
    #[arg(long)]
    reference_compat: bool,
    #[command(flatten)]
    work: Work,
}

impl PopulateStore3 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, Some(&self.work), Some(&self.grid))?;
        let workshop = workshop(&config);
        let stores = until(&workshop.stop, &stores(&config));
        let location = store_of(&Kind::Store3, self.output_store.as_ref(), &config)?;
        let store = stores.open(&location)?;
        let store1 = self.with_store1.as_ref().map(|at| stores.open(at)).transpose()?;
        let recipe = Recipe::new(self.reference_compat);
        let centers = centers::load(&stores, &self.centers).await?;
        let grid = match &config.grid {
            Some(setting) => Some(load_grid(&stores, setting).await?),
            None => None,
        };
        let force = self.work.force;
        let center_of = |case: Case| {
            let polygon = case.polygon();
            let url = self.centers.to_string();
            centers.of(polygon).ok_or(VisError::NoCenter { url, polygon })
        };
        if let Some(excesses) = &self.excess_dir {
            let needed = || VisError::Needs("--excess-dir needs the grid file (--grid)".to_owned());
            let grid = grid.ok_or_else(needed)?;
            let excesses = stores.open(excesses)?;
            let there = zarr::cases(&excesses, excess::SUFFIX).await?;
            let cases = chosen(&self.cases, None, there, &excesses.location().to_string())?;
            let store3 = Destination::open(store, "store3", recipe).await?;
            let fill = async |case: Case| {
                let center = center_of(case)?;
                let work = (force, &workshop);
                store3::fill_from_excess(&store3, &excesses, case, &grid, center, work).await
            };
            return each(&cases, &workshop, out, fill).await;
        }
        let input = self.months.open(&stores, &config)?;
        let cases = chosen(&self.cases, None, input.cases().await?, &input.url())?;
        let store3 = Destination::open(store, "store3", recipe.clone()).await?;
        let store1 = match store1 {
            Some(store) => Some(Destination::open(store, "store1", Recipe::new(false)).await?),
            None => None,
        };
        let (grid, grid_sha256) = grid.unzip();
        let grid = grid.map(Arc::new);
        let fill = async |case: Case| -> Result<Filled, VisError> {
            let center = center_of(case)?;
            let files = input.case(case, self.work.allow_missing).await?;
            let part =
                store3::part(&store3, &files, (center, grid_sha256.as_deref()), force).await?;
            let other = match &store1 {
                Some(store1) => Some(store1::part(store1, &files, force).await?),
                None => None,
            };
            let other = other.filter(|part| !part.done);
            if part.done && other.is_none() {
                return Ok(Filled { before: true, ..Filled::default() });
            }
            let spread = Spread { center, grid: grid.clone(), recipe: recipe.clone() };
            let wanted = Wanted { efficiency: other.is_some(), uptake: Some(spread) };
            workshop.progress.begin(case, files.len(), files.size());
            let series = series::read(&workshop, &files, &wanted).await?;
            let mut filled = store3::fill(part, &files, &series, self.reference_compat).await?;
            if let Some(part) = other {
                filled.objects += store1::fill(part, &files, &series).await?.objects;
            }
            filled.missing.clone_from(&files.missing);
            Ok(filled)
        };
        each(&cases, &workshop, out, fill).await
    }
}
