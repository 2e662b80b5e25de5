//! Conversion of many cases. Each case is planned, its inputs are checked, and its files are converted.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::PlanError;
use super::case_error::CaseError;
use super::execute::{ConversionContext, ConversionSummary, check_inputs, run};
use super::plan::{CasePlan, PlanOptions, Reason, plan};
use super::status::{CaseState, case_states};
use crate::case_manifest::enclosing_results;
use crate::executor::unless_stopped;
use crate::model::{Case, ErrorKind, WithErrorKind};

/// Cases that are converted at the same time. The second case keeps workers busy while the last files
/// of the first are in work.
const CONCURRENT_CASES: usize = 2;

/// Numbers of files to convert, by reason.
pub type Reasons = BTreeMap<Reason, usize>;

/// A conversion of cases under one set of options.
pub struct Conversion {
    context: ConversionContext,
    options: PlanOptions,
    dry_run: bool,
    /// Set when the output location is known to lie outside other results.
    is_separate: OnceCell<()>,
}

/// Result of one case.
pub enum CaseOutcome {
    /// The case was converted, or was complete before.
    Converted {
        /// Numbers of files and bytes.
        summary: ConversionSummary,
        /// Text about months without a raw file; `None` when there are none.
        missing: Option<String>,
    },
    /// The plan of a dry run.
    Planned(Box<CasePlan>),
}

/// The selected cases that have raw files.
pub struct AvailableCases {
    /// Cases to convert, and cases that are done.
    pub cases: Vec<Case>,
    /// Number of selected cases with raw files, without a limit.
    pub present: usize,
}

/// Totals of a conversion of many cases.
#[derive(Default)]
pub struct ConversionTotals {
    /// Number of cases that are done, or planned by a dry run.
    pub done: usize,
    /// Files and bytes of the cases in `done`.
    pub total: ConversionSummary,
    /// Files that a dry run would convert, by reason; empty otherwise.
    pub reasons: Reasons,
    /// Failed cases with their errors.
    pub failed: Vec<(Case, CaseError)>,
    /// Errors of cases that a stop interrupted.
    pub interrupted: Vec<CaseError>,
}

impl ConversionTotals {
    /// Whether every failure is one of the configuration.
    pub fn is_misconfigured(&self) -> bool {
        self.failed.iter().all(|(_, error)| error.kind() == ErrorKind::Config)
    }
}

impl CaseOutcome {
    /// Files and bytes that were converted, or that a dry run would convert.
    pub fn summary(&self) -> ConversionSummary {
        match self {
            Self::Converted { summary, .. } => *summary,
            Self::Planned(plan) => ConversionSummary {
                converted: plan.steps.len(),
                kept: plan.record.files.len(),
                bytes_in: plan.steps.iter().map(|step| step.input.size).sum(),
                ..ConversionSummary::default()
            },
        }
    }

    /// Files that a dry run would convert, by reason; empty otherwise.
    pub fn reasons(&self) -> Reasons {
        let mut reasons = Reasons::new();
        if let Self::Planned(plan) = self {
            plan.steps.iter().for_each(|step| *reasons.entry(step.reason).or_default() += 1);
        }
        reasons
    }
}

impl Conversion {
    /// Creates a conversion. A dry run plans and checks, but writes nothing.
    pub fn new(context: ConversionContext, options: PlanOptions, dry_run: bool) -> Self {
        Self { context, options, dry_run, is_separate: OnceCell::new() }
    }

    /// Stores, workers and the other values that all cases share.
    pub fn context(&self) -> &ConversionContext {
        &self.context
    }

    /// Whether this is a dry run, which writes nothing.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Converts a case. A dry run plans the case and checks its inputs instead.
    ///
    /// # Errors
    /// The case cannot be planned, files failed, or the run was stopped.
    pub async fn convert_case(&self, case: Case) -> Result<CaseOutcome, CaseError> {
        let ConversionContext { raw, out, stop, .. } = &self.context;
        let planning = plan(raw, out, case, &self.options);
        let plan = match unless_stopped(stop, planning).await? {
            Err(error @ PlanError::NoFiles { .. }) => {
                self.refuse_absent().await?;
                return Err(error.into());
            }
            plan => plan?,
        };
        if !plan.complete {
            // Checked here, so that a complete case takes no further request.
            self.is_separate.get_or_try_init(|| self.refuse_inside()).await?;
        }
        if self.dry_run {
            // So that a dry run reports every file that the conversion would refuse.
            check_inputs(&self.context, &plan).await?;
            return Ok(CaseOutcome::Planned(Box::new(plan)));
        }
        let missing = plan.missing();
        Ok(CaseOutcome::Converted { summary: run(&self.context, plan).await?, missing })
    }

    /// Finds the selected cases with raw files. Of cases to convert, only the first `limit` are returned.
    ///
    /// # Errors
    /// No selected case has raw files, or a store cannot be listed.
    pub async fn available_cases(
        &self,
        selected: &[Case],
        limit: usize,
    ) -> Result<AvailableCases, CaseError> {
        let ConversionContext { raw, out, .. } = &self.context;
        let surveys = case_states(raw, Some(out), selected).await?;
        let with_raw = surveys.iter().filter(|survey| survey.raw > 0);
        let present = with_raw.clone().count();
        if present == 0 {
            self.refuse_absent().await?;
            let archive = raw.location().to_string();
            return Err(PlanError::NoCases { archive }.into());
        }
        let mut left = limit;
        let cases = with_raw.filter(|survey| {
            let is_to_convert = survey.state != CaseState::Done || self.options.force;
            let is_within = !is_to_convert || left > 0;
            left -= usize::from(is_to_convert && is_within);
            is_within
        });
        Ok(AvailableCases { cases: cases.map(|survey| survey.case).collect(), present })
    }

    /// Converts cases and reports each result to `on_case`, in the order of `cases`. A failure ends the
    /// conversion, unless `keep_going` is set or the run is dry.
    ///
    /// # Errors
    /// Those of `on_case`.
    pub async fn convert_each<E>(
        &self,
        cases: &[Case],
        keep_going: bool,
        mut on_case: impl FnMut(Case, Result<&CaseOutcome, &CaseError>) -> Result<(), E>,
    ) -> Result<ConversionTotals, E> {
        let stop = &self.context.stop;
        let mut results = stream::iter(cases)
            .take_while(|_| std::future::ready(!stop.is_cancelled()))
            .map(async |&case| (case, self.convert_case(case).await))
            .buffered(CONCURRENT_CASES);
        let mut totals = ConversionTotals::default();
        while let Some((case, result)) = results.next().await {
            on_case(case, result.as_ref())?;
            match result {
                Ok(outcome) => {
                    totals.done += 1;
                    totals.total += outcome.summary();
                    for (reason, files) in outcome.reasons() {
                        *totals.reasons.entry(reason).or_default() += files;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    totals.interrupted.push(error);
                }
                Err(error) => {
                    totals.failed.push((case, error));
                    if !keep_going && !self.dry_run {
                        break;
                    }
                }
            }
        }
        Ok(totals)
    }

    /// Refuses an archive that does not exist.
    async fn refuse_absent(&self) -> Result<(), CaseError> {
        let ConversionContext { raw, .. } = &self.context;
        match raw.absence().await? {
            None => Ok(()),
            Some(reason) => Err(CaseError::NoArchive { url: raw.location().to_string(), reason }),
        }
    }

    /// Refuses an output location within other results.
    async fn refuse_inside(&self) -> Result<(), CaseError> {
        match enclosing_results(&self.context.out).await {
            None => Ok(()),
            Some(other) => Err(CaseError::Inside { other }),
        }
    }
}
