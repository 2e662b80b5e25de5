//! Where the parts of a large object go until it is whole.

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

/// `None` once it is over.
pub(super) enum Sink {
    Disk(Option<Arc<AtomicFile>>),
    Parts(Option<Arc<MultipartSink>>),
}

/// An upload by parts, and its id once it has begun.
pub(super) struct MultipartSink {
    pub parts: Arc<dyn MultipartStore>,
    pub path: ObjectPath,
    pub id: OnceCell<MultipartId>,
}

impl Sink {
    pub(super) fn disk(staged: AtomicFile) -> Self {
        Self::Disk(Some(Arc::new(staged)))
    }

    pub(super) fn parts(parts: Arc<dyn MultipartStore>, path: ObjectPath) -> Self {
        Self::Parts(Some(Arc::new(MultipartSink { parts, path, id: OnceCell::new() })))
    }
}

/// Puts a file of `size` bytes under its name: of the conditions, only [`PutMode::Absent`] is looked at.
pub(super) async fn finish(
    url: String,
    staged: AtomicFile,
    size: u64,
    condition: &PutMode,
) -> Result<(), StoreError> {
    let is_first = *condition == PutMode::Absent;
    let finished = blocking(&url, "write", move || {
        let found = staged.len()?;
        match (found == size, is_first) {
            (true, true) => staged.finish_first()?,
            (true, false) => staged.finish()?,
            (false, _) => {}
        }
        Ok(found)
    });
    match finished.await {
        Ok(found) if found == size => Ok(()),
        Ok(found) => Err(StoreError::Incomplete {
            url,
            detail: format!("{found} bytes on disk, not {size}"),
        }),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(StoreError::PreconditionFailed { url, detail: "it exists".to_owned() })
        }
        Err(error) => Err(error),
    }
}
