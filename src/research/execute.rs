//! Carrying out the plan of a case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::convert::{self, CaseContext, ConvertError, Timing};
use super::plan::{CasePlan, FileTask};
use super::validate::{self, ValidationError, VariableSet};
use super::{PlanError, claim};
use crate::case_manifest::{
    COMPLETE, CaseManifest, CaseManifestError, FileRecord, InputRecord, PARTIAL,
};
use crate::encode::SinkError;
use crate::encode::research as layout;
use crate::executor::{Pool, PoolError, ReadMode, Reader, Stopped, UploadSink};
use crate::model::{Case, ErrorKind, Grid, WithErrorKind, YearMonth};
use crate::store::{Location, ObjectMeta, Store, StoreError};

/// Headers that are checked at the same time: requests, hardly any work.
const CHECKS: usize = 16;
/// Bytes of memory for such a check beside the points of the grid: blocks of the header, and what
/// is parsed of it.
const CHECK_MEMORY: u64 = 32 << 20;
/// Files of a case that wait for a worker or are under way.
const QUEUE: usize = 32;
/// Variables that a case is hardly of use without, and what follows when it has none.
const WANTED: [(&str, &str); 4] = [
    ("TLAT", "its fields have no latitudes"),
    ("TLONG", "its fields have no longitudes"),
    ("TAREA", "there is no area_m2"),
    ("KMT", "the bottom is not marked"),
];
/// Time between two records of a case that is not complete: what a killed process may do again.
const CHECKPOINT: Duration = Duration::from_secs(2);

/// Where a run tells how far it is; called from several threads.
pub trait ConversionProgress: Send + Sync {
    /// A case begins: files and raw bytes to convert.
    fn begin(&self, case: Case, files: usize, bytes: u64);
    /// Raw bytes were taken in.
    fn advance(&self, bytes: u64);
    /// A file is done.
    fn file_done(&self);
    /// The case is over, well or not.
    fn end(&self, case: Case);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl ConversionProgress for NoProgress {
    fn begin(&self, _: Case, _: usize, _: u64) {}
    fn advance(&self, _: u64) {}
    fn file_done(&self) {}
    fn end(&self, _: Case) {}
}

/// A file of a case failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not what it should be.
    #[error(transparent)]
    Check(#[from] ValidationError),
    /// It could not be converted.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The result could not be stored.
    #[error("cannot store {url}")]
    Store {
        /// Research-grade file.
        url: String,
        /// Cause.
        source: SinkError,
    },
    /// The worker was lost.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The record could not be kept, or is that of another process.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl WithErrorKind for FileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Check(error) => error.kind(),
            Self::Convert(error) => error.kind(),
            Self::Store { source, .. } => source.kind(),
            Self::Pool(error) => error.kind(),
            Self::Plan(error) => error.kind(),
        }
    }
}

/// A case was not completed.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// It could not be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Some of its files failed.
    #[error(
        "{} of the files of case {case} failed; {converted} converted, {not_tried} not tried", .failures.len()
    )]
    Files {
        /// Case.
        case: Case,
        /// Files converted by this run.
        converted: usize,
        /// Files that were not begun.
        not_tried: usize,
        /// Each failed file with its cause.
        failures: Vec<(String, FileError)>,
    },
    /// Told to stop; what is finished is kept.
    #[error("case {case}: files converted: {converted} of {files}; {Stopped}")]
    Stopped {
        /// Case.
        case: Case,
        /// Files converted by this run.
        converted: usize,
        /// Files that there were to convert.
        files: usize,
    },
    /// Told to stop before it was begun.
    #[error(transparent)]
    NotBegun(#[from] Stopped),
    /// There are no raw files because the archive is not there.
    #[error("{url}: {reason}")]
    NoArchive {
        /// The archive.
        url: String,
        /// How that is known.
        reason: &'static str,
    },
    /// The output lies among other results.
    #[error("{other} holds results of its own; give the output another place")]
    Inside {
        /// Where those are.
        other: Location,
    },
    /// The record could not be kept.
    #[error(transparent)]
    Ledger(#[from] CaseManifestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WithErrorKind for CaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Plan(error) => error.kind(),
            Self::Files { failures, .. } => {
                ErrorKind::of_all(failures.iter().map(|(_, failure)| failure.kind()))
            }
            Self::Stopped { .. } | Self::NotBegun(_) => ErrorKind::Interrupted,
            Self::NoArchive { .. } | Self::Inside { .. } => ErrorKind::Config,
            Self::Ledger(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}

/// What was done for a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConversionSummary {
    /// Files converted.
    pub converted: usize,
    /// Files that were done before.
    pub kept: usize,
    /// Raw bytes read.
    pub bytes_in: u64,
    /// Research-grade bytes written.
    pub bytes_out: u64,
    /// Time it took.
    pub elapsed: Duration,
    /// Where the workers' time went, added up over files.
    pub timing: Timing,
}

impl std::ops::AddAssign for ConversionSummary {
    fn add_assign(&mut self, other: Self) {
        self.converted += other.converted;
        self.kept += other.kept;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.elapsed += other.elapsed;
        self.timing += other.timing;
    }
}

/// What all cases of a run share.
#[derive(Clone)]
pub struct ConversionContext {
    /// The archive of raw history.
    pub raw: Store,
    /// Where research-grade files go.
    pub out: Store,
    /// The full grid, when there is one.
    pub grid: Option<Arc<Grid>>,
    /// CPU threads and memory.
    pub pool: Pool,
    /// Set when the run is to stop.
    pub stop: CancellationToken,
    /// Where progress is told.
    pub progress: Arc<dyn ConversionProgress>,
    /// Reads the raw files.
    pub reader: Reader,
}

/// Carries out a plan: checks every input, converts, and writes the record last.
pub async fn run(
    environment: &ConversionContext,
    plan: CasePlan,
) -> Result<ConversionSummary, CaseError> {
    let begun = Instant::now();
    let folder = layout::folder(plan.case);
    let kept = plan.record.files.len();
    if plan.complete {
        if plan.touched {
            // So that the content need not be compared again; whoever may only read goes without.
            if let Err(error) = plan.record.save(&environment.out, &folder, COMPLETE).await {
                tracing::warn!("cannot record that raw files have other times: {error}");
            }
        }
        return Ok(ConversionSummary {
            kept,
            elapsed: begun.elapsed(),
            ..ConversionSummary::default()
        });
    }
    let case = plan.case;
    environment.out.remove_stale_temp_files(&folder).await?;
    let memory = check_inputs(environment, &plan).await?;
    claim::claim(&environment.out, &plan, &folder).await?;
    let bytes = plan.steps.iter().map(|s| s.input.size).sum();
    environment.progress.begin(case, plan.steps.len(), bytes);
    let result = convert_all(environment, plan, &memory, &folder).await;
    environment.progress.end(case);
    let (record, mut summary) = result?;
    claim::agree(&environment.out, case, &folder, &record.recipe).await?;
    record.save(&environment.out, &folder, COMPLETE).await?;
    environment.out.delete(&format!("{folder}/{PARTIAL}")).await?;
    summary.kept = kept;
    summary.elapsed = begun.elapsed();
    Ok(summary)
}

/// Reads the header of every input before anything is written, so that a case with a bad file is
/// refused as a whole and all its bad files are named at once. Gives the bytes of memory that the
/// conversion of each takes.
pub async fn check_inputs(
    environment: &ConversionContext,
    plan: &CasePlan,
) -> Result<BTreeMap<YearMonth, u64>, CaseError> {
    // Requests keep no worker busy, but take memory as all work does.
    let threads = &Pool::new(CHECKS, u64::MAX);
    let check = async |month: YearMonth, input: &ObjectMeta| {
        let object = environment.raw.object_known(&input.key, input.clone());
        let source = environment.reader.source(object, &environment.stop);
        let (case, grid) = (plan.case, environment.grid.clone());
        // One file of the case tells whether the grid file is the right one.
        let points = plan.steps.first().is_some_and(|first| first.month == month);
        let of_points = grid.as_ref().filter(|_| points).map_or(0, |g| 64 * g.tlat.len() as u64);
        let _memory = environment.pool.memory(CHECK_MEMORY + of_points).await?;
        let check = move || validate::check(source, (case, month), grid.as_deref(), points);
        let place = threads.place(0).await?;
        Pool::run(&place, check).await?.map_err(FileError::from)
    };
    let checks = futures::stream::iter(&plan.steps).map(|step| check(step.month, &step.input));
    let mut checks = checks.buffered(CHECKS);
    let (mut inventories, mut failures) = (Vec::new(), Vec::new());
    let mut memory = BTreeMap::new();
    for step in &plan.steps {
        match checks.next().await {
            Some(Ok(file)) => {
                inventories.push((&step.input, VariableSet::of(&file.header), 1));
                memory.insert(step.month, file.memory);
            }
            Some(Err(error)) => failures.push((step.input.key.clone(), error)),
            None => {}
        }
    }
    // The files that are done were compared with each other: one speaks for all of them.
    if let Some((month, input)) = &plan.done
        && let Ok(file) = check(*month, input).await
    {
        inventories.push((input, VariableSet::of(&file.header), plan.record.files.len()));
    }
    if environment.stop.is_cancelled() {
        return Err(CaseError::Stopped { case: plan.case, converted: 0, files: plan.steps.len() });
    }
    let usual = VariableSet::commonest(inventories.iter().map(|(_, i, files)| (i, *files)));
    for (input, inventory, _) in &inventories {
        if let Some(difference) = usual.and_then(|usual| inventory.differs(usual)) {
            let url = environment.raw.location().join(&input.key).to_string();
            let error = ValidationError::Differs { url, difference };
            failures.push((input.key.clone(), error.into()));
        }
    }
    if !failures.is_empty() {
        let not_tried = plan.steps.len().saturating_sub(failures.len());
        return Err(CaseError::Files { case: plan.case, converted: 0, not_tried, failures });
    }
    for (variable, effect) in WANTED {
        if usual.is_some_and(|usual| !usual.has(variable)) {
            tracing::warn!("the raw files of case {} have no {variable}: {effect}", plan.case);
        }
    }
    Ok(memory)
}

async fn convert_all(
    environment: &ConversionContext,
    plan: CasePlan,
    memory: &BTreeMap<YearMonth, u64>,
    folder: &str,
) -> Result<(CaseManifest, ConversionSummary), CaseError> {
    let CasePlan { case, steps, mut record, .. } = plan.clone();
    let mut summary = ConversionSummary::default();
    let mut failures = Vec::new();
    let context = Arc::new(CaseContext::new(case, environment.grid.clone(), plan.record.part_size));
    // What is not confirmed under the present recipe must not be taken for done after a stop. In
    // this order no moment is without a record; and while no file has been replaced, the record
    // of the complete case still holds.
    let (out, confirmed, opened) = (&environment.out, &plan.record, OnceCell::new());
    let agree = async || claim::agree(out, case, folder, &confirmed.recipe).await;
    let open = async || claim::confirm(out, &plan, folder).await;
    // Of processes with different settings the one that noted its own last goes on: the others must not
    // put a file more between its own.
    let before_each = async || {
        agree().await?;
        opened.get_or_try_init(&open).await.copied()
    };
    let mut saved = Instant::now();
    let files = steps.len();
    let queue = QUEUE.max(environment.pool.workers() + 1);

    let mut running = FuturesUnordered::new();
    let mut steps = steps.into_iter().peekable();
    loop {
        let may_start = failures.is_empty() && !environment.stop.is_cancelled();
        if let Some(step) = steps.next_if(|_| may_start && running.len() < queue) {
            let memory = memory.get(&step.month).copied().unwrap_or(step.input.size);
            running.push(convert_one(environment, context.clone(), (step, memory), &before_each));
            continue;
        }
        let Some((step, result)) = running.next().await else { break };
        match result {
            Ok((file, timing)) => {
                environment.progress.file_done();
                summary.converted += 1;
                summary.bytes_in += step.input.size;
                summary.bytes_out += file.content.size;
                summary.timing += timing;
                record.insert(file);
                if saved.elapsed() > CHECKPOINT {
                    record.save(&environment.out, folder, PARTIAL).await?;
                    saved = Instant::now();
                }
            }
            Err(error) => failures.push((step.input.key.clone(), error)),
        }
    }
    if failures.is_empty() && !environment.stop.is_cancelled() {
        return Ok((record, summary));
    }
    if !opened.initialized() {
        claim::give_up(out, &plan, folder).await;
    }
    // Nothing of the record of another process is replaced.
    let kept = match agree().await {
        Err(error @ PlanError::Taken { .. }) => return Err(error.into()),
        Ok(()) if opened.initialized() => {
            record.save(out, folder, PARTIAL).await.map_err(PlanError::from)
        }
        agreed => agreed,
    };
    if let Err(error) = kept {
        // The failures tell more: what hit the record hit the files before.
        tracing::warn!("{error}; files that were finished just now are converted again");
    }
    let converted = summary.converted;
    if environment.stop.is_cancelled() {
        return Err(CaseError::Stopped { case, converted, files });
    }
    Err(CaseError::Files { case, converted, not_tried: steps.len(), failures })
}

/// One file from the archive to the store. Its memory in the pool is kept until its last part is
/// stored, for until then the file is there; making it visible waits for no worker, but for
/// `before_visible`.
async fn convert_one(
    environment: &ConversionContext,
    context: Arc<CaseContext>,
    (step, memory): (FileTask, u64),
    before_visible: &impl AsyncFn() -> Result<(), PlanError>,
) -> (FileTask, Result<(FileRecord, Timing), FileError>) {
    let result = async {
        let ConversionContext { raw, out, stop, pool, .. } = environment;
        let url = out.location().join(&step.output).to_string();
        let failed = |source: SinkError| FileError::Store { url: url.clone(), source };
        let progress = environment.progress.clone();
        let object = raw.object_known(&step.input.key, step.input.clone());
        let (FileTask { month, input, output, .. }, out, stopped) =
            (step.clone(), out.clone(), stop.clone());
        let work = move |source| -> Result<_, StoreError> {
            let started = Instant::now();
            let mut sink = UploadSink::create(&out, &output, stopped)?;
            let name = input.key.rsplit('/').next().unwrap_or_default();
            let input = convert::RawInput { source, month, name, modified: input.modified };
            Ok((convert::convert(input, &context, &mut sink), sink, started))
        };
        let needs = (ReadMode::Whole, memory);
        let passed = move |bytes| progress.advance(bytes);
        let (converted, memory) =
            environment.reader.read(pool, object, needs, stop, passed, work).await?;
        let (converted, mut sink, started) = converted.map_err(|e| failed(e.into()))?;
        let converted = converted?;
        let begun = Instant::now();
        sink.drain().await.map_err(failed)?;
        drop(memory);
        before_visible().await?;
        sink.complete().await.map_err(failed)?;
        let mut timing = converted.timing;
        timing.write += begun.elapsed();
        let (raw, stored) = (step.input.size, converted.content.size);
        tracing::info!(
            "converted {url} in {:.1?}: {raw} bytes in, {stored} out",
            started.elapsed()
        );
        let file = FileRecord {
            key: step.output.clone(),
            content: converted.content,
            input: InputRecord::new(&step.input, Some(converted.source_sha256)),
        };
        Ok((file, timing))
    }
    .await;
    (step, result)
}
