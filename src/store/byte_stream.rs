//! Streams of the bytes of an object, in order.
//!
//! Chunks are fetched by parallel range requests. From a server without range requests, one response is
//! read from its start.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::backend::attempt_read;
use super::error::StoreError;
use super::object::Object;

/// The body of a response.
type ResponseBody = Arc<Mutex<BoxStream<'static, object_store::Result<Bytes>>>>;

impl Object {
    /// Streams the whole object in order, in chunks of `chunk` bytes. `ahead` chunks are fetched in
    /// parallel, also while the stream is not polled.
    pub fn stream(
        &self,
        chunk: u64,
        ahead: usize,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        self.stream_range(0..self.info.size, chunk, ahead)
    }

    /// Like [`Object::stream`], for one range of bytes.
    pub fn stream_range(
        &self,
        Range { start, end }: Range<u64>,
        chunk: u64,
        ahead: usize,
    ) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let chunk = chunk.max(1);
        // Only the first response shows whether the server supports ranges.
        let first_end = match self.store.backend().may_ignore_ranges() {
            true => start.saturating_add(chunk).min(end),
            false => start,
        };
        let (object, rest_object) = (self.clone(), self.clone());
        let first = stream::iter((start < first_end).then_some(start..first_end))
            .then(move |range| fetch(object.clone(), range));
        let rest = async move {
            match rest_object.store.backend().ignores_ranges() {
                true => rest_object.stream_one_response(first_end..end, chunk).left_stream(),
                false => {
                    rest_object.stream_in_parallel(first_end..end, chunk, ahead).right_stream()
                }
            }
        };
        first.chain(stream::once(rest).flatten()).boxed()
    }

    /// A range by parallel requests of `chunk` bytes each.
    fn stream_in_parallel(
        self,
        Range { start, end }: Range<u64>,
        chunk: u64,
        ahead: usize,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let count = end.saturating_sub(start).div_ceil(chunk);
        stream::iter(0..count)
            .map(move |index| {
                let from = start.saturating_add(index.saturating_mul(chunk));
                let range = from..from.saturating_add(chunk).min(end);
                fetch(self.clone(), range)
            })
            .buffered(ahead.max(1))
    }

    /// A range by one request, in chunks of at least `chunk` bytes.
    fn stream_one_response(
        self,
        Range { start, end }: Range<u64>,
        chunk: u64,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        stream::try_unfold((None, start), move |(body, offset)| {
            let object = self.clone();
            async move {
                if offset >= end {
                    return Ok(None);
                }
                let body = match body {
                    Some(body) => body,
                    None => object.request_body(offset..end).await?,
                };
                let data = object.next_chunk(&body, chunk.min(end - offset)).await?;
                let next_offset = offset.saturating_add(data.len() as u64);
                Ok(Some((data, (Some(body), next_offset))))
            }
        })
    }

    /// Requests a range. Fails if the object is not the one that was opened.
    async fn request_body(&self, range: Range<u64>) -> Result<ResponseBody, StoreError> {
        let objects = self.store.backend().objects().await?;
        let request = || objects.get_opts(&self.path, self.get_options(&range));
        let result = attempt_read(self.store.backend(), &self.info.key, "read", request).await;
        let response = result.map_err(|error| self.absent_as_changed(error))?;
        self.compare(response.meta.clone())?;
        Ok(Arc::new(Mutex::new(response.into_stream())))
    }

    /// Reads at least `least` bytes of a response.
    ///
    /// # Errors
    /// The response ends early: the object has changed.
    async fn next_chunk(&self, body: &ResponseBody, least: u64) -> Result<Bytes, StoreError> {
        let take = async || {
            let (mut body, mut data) = (body.lock().await, BytesMut::new());
            while (data.len() as u64) < least {
                let Some(bytes) = body.try_next().await? else { break };
                data.extend_from_slice(&bytes);
            }
            Ok(data.freeze())
        };
        let data = attempt_read(self.store.backend(), &self.info.key, "read", take).await?;
        match data.len() as u64 >= least {
            true => Ok(data),
            false => Err(self.short_read(data.len(), least)),
        }
    }
}

/// Starts a task that reads a range. Dropping the returned future aborts the task.
fn fetch(
    object: Object,
    range: Range<u64>,
) -> impl Future<Output = Result<Bytes, StoreError>> + Send + use<> {
    let task = AbortOnDropHandle::new(tokio::spawn(async move { object.range(range).await }));
    async move {
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The task is cancelled only when the runtime shuts down.
                Err(_) => Err(StoreError::Stopped),
            },
        }
    }
}
