//! What a store's keys are relative to, and what its requests have in common.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use object_store::path::Path as ObjectPath;

use super::error::StoreError;
use super::error_chain::with_causes;
use super::location::Location;
use super::skipped::{SkipCounts, SkipLog};

/// Makes a future that ends when nothing is to be read any more.
pub(super) type StopSignal = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

pub(super) struct Base {
    pub location: Location,
    /// What the library calls it.
    pub root: ObjectPath,
    /// Bytes in a part of an upload to S3 under the options in force.
    pub multipart_size: usize,
    pub until: Option<StopSignal>,
    /// Bytes of memory that a listing may take.
    pub listing: u64,
    passed: Mutex<SkipCounts>,
}

impl Base {
    pub(super) fn new(
        location: Location,
        root: ObjectPath,
        multipart_size: usize,
        until: Option<StopSignal>,
        listing: u64,
    ) -> Self {
        Self { location, root, multipart_size, until, listing, passed: Mutex::default() }
    }

    /// That of the folder that this one is in; `None` for a root and a whole bucket.
    pub(super) fn parent(&self) -> Option<Self> {
        let location = self.location.parent()?;
        let parts: Vec<_> = self.root.parts().collect();
        let (_, above) = parts.split_last()?;
        let root = ObjectPath::from_iter(above.iter().cloned());
        Some(Self::new(location, root, self.multipart_size, self.until.clone(), self.listing))
    }

    pub(super) fn url(&self, key: &str) -> String {
        self.location.join(key).to_string()
    }

    /// The path of a folder, which may be the root.
    pub(super) fn prefix(&self, prefix: &str) -> Result<ObjectPath, StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let whole = match (self.root.as_ref(), prefix) {
            (root, "") => root.to_owned(),
            ("", prefix) => prefix.to_owned(),
            (root, prefix) => format!("{root}/{prefix}"),
        };
        ObjectPath::parse(&whole).map_err(|error| StoreError::BadKey {
            url: self.url(prefix),
            reason: with_causes(&error),
        })
    }

    /// The key of what the library calls `path`; `None` for the root itself.
    pub(super) fn key(&self, path: &ObjectPath) -> Option<String> {
        let key = match self.root.as_ref() {
            "" => path.as_ref(),
            root => path.as_ref().strip_prefix(root)?.strip_prefix('/')?,
        };
        (!key.is_empty()).then(|| key.to_owned())
    }

    pub(super) fn read_only(&self) -> StoreError {
        let detail = "https cannot be written to; use a path or s3://".to_owned();
        StoreError::ReadOnly { url: self.location.to_string(), detail }
    }

    pub(super) fn passed(&self) -> MutexGuard<'_, SkipCounts> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_passed(&self, noted: SkipLog) {
        self.passed().note(noted);
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let passed = self.passed.get_mut().unwrap_or_else(PoisonError::into_inner);
        passed.tell(&self.location);
    }
}
