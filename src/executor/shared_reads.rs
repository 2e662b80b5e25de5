//! Shared reads: a file that several readers need is fetched once for all of them.
//!
//! Each reader of the files of a case registers its files in advance ([`ReadCoordinator::register`]).
//! When all readers of a file have asked for it, its bytes are fetched, the jobs of the readers run on
//! them one after another, and the bytes are freed. All readers must ask for files in the same order;
//! otherwise two readers can wait for each other for ever.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{AHEAD, MemoryPermit, ObjectSource, PIECE, Pool, PoolError, Stopped, unless_stopped};
use crate::read::{ByteSource, SourceError};
use crate::store::{Object, StoreError};

/// The part of a file that a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// All bytes, in order.
    Whole,
    /// Some of its variables.
    Parts,
}

/// A reader of files: alone (the default), or together with other readers of a [`ReadCoordinator`].
#[derive(Clone, Default)]
pub struct Reader(Option<Arc<Participant>>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reader(together)" } else { "Reader(alone)" })
    }
}

/// A registered reader. Dropping it withdraws the files that it has not asked for.
struct Participant {
    coordinator: Arc<ReadCoordinator>,
    id: usize,
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.coordinator.leave(self.id);
    }
}

impl Reader {
    /// The bytes of a file, for reading its header.
    pub fn source(&self, object: Object, stop: &CancellationToken) -> Box<dyn ByteSource> {
        match &self.0 {
            None => Box::new(ObjectSource::new(object, stop.clone(), |_| {})),
            Some(participant) => {
                let bytes = participant.coordinator.shared_bytes(object);
                Box::new(SharedSource::new(bytes, stop.clone(), false))
            }
        }
    }

    /// Runs `work` on a file, on a worker with `memory` bytes. Returns its result and the memory permit.
    /// A reader that is alone calls `on_read` with the number of bytes of each piece read in order.
    ///
    /// # Errors
    /// [`PoolError::Closed`] after a stop; [`PoolError::Panicked`] when `work` panics.
    pub async fn read<T: Send + 'static>(
        &self,
        pool: &Pool,
        object: Object,
        (mode, memory): (ReadMode, u64),
        stop: &CancellationToken,
        on_read: impl Fn(u64) + Send + 'static,
        work: impl FnOnce(Box<dyn ByteSource>) -> T + Send + 'static,
    ) -> Result<(T, Arc<MemoryPermit>), PoolError> {
        let Some(Participant { coordinator, id }) = self.0.as_deref() else {
            let permit = unless_stopped(stop, pool.acquire(memory)).await??;
            let source = Box::new(ObjectSource::new(object, stop.clone(), on_read));
            let value = Pool::run(&permit, move || work(source)).await?;
            return Ok((value, permit.memory()));
        };
        let (sender, receiver) = oneshot::channel();
        let job_stop = stop.clone();
        let run = move |bytes, memory| {
            if !sender.is_closed() {
                let source = SharedSource::new(bytes, job_stop, mode == ReadMode::Whole);
                // The receiver may be gone: then nobody needs the result.
                let _ = sender.send((work(Box::new(source)), memory));
            }
        };
        let key = object.info().key.clone();
        coordinator.ask(*id, object, ReadJob { mode, memory, run: Box::new(run) });
        let mut receiver = std::pin::pin!(receiver);
        let result = tokio::select! {
            result = &mut receiver => result,
            () = stop.cancelled() => {
                // After a stop the other readers do not ask for the file, so the job would wait for ever.
                coordinator.cancel(&key);
                receiver.await
            }
        };
        result.map_err(|_| match stop.is_cancelled() {
            true => PoolError::Closed,
            false => PoolError::Panicked("see the message above".to_owned()),
        })
    }
}

type Run = Box<dyn FnOnce(Arc<Mutex<SharedBytes>>, Arc<MemoryPermit>) + Send>;

/// The work of one reader on a file.
struct ReadJob {
    mode: ReadMode,
    /// Bytes of memory that the work needs.
    memory: u64,
    run: Run,
}

/// The readers of the files of a case. It fetches each file once for all of them.
pub struct ReadCoordinator {
    pool: Pool,
    stop: CancellationToken,
    fetched: Arc<AtomicU64>,
    state: Mutex<CoordinatorState>,
}

#[derive(Default)]
struct CoordinatorState {
    /// Keys that each participant has registered and not asked for yet, by its id.
    registered: Vec<HashSet<String>>,
    /// Jobs on files that another participant has yet to ask for, by key.
    waiting: HashMap<String, (Object, Vec<ReadJob>)>,
    /// Bytes in memory, by key.
    shared: HashMap<String, Arc<Mutex<SharedBytes>>>,
}

impl CoordinatorState {
    /// Takes the jobs of a file if every participant has asked for it.
    fn take_ready(&mut self, key: &str) -> Option<(Object, Vec<ReadJob>)> {
        match self.registered.iter().any(|keys| keys.contains(key)) {
            true => None,
            false => self.waiting.remove(key),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReadCoordinator {
    /// A coordinator that runs jobs in `pool` until `stop` is cancelled.
    pub fn new(pool: Pool, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { pool, stop, fetched: Arc::default(), state: Mutex::default() })
    }

    /// Registers a reader of the files with these keys. Register all readers before the first one reads.
    pub fn register(self: &Arc<Self>, keys: impl IntoIterator<Item = String>) -> Reader {
        let mut state = lock(&self.state);
        state.registered.push(keys.into_iter().collect());
        let id = state.registered.len() - 1;
        Reader(Some(Arc::new(Participant { coordinator: self.clone(), id })))
    }

    /// Number of bytes fetched so far.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// The bytes of a file in memory; none at first.
    fn shared_bytes(&self, object: Object) -> Arc<Mutex<SharedBytes>> {
        let key = object.info().key.clone();
        let new = || Arc::new(Mutex::new(SharedBytes::new(object, self.fetched.clone())));
        lock(&self.state).shared.entry(key).or_insert_with(new).clone()
    }

    /// Adds a job on a file, and starts its jobs if all participants have asked for the file.
    fn ask(self: &Arc<Self>, id: usize, object: Object, job: ReadJob) {
        let key = object.info().key.clone();
        let mut state = lock(&self.state);
        state.registered[id].remove(&key);
        state.waiting.entry(key.clone()).or_insert_with(|| (object, Vec::new())).1.push(job);
        if let Some((object, jobs)) = state.take_ready(&key) {
            drop(state);
            tokio::spawn(self.clone().run_jobs(object, jobs));
        }
    }

    /// Drops the waiting jobs of a file.
    fn cancel(&self, key: &str) {
        lock(&self.state).waiting.remove(key);
    }

    /// Withdraws the remaining files of a participant, and starts the jobs that waited only for it.
    fn leave(self: &Arc<Self>, id: usize) {
        let mut state = lock(&self.state);
        let keys = std::mem::take(&mut state.registered[id]);
        let ready: Vec<_> = keys.iter().filter_map(|key| state.take_ready(key)).collect();
        drop(state);
        for (object, jobs) in ready {
            // Without a runtime the program is about to end, and the jobs are not needed.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(self.clone().run_jobs(object, jobs));
            }
        }
    }

    /// Runs the jobs of a file. A job that does not run drops its sender, which tells its reader.
    async fn run_jobs(self: Arc<Self>, object: Object, jobs: Vec<ReadJob>) {
        let key = object.info().key.clone();
        let bytes = self.shared_bytes(object);
        let _ = unless_stopped(&self.stop, self.run_in_order(&bytes, jobs)).await;
        lock(&self.state).shared.remove(&key);
    }

    /// Runs the jobs of a file on one worker. A job with [`ReadMode::Whole`] is the last, because it frees
    /// the bytes while it reads them.
    async fn run_in_order(&self, bytes: &Arc<Mutex<SharedBytes>>, mut jobs: Vec<ReadJob>) {
        jobs.sort_by_key(|job| job.mode == ReadMode::Whole);
        let needs_all = jobs.last().is_some_and(|job| job.mode == ReadMode::Whole);
        let size = lock(bytes).object.info().size;
        // The pool is closed only when the program ends.
        let Ok(memory) = self.pool.memory(memory(&jobs, size)).await else { return };
        if needs_all {
            // After an error, the job that needs the missing bytes fetches them again and reports it.
            let _ = fetch_all(bytes).await;
        }
        let Ok(permit) = self.pool.place_in(memory).await else { return };
        let memory = permit.memory();
        for job in jobs {
            let (bytes, memory) = (bytes.clone(), memory.clone());
            // A panic drops the sender of the job, which tells its reader.
            let _ = Pool::run(&permit, move || (job.run)(bytes, memory)).await;
        }
    }
}

/// Memory in bytes for jobs that run one after another on a file of `size` bytes.
fn memory(jobs: &[ReadJob], size: u64) -> u64 {
    let largest = |mode| jobs.iter().filter(|job| job.mode == mode).map(|job| job.memory).max();
    let parts = largest(ReadMode::Parts).unwrap_or(0);
    match largest(ReadMode::Whole) {
        None => parts,
        // The bytes of the file are freed while the result, which is half as large, grows.
        Some(result) => size + parts.max(result / 2),
    }
}

/// Fetches all bytes of a file that are not in memory.
async fn fetch_all(bytes: &Arc<Mutex<SharedBytes>>) -> Result<(), StoreError> {
    let (object, gaps) = {
        let bytes = lock(bytes);
        let size = bytes.object.info().size;
        (bytes.object.clone(), bytes.gaps(0..size))
    };
    for gap in gaps {
        let mut offset = gap.start;
        let mut pieces = std::pin::pin!(object.stream_range(gap, PIECE, AHEAD));
        while let Some(piece) = pieces.try_next().await? {
            offset = lock(bytes).insert(offset, piece);
        }
    }
    Ok(())
}

/// The bytes of an object that are in memory.
struct SharedBytes {
    object: Object,
    /// Pieces by the offset of their first byte; they do not overlap.
    pieces: BTreeMap<u64, Bytes>,
    fetched: Arc<AtomicU64>,
}

impl SharedBytes {
    fn new(object: Object, fetched: Arc<AtomicU64>) -> Self {
        Self { object, pieces: BTreeMap::new(), fetched }
    }

    /// Adds fetched bytes at `offset`. Returns the offset after them.
    fn insert(&mut self, offset: u64, bytes: Bytes) -> u64 {
        let size = bytes.len() as u64;
        self.fetched.fetch_add(size, Ordering::Relaxed);
        self.pieces.insert(offset, bytes);
        offset + size
    }

    /// The parts of a range that are not in memory.
    fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut gaps, mut offset) = (Vec::new(), range.start);
        if let Some((start, piece)) = self.pieces.range(..=offset).next_back() {
            offset = offset.max(start + piece.len() as u64);
        }
        for (&start, piece) in self.pieces.range(offset..range.end.max(offset)) {
            if offset < start {
                gaps.push(offset..start);
            }
            offset = start + piece.len() as u64;
        }
        if offset < range.end {
            gaps.push(offset..range.end);
        }
        gaps
    }

    /// The bytes of one piece from `offset` on, at most up to `end`.
    fn piece_at(&self, offset: u64, end: u64) -> Option<Bytes> {
        let (start, piece) = self.pieces.range(..=offset).next_back()?;
        let (from, to) = (offset - start, end.saturating_sub(*start).min(piece.len() as u64));
        (from < to).then(|| piece.slice(from as usize..to as usize))
    }
}

/// A [`ByteSource`] over bytes that several readers share.
struct SharedSource {
    shared: Arc<Mutex<SharedBytes>>,
    url: String,
    size: u64,
    /// Offset of the next byte that is read in order.
    offset: u64,
    /// Whether bytes that were read in order are freed.
    frees: bool,
    runtime: Handle,
    stop: CancellationToken,
}

impl SharedSource {
    fn new(shared: Arc<Mutex<SharedBytes>>, stop: CancellationToken, frees: bool) -> Self {
        let (url, size) = {
            let bytes = lock(&shared);
            (bytes.object.url(), bytes.object.info().size)
        };
        Self { shared, url, size, offset: 0, frees, runtime: Handle::current(), stop }
    }

    /// Fetches the parts of a range that are not in memory.
    fn fetch(&self, range: Range<u64>) -> Result<(), SourceError> {
        if self.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        let mut shared = lock(&self.shared);
        for gap in shared.gaps(range) {
            let request = unless_stopped(&self.stop, shared.object.range(gap.clone()));
            let bytes = self.runtime.block_on(request)??;
            shared.insert(gap.start, bytes);
        }
        Ok(())
    }
}

impl ByteSource for SharedSource {
    fn url(&self) -> &str {
        &self.url
    }

    fn len(&self) -> u64 {
        self.size
    }

    fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.offset >= self.size {
            return Ok(None);
        }
        let end = self.size.min(self.offset + PIECE);
        self.fetch(self.offset..end)?;
        let mut shared = lock(&self.shared);
        // A whole piece is returned, so that it can be freed.
        let Some(bytes) = shared.piece_at(self.offset, self.size) else { return Ok(None) };
        self.offset += bytes.len() as u64;
        if self.frees {
            let kept = shared.pieces.split_off(&self.offset);
            shared.pieces = kept;
        }
        Ok(Some(bytes))
    }

    fn range(&mut self, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.fetch(range.clone())?;
        let shared = lock(&self.shared);
        let mut offset = range.start;
        let mut all = BytesMut::new();
        while let Some(bytes) = shared.piece_at(offset, range.end) {
            if offset == range.start && bytes.len() as u64 == range.end - range.start {
                return Ok(bytes);
            }
            offset += bytes.len() as u64;
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }
}
