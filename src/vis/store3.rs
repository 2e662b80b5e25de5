//! Store 3, `cumulative_FG_CO2_percent.zarr`: how far from the intervention the sea takes up CO2.

use std::sync::Arc;

use super::create::OpenStore;
use super::input::{CaseFiles, made_before};
use super::record::ResultSettings;
use super::series::{CaseSeries, CaseSlot, FillReport, UptakeOptions};
use super::{RunContext, VisError, excess};
use crate::derive::uptake::{NoUptake, RADII, Uptake, percent};
use crate::model::calendar::MONTH_LENGTHS;
use crate::model::case::MONTHS;
use crate::model::{Case, Grid, LatLon};
use crate::read::centers::Centers;
use crate::store::Store;

/// The store, and what its results depend on besides the files.
pub struct UptakeContext {
    /// The store.
    pub destination: OpenStore,
    /// Centres of the polygons, and where they are from.
    pub centers: (Centers, String),
    /// The full grid with the SHA-256 of its file, when there is one.
    pub grid: Option<(Arc<Grid>, String)>,
}

impl UptakeContext {
    /// The centre of a case's polygon.
    pub fn center(&self, case: Case) -> Result<LatLon, VisError> {
        let (centers, url) = &self.centers;
        center(centers, url, case)
    }

    /// How distance from a centre is measured.
    pub fn spread(&self, center: LatLon) -> UptakeOptions {
        let grid = self.grid.as_ref().map(|(grid, _)| grid.clone());
        UptakeOptions { center, grid, recipe: self.destination.recipe.clone() }
    }

    /// A case's part of the store.
    pub async fn part(&self, files: &CaseFiles, force: bool) -> Result<CaseSlot<'_>, VisError> {
        let (case, inputs) = (files.case, files.inputs());
        let grid_sha256 = self.grid.as_ref().map(|(_, sha256)| &**sha256);
        let settings = settings(self.center(case)?, grid_sha256);
        CaseSlot::open(&self.destination, case, inputs, &files.missing, settings, force).await
    }
}

/// The centre of a case's polygon, of centres from `url`.
pub fn center(centers: &Centers, url: &str, case: Case) -> Result<LatLon, VisError> {
    let polygon = case.polygon();
    centers.of(polygon).ok_or_else(|| VisError::NoCenter { url: url.to_owned(), polygon })
}

/// Uptake month by month within each radius, in percent of that of all months: with a month
/// missing there is none.
///
/// The reference takes every month for as long as the first one.
pub fn values(
    case: Case,
    series: &CaseSeries,
    reference_compat: bool,
) -> Result<Vec<Vec<Option<f32>>>, VisError> {
    let present: Option<Vec<Uptake>> = series.uptakes.iter().copied().collect();
    let Some(mut months) = present else {
        return Ok(vec![vec![None; RADII.len()]; MONTHS]);
    };
    if reference_compat {
        let first = usize::from(case.month().number()) - 1;
        for (n, month) in months.iter_mut().enumerate() {
            let length = |n: usize| f64::from(MONTH_LENGTHS[n % MONTH_LENGTHS.len()]);
            *month = month.times(length(first) / length(first + n));
        }
    }
    let percent = percent(&months).map_err(|NoUptake| VisError::NoResult {
        case,
        what: "share of uptake",
        why: "FG_CO2 minus FG_ALT_CO2 adds up to 0, or to no number".to_owned(),
    })?;
    Ok(percent.into_iter().map(|row| row.map(Some).to_vec()).collect())
}

/// Fills a case's part from an excess store that was made before.
pub async fn fill_from_excess(
    destination: &OpenStore,
    excesses: &Store,
    case: Case,
    (grid, grid_sha256): &(Grid, String),
    center: LatLon,
    (force, workshop): (bool, &RunContext),
) -> Result<FillReport, VisError> {
    let found = excess::find(excesses, case).await?;
    let inputs = made_before(excesses, &found.metadata).await?;
    let settings = settings(center, Some(grid_sha256));
    let part = CaseSlot::open(destination, case, inputs, &[], settings, force).await?;
    if part.done {
        return Ok(FillReport { before: true, ..FillReport::default() });
    }
    let recipe = &destination.recipe;
    let series = found.series(excesses, case, (grid, center), recipe);
    let series = workshop.within(excess::memory(grid), series).await?;
    let before = part.save(values(case, &series, recipe.reference_compat)?).await?;
    Ok(FillReport { objects: 1, before, ..FillReport::default() })
}

/// What the result depends on besides the files.
pub fn settings(center: LatLon, grid_sha256: Option<&str>) -> ResultSettings {
    let grid_sha256 = grid_sha256.map(str::to_owned);
    ResultSettings { center: Some(center), grid_sha256, ..ResultSettings::default() }
}

/// Fills a case's part from months that were read, unless it is done.
pub async fn fill(
    part: CaseSlot<'_>,
    files: &CaseFiles,
    series: &CaseSeries,
    reference_compat: bool,
) -> Result<FillReport, VisError> {
    let before = part.save(values(files.case, series, reference_compat)?).await?;
    let (fetched, size) = (series.fetched, files.size());
    Ok(FillReport { fetched, size, objects: 1, before, ..FillReport::default() })
}
