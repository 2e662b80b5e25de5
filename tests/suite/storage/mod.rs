//! Storage.

mod conformance;
mod credentials;
mod failures;
mod staged;
