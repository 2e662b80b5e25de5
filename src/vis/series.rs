//! One pass over the months of a case for stores 1 and 3, which hold time series. It reads only
//! two-dimensional fields.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::common_fields::{CommonFields, Fingerprint, check_pair};
use super::create::OpenStore;
use super::earlier::{
    Comparison, CurrentInputs, compare, refuse_taken, refuse_unlike_others, renew,
};
use super::input::CaseFiles;
use super::month::{GridShape, MonthFile};
use super::record::{CaseRecord, ResultSettings};
use super::schema::reading_order;
use super::{RunContext, StoreRecipe, VisError};
use crate::case_manifest::SettingDifference;
use crate::derive::efficiency::{CarbonFlux, Fluxes, integrate_fluxes};
use crate::derive::uptake::{DistanceBins, Uptake, uptake};
use crate::executor::{Pool, Stopped};
use crate::model::case::MONTHS;
use crate::model::{Case, Grid, LatLon, YearMonth};
use crate::read::grid::MOST_POINTS;
use crate::research::{FilesInProgress, PlanError};
use crate::store::{ObjectMeta, PutMode};

/// Least memory for a month, bytes: five fields and their encoded bytes.
const MEMORY: u64 = 16 << 20;
/// Memory for a month per grid point, bytes.
const BYTES_OF_POINT: u64 = 128;
/// Least number of months that are read or wait for a worker at the same time.
const CONCURRENCY: usize = 16;

/// The series to compute from the months of a case.
#[derive(Clone, Debug)]
pub struct RequestedSeries {
    /// Whether to compute the fluxes that efficiency follows from.
    pub efficiency: bool,
    /// How to compute uptake by distance; `None` to leave it out.
    pub uptake: Option<UptakeOptions>,
}

/// How to measure the distances of the uptake.
#[derive(Clone, Debug)]
pub struct UptakeOptions {
    /// Center of the polygon, from which distances are measured.
    pub center: LatLon,
    /// T points of the grid file; `None` for the T points of the input files.
    pub grid: Option<Arc<Grid>>,
    /// Recipe of the store.
    pub recipe: StoreRecipe,
}

/// Time series of a case, one item for each of the 180 months.
#[derive(Clone, Debug, Default)]
pub struct CaseSeries {
    /// Carbon fluxes; `None` for a month without a file, or when they were not requested.
    pub exchanges: Vec<Option<CarbonFlux>>,
    /// Uptake by distance; `None` for a month without a file, or when it was not requested.
    pub uptakes: Vec<Option<Uptake>>,
    /// Number of bytes read.
    pub fetched: u64,
    /// Number of points of the model grid, `[nlat, nlon]`; `None` when no file was read.
    pub grid_shape: Option<[usize; 2]>,
}

/// Fields that all months of a case have in common, from its first file.
struct CaseInputs {
    shape: GridShape,
    /// `TAREA`, cm^2.
    area: Vec<f64>,
    /// `KMT`; empty when efficiency is not requested.
    kmt: Vec<f64>,
    bins: Option<DistanceBins>,
    efficiency: bool,
    common: Arc<CommonFields>,
}

/// Results of one month.
struct MonthValues {
    exchange: Option<CarbonFlux>,
    uptake: Option<Uptake>,
    fetched: u64,
}

/// Reads the months of a case and computes the requested series.
///
/// # Errors
/// A file cannot be read, has an infinite value, no value or another grid, or the run is stopped.
pub async fn read(
    context: &RunContext,
    files: &CaseFiles,
    requested: &RequestedSeries,
) -> Result<CaseSeries, VisError> {
    let mut series = CaseSeries {
        exchanges: vec![None; MONTHS],
        uptakes: vec![None; MONTHS],
        ..CaseSeries::default()
    };
    let (Some(first), Some(last)) = (files.iter().next(), files.iter().last()) else {
        return Ok(series);
    };
    let case = files.case;
    let _in_progress = FilesInProgress::begin(&*context.progress, files.len(), files.size());
    let read_shared = async |(_, month, info): (usize, YearMonth, &ObjectMeta)| {
        let (source, requested) = (files.source(info, context), requested.clone());
        let common = files.common.clone();
        let permit = context.pool.acquire(MEMORY).await?;
        let work = move || -> Result<_, VisError> {
            let file = MonthFile::open(source, (case, month))?;
            let shared = CaseInputs::new(&file, &requested, common)?;
            Ok((shared, file.file.fetched()))
        };
        Pool::run(&permit, work).await?
    };
    let (shared, fetched) = read_shared(first).await?;
    series.fetched += fetched;
    // All months are computed with the grid of the first file, so another file must have the same one.
    series.fetched += read_shared(last).await?.1;
    series.grid_shape = Some(shared.shape.into());
    let memory = MEMORY.max(BYTES_OF_POINT * shared.area.len() as u64);
    let shared = Arc::new(shared);
    let read = async |(n, month, info): (usize, YearMonth, ObjectMeta)| {
        if context.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        let shared = shared.clone();
        let work = move |source| shared.compute_month(&MonthFile::open(source, (case, month))?);
        let month = files.read(&info, context, memory, work).await??;
        context.progress.advance(info.size);
        context.progress.file_done();
        Ok::<_, VisError>((n, month))
    };
    // In the reading order of store 2, which may read the same files at the same time.
    let in_order = reading_order().filter_map(|n| Some((n, files.month(n)?)));
    let all: Vec<_> = in_order.map(|(n, (month, info))| (n, month, info.clone())).collect();
    let concurrency = CONCURRENCY.max(context.pool.workers() + 1);
    let months: Vec<(usize, MonthValues)> =
        stream::iter(all).map(read).buffer_unordered(concurrency).try_collect().await?;
    for (n, month) in months {
        series.fetched += month.fetched;
        series.exchanges[n] = month.exchange;
        series.uptakes[n] = month.uptake;
    }
    Ok(series)
}

impl CaseInputs {
    fn new(
        file: &MonthFile,
        requested: &RequestedSeries,
        common: Arc<CommonFields>,
    ) -> Result<Self, VisError> {
        let points = |name: &'static str| -> Result<_, VisError> {
            file.file.check_value_count(name, MOST_POINTS)?;
            let values = file.file.values(name)?;
            common.check_grid_values(name, &values, file.file.url())?;
            Ok(values)
        };
        let area = points("TAREA")?;
        let shape = file.shape("TAREA").unwrap_or_default();
        let kmt = if requested.efficiency { points("KMT")? } else { Vec::new() };
        let bins = match &requested.uptake {
            None => None,
            Some(UptakeOptions { center, grid, recipe }) => {
                let file_grid = match grid {
                    Some(_) => None,
                    None => {
                        let grid = file.grid("TLAT", "TLONG")?;
                        let url = file.file.url();
                        common.check_grid_values("TLAT", &grid.tlat, url)?;
                        common.check_grid_values("TLONG", &grid.tlong, url)?;
                        Some(grid)
                    }
                };
                let grid = grid.as_deref().or(file_grid.as_ref());
                let Some(grid) = grid else { return Err(Stopped.into()) };
                file.fits(shape, (grid.nlat, grid.nlon), "the grid file")?;
                file.check_points(grid, "the grid file")?;
                Some(DistanceBins::new(grid, *center, recipe.reference_compat))
            }
        };
        Ok(Self { shape, area, kmt, bins, efficiency: requested.efficiency, common })
    }

    fn compute_month(&self, file: &MonthFile) -> Result<MonthValues, VisError> {
        let url = file.file.url();
        let field = |name: &'static str| {
            let values = file.field(name, self.shape, "TAREA of the first month")?.into_doubles();
            match values.iter().any(|value| value.is_infinite()) {
                true => Err(file.infinite(name)),
                false => Ok(values),
            }
        };
        let (experiment, control) = (field("FG_CO2")?, field("FG_ALT_CO2")?);
        let positions =
            |values: &[f64]| Fingerprint::of_positions(values.iter().map(|v| v.is_nan()));
        let [own, other] = [positions(&experiment), positions(&control)];
        self.common.check_field("FG_CO2", own, url)?;
        self.common.check_field("FG_ALT_CO2", other, url)?;
        check_pair(("FG_CO2", "FG_ALT_CO2"), [own, other], url)?;
        if experiment.iter().zip(&self.area).any(|(flux, area)| !flux.is_nan() && area.is_nan()) {
            let problem = "has no value in TAREA at points with a value in FG_CO2".to_owned();
            return Err(VisError::Mismatch { url: url.to_owned(), problem });
        }
        let exchange = match self.efficiency {
            false => None,
            true => {
                let fluxes = Fluxes {
                    experiment: &experiment,
                    control: &control,
                    intervention: &field("DIC_FLUX")?,
                    area: &self.area,
                    kmt: &self.kmt,
                };
                Some(integrate_fluxes(&fluxes, file.days))
            }
        };
        let by_distance = |bins| uptake(bins, &experiment, &control, &self.area, file.days);
        let uptake = self.bins.as_ref().map(by_distance);
        Ok(MonthValues { exchange, uptake, fetched: file.file.fetched() })
    }
}

/// Options of filling a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct FillOptions {
    /// Whether to fill a case that already has a result.
    pub force: bool,
    /// Whether to fill a case of which input months are missing.
    pub allow_missing: bool,
    /// Whether to write nothing, and only find out whether the case would be filled.
    pub dry_run: bool,
}

/// The work that filling a case took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FillReport {
    /// Number of bytes read.
    pub fetched: u64,
    /// Size of the input files, bytes.
    pub size: u64,
    /// Number of objects of the result.
    pub objects: usize,
    /// Size of the objects, bytes; 0 for stores 1 and 3, whose result is in the case record.
    pub written: u64,
    /// Months without an input file.
    pub missing: Vec<YearMonth>,
    /// Whether the store already had this result.
    pub done_before: bool,
    /// Whether a dry run found that the case would be filled.
    pub planned: bool,
}

impl FillReport {
    /// The report of a case whose result the store already has.
    pub fn done_before() -> Self {
        Self { done_before: true, ..Self::default() }
    }

    /// The report of a dry run for a case that would be filled from these files.
    pub fn planned(files: &CaseFiles) -> Self {
        Self {
            size: files.size(),
            missing: files.missing.clone(),
            planned: true,
            ..Self::default()
        }
    }
}

/// The place of a case in store 1 or 3, with the state that the store had when it was opened.
pub struct CaseSlot<'a> {
    destination: &'a OpenStore,
    record: CaseRecord,
    case: Case,
    /// Record of an earlier result that may have been made from other files.
    earlier: Option<CaseRecord>,
    /// An input file that is older than that of the earlier result.
    older: Option<SettingDifference>,
    /// Write condition that holds as long as no other process has written the record of the case.
    unchanged: PutMode,
    /// Whether to replace a result of other settings.
    force: bool,
    /// Whether the store already has the result of these inputs and settings.
    pub done: bool,
}

impl<'a> CaseSlot<'a> {
    /// Compares the record of a case in the store with the result that `inputs` and `settings` would
    /// have.
    ///
    /// # Errors
    /// [`crate::research::PlanError::Settings`] when the store has a result of other settings;
    /// [`crate::research::PlanError::WouldLose`] when it has months that are missing now.
    /// [`FillOptions::force`] skips both checks.
    pub async fn open(
        destination: &'a OpenStore,
        case: Case,
        inputs: CurrentInputs,
        missing: &[YearMonth],
        settings: ResultSettings,
        options: FillOptions,
    ) -> Result<Self, VisError> {
        let store = &destination.store;
        let (mut earlier, unchanged) = match options.force {
            true => (None, PutMode::Always),
            false => CaseRecord::load_version(store, case).await?,
        };
        if let Some(earlier) = &earlier {
            earlier.check_months_kept(case, missing)?;
        }
        let missing = missing.iter().map(YearMonth::to_string).collect();
        let (kind, recipe) = (destination.kind.name(), destination.recipe.clone());
        let (inputs_now, part_size) = (inputs.records(), store.multipart_size());
        let record = CaseRecord::new(kind, case, recipe, settings, missing, inputs_now, part_size);
        let (mut done, mut older) = (false, None);
        if let Some(recorded) = &earlier {
            let url = CaseRecord::url(store, case);
            match compare(case, recorded, &record, &inputs, url).await? {
                Comparison::Same => done = true,
                Comparison::Touched(renewed) => {
                    if !options.dry_run {
                        renew(store, case, &renewed).await;
                    }
                    done = true;
                }
                Comparison::Other { older: found } => older = found,
            }
        }
        if earlier.is_none() && !options.force {
            refuse_unlike_others(store, case, &record.settings).await?;
        }
        let earlier = earlier.take_if(|_| !done);
        let force = options.force;
        Ok(Self { destination, record, case, earlier, older, unchanged, force, done })
    }

    /// Writes the record with the values of a case, by month and column, and the number of points of the model
    /// grid. Returns whether the earlier record has the same values.
    ///
    /// # Errors
    /// [`crate::research::PlanError::Settings`] when the store has a result of this or another case on another
    /// model grid; [`crate::research::PlanError::Taken`] when another process has written the case with other settings
    /// since this slot was opened.
    pub async fn save(
        mut self,
        values: Vec<Vec<Option<f32>>>,
        grid_shape: Option<[usize; 2]>,
    ) -> Result<bool, VisError> {
        self.record.settings.grid_shape = grid_shape;
        if !self.force {
            self.refuse_other_grid().await?;
        }
        let before = self.earlier.is_some_and(|earlier| earlier.values == values);
        if let Some(difference) = self.older.filter(|_| !before) {
            let url = CaseRecord::url(&self.destination.store, self.case);
            return Err(PlanError::of_setting(self.case, url, difference).into());
        }
        self.destination.write_recipe().await?;
        self.record.values = values;
        let (store, case) = (&self.destination.store, self.case);
        if !self.record.save_on(store, case, self.unchanged).await? {
            refuse_taken(store, case, &self.record).await?;
            self.record.save(store, case).await?;
        }
        Ok(before)
    }

    /// Compares the model grid with that of the earlier result of this case, or of the other cases of the store.
    async fn refuse_other_grid(&self) -> Result<(), VisError> {
        let (store, case, settings) = (&self.destination.store, self.case, &self.record.settings);
        let Some(earlier) = &self.earlier else {
            return refuse_unlike_others(store, case, settings).await;
        };
        let shapes = earlier.settings.grid_shape.zip(settings.grid_shape);
        match shapes.and_then(|(was, is)| SettingDifference::of_shape(was, is)) {
            None => Ok(()),
            Some(difference) => {
                let url = CaseRecord::url(store, case);
                Err(PlanError::of_setting(case, url, difference).into())
            }
        }
    }
}
