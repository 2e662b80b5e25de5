//! Opening a location: which backend serves it.

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

/// Opens locations: one client for a bucket, one set of credentials for all.
#[derive(Clone)]
pub struct StoreRegistry {
    session: Arc<Session>,
    buckets: Arc<Mutex<HashMap<String, Arc<Bucket>>>>,
    until: Option<StopSignal>,
    /// Bytes of memory that a listing may take.
    listing: u64,
}

impl StoreRegistry {
    /// No request is made, and no file is read, before a store is used.
    pub fn new(options: S3Options) -> Self {
        let session = Arc::new(Session::new(options, None));
        Self { session, buckets: Arc::default(), until: None, listing: u64::MAX }
    }

    /// The same with credentials from `source`, wherever the options would look for them.
    pub fn with_credentials(options: S3Options, source: impl ProvideCredentials + 'static) -> Self {
        let source = SharedCredentialsProvider::new(source);
        let session = Arc::new(Session::new(options, Some(source)));
        Self { session, buckets: Arc::default(), until: None, listing: u64::MAX }
    }

    /// The same for a process that may take so many bytes of memory: a quarter of them for a listing of a
    /// bucket, which whoever asked for it then works on. A longer one is [`StoreError::ListingTooLong`].
    #[must_use]
    pub fn within(&self, memory: u64) -> Self {
        Self { listing: memory / 4, ..self.clone() }
    }

    /// The same for stores of which nothing is read any more over a network once a future that `stop`
    /// makes has ended: listings and reads that are under way fail with [`StoreError::Stopped`].
    #[must_use]
    pub fn until<F>(&self, stop: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let until: StopSignal = Arc::new(move || Box::pin(stop()));
        Self { until: Some(until), ..self.clone() }
    }

    /// A store rooted at `location`, which need not exist.
    pub fn open(&self, location: &Location) -> Result<Store, StoreError> {
        let refuse = |reason: String| {
            StoreError::BadLocation(LocationError { text: location.to_string(), reason })
        };
        let base = |root: ObjectPath| {
            let part_size = self.session.options.part_size();
            Base::new(location.clone(), root, part_size, self.until.clone(), self.listing)
        };
        let backend: Arc<dyn Backend> = match location.place() {
            Address::Memory { .. } => return Err(refuse("memory has no address".into())),
            Address::Local { path } => {
                let path = absolute(path).map_err(|error| refuse(error.to_string()))?;
                let root = ObjectPath::from_absolute_path(&path)
                    .map_err(|error| refuse(error.to_string()))?;
                Arc::new(LocalBackend::new(base(root)))
            }
            Address::S3 { bucket, prefix } => {
                let root = ObjectPath::parse(prefix).map_err(|error| refuse(error.to_string()))?;
                Arc::new(S3Backend { base: base(root), bucket: self.bucket(bucket) })
            }
            Address::Http { url } => {
                let client = HttpBuilder::new()
                    .with_url(url.as_str().trim_end_matches('/'))
                    .with_http_connector(self.session.connector(url, None)?)
                    .with_retry(self.session.retry())
                    .build()
                    .map_err(|error| refuse(error.to_string()))?;
                let (client, seen) = (Arc::new(client), Arc::clone(&self.session.seen));
                Arc::new(HttpBackend { base: base(ObjectPath::ROOT), client, seen })
            }
        };
        Ok(Store(backend))
    }

    fn bucket(&self, name: &str) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Bucket::new(name.to_owned(), Arc::clone(&self.session)));
        Arc::clone(buckets.entry(name.to_owned()).or_insert_with(make))
    }

    /// Until when the credentials for S3 are good; `None` when they do not expire or none are
    /// used. Loads them if they have not been.
    pub async fn credentials_expiry(&self) -> Result<Option<SystemTime>, StoreError> {
        self.session.expiry().await
    }
}

impl std::fmt::Debug for StoreRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("options", &self.session.options).finish_non_exhaustive()
    }
}

/// The path from the root, without `..` (which the library refuses), as the system would walk it.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut walked = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                walked = walked.canonicalize().unwrap_or(walked);
                walked.pop();
            }
            part => walked.push(part),
        }
    }
    Ok(walked)
}

/// A place to read and write objects below. Keys are relative to its location and separated by
/// `/`; no segment is empty, `.` or `..`.
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

    /// The store of the folder that this one is in; `None` for a root, a whole bucket, and where places have no
    /// folders above them.
    pub fn parent(&self) -> Option<Self> {
        self.backend().parent().map(Self)
    }

    /// This folder, or the nearest above it, in which an object has one of these names. What may not be looked
    /// at counts as without.
    pub async fn within(&self, names: &[&str]) -> Option<Location> {
        let mut next = Some(self.clone());
        while let Some(store) = next {
            for name in names {
                match store.backend().head(name).await {
                    Ok(_) => return Some(store.location().clone()),
                    Err(error) if error.is_not_found() => {}
                    Err(_) => return None,
                }
            }
            next = store.parent();
        }
        None
    }

    /// What was opened.
    pub fn location(&self) -> &Location {
        &self.backend().base().location
    }

    pub(super) fn url(&self, key: &str) -> String {
        self.backend().base().url(key)
    }

    pub(super) fn path(&self, key: &str) -> Result<ObjectPath, StoreError> {
        self.backend().path(key)
    }

    /// Bytes in a part of a large object that is written here.
    pub fn part_size(&self) -> usize {
        self.backend().part_size()
    }

    /// Bytes in a part of a multipart upload to S3 under these options: of such parts records have the
    /// MD5s, wherever the object lies.
    pub fn multipart_size(&self) -> u64 {
        self.backend().base().multipart_size as u64
    }

    /// Whether an object of this store can have a key.
    pub fn can_hold(&self, key: &str) -> bool {
        self.path(key).is_ok()
    }

    /// Refuses a store that cannot be written to.
    pub fn ensure_writable(&self) -> Result<(), StoreError> {
        self.backend().ensure_writable()
    }

    /// Whether this is at Source Cooperative, as far as its settings have been asked for.
    pub fn is_source_coop(&self) -> bool {
        self.backend().is_source_coop()
    }

    /// Whether an ETag that looks like an MD5 is one, as far as is known. It is not where the service encrypts by
    /// KMS.
    pub fn etag_is_md5(&self) -> bool {
        !self.backend().hides_md5()
    }

    /// How many requests to this service have failed so far; those that were sent again count.
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
    fn refuses_keys_that_no_store_should_hold() {
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
    fn a_key_is_below_the_root_and_its_slash() {
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
    fn walks_parents_through_symbolic_links() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(real.join("a/b")).unwrap();
        std::os::unix::fs::symlink(real.join("a/b"), real.join("link")).unwrap();
        assert_eq!(absolute(&real.join("link/../x")).unwrap(), real.join("a/x"));
        assert_eq!(absolute(&real.join("absent/../x")).unwrap(), real.join("x"));
    }
}
