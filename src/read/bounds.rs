//! Limits for headers of untrusted files, and the memory that a conversion needs.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ReadError;
use crate::model::dataset::{Header, Variable};
use crate::model::time_units;

/// Longest header in bytes: of one HDF5 object, or of a classic file.
pub(super) const LONGEST_HEADER: usize = 4 << 20;
/// Problem of a header that is longer than [`LONGEST_HEADER`].
pub(super) const TOO_LONG: &str = "more than 4 MiB of dimensions, attributes and variables";

/// Calls the reading library and turns a panic into [`ReadError::Damaged`].
///
/// The library panics on some kinds of damage that it does not expect.
pub(super) fn catch_reader_panic<T>(
    url: &str,
    read: impl FnOnce() -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let problem = "the NetCDF reader failed on unexpected content".to_owned();
        Err(ReadError::damaged(url, netcdf_reader::Error::InvalidData(problem)))
    })
}

/// The error for a header that claims an implausible amount; `problem` is the object of the verb.
pub(super) fn implausible_header(url: &str, problem: &str) -> ReadError {
    ReadError::damaged(
        url,
        netcdf_reader::Error::InvalidData(format!("its header claims {problem}")),
    )
}

/// Bytes of memory that the conversion of a NetCDF-4 file of `size` bytes takes.
///
/// The sum counts the input file as stored, an output of the same size, all small variables, and
/// three copies of the largest variable: as read, shuffled, and deflated.
pub(super) fn memory(header: &Header, size: u64) -> u64 {
    let sizes = || header.variables.iter().map(|v| (v, v.bytes() as u64));
    let largest = sizes().map(|(_, bytes)| bytes).max().unwrap_or_default();
    let small = sizes()
        .filter(|(v, _)| is_small(header, v))
        .fold(0, |sum: u64, (_, bytes)| sum.saturating_add(bytes));
    size.saturating_mul(2).saturating_add(small).saturating_add(largest.saturating_mul(3))
}

/// Whether a conversion keeps the data of the variable in memory until the output file is defined.
///
/// These are variables that do not vary with time, variables that are not floats, the time and its
/// bounds.
pub fn is_small(header: &Header, variable: &Variable) -> bool {
    let is_time = || {
        let bounds = time_units::time_bounds(header);
        variable.name == "time" || bounds.is_some_and(|bounds| bounds.name == variable.name)
    };
    !variable.has_leading_dim("time") || !variable.dtype.is_float() || is_time()
}
