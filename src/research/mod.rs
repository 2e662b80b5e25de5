//! From raw history to the research-grade dataset.

pub mod convert;
