//! `dor research-data process-all-cases`: converts every case that has raw files.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use serde_json::json;

use super::arguments::{ConversionArgs, ResearchArgs};
use super::run::{Run, reasons_document, write_failures, write_reasons};
use crate::cli::arguments::{CaseArgs, from_one};
use crate::cli::output::{bytes, count, eprint_line};
use crate::cli::progress::ConversionBar;
use crate::cli::publish_to::PublishTo;
use crate::cli::report::Report;
use crate::cli::{Exit, GlobalArgs, report};
use crate::executor::Stopped;
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::research::cases::{AvailableCases, CaseOutcome, ConversionTotals};
use crate::research::{
    CaseError, ConversionProgress, ConversionSummary, FilesInProgress, failures,
};

/// Convert every case that has raw files
///
/// Skips cases without raw files, and lists failed cases with the cause. Ends with 1 when a case failed, and with 78
/// when every failure is in the settings, such as another grid file than the recorded one. A dry run plans all
/// cases; with --verbose, it lists the files.
#[derive(Args, Debug)]
pub(super) struct ProcessAllCases {
    #[command(flatten)]
    selection: CaseArgs,
    #[command(flatten)]
    locations: ResearchArgs,
    #[command(flatten)]
    conversion: ConversionArgs,
    #[command(flatten)]
    publish_to: PublishTo,
    /// Stop after N cases that were not done before
    #[arg(long, value_name = "N", value_parser = from_one)]
    max_cases: Option<NonZeroUsize>,
    /// Continue with the other cases when one fails
    #[arg(long)]
    keep_going: bool,
}

impl ProcessAllCases {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let run = Run::prepare(&self.locations, &self.conversion, global).await?;
        let selected = self.selection.choice()?.of_catalogue();
        let limit = self.max_cases.map_or(usize::MAX, NonZeroUsize::get);
        let available = run
            .conversion
            .available_cases(&selected, limit)
            .await
            .map_err(|e| run.with_setting(e))?;
        let publishing = run.publishing(&self.publish_to).await?;
        let mut report = self.conversion.report.report(out);
        let out = &mut report;
        let totals = if run.conversion.is_dry() {
            self.plan_cases(&run, &available, selected.len(), out).await?
        } else {
            let report_case = |case: Case, result: Result<&CaseOutcome, &CaseError>| {
                write_case(&run, case, result, out)?;
                if result.is_ok() {
                    publishing.add(case);
                }
                Ok::<_, anyhow::Error>(out.flush()?)
            };
            let totals =
                run.conversion.convert_each(&available.cases, self.keep_going, report_case).await?;
            self.write_totals(&run, &available, selected.len(), &totals, out)?;
            totals
        };
        let tried = totals.done + totals.failed.len();
        let is_stopped = run.conversion.context().stop.is_cancelled();
        let exit = match totals.failed.is_empty() {
            _ if is_stopped && tried < available.cases.len() => {
                eprint_line(&Stopped.to_string());
                Exit::Interrupted
            }
            true => Exit::Done,
            false if totals.is_misconfigured() => Exit::Configuration,
            false => Exit::SomeFailed,
        };
        let exit = publishing.end(exit, &mut report).await?;
        report.end()?;
        Ok(exit)
    }

    /// Plans the cases of a dry run. Prints the totals first, then the cases.
    async fn plan_cases(
        &self,
        run: &Run,
        available: &AvailableCases,
        selected: usize,
        out: &mut Report<'_>,
    ) -> anyhow::Result<ConversionTotals> {
        let progress = ConversionBar::of("cases");
        let in_progress = FilesInProgress::begin(&progress, available.cases.len(), 0);
        let mut list = Vec::new();
        let mut cases = out.redirect(&mut list);
        let report_case = |case: Case, result: Result<&CaseOutcome, &CaseError>| {
            progress.file_done();
            write_case(run, case, result, &mut cases)
        };
        let totals =
            run.conversion.convert_each(&available.cases, self.keep_going, report_case).await?;
        drop(in_progress);
        out.restore(cases);
        self.write_totals(run, available, selected, &totals, out)?;
        out.write_all(&list)?;
        Ok(totals)
    }

    /// Prints the numbers of cases and files, and the failed and interrupted cases. `selected`: number of chosen
    /// cases, with and without raw files.
    fn write_totals(
        &self,
        run: &Run,
        AvailableCases { cases, present }: &AvailableCases,
        selected: usize,
        totals: &ConversionTotals,
        out: &mut Report<'_>,
    ) -> std::io::Result<()> {
        let ConversionTotals { done, total, reasons, failed, interrupted } = totals;
        let not_tried = cases.len() - done - failed.len() - interrupted.len();
        let ConversionSummary { converted, kept, bytes_in, bytes_out, .. } = *total;
        let is_dry = run.conversion.is_dry();
        out.set("not_tried", json!(not_tried));
        out.set("without_raw_files", json!(selected - present));
        out.set("reasons", reasons_document(reasons));
        let (verb, files) = match is_dry {
            true => ("planned", format!("to convert ({}), {kept} done", bytes(bytes_in))),
            false => {
                let (read, written) = (bytes(bytes_in), bytes(bytes_out));
                ("done", format!("converted, {kept} kept, {read} in, {written} out"))
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
            write!(out, ", {} selected without raw files", selected - present)?;
        }
        writeln!(out, ": {} {files}", count(converted, "file"))?;
        write_reasons(out, reasons)?;
        write_failed(run, totals, out)
    }
}

/// Lists the failed and the interrupted cases.
fn write_failed(
    run: &Run,
    ConversionTotals { failed, interrupted, .. }: &ConversionTotals,
    out: &mut Report<'_>,
) -> std::io::Result<()> {
    out.set("failed", json!([]));
    for (case, error) in failed {
        let cause = match run.invalid_setting(error) {
            Some(error) => failures::one_line(&error),
            None => failures::cause(error),
        };
        writeln!(out, "failed: {}: {cause}", case.short())?;
        out.push("failed", json!({ "case": case.short(), "error": cause }));
    }
    for error in interrupted {
        writeln!(out, "interrupted: {error}")?;
        out.push("interrupted", json!(error.to_string()));
    }
    Ok(())
}

/// Prints the result of a case.
fn write_case(
    run: &Run,
    case: Case,
    result: Result<&CaseOutcome, &CaseError>,
    out: &mut Report<'_>,
) -> anyhow::Result<()> {
    match result {
        Ok(done) => run.write(out, case, done)?,
        Err(error) => {
            write_failures(error);
            match run.invalid_setting(error) {
                _ if error.kind() == ErrorKind::Interrupted => {}
                Some(error) => report(&error),
                None => report(error),
            }
        }
    }
    Ok(())
}
