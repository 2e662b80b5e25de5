//! Storage.

mod conformance;
mod credentials;
mod failures;
mod listings;
mod servers;
mod staged;
