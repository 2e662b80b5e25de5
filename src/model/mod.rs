//! What the data is about: cases, the noleap calendar, grids. No I/O.

pub mod atlas;
pub mod calendar;
pub mod case;
pub mod cf;
pub mod clock;
pub mod dataset;
pub mod entry;
pub mod grid;
mod kind;
pub mod units;

pub use calendar::YearMonth;
pub use case::{Case, CaseNameError, InterventionMonth};
pub use entry::{Checksums, Digest, ETag, PartHasher, Parts};
pub use grid::{Grid, Place};
pub use kind::{ErrorKind, IoCause, Kinded};

/// Bytes in lower-case hexadecimal, as checksums are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
