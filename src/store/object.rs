//! Range reads of an object, with detection of changes between the reads.

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

use super::backend::{attempt, attempt_read};
use super::blocking::blocking;
use super::change_detection::{self, ChangeTime, ReadRecord, checksum};
use super::error::StoreError;
use super::object_meta::ObjectMeta;
use super::registry::Store;

/// Greatest gap in bytes between two ranges that are merged into one read: on disk, and over a network.
const GAP: (u64, u64) = (64 << 10, 1 << 20);
/// Largest merged range, in bytes. Separate ranges are read in parallel.
const MAX_MERGED: u64 = 16 << 20;
/// Number of parallel reads.
const PARALLEL: usize = 10;
/// Bytes per request in [`Object::fold`] over a network.
const FOLD_CHUNK: u64 = 4 << 20;
/// Number of chunks that [`Object::fold`] fetches in parallel.
const FOLD_AHEAD: usize = 2;

/// An object for range reads. If the object is replaced between two reads, the second fails with
/// [`StoreError::Changed`]: the bytes are always of one version.
#[derive(Debug, Clone)]
pub struct Object {
    pub(super) store: Store,
    pub(super) path: ObjectPath,
    pub(super) info: Arc<ObjectMeta>,
    /// ETag of the first response, if `info` has none.
    version: Arc<OnceLock<String>>,
    /// Ranges that were read of a file on disk.
    reads: Arc<ReadRecord>,
}

/// An open file on disk. `began` is its ctime, which must not change while it is read.
pub(super) struct OpenFile {
    file: File,
    began: Option<ChangeTime>,
}

impl Object {
    pub(super) fn new(store: Store, path: ObjectPath, info: ObjectMeta) -> Self {
        let (version, reads) = Default::default();
        Self { store, path, info: Arc::new(info), version, reads }
    }

    /// Metadata of the object when it was opened or listed.
    pub fn info(&self) -> &ObjectMeta {
        &self.info
    }

    /// The whole URL or path of the object, for messages.
    pub fn url(&self) -> String {
        self.store.url(&self.info.key)
    }

    /// Reads one range of bytes.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] beyond the end, [`StoreError::Changed`] if the object has changed, or
    /// another error of the request.
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
            let response = objects.get_opts(&self.path, self.get_options(&range)).await?;
            let meta = response.meta.clone();
            if ObjectMeta::new(String::new(), meta.clone()).size != size {
                return Ok((Bytes::new(), meta));
            }
            Ok((read_body(response).await?, meta))
        };
        let result = attempt_read(self.store.backend(), &self.info.key, "read", get).await;
        let (data, meta) = result.map_err(|error| self.absent_as_changed(error))?;
        self.compare(meta)?;
        let (expected, start) = (range.end - range.start, range.start);
        if data.len() as u64 != expected {
            return Err(self.short_read(data.len(), expected));
        }
        if began.is_some() {
            self.add(began, start..range.end, checksum(&data)).await?;
        }
        Ok(data)
    }

    /// Options of a request for a range; with a known ETag, the request has `If-Match`.
    pub(super) fn get_options(&self, range: &Range<u64>) -> GetOptions {
        let etag = self.info.etag.as_ref().or_else(|| self.version.get());
        let if_match =
            etag.filter(|etag| !etag.starts_with("W/")).map(|etag| format!("\"{etag}\""));
        let range = Some(GetRange::Bounded(range.clone()));
        GetOptions { range, if_match, ..Default::default() }
    }

    /// The error of a response with fewer bytes than expected.
    pub(super) fn short_read(&self, received: usize, expected: u64) -> StoreError {
        let detail = format!("received {received} of {expected} bytes");
        StoreError::Changed { url: self.url(), detail }
    }

    /// Reads several ranges; the result has their order. Ranges that are close together are merged into
    /// one read; separate ones are read in parallel.
    ///
    /// # Errors
    /// As [`Object::range`].
    pub async fn ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let gap = if self.store.backend().is_remote() { GAP.1 } else { GAP.0 };
        let merged = merge_ranges(ranges, gap, MAX_MERGED);
        let fetched: Vec<Vec<(usize, Bytes)>> = stream::iter(merged)
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
        let mut parts: Vec<_> = fetched.into_iter().flatten().collect();
        parts.sort_unstable_by_key(|(index, _)| *index);
        Ok(parts.into_iter().map(|(_, data)| data).collect())
    }

    /// Whether the object is on a local disk, where a second read is cheap.
    pub(super) fn is_on_disk(&self) -> bool {
        self.disk_path().is_some()
    }

    /// Opens the file of an object on disk.
    ///
    /// # Errors
    /// The file has changed, or cannot be opened.
    pub(super) async fn open(&self) -> Result<OpenFile, StoreError> {
        let began = self.begin().await?;
        let objects = self.store.backend().objects().await?;
        let result =
            attempt(self.store.backend(), &self.info.key, "read", || objects.get(&self.path)).await;
        let response = result.map_err(|error| self.absent_as_changed(error))?;
        self.compare(response.meta)?;
        match response.payload {
            GetResultPayload::File(file, _) => Ok(OpenFile { file, began }),
            GetResultPayload::Stream(_) => Err(StoreError::UnsupportedFileType {
                url: self.url(),
                what: "not a file on a local disk".to_owned(),
            }),
        }
    }

    /// Folds a range with `step`, chunk by chunk in order; for a file on disk on a blocking thread. `step`
    /// may replace the buffer of a chunk; the next chunk is read into the buffer that it leaves.
    ///
    /// # Errors
    /// As [`Object::range`].
    pub async fn fold<T: Send + 'static>(
        &self,
        range: Range<u64>,
        mut state: T,
        step: fn(&mut T, &mut Vec<u8>),
    ) -> Result<T, StoreError> {
        if !self.is_on_disk() {
            let mut chunks = self.stream_range(range, FOLD_CHUNK, FOLD_AHEAD);
            while let Some(chunk) = chunks.try_next().await? {
                step(&mut state, &mut chunk.into());
            }
            return Ok(state);
        }
        let OpenFile { file, began } = self.open().await?;
        let (url, folded) = (self.url(), range.clone());
        let work = blocking(&url, "read", move || {
            let sum = change_detection::fold(&file, range, |buffer| step(&mut state, buffer))?;
            Ok((state, sum))
        });
        let (state, sum) = work.await.map_err(shorter_as_changed)?;
        self.add(began, folded, sum).await?;
        Ok(state)
    }

    /// Reads bytes of a file of [`Self::open`] into `data` and adds them to an MD5, on a blocking thread.
    /// Returns its arguments.
    pub(super) async fn fill(
        &self,
        OpenFile { file, began }: OpenFile,
        mut data: Vec<u8>,
        mut md5: Md5,
        offset: u64,
    ) -> Result<(OpenFile, Vec<u8>, Md5), StoreError> {
        let url = self.url();
        let read = blocking(&url, "read", move || {
            file.read_exact_at(&mut data, offset)?;
            md5.update(&data);
            Ok((file, checksum(&data), data, md5))
        });
        let (file, sum, data, md5) = read.await.map_err(shorter_as_changed)?;
        self.add(began, offset..offset.saturating_add(data.len() as u64), sum).await?;
        Ok((OpenFile { file, began }, data, md5))
    }

    /// Converts [`StoreError::NotFound`] to [`StoreError::Changed`]: the object existed when it was opened.
    pub(super) fn absent_as_changed(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::NotFound { url } => {
                StoreError::Changed { url, detail: "it was removed".into() }
            }
            error => error,
        }
    }

    /// Compares the object with the metadata of a response.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if they are of different versions.
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

    /// Path of the object on a local disk.
    fn disk_path(&self) -> Option<PathBuf> {
        self.store.backend().disk_path(&self.info.key)
    }

    /// The ctime of a file on disk before a read; `None` for other objects.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if bytes that were read before have changed.
    async fn begin(&self) -> Result<Option<ChangeTime>, StoreError> {
        let Some(path) = self.disk_path().filter(|path| path.exists()) else { return Ok(None) };
        match self.reads.begin(&path) {
            Some(began) => Ok(Some(began)),
            None => self.compare_bytes(path).await.map(Some),
        }
    }

    /// Records a range that was read of a file on disk.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if bytes that were read have changed.
    async fn add(
        &self,
        began: Option<ChangeTime>,
        range: Range<u64>,
        checksum: u32,
    ) -> Result<(), StoreError> {
        match (self.disk_path(), began) {
            (Some(path), Some(began)) if !self.reads.add(&path, began, range, checksum) => {
                self.compare_bytes(path).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Reads all recorded ranges again and returns the ctime of the unchanged file.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if bytes have changed.
    async fn compare_bytes(&self, path: PathBuf) -> Result<ChangeTime, StoreError> {
        let (url, reads) = (self.url(), Arc::clone(&self.reads));
        let compared = blocking(&url, "read", move || reads.compare(&path));
        let detail = "it was changed in place".to_owned();
        compared.await.map_err(shorter_as_changed)?.ok_or(StoreError::Changed { url, detail })
    }
}

/// Reads the body of a response. The initial buffer is bounded, whatever size the server states.
pub(super) async fn read_body(response: GetResult) -> object_store::Result<Bytes> {
    let size = response.range.end.saturating_sub(response.range.start).min(MAX_MERGED);
    match response.payload {
        GetResultPayload::File(..) => response.bytes().await,
        GetResultPayload::Stream(mut stream) => {
            let mut data = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
            while let Some(chunk) = stream.try_next().await? {
                data.extend_from_slice(&chunk);
            }
            Ok(data.freeze())
        }
    }
}

/// Converts an unexpected end of a file to [`StoreError::Changed`]: the file was longer when it was
/// opened.
fn shorter_as_changed(error: StoreError) -> StoreError {
    match error {
        StoreError::Io { url, source, .. } if source.kind() == ErrorKind::UnexpectedEof => {
            StoreError::Changed { url, detail: "it is shorter".to_owned() }
        }
        error => error,
    }
}

/// A range to read, and the requested ranges in it with their indices.
type MergedRange = (Range<u64>, Vec<(usize, Range<u64>)>);

/// Merges ranges whose gap is at most `gap` bytes into ranges of at most `most` bytes. An invalid range
/// is not merged; [`Object::range`] rejects it.
fn merge_ranges(ranges: &[Range<u64>], gap: u64, most: u64) -> Vec<MergedRange> {
    let mut sorted: Vec<(usize, Range<u64>)> = ranges.iter().cloned().enumerate().collect();
    sorted.sort_by_key(|(_, range)| range.start);
    let mut groups: Vec<MergedRange> = Vec::new();
    for (index, range) in sorted {
        match groups.last_mut() {
            Some((merged, members))
                if range.start <= range.end
                    && range.start <= merged.end.saturating_add(gap)
                    && merged.end.max(range.end) - merged.start <= most =>
            {
                merged.end = merged.end.max(range.end);
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
    fn merges_only_close_ranges() {
        let merged = |ranges: &[Range<u64>]| -> Vec<Range<u64>> {
            merge_ranges(ranges, 10, 100).into_iter().map(|(merged, _)| merged).collect()
        };
        assert_eq!(merged(&[30..40, 0..20, 35..38]), [0..40]);
        assert_eq!(merged(&[0..20, 31..40]), [0..20, 31..40]);
        assert_eq!(merged(&[0..60, 60..101]), [0..60, 60..101]);
        assert_eq!(merged(&[0..500]), [0..500]);
        assert_eq!(merge_ranges(&[30..40, 0..20], 10, 100)[0].1, [(1, 0..20), (0, 30..40)]);
    }
}
