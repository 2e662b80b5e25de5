//! What each kind of storage does in a way of its own: a disk of this machine, S3, https, memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{ListResult, ObjectStore, ObjectStoreExt};

use super::atomic_file::plain_host;
use super::base::Base;
use super::error::{CredentialsProblem, StoreError};
use super::folder_walk::{ExpectedFiles, FolderContents};
use super::multipart_cleanup::UploadedPart;
use super::object_meta::ObjectMeta;
use super::path_conflicts::PathConflicts;
use super::put_options::PutOptions;
use super::sink::Sink;
use super::translate::{ErrorContext, translate};
use super::tree_walk::{self, KeyFilter, SourceFile};

/// One kind of storage below one location. Keys are relative to its [`Base`].
#[async_trait]
pub(super) trait Backend: Send + Sync {
    fn base(&self) -> &Base;

    /// The same kind of storage at the folder that this one is in; `None` for a root, and where places have no
    /// folders above them.
    fn parent(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// The client of the library.
    async fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError>;

    /// Whether requests go over a network.
    fn is_remote(&self) -> bool;

    /// A failure of the library, put in our terms.
    fn translate(&self, key: &str, action: &'static str, error: object_store::Error) -> StoreError {
        translate(error, ErrorContext::new(self.base().url(key), action))
    }

    /// After a server has called the credentials expired: whether a new try may go better.
    fn renew_credentials(&self, _than: SystemTime) -> bool {
        false
    }

    /// Why no object can have such a name here.
    fn bad_name(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// The path of an object.
    fn path(&self, key: &str) -> Result<ObjectPath, StoreError> {
        let bad = |reason: &str| {
            Err(StoreError::BadKey { url: self.base().url(key), reason: reason.to_owned() })
        };
        if key.is_empty() || key.starts_with('/') || key.ends_with('/') {
            return bad("it is empty, or begins or ends with `/`");
        }
        let path = self.base().prefix(key)?;
        match path.filename().and_then(|name| self.bad_name(name)) {
            Some(reason) => bad(reason),
            None => Ok(path),
        }
    }

    /// Where an object or a folder lies on a disk of this machine.
    fn disk_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    /// Refuses what is no file on disk, and a link on the way to it that leads nowhere.
    fn refuse_odd(&self, _key: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// What an object is.
    async fn head(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        let objects = self.objects().await?;
        let path = self.path(key)?;
        self.refuse_odd(key)?;
        match reading(self, key, "read", || objects.head(&path)).await {
            Ok(meta) => Ok(ObjectMeta::new(key.to_owned(), meta)),
            Err(error) => Err(self.explained(key, error).await),
        }
    }

    /// What is behind a failure to look at an object, where more can be found out.
    async fn explained(&self, _key: &str, error: StoreError) -> StoreError {
        error
    }

    /// Whether servers may answer with a whole object to a request for a range.
    fn may_ignore_ranges(&self) -> bool {
        false
    }

    /// Whether one has done so.
    fn ignores_ranges(&self) -> bool {
        false
    }

    /// Whether there are listings.
    fn can_list(&self) -> bool {
        true
    }

    /// What is below the folder `prefix`: all objects if `deep`, else what is directly in it. What is passed over
    /// is noted. An absent folder is empty.
    async fn list(
        &self,
        prefix: &str,
        action: &'static str,
        deep: bool,
        expected: ExpectedFiles,
    ) -> Result<FolderContents, StoreError>;

    /// The public objects in the folder `prefix` that are `wanted`, with `deep` also those in its folders.
    async fn survey(
        &self,
        prefix: &str,
        deep: bool,
        wanted: KeyFilter,
    ) -> Result<Vec<SourceFile>, StoreError> {
        let listed = self.list(prefix, "list", deep, ExpectedFiles::nothing()).await?;
        let (found, passed) = tree_walk::of_listing(listed.files, wanted);
        self.base().note_passed(passed);
        Ok(found)
    }

    /// Whether there is such a folder on disk, or an object below the prefix; false where that cannot be told.
    async fn exists(&self) -> Result<bool, StoreError>;

    /// Refuses a place that cannot be written to.
    fn ensure_writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Bytes in a part of a large object that is written here.
    fn part_size(&self) -> usize {
        self.base().multipart_size
    }

    /// Writes a small object whole.
    async fn put(
        &self,
        key: &str,
        data: Vec<Bytes>,
        sending: &PutOptions,
    ) -> Result<ObjectMeta, StoreError>;

    /// Where the parts of a large object go.
    async fn create(&self, key: &str) -> Result<Sink, StoreError>;

    /// Removes an object; one that is not there is fine.
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.ensure_writable()?;
        let objects = self.objects().await?;
        let path = self.path(key)?;
        match attempt(self, key, "delete", || objects.delete(&path)).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Writes and removes something small.
    async fn probe(&self) -> Result<(), StoreError> {
        let key = format!(".dor-probe-{}-{}", plain_host(), std::process::id());
        let data = vec![Bytes::from_static(b"dor setup-environment\n")];
        self.put(&key, data, &PutOptions::default()).await?;
        self.delete(&key).await
    }

    /// Ids of the unfinished uploads of an object; none where its server does not tell.
    async fn uploads(&self, _key: &str) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// The parts of an unfinished upload that have arrived; none where its server does not tell.
    async fn parts_of(&self, _key: &str, _id: &str) -> Result<Vec<UploadedPart>, StoreError> {
        Ok(Vec::new())
    }

    /// Ends an unfinished upload; whether there was one.
    async fn abort_upload(&self, _key: &str, _id: &String) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Makes the folder on disk.
    async fn make_root(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Removes the folders on disk that an object was in, as far as they are empty.
    async fn remove_empty_parents(&self, _key: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Removes what killed writers left on disk below the folder `prefix`. How many files.
    async fn remove_stale_temp_files(&self, _prefix: &str) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// What is in the way of these objects.
    async fn obstacles(&self, _keys: Vec<String>) -> Result<PathConflicts, StoreError> {
        Ok(PathConflicts::default())
    }

    /// Removes folders that have the names of objects, as far as no files are in them.
    async fn remove_empty_folders(&self, _keys: Vec<String>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether this is at Source Cooperative, as far as its settings have been asked for.
    fn is_source_coop(&self) -> bool {
        false
    }

    /// Whether ETags are known not to be MD5s.
    fn hides_md5(&self) -> bool {
        false
    }

    /// How many requests to this service have failed so far.
    fn failures(&self) -> u64 {
        0
    }
}

/// Runs an operation that changes nothing, unless nothing is to be read any more.
pub(super) async fn reading<B, T, F>(
    backend: &B,
    key: &str,
    action: &'static str,
    operation: impl Fn() -> F,
) -> Result<T, StoreError>
where
    B: Backend + ?Sized,
    F: Future<Output = object_store::Result<T>>,
{
    let attempt = attempt(backend, key, action, operation);
    match &backend.base().until {
        Some(until) if backend.is_remote() => tokio::select! {
            result = attempt => result,
            () = until() => Err(StoreError::Stopped),
        },
        _ => attempt.await,
    }
}

/// Runs one operation on `key`, once more when credentials had expired and can be renewed.
pub(super) async fn attempt<B, T, F>(
    backend: &B,
    key: &str,
    action: &'static str,
    operation: impl Fn() -> F,
) -> Result<T, StoreError>
where
    B: Backend + ?Sized,
    F: Future<Output = object_store::Result<T>>,
{
    let began = SystemTime::now();
    let failed = |error| backend.translate(key, action, error);
    match operation().await.map_err(failed) {
        Err(StoreError::Credentials { problem: CredentialsProblem::Expired, .. })
            if backend.renew_credentials(began) =>
        {
            operation().await.map_err(failed)
        }
        result => result,
    }
}

/// What the library has listed, sorted by key.
pub(super) fn found(base: &Base, listed: ListResult) -> FolderContents {
    let info =
        |meta: object_store::ObjectMeta| Some(ObjectMeta::new(base.key(&meta.location)?, meta));
    let mut files: Vec<_> = listed.objects.into_iter().filter_map(info).collect();
    let mut folders: Vec<_> =
        listed.common_prefixes.iter().filter_map(|path| base.key(path)).collect();
    files.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    folders.sort_unstable();
    FolderContents { files, folders, ..FolderContents::default() }
}
