//! `dor vis check`: checks the metadata, coordinates and chunks of a store.

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::arguments::{WorkArgs, config};
use super::create::named_or_configured;
use super::finalize::write_open_cases;
use super::run::run_context;
use crate::cli::output::{Table, short_names};
use crate::cli::progress::ConversionBar;
use crate::cli::report::JsonArgs;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::executor::until;
use crate::model::case::describe_cases;
use crate::research::ConversionProgress;
use crate::store::Location;
use crate::vis::RunContext;
use crate::vis::check::{self, CheckReport};
use crate::vis::finalize::Completeness;

/// Most problems of one kind that are listed.
const MAX_LISTED: usize = 20;

/// Check the metadata, the coordinates and every chunk of a store
///
/// Ends with 65 when an object is wrong. Lists missing cases; they are an error only with --complete.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// Store to check: a path or URL [default: store1, store2 and store3 of the configuration that exist]
    store: Option<Location>,
    /// Require all 2760 cases
    #[arg(long)]
    complete: bool,
    #[command(flatten)]
    json: JsonArgs,
}

impl Check {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, Some(&WorkArgs::default()), None)?;
        let context = RunContext { progress: check_progress(), ..run_context(&config) };
        let stores = until(&context.stop, &stores(&config));
        let mut exit = Exit::Done;
        for (location, store) in named_or_configured(self.store.as_ref(), &config, &stores).await? {
            let report = check::check(&store, &context).await?;
            if !self.write(out, &location, &report)? {
                exit = Exit::BadData;
            }
        }
        Ok(exit)
    }

    /// Prints a report, and returns whether the store is valid.
    fn write(
        &self,
        out: &mut dyn Write,
        location: &Location,
        report: &CheckReport,
    ) -> anyhow::Result<bool> {
        let incomplete = !report.cases.missing.is_empty() || !report.cases.partial.is_empty();
        let is_valid = report.is_sound() && !(self.complete && incomplete);
        self.json.print(out, &document(report, is_valid), |out, _| {
            write_as_table(out, location, report)?;
            match self.complete && incomplete {
                true => writeln!(out, "not complete, but --complete requires all cases and months"),
                false => Ok(()),
            }
        })?;
        Ok(is_valid)
    }
}

/// Creates the progress of a check, which counts chunks.
pub(crate) fn check_progress() -> Arc<dyn ConversionProgress> {
    Arc::new(ConversionBar::of("chunks"))
}

/// Returns a report as JSON.
fn document(report: &CheckReport, is_valid: bool) -> Value {
    json!({
        "store": report.kind.name(),
        "sound": is_valid,
        "metadata": report.metadata,
        "coordinates": report.coordinates,
        "chunks": report.chunks,
        "records": report.records,
        "others": report.others,
        "has_records": report.has_records,
        "without_record": short_names(&report.uncovered),
        "cases": {
            "done": short_names(&report.cases.done),
            "missing": short_names(&report.cases.missing),
            "months_missing": short_names(&report.cases.partial),
            "unfinished": short_names(&report.cases.unfinished),
        },
    })
}

/// Prints a report as tables and lists.
pub(crate) fn write_as_table(
    out: &mut dyn Write,
    store: &Location,
    report: &CheckReport,
) -> std::io::Result<()> {
    writeln!(out, "{store}: {}\n", report.kind.name())?;
    write_parts(out, report)?;
    write_advice(out, report)?;
    write_cases(out, &report.cases)
}

/// Prints the numbers of checked and wrong objects of each part, and the problems.
fn write_parts(out: &mut dyn Write, report: &CheckReport) -> std::io::Result<()> {
    let parts = [
        ("metadata", &report.metadata),
        ("coordinates", &report.coordinates),
        ("chunks", &report.chunks),
        ("case manifests", &report.records),
        ("other objects", &report.others),
    ];
    let mut table = Table::new(["PART", "CHECKED", "WRONG"]);
    for (name, part) in parts {
        let [checked, wrong] = [part.objects, part.problems.len()].map(|n| n.to_string());
        table.row([name.to_owned(), checked, wrong]);
    }
    table.write(out)?;
    for (_, part) in parts {
        for problem in part.problems.iter().take(MAX_LISTED) {
            writeln!(out, "wrong: {problem}")?;
        }
        if part.problems.len() > MAX_LISTED {
            let more = part.problems.len() - MAX_LISTED;
            writeln!(out, "wrong: and {more} more; --json lists all")?;
        }
    }
    Ok(())
}

/// Prints how to correct values without records, and wrong chunks.
fn write_advice(out: &mut dyn Write, report: &CheckReport) -> std::io::Result<()> {
    if !report.has_records && !report.uncovered.is_empty() {
        writeln!(
            out,
            "the store has no case manifests (.cases), so the values of these cases cannot be checked: {}; \
             dor vis finalize --adopt writes them",
            describe_cases(&report.uncovered)
        )?;
    }
    if !report.metadata.problems.is_empty() {
        writeln!(out, "to repair metadata, run `dor vis finalize`")?;
    }
    if !report.chunks.problems.is_empty() {
        writeln!(out, "to repair chunks, populate their cases again with --force, then finalize")?;
    }
    Ok(())
}

/// Prints the number of cases in the store, and the missing cases and months.
fn write_cases(out: &mut dyn Write, cases: &Completeness) -> std::io::Result<()> {
    let Completeness { done, missing, partial, .. } = cases;
    writeln!(out, "\n{} of {} cases in the store", done.len(), done.len() + missing.len())?;
    if !partial.is_empty() {
        writeln!(out, "months missing: {}", describe_cases(partial))?;
    }
    write_open_cases(out, cases)
}
