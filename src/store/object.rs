//! An object that is read by ranges, and must not change meanwhile.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use md5::{Digest as _, Md5};
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectStoreExt};

use super::backend::{attempt, reading};
use super::blocking::blocking;
use super::change_detection::{self, ChangeTime, ReadRecord, checksum};
use super::error::StoreError;
use super::object_meta::ObjectMeta;
use super::registry::Store;

/// Ranges closer than this are read as one: on disk, then over a network.
const GAP: (u64, u64) = (64 << 10, 1 << 20);
/// Ranges are not joined beyond this: parts then come in parallel.
const JOINED: u64 = 16 << 20;
const PARALLEL: usize = 10;
/// Bytes that are gone through at a time, and pieces fetched ahead.
const FOLDED: u64 = 4 << 20;
const FOLDED_AHEAD: usize = 2;

/// An object that can be read by range. If it is replaced meanwhile, reads fail with
/// [`StoreError::Changed`]: bytes of two versions never mix.
#[derive(Debug, Clone)]
pub struct Object {
    pub(super) store: Store,
    pub(super) path: ObjectPath,
    pub(super) info: Arc<ObjectMeta>,
    /// The first answer's version, for listings that tell none.
    version: Arc<OnceLock<String>>,
    /// Of a file on disk, what was read.
    taken: Arc<ReadRecord>,
}

/// A file on disk that is being read, and the moment from which on it must not change.
pub(super) struct OpenFile {
    file: File,
    began: Option<ChangeTime>,
}

impl Object {
    pub(super) fn new(store: Store, path: ObjectPath, info: ObjectMeta) -> Self {
        let (version, taken) = Default::default();
        Self { store, path, info: Arc::new(info), version, taken }
    }

    /// What is known of it.
    pub fn info(&self) -> &ObjectMeta {
        &self.info
    }

    /// Its location, for messages.
    pub fn url(&self) -> String {
        self.store.url(&self.info.key)
    }

    /// The bytes of one range.
    pub async fn range(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let size = self.info.size;
        if range.start > range.end || range.end > size {
            let Range { start, end } = range;
            return Err(StoreError::OutOfRange { url: self.url(), start, end, size });
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let began = self.begin().await?;
        let objects = self.store.backend().objects().await?;
        let get = async || {
            let found = objects.get_opts(&self.path, self.asking(&range)).await?;
            let meta = found.meta.clone();
            if ObjectMeta::new(String::new(), meta.clone()).size != size {
                return Ok((Bytes::new(), meta));
            }
            Ok((collected(found).await?, meta))
        };
        let found = reading(self.store.backend(), &self.info.key, "read", get).await;
        let (data, meta) = found.map_err(|error| self.now_gone(error))?;
        self.compare(meta)?;
        let (wanted, start) = (range.end - range.start, range.start);
        if data.len() as u64 != wanted {
            return Err(self.cut_short(data.len(), wanted));
        }
        if began.is_some() {
            self.add(began, start..range.end, checksum(&data)).await?;
        }
        Ok(data)
    }

    /// A request for a range of the version that is known.
    pub(super) fn asking(&self, range: &Range<u64>) -> GetOptions {
        let etag = self.info.etag.as_ref().or_else(|| self.version.get());
        let if_match =
            etag.filter(|etag| !etag.starts_with("W/")).map(|etag| format!("\"{etag}\""));
        let range = Some(GetRange::Bounded(range.clone()));
        GetOptions { range, if_match, ..Default::default() }
    }

    pub(super) fn cut_short(&self, came: usize, wanted: u64) -> StoreError {
        let detail = format!("{came} bytes came of {wanted}");
        StoreError::Changed { url: self.url(), detail }
    }

    /// The bytes of several ranges, in the order asked for. Near ones are read together, far ones
    /// in parallel.
    pub async fn ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let gap = if self.store.backend().is_remote() { GAP.1 } else { GAP.0 };
        let joined = joined(ranges, gap, JOINED);
        let fetched: Vec<Vec<(usize, Bytes)>> = stream::iter(joined)
            .map(async |(range, members)| {
                let start = range.start;
                let data = self.range(range).await?;
                let slice = |(index, member): (usize, Range<u64>)| {
                    let from = usize::try_from(member.start - start).unwrap_or(usize::MAX);
                    let to = usize::try_from(member.end - start).unwrap_or(usize::MAX);
                    (index, data.slice(from.min(data.len())..to.min(data.len())))
                };
                Ok::<_, StoreError>(members.into_iter().map(slice).collect())
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let mut found: Vec<_> = fetched.into_iter().flatten().collect();
        found.sort_unstable_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(_, data)| data).collect())
    }

    /// Whether it lies on a disk of this machine, where reading it twice is cheap.
    pub(super) fn is_on_disk(&self) -> bool {
        self.on_disk().is_some()
    }

    /// The open file of an object on disk.
    pub(super) async fn open(&self) -> Result<OpenFile, StoreError> {
        let began = self.begin().await?;
        let objects = self.store.backend().objects().await?;
        let found =
            attempt(self.store.backend(), &self.info.key, "read", || objects.get(&self.path)).await;
        let found = found.map_err(|error| self.now_gone(error))?;
        self.compare(found.meta)?;
        match found.payload {
            GetResultPayload::File(file, _) => Ok(OpenFile { file, began }),
            GetResultPayload::Stream(_) => Err(StoreError::UnsupportedFileType {
                url: self.url(),
                what: "not on a disk of this machine".to_owned(),
            }),
        }
    }

    /// Goes through a range with `step`, piece by piece in order, off the async threads if it is
    /// on disk. What `step` leaves in place of a piece is the buffer of the next.
    pub async fn fold<T: Send + 'static>(
        &self,
        range: Range<u64>,
        mut state: T,
        step: fn(&mut T, &mut Vec<u8>),
    ) -> Result<T, StoreError> {
        if !self.is_on_disk() {
            let mut pieces = self.pieces_of(range, FOLDED, FOLDED_AHEAD);
            while let Some(piece) = pieces.try_next().await? {
                step(&mut state, &mut piece.into());
            }
            return Ok(state);
        }
        let OpenFile { file, began } = self.open().await?;
        let (url, whole) = (self.url(), range.clone());
        let folded = blocking(&url, "read", move || {
            let sum = change_detection::fold(&file, range, |buffer| step(&mut state, buffer))?;
            Ok((state, sum))
        });
        let (state, sum) = folded.await.map_err(now_shorter)?;
        self.add(began, whole, sum).await?;
        Ok(state)
    }

    /// Bytes of a file that [`Self::open`] gave, into `data` and into a digest, off the async threads.
    pub(super) async fn fill(
        &self,
        OpenFile { file, began }: OpenFile,
        mut data: Vec<u8>,
        mut md5: Md5,
        at: u64,
    ) -> Result<(OpenFile, Vec<u8>, Md5), StoreError> {
        let url = self.url();
        let read = blocking(&url, "read", move || {
            file.read_exact_at(&mut data, at)?;
            md5.update(&data);
            Ok((file, checksum(&data), data, md5))
        });
        let (file, sum, data, md5) = read.await.map_err(now_shorter)?;
        self.add(began, at..at.saturating_add(data.len() as u64), sum).await?;
        Ok((OpenFile { file, began }, data, md5))
    }

    /// What is gone after it was found has changed.
    pub(super) fn now_gone(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::NotFound { url } => {
                StoreError::Changed { url, detail: "it is gone".into() }
            }
            error => error,
        }
    }

    /// Compares it with what is there now.
    pub(super) fn compare(&self, meta: object_store::ObjectMeta) -> Result<(), StoreError> {
        let now = ObjectMeta::new(self.info.key.clone(), meta);
        let etag = self.info.etag.as_ref().or_else(|| self.version.get());
        let known = ObjectMeta { etag: etag.cloned(), ..ObjectMeta::clone(&self.info) };
        if let Some(detail) = known.differs(&now) {
            return Err(StoreError::Changed { url: self.url(), detail });
        }
        if let Some(etag) = now.etag {
            self.version.get_or_init(|| etag);
        }
        Ok(())
    }

    fn on_disk(&self) -> Option<PathBuf> {
        self.store.backend().disk_path(&self.info.key)
    }

    /// From when on a file on disk must not change while it is read; refuses one that has.
    async fn begin(&self) -> Result<Option<ChangeTime>, StoreError> {
        let Some(path) = self.on_disk().filter(|path| path.exists()) else { return Ok(None) };
        match self.taken.begin(&path) {
            Some(began) => Ok(Some(began)),
            None => self.compare_bytes(path).await.map(Some),
        }
    }

    /// Remembers what was read of a file on disk; refuses one that has changed since.
    async fn add(
        &self,
        began: Option<ChangeTime>,
        range: Range<u64>,
        checksum: u32,
    ) -> Result<(), StoreError> {
        match (self.on_disk(), began) {
            (Some(path), Some(began)) if !self.taken.add(&path, began, range, checksum) => {
                self.compare_bytes(path).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Refuses a file of which not all that was read is still the same.
    async fn compare_bytes(&self, path: PathBuf) -> Result<ChangeTime, StoreError> {
        let (url, taken) = (self.url(), Arc::clone(&self.taken));
        let compared = blocking(&url, "read", move || taken.compare(&path));
        let detail = "it was changed in place".to_owned();
        compared.await.map_err(now_shorter)?.ok_or(StoreError::Changed { url, detail })
    }
}

/// The bytes of an answer. No room is made for what a server says will come.
pub(super) async fn collected(found: GetResult) -> object_store::Result<Bytes> {
    let size = found.range.end.saturating_sub(found.range.start).min(JOINED);
    match found.payload {
        GetResultPayload::File(..) => found.bytes().await,
        GetResultPayload::Stream(mut stream) => {
            let mut data = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
            while let Some(more) = stream.try_next().await? {
                data.extend_from_slice(&more);
            }
            Ok(data.freeze())
        }
    }
}

/// A file that ends before it did when it was found has changed.
fn now_shorter(error: StoreError) -> StoreError {
    match error {
        StoreError::Io { url, source, .. } if source.kind() == ErrorKind::UnexpectedEof => {
            StoreError::Changed { url, detail: "it is shorter".to_owned() }
        }
        error => error,
    }
}

/// A range to fetch, and those it serves with their places in the order asked for.
type MergedRange = (Range<u64>, Vec<(usize, Range<u64>)>);

/// Each joined range with its members and their places in `ranges`. Bad ranges stand alone, for
/// `range` to refuse.
fn joined(ranges: &[Range<u64>], gap: u64, most: u64) -> Vec<MergedRange> {
    let mut sorted: Vec<(usize, Range<u64>)> = ranges.iter().cloned().enumerate().collect();
    sorted.sort_by_key(|(_, range)| range.start);
    let mut groups: Vec<MergedRange> = Vec::new();
    for (index, range) in sorted {
        match groups.last_mut() {
            Some((whole, members))
                if range.start <= range.end
                    && range.start <= whole.end.saturating_add(gap)
                    && whole.end.max(range.end) - whole.start <= most =>
            {
                whole.end = whole.end.max(range.end);
                members.push((index, range));
            }
            _ => groups.push((range.clone(), vec![(index, range)])),
        }
    }
    groups
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn joins_near_ranges_only() {
        let wholes = |ranges: &[Range<u64>]| -> Vec<Range<u64>> {
            joined(ranges, 10, 100).into_iter().map(|(whole, _)| whole).collect()
        };
        assert_eq!(wholes(&[30..40, 0..20, 35..38]), [0..40]);
        assert_eq!(wholes(&[0..20, 31..40]), [0..20, 31..40]);
        assert_eq!(wholes(&[0..60, 60..101]), [0..60, 60..101]);
        assert_eq!(wholes(&[0..500]), [0..500]);
        assert_eq!(joined(&[30..40, 0..20], 10, 100)[0].1, [(1, 0..20), (0, 30..40)]);
    }
}
