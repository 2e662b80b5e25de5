//! `dor research-data check`: compares research-grade files with their records.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::location_checks;
use crate::cli::arguments::{case, from_one};
use crate::cli::exit::UsageError;
use crate::cli::output::{Table, bytes, count};
use crate::cli::report::JsonArgs;
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::{Config, ConfigError, Overrides};
use crate::executor::unless_stopped;
use crate::model::Case;
use crate::research::verify::{Verified, verify};
use crate::store::Location;
use crate::vis::VisError;
use crate::vis::input::CaseSource;

/// Most problems of a case that are listed; `--json` lists all.
const MAX_LISTED: usize = 20;

/// Read research-grade files and compare them with their case manifests
///
/// Each file of a case manifest must exist, with the recorded size and SHA-256. Works on every kind of location; for
/// https:// name the cases. Ends with 65 when a file is wrong.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// Cases: polygon and month (112-04), index (449 or 00449), or the full name [default: all with files]
    #[arg(value_parser = case)]
    cases: Vec<Case>,
    /// Folder of the research-grade files: a path or URL [default: output_dir of the configuration]
    #[arg(
        short = 'i',
        long = "input",
        visible_alias = "output-dir",
        visible_short_alias = 'o',
        value_name = "LOCATION"
    )]
    output_dir: Option<Location>,
    /// Read only N files of each case; the sizes of all files are compared
    #[arg(long, value_name = "N", value_parser = from_one)]
    sample: Option<NonZeroUsize>,
    #[command(flatten)]
    json: JsonArgs,
}

/// Result of the check of a case.
#[derive(Serialize)]
struct Row {
    /// Short name, such as `112-04`.
    case: String,
    /// Number of files in the case manifest.
    files: usize,
    /// Number of files that were read.
    read: usize,
    /// Size of all files, in bytes.
    bytes: u64,
    problems: Vec<String>,
}

impl Check {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let overrides = Overrides { output_dir: self.output_dir.clone(), ..global.overrides() };
        let config = Config::load(&overrides)?;
        let unset =
            ConfigError::Unset { key: "output_dir", flag: "--input", variable: "DOR_OUTPUT_DIR" };
        let setting = config.output_dir.as_ref().ok_or(unset)?;
        let store = stores(&config).open(&setting.value)?;
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        if store.can_list() {
            unless_stopped(&stop, location_checks::refuse_absent(&store, setting, "output_dir"))
                .await??;
        } else if self.cases.is_empty() {
            let problem = format!("{} cannot be listed; name the cases", setting.value);
            return Err(UsageError(problem).into());
        }
        let cases = match self.cases.is_empty() {
            true => unless_stopped(&stop, CaseSource::Research(store.clone()).cases()).await??,
            false => self.cases,
        };
        if cases.is_empty() {
            let problem = format!("{} has no cases; check --input", setting.value);
            return Err(VisError::Settings(problem).into());
        }
        let sample = self.sample.map(NonZeroUsize::get);
        let mut rows = Vec::with_capacity(cases.len());
        for case in cases {
            let verified = unless_stopped(&stop, verify(&store, case, sample)).await??;
            let Verified { files, read, bytes, problems } = verified;
            rows.push(Row { case: case.short(), files, read, bytes, problems });
        }
        self.json.print(out, &rows, |out, rows| write_rows(out, rows))?;
        let is_valid = rows.iter().all(|row| row.problems.is_empty());
        Ok(if is_valid { Exit::Done } else { Exit::BadData })
    }
}

/// Prints the results as a table, the problems, and the number of wrong cases.
fn write_rows(out: &mut dyn Write, rows: &[Row]) -> std::io::Result<()> {
    let mut table = Table::new(["CASE", "FILES", "READ", "SIZE", "PROBLEMS"]);
    for Row { case, files, read, bytes: size, problems } in rows {
        let [files, read, problems] = [*files, *read, problems.len()].map(|n| n.to_string());
        table.row([case.clone(), files, read, bytes(*size), problems]);
    }
    table.write(out)?;
    for row in rows {
        for problem in row.problems.iter().take(MAX_LISTED) {
            writeln!(out, "{}: {problem}", row.case)?;
        }
        if row.problems.len() > MAX_LISTED {
            let more = row.problems.len() - MAX_LISTED;
            writeln!(out, "{}: and {more} more; --json lists all", row.case)?;
        }
    }
    let wrong = rows.iter().filter(|row| !row.problems.is_empty()).count();
    match wrong {
        0 => writeln!(out, "{} as recorded", count(rows.len(), "case")),
        _ => writeln!(
            out,
            "{wrong} of {} not as recorded; convert them again with `dor research-data process-case`, and with \
             --force where a checksum differs",
            count(rows.len(), "case")
        ),
    }
}
