//! Helpers that several test modules share.

use std::io::Write;

pub mod case;
pub mod dor;
pub mod minio;
pub mod netcdf;
pub mod proxy;
pub mod s3;
pub mod scripted;
pub mod shared;
pub mod shim;
pub mod slurm;
pub mod source_coop;
pub mod tmux;
pub mod web;

/// Prints `SKIPPED: reason` to standard error. The test runner does not capture this output, so it is
/// seen even if the test passes.
pub fn skipped(reason: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {reason}").unwrap();
}
