//! Processing of many cases on many nodes. An engine such as Slurm distributes the work; the object
//! store holds all state.
//!
//! A [`CampaignPlan`], made from a `draft`, says which products of which cases to make; it never
//! changes. Each node takes the cases of its [`Shard`] in a [`run`], makes all products of a case in
//! `case_pipeline`, and reports in a `heartbeat`. [`status`] compares the results with the plan.

pub(crate) mod case_pipeline;
mod comparison;
pub(crate) mod draft;
mod error;
pub(crate) mod finalize;
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
