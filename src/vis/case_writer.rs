//! Writing of the objects of a case to store 2, with a partial record that exists meanwhile.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

use super::VisError;
use super::create::OpenStore;
use super::earlier::refuse_taken;
use super::record::{CaseRecord, FileEntry};
use crate::encode::zarr::StoreObject;
use crate::executor::spawn_abort_on_drop;
use crate::model::Case;
use crate::store::{PutMode, Store};

/// Largest number of objects that are written at the same time.
const CONCURRENCY: usize = 16;

/// A case whose objects are being written to store 2.
///
/// [`Self::start`] writes its partial record before the first object.
pub(super) struct CaseInProgress {
    /// The store, whose recipe the first object sets.
    destination: Arc<OpenStore>,
    case: Case,
    /// Record of the case, without objects.
    record: CaseRecord,
    /// Objects of the earlier record, in order of their keys.
    earlier_files: Vec<FileEntry>,
    /// Whether to write the case even if another process writes it with other settings.
    force: bool,
    /// Set once the partial record is written.
    started: OnceCell<()>,
}

impl CaseInProgress {
    /// Creates the state before the first object is written. `earlier_files` are the objects of the earlier
    /// record, in order of their keys.
    pub fn new(
        destination: Arc<OpenStore>,
        case: Case,
        record: CaseRecord,
        earlier_files: Vec<FileEntry>,
        force: bool,
    ) -> Self {
        Self { destination, case, record, earlier_files, force, started: OnceCell::new() }
    }

    /// Whether the earlier record has an object with the same content.
    pub fn is_unchanged(&self, entry: &FileEntry) -> bool {
        let at = self.earlier_files.binary_search_by(|earlier| earlier.key.cmp(&entry.key));
        at.ok().and_then(|at| self.earlier_files.get(at)) == Some(entry)
    }

    /// Whether the partial record, and so at least one object, was written.
    pub fn is_started(&self) -> bool {
        self.started.initialized()
    }

    /// Location of the store.
    pub fn store(&self) -> &Store {
        &self.destination.store
    }

    /// Writes the partial record of the case at the first call, and deletes its complete record.
    ///
    /// If several processes with different settings call this at the same time, one of them succeeds.
    ///
    /// # Errors
    /// [`crate::research::PlanError::Taken`] when another process writes the case with other settings,
    /// unless `force` is set.
    pub async fn start(&self) -> Result<(), VisError> {
        let start = async || {
            self.destination.write_recipe().await?;
            let (store, case) = (self.store(), self.case);
            let condition = if self.force { PutMode::Always } else { PutMode::Absent };
            let is_first = self.record.save_partial(store, case, condition).await?;
            if !self.force
                && let Err(error) = refuse_taken(store, case, &self.record).await
            {
                if is_first {
                    CaseRecord::remove_partial(store, case).await?;
                }
                return Err(error);
            }
            if !is_first {
                self.record.save_partial(store, case, PutMode::Always).await?;
            }
            Ok(CaseRecord::remove_complete(store, case).await?)
        };
        self.started.get_or_try_init(start).await.copied()
    }
}

/// Writes the objects of a case in groups: one group is written while the next one is computed.
pub(super) struct CaseWriter {
    in_progress: Arc<CaseInProgress>,
    /// The group that is being written.
    writing: Option<AbortOnDropHandle<Result<Vec<FileEntry>, VisError>>>,
    /// Entries of the groups that are written, for the record.
    entries: Vec<FileEntry>,
}

impl CaseWriter {
    /// Creates a writer before the first object of a case.
    pub fn new(in_progress: Arc<CaseInProgress>) -> Self {
        Self { in_progress, writing: None, entries: Vec::new() }
    }

    /// Starts to write a group of objects, and waits for the group before it. Skips objects that the
    /// store has already.
    pub async fn write<F>(&mut self, objects: Vec<F>) -> Result<(), VisError>
    where
        F: Future<Output = Result<StoreObject, VisError>> + Send + 'static,
    {
        let in_progress = self.in_progress.clone();
        let writing = spawn_abort_on_drop(async move {
            let put = async |object: F| {
                let StoreObject { key, bytes } = object.await?;
                let part_size = in_progress.store().multipart_size();
                let entry = FileEntry::new(key, &bytes, part_size);
                if in_progress.is_unchanged(&entry) {
                    return Ok(entry);
                }
                in_progress.start().await?;
                in_progress.store().put(&entry.key, bytes).await?;
                Ok::<_, VisError>(entry)
            };
            stream::iter(objects).map(put).buffered(CONCURRENCY).try_collect::<Vec<_>>().await
        });
        if let Some(previous) = self.writing.replace(writing) {
            self.entries.extend(previous.await??);
        }
        Ok(())
    }

    /// Waits for the last group. Returns the entries in order of their keys, and whether any object was
    /// written.
    pub async fn finish(mut self) -> Result<(Vec<FileEntry>, bool), VisError> {
        if let Some(last) = self.writing.take() {
            self.entries.extend(last.await??);
        }
        self.entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok((self.entries, self.in_progress.is_started()))
    }
}
