//! Store 1, `store1b.zarr`: efficiency of each case over time.

use super::analysis;
use super::create::OpenStore;
use super::input::{CaseFiles, inputs_from_zarr_store};
use super::record::ResultSettings;
use super::series::{CaseSeries, CaseSlot, FillOptions, FillReport};
use super::{RunContext, VisError};
use crate::derive::efficiency::{CarbonFlux, NoIntervention, efficiency};
use crate::model::Case;
use crate::model::case::MONTHS;
use crate::store::Store;

/// Computes the cumulative efficiency of each month, as rows of one value. The rows from the first
/// missing month on are `None`, because efficiency is a sum over all months before.
///
/// # Errors
/// [`VisError::NoResult`] when the ratio of a month is not finite.
pub fn values(case: Case, series: &CaseSeries) -> Result<Vec<Vec<Option<f32>>>, VisError> {
    let present: Vec<CarbonFlux> = series.exchanges.iter().map_while(|month| *month).collect();
    let known = efficiency(&present).map_err(|NoIntervention { month }| no_result(case, month))?;
    let known = known.into_iter().map(|value| vec![Some(value)]);
    Ok(known.chain(std::iter::repeat(vec![None])).take(MONTHS).collect())
}

fn no_result(case: Case, month: usize) -> VisError {
    let why = format!("its cumulative DIC_FLUX is 0 or not finite at the end of month {month}");
    VisError::NoResult { case, what: "efficiency", why }
}

/// Opens the slot of a case in the store.
///
/// # Errors
/// The store has a result of the case with other settings, or with months that are missing now.
pub async fn open_slot<'a>(
    destination: &'a OpenStore,
    files: &CaseFiles,
    options: FillOptions,
) -> Result<CaseSlot<'a>, VisError> {
    let (case, inputs) = (files.case, files.inputs());
    CaseSlot::open(destination, case, inputs, &files.missing, ResultSettings::default(), options)
        .await
}

/// Fills the slot of a case from the series of its monthly files.
pub async fn fill(
    slot: CaseSlot<'_>,
    files: &CaseFiles,
    series: &CaseSeries,
) -> Result<FillReport, VisError> {
    let done_before = slot.save(values(files.case, series)?, series.grid_shape).await?;
    let (fetched, size) = (series.fetched, files.size());
    Ok(FillReport { fetched, size, objects: 1, done_before, ..FillReport::default() })
}

/// Fills a case from its analysis store, unless the store has the result.
pub async fn fill_from_analysis(
    destination: &OpenStore,
    analyses: &Store,
    case: Case,
    options: FillOptions,
    context: &RunContext,
) -> Result<FillReport, VisError> {
    let analysis_store = analysis::find(analyses, case).await?;
    let inputs = inputs_from_zarr_store(analyses, &analysis_store.metadata).await?;
    let slot =
        CaseSlot::open(destination, case, inputs, &[], ResultSettings::default(), options).await?;
    if slot.done {
        return Ok(FillReport::done_before());
    }
    if options.dry_run {
        return Ok(FillReport { planned: true, ..FillReport::default() });
    }
    let efficiency = analysis_store.efficiency(analyses, case);
    let ratios = context.with_memory(analysis::memory(), efficiency).await?;
    let values = ratios.into_iter().map(|ratio| vec![Some(ratio)]).collect();
    let done_before = slot.save(values, None).await?;
    Ok(FillReport { objects: 1, done_before, ..FillReport::default() })
}
