//! Converting cases: each is planned, looked at before anything is written, and carried out.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use tokio::sync::OnceCell;

use super::execute::{CaseError, ConversionContext, ConversionSummary, check_inputs, run};
use super::plan::{CasePlan, PlanOptions, Reason, plan};
use super::status::{CaseState, survey};
use super::{PlanError, places};
use crate::executor::unless_stopped;
use crate::model::{Case, ErrorKind, WithErrorKind};

/// Cases that are worked on at the same time: the next begins while the last files of one are
/// still under way.
const CASES: usize = 2;

/// Numbers of files by the reason why they are to be converted.
pub type Reasons = BTreeMap<Reason, usize>;

/// A conversion: what all its cases share.
pub struct Conversion {
    environment: ConversionContext,
    options: PlanOptions,
    dry_run: bool,
    /// Whether the output was found to lie among no other results.
    is_apart: OnceCell<()>,
}

/// What was done for a case, or would be.
pub enum CaseOutcome {
    /// It was converted.
    Converted {
        /// How that went.
        summary: ConversionSummary,
        /// Months without a raw file, in words.
        missing: Option<String>,
    },
    /// It would be, as planned.
    Planned(Box<CasePlan>),
}

/// Cases with raw files.
pub struct AvailableCases {
    /// Those to be converted, with those that are done.
    pub cases: Vec<Case>,
    /// How many there are.
    pub present: usize,
}

/// How the conversion of many cases went.
#[derive(Default)]
pub struct ConversionTotals {
    /// Cases that are done.
    pub done: usize,
    /// Their files.
    pub total: ConversionSummary,
    /// Files to convert by reason, when the run is dry.
    pub reasons: Reasons,
    /// Cases that failed.
    pub failed: Vec<(Case, CaseError)>,
    /// Cases that a stop cut short.
    pub interrupted: Vec<CaseError>,
}

impl ConversionTotals {
    /// Whether all that failed did for their settings.
    pub fn is_misconfigured(&self) -> bool {
        self.failed.iter().all(|(_, error)| error.kind() == ErrorKind::Config)
    }
}

impl CaseOutcome {
    /// Files and bytes that were converted, or would be.
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

    /// Files that would be converted, by reason.
    pub fn reasons(&self) -> Reasons {
        let mut reasons = Reasons::new();
        if let Self::Planned(plan) = self {
            plan.steps.iter().for_each(|step| *reasons.entry(step.reason).or_default() += 1);
        }
        reasons
    }
}

impl Conversion {
    /// Of cases in this environment; a dry run only plans.
    pub fn new(environment: ConversionContext, options: PlanOptions, dry_run: bool) -> Self {
        Self { environment, options, dry_run, is_apart: OnceCell::new() }
    }

    /// What all its cases share.
    pub fn environment(&self) -> &ConversionContext {
        &self.environment
    }

    /// Whether nothing is converted.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Converts a case; when the run is dry, finds out what would be done, and whether it could be.
    ///
    /// # Errors
    /// The case cannot be planned, files failed, or the run was stopped.
    pub async fn case(&self, case: Case) -> Result<CaseOutcome, CaseError> {
        let ConversionContext { raw, out, stop, .. } = &self.environment;
        let planning = plan(raw, out, case, &self.options);
        let plan = match unless_stopped(stop, planning).await? {
            Err(error @ PlanError::NoFiles { .. }) => {
                self.refuse_absent().await?;
                return Err(error.into());
            }
            plan => plan?,
        };
        if !plan.complete {
            // A case that is done costs no request more.
            self.is_apart.get_or_try_init(|| self.refuse_inside()).await?;
        }
        if self.dry_run {
            // Nobody should learn from the run that a file cannot be converted.
            check_inputs(&self.environment, &plan).await?;
            return Ok(CaseOutcome::Planned(Box::new(plan)));
        }
        let missing = plan.missing();
        Ok(CaseOutcome::Converted { summary: run(&self.environment, plan).await?, missing })
    }

    /// Those of the selected cases that have raw files; of those that are not done, at most `most`.
    ///
    /// # Errors
    /// There is none.
    pub async fn present(
        &self,
        selected: &[Case],
        most: usize,
    ) -> Result<AvailableCases, CaseError> {
        let ConversionContext { raw, out, .. } = &self.environment;
        let surveys = survey(raw, Some(out), selected).await?;
        let there = surveys.iter().filter(|survey| survey.raw > 0);
        let present = there.clone().count();
        if present == 0 {
            self.refuse_absent().await?;
            let archive = raw.location().to_string();
            return Err(PlanError::NoCases { archive }.into());
        }
        let mut left = most;
        let cases = there.filter(|survey| {
            let counts = survey.state != CaseState::Done || self.options.force;
            let fits = !counts || left > 0;
            left -= usize::from(counts && fits);
            fits
        });
        Ok(AvailableCases { cases: cases.map(|survey| survey.case).collect(), present })
    }

    /// Converts cases and tells `told` how each went, in their order. After one that failed the others are
    /// converted only when the run is dry or is to `keep_going`.
    ///
    /// # Errors
    /// Those of `told`.
    pub async fn each<E>(
        &self,
        cases: &[Case],
        keep_going: bool,
        mut told: impl FnMut(Case, Result<&CaseOutcome, &CaseError>) -> Result<(), E>,
    ) -> Result<ConversionTotals, E> {
        let stop = &self.environment.stop;
        let mut results = stream::iter(cases)
            .take_while(|_| std::future::ready(!stop.is_cancelled()))
            .map(async |&case| (case, self.case(case).await))
            .buffered(CASES);
        let mut tally = ConversionTotals::default();
        while let Some((case, result)) = results.next().await {
            told(case, result.as_ref())?;
            match result {
                Ok(done) => {
                    tally.done += 1;
                    tally.total += done.summary();
                    for (reason, files) in done.reasons() {
                        *tally.reasons.entry(reason).or_default() += files;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    tally.interrupted.push(error);
                }
                Err(error) => {
                    tally.failed.push((case, error));
                    if !keep_going && !self.dry_run {
                        break;
                    }
                }
            }
        }
        Ok(tally)
    }

    async fn refuse_absent(&self) -> Result<(), CaseError> {
        let ConversionContext { raw, .. } = &self.environment;
        match places::absence(raw).await? {
            None => Ok(()),
            Some(reason) => Err(CaseError::NoArchive { url: raw.location().to_string(), reason }),
        }
    }

    async fn refuse_inside(&self) -> Result<(), CaseError> {
        match places::results_around(&self.environment.out).await {
            None => Ok(()),
            Some(other) => Err(CaseError::Inside { other }),
        }
    }
}
