//! Reading an object in order: in pieces that are fetched in parallel, or, from a server that knows no ranges, as
//! they come.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::backend::reading;
use super::error::StoreError;
use super::object::Object;

/// The bytes of an answer as they come.
type ByteStream = Arc<Mutex<BoxStream<'static, object_store::Result<Bytes>>>>;

impl Object {
    /// The whole object in order, in pieces of `piece` bytes of which `ahead` are fetched in
    /// parallel, whether or not the stream is polled.
    pub fn pieces(
        &self,
        piece: u64,
        ahead: usize,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        self.pieces_of(0..self.info.size, piece, ahead)
    }

    /// The same of one range.
    pub fn pieces_of(
        &self,
        Range { start, end }: Range<u64>,
        piece: u64,
        ahead: usize,
    ) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let piece = piece.max(1);
        // Whether a server knows ranges is seen from its first answer.
        let first = match self.store.backend().may_ignore_ranges() {
            true => start.saturating_add(piece).min(end),
            false => start,
        };
        let (object, other) = (self.clone(), self.clone());
        let begin = stream::iter((start < first).then_some(start..first))
            .then(move |range| fetch(object.clone(), range));
        let rest = async move {
            match other.store.backend().ignores_ranges() {
                true => other.in_one_answer(first..end, piece).left_stream(),
                false => other.in_parallel(first..end, piece, ahead).right_stream(),
            }
        };
        begin.chain(stream::once(rest).flatten()).boxed()
    }

    fn in_parallel(
        self,
        Range { start, end }: Range<u64>,
        piece: u64,
        ahead: usize,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let count = end.saturating_sub(start).div_ceil(piece);
        stream::iter(0..count)
            .map(move |index| {
                let from = start.saturating_add(index.saturating_mul(piece));
                let range = from..from.saturating_add(piece).min(end);
                fetch(self.clone(), range)
            })
            .buffered(ahead.max(1))
    }

    /// A range by one request.
    fn in_one_answer(
        self,
        Range { start, end }: Range<u64>,
        piece: u64,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        stream::try_unfold((None, start), move |(coming, at)| {
            let object = self.clone();
            async move {
                if at >= end {
                    return Ok(None);
                }
                let coming = match coming {
                    Some(coming) => coming,
                    None => object.coming(at..end).await?,
                };
                let data = object.next_of(&coming, piece.min(end - at)).await?;
                let now = at.saturating_add(data.len() as u64);
                Ok(Some((data, (Some(coming), now))))
            }
        })
    }

    async fn coming(&self, range: Range<u64>) -> Result<ByteStream, StoreError> {
        let objects = self.store.backend().objects().await?;
        let ask = || objects.get_opts(&self.path, self.asking(&range));
        let found = reading(self.store.backend(), &self.info.key, "read", ask).await;
        let found = found.map_err(|error| self.now_gone(error))?;
        self.compare(found.meta.clone())?;
        Ok(Arc::new(Mutex::new(found.into_stream())))
    }

    /// At least `least` bytes, which are there unless it has changed.
    async fn next_of(&self, coming: &ByteStream, least: u64) -> Result<Bytes, StoreError> {
        let take = async || {
            let (mut coming, mut data) = (coming.lock().await, BytesMut::new());
            while (data.len() as u64) < least {
                let Some(more) = coming.try_next().await? else { break };
                data.extend_from_slice(&more);
            }
            Ok(data.freeze())
        };
        let data = reading(self.store.backend(), &self.info.key, "read", take).await?;
        match data.len() as u64 >= least {
            true => Ok(data),
            false => Err(self.cut_short(data.len(), least)),
        }
    }
}

/// Begins to fetch: it goes on by itself, and stops when nobody waits for it any more.
fn fetch(
    object: Object,
    range: Range<u64>,
) -> impl Future<Output = Result<Bytes, StoreError>> + Send + use<> {
    let fetching = AbortOnDropHandle::new(tokio::spawn(async move { object.range(range).await }));
    async move {
        match fetching.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels it.
                Err(_) => Err(StoreError::Stopped),
            },
        }
    }
}
