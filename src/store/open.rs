//! Opening a location: which backend serves it, and how its failures are told.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::http::{HttpBuilder, HttpStore};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;

use super::connect::Seen;
use super::error::{CredentialsProblem, StoreError};
use super::error_chain::with_causes;
use super::failure::{self, Site};
use super::location::{Location, LocationError, Place};
use super::options::S3Options;
use super::passed::{Noted, Passed, PassedOver};
use super::s3::{Bucket, Session};

/// Part of a large object on disk: a part costs no request there, and small ones less memory.
const DISK_PART: usize = 2 << 20;

/// Opens locations: one client for a bucket, one set of credentials for all.
#[derive(Clone)]
pub struct Stores {
    session: Arc<Session>,
    buckets: Arc<Mutex<HashMap<String, Arc<Bucket>>>>,
    until: Option<Until>,
    /// Bytes of memory that a listing may take.
    listing: u64,
}

/// Makes a future that ends when nothing is to be read any more.
type Until = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

impl Stores {
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
        let until: Until = Arc::new(move || Box::pin(stop()));
        Self { until: Some(until), ..self.clone() }
    }

    /// A store rooted at `location`, which need not exist.
    pub fn open(&self, location: &Location) -> Result<Store, StoreError> {
        let refuse = |reason: String| {
            StoreError::BadLocation(LocationError { text: location.to_string(), reason })
        };
        let (backend, root) = match location.place() {
            Place::Memory { .. } => return Err(refuse("memory has no address".into())),
            Place::Local { path } => {
                let path = absolute(path).map_err(|error| refuse(error.to_string()))?;
                let root = ObjectPath::from_absolute_path(&path)
                    .map_err(|error| refuse(error.to_string()))?;
                (Backend::Local(Arc::new(LocalFileSystem::new())), root)
            }
            Place::S3 { bucket, prefix } => {
                let root = ObjectPath::parse(prefix).map_err(|error| refuse(error.to_string()))?;
                (Backend::S3(self.bucket(bucket)), root)
            }
            Place::Http { url } => {
                let client = HttpBuilder::new()
                    .with_url(url.as_str().trim_end_matches('/'))
                    .with_http_connector(self.session.connector(url, None)?)
                    .with_retry(self.session.retry())
                    .build()
                    .map_err(|error| refuse(error.to_string()))?;
                let seen = Arc::clone(&self.session.seen);
                (Backend::Http(Arc::new(client), seen), ObjectPath::ROOT)
            }
        };
        let multipart_size = self.session.options.part_size();
        let part_size = match backend {
            Backend::Local(_) => DISK_PART,
            _ => multipart_size,
        };
        let (until, listing) = (self.until.clone(), self.listing);
        let (location, passed) = (location.clone(), Mutex::default());
        let sizes = (part_size, multipart_size);
        Ok(Store(Arc::new(Opened { location, root, backend, sizes, until, listing, passed })))
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

impl std::fmt::Debug for Stores {
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
pub struct Store(Arc<Opened>);

struct Opened {
    location: Location,
    root: ObjectPath,
    backend: Backend,
    /// Bytes in a part of an object that is written here, and in one of an upload to S3.
    sizes: (usize, usize),
    until: Option<Until>,
    listing: u64,
    passed: Mutex<Passed>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let passed = self.passed.get_mut().unwrap_or_else(PoisonError::into_inner);
        passed.tell(&self.location);
    }
}

pub(super) enum Backend {
    Memory(Arc<InMemory>),
    Local(Arc<LocalFileSystem>),
    S3(Arc<Bucket>),
    Http(Arc<HttpStore>, Arc<Seen>),
}

impl Store {
    /// An empty store in memory, for tests; its clones share the contents.
    pub fn memory() -> Self {
        Self(Arc::new(Opened {
            location: Location::memory(),
            root: ObjectPath::ROOT,
            backend: Backend::Memory(Arc::new(InMemory::new())),
            sizes: [S3Options::default().part_size(); 2].into(),
            until: None,
            listing: u64::MAX,
            passed: Mutex::default(),
        }))
    }

    /// The store of the folder that this one is in; `None` for a root, a whole bucket, and where places have no
    /// folders above them.
    pub fn parent(&self) -> Option<Self> {
        let location = self.location().parent()?;
        let parts: Vec<_> = self.0.root.parts().collect();
        let (_, above) = parts.split_last()?;
        let root = ObjectPath::from_iter(above.iter().cloned());
        let backend = match self.backend() {
            Backend::Local(disk) => Backend::Local(Arc::clone(disk)),
            Backend::S3(bucket) => Backend::S3(Arc::clone(bucket)),
            Backend::Memory(_) | Backend::Http(..) => return None,
        };
        let Opened { sizes, until, listing, .. } = &*self.0;
        let (sizes, until, listing) = (*sizes, until.clone(), *listing);
        let passed = Mutex::default();
        Some(Self(Arc::new(Opened { location, root, backend, sizes, until, listing, passed })))
    }

    /// This folder, or the nearest above it, in which an object has one of these names. What may not be looked
    /// at counts as without.
    pub async fn within(&self, names: &[&str]) -> Option<Location> {
        let mut next = Some(self.clone());
        while let Some(store) = next {
            for name in names {
                match store.find(name).await {
                    Ok(Some(_)) => return Some(store.location().clone()),
                    Ok(None) => {}
                    Err(_) => return None,
                }
            }
            next = store.parent();
        }
        None
    }

    /// What was opened.
    pub fn location(&self) -> &Location {
        &self.0.location
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    /// Bytes of memory that a listing may take.
    pub(super) fn listing_limit(&self) -> u64 {
        self.0.listing
    }

    /// Bytes in a part of a large object that is written here.
    pub fn part_size(&self) -> usize {
        self.0.sizes.0
    }

    /// Bytes in a part of a multipart upload to S3 under these options: of such parts records have the
    /// MD5s, wherever the object lies.
    pub fn multipart_size(&self) -> u64 {
        self.0.sizes.1 as u64
    }

    pub(super) fn root(&self) -> &ObjectPath {
        &self.0.root
    }

    pub(super) fn url(&self, key: &str) -> String {
        self.location().join(key).to_string()
    }

    /// The path of an object.
    pub(super) fn path(&self, key: &str) -> Result<ObjectPath, StoreError> {
        let bad = |reason: String| StoreError::BadKey { url: self.url(key), reason };
        if key.is_empty() || key.starts_with('/') || key.ends_with('/') {
            return Err(bad("it is empty, or begins or ends with `/`".into()));
        }
        let path = self.prefix(key)?;
        match (self.backend(), path.filename().and_then(|name| name.split_once('#'))) {
            (Backend::Local(_), Some((_, suffix)))
                if !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Err(bad("a name on disk must not end in `#` and digits".into()))
            }
            _ => Ok(path),
        }
    }

    /// Whether an object of this store can have a key.
    pub fn can_hold(&self, key: &str) -> bool {
        self.path(key).is_ok()
    }

    /// The path of a folder, which may be the root.
    pub(super) fn prefix(&self, prefix: &str) -> Result<ObjectPath, StoreError> {
        let prefix = prefix.trim_end_matches('/');
        let whole = match (self.root().as_ref(), prefix) {
            (root, "") => root.to_owned(),
            ("", prefix) => prefix.to_owned(),
            (root, prefix) => format!("{root}/{prefix}"),
        };
        ObjectPath::parse(&whole).map_err(|error| StoreError::BadKey {
            url: self.url(prefix),
            reason: with_causes(&error),
        })
    }

    /// The key of what a backend calls `path`; `None` for the root itself.
    pub(super) fn key(&self, path: &ObjectPath) -> Option<String> {
        let key = match self.root().as_ref() {
            "" => path.as_ref(),
            root => path.as_ref().strip_prefix(root)?.strip_prefix('/')?,
        };
        (!key.is_empty()).then(|| key.to_owned())
    }

    fn passed(&self) -> MutexGuard<'_, Passed> {
        self.0.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_passed(&self, noted: Noted) {
        self.passed().note(noted);
    }

    /// What the listings of this store have passed over so far: why, how many, and one of them.
    pub fn passed_over(&self) -> Vec<(PassedOver, usize, String)> {
        self.passed().counts()
    }

    /// Says in one warning what was passed over, unless that has been said. Otherwise it is said
    /// when the last handle of the store goes.
    pub fn tell_passed_over(&self) {
        self.passed().tell(self.location());
    }

    pub(super) async fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(match self.backend() {
            Backend::Memory(store) => Arc::clone(store) as _,
            Backend::Local(store) => Arc::clone(store) as _,
            Backend::S3(bucket) => bucket.client().await? as _,
            Backend::Http(store, _) => Arc::clone(store) as _,
        })
    }

    /// Uploads by parts in any order; not for local disk, where they are `staged` files.
    pub(super) async fn parts(&self) -> Result<Arc<dyn MultipartStore>, StoreError> {
        match self.backend() {
            Backend::Memory(store) => Ok(Arc::clone(store) as _),
            Backend::S3(bucket) => Ok(bucket.client().await? as _),
            Backend::Local(_) | Backend::Http(..) => Err(self.read_only()),
        }
    }

    /// Refuses a store that cannot be written to.
    pub fn refuse_read_only(&self) -> Result<(), StoreError> {
        match self.backend() {
            Backend::Http(..) => Err(self.read_only()),
            _ => Ok(()),
        }
    }

    pub(super) fn read_only(&self) -> StoreError {
        let detail = "https cannot be written to; use a path or s3://".to_owned();
        StoreError::ReadOnly { url: self.location().to_string(), detail }
    }

    /// Whether this is at Source Cooperative, as far as its settings have been asked for.
    pub fn is_source_coop(&self) -> bool {
        matches!(self.backend(), Backend::S3(bucket) if bucket.is_source_coop())
    }

    /// Runs an operation that changes nothing, unless nothing is to be read any more.
    pub(super) async fn reading<T, F>(
        &self,
        key: &str,
        action: &'static str,
        operation: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let attempt = self.attempt(key, action, operation);
        match (&self.0.until, self.backend()) {
            (Some(until), Backend::S3(_) | Backend::Http(..)) => tokio::select! {
                result = attempt => result,
                () = until() => Err(StoreError::Stopped),
            },
            _ => attempt.await,
        }
    }

    /// Runs one operation on `key`, once more when credentials had expired and can be renewed.
    pub(super) async fn attempt<T, F>(
        &self,
        key: &str,
        action: &'static str,
        operation: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let began = SystemTime::now();
        let error = match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => self.failed(key, action, error),
        };
        match (&error, self.backend()) {
            (
                StoreError::Credentials { problem: CredentialsProblem::Expired, .. },
                Backend::S3(bucket),
            ) if bucket.renew_if_older(began) => {
                operation().await.map_err(|error| self.failed(key, action, error))
            }
            _ => Err(error),
        }
    }

    fn failed(&self, key: &str, action: &'static str, error: object_store::Error) -> StoreError {
        let (bucket, anonymous, (endpoint, advice)) = match self.backend() {
            Backend::S3(bucket) => (
                bucket.name.as_str(),
                bucket.session.options.is_anonymous(),
                bucket.endpoint_and_advice(),
            ),
            _ => ("", false, ("", "")),
        };
        let url = self.url(key);
        let is_source_coop = self.is_source_coop();
        let site = Site { url, action, bucket, endpoint, advice, anonymous, is_source_coop };
        failure::translate(error, site)
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
        let disk = Stores::new(S3Options::default()).open(&"/data".parse().unwrap()).unwrap();
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
        let at = |root: &str| Stores::new(S3Options::default()).open(&root.parse().unwrap());
        let key = |root: &str, path: &str| at(root).unwrap().key(&ObjectPath::from(path));
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
