//! Store 3, `cumulative_FG_CO2_percent.zarr`: additional CO2 uptake by distance from the intervention.

use std::sync::Arc;

use super::create::OpenStore;
use super::input::{CaseFiles, inputs_from_zarr_store};
use super::record::ResultSettings;
use super::series::{CaseSeries, CaseSlot, FillOptions, FillReport, UptakeOptions};
use super::{RunContext, VisError, excess};
use crate::derive::uptake::{NoUptake, RADII, Uptake, percent};
use crate::model::calendar::MONTH_LENGTHS;
use crate::model::case::MONTHS;
use crate::model::{Case, Grid, LatLon};
use crate::read::centers::Centers;
use crate::store::Store;

/// The store, with the inputs of its results other than monthly files.
pub struct UptakeContext {
    /// The store that is filled.
    pub destination: OpenStore,
    /// Centers of the polygons, and the URL of their file.
    pub centers: (Centers, String),
    /// T points of the grid file with the SHA-256 of the file; `None` for those of the input files.
    pub grid: Option<(Arc<Grid>, String)>,
}

impl UptakeContext {
    /// The center of the polygon of a case.
    ///
    /// # Errors
    /// [`VisError::NoCenter`] when the file has no center of the polygon.
    pub fn center(&self, case: Case) -> Result<LatLon, VisError> {
        let (centers, url) = &self.centers;
        center(centers, url, case)
    }

    /// Options for computing uptake around a center.
    pub fn uptake_options(&self, center: LatLon) -> UptakeOptions {
        let grid = self.grid.as_ref().map(|(grid, _)| grid.clone());
        UptakeOptions { center, grid, recipe: self.destination.recipe.clone() }
    }

    /// Opens the slot of a case in the store.
    ///
    /// # Errors
    /// There is no center of the polygon; the store has a result of the case with other settings, or with
    /// months that are missing now.
    pub async fn open_slot(
        &self,
        files: &CaseFiles,
        options: FillOptions,
    ) -> Result<CaseSlot<'_>, VisError> {
        let (case, inputs) = (files.case, files.inputs());
        let grid_sha256 = self.grid.as_ref().map(|(_, sha256)| &**sha256);
        let settings = settings(self.center(case)?, grid_sha256);
        CaseSlot::open(&self.destination, case, inputs, &files.missing, settings, options).await
    }
}

/// The center of the polygon of a case. `url` is the file of the centers, for messages.
///
/// # Errors
/// [`VisError::NoCenter`] when there is no center of the polygon.
pub fn center(centers: &Centers, url: &str, case: Case) -> Result<LatLon, VisError> {
    let polygon = case.polygon();
    centers.of(polygon).ok_or_else(|| VisError::NoCenter { url: url.to_owned(), polygon })
}

/// Computes the cumulative uptake of each month within each radius, in percent of the uptake of all
/// cells and months. If any month is missing, every value is `None`.
///
/// With `reference_compat` every month has the length of the first one, as in the reference program.
///
/// # Errors
/// [`VisError::NoResult`] when the uptake of all months is 0 or not finite.
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
        why: "the sum of FG_CO2 minus FG_ALT_CO2 is 0 or not finite".to_owned(),
    })?;
    Ok(percent.into_iter().map(|row| row.map(Some).to_vec()).collect())
}

/// Fills a case from its excess store, unless the store has the result.
pub async fn fill_from_excess(
    destination: &OpenStore,
    excesses: &Store,
    case: Case,
    (grid, grid_sha256): &(Grid, String),
    center: LatLon,
    (options, context): (FillOptions, &RunContext),
) -> Result<FillReport, VisError> {
    let excess_store = excess::find(excesses, case).await?;
    let inputs = inputs_from_zarr_store(excesses, &excess_store.metadata).await?;
    let settings = settings(center, Some(grid_sha256));
    let slot = CaseSlot::open(destination, case, inputs, &[], settings, options).await?;
    if slot.done {
        return Ok(FillReport::done_before());
    }
    if options.dry_run {
        return Ok(FillReport { planned: true, ..FillReport::default() });
    }
    let recipe = &destination.recipe;
    let series = excess_store.series(excesses, case, (grid, center), recipe);
    let series = context.with_memory(excess::memory(grid), series).await?;
    let done_before = slot.save(values(case, &series, recipe.reference_compat)?, None).await?;
    Ok(FillReport { objects: 1, done_before, ..FillReport::default() })
}

/// The settings that a result depends on besides its input files.
pub fn settings(center: LatLon, grid_sha256: Option<&str>) -> ResultSettings {
    let grid_sha256 = grid_sha256.map(str::to_owned);
    ResultSettings { center: Some(center), grid_sha256, ..ResultSettings::default() }
}

/// Fills the slot of a case from the series of its monthly files.
pub async fn fill(
    slot: CaseSlot<'_>,
    files: &CaseFiles,
    series: &CaseSeries,
    reference_compat: bool,
) -> Result<FillReport, VisError> {
    let done_before =
        slot.save(values(files.case, series, reference_compat)?, series.grid_shape).await?;
    let (fetched, size) = (series.fetched, files.size());
    Ok(FillReport { fetched, size, objects: 1, done_before, ..FillReport::default() })
}
