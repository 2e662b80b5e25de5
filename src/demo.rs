//! Synthetic raw cases written to any location.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};

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

/// A synthetic file was not written.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
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
