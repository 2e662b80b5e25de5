//! The storage layer: all backends, credentials, errors and invalid servers.

mod atomic_file;
mod conformance;
mod credentials;
mod failures;
mod listings;
mod servers;
