//! Conversion of raw history into the research-grade dataset.
//!
//! [`plan`](fn@plan) finds out which files of a case to convert, [`run`] converts them.

pub(crate) mod case_error;
pub(crate) mod cases;
mod claim;
pub mod convert;
mod error;
pub mod execute;
pub(crate) mod failures;
mod file_parts;
pub(crate) mod grid;
pub(crate) mod locations;
pub mod plan;
mod recorded;
pub(crate) mod status;
mod timing;
pub mod validate;
pub(crate) mod verify;

pub use crate::encode::research::{RECIPE, folder};
pub use case_error::CaseError;
pub use cases::Conversion;
pub use error::PlanError;
pub use execute::{
    CheckedInputs, ConversionContext, ConversionProgress, ConversionSummary, FilesInProgress,
    NoProgress, check_inputs, run,
};
pub use grid::{GridError, GridFile};
pub use plan::{CasePlan, PlanOptions, plan};
