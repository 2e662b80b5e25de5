//! Synthetic raw cases written to any location.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::encode::{PartSink, SinkError};
use crate::model::{Case, YearMonth};
use crate::pipeline::{Pool, PoolError, Stop, UploadSink};
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

/// What the demo made in a folder, by name: nothing else there is ever replaced.
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

/// What is written.
pub struct Raw {
    /// The case.
    pub case: Case,
    /// Its content.
    pub synthetic: Arc<SyntheticCase>,
    /// How many of its months, from the first.
    pub months: usize,
    /// Whether the series of sea surface height is written as well.
    pub ssh: bool,
}

impl Raw {
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
struct Made {
    /// Keys of files, and names of folders, below the location.
    made: BTreeSet<String>,
}

/// Refuses a location where something would be replaced that the demo did not make, and notes down what
/// it is about to make. With `products` (names of folders and files), the location as a whole must be
/// one that the demo made, or empty.
pub async fn claim(store: &Store, raw: &Raw, products: &[&str]) -> Result<(), DemoError> {
    let url = |key: &str| store.location().join(key).to_string();
    let not_ours = |key: &str| Err(DemoError::NotOurs { url: url(key) });
    // What cannot be read tells of nothing.
    let made = |bytes: Bytes| serde_json::from_slice::<Made>(&bytes).unwrap_or_default();
    let before = store.read(MADE).await?.map(|(bytes, _)| made(bytes));
    let files = store.list_level("").await?.into_iter().map(|object| object.key);
    let there: BTreeSet<String> = files.chain(store.list_dirs("").await?).collect();
    if let (false, None, Some(first)) = (products.is_empty(), &before, there.first()) {
        return not_ours(first);
    }
    let Made { mut made } = before.unwrap_or_default();
    let top = |key: &str| key.split('/').next().unwrap_or(key).to_owned();
    let ours: BTreeSet<String> = made.iter().map(|key| top(key)).collect();
    let keys: BTreeSet<String> =
        raw.keys().into_iter().chain(products.iter().map(|name| (*name).to_owned())).collect();
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
    made.extend(keys);
    // Text: this does not fail.
    let text = serde_json::to_vec_pretty(&Made { made }).unwrap_or_default();
    store.put(MADE, Bytes::from(text)).await?;
    Ok(())
}

/// Writes raw files, the grid file and the centres of the polygons.
///
/// `done` is told the size of each file when it is there.
pub async fn write_raw(
    store: &Store,
    Raw { case, synthetic, months, ssh }: &Raw,
    pool: &Pool,
    stop: &Stop,
    done: impl Fn(u64),
) -> Result<(), DemoError> {
    store.put(GRID, Bytes::from(synthetic.grid_file())).await?;
    store.put(CENTERS, Bytes::from(synthetic.centers_csv())).await?;
    let folder = format!("{ARCHIVE}/{}", raw_folder(*case));
    let month_files = case.months().take(*months).map(Some);
    let series = ssh.then_some(None);
    let files = month_files.chain(series).map(|month: Option<YearMonth>| {
        let (synthetic, folder, done) = (synthetic.clone(), &folder, &done);
        async move {
            let (key, size) = match month {
                Some(month) => {
                    (format!("{folder}/{}", synthetic.file_name(month)), synthetic.file_size())
                }
                None => (SSH.to_owned(), synthetic.ssh_size()),
            };
            let place = pool.place(0).await?;
            let upload = store.create(&key).await?;
            let mut out = PartWriter::new(UploadSink::new(upload, stop.clone()));
            let work = move || {
                let written = match month {
                    Some(month) => synthetic.write_month(month, &mut out),
                    None => synthetic.write_ssh(&mut out),
                };
                written.and_then(|()| out.finish())
            };
            let url = store.location().join(&key).to_string();
            let sink = Pool::run(&place, work).await?;
            let failed = |source| DemoError::Write { url: url.clone(), source };
            let sink = sink.map_err(|e| failed(e.into()))?;
            sink.complete().await.map_err(failed)?;
            done(size);
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
}

impl<S: PartSink> PartWriter<S> {
    fn new(sink: S) -> Self {
        Self { sink, part: Vec::new(), index: 0 }
    }

    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        self.sink.part(self.index, part.into()).map_err(io::Error::other)?;
        self.index += 1;
        Ok(())
    }

    /// Sends what is left.
    fn finish(mut self) -> io::Result<S> {
        if !self.part.is_empty() {
            self.send()?;
        }
        Ok(self.sink)
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
