//! A part of a file as the body of a request: read while it is sent, and again when it is sent again,
//! so that it is never whole in memory.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::StoreError;
use super::read::Object;

/// Bytes that are read at a time, and in memory: the client below would hold twice as many.
const PIECE: usize = 256 << 10;

/// Bytes on their way to the socket, and the right to read the next.
struct Piece {
    data: Vec<u8>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[derive(Debug)]
pub(super) struct Streamed {
    object: Object,
    range: Range<u64>,
    /// Why it could not be read.
    failure: Arc<Mutex<Option<StoreError>>>,
}

impl Streamed {
    pub(super) fn new(object: Object, range: Range<u64>) -> Self {
        Self { object, range, failure: Arc::default() }
    }

    /// Bytes.
    pub(super) fn size(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// From the beginning.
    pub(super) fn stream(&self) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + use<> {
        let (object, failure) = (self.object.clone(), Arc::clone(&self.failure));
        let Range { start, end } = self.range;
        let turns = Arc::new(Semaphore::new(1));
        let pieces = stream::try_unfold((None, start), move |(file, at)| {
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
                let (file, data) = object.fill(file, vec![0; size], at).await?;
                let piece = Bytes::from_owner(Piece { data, _turn: turn });
                Ok(Some((piece, (Some(file), at + size as u64))))
            }
        });
        pieces.map_err(move |error: StoreError| {
            let told = io::Error::other(error.to_string());
            failure.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
            told
        })
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Why it could not be read, once.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
