//! The domain model: cases, the noleap calendar, grids, NetCDF metadata and checksums. No I/O.

pub(crate) mod atlas;
pub mod calendar;
pub mod case;
pub mod cf;
pub(crate) mod checksums;
pub mod dataset;
mod error_kind;
pub mod grid;
pub(crate) mod similar;
pub(crate) mod time_units;
pub mod units;

pub use calendar::YearMonth;
pub use case::{Case, CaseNameError, InterventionMonth};
pub use checksums::{Checksums, ETag, Md5Digest, PartHasher, Parts};
pub use error_kind::{ErrorKind, IoCause, WithErrorKind};
pub use grid::{Grid, LatLon};

/// Bytes in lower-case hexadecimal, the notation of checksums.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
