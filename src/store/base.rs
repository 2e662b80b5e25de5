//! The location of a store, to which its keys are relative, and the settings of its requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use object_store::path::Path as ObjectPath;

use super::error::StoreError;
use super::error_chain::with_causes;
use super::location::Location;
use super::skipped::{SkipCounts, SkipLog};

/// Returns a future that completes when reads must stop.
pub(super) type StopSignal = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The location of a store and the settings that its backends share.
pub(super) struct Base {
    pub location: Location,
    /// Path of the location in `object_store`.
    pub root: ObjectPath,
    /// Size in bytes of a part of an S3 multipart upload.
    pub multipart_size: usize,
    /// `None` if reads are never stopped.
    pub stop_signal: Option<StopSignal>,
    /// Most bytes of memory that a listing may use.
    pub listing_memory: u64,
    /// Entries that the listings have skipped.
    skip_counts: Mutex<SkipCounts>,
}

impl Base {
    pub(super) fn new(
        location: Location,
        root: ObjectPath,
        multipart_size: usize,
        stop_signal: Option<StopSignal>,
        listing_memory: u64,
    ) -> Self {
        let skip_counts = Mutex::default();
        Self { location, root, multipart_size, stop_signal, listing_memory, skip_counts }
    }

    /// The base of the parent folder; `None` for a root and a whole bucket.
    pub(super) fn parent(&self) -> Option<Self> {
        let location = self.location.parent()?;
        let parts: Vec<_> = self.root.parts().collect();
        let (_, parent) = parts.split_last()?;
        let root = ObjectPath::from_iter(parent.iter().cloned());
        let stop_signal = self.stop_signal.clone();
        Some(Self::new(location, root, self.multipart_size, stop_signal, self.listing_memory))
    }

    /// The whole URL or path of an object, for messages.
    pub(super) fn url(&self, key: &str) -> String {
        self.location.join(key).to_string()
    }

    /// The `object_store` path of a folder; `""` is the root.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] if the path has an empty segment or an invalid character.
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

    /// The key of an `object_store` path; `None` for the root itself and for paths outside it.
    pub(super) fn key(&self, path: &ObjectPath) -> Option<String> {
        let key = match self.root.as_ref() {
            "" => path.as_ref(),
            root => path.as_ref().strip_prefix(root)?.strip_prefix('/')?,
        };
        (!key.is_empty()).then(|| key.to_owned())
    }

    /// The error for a write over https.
    pub(super) fn read_only(&self) -> StoreError {
        let detail = "https locations cannot be written; use a path or s3://".to_owned();
        StoreError::ReadOnly { url: self.location.to_string(), detail }
    }

    /// Entries that the listings of this store have skipped.
    pub(super) fn skip_counts(&self) -> MutexGuard<'_, SkipCounts> {
        self.skip_counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the entries that one listing has skipped.
    pub(super) fn record_skipped(&self, skipped: SkipLog) {
        self.skip_counts().add(skipped);
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let counts = self.skip_counts.get_mut().unwrap_or_else(PoisonError::into_inner);
        counts.warn_new(&self.location);
    }
}
