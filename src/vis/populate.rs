//! Runs that fill stores with cases, one case after the other.

use std::time::{Duration, Instant};

use super::create::OpenStore;
use super::input::CaseSource;
pub use super::series::FillOptions;
use super::series::{self, FillReport, RequestedSeries};
use super::store2::MapContext;
use super::store3::UptakeContext;
use super::{RunContext, VisError, store1, store3};
use crate::model::{Case, ErrorKind, WithErrorKind};

/// How a run over cases ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Every case was tried.
    All,
    /// The run was interrupted before its last case.
    Stopped,
}

/// Fills each case with `fill`, and calls `report` with the result and the time that the case took.
///
/// A case that fails does not end the run, unless it is the only case or the error is one of
/// configuration, which every other case would have as well.
///
/// # Errors
/// The error of the only case, an error of configuration, an interruption, or an error of `report`.
pub async fn each<E: From<VisError>>(
    cases: &[Case],
    context: &RunContext,
    fill: impl AsyncFn(Case) -> Result<FillReport, VisError>,
    mut report: impl FnMut(Case, Result<FillReport, VisError>, Duration) -> Result<(), E>,
) -> Result<RunEnd, E> {
    for &case in cases {
        if context.stop.is_cancelled() {
            return Ok(RunEnd::Stopped);
        }
        let started = Instant::now();
        let result = fill(case).await;
        match result {
            Err(error)
                if cases.len() == 1
                    || matches!(error.kind(), ErrorKind::Config | ErrorKind::Interrupted) =>
            {
                return Err(error.into());
            }
            result => report(case, result, started.elapsed())?,
        }
    }
    Ok(RunEnd::All)
}

/// A run that fills store 1 from the monthly files of cases.
pub struct EfficiencyRun<'a> {
    /// Store 1, opened with its recipe.
    pub store1: OpenStore,
    /// Location of the monthly files.
    pub input: CaseSource,
    /// Options for each case.
    pub options: FillOptions,
    /// Workers, memory, cancellation and progress.
    pub context: &'a RunContext,
}

impl EfficiencyRun<'_> {
    /// Fills a case, unless the store has its result.
    pub async fn fill(&self, case: Case) -> Result<FillReport, VisError> {
        let files = self.input.case(case, self.options.allow_missing).await?;
        let slot = store1::open_slot(&self.store1, &files, self.options).await?;
        if slot.done {
            return Ok(FillReport::done_before());
        }
        if self.options.dry_run {
            return Ok(FillReport::planned(&files));
        }
        let requested = RequestedSeries { efficiency: true, uptake: None };
        let series = series::read(self.context, &files, &requested).await?;
        let missing = files.missing.clone();
        Ok(FillReport { missing, ..store1::fill(slot, &files, &series).await? })
    }
}

impl MapContext<'_> {
    /// Fills a case from its monthly files, and reports the months without a file.
    pub async fn fill_from(
        &self,
        input: &CaseSource,
        case: Case,
        options: FillOptions,
    ) -> Result<FillReport, VisError> {
        let files = input.case(case, options.allow_missing).await?;
        let missing = files.missing.clone();
        Ok(FillReport { missing, ..self.fill(&files, options).await? })
    }
}

/// A run that fills store 3, and optionally store 1, from the monthly files of cases.
pub struct UptakeRun<'a> {
    /// Store 3, with the polygon centers and the grid for distances.
    pub store3: UptakeContext,
    /// Store 1, to be filled from the same read of the files; `None` to leave it out.
    pub store1: Option<OpenStore>,
    /// Location of the monthly files.
    pub input: CaseSource,
    /// Options for each case.
    pub options: FillOptions,
    /// Workers, memory, cancellation and progress.
    pub context: &'a RunContext,
}

impl UptakeRun<'_> {
    /// Fills a case in each store that does not have its result.
    pub async fn fill(&self, case: Case) -> Result<FillReport, VisError> {
        let (store3, context, options) = (&self.store3, self.context, self.options);
        let center = store3.center(case)?;
        let files = self.input.case(case, options.allow_missing).await?;
        let slot3 = store3.open_slot(&files, options).await?;
        let slot1 = match &self.store1 {
            Some(store1) => Some(store1::open_slot(store1, &files, options).await?),
            None => None,
        };
        let slot1 = slot1.filter(|slot| !slot.done);
        if slot3.done && slot1.is_none() {
            return Ok(FillReport::done_before());
        }
        if options.dry_run {
            return Ok(FillReport::planned(&files));
        }
        let requested = RequestedSeries {
            efficiency: slot1.is_some(),
            uptake: Some(store3.uptake_options(center)),
        };
        let series = series::read(context, &files, &requested).await?;
        let compat = store3.destination.recipe.reference_compat;
        let mut filled = store3::fill(slot3, &files, &series, compat).await?;
        if let Some(slot) = slot1 {
            let store1 = store1::fill(slot, &files, &series).await?;
            filled.objects += store1.objects;
            filled.done_before &= store1.done_before;
        }
        filled.missing.clone_from(&files.missing);
        Ok(filled)
    }
}
