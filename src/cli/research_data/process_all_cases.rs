//! `dor research-data process-all-cases`: every case that has raw files.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;

use super::arguments::{ConversionArgs, ResearchArgs};
use super::run::{Run, write_reasons};
use crate::cli::arguments::{CaseArgs, from_one};
use crate::cli::output::{bytes, count, eprint_line};
use crate::cli::publish_to::{PublishTo, Publishing};
use crate::cli::{Exit, GlobalArgs, report};
use crate::executor::Stopped;
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::research::cases::{AvailableCases, CaseOutcome, ConversionTotals};
use crate::research::{CaseError, ConversionSummary, failures};

/// Convert every case that has raw files
///
/// Cases without any raw file are passed over. Ends with 1 when a case failed, 78 when all that failed
/// did for their settings, such as another grid file than the record has; the failed cases are
/// listed with the cause. A dry run looks at all cases.
#[derive(Args, Debug)]
pub(super) struct ProcessAllCases {
    #[command(flatten)]
    selection: CaseArgs,
    #[command(flatten)]
    places: ResearchArgs,
    #[command(flatten)]
    conversion: ConversionArgs,
    #[command(flatten)]
    publish_to: PublishTo,
    /// Stop after this many cases that were not done before
    #[arg(long, value_name = "N", value_parser = from_one)]
    max_cases: Option<NonZeroUsize>,
    /// Go on with the other cases when one fails
    #[arg(long)]
    keep_going: bool,
}

impl ProcessAllCases {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let run = Run::prepare(&self.places, &self.conversion, global).await?;
        let selected = self.selection.choice()?.of_catalogue();
        let most = self.max_cases.map_or(usize::MAX, NonZeroUsize::get);
        let present = run.conversion.present(&selected, most).await.map_err(|e| run.named(e))?;
        let publishing = run.publishing(&self.publish_to).await?;
        let told = |case: Case, result: Result<&CaseOutcome, &CaseError>| {
            write_case(&run, case, result, &publishing, out)
        };
        let tally = run.conversion.each(&present.cases, self.keep_going, told).await?;
        self.write_tally(&run, &present, selected.len(), &tally, out)?;
        let tried = tally.done + tally.failed.len();
        let is_stopped = run.conversion.environment().stop.is_cancelled();
        let exit = match tally.failed.is_empty() {
            _ if is_stopped && tried < present.cases.len() => {
                eprint_line(&Stopped.to_string());
                Exit::Interrupted
            }
            true => Exit::Done,
            false if tally.is_misconfigured() => Exit::Configuration,
            false => Exit::SomeFailed,
        };
        publishing.end(exit, out).await
    }

    /// Says how all cases went.
    fn write_tally(
        &self,
        run: &Run,
        AvailableCases { cases, present }: &AvailableCases,
        selected: usize,
        tally: &ConversionTotals,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let ConversionTotals { done, total, reasons, failed, interrupted } = tally;
        let not_tried = cases.len() - done - failed.len() - interrupted.len();
        let ConversionSummary { converted, kept, bytes_in, bytes_out, .. } = *total;
        let is_dry = run.conversion.is_dry();
        let (verb, files) = match is_dry {
            true => ("planned", format!("to convert ({}), {kept} done", bytes(bytes_in))),
            false => {
                let sizes = (bytes(bytes_in), bytes(bytes_out));
                ("done", format!("converted, {kept} kept, {} in, {} out", sizes.0, sizes.1))
            }
        };
        let (cases_done, n) = (count(*done, "case"), failed.len());
        write!(out, "{cases_done} {verb}, {n} failed, {not_tried} not tried")?;
        if !interrupted.is_empty() {
            write!(out, ", {} interrupted", interrupted.len())?;
        }
        if self.max_cases.is_some() {
            write!(out, ", {} left by --max-cases", present - cases.len())?;
        }
        if is_dry {
            let without = selected - present;
            write!(out, ", {without} of those selected without raw files")?;
        }
        writeln!(out, ": {} {files}", count(converted, "file"))?;
        write_reasons(out, reasons)?;
        for (case, error) in failed {
            let cause = match run.setting_at_fault(error) {
                Some(error) => failures::one_line(&error),
                None => failures::cause(error),
            };
            writeln!(out, "failed: {case}: {cause}")?;
        }
        for error in interrupted {
            writeln!(out, "interrupted: {error}")?;
        }
        Ok(())
    }
}

/// Says how a case went, and hands it on.
fn write_case(
    run: &Run,
    case: Case,
    result: Result<&CaseOutcome, &CaseError>,
    publishing: &Publishing,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    match result {
        Ok(done) => {
            run.write(out, case, done)?;
            if !run.conversion.is_dry() {
                publishing.add(case);
            }
        }
        Err(error) => {
            run.write_failures(error);
            match run.setting_at_fault(error) {
                _ if error.kind() == ErrorKind::Interrupted => {}
                Some(error) => report(&error),
                None => report(error),
            }
        }
    }
    Ok(out.flush()?)
}
