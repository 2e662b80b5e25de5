//! `dor vis check`: a store compared with what it should be.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::arguments::{WorkArgs, config};
use super::create::named_or_configured;
use super::run::workshop;
use crate::cli::output::{Table, write_json};
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::executor::until;
use crate::model::Case;
use crate::model::case::in_short;
use crate::store::Location;
use crate::vis::check::{self, CheckReport};
use crate::vis::finalize::Completeness;

/// Problems of one kind that are printed.
const SHOWN: usize = 20;

/// Verify a store: metadata, coordinates, every chunk of every case
///
/// Ends with 65 when something is wrong. Missing cases are listed, and are wrong only with
/// --complete.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// The store: a path or URL [default: store1, store2 and store3 of the configuration, where they exist]
    store: Option<Location>,
    /// Demand all 2760 cases
    #[arg(long)]
    complete: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, Some(&WorkArgs::default()), None)?;
        let workshop = workshop(&config);
        let stores = until(&workshop.stop, &stores(&config));
        let mut exit = Exit::Done;
        for (location, store) in named_or_configured(self.store.as_ref(), &config, &stores).await? {
            let report = check::check(&store, &workshop).await?;
            if !self.write(out, &location, &report)? {
                exit = Exit::BadData;
            }
        }
        Ok(exit)
    }

    /// Prints a report; whether the store is as it should be.
    fn write(
        &self,
        out: &mut dyn Write,
        location: &Location,
        report: &CheckReport,
    ) -> anyhow::Result<bool> {
        let incomplete = !report.cases.missing.is_empty() || !report.cases.partial.is_empty();
        let sound = report.is_sound() && !(self.complete && incomplete);
        match self.json {
            true => write_as_json(out, report, sound)?,
            false => {
                write_as_table(out, location, report)?;
                if self.complete && incomplete {
                    writeln!(out, "not complete, as --complete demands")?;
                }
            }
        }
        Ok(sound)
    }
}

fn write_as_json(out: &mut dyn Write, report: &CheckReport, sound: bool) -> anyhow::Result<()> {
    let short = |cases: &[Case]| cases.iter().map(|case| case.short()).collect::<Vec<_>>();
    write_json(
        out,
        &json!({
            "store": report.kind.name(),
            "sound": sound,
            "metadata": report.metadata,
            "coordinates": report.coordinates,
            "chunks": report.chunks,
            "records": report.records,
            "others": report.others,
            "has_records": report.has_records,
            "without_record": short(&report.uncovered),
            "cases": {
                "done": short(&report.cases.done),
                "missing": short(&report.cases.missing),
                "months_missing": short(&report.cases.partial),
            },
        }),
    )
}

/// Prints what was found in a table.
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

/// Prints how many objects of each part are wrong, and what is wrong with them.
fn write_parts(out: &mut dyn Write, report: &CheckReport) -> std::io::Result<()> {
    let parts = [
        ("metadata", &report.metadata),
        ("coordinates", &report.coordinates),
        ("chunks", &report.chunks),
        ("records of cases", &report.records),
        ("other objects", &report.others),
    ];
    let mut table = Table::new(["PART", "LOOKED AT", "WRONG"]);
    for (name, part) in parts {
        let [looked, wrong] = [part.objects, part.problems.len()].map(|n| n.to_string());
        table.row([name.to_owned(), looked, wrong]);
    }
    table.write(out)?;
    for (_, part) in parts {
        for problem in part.problems.iter().take(SHOWN) {
            writeln!(out, "wrong: {problem}")?;
        }
        if part.problems.len() > SHOWN {
            writeln!(out, "wrong: and {} more (--json has all)", part.problems.len() - SHOWN)?;
        }
    }
    Ok(())
}

/// Says how values without records and wrong chunks are corrected.
fn write_advice(out: &mut dyn Write, report: &CheckReport) -> std::io::Result<()> {
    if !report.has_records && !report.uncovered.is_empty() {
        writeln!(
            out,
            "the store has no records of its cases (.cases), so that its values can be compared with \
             nothing: {}; dor vis finalize --adopt makes records of them",
            in_short(&report.uncovered)
        )?;
    }
    if !report.chunks.problems.is_empty() {
        writeln!(out, "to mend chunks, populate their case again with --force, then finalize")?;
    }
    Ok(())
}

/// Prints which cases the store has.
fn write_cases(
    out: &mut dyn Write,
    Completeness { done, missing, partial }: &Completeness,
) -> std::io::Result<()> {
    writeln!(out, "\n{} of {} cases are in it", done.len(), done.len() + missing.len())?;
    if !partial.is_empty() {
        writeln!(out, "months missing: {}", in_short(partial))?;
    }
    if !missing.is_empty() {
        writeln!(out, "missing: {}", in_short(missing))?;
    }
    Ok(())
}
