//! Files that several want to read: each is fetched once, for all of them.
//!
//! Everyone who reads the files of a case says beforehand which ([`ReadCoordinator::join`]). When all who want
//! a file have asked for it, its bytes are fetched, the work of one after another is done on them, and
//! they are given up. All must ask in the same order: who waits for a file that others ask for only
//! after another one would wait for ever.

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

/// How much of a file is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// All of it, from the first byte to the last.
    Whole,
    /// Some of its variables.
    Parts,
}

/// Reads files: each by itself, or together with others who read the same.
#[derive(Clone, Default)]
pub struct Reader(Option<Arc<Participant>>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Reader(together)" } else { "Reader(alone)" })
    }
}

/// Somebody who reads files of a table; leaves it when dropped.
struct Participant {
    table: Arc<ReadCoordinator>,
    id: usize,
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.table.leave(self.id);
    }
}

impl Reader {
    /// The bytes of a file, for a look at what is in it.
    pub fn source(&self, object: Object, stop: &CancellationToken) -> Box<dyn ByteSource> {
        match &self.0 {
            None => Box::new(ObjectSource::new(object, stop.clone(), |_| {})),
            Some(member) => {
                Box::new(SharedSource::new(member.table.hold(object), stop.clone(), false))
            }
        }
    }

    /// Does `work` on a file, on a worker with `memory` bytes, which are free again when what is
    /// returned beside the result is dropped. `passed` is told of bytes that were taken in order.
    pub async fn read<T: Send + 'static>(
        &self,
        pool: &Pool,
        object: Object,
        (extent, memory): (ReadMode, u64),
        stop: &CancellationToken,
        passed: impl Fn(u64) + Send + 'static,
        work: impl FnOnce(Box<dyn ByteSource>) -> T + Send + 'static,
    ) -> Result<(T, Arc<MemoryPermit>), PoolError> {
        let Some(member) = &self.0 else {
            let place = unless_stopped(stop, pool.place(memory)).await??;
            let source = Box::new(ObjectSource::new(object, stop.clone(), passed));
            let value = Pool::run(&place, move || work(source)).await?;
            return Ok((value, place.memory()));
        };
        let (sender, receiver) = oneshot::channel();
        let stopped = stop.clone();
        let run = move |held, memory| {
            if !sender.is_closed() {
                let source = SharedSource::new(held, stopped, extent == ReadMode::Whole);
                // Nobody waits any more: the result is not needed.
                let _ = sender.send((work(Box::new(source)), memory));
            }
        };
        let key = object.info().key.clone();
        member.table.ask(member.id, object, ReadJob { extent, memory, run: Box::new(run) });
        let mut receiver = std::pin::pin!(receiver);
        let result = tokio::select! {
            result = &mut receiver => result,
            () = stop.cancelled() => {
                // Others will not ask any more.
                member.table.give_up(&key);
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

/// What somebody wants to do on a file.
struct ReadJob {
    extent: ReadMode,
    memory: u64,
    run: Run,
}

/// Files, and who wants to read them.
pub struct ReadCoordinator {
    pool: Pool,
    stop: CancellationToken,
    fetched: Arc<AtomicU64>,
    state: Mutex<CoordinatorState>,
}

#[derive(Default)]
struct CoordinatorState {
    /// Files that each member has yet to ask for.
    wanted: Vec<HashSet<String>>,
    /// What is asked of files for which somebody is awaited.
    waiting: HashMap<String, (Object, Vec<ReadJob>)>,
    held: HashMap<String, Arc<Mutex<SharedBytes>>>,
}

impl CoordinatorState {
    /// Takes the jobs of a file that nobody else will ask for.
    fn ready(&mut self, key: &str) -> Option<(Object, Vec<ReadJob>)> {
        match self.wanted.iter().any(|wanted| wanted.contains(key)) {
            true => None,
            false => self.waiting.remove(key),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ReadCoordinator {
    /// A table whose work is done in `pool`, until a stop.
    pub fn new(pool: Pool, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { pool, stop, fetched: Arc::default(), state: Mutex::default() })
    }

    /// Somebody who will read the files of these keys; all join before the first one reads.
    pub fn register(self: &Arc<Self>, keys: impl IntoIterator<Item = String>) -> Reader {
        let mut state = lock(&self.state);
        state.wanted.push(keys.into_iter().collect());
        Reader(Some(Arc::new(Participant { table: self.clone(), id: state.wanted.len() - 1 })))
    }

    /// Bytes fetched so far.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    fn hold(&self, object: Object) -> Arc<Mutex<SharedBytes>> {
        let key = object.info().key.clone();
        let new = || Arc::new(Mutex::new(SharedBytes::new(object, self.fetched.clone())));
        lock(&self.state).held.entry(key).or_insert_with(new).clone()
    }

    fn ask(self: &Arc<Self>, id: usize, object: Object, job: ReadJob) {
        let key = object.info().key.clone();
        let mut state = lock(&self.state);
        state.wanted[id].remove(&key);
        state.waiting.entry(key.clone()).or_insert_with(|| (object, Vec::new())).1.push(job);
        if let Some((object, jobs)) = state.ready(&key) {
            drop(state);
            tokio::spawn(self.clone().work(object, jobs));
        }
    }

    /// Forgets what is asked of a file for which somebody is awaited.
    fn give_up(&self, key: &str) {
        lock(&self.state).waiting.remove(key);
    }

    fn leave(self: &Arc<Self>, id: usize) {
        let mut state = lock(&self.state);
        let keys = std::mem::take(&mut state.wanted[id]);
        let ready: Vec<_> = keys.iter().filter_map(|key| state.ready(key)).collect();
        drop(state);
        for (object, jobs) in ready {
            // A member is dropped outside of the runtime only when the program ends.
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(self.clone().work(object, jobs));
            }
        }
    }

    /// Fetches a file and does what is asked; whoever waits for what a stop has cut short learns of it.
    async fn work(self: Arc<Self>, object: Object, jobs: Vec<ReadJob>) {
        let key = object.info().key.clone();
        let held = self.hold(object);
        let _ = unless_stopped(&self.stop, self.work_on(&held, jobs)).await;
        lock(&self.state).held.remove(&key);
    }

    /// Does what is asked of a file, on one worker; last what takes the file in order, for it gives up the
    /// bytes on the way.
    async fn work_on(&self, held: &Arc<Mutex<SharedBytes>>, mut jobs: Vec<ReadJob>) {
        jobs.sort_by_key(|job| job.extent == ReadMode::Whole);
        let whole = jobs.last().is_some_and(|job| job.extent == ReadMode::Whole);
        let size = lock(held).object.info().size;
        // Closed only when the program ends.
        let Ok(memory) = self.pool.memory(memory(&jobs, size)).await else { return };
        if whole {
            // What fails here fails again for those who need it, who say what it was.
            let _ = fill_all(held).await;
        }
        let Ok(place) = self.pool.place_in(memory).await else { return };
        let memory = place.memory();
        for job in jobs {
            let (held, memory) = (held.clone(), memory.clone());
            // A panic is told to the one whose work it was.
            let _ = Pool::run(&place, move || (job.run)(held, memory)).await;
        }
    }
}

/// Memory for jobs that are done one after another on a file of `size` bytes.
fn memory(jobs: &[ReadJob], size: u64) -> u64 {
    let most = |extent| jobs.iter().filter(|job| job.extent == extent).map(|job| job.memory).max();
    let parts = most(ReadMode::Parts).unwrap_or(0);
    match most(ReadMode::Whole) {
        None => parts,
        // The file is given up while its result grows, which is half as large.
        Some(result) => size + parts.max(result / 2),
    }
}

async fn fill_all(held: &Arc<Mutex<SharedBytes>>) -> Result<(), StoreError> {
    let (object, gaps) = {
        let held = lock(held);
        let size = held.object.info().size;
        (held.object.clone(), held.gaps(0..size))
    };
    for gap in gaps {
        let mut at = gap.start;
        let mut pieces = std::pin::pin!(object.pieces_of(gap, PIECE, AHEAD));
        while let Some(piece) = pieces.try_next().await? {
            at = lock(held).put(at, piece);
        }
    }
    Ok(())
}

/// The bytes of an object that are in memory.
struct SharedBytes {
    object: Object,
    /// By the place of their first byte; none overlap.
    pieces: BTreeMap<u64, Bytes>,
    fetched: Arc<AtomicU64>,
}

impl SharedBytes {
    fn new(object: Object, fetched: Arc<AtomicU64>) -> Self {
        Self { object, pieces: BTreeMap::new(), fetched }
    }

    /// Keeps bytes; gives the place after them.
    fn put(&mut self, at: u64, bytes: Bytes) -> u64 {
        let size = bytes.len() as u64;
        self.fetched.fetch_add(size, Ordering::Relaxed);
        self.pieces.insert(at, bytes);
        at + size
    }

    /// What of a range is not here.
    fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let (mut gaps, mut at) = (Vec::new(), range.start);
        if let Some((start, piece)) = self.pieces.range(..=at).next_back() {
            at = at.max(start + piece.len() as u64);
        }
        for (&start, piece) in self.pieces.range(at..range.end.max(at)) {
            if at < start {
                gaps.push(at..start);
            }
            at = start + piece.len() as u64;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// The bytes from a place on that lie together, at most up to `end`.
    fn from(&self, at: u64, end: u64) -> Option<Bytes> {
        let (start, piece) = self.pieces.range(..=at).next_back()?;
        let (from, to) = (at - start, end.saturating_sub(*start).min(piece.len() as u64));
        (from < to).then(|| piece.slice(from as usize..to as usize))
    }
}

/// A file whose bytes are kept for others.
struct SharedSource {
    held: Arc<Mutex<SharedBytes>>,
    url: String,
    size: u64,
    /// Bytes that were taken in order.
    at: u64,
    /// Whether these are given up.
    is_last: bool,
    runtime: Handle,
    stop: CancellationToken,
}

impl SharedSource {
    fn new(held: Arc<Mutex<SharedBytes>>, stop: CancellationToken, is_last: bool) -> Self {
        let (url, size) = {
            let held = lock(&held);
            (held.object.url(), held.object.info().size)
        };
        Self { held, url, size, at: 0, is_last, runtime: Handle::current(), stop }
    }

    fn fetch(&self, range: Range<u64>) -> Result<(), SourceError> {
        if self.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        let mut held = lock(&self.held);
        for gap in held.gaps(range) {
            let fetching = unless_stopped(&self.stop, held.object.range(gap.clone()));
            let bytes = self.runtime.block_on(fetching)??;
            held.put(gap.start, bytes);
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
        if self.at >= self.size {
            return Ok(None);
        }
        let end = self.size.min(self.at + PIECE);
        self.fetch(self.at..end)?;
        let mut held = lock(&self.held);
        // To the end of what was fetched at once, so that it can be given up as a whole.
        let Some(bytes) = held.from(self.at, self.size) else { return Ok(None) };
        self.at += bytes.len() as u64;
        if self.is_last {
            let kept = held.pieces.split_off(&self.at);
            held.pieces = kept;
        }
        Ok(Some(bytes))
    }

    fn range(&mut self, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.fetch(range.clone())?;
        let held = lock(&self.held);
        let mut at = range.start;
        let mut all = BytesMut::new();
        while let Some(bytes) = held.from(at, range.end) {
            if at == range.start && bytes.len() as u64 == range.end - range.start {
                return Ok(bytes);
            }
            at += bytes.len() as u64;
            all.extend_from_slice(&bytes);
        }
        Ok(all.freeze())
    }
}
