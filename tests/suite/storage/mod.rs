//! Storage.

mod atomic_file;
mod conformance;
mod credentials;
mod failures;
mod listings;
mod servers;
