//! `dor plan`, `run`, `status`, `finalize` and `slurm`: many cases on many nodes.

mod finalize;
mod plan;
mod run;
mod slurm;
mod status;

pub(super) use finalize::Finalize;
pub(super) use plan::Plan;
pub(super) use run::Run;
pub(super) use slurm::Slurm;
pub(super) use status::Status;

use crate::store::{Location, Store, StoreError, Stores};
use crate::vis::VisError;

/// The store and the key of a plan's location.
fn plan_file(stores: &Stores, plan: &Location) -> Result<(Store, String), VisError> {
    match (plan.parent(), plan.file_name()) {
        (Some(folder), Some(name)) => {
            let open = || -> Result<_, StoreError> { Ok((stores.open(&folder)?, name.to_owned())) };
            Ok(open()?)
        }
        _ => Err(VisError::Needs(format!("{plan} is a folder: name the file of the plan"))),
    }
}
