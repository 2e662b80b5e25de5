//! What all maps of a run are made by: the store, the points of the grid, their weights, the sea surface
//! height.

use std::sync::Arc;

use super::create::OpenStore;
use super::input::CaseSource;
use super::store2::{self, MapContext};
use super::{RunContext, StoreKind, StoreRecipe, VisError, ssh, weights};
use crate::executor::Pool;
use crate::model::{Case, Grid};
use crate::regrid::Weights;
use crate::research::GridFile;
use crate::store::{Location, Store, StoreRegistry};

/// How maps are made.
#[derive(Clone, Debug, Default)]
pub struct MapOptions {
    /// The grid file; without one the points are those of the files.
    pub grid: Option<GridFile>,
    /// Weights in the xESMF layout: read when they exist, else computed and written.
    pub weights_store: Option<Location>,
    /// Levels that the store must have.
    pub levels: Option<u8>,
    /// Series of sea surface height, needed for `DIC`.
    pub ssh: Option<Location>,
    /// Reproduce the known defects of the published atlas.
    pub reference_compat: bool,
}

impl MapOptions {
    /// The store with what all its maps are made by.
    ///
    /// # Errors
    /// It is no store 2, or of other levels or rules; an input cannot be read.
    pub async fn atlas<'a>(
        &self,
        store: Store,
        stores: &StoreRegistry,
        (input, cases): (&CaseSource, &[Case]),
        workshop: &'a RunContext,
    ) -> Result<MapContext<'a>, VisError> {
        let ssh = match &self.ssh {
            Some(at) => Some(ssh::load(stores, at, (&workshop.pool, &workshop.stop)).await?),
            None => None,
        };
        let recipe = StoreRecipe::new(self.reference_compat);
        let store2 = OpenStore::open(store, "store2", recipe).await?;
        let url = store2.store.location().to_string();
        let StoreKind::Store2(pyramid) = store2.kind.clone() else {
            return Err(VisError::Mismatch { url, problem: "is no store 2".to_owned() });
        };
        if self.levels.is_some_and(|levels| levels != pyramid.levels) {
            let problem = format!("has {} levels; leave out --levels", pyramid.levels);
            return Err(VisError::Mismatch { url, problem });
        }
        let (grid, name, sha256) = self.points(stores, input, cases, workshop).await?;
        let grid = Arc::new(grid);
        let weights = self.weights(stores, grid.clone(), pyramid.levels, workshop).await?;
        Ok(MapContext {
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
        stores: &StoreRegistry,
        input: &CaseSource,
        cases: &[Case],
        workshop: &RunContext,
    ) -> Result<(Grid, String, Option<String>), VisError> {
        if let (Some(file), false) = (&self.grid, self.reference_compat) {
            let (grid, sha256) = file.load(stores).await?;
            return Ok((grid, file.location.to_string(), Some(sha256)));
        }
        // Cases are of one model grid; fields of another size are refused one by one. One that cannot be
        // read fails by itself later.
        let recipe = StoreRecipe::new(self.reference_compat);
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
        Err(failure)
    }

    /// Weights that were stored, or computed.
    async fn weights(
        &self,
        stores: &StoreRegistry,
        grid: Arc<Grid>,
        levels: u8,
        workshop: &RunContext,
    ) -> Result<Vec<Weights>, VisError> {
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
