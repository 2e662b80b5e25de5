//! dor-atlas: CESM/POP history in, the research dataset of the DOR atlas out, on any object store.

pub mod cli;
pub mod config;
pub mod model;
pub mod store;
pub mod synthetic;
