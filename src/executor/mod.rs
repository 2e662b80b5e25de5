//! Execution of conversions with bounded threads and memory.
//!
//! Bytes are fetched ahead of the work, worker threads convert them, and results are stored while
//! the next bytes are converted. Async code starts CPU work only through [`Pool::run`].

pub(crate) mod memory;
mod runtime;
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

pub use runtime::block_on;
pub use shared_reads::{ReadCoordinator, ReadMode, Reader};

use crate::encode::{PartSink, SinkError};
use crate::model::{ErrorKind, Md5Digest, WithErrorKind};
use crate::read::{ByteSource, SourceError};
use crate::store::{Object, ObjectMeta, PartBody, Store, StoreError, StoreRegistry, Upload};

/// Bytes that one request fetches.
const PIECE: u64 = 2 << 20;
/// Requests in flight ahead of the reader.
const AHEAD: usize = 6;
/// Parts of one file that are uploaded at the same time.
const PARTS_IN_FLIGHT: usize = 2;

/// An error of the pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The work panicked; the text is the panic's message.
    #[error("a worker failed: {0}; this is a defect of the program, please report it")]
    Panicked(String),
    /// The work did not begin, because the pool was closed or the user stopped the program.
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

/// The error of work that a stop of the program ended, such as a signal.
#[derive(Debug, thiserror::Error)]
#[error("stopped; run the same command again to continue")]
pub struct Stopped;

impl WithErrorKind for Stopped {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Interrupted
    }
}

/// Runs `work` until it ends or `stop` is cancelled; a cancelled `work` is dropped.
///
/// # Errors
/// [`Stopped`] when `stop` was cancelled first.
pub async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, Stopped> {
    stop.run_until_cancelled(work).await.ok_or(Stopped)
}

/// A copy of `stores` that reads nothing over a network after `stop` is cancelled.
pub fn until(stop: &CancellationToken, stores: &StoreRegistry) -> StoreRegistry {
    let stop = stop.clone();
    stores.until(move || {
        let stop = stop.clone();
        async move { stop.cancelled().await }
    })
}

/// Worker threads and a memory budget, shared by all work of a process.
#[derive(Clone, Debug)]
pub struct Pool {
    count: usize,
    workers: Arc<Semaphore>,
    /// Free memory in MiB.
    memory: Arc<Semaphore>,
    /// Memory budget in MiB.
    memory_mib: u32,
    /// Limits the warning about a request above the budget to one.
    warning: Arc<Once>,
}

/// Permission to use memory, given back when it is dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    _permit: OwnedSemaphorePermit,
}

/// Permission to use a worker and memory. Dropping it gives back the worker, and the memory unless
/// another [`MemoryPermit`] of it exists.
pub struct WorkerPermit {
    _worker: OwnedSemaphorePermit,
    memory: Arc<MemoryPermit>,
}

impl WorkerPermit {
    /// The memory permit, which may be held for longer than the worker.
    pub fn memory(&self) -> Arc<MemoryPermit> {
        self.memory.clone()
    }
}

impl Pool {
    /// A pool of `workers` threads, at least 1, with a budget of `memory` bytes, at least 1 MiB.
    pub fn new(workers: usize, memory: u64) -> Self {
        let memory_mib =
            u32::try_from(memory >> 20).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        let count = workers.max(1);
        Self {
            count,
            workers: Arc::new(Semaphore::new(count)),
            memory: Arc::new(Semaphore::new(memory_mib as usize)),
            memory_mib,
            warning: Arc::new(Once::new()),
        }
    }

    /// Memory budget in bytes.
    pub fn total(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }

    /// Number of worker threads.
    pub fn workers(&self) -> usize {
        self.count
    }

    /// Waits for `bytes` of memory. A request above the budget runs alone and logs a warning.
    ///
    /// # Errors
    /// [`PoolError::Closed`].
    pub async fn memory(&self, bytes: u64) -> Result<Arc<MemoryPermit>, PoolError> {
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX).max(1);
        if mib > self.memory_mib {
            let budget = self.memory_mib;
            self.warning.call_once(|| {
                warn!(
                    "one task needs {mib} MiB of memory, more than the budget of {budget} MiB; it runs alone"
                );
            });
        }
        let mib = mib.min(self.memory_mib);
        let permit = self.memory.clone().acquire_many_owned(mib).await?;
        Ok(Arc::new(MemoryPermit { _permit: permit }))
    }

    /// Waits for memory and then for a worker. In this order, a task that has a worker never waits for
    /// memory of a task that waits for a worker.
    ///
    /// # Errors
    /// [`PoolError::Closed`].
    pub async fn acquire(&self, bytes: u64) -> Result<WorkerPermit, PoolError> {
        self.place_in(self.memory(bytes).await?).await
    }

    /// Waits for a worker for a task that has its memory already.
    ///
    /// # Errors
    /// [`PoolError::Closed`].
    pub async fn place_in(&self, memory: Arc<MemoryPermit>) -> Result<WorkerPermit, PoolError> {
        Ok(WorkerPermit { _worker: self.workers.clone().acquire_owned().await?, memory })
    }

    /// Runs `work` on a blocking thread. `permit` proves that the caller has a worker.
    ///
    /// # Errors
    /// [`PoolError::Panicked`] when `work` panics.
    pub async fn run<T: Send + 'static>(
        permit: &WorkerPermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let _ = permit;
        tokio::task::spawn_blocking(work).await.map_err(PoolError::from)
    }
}

/// Starts `work` as a task that is aborted when the handle is dropped. A task makes progress without
/// being polled by its owner, so it does not hold a permit of the pool while its owner is busy.
pub fn spawn_abort_on_drop<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// A [`ByteSource`] over an object of a store, which fetches bytes ahead of the thread that reads them.
pub struct ObjectSource {
    object: Arc<Object>,
    url: String,
    pieces: Option<mpsc::Receiver<Result<Bytes, StoreError>>>,
    runtime: Handle,
    stop: CancellationToken,
    on_read: Box<dyn Fn(u64) + Send>,
}

impl ObjectSource {
    /// A source that calls `on_read` with the number of bytes of each piece that is read in order. Call it
    /// in the context of a tokio runtime.
    pub fn new(
        object: Object,
        stop: CancellationToken,
        on_read: impl Fn(u64) + Send + 'static,
    ) -> Self {
        Self {
            url: object.url(),
            object: Arc::new(object),
            pieces: None,
            runtime: Handle::current(),
            stop,
            on_read: Box::new(on_read),
        }
    }

    /// Starts to fetch the object.
    fn start(&self) -> mpsc::Receiver<Result<Bytes, StoreError>> {
        let (sender, receiver) = mpsc::channel(1);
        let mut pieces = Box::pin(self.object.stream(PIECE, AHEAD));
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
            (self.on_read)(piece.len() as u64);
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

/// A [`PartSink`] that uploads the parts of one object, a bounded number at the same time.
pub struct UploadSink {
    upload: Arc<Upload>,
    parts: JoinSet<Result<(), StoreError>>,
    runtime: Handle,
    stop: CancellationToken,
}

impl UploadSink {
    /// A sink for the parts of `upload`. Call it in the context of a tokio runtime.
    pub fn new(upload: Upload, stop: CancellationToken) -> Self {
        let (upload, parts) = (Arc::new(upload), JoinSet::new());
        Self { upload, parts, runtime: Handle::current(), stop }
    }

    /// A sink for the parts of a new object. It blocks: call it on a worker thread.
    ///
    /// # Errors
    /// The upload cannot be started.
    pub fn create(store: &Store, key: &str, stop: CancellationToken) -> Result<Self, StoreError> {
        let upload = Handle::current().block_on(store.create(key))?;
        Ok(Self::new(upload, stop))
    }

    /// Waits until every part is stored.
    ///
    /// # Errors
    /// A part could not be stored.
    pub async fn drain(&mut self) -> Result<(), SinkError> {
        while let Some(part) = self.parts.join_next().await {
            part.map_err(PoolError::from)??;
        }
        Ok(())
    }

    /// Waits until every part is stored, and makes the object visible.
    ///
    /// # Errors
    /// A part could not be stored, or the upload cannot be completed.
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
    async fn a_panic_is_an_error_and_its_worker_is_free_again() {
        let pool = Pool::new(1, 1 << 30);
        let permit = pool.acquire(1).await.unwrap();
        let result = Pool::run(&permit, || panic!("boom")).await;
        assert!(matches!(result, Err(PoolError::Panicked(_))));
        drop(permit);
        assert_eq!(Pool::run(&pool.acquire(1).await.unwrap(), || 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_request_above_the_budget_runs_alone() {
        let pool = Pool::new(4, 100 << 20);
        let large = pool.acquire(u64::MAX).await.unwrap();
        let blocked = tokio::time::timeout(std::time::Duration::from_millis(50), pool.acquire(1));
        assert!(blocked.await.is_err());
        drop(large);
        let (_a, _b) =
            (pool.acquire(50 << 20).await.unwrap(), pool.acquire(50 << 20).await.unwrap());
    }
}
