//! One pass over the months of a case for the stores that hold curves: only two-dimensional
//! fields are read.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::create::OpenStore;
use super::earlier::{Comparison, CurrentInputs, compare, refuse_taken, renew};
use super::input::CaseFiles;
use super::month::{GridShape, MonthFile};
use super::record::{CaseRecord, ResultSettings};
use super::schema::reading_order;
use super::{RunContext, StoreRecipe, VisError};
use crate::derive::efficiency::{CarbonFlux, Fluxes, exchange};
use crate::derive::uptake::{DistanceBins, Uptake, uptake};
use crate::executor::{Pool, Stopped};
use crate::model::case::MONTHS;
use crate::model::{Case, Grid, LatLon, YearMonth};
use crate::read::grid::MOST_POINTS;
use crate::store::{ObjectMeta, PutMode};

/// Memory for a month: five fields and the bytes they come from.
const MEMORY: u64 = 16 << 20;
/// Bytes of such a month for each point.
const BYTES_OF_POINT: u64 = 128;
/// Months that wait for a worker or are under way.
const QUEUE: usize = 16;

/// What is taken from the months.
#[derive(Clone, Debug)]
pub struct RequestedSeries {
    /// The exchange that efficiency follows from.
    pub efficiency: bool,
    /// Where uptake is measured from, and the grid of the T points if another than the files'.
    pub uptake: Option<UptakeOptions>,
}

/// How the uptake's distance is measured.
#[derive(Clone, Debug)]
pub struct UptakeOptions {
    /// Centre of the polygon.
    pub center: LatLon,
    /// The full grid, when there is a grid file.
    pub grid: Option<Arc<Grid>>,
    /// The rules.
    pub recipe: StoreRecipe,
}

/// What a case's months gave, and how much was read for it.
#[derive(Clone, Debug, Default)]
pub struct CaseSeries {
    /// Month by month, none for months without a file.
    pub exchanges: Vec<Option<CarbonFlux>>,
    /// The same of the uptake.
    pub uptakes: Vec<Option<Uptake>>,
    /// Bytes read.
    pub fetched: u64,
}

/// What all months of a case have in common.
struct CaseInputs {
    shape: GridShape,
    area: Vec<f64>,
    depth: Vec<f64>,
    rings: Option<DistanceBins>,
    efficiency: bool,
}

/// What a month gave.
struct MonthValues {
    exchange: Option<CarbonFlux>,
    uptake: Option<Uptake>,
    fetched: u64,
}

/// Reads the months of a case.
pub async fn read(
    workshop: &RunContext,
    files: &CaseFiles,
    wanted: &RequestedSeries,
) -> Result<CaseSeries, VisError> {
    let mut series =
        CaseSeries { exchanges: vec![None; MONTHS], uptakes: vec![None; MONTHS], fetched: 0 };
    let Some((_, month, info)) = files.iter().next() else { return Ok(series) };
    let case = files.case;
    let (shared, fetched) = {
        let (source, wanted) = (files.source(info, workshop), wanted.clone());
        let place = workshop.pool.place(MEMORY).await?;
        let work = move || -> Result<_, VisError> {
            let file = MonthFile::open(source, (case, month))?;
            let shared = CaseInputs::new(&file, &wanted)?;
            Ok((shared, file.file.fetched()))
        };
        Pool::run(&place, work).await??
    };
    series.fetched += fetched;
    let memory = MEMORY.max(BYTES_OF_POINT * shared.area.len() as u64);
    let shared = Arc::new(shared);
    let read = async |(n, month, info): (usize, YearMonth, ObjectMeta)| {
        if workshop.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        let shared = shared.clone();
        let work = move |source| shared.month(&MonthFile::open(source, (case, month))?);
        let month = files.read(&info, workshop, memory, work).await??;
        workshop.progress.advance(info.size);
        workshop.progress.file_done();
        Ok::<_, VisError>((n, month))
    };
    // In the order of store 2, which may read the same files at the same time.
    let in_order = reading_order().filter_map(|n| Some((n, files.month(n)?)));
    let all: Vec<_> = in_order.map(|(n, (month, info))| (n, month, info.clone())).collect();
    let queue = QUEUE.max(workshop.pool.workers() + 1);
    let months: Vec<(usize, MonthValues)> =
        stream::iter(all).map(read).buffer_unordered(queue).try_collect().await?;
    for (n, month) in months {
        series.fetched += month.fetched;
        series.exchanges[n] = month.exchange;
        series.uptakes[n] = month.uptake;
    }
    Ok(series)
}

impl CaseInputs {
    fn new(file: &MonthFile, wanted: &RequestedSeries) -> Result<Self, VisError> {
        let points = |name: &str| {
            file.file.at_most(name, MOST_POINTS)?;
            file.file.values(name)
        };
        let area = points("TAREA")?;
        let shape = file.shape("TAREA").unwrap_or_default();
        let depth = if wanted.efficiency { points("KMT")? } else { Vec::new() };
        let rings = match &wanted.uptake {
            None => None,
            Some(UptakeOptions { center, grid, recipe }) => {
                let own = match grid {
                    Some(_) => None,
                    None => Some(file.grid("TLAT", "TLONG")?),
                };
                let grid = grid.as_deref().or(own.as_ref());
                let Some(grid) = grid else { return Err(Stopped.into()) };
                file.fits(shape, (grid.nlat, grid.nlon), "the grid file")?;
                file.check_points(grid, "the grid file")?;
                Some(DistanceBins::new(grid, *center, recipe.reference_compat))
            }
        };
        Ok(Self { shape, area, depth, rings, efficiency: wanted.efficiency })
    }

    fn month(&self, file: &MonthFile) -> Result<MonthValues, VisError> {
        let field = |name: &str| {
            let values = file.field(name, self.shape, "TAREA of the first month")?.into_doubles();
            match values.iter().any(|value| value.is_infinite()) {
                true => Err(file.infinite(name)),
                false => Ok(values),
            }
        };
        let (with, without) = (field("FG_CO2")?, field("FG_ALT_CO2")?);
        for (name, values) in [("FG_CO2", &with), ("FG_ALT_CO2", &without)] {
            if values.iter().all(|value| value.is_nan()) {
                let problem = format!("has no value in {name}");
                return Err(VisError::Mismatch { url: file.file.url().to_owned(), problem });
            }
        }
        let exchange = match self.efficiency {
            false => None,
            true => {
                let fluxes = Fluxes {
                    with: &with,
                    without: &without,
                    intervention: &field("DIC_FLUX")?,
                    area: &self.area,
                    depth: &self.depth,
                };
                Some(exchange(&fluxes, file.days))
            }
        };
        let of_rings = |rings| uptake(rings, &with, &without, &self.area, file.days);
        let uptake = self.rings.as_ref().map(of_rings);
        Ok(MonthValues { exchange, uptake, fetched: file.file.fetched() })
    }
}

/// How a case's part of a store came to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FillReport {
    /// Bytes read.
    pub fetched: u64,
    /// Bytes of the files that were read from.
    pub size: u64,
    /// Objects written.
    pub objects: usize,
    /// Bytes written.
    pub written: u64,
    /// Months without a file.
    pub missing: Vec<YearMonth>,
    /// Whether it was done before, from the same files under the same rules.
    pub before: bool,
}

/// A case's part of a store of curves.
pub struct CaseSlot<'a> {
    destination: &'a OpenStore,
    record: CaseRecord,
    case: Case,
    /// What was made before of files that may be others.
    earlier: Option<CaseRecord>,
    /// Holds while no other process has written the case since it was looked for.
    unchanged: PutMode,
    /// Whether the part is there already, from the same files under the same rules.
    pub done: bool,
}

impl<'a> CaseSlot<'a> {
    /// For a case from `inputs`, with settings that the result depends on.
    ///
    /// # Errors
    /// [`crate::research::PlanError::Settings`] when it was made with other settings, unless it is to be made by `force`.
    pub async fn open(
        destination: &'a OpenStore,
        case: Case,
        inputs: CurrentInputs,
        missing: &[YearMonth],
        settings: ResultSettings,
        force: bool,
    ) -> Result<Self, VisError> {
        let store = &destination.store;
        let (mut earlier, unchanged) = match force {
            true => (None, PutMode::Always),
            false => CaseRecord::load_version(store, case).await?,
        };
        if let Some(earlier) = &earlier {
            earlier.keep(case, missing)?;
        }
        let missing = missing.iter().map(YearMonth::to_string).collect();
        let (kind, recipe) = (destination.kind.name(), destination.recipe.clone());
        let (inputs_now, part_size) = (inputs.records(), store.multipart_size());
        let record = CaseRecord::new(kind, case, recipe, settings, missing, inputs_now, part_size);
        let mut done = false;
        if let Some(before) = &earlier {
            let url = CaseRecord::url(store, case);
            match compare(case, before, &record, &inputs, url).await? {
                Comparison::Same => done = true,
                Comparison::Touched(renewed) => {
                    renew(store, case, &renewed).await;
                    done = true;
                }
                Comparison::Other => {}
            }
        }
        let earlier = earlier.take_if(|_| !done);
        Ok(Self { destination, record, case, earlier, unchanged, done })
    }

    /// Stores the numbers of the case; whether they are those that were there. Of processes that do so
    /// at the same moment with other settings, the first one does.
    pub async fn save(mut self, values: Vec<Vec<Option<f32>>>) -> Result<bool, VisError> {
        self.destination.claim().await?;
        let before = self.earlier.is_some_and(|earlier| earlier.values == values);
        self.record.values = values;
        let (store, case) = (&self.destination.store, self.case);
        if !self.record.save_on(store, case, self.unchanged).await? {
            refuse_taken(store, case, &self.record).await?;
            self.record.save(store, case).await?;
        }
        Ok(before)
    }
}
