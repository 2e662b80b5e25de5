//! From raw history to the research-grade dataset: plan a case, then run the plan.

pub mod catalogue;
pub mod check;
mod claim;
pub mod convert;
mod error;
pub mod plan;
mod recorded;
pub mod run;
pub mod verify;

pub use crate::encode::research::{RECIPE, folder};
pub use error::PlanError;
pub use plan::{Plan, PlanOptions, plan};
pub use run::{CaseError, Environment, Progress, Summary, check_inputs, run};
