//! The backend for a local disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use super::atomic_file::{self, AtomicFile};
use super::backend::Backend;
use super::base::Base;
use super::blocking::blocking;
use super::error::StoreError;
use super::file_kind::special_file_kind;
use super::folder_walk::{
    ExpectedFiles, FolderContents, ensure_not_dangling, has_hash_suffix, modified, walk,
};
use super::limit::open_file;
use super::object_meta::ObjectMeta;
use super::path_conflicts::{self, PathConflicts};
use super::put_options::{PutMode, PutOptions};
use super::sink::{Sink, finish};
use super::tree_walk::{self, KeyFilter, SourceFile};

/// Part size on disk, in bytes. Small parts take less memory, and no part costs a request.
const DISK_PART: usize = 2 << 20;

/// Objects in a folder on a local disk.
pub(super) struct LocalBackend {
    base: Base,
    disk: Arc<LocalFileSystem>,
}

impl LocalBackend {
    pub(super) fn new(base: Base) -> Self {
        Self { base, disk: Arc::new(LocalFileSystem::new()) }
    }

    /// The path of a folder on disk.
    fn folder(&self, prefix: &str) -> Result<PathBuf, StoreError> {
        let path = self.base.prefix(prefix)?;
        if path.is_root() {
            return Ok(PathBuf::from("/"));
        }
        self.disk.path_to_filesystem(&path).map_err(|source| StoreError::Library {
            url: self.base.url(prefix),
            action: "find",
            source,
        })
    }

    /// Creates the temporary file of an object.
    async fn create_temp(&self, key: &str) -> Result<AtomicFile, StoreError> {
        let url = self.base.url(key);
        let target = self.disk.path_to_filesystem(&self.path(key)?);
        let target = target.map_err(|source| {
            let url = url.clone();
            StoreError::Library { url, action: "write", source }
        })?;
        blocking(&url, "write", move || AtomicFile::create(&target)).await
    }
}

#[async_trait]
impl Backend for LocalBackend {
    fn base(&self) -> &Base {
        &self.base
    }

    fn parent(&self) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { base: self.base.parent()?, disk: Arc::clone(&self.disk) }))
    }

    async fn objects(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(Arc::clone(&self.disk) as _)
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn bad_name(&self, name: &str) -> Option<&'static str> {
        has_hash_suffix(name).then_some("a name on disk must not end in `#` and digits")
    }

    fn disk_path(&self, key: &str) -> Option<PathBuf> {
        self.folder(key).ok()
    }

    fn ensure_regular(&self, key: &str) -> Result<(), StoreError> {
        let location = self.base.location.join(key);
        let Some(path) = location.local_path() else { return Ok(()) };
        let what = match fs::metadata(path) {
            Ok(metadata) if modified(&metadata).is_none() => {
                Some("a file whose modification time is out of range")
            }
            Ok(metadata) => special_file_kind(metadata.file_type()),
            Err(_) => return ensure_not_dangling(path),
        };
        match what {
            Some(what) => Err(StoreError::UnsupportedFileType {
                url: self.base.url(key),
                what: what.to_owned(),
            }),
            None => Ok(()),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        _: &'static str,
        deep: bool,
        expected: ExpectedFiles,
    ) -> Result<FolderContents, StoreError> {
        let folder = self.folder(prefix)?;
        let key = prefix.trim_end_matches('/').to_owned();
        let list = move || Ok(walk(&folder, &key, deep, &expected));
        let mut contents = blocking(&self.base.url(prefix), "list", list).await??;
        self.base.record_skipped(std::mem::take(&mut contents.skipped));
        Ok(contents)
    }

    async fn list_publishable(
        &self,
        prefix: &str,
        deep: bool,
        filter: KeyFilter,
    ) -> Result<Vec<SourceFile>, StoreError> {
        let folder = self.folder(prefix)?;
        let prefix = prefix.trim_end_matches('/').to_owned();
        let url = self.base.url(&prefix);
        let list = move || Ok(tree_walk::of_disk(&folder, &prefix, deep, &filter));
        let (files, skipped) = blocking(&url, "list", list).await??;
        self.base.record_skipped(skipped);
        Ok(files)
    }

    async fn exists(&self) -> Result<bool, StoreError> {
        let folder = self.folder("")?;
        self.ensure_regular("")?;
        let read = move || match fs::read_dir(&folder) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                open_file(&folder).map(|_| true)
            }
            Err(error) => Err(error),
        };
        blocking(&self.base.location.to_string(), "read", read).await
    }

    fn part_size(&self) -> usize {
        DISK_PART
    }

    async fn put(
        &self,
        key: &str,
        data: Vec<Bytes>,
        options: &PutOptions,
    ) -> Result<ObjectMeta, StoreError> {
        if let PutMode::Is(etag) = &options.condition {
            let current = match self.head(key).await {
                Ok(meta) => meta.etag,
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
            if current.as_ref() != Some(etag) {
                let detail = "the version differs".to_owned();
                return Err(StoreError::PreconditionFailed { url: self.base.url(key), detail });
            }
        }
        let file = self.create_temp(key).await?;
        let size = data.iter().map(|bytes| bytes.len() as u64).sum();
        let url = self.base.url(key);
        let write = move || file.write_at(0, &data).map(|()| file);
        let file = blocking(&url, "write", write).await?;
        finish(url, file, size, &options.condition).await?;
        self.head(key).await
    }

    async fn create(&self, key: &str) -> Result<Sink, StoreError> {
        self.create_temp(key).await.map(Sink::disk)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let folder = self.folder("")?;
        let create = move || {
            let existing = folder.ancestors().find(|folder| folder.exists());
            AtomicFile::create(&existing.unwrap_or(Path::new("/")).join("dor-probe")).map(drop)
        };
        blocking(&self.base.location.to_string(), "write", create).await
    }

    async fn make_root(&self) -> Result<(), StoreError> {
        let folder = self.folder("")?;
        let create = move || atomic_file::create_folders(&folder);
        blocking(&self.base.location.to_string(), "create", create).await
    }

    async fn remove_empty_parents(&self, key: &str) -> Result<(), StoreError> {
        let root = self.folder("")?;
        let folders: Vec<_> =
            key.rmatch_indices('/').map(|(end, _)| root.join(&key[..end])).collect();
        let remove = move || {
            // Ends at the first folder that is not empty.
            let _ = folders.iter().try_for_each(fs::remove_dir);
            Ok(())
        };
        blocking(&self.base.url(key), "remove the folder of", remove).await
    }

    async fn remove_stale_temp_files(&self, prefix: &str) -> Result<usize, StoreError> {
        let folder = self.folder(prefix)?;
        blocking(&self.base.url(prefix), "remove temporary files of", move || {
            atomic_file::remove_stale_temp_files(&folder)
        })
        .await
    }

    async fn path_conflicts(&self, keys: Vec<String>) -> Result<PathConflicts, StoreError> {
        let root = self.folder("")?;
        let find = move || path_conflicts::path_conflicts(&root, keys);
        blocking(&self.base.url(""), "list", find).await
    }

    async fn remove_empty_folders(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let root = self.folder("")?;
        let remove =
            move || keys.iter().try_for_each(|key| path_conflicts::remove_empty(&root.join(key)));
        blocking(&self.base.url(""), "remove folders of", remove).await
    }
}
