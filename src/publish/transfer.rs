//! Sending objects: each with its MD5, checked against what the server says has arrived.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
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
use super::lease_guard::ActiveLease;
use super::limiter::{Permit, RequestLimiter};
use super::{Concurrency, ObjectEntry, PublishError};
use crate::executor::{MemoryPermit, Pool, Stopped, begin, unless_stopped};
use crate::model::{ETag, Md5Digest};
use crate::store::{Object, PartBody, PutOptions, Store, StoreError, Upload, count_failures};

/// Objects by parts that are under way at the same time, unless a number of requests is asked for,
/// and parts of each: bounds the memory, and leaves most requests to small objects.
const LARGE: usize = 4;
const PARTS: usize = 4;
/// How long a stop waits for what is under way.
const GRACE: Duration = Duration::from_secs(10);
/// How often an object is tried.
const TRIES: u32 = 4;
/// Objects in a row that a server has not taken, for as long as each was tried: it is not there any more.
const GIVE_UP: usize = 8;
/// Bytes of a small object.
const SMALL: u64 = 1 << 20;

/// An object that has arrived.
#[derive(Clone, Debug, Serialize)]
pub struct SentObject {
    /// Place.
    pub key: String,
    /// Bytes.
    pub bytes: u64,
    /// MD5, where it went whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub md5: Option<Md5Digest>,
    /// What the server calls this version of it.
    pub etag: Option<String>,
    /// One, and one more for each request or try that failed.
    pub attempts: u32,
    /// Time it took, with all tries.
    pub milliseconds: u64,
}

/// Where a publish tells how far it is; called from several tasks.
pub trait TransferProgress: Send + Sync {
    /// So much is to be sent.
    fn begin(&self, objects: usize, bytes: u64);
    /// Bytes have gone out.
    fn advance(&self, bytes: u64);
    /// An object has arrived.
    fn sent(&self, sent: &SentObject);
    /// A try has failed; there will be another.
    fn retried(&self, key: &str, error: &PublishError);
    /// So many requests have failed, and were sent again.
    fn troubled(&self, requests: u64);
    /// An object has failed for good.
    fn failed(&self, key: &str, error: &PublishError);
    /// An object has been deleted.
    fn deleted(&self, key: &str);
}

/// What sending needs.
pub(super) struct Transfer {
    pub source: Store,
    pub destination: Store,
    pub flow: RequestLimiter,
    /// Objects by parts, which have a queue of their own.
    pub large: RequestLimiter,
    /// Bytes of their parts.
    pub part_size: u64,
    /// Whether uploads by parts may lie there that were begun and not ended: they are continued.
    pub resumes: bool,
    /// Objects that are not what their records tell, by key, and why.
    pub damaged: BTreeMap<String, String>,
    /// The memory that what is held on its way takes, if it is bounded.
    pub pool: Option<Pool>,
    pub held: Arc<ActiveLease>,
    pub progress: Arc<dyn TransferProgress>,
    pub stop: CancellationToken,
    pub cache_control: Option<String>,
    pub content_type: Option<String>,
}

impl Transfer {
    /// The queue of objects that are sent by parts.
    pub fn large_limiter(concurrency: Concurrency) -> RequestLimiter {
        let large = match concurrency {
            Concurrency::Auto => LARGE,
            Concurrency::Fixed(requests) => requests.div_ceil(PARTS),
        };
        RequestLimiter::new(Concurrency::Fixed(large), None)
    }

    /// Sends objects in any order; how many failed.
    pub async fn send_all(
        self: &Arc<Self>,
        entries: &[ObjectEntry],
    ) -> Result<usize, PublishError> {
        let mut waiting = entries.iter();
        let mut under_way = FuturesUnordered::new();
        let (mut failed, mut exhausted) = (0, 0);
        let mut end: Option<PublishError> = None;
        loop {
            // One more waits than may enter, so that none waits for us.
            while end.is_none()
                && !self.stop.is_cancelled()
                && under_way.len() <= self.flow.limit() + self.large.limit()
                && let Some(entry) = waiting.next()
            {
                let (this, entry) = (self.clone(), entry.clone());
                under_way.push(begin(async move {
                    let result = this.send(&entry).await;
                    (entry, result)
                }));
            }
            let done = tokio::select! {
                done = under_way.next() => done,
                () = self.given_up() => return Err(Stopped.into()),
            };
            let Some(done) = done else { break };
            let Ok((entry, result)) = done else {
                failed += 1;
                continue;
            };
            match result {
                Ok(sent) => {
                    exhausted = 0;
                    self.progress.sent(&sent);
                }
                Err(error) if is_fatal(&error) => drop(end.get_or_insert(error)),
                Err(error) => {
                    failed += 1;
                    self.progress.failed(&entry.key, &error);
                    exhausted = match error {
                        PublishError::Store(source @ StoreError::RetriesExhausted { .. }) => {
                            if exhausted + 1 >= GIVE_UP {
                                let source = Box::new(source);
                                end.get_or_insert(PublishError::ServerUnavailable {
                                    failed,
                                    source,
                                });
                            }
                            exhausted + 1
                        }
                        _ => 0,
                    };
                }
            }
        }
        match end {
            // Of those that were under way, too.
            Some(PublishError::ServerUnavailable { source, .. }) => {
                Err(PublishError::ServerUnavailable { failed, source })
            }
            Some(error) => Err(error),
            None if self.stop.is_cancelled() => Err(Stopped.into()),
            None => Ok(failed),
        }
    }

    /// Returns when a stop has waited long enough for what is under way.
    async fn given_up(&self) {
        self.stop.cancelled().await;
        // What is another's now is not waited for.
        if !self.held.is_lost() {
            tokio::time::sleep(GRACE).await;
        }
    }

    async fn send(&self, entry: &ObjectEntry) -> Result<SentObject, PublishError> {
        if let Some(problem) = self.damaged.get(&*entry.key) {
            let (url, problem) = (self.source.location().join(&entry.key), problem.clone());
            return Err(PublishError::NotAsRecorded { url: url.to_string(), problem });
        }
        let (begun, failures) = (Instant::now(), Arc::default());
        let sent = count_failures(&failures, async {
            let is_large = self.destination.location().is_local()
                && entry.size > self.destination.part_size() as u64;
            let one = entry.etag.whole();
            let parts = match (&entry.parts, &one) {
                (Some(parts), _) => parts,
                // On a disk it costs nothing not to hold it in memory.
                (None, Some(one)) if is_large => std::slice::from_ref(one),
                (None, _) => return self.send_whole(entry, &failures).await,
            };
            let _leave = self.enter(&self.large, 0).await?;
            self.try_often(entry, &failures, || self.send_parts_once(entry, parts)).await
        });
        let etag = sent.await?;
        Ok(SentObject {
            key: entry.key.to_string(),
            bytes: entry.size,
            md5: entry.etag.whole(),
            etag,
            attempts: failures.load(Ordering::Relaxed).saturating_add(1),
            milliseconds: begun.elapsed().min(Duration::from_secs(1 << 40)).as_millis() as u64,
        })
    }

    /// Waits for leave to send so many bytes, or for a stop.
    async fn enter(&self, flow: &RequestLimiter, bytes: u64) -> Result<Permit, PublishError> {
        Ok(unless_stopped(&self.stop, flow.acquire(bytes)).await?)
    }

    /// Waits for memory for so many bytes that are held on their way, or for a stop. Small objects wait for no
    /// memory: beside processing they would wait behind work that takes much.
    async fn room(&self, bytes: u64) -> Result<Option<Arc<MemoryPermit>>, PublishError> {
        match &self.pool {
            Some(pool) if bytes > SMALL => {
                Ok(Some(unless_stopped(&self.stop, pool.memory(bytes)).await??))
            }
            _ => Ok(None),
        }
    }

    fn sending(&self, md5: Option<Md5Digest>) -> PutOptions {
        PutOptions {
            content_type: self.content_type.clone(),
            cache_control: self.cache_control.clone(),
            md5,
            ..PutOptions::default()
        }
    }

    async fn send_whole(
        &self,
        entry: &ObjectEntry,
        failures: &AtomicU32,
    ) -> Result<Option<String>, PublishError> {
        let leave = self.enter(&self.flow, entry.size).await?;
        let _room = self.room(entry.size).await?;
        let (data, md5) = self.read_whole(entry).await?;
        let sending = self.sending(Some(md5));
        let once = || self.send_whole_once(entry, data.clone(), &sending);
        let etag = self.try_often(entry, failures, once).await?;
        drop(leave);
        self.progress.advance(entry.size);
        Ok(etag)
    }

    /// The bytes of an object that goes whole, and their MD5, which is that of the record.
    async fn read_whole(&self, entry: &ObjectEntry) -> Result<(Bytes, Md5Digest), PublishError> {
        let url = || self.source.location().join(&entry.key).to_string();
        let changed = |problem: String| PublishError::NotAsRecorded { url: url(), problem };
        let found = match self.source.get_within(&entry.key, entry.size).await {
            Err(StoreError::TooLarge { size: Some(size), .. }) => {
                return Err(changed(format!("{size} bytes, not {}", entry.size)));
            }
            found => found?,
        };
        let Some((data, _)) = found else { return Err(changed("it is gone".to_owned())) };
        if data.len() as u64 != entry.size {
            return Err(changed(format!("{} bytes, not {}", data.len(), entry.size)));
        }
        let found = Md5Digest::of(&data);
        match entry.etag.whole() == Some(found) {
            true => Ok((data, found)),
            false => Err(changed(format!("MD5 {found}, not {}", entry.etag))),
        }
    }

    async fn send_whole_once(
        &self,
        entry: &ObjectEntry,
        data: Bytes,
        sending: &PutOptions,
    ) -> Result<Option<String>, PublishError> {
        self.held.allow().await?;
        let info = self.destination.send(&entry.key, data, sending).await;
        self.follow();
        let etag = info?.etag;
        self.compare(entry, etag.as_deref())?;
        Ok(etag)
    }

    /// Tries until it goes well, or there is no hope: the client below has tried each request often by itself.
    async fn try_often<T, F: Future<Output = Result<T, PublishError>>>(
        &self,
        entry: &ObjectEntry,
        failures: &AtomicU32,
        once: impl Fn() -> F,
    ) -> Result<T, PublishError> {
        let mut left = TRIES;
        loop {
            left -= 1;
            let before = failures.load(Ordering::Relaxed);
            match once().await {
                Err(error) if left > 0 && is_transient(&error) && !self.stop.is_cancelled() => {
                    // What comes of good answers is one failure too.
                    failures.fetch_max(before.saturating_add(1), Ordering::Relaxed);
                    self.progress.retried(&entry.key, &error);
                }
                result => break result,
            }
        }
    }

    /// Sends an object by parts, while nothing but its parts is in memory.
    async fn send_parts_once(
        &self,
        entry: &ObjectEntry,
        parts: &[Md5Digest],
    ) -> Result<Option<String>, PublishError> {
        let key = &*entry.key;
        let url = || self.source.location().join(key).to_string();
        let changed = |problem: String| PublishError::NotAsRecorded { url: url(), problem };
        let object = self.source.open(key).await?;
        if object.info().size != entry.size {
            return Err(changed(format!("{} bytes, not {}", object.info().size, entry.size)));
        }
        let trouble = self.destination.failures();
        let part_size = Some(self.part_size);
        let sending = PutOptions { size: entry.size, part_size, ..self.sending(None) };
        let upload = self.destination.create_as(key, sending).await?;
        let there = match self.resumes {
            true => upload.resume(parts).await?,
            false => BTreeSet::new(),
        };
        if let Err(error) = self.parts(&object, &upload, (parts, &there)).await {
            match error {
                // The next publish goes on with it, where it can ask for it.
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
        if let Err(error) = self.held.allow().await {
            upload.leave();
            return Err(error);
        }
        let is_ours = |found: &str| found.parse::<ETag>().is_ok_and(|found| found == entry.etag);
        let info = match upload.complete().await {
            // A try whose answer was lost may have completed it; what a server says to the next
            // is its own affair.
            Err(lost) => {
                let found = self.destination.head(key).await.ok().flatten();
                let found = found.filter(|found| found.etag.as_deref().is_some_and(is_ours));
                found.ok_or(lost)?
            }
            Ok(info) => info,
        };
        if self.destination.failures() != trouble {
            // An upload whose beginning was answered, but not heard, may have been left. It takes room, and
            // harms nobody: the object is there.
            if let Err(error) = self.destination.abort_uploads(key).await {
                warn!(%error, "unfinished uploads of {key} may stay");
            }
        }
        self.compare(entry, info.etag.as_deref())?;
        Ok(info.etag)
    }

    /// Sends all parts but those that are `there`. None is under way afterwards, whatever came of it: one that arrives after an
    /// abort would stay.
    async fn parts(
        &self,
        object: &Object,
        upload: &Upload,
        (parts, there): (&[Md5Digest], &BTreeSet<usize>),
    ) -> Result<(), PublishError> {
        let mut under_way = FuturesUnordered::new();
        let sent = async {
            for (index, md5) in parts.iter().enumerate() {
                if there.contains(&index) {
                    self.progress.advance(upload.part_size() as u64);
                    continue;
                }
                if self.stop.is_cancelled() {
                    return Err(Stopped.into());
                }
                under_way.push(self.part(object, upload, index, *md5));
                while under_way.len() >= PARTS {
                    under_way.try_next().await?;
                }
            }
            while under_way.try_next().await?.is_some() {}
            Ok(())
        };
        let result: Result<_, PublishError> = sent.await;
        while under_way.next().await.is_some() {}
        result
    }

    /// Sends a part, which is compared with its MD5 as it is read.
    async fn part(
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
        let _leave = self.enter(&self.flow, size).await?;
        let _room = self.room(if upload.holds(object) { size } else { 0 }).await?;
        upload.part_with_md5(index, PartBody::Range(object.clone(), range), md5).await?;
        self.follow();
        self.progress.advance(size);
        Ok(())
    }

    /// Takes account of the requests that have failed.
    fn follow(&self) {
        let failures = self.destination.failures();
        self.flow.record_result(failures);
        self.progress.troubled(failures);
    }

    /// Compares what the server says has arrived with what was sent. Not every ETag is made of MD5s.
    fn compare(&self, entry: &ObjectEntry, etag: Option<&str>) -> Result<(), PublishError> {
        let told = etag.filter(|_| self.destination.etag_is_md5());
        match told.and_then(|etag| etag.parse::<ETag>().ok()) {
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
