//! Opens locations: creates the store and its backend.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;

use super::backend::Backend;
use super::base::{Base, StopSignal};
use super::bucket::{Bucket, Session};
use super::error::StoreError;
use super::http::HttpBackend;
use super::local::LocalBackend;
use super::location::{Address, Location, LocationError};
use super::memory::MemoryBackend;
use super::options::S3Options;
use super::s3::S3Backend;

/// Opens locations. All stores of a bucket share one client, and all buckets share the credentials.
#[derive(Clone)]
pub struct StoreRegistry {
    session: Arc<Session>,
    buckets: Arc<Mutex<HashMap<String, Arc<Bucket>>>>,
    /// `None` if reads are never stopped.
    stop_signal: Option<StopSignal>,
    /// Most bytes of memory that a listing may use.
    listing_memory: u64,
}

impl StoreRegistry {
    /// A registry with these options. It makes no request and reads no file before a store is used.
    pub fn new(options: S3Options) -> Self {
        let session = Arc::new(Session::new(options, None));
        Self { session, buckets: Arc::default(), stop_signal: None, listing_memory: u64::MAX }
    }

    /// A registry whose credentials come from `source` instead of the profile and the environment.
    pub fn with_credentials(options: S3Options, source: impl ProvideCredentials + 'static) -> Self {
        let source = SharedCredentialsProvider::new(source);
        let session = Arc::new(Session::new(options, Some(source)));
        Self { session, buckets: Arc::default(), stop_signal: None, listing_memory: u64::MAX }
    }

    /// A copy for a process with `memory` bytes of memory. A listing of a bucket may use a quarter of it;
    /// the rest is for the caller's work on the listing. A longer one is [`StoreError::ListingTooLong`].
    #[must_use]
    pub fn with_memory_limit(&self, memory: u64) -> Self {
        Self { listing_memory: memory / 4, ..self.clone() }
    }

    /// A copy whose stores stop reading over a network when a future of `stop` completes: running
    /// listings and reads then fail with [`StoreError::Stopped`].
    #[must_use]
    pub fn until<F>(&self, stop: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop_signal: StopSignal = Arc::new(move || Box::pin(stop()));
        Self { stop_signal: Some(stop_signal), ..self.clone() }
    }

    /// Opens a store at `location`, which need not exist.
    ///
    /// # Errors
    /// [`StoreError::BadLocation`] if the location is invalid, or [`StoreError::BadOption`] if a
    /// certificate file is.
    pub fn open(&self, location: &Location) -> Result<Store, StoreError> {
        let bad_location = |reason: String| {
            StoreError::BadLocation(LocationError { text: location.to_string(), reason })
        };
        let base = |root: ObjectPath| {
            let part_size = self.session.options.part_size();
            let stop_signal = self.stop_signal.clone();
            Base::new(location.clone(), root, part_size, stop_signal, self.listing_memory)
        };
        let backend: Arc<dyn Backend> = match location.address() {
            Address::Memory { .. } => {
                return Err(bad_location("a store in memory cannot be opened by location".into()));
            }
            Address::Local { path } => {
                let path = absolute(path).map_err(|error| bad_location(error.to_string()))?;
                let root = ObjectPath::from_absolute_path(&path)
                    .map_err(|error| bad_location(error.to_string()))?;
                Arc::new(LocalBackend::new(base(root)))
            }
            Address::S3 { bucket, prefix } => {
                let root =
                    ObjectPath::parse(prefix).map_err(|error| bad_location(error.to_string()))?;
                Arc::new(S3Backend { base: base(root), bucket: self.bucket(bucket) })
            }
            Address::Http { url } => {
                let client = HttpBuilder::new()
                    .with_url(url.as_str().trim_end_matches('/'))
                    .with_http_connector(self.session.connector(url, None)?)
                    .with_retry(self.session.retry())
                    .build()
                    .map_err(|error| bad_location(error.to_string()))?;
                let (client, stats) = (Arc::new(client), Arc::clone(&self.session.stats));
                Arc::new(HttpBackend { base: base(ObjectPath::ROOT), client, stats })
            }
        };
        Ok(Store(backend))
    }

    /// The bucket of this name, created on first use.
    fn bucket(&self, name: &str) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let create = || Arc::new(Bucket::new(name.to_owned(), Arc::clone(&self.session)));
        Arc::clone(buckets.entry(name.to_owned()).or_insert_with(create))
    }

    /// When the credentials for S3 expire; `None` if they do not expire or requests are unsigned. Loads
    /// the credentials on first use.
    ///
    /// # Errors
    /// [`StoreError::Credentials`] if they cannot be loaded.
    pub async fn credentials_expiry(&self) -> Result<Option<SystemTime>, StoreError> {
        self.session.expiry().await
    }
}

impl std::fmt::Debug for StoreRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreRegistry")
            .field("options", &self.session.options)
            .finish_non_exhaustive()
    }
}

/// The absolute path without `..`, which `object_store` rejects. Resolves the symbolic link before a
/// `..`, as the system does.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut resolved = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                resolved = resolved.canonicalize().unwrap_or(resolved);
                resolved.pop();
            }
            part => resolved.push(part),
        }
    }
    Ok(resolved)
}

/// A location in which objects are read and written. Keys are relative to the location, with `/` as
/// separator; no segment is empty, `.` or `..`. Clones share the backend.
#[derive(Clone)]
pub struct Store(Arc<dyn Backend>);

impl Store {
    /// An empty store in memory, for tests; its clones share the contents.
    pub fn memory() -> Self {
        let part_size = S3Options::default().part_size();
        let base = Base::new(Location::memory(), ObjectPath::ROOT, part_size, None, u64::MAX);
        Self(Arc::new(MemoryBackend::new(base)))
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        &*self.0
    }

    /// The store of the parent folder; `None` for a root, a whole bucket, https and memory.
    pub fn parent(&self) -> Option<Self> {
        self.backend().parent().map(Self)
    }

    /// The closest folder, from this one upwards, that has an object with one of these names. `None` if
    /// there is no such folder, or if a request fails.
    pub async fn enclosing(&self, names: &[&str]) -> Option<Location> {
        let mut current = Some(self.clone());
        while let Some(store) = current {
            for name in names {
                match store.backend().head(name).await {
                    Ok(_) => return Some(store.location().clone()),
                    Err(error) if error.is_not_found() => {}
                    Err(_) => return None,
                }
            }
            current = store.parent();
        }
        None
    }

    /// The location of the store.
    pub fn location(&self) -> &Location {
        &self.backend().base().location
    }

    /// The whole URL or path of an object, for messages.
    pub(super) fn url(&self, key: &str) -> String {
        self.backend().base().url(key)
    }

    pub(super) fn path(&self, key: &str) -> Result<ObjectPath, StoreError> {
        self.backend().path(key)
    }

    /// Size in bytes of a part of a large object in this store.
    pub fn part_size(&self) -> usize {
        self.backend().part_size()
    }

    /// Size in bytes of a part of an S3 multipart upload under the options of the registry. Records have
    /// the MD5s of parts of this size, also for objects on disk.
    pub fn multipart_size(&self) -> u64 {
        self.backend().base().multipart_size as u64
    }

    /// Whether `key` is a valid key of this store.
    pub fn can_hold(&self, key: &str) -> bool {
        self.path(key).is_ok()
    }

    /// Checks that the store supports writes.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`] over https.
    pub fn ensure_writable(&self) -> Result<(), StoreError> {
        self.backend().ensure_writable()
    }

    /// Whether the store is at Source Cooperative. False until the S3 settings have been resolved, which
    /// the first request does.
    pub fn is_source_coop(&self) -> bool {
        self.backend().is_source_coop()
    }

    /// Whether an ETag in the form of an MD5 is the MD5 of the object. False after a response that shows
    /// encryption by KMS or by a key of the client.
    pub fn etag_is_md5(&self) -> bool {
        !self.backend().hides_md5()
    }

    /// Number of requests to this service that have failed so far, including those that were retried.
    pub fn failures(&self) -> u64 {
        self.backend().failures()
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.location())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_invalid_keys() {
        let disk =
            StoreRegistry::new(S3Options::default()).open(&"/data".parse().unwrap()).unwrap();
        for key in ["", "/a", "a/", "a//b", "../a", "a/./b", "a\nb"] {
            let error = disk.path(key).unwrap_err();
            assert!(matches!(error, StoreError::BadKey { .. }), "{key}: {error}");
        }
        assert!(disk.path("a#1").is_err());
        assert!(Store::memory().path("a#1").is_ok());
        assert_eq!(disk.path("a b/c%20#x").unwrap().as_ref(), "data/a b/c%20#x");
    }

    #[test]
    fn a_key_is_relative_to_the_root() {
        let at = |root: &str| StoreRegistry::new(S3Options::default()).open(&root.parse().unwrap());
        let key = |root: &str, path: &str| {
            at(root).unwrap().backend().base().key(&ObjectPath::from(path))
        };
        assert_eq!(key("s3://b/data", "data/x/y"), Some("x/y".to_owned()));
        assert_eq!(key("s3://b", "data/x"), Some("data/x".to_owned()));
        for other in ["database/x", "data", "other/x"] {
            assert_eq!(key("s3://b/data", other), None, "{other}");
        }
    }

    #[test]
    fn resolves_parents_through_symbolic_links() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("a/b")).unwrap();
        std::os::unix::fs::symlink(real.join("a/b"), real.join("link")).unwrap();
        assert_eq!(absolute(&real.join("link/../x")).unwrap(), real.join("a/x"));
        assert_eq!(absolute(&real.join("absent/../x")).unwrap(), real.join("x"));
    }
}
