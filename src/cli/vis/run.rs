//! Processing of the cases of a command, and output of the results.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::output::{bytes, count, duration, eprint_line};
use crate::cli::progress::ConversionBar;
use crate::cli::report::Report;
use crate::cli::signals::stop_on_signals;
use crate::cli::{Exit, report};
use crate::config::Config;
use crate::executor::{Pool, Stopped, memory};
use crate::model::Case;
use crate::model::calendar::describe_months;
use crate::model::case::MONTHS;
use crate::vis::cases::{CaseChoice, ChosenCases};
use crate::vis::populate::{self, RunEnd};
use crate::vis::series::FillReport;
use crate::vis::{RunContext, VisError};

/// Creates the workers, the memory budget, the progress and the stop signal of a command.
pub(crate) fn run_context(config: &Config) -> RunContext {
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone());
    let pool = Pool::new(config.workers.value.get(), memory::budget());
    RunContext { pool, stop, progress: Arc::new(ConversionBar::new()) }
}

/// Returns the chosen cases among the `available` ones, and prints how many chosen polygons have no files.
///
/// # Errors
/// No available case is chosen.
pub(super) fn chosen(
    choice: &CaseChoice,
    available: Vec<Case>,
    url: &str,
) -> Result<Vec<Case>, VisError> {
    let chosen = choice.select(available, url)?;
    print_polygons_without_files(&chosen, url);
    Ok(chosen.cases)
}

/// Prints how many of the chosen polygons have no files, unless it is 0.
pub(crate) fn print_polygons_without_files(
    ChosenCases { polygons, without, .. }: &ChosenCases,
    url: &str,
) {
    if *without > 0 {
        eprint_line(&format!("{without} of {polygons} polygons have no files in {url}"));
    }
}

/// Fills the values of each case, and prints the results. A case that fails does not stop the others.
///
/// # Errors
/// The results cannot be printed.
pub(crate) async fn each(
    cases: &[Case],
    context: &RunContext,
    out: &mut Report<'_>,
    fill: impl AsyncFn(Case) -> Result<FillReport, VisError>,
) -> anyhow::Result<Exit> {
    let mut failed = Vec::new();
    let report_case = |case, result, elapsed| {
        match result {
            Ok(filled) => {
                out.push("cases", document(case, &filled));
                write_filled(out, case, &filled, elapsed)?;
                out.flush()?;
            }
            Err(error) => {
                report(&error);
                failed.push((case, error));
            }
        }
        anyhow::Ok(())
    };
    if populate::each(cases, context, fill, report_case).await? == RunEnd::Stopped {
        eprint_line(&Stopped.to_string());
        return Ok(Exit::Interrupted);
    }
    if cases.len() > 1 {
        let done = cases.len() - failed.len();
        let verb = if out.is_dry() { "planned" } else { "done" };
        writeln!(out, "{} {verb}, {} failed", count(done, "case"), failed.len())?;
    }
    out.set("failed", json!([]));
    for (case, error) in &failed {
        out.push("failed", json!({ "case": case.short(), "error": error.to_string() }));
        writeln!(out, "failed: {}: {error}", case.short())?;
    }
    Ok(if failed.is_empty() { Exit::Done } else { Exit::SomeFailed })
}

/// Returns the result of a case as JSON.
fn document(case: Case, filled: &FillReport) -> Value {
    let missing: Vec<String> = filled.missing.iter().map(ToString::to_string).collect();
    json!({
        "case": case.short(),
        "done_before": filled.done_before,
        "objects": filled.objects,
        "bytes_written": filled.written,
        "bytes_read": filled.fetched,
        "bytes_of_files": filled.size,
        "months_missing": missing,
    })
}

/// Prints the result of a case.
fn write_filled(
    out: &mut dyn Write,
    case: Case,
    filled: &FillReport,
    elapsed: Duration,
) -> std::io::Result<()> {
    let case = case.short();
    if filled.done_before {
        return writeln!(out, "case {case}: done before");
    }
    if filled.planned {
        write!(out, "case {case}: to fill")?;
    } else {
        write!(out, "case {case}: {}", count(filled.objects, "object"))?;
        if filled.written > 0 {
            write!(out, ", {}", bytes(filled.written))?;
        }
        write!(out, " written in {}", duration(elapsed))?;
    }
    if filled.planned && filled.size > 0 {
        write!(out, " from files of {}", bytes(filled.size))?;
    } else if filled.size > 0 {
        let share = 100.0 * filled.fetched as f64 / filled.size as f64;
        let (read, all) = (bytes(filled.fetched), bytes(filled.size));
        write!(out, "; {read} read of files of {all} ({share:.1} %)")?;
    }
    if !filled.missing.is_empty() {
        let (count, months) = (filled.missing.len(), describe_months(&filled.missing));
        write!(out, "; {count} of {MONTHS} months missing: {months}")?;
    }
    writeln!(out)
}
