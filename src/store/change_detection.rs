//! Whether a file on disk is still the one that was read before.
//!
//! Who overwrites a file in place can put its time back (`cp -p`, `rsync -t`), but not the time at
//! which its inode changed. `chmod` and another link to the file move that as well: then what was
//! read is read once more, and its bytes decide.

use std::fs::{self, File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use flate2::Crc;

use super::limit::open_file;

/// Bytes that are gone through at a time.
const BUFFER: usize = 256 << 10;

/// When an inode changed last, in seconds and nanoseconds.
pub(super) type ChangeTime = (i64, i64);

/// What was read of a file, and when it had changed last before.
#[derive(Debug, Default)]
pub(super) struct ReadRecord(Mutex<ReadState>);

#[derive(Debug, Default)]
struct ReadState {
    changed: Option<ChangeTime>,
    /// Ranges with their checksums.
    parts: Vec<(Range<u64>, u32)>,
}

impl ReadRecord {
    fn with<T>(&self, work: impl FnOnce(&mut ReadState) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the inode has not changed since the first read, or since it was found to have the same
    /// bytes: from this moment on it may be read.
    pub(super) fn begin(&self, path: &Path) -> Option<ChangeTime> {
        let now = moment(&fs::metadata(path).ok()?);
        self.with(|state| (*state.changed.get_or_insert(now) == now).then_some(now))
    }

    /// Remembers a range that was read, by its checksum. Whether the inode has not changed since `began`.
    pub(super) fn add(
        &self,
        path: &Path,
        began: ChangeTime,
        range: Range<u64>,
        checksum: u32,
    ) -> bool {
        self.with(|state| state.parts.push((range, checksum)));
        fs::metadata(path).map_or(true, |found| moment(&found) == began)
    }

    /// Whether all that was read still has the same bytes; the moment from which on it may be read.
    ///
    /// # Errors
    /// The file cannot be read to where it was read before.
    pub(super) fn compare(&self, path: &Path) -> io::Result<Option<ChangeTime>> {
        let file = open_file(path)?;
        loop {
            let now = moment(&file.metadata()?);
            for (range, known) in self.with(|state| state.parts.clone()) {
                let mut found = Crc::new();
                pass(&file, range, |buffer| found.update(buffer))?;
                if found.sum() != known {
                    return Ok(None);
                }
            }
            if moment(&file.metadata()?) == now {
                self.with(|state| state.changed = Some(now));
                return Ok(Some(now));
            }
        }
    }
}

fn moment(of: &Metadata) -> ChangeTime {
    (of.ctime(), of.ctime_nsec())
}

/// The checksum of bytes.
pub(super) fn checksum(data: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(data);
    sum.sum()
}

/// Goes through a range of a file, piece by piece; what `step` leaves in place of a piece is the buffer
/// of the next. Gives the checksum of the range.
pub(super) fn fold(
    file: &File,
    range: Range<u64>,
    mut step: impl FnMut(&mut Vec<u8>),
) -> io::Result<u32> {
    let mut sum = Crc::new();
    pass(file, range, |buffer| {
        sum.update(buffer);
        step(buffer);
    })?;
    Ok(sum.sum())
}

fn pass(
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
    /// Longer than times of inodes are apart at least.
    const TICK: Duration = Duration::from_millis(30);

    /// Puts bytes into a file in place, with the time of the old ones.
    fn overwrite(path: &Path, bytes: &[u8], time: SystemTime) {
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.set_modified(time).unwrap();
    }

    /// Reads parts of a file of four pieces before and after something is done to it.
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
    async fn another_time_of_the_inode_alone_is_no_other_file() {
        read(|path, _| fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap())
            .await
            .unwrap();
        read(|path, _| fs::hard_link(path, path.with_extension("backup")).unwrap()).await.unwrap();
        // Written with what it has.
        read(|path, time| overwrite(path, &[1; 10], time)).await.unwrap();
    }

    #[tokio::test]
    async fn other_bytes_with_the_old_time_are_found() {
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
    fn what_was_read_before_the_change_counts_when_it_is_told_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        let taken = ReadRecord::default();
        let began = taken.begin(&path).unwrap();
        sleep(TICK);
        fs::write(&path, "new").unwrap();
        assert_eq!(taken.begin(&path), None);
        // Somebody else, who had read nothing, goes on from here.
        assert!(taken.compare(&path).unwrap().is_some());
        assert!(!taken.add(&path, began, 0..3, checksum(b"old")));
        assert_eq!(taken.compare(&path).unwrap(), None);
    }
}
