//! Many cases on many nodes. Engines such as Slurm distribute the work; the object store holds all
//! state.
//!
//! A [`Plan`], made from a [`draft`], says what is to be done and never changes. Each node takes the cases of
//! its [`Shard`] in a [`run`] and makes all products of a case in [`one_pass`], telling of itself in a
//! [`mark`]; [`status`] tells how far all are.

pub mod draft;
mod error;
pub mod mark;
pub mod one_pass;
mod opened;
mod places;
mod plan;
pub mod run;
mod shard;
pub mod slurm;
mod stage;
pub mod status;

pub use error::PlanFileError;
pub use one_pass::StageError;
pub use opened::Opened;
pub use places::Places;
pub use plan::{Givens, Plan, Planned};
pub use shard::{Shard, ShardError};
pub use stage::Stage;
