//! `dor --version`: what this binary was built from, and the C libraries it runs with.

use std::ffi::CStr;
use std::io::{self, Write};

pub(super) fn write(out: &mut dyn Write) -> io::Result<()> {
    let features = match env!("DOR_FEATURES") {
        "" => "none",
        features => features,
    };
    writeln!(out, "dor {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "commit: {}", env!("DOR_COMMIT"))?;
    writeln!(out, "target: {}", env!("DOR_TARGET"))?;
    writeln!(out, "profile: {}", env!("DOR_PROFILE"))?;
    writeln!(out, "features: {features}")?;
    writeln!(out, "netCDF-C: {}", netcdf_c())?;
    writeln!(out, "HDF5: {}", hdf5())
}

/// Version of the netCDF-C library in use.
pub(super) fn netcdf_c() -> String {
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: takes nothing and returns a static string that ends with a zero byte.
    let text = unsafe { CStr::from_ptr(netcdf_sys::nc_inq_libvers()) }.to_string_lossy();
    // What follows is the date of its build: `4.9.0 of Jan  1 2023 12:00:00 $`.
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// Version of the HDF5 library in use.
pub(super) fn hdf5() -> String {
    let (mut major, mut minor, mut release) = (0, 0, 0);
    let _lock = hdf5_metno_sys::LOCK.lock();
    // SAFETY: the three pointers are valid for writes, and the library's lock is held.
    let status = unsafe {
        hdf5_metno_sys::h5::H5get_libversion(&raw mut major, &raw mut minor, &raw mut release)
    };
    if status < 0 { "unknown".to_owned() } else { format!("{major}.{minor}.{release}") }
}

/// Whether HDF5 can deflate, without which no research-grade file can be read back.
pub(super) fn deflate_filter() -> bool {
    let _lock = hdf5_metno_sys::LOCK.lock();
    // SAFETY: takes a number, and the library's lock is held.
    unsafe { hdf5_metno_sys::h5z::H5Zfilter_avail(hdf5_metno_sys::h5z::H5Z_FILTER_DEFLATE) > 0 }
}
