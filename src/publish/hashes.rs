//! MD5s of files that no record tells of: each file is read once, and again when it has changed.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use md5::{Digest as _, Md5};
use tokio_util::sync::CancellationToken;

use super::{Digest, Entry, PublishError};
use crate::pipeline::Stopped;
use crate::store::{Lines, Object, Store, StoreError, Surveyed, open_file};

const NAME: &str = "hashes.jsonl";
/// Objects that are read at the same time.
const OBJECTS: usize = 4;

/// What is known, kept in a file: lines of `["key", "fingerprint", "md5"]`, of which the last
/// for a key counts.
pub(super) struct Hashes {
    path: PathBuf,
    known: HashMap<String, (String, Digest)>,
}

impl Hashes {
    /// Those that were kept in a folder.
    pub(super) fn load(folder: &Path) -> Result<Self, PublishError> {
        let path = folder.join(NAME);
        let known = match open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            file => file.and_then(read).map_err(|source| failed(&path, source))?,
        };
        Ok(Self { path, known })
    }

    /// The entries of objects; those that are new or have changed are read.
    pub(super) async fn entries(
        &self,
        source: &Store,
        objects: Vec<Surveyed>,
        stop: &CancellationToken,
    ) -> Result<Vec<Entry>, PublishError> {
        let open = || {
            fs::create_dir_all(self.path.parent().unwrap_or(&self.path))?;
            OpenOptions::new().create(true).append(true).open(&self.path)
        };
        let mut file = open().map_err(|source| failed(&self.path, source))?;
        let entry = async |object: Surveyed| {
            let Surveyed { key, size, fingerprint } = object;
            if let Some((as_of, md5)) = self.known.get(&key)
                && *as_of == fingerprint
            {
                return Ok((Entry { key: key.into(), size, md5: *md5 }, None));
            }
            if stop.is_cancelled() {
                return Err(PublishError::from(Stopped));
            }
            let md5 = hash(&source.object(&key).await?).await?;
            Ok((Entry { key: key.into(), size, md5 }, Some(fingerprint)))
        };
        let mut entries = Vec::with_capacity(objects.len());
        let mut read = stream::iter(objects).map(entry).buffered(OBJECTS);
        while let Some((entry, fingerprint)) = read.try_next().await? {
            if let Some(fingerprint) = fingerprint {
                let line = serde_json::to_string(&(&entry.key, fingerprint, entry.md5));
                writeln!(file, "{}", line.unwrap_or_default())
                    .map_err(|source| failed(&self.path, source))?;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

fn read(file: File) -> io::Result<HashMap<String, (String, Digest)>> {
    let mut known = HashMap::new();
    let mut lines = Lines::new(file, u64::MAX);
    loop {
        match lines.next_line() {
            // A kill may have cut a line off, and a crash have left anything there.
            Ok(Some(line)) => {
                if let Ok((key, fingerprint, md5)) = serde_json::from_slice(line) {
                    known.insert(key, (fingerprint, md5));
                }
            }
            Ok(None) => return Ok(known),
            // No line of ours is so long: what follows is not believed.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(known),
            Err(error) => return Err(error),
        }
    }
}

/// The MD5 of an object, which may be large.
pub(super) async fn hash(object: &Object) -> Result<Digest, StoreError> {
    let step = |md5: &mut Md5, piece: &mut Vec<u8>| md5.update(piece);
    let md5 = object.fold(0..object.info().size, Md5::new(), step).await?;
    Ok(Digest(md5.finalize().into()))
}

fn failed(path: &Path, source: io::Error) -> PublishError {
    PublishError::Journal { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_has_torn_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let line = |key: &str| serde_json::to_vec(&(key, "1", Digest::of(b"x"))).unwrap();
        let torn = b"[\"\xff\n\0\0\n[\"half".to_vec();
        let text = [line("a"), b"\n".to_vec(), torn, b"\n".to_vec(), line("b")].concat();
        fs::write(folder.path().join(NAME), text).unwrap();
        let known = Hashes::load(folder.path()).unwrap().known;
        assert!(known.len() == 2 && known.contains_key("a") && known.contains_key("b"));
    }
}
