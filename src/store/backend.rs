//! The interface of a storage backend: local disk, S3, https and memory implement it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path as ObjectPath;
use object_store::{ListResult, ObjectStore, ObjectStoreExt};

use super::atomic_file::sanitized_host;
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

/// Storage of one kind below one location. Keys are relative to its [`Base`].
#[async_trait]
pub(super) trait Backend: Send + Sync {
    /// The location, and the settings of its requests.
    fn base(&self) -> &Base;

    /// The backend of the parent folder; `None` for a root, and for a backend without folders.
    fn parent(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// The client of `object_store`.
    async fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError>;

    /// Whether requests go over a network.
    fn is_remote(&self) -> bool;

    /// Converts an error of `object_store` to a [`StoreError`].
    fn translate(&self, key: &str, action: &'static str, error: object_store::Error) -> StoreError {
        translate(error, ErrorContext::new(self.base().url(key), action))
    }

    /// Drops credentials that were loaded before `_time`, after a server has reported them as expired.
    /// Returns whether the request is worth repeating.
    fn renew_credentials(&self, _time: SystemTime) -> bool {
        false
    }

    /// The reason why this backend cannot store an object of this name; `None` if it can.
    fn bad_name(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// The path of an object in `object_store`.
    ///
    /// # Errors
    /// [`StoreError::BadKey`] if the key is invalid.
    fn path(&self, key: &str) -> Result<ObjectPath, StoreError> {
        let bad = |reason: &str| {
            Err(StoreError::BadKey { url: self.base().url(key), reason: reason.to_owned() })
        };
        if key.is_empty() || key.starts_with('/') || key.ends_with('/') {
            return bad("a key must not be empty, and must not begin or end with `/`");
        }
        let path = self.base().prefix(key)?;
        match path.filename().and_then(|name| self.bad_name(name)) {
            Some(reason) => bad(reason),
            None => Ok(path),
        }
    }

    /// Path of an object or a folder on a local disk; `None` for other backends.
    fn disk_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    /// Checks that a path on disk is a regular file or a folder, or is absent, and that no symbolic
    /// link in it is dangling.
    fn ensure_regular(&self, _key: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Metadata of an object.
    async fn head(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        let objects = self.objects().await?;
        let path = self.path(key)?;
        self.ensure_regular(key)?;
        match attempt_read(self, key, "read", || objects.head(&path)).await {
            Ok(meta) => Ok(ObjectMeta::new(key.to_owned(), meta)),
            Err(error) => Err(self.explain_error(key, error).await),
        }
    }

    /// Replaces the error of a failed [`Backend::head`] by a more precise one, if the backend can find
    /// the cause.
    async fn explain_error(&self, _key: &str, error: StoreError) -> StoreError {
        error
    }

    /// Whether a server may respond to a range request with the whole object.
    fn may_ignore_ranges(&self) -> bool {
        false
    }

    /// Whether a server has responded to a range request with the whole object.
    fn ignores_ranges(&self) -> bool {
        false
    }

    /// Whether the backend can list objects.
    fn can_list(&self) -> bool {
        true
    }

    /// Lists the folder `prefix`: all objects below it if `deep`, otherwise its direct objects and
    /// folders. Records skipped entries in [`Base`]. An absent folder is empty.
    async fn list(
        &self,
        prefix: &str,
        action: &'static str,
        deep: bool,
        expected: ExpectedFiles,
    ) -> Result<FolderContents, StoreError>;

    /// The public objects in the folder `prefix` whose keys `filter` accepts; with `deep` also those of
    /// its subfolders.
    async fn list_publishable(
        &self,
        prefix: &str,
        deep: bool,
        filter: KeyFilter,
    ) -> Result<Vec<SourceFile>, StoreError> {
        let listed = self.list(prefix, "list", deep, ExpectedFiles::nothing()).await?;
        let (files, skipped) = tree_walk::of_listing(listed.files, filter);
        self.base().record_skipped(skipped);
        Ok(files)
    }

    /// Whether the folder exists on disk, or the prefix has an object. False for a backend without
    /// listings.
    async fn exists(&self) -> Result<bool, StoreError>;

    /// Checks that the backend supports writes.
    fn ensure_writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Size in bytes of a part of a multipart upload.
    fn part_size(&self) -> usize {
        self.base().multipart_size
    }

    /// Writes a small object with one request.
    async fn put(
        &self,
        key: &str,
        data: Vec<Bytes>,
        options: &PutOptions,
    ) -> Result<ObjectMeta, StoreError>;

    /// Opens the destination for the parts of a large object.
    async fn create(&self, key: &str) -> Result<Sink, StoreError>;

    /// Removes an object. Succeeds if it does not exist.
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.ensure_writable()?;
        let objects = self.objects().await?;
        let path = self.path(key)?;
        match attempt(self, key, "delete", || objects.delete(&path)).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Writes and removes a small object, to test for write access.
    async fn probe(&self) -> Result<(), StoreError> {
        let key = format!(".dor-probe-{}-{}", sanitized_host(), std::process::id());
        let data = vec![Bytes::from_static(b"dor setup-environment\n")];
        self.put(&key, data, &PutOptions::default()).await?;
        self.delete(&key).await
    }

    /// Ids of the unfinished multipart uploads of an object; empty if the server does not list them.
    async fn uploads(&self, _key: &str) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Parts that an unfinished multipart upload has received; empty if the server does not list them.
    async fn list_parts(&self, _key: &str, _id: &str) -> Result<Vec<UploadedPart>, StoreError> {
        Ok(Vec::new())
    }

    /// Aborts an unfinished multipart upload. Returns whether it existed.
    async fn abort_upload(&self, _key: &str, _id: &String) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Creates the root folder on disk.
    async fn make_root(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Removes the parent folders of an object on disk that are empty.
    async fn remove_empty_parents(&self, _key: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Removes the temporary files of dead processes on disk below the folder `prefix`. Returns their
    /// number.
    async fn remove_stale_temp_files(&self, _prefix: &str) -> Result<usize, StoreError> {
        Ok(0)
    }

    /// Files and folders on disk that prevent writing these objects.
    async fn path_conflicts(&self, _keys: Vec<String>) -> Result<PathConflicts, StoreError> {
        Ok(PathConflicts::default())
    }

    /// Removes folders whose names are keys of objects. A folder that contains files stays.
    async fn remove_empty_folders(&self, _keys: Vec<String>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether the location is at Source Cooperative. False until the settings have been resolved.
    fn is_source_coop(&self) -> bool {
        false
    }

    /// Whether a response has shown that the ETag is not the MD5 of the object.
    fn hides_md5(&self) -> bool {
        false
    }

    /// Number of requests to this service that have failed so far.
    fn failures(&self) -> u64 {
        0
    }
}

/// Runs a reading operation like [`attempt`]. The stop signal of the [`Base`] ends it on a remote
/// backend.
///
/// # Errors
/// [`StoreError::Stopped`] after the stop signal.
pub(super) async fn attempt_read<B, T, F>(
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
    match &backend.base().stop_signal {
        Some(stop_signal) if backend.is_remote() => tokio::select! {
            result = attempt => result,
            () = stop_signal() => Err(StoreError::Stopped),
        },
        _ => attempt.await,
    }
}

/// Runs an operation on `key`. Repeats it once if the credentials had expired and can be renewed.
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

/// Converts a listing of `object_store`; files and folders are sorted by key.
pub(super) fn sorted_contents(base: &Base, listed: ListResult) -> FolderContents {
    let convert =
        |meta: object_store::ObjectMeta| Some(ObjectMeta::new(base.key(&meta.location)?, meta));
    let mut files: Vec<_> = listed.objects.into_iter().filter_map(convert).collect();
    let mut folders: Vec<_> =
        listed.common_prefixes.iter().filter_map(|path| base.key(path)).collect();
    files.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    folders.sort_unstable();
    FolderContents { files, folders, ..FolderContents::default() }
}
