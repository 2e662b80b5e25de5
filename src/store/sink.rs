//! The destination of the parts of a large object: a temporary file or an S3 multipart upload.

use std::io;
use std::sync::Arc;

use object_store::MultipartId;
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use tokio::sync::OnceCell;

use super::atomic_file::AtomicFile;
use super::blocking::blocking;
use super::error::StoreError;
use super::put_options::PutMode;

/// The destination of the parts of an upload; `None` after the upload has been completed or aborted.
pub(super) enum Sink {
    Disk(Option<Arc<AtomicFile>>),
    Parts(Option<Arc<MultipartSink>>),
}

/// A multipart upload. `id` is set when the upload has been created on the server.
pub(super) struct MultipartSink {
    pub parts: Arc<dyn MultipartStore>,
    pub path: ObjectPath,
    pub id: OnceCell<MultipartId>,
}

impl Sink {
    pub(super) fn disk(file: AtomicFile) -> Self {
        Self::Disk(Some(Arc::new(file)))
    }

    pub(super) fn parts(parts: Arc<dyn MultipartStore>, path: ObjectPath) -> Self {
        Self::Parts(Some(Arc::new(MultipartSink { parts, path, id: OnceCell::new() })))
    }
}

/// Renames a temporary file of `size` bytes to its target. Of the conditions, it checks only
/// [`PutMode::Absent`].
///
/// # Errors
/// [`StoreError::Incomplete`] if the file has another size, [`StoreError::PreconditionFailed`] if the
/// target exists and must not.
pub(super) async fn finish(
    url: String,
    file: AtomicFile,
    size: u64,
    condition: &PutMode,
) -> Result<(), StoreError> {
    let must_be_new = *condition == PutMode::Absent;
    let finished = blocking(&url, "write", move || {
        let actual = file.len()?;
        match (actual == size, must_be_new) {
            (true, true) => file.finish_new()?,
            (true, false) => file.finish()?,
            (false, _) => {}
        }
        Ok(actual)
    });
    match finished.await {
        Ok(actual) if actual == size => Ok(()),
        Ok(actual) => Err(StoreError::Incomplete {
            url,
            detail: format!("{actual} bytes on disk instead of {size}"),
        }),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(StoreError::PreconditionFailed { url, detail: "the object exists".to_owned() })
        }
        Err(error) => Err(error),
    }
}
