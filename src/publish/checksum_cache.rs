//! MD5s of the parts of files that no record tells: each file is read once, and again when it has changed
//! or has parts of another size.

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

const NAME: &str = "hashes.jsonl";
/// Objects that are read at the same time.
const OBJECTS: usize = 4;

/// What a record tells of an object whose parts have another size there.
pub(super) struct RecordedParts {
    /// Bytes of the object.
    pub size: u64,
    /// MD5 of each part, and the usual size of these.
    pub md5: Parts,
    pub part_size: u64,
}

impl RecordedParts {
    /// What stands for an object that is not so.
    pub(super) fn entry(&self, key: &str) -> ObjectEntry {
        ObjectEntry::new(key, self.size, self.md5.clone())
    }
}

/// The same of several, by key.
pub(super) type RecordedByKey = HashMap<String, RecordedParts>;

/// Objects that are not what a record tells, by key, and why.
type DamagedObjects = Vec<(String, String)>;

/// An object that was looked at.
enum HashedObject {
    /// Its bytes were known.
    Known(ObjectEntry),
    /// They were read, as those of this fingerprint.
    Read(ObjectEntry, String, Parts),
    /// They are not what its record tells, and why.
    Damaged(ObjectEntry, String),
}

/// What is known of a file: its fingerprint, the size of its parts, their MD5s.
type CachedParts = (String, u64, Parts);

/// What is known, kept in a file: lines of `["key", "fingerprint", part_size, md5]`, of which the last
/// for a key counts.
pub(super) struct ChecksumCache {
    path: PathBuf,
    /// Bytes of the parts that are wanted.
    part_size: u64,
    known: HashMap<String, CachedParts>,
}

impl ChecksumCache {
    /// Those that were kept in a folder, for parts of so many bytes.
    pub(super) fn load(folder: &Path, part_size: u64) -> Result<Self, PublishError> {
        let path = folder.join(NAME);
        let known = match open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            file => file.and_then(read).map_err(|source| failed(&path, source))?,
        };
        Ok(Self { path, part_size, known })
    }

    /// The entries of objects; those that are new or have changed are read, and compared with what is
    /// recorded of them under another size of parts. Those that differ from it are told, and stand for
    /// nothing that could be sent.
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
        let look = async |object: SourceFile| {
            if stop.is_cancelled() {
                return Err(PublishError::from(Stopped));
            }
            let recorded = recorded.get(&object.key);
            self.look(source, object, recorded).await
        };
        let (mut entries, mut damaged) = (Vec::with_capacity(objects.len()), Vec::new());
        let mut found = stream::iter(objects).map(look).buffered(OBJECTS);
        while let Some(found) = found.try_next().await? {
            let entry = match found {
                HashedObject::Known(entry) => entry,
                HashedObject::Read(entry, fingerprint, md5) => {
                    let line =
                        serde_json::to_string(&(&entry.key, fingerprint, self.part_size, md5));
                    writeln!(file, "{}", line.unwrap_or_default())
                        .map_err(|source| failed(&self.path, source))?;
                    entry
                }
                HashedObject::Damaged(entry, problem) => {
                    damaged.push((entry.key.to_string(), problem));
                    entry
                }
            };
            entries.push(entry);
        }
        Ok((entries, damaged))
    }

    async fn look(
        &self,
        source: &Store,
        SourceFile { key, size, mut fingerprint }: SourceFile,
        recorded: Option<&RecordedParts>,
    ) -> Result<HashedObject, PublishError> {
        if let Some(RecordedParts { md5, .. }) = recorded {
            // With another record it has not been compared.
            fingerprint = format!("{fingerprint} {}", md5.etag());
        }
        if let Some((as_of, part_size, md5)) = self.known.get(&key)
            && *as_of == fingerprint
            && has_same_parts(size, *part_size, self.part_size)
        {
            return Ok(HashedObject::Known(ObjectEntry::new(&key, size, md5.clone())));
        }
        let object = source.open(&key).await?;
        let md5 = match recorded {
            None => {
                let [md5] = hash(&object, [self.part_size]).await?;
                md5
            }
            Some(otherwise) if otherwise.size != size => {
                let problem = format!("{size} bytes, not {}", otherwise.size);
                return Ok(HashedObject::Damaged(otherwise.entry(&key), problem));
            }
            Some(otherwise) => {
                let [md5, found] = hash(&object, [self.part_size, otherwise.part_size]).await?;
                if found != otherwise.md5 {
                    let problem = "the MD5s of its parts are others".to_owned();
                    return Ok(HashedObject::Damaged(otherwise.entry(&key), problem));
                }
                md5
            }
        };
        Ok(HashedObject::Read(ObjectEntry::new(&key, size, md5.clone()), fingerprint, md5))
    }
}

fn read(file: File) -> io::Result<HashMap<String, CachedParts>> {
    let mut known = HashMap::new();
    let mut lines = Lines::new(file, u64::MAX);
    loop {
        match lines.next_line() {
            // A kill may have cut a line off, and a crash have left anything there.
            Ok(Some(line)) => {
                if let Ok((key, fingerprint, part_size, md5)) = serde_json::from_slice(line) {
                    known.insert(key, (fingerprint, part_size, md5));
                }
            }
            Ok(None) => return Ok(known),
            // No line of ours is so long: what follows is not believed.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(known),
            Err(error) => return Err(error),
        }
    }
}

/// The MD5s of the parts of an object, which may be large, for each of these sizes of parts.
pub(super) async fn hash<const N: usize>(
    object: &Object,
    part_sizes: [u64; N],
) -> Result<[Parts; N], StoreError> {
    let size = object.info().size;
    let step = |hashers: &mut [PartHasher; N], piece: &mut Vec<u8>| {
        hashers.iter_mut().for_each(|hasher| hasher.update(piece));
    };
    let hashers = part_sizes.map(|part_size| PartHasher::new(part_size, size));
    Ok(object.fold(0..size, hashers, step).await?.map(PartHasher::finish))
}

/// Folder for what is known of the files of `source`: below `DOR_STATE_DIR`, else the user's folder for state.
pub(super) fn state_folder(source: &Location) -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = of("DOR_STATE_DIR")
        .or_else(|| of("XDG_STATE_HOME").map(|folder| folder.join("dor")))
        .or_else(|| of("HOME").map(|home| home.join(".local/state/dor")))
        .unwrap_or_else(|| std::env::temp_dir().join("dor"));
    base.join("checksums").join(&hex(&Sha256::digest(source.real()))[..16])
}

fn failed(path: &Path, source: io::Error) -> PublishError {
    PublishError::Cache { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_has_torn_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let line = |key: &str| serde_json::to_vec(&(key, "1", 5, Parts::of(b"x", 5))).unwrap();
        let torn = b"[\"\xff\n\0\0\n[\"half".to_vec();
        let text = [line("a"), b"\n".to_vec(), torn, b"\n".to_vec(), line("b")].concat();
        fs::write(folder.path().join(NAME), text).unwrap();
        let known = ChecksumCache::load(folder.path(), 5).unwrap().known;
        assert!(known.len() == 2 && known.contains_key("a") && known.contains_key("b"));
    }
}
