//! The inputs of `dor demo`: a synthetic raw case, a grid file and the other inputs, at any location.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::case_manifest::{CASES_FOLDER, enclosing_results, sha256};
use crate::encode::{PartSink, SinkError};
use crate::executor::{Pool, PoolError, UploadSink};
use crate::model::{Case, Checksums, ErrorKind, PartHasher, WithErrorKind, YearMonth, hex};
use crate::research::plan::raw_folder;
use crate::store::{Store, StoreError};
use crate::synthetic::SyntheticCase;

/// Folder of raw cases, below the location of the demo.
pub const ARCHIVE: &str = "archive";
/// Grid file, below the location of the demo.
pub const GRID: &str = "grid.nc";
/// File with the series of sea surface height, below the location of the demo.
pub const SSH: &str = "ssh.nc";
/// File with the centers of the polygons, below the location of the demo.
pub const CENTERS: &str = "centers.csv";

/// List of what the demo wrote at a location, with checksums of the raw files. The demo replaces nothing else.
pub const MADE: &str = ".dor-demo.json";

/// The inputs of the demo could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The location holds an object that the demo did not write.
    #[error(
        "{url} exists, and `dor demo` did not make it ({MADE} lists what it made); nothing was changed: \
         give an empty folder, or a new one"
    )]
    NotOurs {
        /// URL of the object.
        url: String,
    },
    /// The location lies within other results.
    #[error("{url} lies in {other}, which holds results of its own; give another folder")]
    Inside {
        /// URL of the location.
        url: String,
        /// URL of the other results.
        other: String,
    },
    /// A file of the demo has changed.
    #[error(
        "{url} has other bytes than `dor demo` wrote ({MADE} has its SHA-256); nothing was changed: \
         move it away, or give another folder"
    )]
    Altered {
        /// URL of the file.
        url: String,
    },
    /// The demo made the location with other options.
    #[error(
        "{url} holds a demo that was made with {before}, and this run has {now}; nothing was changed: \
         give the same options, or another folder"
    )]
    OtherOptions {
        /// URL of the location.
        url: String,
        /// Options of the demo that lies there.
        before: String,
        /// Options of this run.
        now: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be uploaded.
    #[error("cannot write {url}")]
    Write {
        /// URL of the file.
        url: String,
        /// Error of the upload.
        source: SinkError,
    },
    /// The worker failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl WithErrorKind for DemoError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::NotOurs { .. }
            | Self::Inside { .. }
            | Self::Altered { .. }
            | Self::OtherOptions { .. } => ErrorKind::Config,
            Self::Write { source, .. } => source.kind(),
            Self::Pool(error) => error.kind(),
        }
    }
}

/// The synthetic inputs to write.
pub struct SyntheticInput {
    /// Case of the raw files.
    pub case: Case,
    /// Generator of the contents.
    pub synthetic: Arc<SyntheticCase>,
    /// Number of months, from the first of the case.
    pub months: usize,
    /// Whether the series of sea surface height is written as well.
    pub ssh: bool,
}

impl SyntheticInput {
    /// Keys of all files, below the location of the demo.
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
    /// Options of the run that made the inputs.
    #[serde(default)]
    options: String,
    /// Keys of files and names of folders that the demo wrote.
    made: BTreeSet<String>,
    /// Bytes of a part, of which the MD5 is recorded.
    #[serde(default)]
    part_size: u64,
    /// Checksums of completely written inputs, by key.
    #[serde(default)]
    files: BTreeMap<String, Checksums>,
}

impl DemoMarker {
    /// Reads the list at a location; `None` without a list. An object that is not a list counts as an empty one.
    async fn load(store: &Store) -> Result<Option<Self>, StoreError> {
        let object = store.get(MADE).await?;
        Ok(object.map(|(bytes, _)| serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn save(&self, store: &Store) -> Result<(), StoreError> {
        // Text always has a JSON form.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        store.put(MADE, Bytes::from(text)).await.map(drop)
    }
}

/// Claims a location: checks that the demo would replace only what it wrote, and lists there what it is about
/// to write: the raw files and `products` (names of folders and files).
///
/// # Errors
/// The location lies within other results, holds objects that the demo did not write or that have changed, or
/// holds a demo with other options.
pub async fn claim(
    store: &Store,
    raw: &SyntheticInput,
    products: &[&str],
) -> Result<(), DemoError> {
    let url = |key: &str| store.location().join(key).to_string();
    if let Some(other) = enclosing_results(store).await {
        return Err(DemoError::Inside { url: url(""), other: other.to_string() });
    }
    let marker = DemoMarker::load(store).await?;
    let foreign = match &marker {
        None => any_file(store).await?,
        Some(_) => None,
    };
    if let Some(key) = foreign {
        return Err(DemoError::NotOurs { url: url(&key) });
    }
    let DemoMarker { options: before, mut made, mut files, .. } = marker.unwrap_or_default();
    let options = raw.synthetic.options();
    if !before.is_empty() && before != options {
        return Err(DemoError::OtherOptions { url: url(""), before, now: options });
    }
    let inputs = raw.keys();
    let products: BTreeSet<String> = products.iter().map(|name| (*name).to_owned()).collect();
    let keys: BTreeSet<String> = inputs.union(&products).cloned().collect();
    if let Some(key) = foreign_name(store, &keys, &made).await? {
        return Err(DemoError::NotOurs { url: url(&key) });
    }
    if let Some(key) = foreign_raw_file(store, raw.case, &keys, &made).await? {
        return Err(DemoError::NotOurs { url: url(&key) });
    }
    if let Some(key) = foreign_case(store, raw.case, &products, &made).await? {
        return Err(DemoError::NotOurs { url: url(&key) });
    }
    if let Some(key) = altered_file(store, &inputs, &files).await? {
        return Err(DemoError::Altered { url: url(&key) });
    }
    files.retain(|key, _| !inputs.contains(key));
    made.extend(keys);
    let part_size = store.multipart_size();
    Ok(DemoMarker { options, made, part_size, files }.save(store).await?)
}

/// The first name at the top of the location that the demo needs, that exists and that it did not write.
async fn foreign_name(
    store: &Store,
    keys: &BTreeSet<String>,
    made: &BTreeSet<String>,
) -> Result<Option<String>, StoreError> {
    let objects = store.list_with_delimiter("").await?.into_iter().map(|object| object.key);
    let present: BTreeSet<String> = objects.chain(store.list_folders("").await?).collect();
    let top = |key: &String| key.split('/').next().unwrap_or(key).to_owned();
    let own: BTreeSet<String> = made.iter().map(top).collect();
    for name in keys.iter().map(top).collect::<BTreeSet<_>>() {
        let is_free = !present.contains(&name) || own.contains(&name);
        // An archive without files holds nothing to protect.
        if !is_free && (name != ARCHIVE || !store.list(ARCHIVE).await?.is_empty()) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The first raw file of the case that the demo would replace and did not write.
async fn foreign_raw_file(
    store: &Store,
    case: Case,
    keys: &BTreeSet<String>,
    made: &BTreeSet<String>,
) -> Result<Option<String>, StoreError> {
    let present = store.list(&format!("{ARCHIVE}/{}", raw_folder(case))).await?;
    let mut present = present.into_iter().map(|object| object.key);
    Ok(present.find(|key| keys.contains(key) && !made.contains(key)))
}

/// The first record of a case in the map stores that the demo did not fill. The demo creates its stores anew,
/// which would lose that case.
async fn foreign_case(
    store: &Store,
    own: Case,
    products: &BTreeSet<String>,
    made: &BTreeSet<String>,
) -> Result<Option<String>, StoreError> {
    let is_made = |case: Case| {
        let folder = format!("{ARCHIVE}/{}/", raw_folder(case));
        case == own || made.iter().any(|key| key.starts_with(&folder))
    };
    for name in products.iter().filter(|name| name.ends_with(".zarr")) {
        for object in store.list(&format!("{name}/{CASES_FOLDER}")).await? {
            let file = object.key.rsplit('/').next().unwrap_or_default();
            let case = file.split('.').next().unwrap_or_default().parse::<Case>();
            if case.is_ok_and(|case| !is_made(case)) {
                return Ok(Some(object.key));
            }
        }
    }
    Ok(None)
}

/// The first input whose bytes differ from the recorded checksum. An input that a stopped run was writing has
/// no record and may be replaced.
async fn altered_file(
    store: &Store,
    inputs: &BTreeSet<String>,
    files: &BTreeMap<String, Checksums>,
) -> Result<Option<String>, StoreError> {
    for key in inputs {
        let Some(recorded) = files.get(key) else { continue };
        let Some(present) = store.head(key).await? else { continue };
        let is_same =
            present.size == recorded.size && sha256(store, &present).await? == recorded.sha256;
        if !is_same {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}

/// The key of any file below the location; `None` when there are only empty folders.
async fn any_file(store: &Store) -> Result<Option<String>, StoreError> {
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        if let Some(object) = store.list_with_delimiter(&folder).await?.into_iter().next() {
            return Ok(Some(object.key));
        }
        folders.extend(store.list_folders(&folder).await?);
    }
    Ok(None)
}

/// Writes the raw files, the grid file and the other inputs, and records their checksums.
///
/// `done` receives the size of each file in bytes when the file is written.
///
/// # Errors
/// A file cannot be written, or the record cannot. Files that were written are recorded in any case.
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
        let mut marker = DemoMarker::load(store).await?.unwrap_or_default();
        marker.files.extend(written);
        marker.save(store).await
    };
    let recorded = record.await;
    result?;
    Ok(recorded?)
}

/// Writes all files; `done` receives the key and the checksums of each.
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
            let worker = pool.acquire(0).await?;
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
            let written = Pool::run(&worker, work).await?;
            let failed = |source| DemoError::Write { url: url.clone(), source };
            let (sink, content) = written.map_err(|e| failed(e.into()))?;
            sink.complete().await.map_err(failed)?;
            done(key, content);
            Ok(())
        }
    });
    // The pool bounds the work. This number bounds the files that wait for a worker.
    futures::stream::iter(files).buffer_unordered(64).try_collect::<()>().await
}

/// Splits a stream of bytes into the parts of a file and computes the checksums of the file.
struct PartWriter<S> {
    sink: S,
    part: Vec<u8>,
    index: usize,
    size: u64,
    sha256: Sha256,
    md5: PartHasher,
}

impl<S: PartSink> PartWriter<S> {
    /// `part_size` is that of the recorded MD5s, in bytes.
    fn new(sink: S, part_size: u64) -> Self {
        let (sha256, md5) = (Sha256::new(), PartHasher::new(part_size, 0));
        Self { sink, part: Vec::new(), index: 0, size: 0, sha256, md5 }
    }

    /// Sends the current part.
    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        self.sha256.update(&part);
        self.size += part.len() as u64;
        self.md5.update(&part);
        self.sink.part(self.index, part.into(), None).map_err(io::Error::other)?;
        self.index += 1;
        Ok(())
    }

    /// Sends the last part; returns the sink and the checksums of all bytes.
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
