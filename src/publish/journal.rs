//! What this machine knows of a publish that is under way: objects that have arrived, and uploads
//! that were begun, so that after a kill nothing is sent again and nothing is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::PublishError;
use super::audit::Arrived;
use crate::model::{ETag, hex};
use crate::store::{Lines, Location, open_file};

const NAME: &str = "journal.jsonl";

/// Folder for what is known of publishing `source` to `destination`: below `DOR_STATE_DIR`, else
/// the user's folder for state.
pub fn state_folder(source: &Location, destination: &Location) -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = of("DOR_STATE_DIR")
        .or_else(|| of("XDG_STATE_HOME").map(|folder| folder.join("dor")))
        .or_else(|| of("HOME").map(|home| home.join(".local/state/dor")))
        .unwrap_or_else(|| std::env::temp_dir().join("dor"));
    let pair = format!("{}\n{}", source.real(), destination.real());
    base.join("publish").join(&hex(&Sha256::digest(pair))[..16])
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// The mark at the destination that the lines belong to.
    Of(String),
    /// An object that was published before is about to be replaced.
    Changing(String),
    /// An object has arrived.
    Done(String, ETag),
    /// An upload by parts is about to begin.
    Begun(String),
    /// It has begun under an id.
    Upload(String, String),
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub struct Earlier {
    /// The mark at the destination that it belongs to.
    pub token: Option<String>,
    /// Objects that have arrived; `None` for those that may have been replaced by now.
    pub arrived: Arrived,
    /// Objects whose uploads may be unfinished, with the ids that are known.
    pub uploads: BTreeMap<String, BTreeSet<String>>,
}

impl Earlier {
    /// What a journal tells, and how many bytes of it do. Nothing when a line is damaged that has others
    /// after it: what that one told would be missing.
    fn read(path: &Path) -> io::Result<(Self, usize)> {
        let mut lines = match open_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            file => Lines::new(file?, u64::MAX),
        };
        let mut earlier = Self::default();
        let (mut whole, mut is_torn, mut is_damaged) = (0, false, false);
        loop {
            let line = match lines.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                // No line of a journal is so long.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    is_damaged = true;
                    break;
                }
                Err(error) => return Err(error),
            };
            match serde_json::from_slice(line).ok().filter(|_| line.ends_with(b"\n")) {
                Some(_) if is_torn => is_damaged = true,
                Some(told) => {
                    whole += line.len();
                    earlier.take(told);
                }
                // A kill may have cut the last line off, and a crash have left anything there.
                None => is_torn = true,
            }
        }
        if is_damaged {
            tracing::warn!("{} is damaged: it is not believed", path.display());
            return Ok(Default::default());
        }
        Ok((earlier, whole))
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Of(token) => self.token = Some(token),
            Line::Changing(key) => drop(self.arrived.insert(key, None)),
            Line::Done(key, etag) => {
                self.uploads.remove(&key);
                self.arrived.insert(key, Some(etag));
            }
            Line::Begun(key) => drop(self.uploads.entry(key).or_default()),
            Line::Upload(key, id) => {
                self.uploads.entry(key).or_default().insert(id);
            }
        }
    }
}

type Message = (Line, Option<oneshot::Sender<()>>);

/// The journal of a run; lines are on the platter in the order they are given.
pub struct Journal {
    path: PathBuf,
    lines: mpsc::Sender<Message>,
    writer: JoinHandle<io::Result<()>>,
}

impl Journal {
    /// What earlier runs left in a folder; nothing when there was none.
    pub fn earlier(folder: &Path) -> Result<Earlier, PublishError> {
        let path = folder.join(NAME);
        let read = Earlier::read(&path).map_err(|source| failed(&path, source));
        read.map(|(earlier, _)| earlier)
    }

    /// Opens the journal in a folder: to go on with if it belongs to the same mark, else anew.
    pub fn open(folder: &Path, token: &str) -> Result<Self, PublishError> {
        let path = folder.join(NAME);
        let open = || {
            fs::create_dir_all(folder)?;
            let (earlier, mut whole) = Earlier::read(&path)?;
            if earlier.token.as_deref() != Some(token) {
                let mut line = serde_json::to_vec(&Line::Of(token.to_owned()))?;
                line.push(b'\n');
                fs::write(&path, &line)?;
                whole = line.len();
            }
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(whole as u64)?;
            Ok(file)
        };
        let file = open().map_err(|source| failed(&path, source))?;
        Ok(Self::into_file(path, file))
    }

    fn into_file(path: PathBuf, file: File) -> Self {
        let (lines, received) = mpsc::channel();
        let writer = std::thread::spawn(move || write(file, &received));
        Self { path, lines, writer }
    }

    /// What lies at the destination and is not what the manifest tells; `None` where that is not known, or
    /// is about to be replaced. Returns when that is on the platter.
    pub async fn differ(
        &self,
        states: impl Iterator<Item = (&str, Option<ETag>)>,
    ) -> Result<(), PublishError> {
        let line = |(key, etag): (&str, Option<ETag>)| match etag {
            Some(etag) => Line::Done(key.to_owned(), etag),
            None => Line::Changing(key.to_owned()),
        };
        let mut last = None;
        for state in states {
            if let Some(state) = last.replace(state) {
                self.send(line(state), None);
            }
        }
        match last {
            Some(state) => self.send_and_wait(line(state)).await,
            None => Ok(()),
        }
    }

    /// An object has arrived.
    pub fn done(&self, key: &str, etag: ETag) {
        self.send(Line::Done(key.to_owned(), etag), None);
    }

    /// An upload by parts is about to begin; returns when that is on the platter.
    pub async fn begun(&self, key: &str) -> Result<(), PublishError> {
        self.send_and_wait(Line::Begun(key.to_owned())).await
    }

    /// It has begun under an id; returns when that is on the platter.
    pub async fn upload(&self, key: &str, id: &str) -> Result<(), PublishError> {
        self.send_and_wait(Line::Upload(key.to_owned(), id.to_owned())).await
    }

    async fn send_and_wait(&self, line: Line) -> Result<(), PublishError> {
        let (sender, written) = oneshot::channel();
        self.send(line, Some(sender));
        // Why the writer failed is told at the end.
        written.await.map_err(|_| failed(&self.path, io::ErrorKind::Other.into()))
    }

    fn send(&self, line: Line, written: Option<oneshot::Sender<()>>) {
        let _ = self.lines.send((line, written));
    }

    /// Ends the journal; it stays, for the next run.
    pub fn keep(self) -> Result<(), PublishError> {
        let Self { path, lines, writer } = self;
        drop(lines);
        let result = writer.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        result.map_err(|source| failed(&path, source))
    }

    /// Ends the journal and removes it: all is published.
    pub fn remove(self) -> Result<(), PublishError> {
        let path = self.path.clone();
        self.keep()?;
        fs::remove_file(&path).map_err(|source| failed(&path, source))
    }
}

fn write(mut file: File, received: &mpsc::Receiver<Message>) -> io::Result<()> {
    while let Ok(first) = received.recv() {
        let mut waiting = Vec::new();
        let mut text = Vec::new();
        for (line, written) in std::iter::once(first).chain(received.try_iter()) {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
            waiting.extend(written);
        }
        file.write_all(&text)?;
        file.sync_data()?;
        // Who no longer waits need not be told.
        waiting.into_iter().for_each(|written| _ = written.send(()));
    }
    Ok(())
}

fn failed(path: &Path, source: io::Error) -> PublishError {
    PublishError::Journal { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_journal_that_cannot_be_written_stops_what_it_is_kept_for() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let journal = Journal::into_file("journal".into(), full);
        for _ in 0..2 {
            assert!(journal.differ([("a", None)].into_iter()).await.is_err());
            assert!(journal.begun("b").await.is_err() && journal.upload("b", "7").await.is_err());
        }
        let error = journal.keep().unwrap_err().to_string();
        assert!(error.contains("No space left") && error.contains("DOR_STATE_DIR"), "{error}");
    }

    #[tokio::test]
    async fn a_journal_tells_what_has_arrived_and_what_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let etag = crate::model::Parts::of(b"x", 1).etag();
        let journal = Journal::open(folder.path(), "1").unwrap();
        journal.differ([("a", None), ("d", None)].into_iter()).await.unwrap();
        journal.done("a", etag);
        journal.begun("b").await.unwrap();
        journal.upload("b", "7").await.unwrap();
        journal.begun("c").await.unwrap();
        journal.keep().unwrap();
        for torn in [&br#"{"done":["half"#[..], b"{\"done\":[\"\xff\xfe", b"\0\0\n\xc3\n\0"] {
            let mut file = OpenOptions::new().append(true).open(folder.path().join(NAME)).unwrap();
            file.write_all(torn).unwrap();
            assert_eq!(Journal::earlier(folder.path()).unwrap().token.as_deref(), Some("1"));
            Journal::open(folder.path(), "1").unwrap().keep().unwrap();
        }
        let journal = Journal::open(folder.path(), "1").unwrap();
        journal.done("c", etag);
        journal.keep().unwrap();
        let earlier = Journal::earlier(folder.path()).unwrap();
        let arrived = [("a", Some(etag)), ("c", Some(etag)), ("d", None)];
        let arrived = arrived.map(|(key, etag)| (key.to_owned(), etag));
        assert_eq!(earlier.arrived, BTreeMap::from(arrived));
        assert_eq!(earlier.uploads.len(), 1);
        assert!(earlier.uploads["b"].contains("7"));
        assert_eq!(earlier.token.as_deref(), Some("1"));
        let path = folder.path().join(NAME);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\"a\"", "a", 1)).unwrap();
        let damaged = Journal::earlier(folder.path()).unwrap();
        assert!(damaged.token.is_none() && damaged.arrived.is_empty(), "{damaged:?}");
        fs::write(&path, text).unwrap();
        Journal::open(folder.path(), "2").unwrap().keep().unwrap();
        assert!(Journal::earlier(folder.path()).unwrap().arrived.is_empty(), "of another mark");
        Journal::open(folder.path(), "2").unwrap().remove().unwrap();
        assert!(Journal::earlier(folder.path()).unwrap().arrived.is_empty());
    }
}
