//! Filling a store with cases, one after the other.

use std::time::{Duration, Instant};

use super::create::OpenStore;
use super::input::CaseSource;
use super::series::{self, FillReport, RequestedSeries};
use super::store2::MapContext;
use super::store3::UptakeContext;
use super::{RunContext, VisError, store1, store3};
use crate::model::{Case, ErrorKind, WithErrorKind};

/// Which files of a case are used, and whether one that is done is filled again.
#[derive(Clone, Copy, Debug, Default)]
pub struct FillOptions {
    /// Fill a case again that is done.
    pub force: bool,
    /// Use the months that are there when others are missing.
    pub allow_missing: bool,
}

/// Whether a run over cases came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Every case was tried.
    All,
    /// It was told to stop before.
    Stopped,
}

/// Fills the part of each case and tells `told` how that went and how long it took.
///
/// A case that fails does not stop the others, unless it is the only one or all would fail.
///
/// # Errors
/// That of the only case, or of the first that would end all; those of `told`.
pub async fn each<E: From<VisError>>(
    cases: &[Case],
    workshop: &RunContext,
    fill: impl AsyncFn(Case) -> Result<FillReport, VisError>,
    mut told: impl FnMut(Case, Result<FillReport, VisError>, Duration) -> Result<(), E>,
) -> Result<RunEnd, E> {
    for &case in cases {
        if workshop.stop.is_cancelled() {
            return Ok(RunEnd::Stopped);
        }
        let begun = Instant::now();
        let result = fill(case).await;
        workshop.progress.end(case);
        match result {
            Err(error)
                if cases.len() == 1
                    || matches!(error.kind(), ErrorKind::Config | ErrorKind::Interrupted) =>
            {
                return Err(error.into());
            }
            result => told(case, result, begun.elapsed())?,
        }
    }
    Ok(RunEnd::All)
}

/// Fills store 1 from the months of cases.
pub struct EfficiencyRun<'a> {
    /// Store 1, opened to be filled.
    pub store1: OpenStore,
    /// Where the months of a case are read from.
    pub input: CaseSource,
    /// Which months count, and whether a case that is done is filled again.
    pub work: FillOptions,
    /// Workers and progress.
    pub workshop: &'a RunContext,
}

impl EfficiencyRun<'_> {
    /// Fills a case's part, unless it is done.
    pub async fn fill(&self, case: Case) -> Result<FillReport, VisError> {
        let files = self.input.case(case, self.work.allow_missing).await?;
        let part = store1::part(&self.store1, &files, self.work.force).await?;
        if part.done {
            return Ok(FillReport { before: true, ..FillReport::default() });
        }
        self.workshop.progress.begin(case, files.len(), files.size());
        let wanted = RequestedSeries { efficiency: true, uptake: None };
        let series = series::read(self.workshop, &files, &wanted).await?;
        let missing = files.missing.clone();
        Ok(FillReport { missing, ..store1::fill(part, &files, &series).await? })
    }
}

impl MapContext<'_> {
    /// Fills a case's part of store 2 from its months.
    pub async fn fill_from(
        &self,
        input: &CaseSource,
        case: Case,
        work: FillOptions,
    ) -> Result<FillReport, VisError> {
        let files = input.case(case, work.allow_missing).await?;
        self.workshop.progress.begin(case, files.len(), files.size());
        let missing = files.missing.clone();
        Ok(FillReport { missing, ..self.fill(&files, work.force).await? })
    }
}

/// Fills store 3, and a store 1 in the same pass, from the months of cases.
pub struct UptakeRun<'a> {
    /// Store 3, with the centres and the grid that distances are taken from.
    pub store3: UptakeContext,
    /// The other store.
    pub store1: Option<OpenStore>,
    /// Where the months of a case are read from.
    pub input: CaseSource,
    /// Which months count, and whether a case that is done is filled again.
    pub work: FillOptions,
    /// Workers and progress.
    pub workshop: &'a RunContext,
}

impl UptakeRun<'_> {
    /// Fills a case's parts, unless they are done.
    pub async fn fill(&self, case: Case) -> Result<FillReport, VisError> {
        let (Self { store3, workshop, .. }, force) = (self, self.work.force);
        let center = store3.center(case)?;
        let files = self.input.case(case, self.work.allow_missing).await?;
        let part = store3.part(&files, force).await?;
        let other = match &self.store1 {
            Some(store1) => Some(store1::part(store1, &files, force).await?),
            None => None,
        };
        let other = other.filter(|part| !part.done);
        if part.done && other.is_none() {
            return Ok(FillReport { before: true, ..FillReport::default() });
        }
        let wanted =
            RequestedSeries { efficiency: other.is_some(), uptake: Some(store3.spread(center)) };
        workshop.progress.begin(case, files.len(), files.size());
        let series = series::read(workshop, &files, &wanted).await?;
        let compat = store3.destination.recipe.reference_compat;
        let mut filled = store3::fill(part, &files, &series, compat).await?;
        if let Some(part) = other {
            filled.objects += store1::fill(part, &files, &series).await?.objects;
        }
        filled.missing.clone_from(&files.missing);
        Ok(filled)
    }
}
