//! Store 1, `store1b.zarr`: efficiency of each case over time.

use super::analysis;
use super::create::OpenStore;
use super::input::{CaseFiles, made_before};
use super::record::ResultSettings;
use super::series::{CaseSeries, CaseSlot, FillReport};
use super::{RunContext, VisError};
use crate::derive::efficiency::{CarbonFlux, NoIntervention, efficiency};
use crate::model::Case;
use crate::model::case::MONTHS;
use crate::store::Store;

/// Efficiency month by month from the months of a case. From the first missing month on there is
/// none: it is a sum over all months before.
pub fn values(case: Case, series: &CaseSeries) -> Result<Vec<Vec<Option<f32>>>, VisError> {
    let present: Vec<CarbonFlux> = series.exchanges.iter().map_while(|month| *month).collect();
    let known = efficiency(&present).map_err(|NoIntervention { month }| no_result(case, month))?;
    let known = known.into_iter().map(|value| vec![Some(value)]);
    Ok(known.chain(std::iter::repeat(vec![None])).take(MONTHS).collect())
}

fn no_result(case: Case, month: usize) -> VisError {
    let why = format!("its DIC_FLUX adds up to 0, or to no number, at the end of month {month}");
    VisError::NoResult { case, what: "efficiency", why }
}

/// A case's part of the store.
pub async fn part<'a>(
    destination: &'a OpenStore,
    files: &CaseFiles,
    force: bool,
) -> Result<CaseSlot<'a>, VisError> {
    let (case, inputs) = (files.case, files.inputs());
    CaseSlot::open(destination, case, inputs, &files.missing, ResultSettings::default(), force)
        .await
}

/// Fills a case's part from months that were read, unless it is done.
pub async fn fill(
    part: CaseSlot<'_>,
    files: &CaseFiles,
    series: &CaseSeries,
) -> Result<FillReport, VisError> {
    let before = part.save(values(files.case, series)?).await?;
    let (fetched, size) = (series.fetched, files.size());
    Ok(FillReport { fetched, size, objects: 1, before, ..FillReport::default() })
}

/// Fills a case's part from an analysis store that was made before.
pub async fn fill_from_analysis(
    destination: &OpenStore,
    analyses: &Store,
    case: Case,
    force: bool,
    workshop: &RunContext,
) -> Result<FillReport, VisError> {
    let found = analysis::find(analyses, case).await?;
    let inputs = made_before(analyses, &found.metadata).await?;
    let part =
        CaseSlot::open(destination, case, inputs, &[], ResultSettings::default(), force).await?;
    if part.done {
        return Ok(FillReport { before: true, ..FillReport::default() });
    }
    let ratios = workshop.within(analysis::memory(), found.efficiency(analyses, case)).await?;
    let before = part.save(ratios.into_iter().map(|ratio| vec![Some(ratio)]).collect()).await?;
    Ok(FillReport { objects: 1, before, ..FillReport::default() })
}
