//! Trying a location out before work starts.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::blocking::blocking;
use super::error::StoreError;
use super::limit::open_file;
use super::open::{Backend, Store};
use super::staged::{self, Staged};

/// What came of trying a location out.
#[derive(Debug)]
pub struct Check {
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
    pub async fn check(&self, write: bool) -> Check {
        let began = Instant::now();
        let read = self.peek().await;
        let round_trip = began.elapsed();
        let writable = match write {
            false => None,
            true => Some(self.probe().await),
        };
        let (exists, readable) = match read {
            Ok(exists) => (exists, Ok(())),
            Err(error) => (false, Err(error)),
        };
        Check { exists, readable, writable, round_trip }
    }

    async fn peek(&self) -> Result<bool, StoreError> {
        if let Some(folder) = self.folder("")? {
            self.refuse_odd("")?;
            let url = self.location().to_string();
            let look = move || match std::fs::read_dir(&folder) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                    open_file(&folder).map(|_| true)
                }
                Err(error) => Err(error),
            };
            return blocking(&url, "read", look).await;
        }
        match self.backend() {
            Backend::Http(..) => Ok(false),
            _ => self.has_any("").await,
        }
    }

    async fn probe(&self) -> Result<(), StoreError> {
        if let Some(folder) = self.folder("")? {
            let try_out = move || {
                let there = folder.ancestors().find(|folder| folder.exists());
                Staged::create(&there.unwrap_or(Path::new("/")).join("dor-probe")).map(drop)
            };
            return blocking(&self.location().to_string(), "write", try_out).await;
        }
        let key = format!(".dor-probe-{}-{}", staged::plain_host(), std::process::id());
        self.put(&key, Bytes::from_static(b"dor setup-environment\n")).await?;
        self.delete(&key).await
    }
}
