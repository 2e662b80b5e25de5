//! Where the parts of a large object go until it is whole.

use std::io;
use std::sync::Arc;

use object_store::MultipartId;
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use tokio::sync::OnceCell;

use super::blocking::blocking;
use super::error::StoreError;
use super::send::Condition;
use super::staged::Staged;

/// `None` once it is over.
pub(super) enum Sink {
    Disk(Option<Arc<Staged>>),
    Parts(Option<Arc<PartSink>>),
}

/// An upload by parts, and its id once it has begun.
pub(super) struct PartSink {
    pub parts: Arc<dyn MultipartStore>,
    pub path: ObjectPath,
    pub id: OnceCell<MultipartId>,
}

impl Sink {
    pub(super) fn disk(staged: Staged) -> Self {
        Self::Disk(Some(Arc::new(staged)))
    }

    pub(super) fn parts(parts: Arc<dyn MultipartStore>, path: ObjectPath) -> Self {
        Self::Parts(Some(Arc::new(PartSink { parts, path, id: OnceCell::new() })))
    }
}

/// Puts a file of `size` bytes under its name: of the conditions, only [`Condition::Absent`] is looked at.
pub(super) async fn finish(
    url: String,
    staged: Staged,
    size: u64,
    condition: &Condition,
) -> Result<(), StoreError> {
    let is_first = *condition == Condition::Absent;
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
            Err(StoreError::Overtaken { url, detail: "it exists".to_owned() })
        }
        Err(error) => Err(error),
    }
}
