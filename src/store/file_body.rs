//! Request bodies that are read from an object while they are sent, so that a part is never whole in
//! memory.
//!
//! Each attempt of the request reads the range again and compares it with its MD5.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use md5::{Digest as _, Md5};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::StoreError;
use super::http_client::RequestBody;
use super::object::Object;
use crate::model::Md5Digest;

/// Bytes per read of a file on disk. Only one chunk is in memory: without the permit in [`BodyPiece`],
/// the HTTP client would hold two.
const CHUNK: usize = 256 << 10;

/// Bytes per request when the object is not on disk.
const REMOTE_CHUNK: u64 = 2 << 20;

/// A chunk that the HTTP client sends. Dropping it permits reading the next chunk.
struct BodyPiece {
    data: Vec<u8>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for BodyPiece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// A range of an object as the body of a request.
#[derive(Debug)]
pub(super) struct FileBody {
    object: Object,
    range: Range<u64>,
    /// Expected MD5 of the range.
    md5: Md5Digest,
    /// The error of the last failed read.
    failure: Arc<Mutex<Option<StoreError>>>,
}

impl FileBody {
    pub(super) fn new(object: Object, range: Range<u64>, md5: Md5Digest) -> Self {
        Self { object, range, md5, failure: Arc::default() }
    }

    /// Reads a range of an object that is not on disk.
    fn read_remote(&self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let (object, range, expected) = (self.object.clone(), self.range.clone(), self.md5);
        let chunks = object.stream_range(range.clone(), REMOTE_CHUNK, 1);
        stream::try_unfold(
            (chunks, Md5::new(), range.start),
            move |(mut chunks, mut md5, offset)| {
                let (object, Range { start, end }) = (object.clone(), range.clone());
                async move {
                    let Some(chunk) = chunks.try_next().await? else { return Ok(None) };
                    md5.update(&chunk);
                    let next = offset.saturating_add(chunk.len() as u64);
                    if next >= end {
                        check_md5(&object, start, &md5, expected)?;
                    }
                    Ok(Some((chunk, (chunks, md5, next))))
                }
            },
        )
    }

    /// Reads a range of a file on disk.
    fn read_file(&self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let (object, Range { start, end }, expected) =
            (self.object.clone(), self.range.clone(), self.md5);
        let permits = Arc::new(Semaphore::new(1));
        stream::try_unfold((None, Md5::new(), start), move |(file, md5, offset)| {
            let (object, permits) = (object.clone(), Arc::clone(&permits));
            async move {
                if offset >= end {
                    return Ok(None);
                }
                let file = match file {
                    Some(file) => file,
                    None => object.open().await?,
                };
                let permit = permits.acquire_owned().await.ok();
                let size = usize::try_from(end - offset).map_or(CHUNK, |left| left.min(CHUNK));
                let (file, data, md5) = object.fill(file, vec![0; size], md5, offset).await?;
                let next = offset + size as u64;
                if next >= end {
                    check_md5(&object, start, &md5, expected)?;
                }
                let chunk = Bytes::from_owner(BodyPiece { data, _permit: permit });
                Ok(Some((chunk, (Some(file), md5, next))))
            }
        })
    }

    /// Takes the error of the last failed read; `None` if no read failed since the last call.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl RequestBody for FileBody {
    fn size(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// The range in chunks. The last chunk is an error if the range does not have the expected MD5, so
    /// that the server never receives a whole wrong part.
    fn stream(&self) -> BoxStream<'static, io::Result<Bytes>> {
        let failure = Arc::clone(&self.failure);
        let chunks = match self.object.is_on_disk() {
            true => self.read_file().left_stream(),
            false => self.read_remote().right_stream(),
        };
        let chunks = chunks.map_err(move |error: StoreError| {
            let io_error = io::Error::other(error.to_string());
            failure.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
            io_error
        });
        chunks.boxed()
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Checks the MD5 of a range that was read.
///
/// # Errors
/// [`StoreError::Differs`] if it is not the expected one.
fn check_md5(
    object: &Object,
    start: u64,
    md5: &Md5,
    expected: Md5Digest,
) -> Result<(), StoreError> {
    let found = Md5Digest::from(md5.clone());
    match found == expected {
        true => Ok(()),
        false => Err(StoreError::Differs { url: object.url(), start, found, expected }),
    }
}
