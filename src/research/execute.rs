//! Conversion of the files of a case by its plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::case_error::{CaseError, FileError};
use super::convert::{self, CaseContext, Timing};
use super::plan::{CasePlan, FileTask};
use super::validate::{self, ValidationError, VariableSet};
use super::{PlanError, claim};
use crate::case_manifest::{
    CASE_MANIFEST, CaseManifest, FileRecord, InputRecord, PARTIAL_MANIFEST, SettingDifference,
};
use crate::encode::SinkError;
use crate::encode::research as layout;
use crate::executor::{Pool, ReadMode, Reader, UploadSink};
use crate::model::{Grid, YearMonth};
use crate::store::{ObjectMeta, Store, StoreError};

/// Headers that are checked at the same time. A check waits for requests and takes little CPU time.
const CONCURRENT_CHECKS: usize = 16;
/// Bytes of memory for a check: blocks of the header, and the parsed header. The points of the grid are
/// additional.
const CHECK_MEMORY: u64 = 32 << 20;
/// Files of a case that wait for a worker or are in work.
const QUEUE: usize = 32;
/// Variables without which a case is of little use, and the effect of their absence.
const RECOMMENDED: [(&str, &str); 4] = [
    ("TLAT", "its fields have no latitudes"),
    ("TLONG", "its fields have no longitudes"),
    ("TAREA", "there is no area_m2"),
    ("KMT", "the bottom is not marked"),
];
/// Checkpoint interval: the most work that a killed process loses.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// Receives the progress of a conversion. Several threads call it.
pub trait ConversionProgress: Send + Sync {
    /// Files begin, of this number and size in bytes; 0 bytes when only the files are counted.
    fn begin(&self, files: usize, bytes: u64);
    /// Bytes of the files were read.
    fn advance(&self, bytes: u64);
    /// One file is done.
    fn file_done(&self);
    /// The files of one call of `begin` have ended, with or without failures.
    fn end(&self);
}

/// Files that have begun. They end when this value is dropped.
#[must_use]
pub struct FilesInProgress<'a>(&'a dyn ConversionProgress);

impl<'a> FilesInProgress<'a> {
    /// Reports that files begin, of this number and size in bytes.
    pub fn begin(progress: &'a dyn ConversionProgress, files: usize, bytes: u64) -> Self {
        progress.begin(files, bytes);
        Self(progress)
    }
}

impl Drop for FilesInProgress<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl ConversionProgress for NoProgress {
    fn begin(&self, _: usize, _: u64) {}
    fn advance(&self, _: u64) {}
    fn file_done(&self) {}
    fn end(&self) {}
}

/// Files and bytes of a conversion, and its time.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConversionSummary {
    /// Number of files converted.
    pub converted: usize,
    /// Number of files that were done before.
    pub kept: usize,
    /// Raw bytes read.
    pub bytes_in: u64,
    /// Research-grade bytes written.
    pub bytes_out: u64,
    /// Wall-clock time.
    pub elapsed: Duration,
    /// Time of the workers by kind of work, summed over files.
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

/// Stores, workers and the other values that all cases of a run share.
#[derive(Clone)]
pub struct ConversionContext {
    /// The archive of raw history.
    pub raw: Store,
    /// Output store of research-grade files.
    pub out: Store,
    /// Points of the grid file; `None` without a grid file.
    pub grid: Option<Arc<Grid>>,
    /// CPU threads and memory budget.
    pub pool: Pool,
    /// Cancelled when the user stops the run.
    pub stop: CancellationToken,
    /// Receives the progress.
    pub progress: Arc<dyn ConversionProgress>,
    /// Reads the raw files, alone or together with other products.
    pub reader: Reader,
}

/// Converts the files of a plan: checks every input, converts the files, and writes the case manifest last.
///
/// # Errors
/// Files failed, the run was stopped, another process converts the case with other settings, or a store
/// failed.
pub async fn run(
    context: &ConversionContext,
    plan: CasePlan,
) -> Result<ConversionSummary, CaseError> {
    let start = Instant::now();
    let folder = layout::folder(plan.case);
    let kept = plan.record.files.len();
    if plan.complete {
        if plan.touched {
            // With the new times, the next run need not compare contents. A user who may only read
            // gets a warning.
            let record = CaseManifest { inputs_fingerprint: None, ..plan.record };
            if let Err(error) = record.save(&context.out, &folder, CASE_MANIFEST).await {
                tracing::warn!("cannot record the new modification times of raw files: {error}");
            }
        }
        return Ok(ConversionSummary {
            kept,
            elapsed: start.elapsed(),
            ..ConversionSummary::default()
        });
    }
    let mut plan = plan;
    let case = plan.case;
    context.out.remove_stale_temp_files(&folder).await?;
    let CheckedInputs { memory, grid_shape } = check_inputs(context, &plan).await?;
    plan.record.grid_shape = grid_shape.or(plan.record.grid_shape);
    claim::claim(&context.out, &plan, &folder).await?;
    let bytes = plan.steps.iter().map(|s| s.input.size).sum();
    let files = FilesInProgress::begin(&*context.progress, plan.steps.len(), bytes);
    let (record, mut summary) = convert_all(context, plan, &memory, &folder).await?;
    drop(files);
    claim::agree(&context.out, case, &folder, &record).await?;
    let record = CaseManifest { inputs_fingerprint: None, ..record };
    record.save(&context.out, &folder, CASE_MANIFEST).await?;
    context.out.delete(&format!("{folder}/{PARTIAL_MANIFEST}")).await?;
    summary.kept = kept;
    summary.elapsed = start.elapsed();
    Ok(summary)
}

/// What the headers of the inputs of a case tell.
#[derive(Clone, Debug, Default)]
pub struct CheckedInputs {
    /// Bytes of memory that the conversion of each month takes.
    pub memory: BTreeMap<YearMonth, u64>,
    /// Number of points of the model grid, `[nlat, nlon]`. `None`: no file was read.
    pub grid_shape: Option<[usize; 2]>,
}

/// Reads the header of every input before anything is written. A case with an invalid file is refused as a
/// whole, and the error names all invalid files.
///
/// # Errors
/// Files are not valid, or their variables differ, or their model grid is not that of the case manifest, or
/// the run was stopped.
pub async fn check_inputs(
    context: &ConversionContext,
    plan: &CasePlan,
) -> Result<CheckedInputs, CaseError> {
    // Checks run beside the workers of the pool, but within its memory budget.
    let threads = &Pool::new(CONCURRENT_CHECKS, u64::MAX);
    let check = async |month: YearMonth, input: &ObjectMeta| {
        let object = context.raw.object_known(&input.key, input.clone());
        let source = context.reader.source(object, &context.stop);
        let (case, grid) = (plan.case, context.grid.clone());
        // The points of one file suffice to compare the grid file, unless a finished case is replaced.
        let is_first = plan.steps.first().is_some_and(|first| first.month == month);
        let with_points = is_first || plan.has_manifest;
        let points_memory =
            grid.as_ref().filter(|_| with_points).map_or(0, |g| 64 * g.tlat.len() as u64);
        let _memory = context.pool.memory(CHECK_MEMORY + points_memory).await?;
        let check = move || validate::check(source, (case, month), grid.as_deref(), with_points);
        let worker = threads.acquire(0).await?;
        Pool::run(&worker, check).await?.map_err(FileError::from)
    };
    let checks = futures::stream::iter(&plan.steps).map(|step| check(step.month, &step.input));
    let mut checks = checks.buffered(CONCURRENT_CHECKS);
    let (mut variable_sets, mut failures) = (Vec::new(), Vec::new());
    let mut memory = BTreeMap::new();
    for step in &plan.steps {
        match checks.next().await {
            Some(Ok(file)) => {
                variable_sets.push((&step.input, VariableSet::of(&file.header), 1));
                memory.insert(step.month, file.memory);
            }
            Some(Err(error)) => failures.push((step.input.key.clone(), error)),
            None => {}
        }
    }
    // The files that are done have equal variables, so one represents all of them.
    if let Some((month, input)) = &plan.done
        && let Ok(file) = check(*month, input).await
    {
        variable_sets.push((input, VariableSet::of(&file.header), plan.record.files.len()));
    }
    if context.stop.is_cancelled() {
        return Err(CaseError::Stopped { case: plan.case, converted: 0, files: plan.steps.len() });
    }
    let usual = VariableSet::commonest(variable_sets.iter().map(|(_, set, files)| (set, *files)));
    for (input, variables, _) in &variable_sets {
        if let Some(difference) = usual.and_then(|usual| variables.differs(usual)) {
            let url = context.raw.location().join(&input.key).to_string();
            let error = ValidationError::Differs { url, difference };
            failures.push((input.key.clone(), error.into()));
        }
    }
    if !failures.is_empty() {
        let not_tried = plan.steps.len().saturating_sub(failures.len());
        return Err(CaseError::Files { case: plan.case, converted: 0, not_tried, failures });
    }
    for (variable, effect) in RECOMMENDED {
        if usual.is_some_and(|usual| !usual.has(variable)) {
            tracing::warn!("the raw files of case {} have no {variable}: {effect}", plan.case);
        }
    }
    let grid_shape = usual.and_then(VariableSet::grid_shape);
    let shapes = plan.record.grid_shape.zip(grid_shape);
    if let Some(difference) = shapes.and_then(|(was, is)| SettingDifference::of_shape(was, is)) {
        let folder = context.out.location().join(&layout::folder(plan.case));
        let (case, url) = (plan.case, folder.join(CASE_MANIFEST).to_string());
        return Err(PlanError::of_setting(case, url, difference).into());
    }
    Ok(CheckedInputs { memory, grid_shape })
}

/// Converts the files of a plan and returns the manifest with their entries. A failure or a stop starts no
/// further file; the finished files are then recorded in the partial manifest.
async fn convert_all(
    context: &ConversionContext,
    plan: CasePlan,
    memory: &BTreeMap<YearMonth, u64>,
    folder: &str,
) -> Result<(CaseManifest, ConversionSummary), CaseError> {
    let CasePlan { case, steps, mut record, .. } = plan.clone();
    let mut summary = ConversionSummary::default();
    let mut failures = Vec::new();
    let case_context =
        Arc::new(CaseContext::new(case, context.grid.clone(), plan.record.part_size));
    // The partial manifest replaces that of the complete case before the first new file becomes
    // visible. Until then the complete manifest is valid, and at every moment one of them exists.
    let (out, planned, confirmed) = (&context.out, &plan.record, OnceCell::new());
    let agree = async || claim::agree(out, case, folder, planned).await;
    let confirm = async || claim::confirm(out, &plan, folder).await;
    // Of processes with different settings, the one that wrote its manifest last continues. The others
    // must not add a file to its files.
    let before_visible = async || {
        agree().await?;
        confirmed.get_or_try_init(&confirm).await.copied()
    };
    let mut last_save = Instant::now();
    let files = steps.len();
    let queue = QUEUE.max(context.pool.workers() + 1);

    let mut running = FuturesUnordered::new();
    let mut steps = steps.into_iter().peekable();
    loop {
        let may_start = failures.is_empty() && !context.stop.is_cancelled();
        if let Some(step) = steps.next_if(|_| may_start && running.len() < queue) {
            let memory = memory.get(&step.month).copied().unwrap_or(step.input.size);
            running.push(convert_one(
                context,
                case_context.clone(),
                (step, memory),
                &before_visible,
            ));
            continue;
        }
        let Some((step, result)) = running.next().await else { break };
        match result {
            Ok((file, timing)) => {
                context.progress.file_done();
                summary.converted += 1;
                summary.bytes_in += step.input.size;
                summary.bytes_out += file.content.size;
                summary.timing += timing;
                record.insert(file);
                if last_save.elapsed() > CHECKPOINT_INTERVAL {
                    record.save(&context.out, folder, PARTIAL_MANIFEST).await?;
                    last_save = Instant::now();
                }
            }
            Err(error) => failures.push((step.input.key.clone(), error)),
        }
    }
    if failures.is_empty() && !context.stop.is_cancelled() {
        return Ok((record, summary));
    }
    let agreed = agree().await;
    if !confirmed.initialized() {
        claim::withdraw(out, &plan, folder).await;
    }
    // The manifest of another process is not replaced.
    let saved = match agreed {
        Err(error @ PlanError::Taken { .. }) => return Err(error.into()),
        Ok(()) if confirmed.initialized() => {
            record.save(out, folder, PARTIAL_MANIFEST).await.map_err(PlanError::from)
        }
        agreed => agreed,
    };
    if let Err(error) = saved {
        // A warning only: the error of the files is the one to return.
        tracing::warn!("{error}; the next run converts the files of the last seconds again");
    }
    let converted = summary.converted;
    if context.stop.is_cancelled() {
        return Err(CaseError::Stopped { case, converted, files });
    }
    Err(CaseError::Files { case, converted, not_tried: steps.len(), failures })
}

/// Converts one file and stores the result. The memory permit is held until the last part is stored, because
/// the file is in memory until then. `before_visible` runs before the file becomes visible; neither takes a
/// worker.
async fn convert_one(
    context: &ConversionContext,
    case_context: Arc<CaseContext>,
    (step, memory): (FileTask, u64),
    before_visible: &impl AsyncFn() -> Result<(), PlanError>,
) -> (FileTask, Result<(FileRecord, Timing), FileError>) {
    let result = async {
        let ConversionContext { raw, out, stop, pool, .. } = context;
        let url = out.location().join(&step.output).to_string();
        let failed = |source: SinkError| FileError::Store { url: url.clone(), source };
        let progress = context.progress.clone();
        let object = raw.object_known(&step.input.key, step.input.clone());
        let (FileTask { month, input, output, .. }, out, stopped) =
            (step.clone(), out.clone(), stop.clone());
        let work = move |source| -> Result<_, StoreError> {
            let started = Instant::now();
            let mut sink = UploadSink::create(&out, &output, stopped)?;
            let name = input.key.rsplit('/').next().unwrap_or_default();
            let input = convert::RawInput { source, month, name, modified: input.modified };
            Ok((convert::convert(input, &case_context, &mut sink), sink, started))
        };
        let needs = (ReadMode::Whole, memory);
        let on_bytes = move |bytes| progress.advance(bytes);
        let (converted, memory) =
            context.reader.read(pool, object, needs, stop, on_bytes, work).await?;
        let (converted, mut sink, started) = converted.map_err(|e| failed(e.into()))?;
        let converted = converted?;
        let start = Instant::now();
        sink.drain().await.map_err(failed)?;
        drop(memory);
        before_visible().await?;
        sink.complete().await.map_err(failed)?;
        let mut timing = converted.timing;
        timing.write += start.elapsed();
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
