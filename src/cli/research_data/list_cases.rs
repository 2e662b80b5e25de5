//! `dor research-data list-cases`: lists the cases of the catalogue, with their files and states.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::arguments::{ResearchArgs, data_dir};
use super::location_checks;
use crate::cli::arguments::CaseArgs;
use crate::cli::output::{Table, eprint_line};
use crate::cli::report::JsonArgs;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::model::Case;
use crate::model::case::MONTHS;
use crate::research::status::{self, CaseState, CaseStatus};

/// Most problems of a case that are listed; `--json` lists all.
const MAX_LISTED: usize = 5;

/// List cases with their numbers of files and their states
///
/// Shows the basin, polygon and date of each case, how many of its 180 raw and 180 research-grade files exist, and
/// its state: raw (not converted), partial, done (recorded as complete, with a research-grade file for every raw
/// file), damaged (a file is missing or has another size than recorded; `dor research-data check` reads the files),
/// or missing (no files).
#[derive(Args, Debug)]
pub(super) struct ListCases {
    #[command(flatten)]
    selection: CaseArgs,
    #[command(flatten)]
    locations: ResearchArgs,
    /// Number of cases to show; 0 shows all
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Only cases in this state
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    /// Raw files only
    Raw,
    /// Some research-grade files
    Partial,
    /// A research-grade file for every raw file
    Done,
    /// Research-grade files that differ from their case manifest
    Damaged,
    /// No files
    Missing,
}

impl StateArg {
    fn state(self) -> CaseState {
        match self {
            Self::Raw => CaseState::Raw,
            Self::Partial => CaseState::Partial,
            Self::Done => CaseState::Done,
            Self::Damaged => CaseState::Damaged,
            Self::Missing => CaseState::Missing,
        }
    }
}

/// A case of the catalogue.
#[derive(Serialize)]
struct CaseRow {
    /// Full name.
    case: String,
    index: usize,
    basin: &'static str,
    polygon: u16,
    /// First day of the intervention month, `YYYY-MM-DD`.
    date: String,
    /// Number of raw files. `None`: no archive is configured.
    raw_files: Option<usize>,
    /// Number of research-grade files. `None`: no archive is configured.
    output_files: Option<usize>,
    /// `None`: no archive is configured.
    state: Option<CaseState>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

impl CaseRow {
    /// A row without numbers of files.
    fn of_catalogue(case: Case) -> Self {
        Self {
            case: case.to_string(),
            index: case.index(),
            basin: case.basin().0,
            polygon: case.polygon(),
            date: format!("1999-{:02}-01", case.month().number()),
            raw_files: None,
            output_files: None,
            state: None,
            problems: Vec::new(),
        }
    }

    fn new(status: &CaseStatus) -> Self {
        Self {
            raw_files: Some(status.raw),
            output_files: Some(status.outputs),
            state: Some(status.state),
            problems: status.problems.clone(),
            ..Self::of_catalogue(status.case)
        }
    }
}

impl ListCases {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = self.locations.config(global, None)?;
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        let selected = self.selection.choice()?.of_catalogue();
        let (rows, count) = match config.data_dir.is_some() || self.state.is_some() {
            true => self.inspect(&config, &selected, limit).await?,
            false => {
                eprint_line("no archive is configured: files are not counted; set --data-dir");
                let rows = selected.iter().take(limit).map(|case| CaseRow::of_catalogue(*case));
                (rows.collect(), selected.len())
            }
        };
        self.json.print(out, &rows, |out, rows| write_rows(out, rows, count))?;
        Ok(Exit::Done)
    }

    /// Returns the first `limit` matching rows of the selected cases, and the number of matching cases.
    ///
    /// # Errors
    /// No archive is configured, or a location cannot be listed.
    async fn inspect(
        &self,
        config: &Config,
        selected: &[Case],
        limit: usize,
    ) -> anyhow::Result<(Vec<CaseRow>, usize)> {
        let stores = stores(config);
        let archive = data_dir(config)?;
        let raw = stores.open(&archive.value)?;
        let research = config.output_dir.as_ref().map(|o| stores.open(&o.value)).transpose()?;
        let state = self.state.map(StateArg::state);
        // Only --state needs the states of cases that are not shown.
        let inspected = if state.is_some() { usize::MAX } else { limit };
        let cases: Vec<Case> = selected.iter().copied().take(inspected).collect();
        let statuses = status::case_states(&raw, research.as_ref(), &cases).await?;
        if statuses.iter().all(|status| status.raw == 0) {
            location_checks::refuse_absent(&raw, archive, "data_dir").await?;
        }
        let matching = statuses.iter().filter(|s| state.is_none_or(|state| s.state == state));
        let count = if state.is_some() { matching.clone().count() } else { selected.len() };
        Ok((matching.take(limit).map(CaseRow::new).collect(), count))
    }
}

/// Prints the rows as a table, and the problems of damaged cases. `count`: number of matching cases.
fn write_rows(out: &mut dyn Write, rows: &[CaseRow], count: usize) -> std::io::Result<()> {
    let files = |n: Option<usize>| n.map_or("-".to_owned(), |n| format!("{n}/{MONTHS}"));
    let mut table = Table::new(["INDEX", "BASIN", "POLYGON", "DATE", "RAW", "OUTPUT", "STATE"]);
    for row in rows {
        table.row([
            format!("{:05}", row.index),
            row.basin.to_owned(),
            format!("{:03}", row.polygon),
            row.date.clone(),
            files(row.raw_files),
            files(row.output_files),
            row.state.map_or("-".to_owned(), |state| format!("{state:?}").to_lowercase()),
        ]);
    }
    table.write(out)?;
    for row in rows.iter().filter(|row| !row.problems.is_empty()) {
        for problem in row.problems.iter().take(MAX_LISTED) {
            writeln!(out, "damaged: {problem}")?;
        }
        if row.problems.len() > MAX_LISTED {
            let more = row.problems.len() - MAX_LISTED;
            writeln!(out, "damaged: and {more} more of this case; --json lists all")?;
        }
    }
    if rows.len() < count {
        writeln!(out, "{} of {count} cases; --limit 0 shows all", rows.len())?;
    }
    Ok(())
}
