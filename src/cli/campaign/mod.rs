//! `dor plan`, `run`, `status`, `finalize` and `slurm`: campaigns of many cases on many nodes.

mod arguments;
mod finalize;
mod plan;
mod run;
mod slurm;
mod status;

pub(super) use finalize::{Finalize, finalize};
pub(super) use plan::{CORES, Plan, node_rate, write_plan};
pub(super) use run::{Run, work};
pub(super) use slurm::Slurm;
pub(super) use status::Status;
