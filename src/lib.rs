//! dor-atlas: CESM/POP history in, the research dataset of the DOR atlas out, on any object store.

pub mod cli;
pub mod config;
pub mod demo;
pub mod encode;
pub mod ledger;
pub mod model;
pub mod pipeline;
pub mod read;
pub mod research;
pub mod store;
pub mod synthetic;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
