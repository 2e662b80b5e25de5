//! Writing of the objects of a case to store 2, with a partial record that exists meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Mutex, OnceCell};
use tokio_util::task::AbortOnDropHandle;

use super::VisError;
use super::create::OpenStore;
use super::earlier::{refuse_taken, taken};
use super::record::{CaseRecord, FileEntry};
use crate::case_manifest::SettingDifference;
use crate::encode::zarr::StoreObject;
use crate::executor::spawn_abort_on_drop;
use crate::model::Case;
use crate::research::PlanError;
use crate::store::{PutMode, Store};

/// Largest number of objects that are written at the same time.
const CONCURRENCY: usize = 16;
/// Largest age of the last check of the partial record when an object is written.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

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
    /// An input file that is older than that of the earlier record: objects that differ are an error.
    older: Option<SettingDifference>,
    /// Whether to write the case even if another process writes it with other settings.
    force: bool,
    /// Partial record of another process, or of an interrupted one, when this run began.
    begun_before: Option<CaseRecord>,
    /// Set once the partial record is written.
    started: OnceCell<()>,
    /// Time of the last successful [`Self::ensure_own`].
    checked: Mutex<Option<Instant>>,
}

impl CaseInProgress {
    /// Creates the state before the first object is written. `earlier_files` are the objects of the earlier
    /// record, in order of their keys.
    ///
    /// # Errors
    /// The partial record of another process cannot be read.
    pub async fn new(
        destination: Arc<OpenStore>,
        case: Case,
        record: CaseRecord,
        earlier_files: Vec<FileEntry>,
        force: bool,
    ) -> Result<Self, VisError> {
        let begun_before = match force {
            // One that cannot be read is replaced.
            true => None,
            false => CaseRecord::load_partial(&destination.store, case).await?,
        };
        let (started, checked) = (OnceCell::new(), Mutex::default());
        let older = None;
        Ok(Self {
            destination,
            case,
            record,
            earlier_files,
            older,
            force,
            begun_before,
            started,
            checked,
        })
    }

    /// The same case, whose objects must not change because of an older input file.
    pub fn with_older_input(self, older: Option<SettingDifference>) -> Self {
        Self { older, ..self }
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

    /// Writes the partial record of the case at the first call, and deletes its complete record. It is called
    /// for an object that differs from that of the earlier record.
    ///
    /// If several processes with different settings or inputs call this at the same time, one of them
    /// succeeds. A case that was begun from other inputs before this run began is taken over: its process
    /// stops at its next [`Self::ensure_own`].
    ///
    /// # Errors
    /// [`crate::research::PlanError::Taken`] when another process writes the case with other settings or
    /// inputs, unless `force` is set; [`crate::research::PlanError::Settings`] when an input file is older than
    /// that of the earlier result.
    pub async fn start(&self) -> Result<(), VisError> {
        let start = async || {
            if let Some(older) = &self.older {
                let url = CaseRecord::url(self.store(), self.case);
                return Err(PlanError::of_setting(self.case, url, older.clone()).into());
            }
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
            if !is_first && !self.force {
                self.take_over().await?;
            }
            Ok(CaseRecord::remove_complete(store, case).await?)
        };
        self.started.get_or_try_init(start).await.copied()
    }

    /// Replaces the partial record of another process that was there when this run began.
    async fn take_over(&self) -> Result<(), VisError> {
        let (store, case) = (self.store(), self.case);
        let found = CaseRecord::load_partial(store, case).await?;
        let is_same_work = found.as_ref().is_none_or(|found| found.is_of_same_work(&self.record));
        if !is_same_work && found != self.begun_before {
            return Err(taken(store, case));
        }
        self.record.save_partial(store, case, PutMode::Always).await?;
        if !is_same_work {
            // The other process, if it still runs, has stopped by then.
            tokio::time::sleep(4 * CHECK_INTERVAL).await;
        }
        Ok(())
    }

    /// Checks that no other process with other inputs or settings writes the case, or has written it since
    /// [`Self::start`]. A check that is younger than `max_age` is not repeated.
    ///
    /// # Errors
    /// [`crate::research::PlanError::Taken`].
    pub async fn ensure_own(&self, max_age: Duration) -> Result<(), VisError> {
        let mut checked = self.checked.lock().await;
        let is_recent = checked.is_some_and(|time| time.elapsed() < max_age);
        if !self.is_started() || is_recent {
            return Ok(());
        }
        let start = Instant::now();
        let (store, case) = (self.store(), self.case);
        let found = match CaseRecord::load_partial(store, case).await? {
            None => CaseRecord::load(store, case).await?,
            partial => partial,
        };
        match found.is_none_or(|found| found.is_of_same_work(&self.record)) {
            true => {
                *checked = Some(start);
                Ok(())
            }
            false => Err(taken(store, case)),
        }
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
                in_progress.ensure_own(CHECK_INTERVAL).await?;
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
        self.in_progress.ensure_own(Duration::ZERO).await?;
        self.entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok((self.entries, self.in_progress.is_started()))
    }
}
