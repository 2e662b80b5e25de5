//! `dor --version`: commit, target, profile and features of the build, and versions of the C libraries.

use std::ffi::CStr;
use std::io::{self, Write};

/// Prints the version, the build and the versions of the C libraries.
pub(super) fn write(out: &mut dyn Write) -> io::Result<()> {
    let features = match env!("BUILD_FEATURES") {
        "" => "none",
        features => features,
    };
    writeln!(out, "dor {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "commit: {}", env!("BUILD_COMMIT"))?;
    writeln!(out, "target: {}", env!("BUILD_TARGET"))?;
    writeln!(out, "profile: {}", env!("BUILD_PROFILE"))?;
    writeln!(out, "features: {features}")?;
    writeln!(out, "netCDF-C: {}", netcdf_c())?;
    writeln!(out, "HDF5: {}", hdf5())
}

/// Returns the version of the netCDF-C library.
pub(super) fn netcdf_c() -> String {
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: the function has no arguments and returns a static, null-terminated string.
    let text = unsafe { CStr::from_ptr(netcdf_sys::nc_inq_libvers()) }.to_string_lossy();
    // The date of the build follows the version: `4.9.0 of Jan  1 2023 12:00:00 $`.
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// Returns the version of the HDF5 library.
pub(super) fn hdf5() -> String {
    let (mut major, mut minor, mut release) = (0, 0, 0);
    let _lock = hdf5_metno_sys::LOCK.lock();
    // SAFETY: the three pointers are valid for writes, and the global lock of HDF5 is held.
    let status = unsafe {
        hdf5_metno_sys::h5::H5get_libversion(&raw mut major, &raw mut minor, &raw mut release)
    };
    if status < 0 { "unknown".to_owned() } else { format!("{major}.{minor}.{release}") }
}

/// Whether HDF5 has the deflate filter, which reading research-grade files needs.
pub(super) fn deflate_filter() -> bool {
    let _lock = hdf5_metno_sys::LOCK.lock();
    // SAFETY: the argument is a number, and the global lock of HDF5 is held.
    unsafe { hdf5_metno_sys::h5z::H5Zfilter_avail(hdf5_metno_sys::h5z::H5Z_FILTER_DEFLATE) > 0 }
}
