//! Store 2, `store2.zarr`: monthly maps of each case as a pyramid of Web Mercator tiles.
//!
//! A chunk holds the same month of 15 years, so [`MapContext::fill`] reads the months of a case in the
//! order of `reading_order`: the first month of each year since the intervention, then the second
//! month of each year, and so on. It regrids each file as soon as it has read it, and writes a group of
//! chunks whenever 15 months are regridded.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::task::AbortOnDropHandle;

use super::case_writer::{CaseInProgress, CaseWriter};
use super::create::OpenStore;
use super::earlier::{
    Comparison, CurrentInputs, compare, refuse_taken, refuse_unlike_others, renew,
};
use super::input::CaseFiles;
use super::month::{GridShape, MonthFile};
use super::record::{CaseRecord, ResultSettings};
use super::regridded::{MonthFields, MonthReader, RegriddedMonth};
use super::schema::{PyramidOptions, YEAR, axis_indices, reading_order};
use super::series::{FillOptions, FillReport};
use super::shards::WholeMaps;
use super::{RunContext, StoreRecipe, VisError, coverage};
use crate::case_manifest::{InputRecord, SettingDifference};
use crate::encode::zarr::{Array, StoreObject, ZarrVersion, chunk, v3};
use crate::executor::{MemoryPermit, Pool, Stopped, spawn_abort_on_drop, unless_stopped};
use crate::model::atlas::{Band, FILL, MapVariable, YEARS};
use crate::model::{Case, Grid, YearMonth, hex};
use crate::read::ssh::SeaSurfaceHeight;
use crate::regrid::Weights;
use crate::regrid::mercator::{self, TILE};
use crate::research::FilesInProgress;
use crate::store::ObjectMeta;

/// Memory to regrid a month, bytes: two fields of 60 layers, each of them compressed, shuffled and
/// decoded, and twice that.
const MONTH_MEMORY: u64 = 220 << 20;
/// Memory to encode a chunk, bytes.
const CHUNK_MEMORY: u64 = 2 << 20;
/// Largest memory that is requested to encode a shard, bytes.
const SHARD_MEMORY: u64 = 1 << 30;
/// Memory that the maps of a case leave to input files and encoded shards, bytes.
const RESERVED_MEMORY: u64 = 2 << 30;
/// Largest number of input files that are opened at the same time.
const CONCURRENCY: usize = 16;

/// Error message when the variable `DIC` is selected without a series of sea surface height.
pub const NEEDS_SSH: &str = "the variable DIC needs the sea surface height; give --ssh FILE";

/// Inputs and settings that all cases of a run have in common.
pub struct MapContext<'a> {
    /// The store that is filled.
    pub destination: Arc<OpenStore>,
    /// Levels, variables and Zarr format of the store.
    pub pyramid: PyramidOptions,
    /// Regridding weights, one item for each level.
    pub weights: Arc<Vec<Weights>>,
    /// SHA-256 of the weights, in hexadecimal, as [`weights_sha256`] computes it.
    pub weights_sha256: String,
    /// Name of the grid for messages: the URL of a grid file, or the case whose file has the points.
    pub grid_name: String,
    /// Rows and columns of the grid.
    pub shape: GridShape,
    /// Points of the grid file with the SHA-256 of the file; `None` without a grid file. The points of every
    /// input file must be the same.
    pub grid_file: Option<(Arc<Grid>, String)>,
    /// Series of sea surface height, with the record of its file. The variable `DIC` needs it.
    pub ssh: Option<(Arc<SeaSurfaceHeight>, InputRecord)>,
    /// Workers, memory, cancellation and progress.
    pub context: &'a RunContext,
    /// Lock for cases whose maps are held in memory as a whole: one case at a time reserves the memory.
    pub whole_maps_lock: Mutex<()>,
}

/// Reads the grid points from the first file of a case, in degrees.
///
/// The points are the T points. With `reference_compat` they are the U points, which the reference
/// program uses; these are fill in blocks without ocean.
///
/// # Errors
/// The file cannot be read, or its points are not valid degrees.
pub async fn read_grid(
    files: &CaseFiles,
    recipe: &StoreRecipe,
    context: &RunContext,
) -> Result<Grid, VisError> {
    let Some((_, month, info)) = files.iter().next() else { return Err(Stopped.into()) };
    let source = files.source(info, context);
    let (lat, lon) = point_variables(recipe);
    let permit = context.pool.acquire(CHUNK_MEMORY).await?;
    let case_month = (files.case, month);
    let work = move || -> Result<Grid, VisError> {
        Ok(MonthFile::open(source, case_month)?.grid(lat, lon)?)
    };
    Pool::run(&permit, work).await?
}

/// Names of the variables with the latitudes and longitudes that a recipe regrids from.
fn point_variables(recipe: &StoreRecipe) -> (&'static str, &'static str) {
    match recipe.reference_compat {
        true => ("ULAT", "ULONG"),
        false => ("TLAT", "TLONG"),
    }
}

/// SHA-256 of the weights of all levels, in hexadecimal.
pub fn weights_sha256(weights: &[Weights]) -> String {
    let mut digest = Sha256::new();
    weights.iter().flat_map(Weights::bytes).for_each(|bytes| digest.update(bytes));
    hex(&digest.finalize())
}

impl MapContext<'_> {
    /// Fills the maps of a case, unless they exist with the same inputs and settings. Writes the record
    /// of the case last.
    ///
    /// # Errors
    /// An input cannot be read or does not fit the grid; the maps exist with other settings, or another
    /// process writes them; the store fails, or the run
    /// is stopped.
    pub async fn fill(
        &self,
        files: &CaseFiles,
        options: FillOptions,
    ) -> Result<FillReport, VisError> {
        if self.needs_ssh() && self.ssh.is_none() {
            return Err(VisError::Settings(NEEDS_SSH.to_owned()));
        }
        let mut fill = self.prepare_fill(files, options.force).await?;
        let comparison = self.compare_earlier(&fill).await?;
        if let Comparison::Other { older } = &comparison {
            fill.older.clone_from(older);
        }
        self.check_points(files).await?;
        if let Comparison::Touched(renewed) = &comparison
            && !options.dry_run
        {
            renew(&self.destination.store, files.case, renewed).await;
        }
        if !matches!(comparison, Comparison::Other { .. }) {
            return Ok(FillReport::done_before());
        }
        self.check_replacement(&fill).await?;
        if options.dry_run {
            return Ok(FillReport::planned(files));
        }
        self.write_case(fill).await
    }

    /// Whether a variable of the store is computed from the sea surface height.
    fn needs_ssh(&self) -> bool {
        self.pyramid.variables.contains(&MapVariable::Dic)
    }

    /// Creates the record of the new result and loads the record that the store has.
    async fn prepare_fill<'f>(
        &self,
        files: &'f CaseFiles,
        force: bool,
    ) -> Result<CaseFill<'f>, VisError> {
        let inputs = files.inputs();
        let record = self.new_record(files, &inputs);
        let loaded = CaseRecord::load(&self.destination.store, files.case).await;
        let has_record = !matches!(loaded, Ok(None));
        let earlier = match loaded {
            Err(VisError::Record { .. } | VisError::Format { .. }) if force => None,
            loaded => loaded?.filter(|_| !force),
        };
        Ok(CaseFill { files, inputs, record, has_record, earlier, older: None, force })
    }

    /// Creates the record of a case with these inputs, without its objects.
    fn new_record(&self, files: &CaseFiles, inputs: &CurrentInputs) -> CaseRecord {
        let missing = files.missing.iter().map(YearMonth::to_string).collect();
        let ssh = self.ssh.as_ref().filter(|_| self.needs_ssh());
        let settings = ResultSettings {
            weights_sha256: Some(self.weights_sha256.clone()),
            grid_sha256: self.grid_file.as_ref().map(|(_, sha256)| sha256.clone()),
            ssh: ssh.map(|(_, file)| file.clone()),
            ..ResultSettings::default()
        };
        let (recipe, inputs) = (self.destination.recipe.clone(), inputs.records());
        let part_size = self.destination.store.multipart_size();
        CaseRecord::new("store2", files.case, recipe, settings, missing, inputs, part_size)
    }

    /// Compares the result in the store with the result that this run would compute.
    async fn compare_earlier(&self, fill: &CaseFill<'_>) -> Result<Comparison, VisError> {
        let Some(earlier) = &fill.earlier else { return Ok(Comparison::Other { older: None }) };
        let case = fill.files.case;
        earlier.check_months_kept(case, &fill.files.missing)?;
        let url = CaseRecord::url(&self.destination.store, case);
        let compared = compare(case, earlier, &fill.record, &fill.inputs, url);
        unless_stopped(&self.context.stop, compared).await?
    }

    /// Checks that the maps may be written. A result is replaced only when every input file can be
    /// read. Without a record, maps that another process writes or that no record covers are an error,
    /// unless `force` is set.
    async fn check_replacement(&self, fill: &CaseFill<'_>) -> Result<(), VisError> {
        let (store, case) = (&self.destination.store, fill.files.case);
        if fill.has_record {
            self.check_readable(fill.files).await?;
        } else if !fill.force {
            refuse_unlike_others(store, case, &fill.record.settings).await?;
            refuse_taken(store, case, &fill.record).await?;
            coverage::refuse_uncovered_maps(store, &self.pyramid, case).await?;
        }
        Ok(())
    }

    /// Writes the maps of a case and then its record. Skips objects that the store has already.
    async fn write_case(&self, fill: CaseFill<'_>) -> Result<FillReport, VisError> {
        let CaseFill { files, mut record, has_record, earlier, older, force, .. } = fill;
        let (destination, case) = (&self.destination, files.case);
        let earlier_files = earlier.map(|earlier| earlier.files).unwrap_or_default();
        let in_progress =
            CaseInProgress::new(destination.clone(), case, record.clone(), earlier_files, force)
                .await?
                .with_older_input(older);
        let _memory = self.memory_for_whole_maps().await?;
        let mut writer = CaseWriter::new(Arc::new(in_progress));
        let fetched = self.write_maps(files, &mut writer).await?;
        let (entries, has_written) = writer.finish().await?;
        record.files = entries;
        let (size, objects) = (files.size(), record.files.len());
        let written = record.files.iter().map(|entry| entry.content.size).sum();
        let done_before = has_record && !has_written;
        record.complete(&destination.store, case).await?;
        Ok(FillReport { fetched, size, objects, written, done_before, ..FillReport::default() })
    }

    /// Reserves memory for all maps of a case in Zarr v3, whose shards are written at the end. `None` in
    /// Zarr v2.
    async fn memory_for_whole_maps(&self) -> Result<Option<WholeMapsMemory<'_>>, VisError> {
        let bytes = WholeMaps::bytes(&self.pyramid);
        if bytes == 0 {
            return Ok(None);
        }
        // Without the lock, two cases that each hold a part of their memory wait for each other.
        let lock = self.whole_maps_lock.lock().await;
        let pool = &self.context.pool;
        let bytes = bytes.min(pool.total().saturating_sub(RESERVED_MEMORY));
        Ok(Some((lock, pool.memory(bytes).await?)))
    }

    /// Reads and regrids the months of a case and writes their maps. Returns the number of bytes read.
    async fn write_maps(
        &self,
        files: &CaseFiles,
        writer: &mut CaseWriter,
    ) -> Result<u64, VisError> {
        let progress = &*self.context.progress;
        let _in_progress = FilesInProgress::begin(progress, files.len(), files.size());
        let mut whole = WholeMaps::new(&self.pyramid);
        let months = self.regridded_months(files);
        let mut months = MonthReader::new(months);
        for month_of_year in 0..YEAR {
            let years = Arc::new(months.next_years().await?);
            match self.pyramid.format {
                ZarrVersion::V3 => whole.insert(&years, month_of_year),
                ZarrVersion::V2 => {
                    writer.write(self.chunks(files.case, month_of_year, years)).await?
                }
            }
        }
        let fetched = months.fetched;
        drop(months);
        for (array, values) in whole.arrays {
            writer.write(vec![self.shard(files.case, array, values)]).await?;
        }
        Ok(fetched)
    }

    /// Streams the regridded months of a case in reading order; `None` for a month without a file. As
    /// many months as there are workers, and one more, are in progress at the same time.
    fn regridded_months(
        &self,
        files: &CaseFiles,
    ) -> impl Stream<Item = Result<Option<RegriddedMonth>, VisError>> + Unpin {
        stream::iter(reading_order())
            .map(move |elapsed| {
                let month = self.start_month(files, elapsed);
                async move {
                    match month {
                        None => Ok(None),
                        Some(task) => task.await?.map(Some),
                    }
                }
            })
            .buffered(self.context.pool.workers() + 1)
    }

    /// Opens every file of a case and checks its variables, and that the series of sea surface height has its
    /// months.
    async fn check_readable(&self, files: &CaseFiles) -> Result<(), VisError> {
        let shift = if self.destination.recipe.reference_compat { -1 } else { 0 };
        let check = async |(month, info): (YearMonth, ObjectMeta)| {
            if let Some((ssh, _)) = &self.ssh {
                ssh.check_month(month.plus(shift))?;
            }
            let source = files.source(&info, self.context);
            let permit = self.context.pool.acquire(CHUNK_MEMORY).await?;
            let case_month = (files.case, month);
            let (variables, shape) = (self.pyramid.variables.clone(), self.shape);
            let grid_name = self.grid_name.clone();
            let work = move || -> Result<(), VisError> {
                let file = MonthFile::open(source, case_month)?;
                for variable in variables {
                    let (experiment, control) = variable.fields();
                    file.check_field(experiment, shape, &grid_name)?;
                    file.check_field(control, shape, &grid_name)?;
                    if variable == MapVariable::Dic {
                        file.file.decoding("dz")?;
                    }
                }
                Ok(())
            };
            Pool::run(&permit, work).await?
        };
        let all: Vec<_> = files.iter().map(|(_, month, info)| (month, info.clone())).collect();
        stream::iter(all).map(check).buffered(CONCURRENCY).try_collect().await
    }

    /// Checks that the points of the first file of a case are those of the grid file. Without a grid file
    /// it checks that they are valid degrees, because the weights can come from the file of another case.
    async fn check_points(&self, files: &CaseFiles) -> Result<(), VisError> {
        let Some((_, month, info)) = files.iter().next() else { return Ok(()) };
        let grid = self.grid_file.as_ref().map(|(grid, _)| grid.clone());
        let (lat, lon) = point_variables(&self.destination.recipe);
        let source = files.source(info, self.context);
        let permit = self.context.pool.acquire(CHUNK_MEMORY).await?;
        let (grid_name, case_month) = (self.grid_name.clone(), (files.case, month));
        let work = move || -> Result<(), VisError> {
            let file = MonthFile::open(source, case_month)?;
            match grid {
                Some(grid) => file.check_points(&grid, &grid_name),
                None => Ok(file.grid(lat, lon).map(drop)?),
            }
        };
        Pool::run(&permit, work).await?
    }

    /// Starts to read and regrid a month; `None` when it has no file.
    fn start_month(
        &self,
        files: &CaseFiles,
        elapsed: usize,
    ) -> Option<AbortOnDropHandle<Result<RegriddedMonth, VisError>>> {
        let (month, info) = files.month(elapsed)?;
        let (files, info, case) = (files.clone(), info.clone(), files.case);
        let (context, grid, shape) = (self.context.clone(), self.grid_name.clone(), self.shape);
        let (variables, weights) = (self.pyramid.variables.clone(), self.weights.clone());
        let ssh = self.ssh.as_ref().map(|(ssh, _)| ssh.clone());
        let compat = self.destination.recipe.reference_compat;
        let common = files.common.clone();
        let work = move |source| -> Result<RegriddedMonth, VisError> {
            let file = MonthFile::open(source, (case, month))?;
            let common = &common;
            let (file, grid, weights) = (&file, &*grid, &**weights);
            let fields = MonthFields { file, grid, shape, weights, compat, common };
            fields.regrid(&variables, ssh.as_deref(), month)
        };
        Some(spawn_abort_on_drop(async move {
            if context.stop.is_cancelled() {
                return Err(Stopped.into());
            }
            let regridded = files.read(&info, &context, MONTH_MEMORY, work).await??;
            context.progress.advance(info.size);
            context.progress.file_done();
            Ok(regridded)
        }))
    }

    /// The chunks (Zarr v2) of one month of each year. Each future encodes a chunk on a worker.
    fn chunks(
        &self,
        case: Case,
        month_of_year: usize,
        years: Arc<Vec<Option<RegriddedMonth>>>,
    ) -> Vec<impl Future<Output = Result<StoreObject, VisError>> + Send + 'static> {
        let (polygon, season) = axis_indices(case);
        let mut chunks = Vec::new();
        for (level, weights) in self.weights.iter().enumerate() {
            let tiles = mercator::size(weights.level()) / TILE;
            for (v, variable) in self.pyramid.variables.iter().enumerate() {
                for (band, tile) in (0..Band::ALL.len())
                    .flat_map(|band| (0..tiles * tiles).map(move |tile| (band, tile)))
                {
                    let (row, column) = (tile / tiles, tile % tiles);
                    let name = variable.name();
                    let key = format!(
                        "{level}/{name}/{polygon}.{band}.{season}.{month_of_year}.0.{row}.{column}"
                    );
                    let (years, pool) = (years.clone(), self.context.pool.clone());
                    let field = v * Band::ALL.len() + band;
                    chunks.push(async move {
                        let permit = pool.acquire(CHUNK_MEMORY).await?;
                        let work = move || encode_chunk(&years, level, field, row, column, tiles);
                        Ok(StoreObject { key, bytes: Pool::run(&permit, work).await? })
                    });
                }
            }
        }
        chunks
    }

    /// The shard (Zarr v3) of a variable and level. The future encodes it on a worker.
    fn shard(
        &self,
        case: Case,
        array: Array,
        values: Vec<f32>,
    ) -> impl Future<Output = Result<StoreObject, VisError>> + Send + 'static {
        let pool = self.context.pool.clone();
        let (polygon, season) = axis_indices(case);
        let index = [polygon as u64, 0, season as u64, 0, 0, 0, 0];
        async move {
            let permit = pool.acquire((4 * values.len() as u64).min(SHARD_MEMORY)).await?;
            let key = array.path.clone();
            let work = move || v3::Encoder::new(&array)?.floats(&index, &values);
            let shard = Pool::run(&permit, work).await?;
            shard.map_err(|source| VisError::Shard { key, source })
        }
    }
}

/// A case to fill: its files, its new record and the record in the store.
struct CaseFill<'a> {
    files: &'a CaseFiles,
    inputs: CurrentInputs,
    /// The record of the new result, without its objects.
    record: CaseRecord,
    /// Whether the store has a record of the case, even one that cannot be read.
    has_record: bool,
    /// The record that the store has; `None` when `force` ignores it.
    earlier: Option<CaseRecord>,
    /// An input file that is older than that of `earlier`, without a recorded checksum.
    older: Option<SettingDifference>,
    force: bool,
}

/// The lock of [`MapContext::whole_maps_lock`], and the memory for all maps of a case.
type WholeMapsMemory<'a> = (MutexGuard<'a, ()>, Arc<MemoryPermit>);

/// Encodes a chunk: a tile of the same month of 15 years, with fill for months without a file. `field`
/// is the index of a variable and band, `row` and `column` are those of the tile.
fn encode_chunk(
    years: &[Option<RegriddedMonth>],
    level: usize,
    field: usize,
    row: usize,
    column: usize,
    tiles: usize,
) -> Bytes {
    let n = tiles * TILE;
    let mut values = Vec::with_capacity(YEARS * TILE * TILE);
    for month in years {
        let map = month.as_ref().map(|month| &month.maps[level][field]);
        match map {
            None => values.resize(values.len() + TILE * TILE, FILL),
            Some(map) => {
                for y in row * TILE..(row + 1) * TILE {
                    let start = y * n + column * TILE;
                    values.extend_from_slice(&map[start..start + TILE]);
                }
            }
        }
    }
    chunk::encode_floats(&values)
}
