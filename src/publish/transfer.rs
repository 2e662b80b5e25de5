//! Sending objects to the destination. Each is sent with its MD5, and the ETag that the server returns
//! is compared with that of the source.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::error::{is_fatal, is_transient};
use super::held_lease::LeaseHandle;
use super::limiter::{Permit, RequestLimiter};
use super::{Concurrency, ObjectEntry, PublishError};
use crate::executor::{MemoryPermit, Pool, Stopped, spawn_abort_on_drop, unless_stopped};
use crate::model::{ETag, Md5Digest};
use crate::store::{Object, PartBody, PutOptions, Store, StoreError, Upload, count_failures};

/// Objects that are sent in several parts at the same time with [`Concurrency::Auto`]. The limit bounds
/// the memory and leaves most requests to small objects.
const MULTIPART_OBJECTS: usize = 4;
/// Parts of one object that are sent at the same time.
const PARTS: usize = 4;
/// Time that a stop waits for objects in flight.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Attempts to send an object.
const ATTEMPTS: u32 = 4;
/// Objects in a row that fail after all attempts before the server counts as unavailable.
const MAX_FAILURES: usize = 8;
/// Largest size in bytes of an object that is sent without waiting for memory.
const SMALL: u64 = 1 << 20;

/// An object that has arrived at the destination.
#[derive(Clone, Debug, Serialize)]
pub struct SentObject {
    /// Key of the object.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// MD5 of the object. `None` for an object that is sent in several parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5Digest>,
    /// ETag that the server returned. `None`: the destination has no ETags.
    pub etag: Option<String>,
    /// 1 plus the number of failed requests and failed attempts.
    pub attempts: u32,
    /// Time from the start of the first attempt, in milliseconds.
    pub milliseconds: u64,
}

/// A receiver of the progress of a publish; several tasks call it at the same time.
pub trait TransferProgress: Send + Sync {
    /// Sending starts: the number of objects to send, and their bytes.
    fn begin(&self, objects: usize, bytes: u64);
    /// More bytes are sent.
    fn advance(&self, bytes: u64);
    /// An object has arrived.
    fn sent(&self, sent: &SentObject);
    /// An attempt has failed; the object is sent again.
    fn retried(&self, key: &str, error: &PublishError);
    /// The total of failed requests so far; the client has sent them again.
    fn troubled(&self, requests: u64);
    /// An object has failed after all attempts.
    fn failed(&self, key: &str, error: &PublishError);
    /// An object has been deleted.
    fn deleted(&self, key: &str);
}

/// The stores, limits and options of sending.
pub(super) struct Transfer {
    pub source: Store,
    pub destination: Store,
    /// Limits requests: small objects and parts.
    pub requests: RequestLimiter,
    /// Limits objects that are sent in several parts.
    pub multipart: RequestLimiter,
    /// Size of the parts in bytes.
    pub part_size: u64,
    /// Whether multipart uploads of an interrupted publish may exist: they are continued.
    pub resumes: bool,
    /// Objects that do not match their record, by key, with the difference.
    pub mismatched: BTreeMap<String, String>,
    /// Memory budget of objects that are held while they are sent. `None`: unlimited.
    pub pool: Option<Pool>,
    pub lease: Arc<LeaseHandle>,
    pub progress: Arc<dyn TransferProgress>,
    pub stop: CancellationToken,
    pub cache_control: Option<String>,
    pub content_type: Option<String>,
}

impl Transfer {
    /// The limiter of objects that are sent in several parts.
    pub fn multipart_limiter(concurrency: Concurrency) -> RequestLimiter {
        let objects = match concurrency {
            Concurrency::Auto => MULTIPART_OBJECTS,
            Concurrency::Fixed(requests) => requests.div_ceil(PARTS),
        };
        RequestLimiter::new(Concurrency::Fixed(objects), None)
    }

    /// Sends objects in any order. Returns the number of objects that failed.
    pub async fn send_all(
        self: &Arc<Self>,
        entries: &[ObjectEntry],
    ) -> Result<usize, PublishError> {
        let mut waiting = entries.iter();
        let mut in_flight = FuturesUnordered::new();
        let (mut failed, mut failures_in_a_row) = (0, 0);
        let mut fatal: Option<PublishError> = None;
        loop {
            // One task more than the limits allow, so that the next object waits in a limiter.
            while fatal.is_none()
                && !self.stop.is_cancelled()
                && in_flight.len() <= self.requests.limit() + self.multipart.limit()
                && let Some(entry) = waiting.next()
            {
                let (this, entry) = (self.clone(), entry.clone());
                in_flight.push(spawn_abort_on_drop(async move {
                    let result = this.send(&entry).await;
                    (entry, result)
                }));
            }
            let done = tokio::select! {
                done = in_flight.next() => done,
                () = self.stop_grace_is_over() => return Err(Stopped.into()),
            };
            let Some(done) = done else { break };
            let Ok((entry, result)) = done else {
                failed += 1;
                continue;
            };
            match result {
                Ok(sent) => {
                    failures_in_a_row = 0;
                    self.progress.sent(&sent);
                }
                Err(error) if is_fatal(&error) => drop(fatal.get_or_insert(error)),
                Err(error) => {
                    failed += 1;
                    self.progress.failed(&entry.key, &error);
                    if let PublishError::Store(source @ StoreError::RetriesExhausted { .. }) = error
                    {
                        failures_in_a_row += 1;
                        if failures_in_a_row >= MAX_FAILURES {
                            let source = Box::new(source);
                            fatal.get_or_insert(PublishError::ServerUnavailable { failed, source });
                        }
                    } else {
                        failures_in_a_row = 0;
                    }
                }
            }
        }
        match fatal {
            // Objects that were in flight may have failed after this error.
            Some(PublishError::ServerUnavailable { source, .. }) => {
                Err(PublishError::ServerUnavailable { failed, source })
            }
            Some(error) => Err(error),
            None if self.stop.is_cancelled() => Err(Stopped.into()),
            None => Ok(failed),
        }
    }

    /// Waits for a stop and then [`STOP_GRACE`], in which objects in flight may still arrive.
    async fn stop_grace_is_over(&self) {
        self.stop.cancelled().await;
        // After a lost lease, objects in flight must not arrive.
        if !self.lease.is_lost() {
            tokio::time::sleep(STOP_GRACE).await;
        }
    }

    /// Sends an object, in one request or in several parts.
    async fn send(&self, entry: &ObjectEntry) -> Result<SentObject, PublishError> {
        if let Some(problem) = self.mismatched.get(&*entry.key) {
            return Err(self.not_as_recorded(entry, problem.clone()));
        }
        let (start, failures) = (Instant::now(), Arc::default());
        let sent = count_failures(&failures, async {
            let is_large = self.destination.location().is_local()
                && entry.size > self.destination.part_size() as u64;
            let whole = entry.etag.whole();
            let parts = match (&entry.parts, &whole) {
                (Some(parts), _) => parts,
                // A disk takes a large object in pieces, so that it is not held in memory.
                (None, Some(whole)) if is_large => std::slice::from_ref(whole),
                (None, _) => return self.send_whole(entry, &failures).await,
            };
            let _permit = self.acquire(&self.multipart, 0).await?;
            self.retry(entry, &failures, || self.send_parts_once(entry, parts)).await
        });
        let etag = sent.await?;
        Ok(SentObject {
            key: entry.key.to_string(),
            bytes: entry.size,
            md5: entry.etag.whole(),
            etag,
            attempts: failures.load(Ordering::Relaxed).saturating_add(1),
            milliseconds: start.elapsed().min(Duration::from_secs(1 << 40)).as_millis() as u64,
        })
    }

    /// Waits for a permit to send `bytes`, or for a stop.
    async fn acquire(&self, limiter: &RequestLimiter, bytes: u64) -> Result<Permit, PublishError> {
        Ok(unless_stopped(&self.stop, limiter.acquire(bytes)).await?)
    }

    /// Waits for memory to hold `bytes` while they are sent, or for a stop. Small objects do not wait:
    /// the queue may have conversions that need much memory.
    async fn memory(&self, bytes: u64) -> Result<Option<Arc<MemoryPermit>>, PublishError> {
        match &self.pool {
            Some(pool) if bytes > SMALL => {
                Ok(Some(unless_stopped(&self.stop, pool.memory(bytes)).await??))
            }
            _ => Ok(None),
        }
    }

    fn put_options(&self, md5: Option<Md5Digest>) -> PutOptions {
        PutOptions {
            content_type: self.content_type.clone(),
            cache_control: self.cache_control.clone(),
            md5,
            ..PutOptions::default()
        }
    }

    /// Sends an object in one request. Returns its ETag.
    async fn send_whole(
        &self,
        entry: &ObjectEntry,
        failures: &AtomicU32,
    ) -> Result<Option<String>, PublishError> {
        let permit = self.acquire(&self.requests, entry.size).await?;
        let _memory = self.memory(entry.size).await?;
        let (data, md5) = self.read_whole(entry).await?;
        let options = self.put_options(Some(md5));
        let once = || self.send_whole_once(entry, data.clone(), &options);
        let etag = self.retry(entry, failures, once).await?;
        drop(permit);
        self.progress.advance(entry.size);
        Ok(etag)
    }

    /// The error of an object of the source that differs from its record.
    fn not_as_recorded(&self, entry: &ObjectEntry, problem: String) -> PublishError {
        let url = self.source.location().join(&entry.key).to_string();
        PublishError::NotAsRecorded { url, problem }
    }

    /// Reads an object of the source. Returns its bytes and their MD5, which is that of `entry`.
    async fn read_whole(&self, entry: &ObjectEntry) -> Result<(Bytes, Md5Digest), PublishError> {
        let changed = |problem: String| self.not_as_recorded(entry, problem);
        let found = match self.source.get_within(&entry.key, entry.size).await {
            Err(StoreError::TooLarge { size: Some(size), .. }) => {
                return Err(changed(format!("{size} bytes, not {}", entry.size)));
            }
            found => found?,
        };
        let Some((data, _)) = found else { return Err(changed("it is missing".to_owned())) };
        if data.len() as u64 != entry.size {
            return Err(changed(format!("{} bytes, not {}", data.len(), entry.size)));
        }
        let md5 = Md5Digest::of(&data);
        match entry.etag.whole() == Some(md5) {
            true => Ok((data, md5)),
            false => Err(changed(format!("MD5 {md5}, not {}", entry.etag))),
        }
    }

    async fn send_whole_once(
        &self,
        entry: &ObjectEntry,
        data: Bytes,
        options: &PutOptions,
    ) -> Result<Option<String>, PublishError> {
        self.lease.ensure_held().await?;
        let info = self.destination.send(&entry.key, data, options).await;
        self.record_result();
        let etag = info?.etag;
        self.compare(entry, etag.as_deref())?;
        Ok(etag)
    }

    /// Calls `once` up to [`ATTEMPTS`] times while its error is transient. The client below has already
    /// retried each request.
    async fn retry<T, F: Future<Output = Result<T, PublishError>>>(
        &self,
        entry: &ObjectEntry,
        failures: &AtomicU32,
        once: impl Fn() -> F,
    ) -> Result<T, PublishError> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let before = failures.load(Ordering::Relaxed);
            match once().await {
                Err(error) if left > 0 && is_transient(&error) && !self.stop.is_cancelled() => {
                    // An attempt may fail although no request failed, as with a wrong ETag.
                    failures.fetch_max(before.saturating_add(1), Ordering::Relaxed);
                    self.progress.retried(&entry.key, &error);
                }
                result => break result,
            }
        }
    }

    /// Sends an object in parts, with only the parts in flight in memory. Returns its ETag.
    async fn send_parts_once(
        &self,
        entry: &ObjectEntry,
        parts: &[Md5Digest],
    ) -> Result<Option<String>, PublishError> {
        let key = &*entry.key;
        let changed = |problem: String| self.not_as_recorded(entry, problem);
        let object = self.source.open(key).await?;
        if object.info().size != entry.size {
            return Err(changed(format!("{} bytes, not {}", object.info().size, entry.size)));
        }
        let failures_before = self.destination.failures();
        let part_size = Some(self.part_size);
        let options = PutOptions { size: entry.size, part_size, ..self.put_options(None) };
        let upload = self.destination.create_as(key, options).await?;
        let arrived = match self.resumes {
            true => upload.resume(parts).await?,
            false => BTreeSet::new(),
        };
        if let Err(error) = self.send_parts(&object, &upload, (parts, &arrived)).await {
            match error {
                // The next publish continues the upload, if the server lists unfinished uploads.
                PublishError::Stopped(_) if !self.destination.is_source_coop() => upload.leave(),
                _ => upload.abort().await?,
            }
            return Err(match error {
                PublishError::Store(StoreError::Differs { found, expected, start, .. }) => {
                    changed(format!("MD5 {found} from byte {start} on, not {expected}"))
                }
                error => error,
            });
        }
        if let Err(error) = self.lease.ensure_held().await {
            upload.leave();
            return Err(error);
        }
        let is_sent = |etag: &str| etag.parse::<ETag>().is_ok_and(|etag| etag == entry.etag);
        let info = match upload.complete().await {
            // A request whose response was lost may have completed the upload, and the server may then
            // refuse the next one.
            Err(error) => {
                let found = self.destination.head(key).await.ok().flatten();
                let found = found.filter(|info| info.etag.as_deref().is_some_and(is_sent));
                found.ok_or(error)?
            }
            Ok(info) => info,
        };
        if self.destination.failures() != failures_before {
            // A request whose response was lost may have started a second upload. The object is complete,
            // so a failure to remove that upload only costs storage.
            if let Err(error) = self.destination.abort_uploads(key).await {
                warn!(%error, "cannot remove unfinished uploads of {key}; they use storage");
            }
        }
        self.compare(entry, info.etag.as_deref())?;
        Ok(info.etag)
    }

    /// Sends all parts except those that have `arrived`. No part is in flight when it returns, also after
    /// an error: a part that arrives after the upload is aborted would stay in storage.
    async fn send_parts(
        &self,
        object: &Object,
        upload: &Upload,
        (parts, arrived): (&[Md5Digest], &BTreeSet<usize>),
    ) -> Result<(), PublishError> {
        let mut in_flight = FuturesUnordered::new();
        let send = async {
            for (index, md5) in parts.iter().enumerate() {
                if arrived.contains(&index) {
                    self.progress.advance(upload.part_size() as u64);
                    continue;
                }
                if self.stop.is_cancelled() {
                    return Err(Stopped.into());
                }
                in_flight.push(self.send_part(object, upload, index, *md5));
                while in_flight.len() >= PARTS {
                    in_flight.try_next().await?;
                }
            }
            while in_flight.try_next().await?.is_some() {}
            Ok(())
        };
        let result: Result<_, PublishError> = send.await;
        while in_flight.next().await.is_some() {}
        result
    }

    /// Sends a part and compares its bytes with `md5` while they are read.
    async fn send_part(
        &self,
        object: &Object,
        upload: &Upload,
        index: usize,
        md5: Md5Digest,
    ) -> Result<(), PublishError> {
        let part_size = upload.part_size() as u64;
        let start = part_size.saturating_mul(index as u64);
        let range = start..object.info().size.min(start.saturating_add(part_size));
        let size = range.end.saturating_sub(start);
        let _permit = self.acquire(&self.requests, size).await?;
        let _memory = self.memory(if upload.holds(object) { size } else { 0 }).await?;
        upload.part_with_md5(index, PartBody::Range(object.clone(), range), md5).await?;
        self.record_result();
        self.progress.advance(size);
        Ok(())
    }

    /// Reports the failed requests so far to the limiter and to the progress.
    fn record_result(&self) {
        let failures = self.destination.failures();
        self.requests.record_result(failures);
        self.progress.troubled(failures);
    }

    /// Compares the ETag that the server returned with that of the source, if it is computed from MD5s.
    fn compare(&self, entry: &ObjectEntry, etag: Option<&str>) -> Result<(), PublishError> {
        let etag = etag.filter(|_| self.destination.etag_is_md5());
        match etag.and_then(|etag| etag.parse::<ETag>().ok()) {
            Some(found) if found.is_comparable(&entry.etag) && found != entry.etag => {
                Err(PublishError::Damaged {
                    url: self.destination.location().join(&entry.key).to_string(),
                    found: found.to_string(),
                    sent: entry.etag.to_string(),
                })
            }
            _ => Ok(()),
        }
    }
}
