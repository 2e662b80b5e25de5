//! From raw history to the research-grade dataset: plan a case, then run the plan.

pub mod cases;
pub mod catalogue;
pub mod check;
mod claim;
pub mod convert;
mod error;
pub mod failures;
pub mod grid;
pub mod places;
pub mod plan;
mod recorded;
pub mod run;
pub mod verify;

pub use crate::encode::research::{RECIPE, folder};
pub use cases::Conversion;
pub use error::PlanError;
pub use grid::{GridError, GridFile};
pub use plan::{Plan, PlanOptions, plan};
pub use run::{CaseError, Environment, NoProgress, Progress, Summary, check_inputs, run};
