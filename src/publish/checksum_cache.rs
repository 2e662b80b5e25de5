//! The local cache of checksums of files without a record.
//!
//! A file is read once to compute the MD5s of its parts. It is read again when it has changed, or
//! when the destination has parts of another size.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::{ObjectEntry, PublishError};
use crate::executor::Stopped;
use crate::model::checksums::has_same_parts;
use crate::model::{PartHasher, Parts, hex};
use crate::store::{Lines, Location, Object, SourceFile, Store, StoreError, open_file};

/// Name of the cache file.
const NAME: &str = "hashes.jsonl";
/// Objects that are read at the same time.
const OBJECTS: usize = 4;

/// The recorded checksums of an object whose record has parts of another size than the destination.
pub(super) struct RecordedParts {
    /// Size of the object in bytes.
    pub size: u64,
    /// MD5 of each part.
    pub md5: Parts,
    /// Size of the parts in bytes.
    pub part_size: u64,
}

impl RecordedParts {
    /// The recorded entry, which stands for an object that does not match its record.
    pub(super) fn entry(&self, key: &str) -> ObjectEntry {
        ObjectEntry::new(key, self.size, self.md5.clone())
    }
}

/// Recorded checksums by key.
pub(super) type RecordedByKey = HashMap<String, RecordedParts>;

/// Keys of objects that do not match their record, each with the difference.
type DamagedObjects = Vec<(String, String)>;

/// The entry of an object and how it was found.
enum HashedObject {
    /// The cache has its checksums.
    Cached(ObjectEntry),
    /// The object was read: its fingerprint and its checksums are new to the cache.
    Read(ObjectEntry, String, Parts),
    /// The object does not match its record; the text is the difference.
    Damaged(ObjectEntry, String),
}

/// The fingerprint of a file, the size of its parts in bytes, and their MD5s.
type CachedParts = (String, u64, Parts);

/// The cache, a file with lines of `["key", "fingerprint", part_size, md5]`; the last line of a key
/// counts.
pub(super) struct ChecksumCache {
    path: PathBuf,
    /// Size in bytes of the parts for which checksums are needed.
    part_size: u64,
    cached: HashMap<String, CachedParts>,
}

impl ChecksumCache {
    /// Loads the cache in `folder`. `part_size` is the size in bytes of the parts for which checksums
    /// are needed.
    pub(super) fn load(folder: &Path, part_size: u64) -> Result<Self, PublishError> {
        let path = folder.join(NAME);
        let cached = match open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            file => file.and_then(read).map_err(|source| failed(&path, source))?,
        };
        Ok(Self { path, part_size, cached })
    }

    /// Returns the entries of objects. Objects that are new or have changed are read, compared with
    /// their record in `recorded`, and added to the cache. Objects that differ from their record are
    /// returned in the second list; their entries must not be sent.
    pub(super) async fn entries(
        &self,
        source: &Store,
        objects: Vec<SourceFile>,
        recorded: &RecordedByKey,
        stop: &CancellationToken,
    ) -> Result<(Vec<ObjectEntry>, DamagedObjects), PublishError> {
        let open = || {
            fs::create_dir_all(self.path.parent().unwrap_or(&self.path))?;
            OpenOptions::new().create(true).append(true).open(&self.path)
        };
        let mut file = open().map_err(|source| failed(&self.path, source))?;
        let hash = async |object: SourceFile| {
            if stop.is_cancelled() {
                return Err(PublishError::from(Stopped));
            }
            let recorded = recorded.get(&object.key);
            self.entry(source, object, recorded).await
        };
        let (mut entries, mut mismatched) = (Vec::with_capacity(objects.len()), Vec::new());
        let mut hashed = stream::iter(objects).map(hash).buffered(OBJECTS);
        while let Some(object) = hashed.try_next().await? {
            let entry = match object {
                HashedObject::Cached(entry) => entry,
                HashedObject::Read(entry, fingerprint, md5) => {
                    let line =
                        serde_json::to_string(&(&entry.key, fingerprint, self.part_size, md5));
                    writeln!(file, "{}", line.unwrap_or_default())
                        .map_err(|source| failed(&self.path, source))?;
                    entry
                }
                HashedObject::Damaged(entry, problem) => {
                    mismatched.push((entry.key.to_string(), problem));
                    entry
                }
            };
            entries.push(entry);
        }
        Ok((entries, mismatched))
    }

    /// Finds the checksums of one object, in the cache or by reading it.
    async fn entry(
        &self,
        source: &Store,
        SourceFile { key, size, mut fingerprint }: SourceFile,
        recorded: Option<&RecordedParts>,
    ) -> Result<HashedObject, PublishError> {
        if let Some(RecordedParts { md5, .. }) = recorded {
            // A cached object was compared with this record only if the record is still the same.
            fingerprint = format!("{fingerprint} {}", md5.etag());
        }
        if let Some((cached_fingerprint, part_size, md5)) = self.cached.get(&key)
            && *cached_fingerprint == fingerprint
            && has_same_parts(size, *part_size, self.part_size)
        {
            return Ok(HashedObject::Cached(ObjectEntry::new(&key, size, md5.clone())));
        }
        let object = source.open(&key).await?;
        let md5 = match recorded {
            None => {
                let [md5] = hash(&object, [self.part_size]).await?;
                md5
            }
            Some(recorded) if recorded.size != size => {
                let problem = format!("{size} bytes, not {}", recorded.size);
                return Ok(HashedObject::Damaged(recorded.entry(&key), problem));
            }
            Some(recorded) => {
                let [md5, in_recorded_parts] =
                    hash(&object, [self.part_size, recorded.part_size]).await?;
                if in_recorded_parts != recorded.md5 {
                    let problem = "the MD5s of its parts differ".to_owned();
                    return Ok(HashedObject::Damaged(recorded.entry(&key), problem));
                }
                md5
            }
        };
        Ok(HashedObject::Read(ObjectEntry::new(&key, size, md5.clone()), fingerprint, md5))
    }
}

/// Reads the lines of a cache file and ignores invalid ones.
fn read(file: File) -> io::Result<HashMap<String, CachedParts>> {
    let mut cached = HashMap::new();
    let mut lines = Lines::new(file, u64::MAX);
    loop {
        match lines.next_line() {
            // A kill may have cut a line off, and a crash may have left any bytes in the file.
            Ok(Some(line)) => {
                if let Ok((key, fingerprint, part_size, md5)) = serde_json::from_slice(line) {
                    cached.insert(key, (fingerprint, part_size, md5));
                }
            }
            Ok(None) => return Ok(cached),
            // A line above the limit is not one of this program: the rest of the file is ignored.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(cached),
            Err(error) => return Err(error),
        }
    }
}

/// Reads an object once, without holding it in memory, and returns the MD5s of its parts for each of
/// the sizes `part_sizes` in bytes.
pub(super) async fn hash<const N: usize>(
    object: &Object,
    part_sizes: [u64; N],
) -> Result<[Parts; N], StoreError> {
    let size = object.info().size;
    let update = |hashers: &mut [PartHasher; N], bytes: &mut Vec<u8>| {
        hashers.iter_mut().for_each(|hasher| hasher.update(bytes));
    };
    let hashers = part_sizes.map(|part_size| PartHasher::new(part_size, size));
    Ok(object.fold(0..size, hashers, update).await?.map(PartHasher::finish))
}

/// The folder of the cache of a source: below `DOR_STATE_DIR`, else below the state folder of the
/// user (`XDG_STATE_HOME`, `~/.local/state`).
pub(super) fn state_folder(source: &Location) -> PathBuf {
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = path("DOR_STATE_DIR")
        .or_else(|| path("XDG_STATE_HOME").map(|folder| folder.join("dor")))
        .or_else(|| path("HOME").map(|home| home.join(".local/state/dor")))
        .unwrap_or_else(|| std::env::temp_dir().join("dor"));
    base.join("checksums").join(&hex(&Sha256::digest(source.canonical()))[..16])
}

fn failed(path: &Path, source: io::Error) -> PublishError {
    PublishError::Cache { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_a_crash_has_torn_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let line = |key: &str| serde_json::to_vec(&(key, "1", 5, Parts::of(b"x", 5))).unwrap();
        let torn = b"[\"\xff\n\0\0\n[\"half".to_vec();
        let text = [line("a"), b"\n".to_vec(), torn, b"\n".to_vec(), line("b")].concat();
        fs::write(folder.path().join(NAME), text).unwrap();
        let cached = ChecksumCache::load(folder.path(), 5).unwrap().cached;
        assert!(cached.len() == 2 && cached.contains_key("a") && cached.contains_key("b"));
    }
}
