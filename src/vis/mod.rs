//! The three visualization stores, Zarr stores that the public map reads.
//!
//! | store | content | input |
//! |---|---|---|
//! | [`store1`] | efficiency of each case over time | air-sea flux and intervention flux, 2-D |
//! | [`store2`] | a map pyramid of each case | carbon, pH, air-sea flux and pressure on the ocean grid |
//! | [`store3`] | additional CO2 uptake within 500, 1000 and 2000 km | air-sea flux, 2-D |
//!
//! `schema` defines the arrays of each store and [`create`] writes an empty store. [`store1`], [`store2`]
//! and [`store3`] compute the results of a case. [`finalize`] assembles the chunks that cases share,
//! [`check`] verifies a store, [`query`] reads a map or a curve. `coverage` finds values that no case
//! record covers; `adopt` creates records for them, `remove` removes cases.

pub(crate) mod adopt;
pub(crate) mod analysis;
mod bounded;
mod case_writer;
pub(crate) mod cases;
pub(crate) mod centers;
pub mod check;
mod common_fields;
pub(crate) mod coverage;
pub mod create;
pub(crate) mod earlier;
mod error;
pub(crate) mod excess;
pub mod finalize;
pub mod input;
pub(crate) mod maps;
mod month;
pub mod populate;
pub mod query;
pub(crate) mod recipe;
pub(crate) mod record;
mod regridded;
pub(crate) mod remove;
pub(crate) mod schema;
pub(crate) mod series;
mod shards;
pub(crate) mod ssh;
pub mod store1;
pub mod store2;
pub mod store3;
pub mod weights;
pub(crate) mod zarr;

use std::sync::Arc;

pub use error::VisError;
pub use recipe::StoreRecipe;
pub use schema::StoreKind;

use tokio_util::sync::CancellationToken;

use crate::executor::{Pool, PoolError, unless_stopped};
use crate::research::ConversionProgress;

/// Resources that all tasks of a run use.
#[derive(Clone)]
pub struct RunContext {
    /// Worker threads and the memory budget.
    pub pool: Pool,
    /// Cancelled when the run is to stop.
    pub stop: CancellationToken,
    /// Receiver of progress events.
    pub progress: Arc<dyn ConversionProgress>,
}

impl RunContext {
    /// Waits for a worker and `memory` bytes, then runs `work` until it ends or the run is stopped.
    ///
    /// # Errors
    /// The error of `work`, or [`VisError::Pool`] after a stop.
    pub async fn with_memory<T>(
        &self,
        memory: u64,
        work: impl Future<Output = Result<T, VisError>>,
    ) -> Result<T, VisError> {
        let permit = unless_stopped(&self.stop, self.pool.acquire(memory))
            .await
            .map_err(PoolError::from)??;
        let result = unless_stopped(&self.stop, work).await.map_err(PoolError::from)?;
        drop(permit);
        result
    }
}
