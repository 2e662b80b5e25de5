//! Sending objects: each with its MD5, checked against what the server says has arrived.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::claim::Held;
use super::error::{ends_all, is_passing};
use super::flow::{Flow, Leave};
use super::journal::Journal;
use super::md5_lanes::{Lane, Md5Lanes};
use super::md5_pair::Md5Pair;
use super::{Concurrency, Digest, Entry, PublishError};
use crate::pipeline::{Stopped, begin, unless_stopped};
use crate::store::{Body, Object, Sending, Store, StoreError, Upload, count_failures};

/// Objects by parts that are under way at the same time, unless a number of requests is asked for,
/// and parts of each: bounds the memory, and leaves most requests to small objects.
const LARGE: usize = 4;
const PARTS: usize = 4;
/// Bytes that are read at a time, of which parts have whole numbers, and pieces read ahead.
const PIECE: u64 = 1 << 20;
const AHEAD: usize = 4;
/// How long a stop waits for what is under way.
const GRACE: Duration = Duration::from_secs(10);
/// How often an object is tried.
const TRIES: u32 = 4;
/// Objects in a row that a server has not taken, for as long as each was tried: it is not there any more.
const GIVE_UP: usize = 8;

/// An object that has arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Sent {
    /// Place.
    pub key: String,
    /// Bytes.
    pub bytes: u64,
    /// MD5.
    pub md5: Digest,
    /// What the server calls this version of it.
    pub etag: Option<String>,
    /// One, and one more for each request or try that failed.
    pub attempts: u32,
    /// Time it took, with all tries.
    pub milliseconds: u64,
}

/// Where a publish tells how far it is; called from several tasks.
pub trait Progress: Send + Sync {
    /// So much is to be sent.
    fn begin(&self, objects: usize, bytes: u64);
    /// Bytes have gone out.
    fn advance(&self, bytes: u64);
    /// An object has arrived.
    fn sent(&self, sent: &Sent);
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
    pub flow: Flow,
    /// Objects by parts, which have a queue of their own.
    pub large: Flow,
    /// Where their digests are taken.
    pub lanes: Arc<Md5Lanes>,
    pub journal: Arc<Journal>,
    pub held: Arc<Held>,
    pub progress: Arc<dyn Progress>,
    pub stop: CancellationToken,
    pub cache_control: Option<String>,
    pub content_type: Option<String>,
}

impl Transfer {
    /// The queue of objects that are sent by parts.
    pub fn large_queue(concurrency: Concurrency) -> Flow {
        let large = match concurrency {
            Concurrency::Auto => LARGE,
            Concurrency::Fixed(requests) => requests.div_ceil(PARTS),
        };
        Flow::new(Concurrency::Fixed(large), None)
    }

    /// Sends objects in any order; how many failed.
    pub async fn send_all(self: &Arc<Self>, entries: &[Entry]) -> Result<usize, PublishError> {
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
                    self.journal.done(&entry.key, entry.md5);
                    self.progress.sent(&sent);
                }
                Err(error) if ends_all(&error) => drop(end.get_or_insert(error)),
                Err(error) => {
                    failed += 1;
                    self.progress.failed(&entry.key, &error);
                    exhausted = match error {
                        PublishError::Store(source @ StoreError::Exhausted { .. }) => {
                            if exhausted + 1 >= GIVE_UP {
                                let source = Box::new(source);
                                end.get_or_insert(PublishError::GivenUp { failed, source });
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
            Some(PublishError::GivenUp { source, .. }) => {
                Err(PublishError::GivenUp { failed, source })
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

    async fn send(&self, entry: &Entry) -> Result<Sent, PublishError> {
        let (begun, failures) = (Instant::now(), Arc::default());
        let sent = count_failures(&failures, async {
            if entry.size <= self.destination.part_size() as u64 {
                return self.send_whole(entry, &failures).await;
            }
            let _leave = self.enter(&self.large, 0).await?;
            self.try_often(entry, &failures, || self.send_parts_once(entry)).await
        });
        let etag = sent.await?;
        Ok(Sent {
            key: entry.key.to_string(),
            bytes: entry.size,
            md5: entry.md5,
            etag,
            attempts: failures.load(Ordering::Relaxed).saturating_add(1),
            milliseconds: begun.elapsed().min(Duration::from_secs(1 << 40)).as_millis() as u64,
        })
    }

    /// Waits for leave to send so many bytes, or for a stop.
    async fn enter(&self, flow: &Flow, bytes: u64) -> Result<Leave, PublishError> {
        Ok(unless_stopped(&self.stop, flow.enter(bytes)).await?)
    }

    fn sending(&self, md5: Option<Digest>) -> Sending {
        Sending {
            content_type: self.content_type.clone(),
            cache_control: self.cache_control.clone(),
            md5: md5.map(|md5| md5.0),
            ..Sending::default()
        }
    }

    async fn send_whole(
        &self,
        entry: &Entry,
        failures: &AtomicU32,
    ) -> Result<Option<String>, PublishError> {
        let leave = self.enter(&self.flow, entry.size).await?;
        let data = self.read_whole(entry).await?;
        let sending = self.sending(Some(entry.md5));
        let once = || self.send_whole_once(entry, data.clone(), &sending);
        let etag = self.try_often(entry, failures, once).await?;
        drop(leave);
        self.progress.advance(entry.size);
        Ok(etag)
    }

    async fn read_whole(&self, entry: &Entry) -> Result<Bytes, PublishError> {
        let url = || self.source.location().join(&entry.key).to_string();
        let changed = |problem: String| PublishError::NotAsRecorded { url: url(), problem };
        let found = match self.source.read_within(&entry.key, entry.size).await {
            Err(StoreError::TooLarge { size: Some(size), .. }) => {
                return Err(changed(format!("{size} bytes, not {}", entry.size)));
            }
            found => found?,
        };
        let Some((data, _)) = found else { return Err(changed("it is gone".to_owned())) };
        if data.len() as u64 != entry.size {
            return Err(changed(format!("{} bytes, not {}", data.len(), entry.size)));
        }
        let found = Digest::of(&data);
        match found == entry.md5 {
            true => Ok(data),
            false => Err(changed(format!("MD5 {found}, not {}", entry.md5))),
        }
    }

    async fn send_whole_once(
        &self,
        entry: &Entry,
        data: Bytes,
        sending: &Sending,
    ) -> Result<Option<String>, PublishError> {
        let _change = self.held.change(entry).await?;
        let info = self.destination.send(&entry.key, data, sending).await;
        self.follow();
        let etag = info?.etag;
        self.compare(&entry.key, etag.as_deref(), &entry.md5.to_string())?;
        Ok(etag)
    }

    /// Tries until it goes well, or there is no hope: the client below has tried each request often by itself.
    async fn try_often<T, F: Future<Output = Result<T, PublishError>>>(
        &self,
        entry: &Entry,
        failures: &AtomicU32,
        once: impl Fn() -> F,
    ) -> Result<T, PublishError> {
        let mut left = TRIES;
        loop {
            left -= 1;
            let before = failures.load(Ordering::Relaxed);
            match once().await {
                Err(error) if left > 0 && is_passing(&error) && !self.stop.is_cancelled() => {
                    // What comes of good answers is one failure too.
                    failures.fetch_max(before.saturating_add(1), Ordering::Relaxed);
                    self.progress.retried(&entry.key, &error);
                }
                result => break result,
            }
        }
    }

    /// Sends an object by parts, while nothing but its parts is in memory.
    async fn send_parts_once(&self, entry: &Entry) -> Result<Option<String>, PublishError> {
        let key = &*entry.key;
        let url = || self.source.location().join(key).to_string();
        let changed = |problem: String| PublishError::NotAsRecorded { url: url(), problem };
        let object = self.source.object(key).await?;
        if object.info().size != entry.size {
            return Err(changed(format!("{} bytes, not {}", object.info().size, entry.size)));
        }
        let trouble = self.destination.failures();
        self.journal.begun(key).await?;
        let sending = Sending { size: entry.size, ..self.sending(None) };
        let upload = self.destination.create_as(key, sending).await?;
        if let Some(id) = upload.begin().await? {
            self.journal.upload(key, &id).await?;
        }
        let sent = self.parts(&object, &upload).await;
        let sent = sent.and_then(|(whole, parts)| match whole == entry.md5 {
            true => Ok(parts),
            false => Err(changed(format!("MD5 {whole}, not {}", entry.md5))),
        });
        let parts = match sent {
            Ok(parts) => parts,
            Err(error) => {
                upload.abort().await?;
                return Err(error);
            }
        };
        let change = match self.held.change(entry).await {
            Ok(change) => change,
            Err(error) => {
                upload.abort().await?;
                return Err(error);
            }
        };
        let etag = Digest::etag_of_parts(&parts);
        let info = match upload.complete().await {
            // A try whose answer was lost may have completed it; what a server says to the next
            // is its own affair.
            Err(lost) => {
                let found = self.destination.find(key).await.ok().flatten();
                found.filter(|found| found.etag.as_ref() == Some(&etag)).ok_or(lost)?
            }
            Ok(info) => info,
        };
        drop(change);
        if self.destination.failures() != trouble {
            // An upload whose beginning was answered, but not heard, may have been left. It takes room, and
            // harms nobody: the object is there.
            if let Err(error) = self.destination.abort_uploads(key, &[]).await {
                warn!(%error, "unfinished uploads of {key} may stay; --audit ends them");
            }
        }
        self.compare(key, info.etag.as_deref(), &etag)?;
        Ok(info.etag)
    }

    /// Sends all parts; the MD5 of the whole and of each. None is under way afterwards, whatever
    /// came of it: one that arrives after an abort would stay.
    async fn parts(
        &self,
        object: &Object,
        upload: &Upload,
    ) -> Result<(Digest, Vec<Digest>), PublishError> {
        let (size, part_size) = (object.info().size, upload.part_size() as u64);
        let mut under_way = FuturesUnordered::new();
        let sent = async {
            let (mut md5, mut parts, mut start) = (Md5Pair::default(), Vec::new(), 0);
            while start < size {
                if self.stop.is_cancelled() {
                    return Err(Stopped.into());
                }
                let end = size.min(start + part_size);
                let mut read = pin!(self.read(object, upload, start..end, md5));
                let body = loop {
                    tokio::select! {
                        read = &mut read => {
                            let (body, after) = read?;
                            md5 = after;
                            break body;
                        }
                        Some(sent) = under_way.next() => sent?,
                    }
                };
                let digest = md5.end_part();
                under_way.push(self.part(upload, parts.len(), body, digest));
                parts.push(digest);
                start = end;
                while under_way.len() >= PARTS {
                    under_way.try_next().await?;
                }
            }
            while under_way.try_next().await?.is_some() {}
            Ok((md5.whole(), parts))
        };
        let result: Result<_, PublishError> = sent.await;
        while under_way.next().await.is_some() {}
        result
    }

    /// A range of an object as a part of an upload, and the digests after it.
    async fn read(
        &self,
        object: &Object,
        upload: &Upload,
        range: Range<u64>,
        mut md5: Md5Pair,
    ) -> Result<(Body, Md5Pair), PublishError> {
        if upload.reads_again(object) {
            let lane = self.lanes.lane(md5);
            let mut lane = object.fold(range.clone(), lane, Lane::update).await?;
            let body = Body::Range(object.clone(), range);
            return Ok((body, std::mem::take(&mut lane.md5)));
        }
        let pieces: Vec<Bytes> = object.pieces_of(range, PIECE, AHEAD).try_collect().await?;
        pieces.iter().for_each(|piece| md5.update(piece));
        Ok((Body::Bytes(pieces), md5))
    }

    async fn part(
        &self,
        upload: &Upload,
        index: usize,
        body: Body,
        md5: Digest,
    ) -> Result<(), PublishError> {
        let size = body.size();
        let _leave = self.enter(&self.flow, size).await?;
        upload.part_with_md5(index, body, md5.0).await?;
        self.follow();
        self.progress.advance(size);
        Ok(())
    }

    /// Takes account of the requests that have failed.
    fn follow(&self) {
        let failures = self.destination.failures();
        self.flow.follow(failures);
        self.progress.troubled(failures);
    }

    /// Compares what the server says has arrived with what was sent. Not every ETag is an MD5.
    fn compare(&self, key: &str, etag: Option<&str>, sent: &str) -> Result<(), PublishError> {
        let tells_md5 = |etag: &str| {
            let (digest, parts) = etag.split_once('-').unwrap_or((etag, ""));
            digest.parse::<Digest>().is_ok() && parts.is_empty() != sent.contains('-')
        };
        match etag {
            Some(found) if self.destination.tells_md5() && tells_md5(found) && found != sent => {
                Err(PublishError::Damaged {
                    url: self.destination.location().join(key).to_string(),
                    found: found.to_owned(),
                    sent: sent.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }
}
