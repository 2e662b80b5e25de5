//! What this machine and this binary can do.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::version;
use crate::executor::memory;

/// What this machine and this binary can do.
#[derive(Debug, Serialize)]
pub(super) struct SystemInfo {
    pub cores: usize,
    /// Bytes that may be used before the kernel kills the process, where that is known.
    pub memory_limit: Option<u64>,
    pub netcdf_c: String,
    pub hdf5: String,
    pub deflate_filter: bool,
}

impl SystemInfo {
    pub fn find() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            memory_limit: memory::limit(),
            netcdf_c: version::netcdf_c(),
            hdf5: version::hdf5(),
            deflate_filter: version::deflate_filter(),
        }
    }
}
