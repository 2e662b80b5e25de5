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

    /// Why a location without files is not the one that was meant: it does not exist, or it is an empty
    /// folder, such as the place of a file system that is not mounted. `None` for any other.
    ///
    /// # Errors
    /// The location cannot be read.
    pub async fn absence(&self) -> Result<Option<&'static str>, StoreError> {
        let report = self.check(false).await;
        report.readable?;
        let is_local = self.location().is_local();
        let is_empty = async || {
            let has_folders = !self.list_folders("").await?.is_empty();
            Ok::<_, StoreError>(!has_folders && self.list_with_delimiter("").await?.is_empty())
        };
        Ok(match (report.exists, is_local) {
            (true, true) if is_empty().await? => Some("the folder is empty"),
            (true, _) => None,
            (false, true) => Some("there is no such folder"),
            (false, false) => Some("there is no object below it"),
        })
    }
}
