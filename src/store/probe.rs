//! Test of a location before work starts.

use std::time::{Duration, Instant};

use super::error::StoreError;
use super::registry::Store;

/// Result of testing a location.
#[derive(Debug)]
pub struct ProbeReport {
    /// Whether the folder exists on disk, or the prefix has an object. Always false over https, which
    /// has no listings.
    pub exists: bool,
    /// Whether the location can be read, or why not.
    pub readable: Result<(), StoreError>,
    /// Whether the location can be written, or why not; `None` if the test was for reading only. A
    /// folder that does not exist is writable if it can be created.
    pub writable: Option<Result<(), StoreError>>,
    /// Duration of the first request.
    pub round_trip: Duration,
}

impl Store {
    /// Tests the location: lists it and, if `write`, writes and removes a small object.
    pub async fn check(&self, write: bool) -> ProbeReport {
        let start = Instant::now();
        let listed = self.backend().exists().await;
        let round_trip = start.elapsed();
        let writable = match write {
            false => None,
            true => Some(self.backend().probe().await),
        };
        let (exists, readable) = match listed {
            Ok(exists) => (exists, Ok(())),
            Err(error) => (false, Err(error)),
        };
        ProbeReport { exists, readable, writable, round_trip }
    }
}
