//! The three visualization stores: what the public map draws from.
//!
//! | store | holds | made from |
//! |---|---|---|
//! | [`store1`] | efficiency of every case over time | air-sea flux and intervention, 2-D |
//! | [`store2`] | a map pyramid of every case | carbon, pH, flux and pressure on the ocean grid |
//! | [`store3`] | uptake within 500, 1000 and 2000 km | air-sea flux, 2-D |
//!
//! `schema` says what each store looks like, [`create`] makes one, a case's part is filled in
//! by [`store1`], [`store2`] and [`store3`], [`finalize`] puts together what cases share, [`check`]
//! verifies the whole, [`query`] reads a map or a curve back. `coverage` finds values that no record
//! covers; `adopt` makes records of them, `remove` takes a case out.

pub(crate) mod adopt;
pub(crate) mod analysis;
mod bounded;
pub(crate) mod cases;
pub(crate) mod centers;
pub mod check;
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

/// What all work of a run shares.
#[derive(Clone)]
pub struct RunContext {
    /// CPU threads and memory.
    pub pool: Pool,
    /// Set when the run is to stop.
    pub stop: CancellationToken,
    /// Where progress is told.
    pub progress: Arc<dyn ConversionProgress>,
}

impl RunContext {
    /// Does work that takes `memory` bytes when a worker and as much memory are free, until a stop.
    ///
    /// # Errors
    /// Those of the work, and a stop.
    pub async fn within<T>(
        &self,
        memory: u64,
        work: impl Future<Output = Result<T, VisError>>,
    ) -> Result<T, VisError> {
        let place = unless_stopped(&self.stop, self.pool.place(memory))
            .await
            .map_err(PoolError::from)??;
        let done = unless_stopped(&self.stop, work).await.map_err(PoolError::from)?;
        drop(place);
        done
    }
}
