//! Resources of the machine and versions of the C libraries.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::version;
use crate::executor::memory;

/// Resources of the machine and versions of the C libraries, for `dor setup-environment`.
#[derive(Debug, Serialize)]
pub(super) struct SystemInfo {
    /// Number of cores that the process may use.
    pub cores: usize,
    /// Memory limit of the process, in bytes. `None`: not known.
    pub memory_limit: Option<u64>,
    /// Version of netCDF-C.
    pub netcdf_c: String,
    /// Version of HDF5.
    pub hdf5: String,
    /// Whether HDF5 has the deflate filter.
    pub deflate_filter: bool,
}

impl SystemInfo {
    /// Reads the resources and versions of this process.
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
