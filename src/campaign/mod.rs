//! Many cases on many nodes. Engines such as Slurm distribute the work; the object store holds all
//! state.
//!
//! A [`CampaignPlan`], made from a `draft`, says what is to be done and never changes. Each node takes the cases of
//! its [`Shard`] in a [`run`] and makes all products of a case in `case_pipeline`, telling of itself in a
//! `heartbeat`; [`status`] tells how far all are.

pub(crate) mod case_pipeline;
pub(crate) mod draft;
mod error;
pub(crate) mod heartbeat;
mod locations;
mod open_plan;
mod plan;
mod product;
pub mod run;
mod shard;
pub mod slurm;
pub mod status;

pub use case_pipeline::ProductError;
pub use error::PlanFileError;
pub use locations::Locations;
pub use open_plan::OpenPlan;
pub use plan::{CampaignPlan, InputFingerprints, PlannedCase};
pub use product::Product;
pub use shard::{Shard, ShardIndexError};
