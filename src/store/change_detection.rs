//! Detection of files on disk that are overwritten in place while they are read.
//!
//! A program can restore the modification time (mtime) of a file that it overwrites (`cp -p`,
//! `rsync -t`), but not its inode change time (ctime). `chmod` and a new hard link change the ctime
//! too. After a change of the ctime, the ranges that were read are therefore read again, and their
//! checksums decide.

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use flate2::Crc;

use super::limit::open_file;

/// Bytes per read.
const BUFFER: usize = 256 << 10;

/// Inode change time (ctime): seconds and nanoseconds since 1970.
pub(super) type ChangeTime = (i64, i64);

/// The ranges of a file that were read, with their checksums, and the ctime of the file before that.
#[derive(Debug, Default)]
pub(super) struct ReadRecord(Mutex<ReadState>);

#[derive(Debug, Default)]
struct ReadState {
    /// ctime at which the file is known to be unchanged; `None` before the first read.
    ctime: Option<ChangeTime>,
    /// Ranges of bytes that were read, with their CRC-32.
    ranges: Vec<(Range<u64>, u32)>,
}

impl ReadRecord {
    /// Runs `work` with the state locked.
    fn with<T>(&self, work: impl FnOnce(&mut ReadState) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Checks the ctime before a read. Returns it if it has not changed since the first read or since
    /// the last successful [`ReadRecord::compare`], and `None` otherwise.
    pub(super) fn begin(&self, path: &Path) -> Option<ChangeTime> {
        let now = change_time(&fs::metadata(path).ok()?);
        self.with(|state| (*state.ctime.get_or_insert(now) == now).then_some(now))
    }

    /// Records a range that was read, with its checksum. Returns whether the ctime is still `began`, the
    /// result of [`ReadRecord::begin`].
    pub(super) fn add(
        &self,
        path: &Path,
        began: ChangeTime,
        range: Range<u64>,
        checksum: u32,
    ) -> bool {
        self.with(|state| state.ranges.push((range, checksum)));
        fs::metadata(path).map_or(true, |metadata| change_time(&metadata) == began)
    }

    /// Reads all recorded ranges again. Returns the ctime if their checksums are unchanged, and `None`
    /// if one differs.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than a recorded range.
    pub(super) fn compare(&self, path: &Path) -> io::Result<Option<ChangeTime>> {
        let file = open_file(path)?;
        loop {
            let now = change_time(&file.metadata()?);
            for (range, expected) in self.with(|state| state.ranges.clone()) {
                let mut crc = Crc::new();
                for_each_chunk(&file, range, |buffer| crc.update(buffer))?;
                if crc.sum() != expected {
                    return Ok(None);
                }
            }
            if change_time(&file.metadata()?) == now {
                self.with(|state| state.ctime = Some(now));
                return Ok(Some(now));
            }
        }
    }
}

fn change_time(metadata: &Metadata) -> ChangeTime {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// The CRC-32 of bytes.
pub(super) fn checksum(data: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(data);
    crc.sum()
}

/// Reads a range of a file in chunks, passes each to `step`, and returns the CRC-32 of the range. `step`
/// may replace the buffer; the next chunk is read into the buffer that it leaves.
pub(super) fn fold(
    file: &File,
    range: Range<u64>,
    mut step: impl FnMut(&mut Vec<u8>),
) -> io::Result<u32> {
    let mut crc = Crc::new();
    for_each_chunk(file, range, |buffer| {
        crc.update(buffer);
        step(buffer);
    })?;
    Ok(crc.sum())
}

/// Reads a range of a file in chunks of at most [`BUFFER`] bytes.
fn for_each_chunk(
    file: &File,
    Range { mut start, end }: Range<u64>,
    mut step: impl FnMut(&mut Vec<u8>),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while start < end {
        let size = usize::try_from(end - start).map_or(BUFFER, |left| left.min(BUFFER));
        buffer.resize(size, 0);
        file.read_exact_at(&mut buffer, start)?;
        step(&mut buffer);
        start += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::thread::sleep;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::store::{Object, S3Options, StoreError, StoreRegistry};

    const PIECE: usize = 600 << 10;
    /// Longer than the resolution of inode times.
    const TICK: Duration = Duration::from_millis(30);

    /// Overwrites bytes of a file in place and restores its modification time.
    fn overwrite(path: &Path, bytes: &[u8], time: SystemTime) {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.set_modified(time).unwrap();
    }

    /// Reads parts of a file of four pieces before and after `change`.
    async fn read(change: impl FnOnce(&Path, SystemTime)) -> Result<(), StoreError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, vec![1; 4 * PIECE]).unwrap();
        let location = folder.path().display().to_string().parse().unwrap();
        let store = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
        let object: Object = store.open("x").await.unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let piece = PIECE as u64;
        object.range(0..piece).await.unwrap();
        object.fold(piece..2 * piece, (), |(), _| ()).await.unwrap();
        sleep(TICK);
        change(&path, time);
        object.range(2 * piece..3 * piece).await?;
        object.fold(0..4 * piece, (), |(), _| ()).await
    }

    #[tokio::test]
    async fn a_new_ctime_with_the_same_bytes_is_no_change() {
        read(|path, _| fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap())
            .await
            .unwrap();
        read(|path, _| fs::hard_link(path, path.with_extension("backup")).unwrap()).await.unwrap();
        // Overwritten with the same bytes.
        read(|path, time| overwrite(path, &[1; 10], time)).await.unwrap();
    }

    #[tokio::test]
    async fn changed_bytes_with_the_old_mtime_are_detected() {
        let last = 2 * PIECE - 1;
        for at in [0, PIECE, last] {
            let changed = read(|path, time| {
                let mut bytes = vec![1; 4 * PIECE];
                bytes[at] = 2;
                overwrite(path, &bytes, time);
            });
            let error = changed.await.unwrap_err();
            assert!(matches!(error, StoreError::Changed { .. }), "{at}: {error}");
            assert!(error.to_string().contains("changed in place"), "{at}: {error}");
        }
    }

    #[test]
    fn a_range_read_before_a_change_counts_when_it_is_recorded_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        let record = ReadRecord::default();
        let began = record.begin(&path).unwrap();
        sleep(TICK);
        fs::write(&path, "new").unwrap();
        assert_eq!(record.begin(&path), None);
        // Nothing is recorded yet, so the file may be read from its new state on.
        assert!(record.compare(&path).unwrap().is_some());
        assert!(!record.add(&path, began, 0..3, checksum(b"old")));
        assert_eq!(record.compare(&path).unwrap(), None);
    }
}
