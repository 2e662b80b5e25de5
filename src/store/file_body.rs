//! A part of an object that is never whole in memory: of a file as the body of a request, read and compared
//! with its MD5 while it is sent, and again when it is sent again; of any object, on its way to a file.

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

/// Bytes that are read at a time, and in memory: the client below would hold twice as many.
const PIECE: usize = 256 << 10;

/// Bytes of an object elsewhere that are fetched at a time.
const FETCHED: u64 = 2 << 20;

/// Bytes on their way to the socket, and the right to read the next.
struct BodyPiece {
    data: Vec<u8>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for BodyPiece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[derive(Debug)]
pub(super) struct FileBody {
    object: Object,
    range: Range<u64>,
    /// What its MD5 must be.
    md5: Md5Digest,
    /// Why it could not be read.
    failure: Arc<Mutex<Option<StoreError>>>,
}

impl FileBody {
    pub(super) fn new(object: Object, range: Range<u64>, md5: Md5Digest) -> Self {
        Self { object, range, md5, failure: Arc::default() }
    }

    /// Of an object elsewhere.
    fn of_others(&self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let (object, range, expected) = (self.object.clone(), self.range.clone(), self.md5);
        let pieces = object.pieces_of(range.clone(), FETCHED, 1);
        stream::try_unfold((pieces, Md5::new(), range.start), move |(mut pieces, mut md5, at)| {
            let (object, Range { start, end }) = (object.clone(), range.clone());
            async move {
                let Some(piece) = pieces.try_next().await? else { return Ok(None) };
                md5.update(&piece);
                let next = at.saturating_add(piece.len() as u64);
                if next >= end {
                    compare(&object, start, &md5, expected)?;
                }
                Ok(Some((piece, (pieces, md5, next))))
            }
        })
    }

    /// Of a file on disk.
    fn of_file(&self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let (object, Range { start, end }, expected) =
            (self.object.clone(), self.range.clone(), self.md5);
        let turns = Arc::new(Semaphore::new(1));
        stream::try_unfold((None, Md5::new(), start), move |(file, md5, at)| {
            let (object, turns) = (object.clone(), Arc::clone(&turns));
            async move {
                if at >= end {
                    return Ok(None);
                }
                let file = match file {
                    Some(file) => file,
                    None => object.open().await?,
                };
                let turn = turns.acquire_owned().await.ok();
                let size = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
                let (file, data, md5) = object.fill(file, vec![0; size], md5, at).await?;
                let next = at + size as u64;
                if next >= end {
                    compare(&object, start, &md5, expected)?;
                }
                let piece = Bytes::from_owner(BodyPiece { data, _turn: turn });
                Ok(Some((piece, (Some(file), md5, next))))
            }
        })
    }

    /// Why it could not be read, once.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl RequestBody for FileBody {
    fn size(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// The last piece does not come unless all together have the MD5.
    fn stream(&self) -> BoxStream<'static, io::Result<Bytes>> {
        let failure = Arc::clone(&self.failure);
        let pieces = match self.object.is_on_disk() {
            true => self.of_file().left_stream(),
            false => self.of_others().right_stream(),
        };
        let pieces = pieces.map_err(move |error: StoreError| {
            let told = io::Error::other(error.to_string());
            failure.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
            told
        });
        pieces.boxed()
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Refuses a part whose bytes have another MD5.
fn compare(object: &Object, start: u64, md5: &Md5, expected: Md5Digest) -> Result<(), StoreError> {
    let found = Md5Digest::from(md5.clone());
    match found == expected {
        true => Ok(()),
        false => Err(StoreError::Differs { url: object.url(), start, found, expected }),
    }
}
