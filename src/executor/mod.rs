//! Bounded work: bytes are fetched ahead, turned on CPU threads, and stored while more are turned.
//!
//! Async code and CPU work meet in [`Pool::run`] and nowhere else.

pub(crate) mod memory;
mod shared_reads;

use std::ops::Range;
use std::sync::{Arc, Once};

use bytes::Bytes;
use futures::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

pub use shared_reads::{ReadCoordinator, ReadMode, Reader};

use crate::encode::{PartSink, SinkError};
use crate::model::{ErrorKind, Md5Digest, WithErrorKind};
use crate::read::{ByteSource, SourceError};
use crate::store::{Object, ObjectMeta, PartBody, Store, StoreError, StoreRegistry, Upload};

/// Bytes of a file that are fetched by one request, and requests under way ahead of the reader.
const PIECE: u64 = 2 << 20;
const AHEAD: usize = 6;
/// Parts of one file on their way to the store.
const PARTS_IN_FLIGHT: usize = 2;

/// Work was not done.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The work panicked.
    #[error("a worker failed: {0}; this is a defect of the program, please report it")]
    Panicked(String),
    /// The pool was closed.
    #[error("stopped before the work began")]
    Closed,
}

impl WithErrorKind for PoolError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Panicked(_) => ErrorKind::Defect,
            Self::Closed => ErrorKind::Interrupted,
        }
    }
}

impl From<Stopped> for PoolError {
    fn from(_: Stopped) -> Self {
        Self::Closed
    }
}

impl From<JoinError> for PoolError {
    fn from(error: JoinError) -> Self {
        Self::Panicked(error.to_string())
    }
}

impl From<AcquireError> for PoolError {
    fn from(_: AcquireError) -> Self {
        Self::Closed
    }
}

/// Told to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped; run the same command again to continue")]
pub struct Stopped;
impl WithErrorKind for Stopped {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Interrupted
    }
}

/// Does work, unless somebody asks to stop meanwhile: then it is dropped where it is.
///
/// # Errors
/// [`Stopped`] when somebody has asked.
pub async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, Stopped> {
    stop.run_until_cancelled(work).await.ok_or(Stopped)
}

/// The same stores, of which nothing is read any more over a network after a stop.
pub fn until(stop: &CancellationToken, stores: &StoreRegistry) -> StoreRegistry {
    let stop = stop.clone();
    stores.until(move || {
        let stop = stop.clone();
        async move { stop.cancelled().await }
    })
}

/// CPU threads and memory, shared by all work of a process.
#[derive(Clone, Debug)]
pub struct Pool {
    count: usize,
    workers: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    memory_mib: u32,
    too_little: Arc<Once>,
}

/// Memory that work may take; free again when it is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    _permit: OwnedSemaphorePermit,
}

/// A worker and the memory that its work may take; both are free again when it is dropped.
pub struct WorkerPermit {
    _worker: OwnedSemaphorePermit,
    memory: Arc<MemoryPermit>,
}

impl WorkerPermit {
    /// The memory, which may be held for longer than the worker.
    pub fn memory(&self) -> Arc<MemoryPermit> {
        self.memory.clone()
    }
}

impl Pool {
    /// A pool of `workers` threads over `memory` bytes.
    pub fn new(workers: usize, memory: u64) -> Self {
        let memory_mib =
            u32::try_from(memory >> 20).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        let count = workers.max(1);
        Self {
            count,
            workers: Arc::new(Semaphore::new(count)),
            memory: Arc::new(Semaphore::new(memory_mib as usize)),
            memory_mib,
            too_little: Arc::new(Once::new()),
        }
    }

    /// Bytes of memory there are for all work.
    pub fn total(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.count
    }

    /// Waits for `bytes` of memory. What needs more than all memory works alone, and a warning is given.
    pub async fn memory(&self, bytes: u64) -> Result<Arc<MemoryPermit>, PoolError> {
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX).max(1);
        if mib > self.memory_mib {
            let may = self.memory_mib;
            self.too_little.call_once(|| {
                warn!("one piece of work needs {mib} MiB of memory, and all may take {may} MiB: it will take more");
            });
        }
        let mib = mib.min(self.memory_mib);
        let permit = self.memory.clone().acquire_many_owned(mib).await?;
        Ok(Arc::new(MemoryPermit { _permit: permit }))
    }

    /// Waits for memory, then for a worker: in this order, for whoever has a worker must not wait
    /// for those who have the memory.
    pub async fn place(&self, bytes: u64) -> Result<WorkerPermit, PoolError> {
        self.place_in(self.memory(bytes).await?).await
    }

    /// Waits for a worker for work in this memory.
    pub async fn place_in(&self, memory: Arc<MemoryPermit>) -> Result<WorkerPermit, PoolError> {
        Ok(WorkerPermit { _worker: self.workers.clone().acquire_owned().await?, memory })
    }

    /// Runs work off the async threads, in a place of the pool; a panic becomes an error.
    pub async fn run<T: Send + 'static>(
        place: &WorkerPermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let _ = place;
        tokio::task::spawn_blocking(work).await.map_err(PoolError::from)
    }
}

/// Begins work that goes on whether or not somebody waits for it at the moment, and ends when nobody
/// will: what holds a place of the pool must not wait to be asked for its result.
pub fn begin<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// An object whose pieces are fetched ahead of the thread that reads them.
pub struct ObjectSource {
    object: Arc<Object>,
    url: String,
    pieces: Option<mpsc::Receiver<Result<Bytes, StoreError>>>,
    runtime: Handle,
    stop: CancellationToken,
    passed: Box<dyn Fn(u64) + Send>,
}

impl ObjectSource {
    /// For reading the whole object; `passed` is told how many bytes were taken.
    pub fn new(
        object: Object,
        stop: CancellationToken,
        passed: impl Fn(u64) + Send + 'static,
    ) -> Self {
        Self {
            url: object.url(),
            object: Arc::new(object),
            pieces: None,
            runtime: Handle::current(),
            stop,
            passed: Box::new(passed),
        }
    }

    fn start(&self) -> mpsc::Receiver<Result<Bytes, StoreError>> {
        let (sender, receiver) = mpsc::channel(1);
        let mut pieces = Box::pin(self.object.pieces(PIECE, AHEAD));
        self.runtime.spawn(async move {
            while let Some(piece) = pieces.next().await {
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

impl ByteSource for ObjectSource {
    fn url(&self) -> &str {
        &self.url
    }

    fn len(&self) -> u64 {
        self.object.info().size
    }

    fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        if self.pieces.is_none() {
            self.pieces = Some(self.start());
        }
        let Some(pieces) = &mut self.pieces else { return Ok(None) };
        let piece = pieces.blocking_recv().transpose()?;
        if let Some(piece) = &piece {
            (self.passed)(piece.len() as u64);
        }
        Ok(piece)
    }

    fn range(&mut self, range: Range<u64>) -> Result<Bytes, SourceError> {
        if self.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        Ok(self.runtime.block_on(self.object.range(range))?)
    }
}

/// Parts on their way to the store, a bounded number at a time.
pub struct UploadSink {
    upload: Arc<Upload>,
    parts: JoinSet<Result<(), StoreError>>,
    runtime: Handle,
    stop: CancellationToken,
}

impl UploadSink {
    /// For the parts of one upload.
    pub fn new(upload: Upload, stop: CancellationToken) -> Self {
        let (upload, parts) = (Arc::new(upload), JoinSet::new());
        Self { upload, parts, runtime: Handle::current(), stop }
    }

    /// For the parts of a new object; on a thread that may wait.
    pub fn create(store: &Store, key: &str, stop: CancellationToken) -> Result<Self, StoreError> {
        let upload = Handle::current().block_on(store.create(key))?;
        Ok(Self::new(upload, stop))
    }

    /// Waits until every part is stored.
    pub async fn drain(&mut self) -> Result<(), SinkError> {
        while let Some(part) = self.parts.join_next().await {
            part.map_err(PoolError::from)??;
        }
        Ok(())
    }

    /// Makes the object visible, after [`Self::drain`].
    pub async fn complete(mut self) -> Result<ObjectMeta, SinkError> {
        self.drain().await?;
        let upload = Arc::try_unwrap(self.upload).map_err(|_| Stopped)?;
        Ok(upload.complete().await?)
    }
}

impl PartSink for UploadSink {
    fn part_size(&self) -> usize {
        self.upload.part_size()
    }

    fn part(&mut self, index: usize, data: Bytes, md5: Option<Md5Digest>) -> Result<(), SinkError> {
        if self.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        while self.parts.len() >= PARTS_IN_FLIGHT {
            match self.runtime.block_on(self.parts.join_next()) {
                Some(part) => part.map_err(PoolError::from)??,
                None => break,
            }
        }
        let upload = self.upload.clone();
        let part = async move {
            match md5 {
                Some(md5) => upload.part_with_md5(index, PartBody::Bytes(vec![data]), md5).await,
                None => upload.part(index, vec![data]).await,
            }
        };
        self.parts.spawn_on(part, &self.runtime);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_its_place_is_free_again() {
        let pool = Pool::new(1, 1 << 30);
        let place = pool.place(1).await.unwrap();
        let result = Pool::run(&place, || panic!("boom")).await;
        assert!(matches!(result, Err(PoolError::Panicked(_))));
        drop(place);
        assert_eq!(Pool::run(&pool.place(1).await.unwrap(), || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_larger_than_the_budget_works_alone() {
        let pool = Pool::new(4, 100 << 20);
        let large = pool.place(u64::MAX).await.unwrap();
        let blocked = tokio::time::timeout(std::time::Duration::from_millis(50), pool.place(1));
        assert!(blocked.await.is_err());
        drop(large);
        let (_a, _b) = (pool.place(50 << 20).await.unwrap(), pool.place(50 << 20).await.unwrap());
    }
}
