//! What no file is believed beyond, whatever its form; and what a conversion needs of memory.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ReadError;
use crate::model::dataset::{Header, Variable};
use crate::model::time_units;

/// The most that the header of one object may take; a classic file's header as a whole.
pub(super) const LONGEST_HEADER: usize = 4 << 20;
/// What is wrong with a header that does not end.
pub(super) const TOO_LONG: &str = "more than 4 MiB of dimensions, attributes and variables";

/// Does work of the reading library; a panic there is damage of the file, which it did not expect.
pub(super) fn guarded<T>(
    url: &str,
    work: impl FnOnce() -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let problem = "the reader does not know what to make of it".to_owned();
        Err(ReadError::damaged(url, netcdf_reader::Error::InvalidData(problem)))
    })
}

/// A header that claims more than any file has.
pub(super) fn claims(url: &str, problem: &str) -> ReadError {
    ReadError::damaged(
        url,
        netcdf_reader::Error::InvalidData(format!("its header claims {problem}")),
    )
}

/// Bytes of memory that the conversion of a NetCDF-4 file of `size` bytes takes: the file as it is
/// stored, the result, the small variables, and the largest as it is read, in planes, and deflated.
pub(super) fn memory(header: &Header, size: u64) -> u64 {
    let bytes = || header.variables.iter().map(|v| (v, v.bytes() as u64));
    let largest = bytes().map(|(_, bytes)| bytes).max().unwrap_or_default();
    let small = bytes()
        .filter(|(v, _)| is_small(header, v))
        .fold(0, |sum: u64, (_, n)| sum.saturating_add(n));
    size.saturating_mul(2).saturating_add(small).saturating_add(largest.saturating_mul(3))
}

/// Whether a conversion keeps the variable until the file is defined: what does not vary with
/// time, the times, and what is not stored in chunks.
pub fn is_small(header: &Header, variable: &Variable) -> bool {
    let is_time = || {
        let bounds = time_units::time_bounds(header);
        variable.name == "time" || bounds.is_some_and(|bounds| bounds.name == variable.name)
    };
    !variable.has_leading_dim("time") || !variable.dtype.is_float() || is_time()
}
