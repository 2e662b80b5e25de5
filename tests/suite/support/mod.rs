//! What several tests need.

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

/// Says so past the test runner, which would keep the words of a test that passes to itself.
pub fn skipped(why: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {why}").unwrap();
}
