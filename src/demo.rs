//! Synthetic raw cases written to any location.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::case_manifest::{CASES, TOGETHER, sha256};
use crate::encode::{PartSink, SinkError};
use crate::executor::{Pool, PoolError, UploadSink};
use crate::model::{Case, Checksums, ErrorKind, PartHasher, WithErrorKind, YearMonth, hex};
use crate::research::plan::raw_folder;
use crate::store::{Store, StoreError};
use crate::synthetic::SyntheticCase;

/// Name of the folder of cases, of the grid file and of the other inputs, below the location.
pub const ARCHIVE: &str = "archive";
/// Grid file.
pub const GRID: &str = "grid.nc";
/// Series of sea surface height.
pub const SSH: &str = "ssh.nc";
/// Centres of the polygons.
pub const CENTERS: &str = "centers.csv";

/// What the demo made in a folder, by name, and the bytes of its raw files: nothing else there is ever replaced.
pub const MADE: &str = ".dor-demo.json";

/// A synthetic file was not written.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Something is there that the demo did not make.
    #[error(
        "{url} is there, and `dor demo` did not make it ({MADE} tells what it made); nothing was changed: \
         give an empty folder, or one that is not there yet"
    )]
    NotOurs {
        /// What is there.
        url: String,
    },
    /// The place is part of other results.
    #[error("{url} lies in {other}, which holds results of its own; give another folder")]
    Inside {
        /// The folder that was asked for.
        url: String,
        /// What it would lie in.
        other: String,
    },
    /// What the demo made has other bytes by now.
    #[error(
        "{url} has other bytes than `dor demo` wrote ({MADE} tells which); nothing was changed: \
         move it away, or give another folder"
    )]
    Altered {
        /// The file.
        url: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part of a file could not be stored.
    #[error("cannot write {url}")]
    Write {
        /// File.
        url: String,
        /// Cause.
        source: SinkError,
    },
    /// The worker was lost.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl WithErrorKind for DemoError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::NotOurs { .. } | Self::Inside { .. } | Self::Altered { .. } => ErrorKind::Config,
            Self::Write { source, .. } => source.kind(),
            Self::Pool(error) => error.kind(),
        }
    }
}

/// What is written.
pub struct SyntheticInput {
    /// The case.
    pub case: Case,
    /// Its content.
    pub synthetic: Arc<SyntheticCase>,
    /// How many of its months, from the first.
    pub months: usize,
    /// Whether the series of sea surface height is written as well.
    pub ssh: bool,
}

impl SyntheticInput {
    /// Keys of what is written.
    fn keys(&self) -> BTreeSet<String> {
        let folder = format!("{ARCHIVE}/{}", raw_folder(self.case));
        let months = self.case.months().take(self.months);
        let files = months.map(|month| format!("{folder}/{}", self.synthetic.file_name(month)));
        let others = [GRID, CENTERS].into_iter().chain(self.ssh.then_some(SSH));
        files.chain(others.map(str::to_owned)).collect()
    }
}

/// The contents of [`MADE`].
#[derive(Debug, Default, Serialize, Deserialize)]
struct DemoMarker {
    /// Keys of files, and names of folders, below the location.
    made: BTreeSet<String>,
    /// Bytes of the parts of files of which the MD5s are recorded.
    #[serde(default)]
    part_size: u64,
    /// Of raw files and what goes with them, by key, when they are whole.
    #[serde(default)]
    files: BTreeMap<String, Checksums>,
}

impl DemoMarker {
    /// What cannot be read tells of nothing.
    async fn load(store: &Store) -> Result<Option<Self>, StoreError> {
        let found = store.get(MADE).await?;
        Ok(found.map(|(bytes, _)| serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn save(&self, store: &Store) -> Result<(), StoreError> {
        // Text: this does not fail.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        store.put(MADE, Bytes::from(text)).await.map(drop)
    }
}

/// Refuses a location that the demo did not make and that holds a file, and one where something would be
/// replaced that it did not make; notes down what it is about to make there: raw files and `products`
/// (names of folders and files).
pub async fn claim(
    store: &Store,
    raw: &SyntheticInput,
    products: &[&str],
) -> Result<(), DemoError> {
    let url = |key: &str| store.location().join(key).to_string();
    let not_ours = |key: &str| Err(DemoError::NotOurs { url: url(key) });
    if let Some(other) = store.within(&TOGETHER).await {
        return Err(DemoError::Inside { url: url(""), other: other.to_string() });
    }
    let before = DemoMarker::load(store).await?;
    if before.is_none()
        && let Some(first) = any_file(store).await?
    {
        return not_ours(&first);
    }
    let DemoMarker { mut made, mut files, .. } = before.unwrap_or_default();
    let there = store.list_with_delimiter("").await?.into_iter().map(|object| object.key);
    let there: BTreeSet<String> = there.chain(store.list_prefixes("").await?).collect();
    let top = |key: &str| key.split('/').next().unwrap_or(key).to_owned();
    let ours: BTreeSet<String> = made.iter().map(|key| top(key)).collect();
    let own = raw.keys();
    let keys: BTreeSet<String> =
        own.iter().cloned().chain(products.iter().map(|name| (*name).to_owned())).collect();
    for name in keys.iter().map(|key| top(key)).collect::<BTreeSet<_>>() {
        // An archive without any file is as good as none.
        let is_new = !there.contains(&name) || ours.contains(&name);
        if !is_new && (name != ARCHIVE || !store.list(ARCHIVE).await?.is_empty()) {
            return not_ours(&name);
        }
    }
    let archive = store.list(&format!("{ARCHIVE}/{}", raw_folder(raw.case))).await?;
    let others = archive.into_iter().map(|object| object.key);
    if let Some(key) = others.filter(|key| keys.contains(key)).find(|key| !made.contains(key)) {
        return not_ours(&key);
    }
    // The demo makes its stores anew: a case of somebody else in them would be lost.
    let is_made = |case: Case| {
        let folder = format!("{ARCHIVE}/{}/", raw_folder(case));
        case == raw.case || made.iter().any(|key| key.starts_with(&folder))
    };
    for name in products.iter().filter(|name| name.ends_with(".zarr")) {
        for object in store.list(&format!("{name}/{CASES}")).await? {
            let file = object.key.rsplit('/').next().unwrap_or_default();
            let case = file.split('.').next().unwrap_or_default().parse::<Case>();
            if case.is_ok_and(|case| !is_made(case)) {
                return not_ours(&object.key);
            }
        }
    }
    for key in &own {
        // One that a stopped run was writing is not recorded.
        let Some(recorded) = files.get(key) else { continue };
        let Some(found) = store.head(key).await? else { continue };
        let is_same =
            found.size == recorded.size && sha256(store, &found).await? == recorded.sha256;
        if !is_same {
            return Err(DemoError::Altered { url: url(key) });
        }
    }
    files.retain(|key, _| !own.contains(key));
    made.extend(keys);
    let part_size = store.multipart_size();
    Ok(DemoMarker { made, part_size, files }.save(store).await?)
}

/// The key of a file anywhere below the location; empty folders do not count.
async fn any_file(store: &Store) -> Result<Option<String>, StoreError> {
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        if let Some(object) = store.list_with_delimiter(&folder).await?.into_iter().next() {
            return Ok(Some(object.key));
        }
        folders.extend(store.list_prefixes(&folder).await?);
    }
    Ok(None)
}

/// Writes raw files, the grid file and the centres of the polygons, and records their bytes.
///
/// `done` is told the size of each file when it is there.
pub async fn write_raw(
    store: &Store,
    raw: &SyntheticInput,
    pool: &Pool,
    stop: &CancellationToken,
    done: impl Fn(u64),
) -> Result<(), DemoError> {
    let written = Mutex::new(BTreeMap::new());
    let result = write_files(store, raw, pool, stop, |key, content: Checksums| {
        done(content.size);
        written.lock().unwrap_or_else(PoisonError::into_inner).insert(key, content);
    });
    let result = result.await;
    let written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
    let record = async {
        let mut made = DemoMarker::load(store).await?.unwrap_or_default();
        made.files.extend(written);
        made.save(store).await
    };
    let recorded = record.await;
    result?;
    Ok(recorded?)
}

async fn write_files(
    store: &Store,
    SyntheticInput { case, synthetic, months, ssh }: &SyntheticInput,
    pool: &Pool,
    stop: &CancellationToken,
    done: impl Fn(String, Checksums),
) -> Result<(), DemoError> {
    for (key, bytes) in [(GRID, synthetic.grid_file()), (CENTERS, synthetic.centers_csv().into())] {
        let content = Checksums::of(&bytes, store.multipart_size());
        store.put(key, Bytes::from(bytes)).await?;
        done(key.to_owned(), content);
    }
    let folder = format!("{ARCHIVE}/{}", raw_folder(*case));
    let month_files = case.months().take(*months).map(Some);
    let series = ssh.then_some(None);
    let files = month_files.chain(series).map(|month: Option<YearMonth>| {
        let (synthetic, folder, done) = (synthetic.clone(), &folder, &done);
        async move {
            let key = match month {
                Some(month) => format!("{folder}/{}", synthetic.file_name(month)),
                None => SSH.to_owned(),
            };
            let place = pool.place(0).await?;
            let upload = store.create(&key).await?;
            let mut out =
                PartWriter::new(UploadSink::new(upload, stop.clone()), store.multipart_size());
            let work = move || {
                let written = match month {
                    Some(month) => synthetic.write_month(month, &mut out),
                    None => synthetic.write_ssh(&mut out),
                };
                written.and_then(|()| out.finish())
            };
            let url = store.location().join(&key).to_string();
            let written = Pool::run(&place, work).await?;
            let failed = |source| DemoError::Write { url: url.clone(), source };
            let (sink, content) = written.map_err(|e| failed(e.into()))?;
            sink.complete().await.map_err(failed)?;
            done(key, content);
            Ok(())
        }
    });
    // The pool bounds the work; this bounds only who waits for it.
    futures::stream::iter(files).buffer_unordered(64).try_collect::<()>().await
}

/// Cuts a stream of bytes into the parts of a file.
struct PartWriter<S> {
    sink: S,
    part: Vec<u8>,
    index: usize,
    size: u64,
    sha256: Sha256,
    md5: PartHasher,
}

impl<S: PartSink> PartWriter<S> {
    /// Of a file whose MD5s are those of parts of so many bytes.
    fn new(sink: S, part_size: u64) -> Self {
        let (sha256, md5) = (Sha256::new(), PartHasher::new(part_size, 0));
        Self { sink, part: Vec::new(), index: 0, size: 0, sha256, md5 }
    }

    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        self.sha256.update(&part);
        self.size += part.len() as u64;
        self.md5.update(&part);
        self.sink.part(self.index, part.into(), None).map_err(io::Error::other)?;
        self.index += 1;
        Ok(())
    }

    /// Sends what is left; tells what was sent in all.
    fn finish(mut self) -> io::Result<(S, Checksums)> {
        if !self.part.is_empty() {
            self.send()?;
        }
        let Self { sink, size, sha256, md5, .. } = self;
        Ok((sink, Checksums { size, sha256: hex(&sha256.finalize()), md5: md5.finish() }))
    }
}

impl<S: PartSink> Write for PartWriter<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let size = self.sink.part_size();
        let taken = data.len().min(size - self.part.len());
        self.part.extend_from_slice(&data[..taken]);
        if self.part.len() == size {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
