//! Store 2, `store2.zarr`: maps of a case, month by month, as a pyramid of Web Mercator tiles.
//!
//! A chunk holds the same month of 15 years, so the months of a case are read in that order: the
//! Januaries (counted from the intervention), then the Februaries, and so on. What belongs to a
//! month is regridded as soon as it is read; 15 of them become the chunks of a month.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio_util::task::AbortOnDropHandle;

use super::create::{CaseInProgress, OpenStore};
use super::earlier::{Comparison, compare, refuse_taken, renew};
use super::input::CaseFiles;
use super::month::{GridShape, MonthFile};
use super::record::{CaseRecord, FileEntry, ResultSettings};
use super::regridded::{MonthFields, RegriddedMonth};
use super::schema::{PyramidOptions, YEAR, place, reading_order};
use super::series::FillReport;
use super::shards::WholeMaps;
use super::{RunContext, StoreRecipe, VisError, coverage};
use crate::case_manifest::InputRecord;
use crate::encode::zarr::{Array, StoreObject, ZarrVersion, chunk, v3};
use crate::executor::{Pool, Stopped, begin, unless_stopped};
use crate::model::atlas::{Band, FILL, MapVariable, YEARS};
use crate::model::{Case, Grid, YearMonth, hex};
use crate::read::ssh::SeaSurfaceHeight;
use crate::regrid::Weights;
use crate::regrid::mercator::{self, TILE};
use crate::store::ObjectMeta;

/// Memory for a month: two fields of 60 levels, compressed, shuffled and as they are, twice.
const MONTH_MEMORY: u64 = 220 << 20;
/// Memory for a chunk, and at most for a shard on its way.
const CHUNK_MEMORY: u64 = 2 << 20;
const SHARD_MEMORY: u64 = 1 << 30;
/// Memory that the maps of a case leave to the files and shards that they are made from and go to.
const LEFT_MEMORY: u64 = 2 << 30;
/// Chunks on their way to the store.
const PUTS: usize = 16;

/// What is said without a series of sea surface height.
pub const NEEDS_SSH: &str = "the variable DIC needs the sea surface height: give --ssh FILE";

/// What all cases of a run share.
pub struct MapContext<'a> {
    /// The store.
    pub destination: Arc<OpenStore>,
    /// What it holds.
    pub pyramid: PyramidOptions,
    /// Weights of every level, made once.
    pub weights: Arc<Vec<Weights>>,
    /// SHA-256 of the weights, in hexadecimal.
    pub digest: String,
    /// Name of the grid for messages, and its rows and columns.
    pub grid: String,
    /// Rows and columns of it.
    pub shape: GridShape,
    /// The grid file's points with the SHA-256 of the file, if there is one: they must be where the files'
    /// own are.
    pub given: Option<(Arc<Grid>, String)>,
    /// The series of sea surface height and the file that it is in; needed for `DIC`.
    pub ssh: Option<(Arc<SeaSurfaceHeight>, InputRecord)>,
    /// Workers and progress.
    pub workshop: &'a RunContext,
    /// Where a case lies in memory as a whole, others wait.
    pub turn: tokio::sync::Mutex<()>,
}

/// The points that the weights are made from: those of the grid file, or of the case's first file.
///
/// The reference takes the U points, with their fill over land blocks.
pub async fn grid_of(
    files: &CaseFiles,
    recipe: &StoreRecipe,
    workshop: &RunContext,
) -> Result<Grid, VisError> {
    let Some((_, month, info)) = files.iter().next() else { return Err(Stopped.into()) };
    let source = files.source(info, workshop);
    let (lat, lon) = points_of(recipe);
    let place = workshop.pool.place(CHUNK_MEMORY).await?;
    let of = (files.case, month);
    let work =
        move || -> Result<Grid, VisError> { Ok(MonthFile::open(source, of)?.grid(lat, lon)?) };
    Pool::run(&place, work).await?
}

/// The latitudes and longitudes of files that the recipe takes.
fn points_of(recipe: &StoreRecipe) -> (&'static str, &'static str) {
    match recipe.reference_compat {
        true => ("ULAT", "ULONG"),
        false => ("TLAT", "TLONG"),
    }
}

/// SHA-256 of weights, in hexadecimal.
pub fn digest(weights: &[Weights]) -> String {
    let mut digest = Sha256::new();
    weights.iter().flat_map(Weights::bytes).for_each(|bytes| digest.update(bytes));
    hex(&digest.finalize())
}

impl MapContext<'_> {
    /// Fills a case's part of the store; its record comes last.
    pub async fn fill(&self, files: &CaseFiles, force: bool) -> Result<FillReport, VisError> {
        if self.pyramid.variables.contains(&MapVariable::Dic) && self.ssh.is_none() {
            return Err(VisError::Needs(NEEDS_SSH.to_owned()));
        }
        let missing = files.missing.iter().map(YearMonth::to_string).collect();
        let of_dic = self.pyramid.variables.contains(&MapVariable::Dic);
        let settings = ResultSettings {
            weights_sha256: Some(self.digest.clone()),
            grid_sha256: self.given.as_ref().map(|(_, sha256)| sha256.clone()),
            ssh: self.ssh.as_ref().filter(|_| of_dic).map(|(_, file)| file.clone()),
            ..ResultSettings::default()
        };
        let (case, recipe, inputs) = (files.case, self.destination.recipe.clone(), files.inputs());
        let (inputs_now, part_size) = (inputs.records(), self.destination.store.multipart_size());
        let mut record =
            CaseRecord::new("store2", case, recipe, settings, missing, inputs_now, part_size);
        let earlier = CaseRecord::load(&self.destination.store, case).await;
        let is_there = !matches!(earlier, Ok(None));
        let earlier = match earlier {
            Err(VisError::Record { .. } | VisError::Format { .. }) if force => None,
            earlier => earlier?,
        };
        if let Some(earlier) = earlier.as_ref().filter(|_| !force) {
            earlier.keep(case, &files.missing)?;
        }
        let comparison = match earlier.as_ref().filter(|_| !force) {
            None => Comparison::Other,
            Some(earlier) => {
                let url = CaseRecord::url(&self.destination.store, case);
                let compared = compare(case, earlier, &record, &inputs, url);
                unless_stopped(&self.workshop.stop, compared).await??
            }
        };
        self.check_points(files).await?;
        if let Comparison::Touched(renewed) = &comparison {
            renew(&self.destination.store, case, renewed).await;
        }
        if comparison != Comparison::Other {
            return Ok(FillReport { before: true, ..FillReport::default() });
        }
        if is_there {
            // What is there is given up only for what can be read.
            self.look_at_all(files).await?;
        } else if !force {
            refuse_taken(&self.destination.store, case, &record).await?;
            coverage::refuse_uncovered_maps(&self.destination.store, &self.pyramid, case).await?;
        }
        let kept = earlier.filter(|_| !force).map(|earlier| earlier.files).unwrap_or_default();
        let begun =
            CaseInProgress::new(self.destination.clone(), case, record.clone(), kept, force);
        let begun = Arc::new(begun);
        let mut filled = FillReport { size: files.size(), ..FillReport::default() };
        let _memory = match WholeMaps::bytes(&self.pyramid) {
            0 => None,
            bytes => {
                // Two that each hold a part of their memory would wait for each other.
                let turn = self.turn.lock().await;
                let pool = &self.workshop.pool;
                let bytes = bytes.min(pool.total().saturating_sub(LEFT_MEMORY));
                Some((turn, pool.memory(bytes).await?))
            }
        };
        let mut whole = WholeMaps::new(&self.pyramid);
        let mut months = stream::iter(reading_order())
            .map(|elapsed| {
                let month = self.month(files, elapsed);
                async move {
                    match month {
                        None => Ok(None),
                        Some(task) => task.await?.map(Some),
                    }
                }
            })
            .buffered(self.workshop.pool.workers() + 1);
        let (mut years, mut layers) = (Vec::with_capacity(YEARS), None);
        // The chunks of one month are written while the files of the next are read.
        let mut writing = None;
        for of_year in 0..YEAR {
            while years.len() < YEARS {
                let Some(month) = months.try_next().await? else { break };
                if let Some(RegriddedMonth { layers: Some(found), url, .. }) = &month {
                    let of_first = *layers.get_or_insert(*found);
                    if *found != of_first {
                        let problem = format!("has {found} layers, the case's first {of_first}");
                        return Err(VisError::Mismatch { url: url.clone(), problem });
                    }
                }
                filled.fetched += month.as_ref().map_or(0, |month: &RegriddedMonth| month.fetched);
                years.push(month);
            }
            let years = Arc::new(std::mem::replace(&mut years, Vec::with_capacity(YEARS)));
            if self.pyramid.format == ZarrVersion::V3 {
                whole.take(&years, of_year);
                continue;
            }
            if let Some(entries) =
                writing.replace(self.write(&begun, self.chunks(case, of_year, years)))
            {
                record.files.extend(entries.await??);
            }
        }
        drop(months);
        for (array, values) in whole.arrays {
            let shard = self.shard(case, array, values);
            if let Some(entries) = writing.replace(self.write(&begun, vec![shard])) {
                record.files.extend(entries.await??);
            }
        }
        if let Some(entries) = writing {
            record.files.extend(entries.await??);
        }
        filled.before = is_there && !begun.is_noted();
        filled.objects = record.files.len();
        filled.written = record.files.iter().map(|entry| entry.content.size).sum();
        record.files.sort_by(|a, b| a.key.cmp(&b.key));
        record.complete(&self.destination.store, case).await?;
        Ok(filled)
    }

    /// Opens every file of a case, and looks for its months in the series of sea surface height.
    async fn look_at_all(&self, files: &CaseFiles) -> Result<(), VisError> {
        let shift = if self.destination.recipe.reference_compat { -1 } else { 0 };
        let look = async |(month, info): (YearMonth, ObjectMeta)| {
            if let Some((ssh, _)) = &self.ssh {
                ssh.has(month.plus(shift))?;
            }
            let source = files.source(&info, self.workshop);
            let place = self.workshop.pool.place(CHUNK_MEMORY).await?;
            let of = (files.case, month);
            Pool::run(&place, move || MonthFile::open(source, of).map(drop)).await??;
            Ok(())
        };
        let all: Vec<_> = files.iter().map(|(_, month, info)| (month, info.clone())).collect();
        stream::iter(all).map(look).buffered(PUTS).try_collect().await
    }

    /// The points of a case's first file are those of the grid file, or are places when there is none:
    /// the weights may be of another case's file.
    async fn check_points(&self, files: &CaseFiles) -> Result<(), VisError> {
        let Some((_, month, info)) = files.iter().next() else { return Ok(()) };
        let given = self.given.as_ref().map(|(grid, _)| grid.clone());
        let (lat, lon) = points_of(&self.destination.recipe);
        let source = files.source(info, self.workshop);
        let place = self.workshop.pool.place(CHUNK_MEMORY).await?;
        let (name, of) = (self.grid.clone(), (files.case, month));
        let work = move || -> Result<(), VisError> {
            let file = MonthFile::open(source, of)?;
            match given {
                Some(grid) => file.check_points(&grid, &name),
                None => Ok(file.grid(lat, lon).map(drop)?),
            }
        };
        Pool::run(&place, work).await?
    }

    /// Begins to read and regrid a month; `None` when it has no file.
    fn month(
        &self,
        files: &CaseFiles,
        elapsed: usize,
    ) -> Option<AbortOnDropHandle<Result<RegriddedMonth, VisError>>> {
        let (month, info) = files.month(elapsed)?;
        let (files, info, case) = (files.clone(), info.clone(), files.case);
        let (workshop, grid, shape) = (self.workshop.clone(), self.grid.clone(), self.shape);
        let (variables, weights) = (self.pyramid.variables.clone(), self.weights.clone());
        let ssh = self.ssh.as_ref().map(|(ssh, _)| ssh.clone());
        let compat = self.destination.recipe.reference_compat;
        let work = move |source| -> Result<RegriddedMonth, VisError> {
            let file = MonthFile::open(source, (case, month))?;
            let fields = MonthFields { file: &file, grid: &grid, shape, weights: &weights, compat };
            fields.regrid(&variables, ssh.as_deref(), month)
        };
        Some(begin(async move {
            if workshop.stop.is_cancelled() {
                return Err(Stopped.into());
            }
            let regridded = files.read(&info, &workshop, MONTH_MEMORY, work).await??;
            workshop.progress.advance(info.size);
            workshop.progress.file_done();
            Ok(regridded)
        }))
    }

    /// The chunks of a month of 15 years, each to be encoded on a worker.
    fn chunks(
        &self,
        case: Case,
        of_year: usize,
        years: Arc<Vec<Option<RegriddedMonth>>>,
    ) -> Vec<impl Future<Output = Result<StoreObject, VisError>> + Send + 'static> {
        let (polygon, season) = place(case);
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
                        "{level}/{name}/{polygon}.{band}.{season}.{of_year}.0.{row}.{column}"
                    );
                    let (years, pool) = (years.clone(), self.workshop.pool.clone());
                    let field = v * Band::ALL.len() + band;
                    chunks.push(async move {
                        let held = pool.place(CHUNK_MEMORY).await?;
                        let work = move || chunk_of(&years, level, field, row, column, tiles);
                        Ok(StoreObject { key, bytes: Pool::run(&held, work).await? })
                    });
                }
            }
        }
        chunks
    }

    /// The shard of a variable and level, to be encoded on a worker.
    fn shard(
        &self,
        case: Case,
        array: Array,
        values: Vec<f32>,
    ) -> impl Future<Output = Result<StoreObject, VisError>> + Send + 'static {
        let pool = self.workshop.pool.clone();
        let (polygon, season) = place(case);
        let index = [polygon as u64, 0, season as u64, 0, 0, 0, 0];
        async move {
            let held = pool.place((4 * values.len() as u64).min(SHARD_MEMORY)).await?;
            let key = array.path.clone();
            let work = move || v3::Encoder::new(&array)?.floats(&index, &values);
            let shard = Pool::run(&held, work).await?;
            shard.map_err(|source| VisError::Shard { key, source })
        }
    }

    /// Begins to write objects as they become ready, but for those that are there; gives their entries
    /// for the record.
    fn write<F>(
        &self,
        begun: &Arc<CaseInProgress>,
        objects: Vec<F>,
    ) -> AbortOnDropHandle<Result<Vec<FileEntry>, VisError>>
    where
        F: Future<Output = Result<StoreObject, VisError>> + Send + 'static,
    {
        let begun = begun.clone();
        begin(async move {
            let put = async |object: F| {
                let StoreObject { key, bytes } = object.await?;
                let part_size = begun.store().multipart_size();
                let entry = FileEntry::new(key, &bytes, part_size);
                if begun.keeps(&entry) {
                    return Ok(entry);
                }
                begun.note().await?;
                begun.store().put(&entry.key, bytes).await?;
                Ok::<_, VisError>(entry)
            };
            stream::iter(objects).map(put).buffered(PUTS).try_collect().await
        })
    }
}

/// The bytes of a chunk: a tile of 15 years.
fn chunk_of(
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
