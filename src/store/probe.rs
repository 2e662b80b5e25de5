//! Trying a location out before work starts.

use std::time::{Duration, Instant};

use super::error::StoreError;
use super::registry::Store;

/// What came of trying a location out.
#[derive(Debug)]
pub struct ProbeReport {
    /// Whether there is such a folder on disk, or an object below the prefix. Always false over
    /// https, which cannot be listed.
    pub exists: bool,
    /// Why it cannot be read.
    pub readable: Result<(), StoreError>,
    /// Why it cannot be written; `None` when that was not tried. A folder that does not exist is
    /// writable when it can be made.
    pub writable: Option<Result<(), StoreError>>,
    /// Of the first request.
    pub round_trip: Duration,
}

impl Store {
    /// Tries to read and, if `write`, to write and remove a small object.
    pub async fn check(&self, write: bool) -> ProbeReport {
        let began = Instant::now();
        let read = self.backend().exists().await;
        let round_trip = began.elapsed();
        let writable = match write {
            false => None,
            true => Some(self.backend().probe().await),
        };
        let (exists, readable) = match read {
            Ok(exists) => (exists, Ok(())),
            Err(error) => (false, Err(error)),
        };
        ProbeReport { exists, readable, writable, round_trip }
    }
}
