//! dor-atlas: CESM/POP history in, the research dataset of the DOR atlas out, on any object store.
//!
//! The `dor` program is a thin [`cli`] over this library. Data goes one way:
//!
//! ```text
//!   archive of raw history                                    research dataset
//!         |                                                          ^
//!      [store]  ranged reads, fetched ahead      parts, in any order [store]
//!         |                                                          |
//!       [read]  bytes -> model                       model -> bytes [encode]
//!         |                                                          ^
//!         +---> [research::convert]  one file in, one file out ------+
//!                       ^
//!                  [pipeline]  bounded workers and memory; the one border of async and CPU work
//!                       ^
//!                  [research]  plan a case, then run the plan; [ledger] knows what is done
//! ```
//!
//! The stores of the public map come from the same files, raw or research-grade, read by range:
//!
//! ```text
//!   [read] -> [derive]  inventories, anomalies, efficiency, uptake -> [regrid]  onto the map
//!                 \__________________ [vis]  a case's part of each store __/
//!                                        |
//!                          [encode::zarr] -> [store], and [plot] to look at it
//! ```
//!
//! [`batch`] makes all of it from one reading of each raw file, for many cases on many nodes.
//!
//! [`model`] says what the data is about and does no I/O; [`store`] is the one module that knows
//! `object_store`; [`config`] resolves settings; [`synthetic`] and [`demo`] make input.

pub mod batch;
pub mod cli;
pub mod config;
pub mod demo;
pub mod derive;
pub mod encode;
pub mod ledger;
pub mod model;
pub mod pipeline;
pub mod plot;
pub mod publish;
pub mod read;
pub mod regrid;
pub mod research;
pub mod store;
pub mod synthetic;
pub mod vis;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
