//! `dor plan`, `run`, `status`, `finalize` and `slurm`: many cases on many nodes.

mod arguments;
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
