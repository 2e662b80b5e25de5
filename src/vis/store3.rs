//! Store 3, `cumulative_FG_CO2_percent.zarr`: how far from the intervention the sea takes up CO2.

use serde_json::json;

use super::VisError;
use super::input::CaseFiles;
use super::series::{Filled, Part, Series};
use super::template::Destination;
use crate::derive::uptake::{NoUptake, RADII, Uptake, percent};
use crate::model::calendar::MONTH_LENGTHS;
use crate::model::case::MONTHS;
use crate::model::{Case, Place};

/// Uptake month by month within each radius, in percent of that of all months: with a month
/// missing there is none.
///
/// The reference takes every month for as long as the first one.
pub fn values(
    case: Case,
    series: &Series,
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
        why: "FG_CO2 minus FG_ALT_CO2 adds up to 0".to_owned(),
    })?;
    Ok(percent.into_iter().map(|row| row.map(Some).to_vec()).collect())
}

/// A case's part of the store.
pub async fn part<'a>(
    destination: &'a Destination,
    files: &CaseFiles,
    center: Place,
    force: bool,
) -> Result<Part<'a>, VisError> {
    let settings = json!({"center": {"lat": center.lat, "lon": center.lon}});
    let (case, inputs) = (files.case, files.records());
    Part::open(destination, case, inputs, &files.missing, settings, force).await
}

/// Fills a case's part from months that were read, unless it is done.
pub async fn fill(
    part: Part<'_>,
    files: &CaseFiles,
    series: &Series,
    reference_compat: bool,
) -> Result<Filled, VisError> {
    part.save(values(files.case, series, reference_compat)?).await?;
    Ok(Filled { fetched: series.fetched, size: files.size(), objects: 1, ..Filled::default() })
}
