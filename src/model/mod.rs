//! What the data is about: cases, the noleap calendar, grids. No I/O.

pub mod calendar;
pub mod case;

pub use calendar::YearMonth;
pub use case::{Case, CaseNameError, InterventionMonth};
