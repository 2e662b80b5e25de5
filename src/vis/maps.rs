//! Preparation of a run that fills store 2: opens the store and loads the grid, the regridding weights
//! and the sea surface height.

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

/// Options of a run that fills store 2.
#[derive(Clone, Debug, Default)]
pub struct MapOptions {
    /// The grid file; `None` for the points in the input files.
    pub grid: Option<GridFile>,
    /// Store for regridding weights in the xESMF layout: weights are read from it, or computed and
    /// written to it. `None` computes them in memory.
    pub weights_store: Option<Location>,
    /// Number of levels that the store must have; `None` for any number.
    pub levels: Option<u8>,
    /// File with the series of sea surface height, which the variable `DIC` needs.
    pub ssh: Option<Location>,
    /// Whether to reproduce the known defects of the published atlas.
    pub reference_compat: bool,
    /// Whether to write nothing, also no weights.
    pub dry_run: bool,
}

impl MapOptions {
    /// Opens the store, and loads everything that its maps are computed from.
    ///
    /// # Errors
    /// The store is not a store 2, or has other levels or another recipe; an input cannot be read.
    pub async fn open_map_context<'a>(
        &self,
        store: Store,
        stores: &StoreRegistry,
        (input, cases): (&CaseSource, &[Case]),
        context: &'a RunContext,
    ) -> Result<MapContext<'a>, VisError> {
        let ssh = match &self.ssh {
            Some(at) => Some(ssh::load(stores, at, (&context.pool, &context.stop)).await?),
            None => None,
        };
        let recipe = StoreRecipe::new(self.reference_compat);
        let store2 = OpenStore::open(store, "store2", recipe).await?;
        let url = store2.store.location().to_string();
        let StoreKind::Store2(pyramid) = store2.kind.clone() else {
            return Err(VisError::WrongLocation { url, problem: "is not a store 2".to_owned() });
        };
        if self.levels.is_some_and(|levels| levels != pyramid.levels) {
            let problem = format!("has {} levels; leave out --levels", pyramid.levels);
            return Err(VisError::WrongLocation { url, problem });
        }
        let (grid, name, sha256) = self.points(stores, input, cases, context).await?;
        let grid = Arc::new(grid);
        let weights = self.weights(stores, grid.clone(), pyramid.levels, context).await?;
        Ok(MapContext {
            destination: Arc::new(store2),
            pyramid,
            weights_sha256: store2::weights_sha256(&weights),
            weights: Arc::new(weights),
            grid_name: name,
            shape: (grid.nlat, grid.nlon),
            grid_file: sha256.map(|sha256| (grid, sha256)),
            ssh,
            context,
            whole_maps_lock: tokio::sync::Mutex::default(),
        })
    }

    /// Loads the points to regrid from. Returns them with a name for messages, and with the SHA-256 of
    /// the grid file if they are from one.
    async fn points(
        &self,
        stores: &StoreRegistry,
        input: &CaseSource,
        cases: &[Case],
        context: &RunContext,
    ) -> Result<(Grid, String, Option<String>), VisError> {
        if let (Some(file), false) = (&self.grid, self.reference_compat) {
            let (grid, sha256) = file.load(stores).await?;
            return Ok((grid, file.location.to_string(), Some(sha256)));
        }
        // All cases have the same model grid, so the first case that can be read provides the points. A
        // case that cannot be read, or has another grid, fails when it is filled.
        let recipe = StoreRecipe::new(self.reference_compat);
        let mut failure = VisError::Settings("no case was chosen".to_owned());
        for &case in cases {
            let grid = async {
                let files = input.case(case, true).await?;
                store2::read_grid(&files, &recipe, context).await
            };
            match grid.await {
                Ok(grid) => return Ok((grid, format!("the first file of case {case}"), None)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Loads the weights from the weights store, or computes and stores them.
    async fn weights(
        &self,
        stores: &StoreRegistry,
        grid: Arc<Grid>,
        levels: u8,
        context: &RunContext,
    ) -> Result<Vec<Weights>, VisError> {
        let store = self.weights_store.as_ref().map(|at| stores.open(at)).transpose()?;
        if let Some(store) = &store
            && let load = weights::load(store, levels, &grid)
            && let Some(weights) = context.with_memory(weights::memory(levels), load).await?
        {
            return Ok(weights);
        }
        let permit = context.pool.acquire(0).await?;
        let weights = Pool::run(&permit, move || weights::compute(&grid, levels)).await?;
        drop(permit);
        if let Some(store) = &store
            && !self.dry_run
        {
            weights::save(store, &weights).await?;
        }
        Ok(weights)
    }
}
