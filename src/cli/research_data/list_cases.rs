//! `dor research-data list-cases`: the catalogue, with what exists of each case.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::arguments::{ResearchArgs, data_dir};
use super::location_checks;
use crate::cli::arguments::CaseArgs;
use crate::cli::output::{Table, eprint_line, write_json};
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::model::Case;
use crate::model::case::MONTHS;
use crate::research::status::{self, CaseState, CaseStatus};

/// Problems of a case that are shown.
const SHOWN: usize = 5;

/// List cases with what exists of each
///
/// Shows for each case its basin, polygon and date, how many of its 180 raw and 180
/// research-grade files exist, and its state: raw (not begun), partial, done (recorded as
/// complete, with a research-grade file for every raw file that is there), damaged (a file is gone or
/// of another size than recorded; `dor research-data check` reads the files), or missing.
#[derive(Args, Debug)]
pub(super) struct ListCases {
    #[command(flatten)]
    selection: CaseArgs,
    #[command(flatten)]
    places: ResearchArgs,
    /// Cases to show; 0 for all
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Only cases in this state
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    /// Raw files only
    Raw,
    /// Some research-grade files
    Partial,
    /// Complete for the raw files that are there
    Done,
    /// Research-grade files that are not as recorded
    Damaged,
    /// No files at all
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

/// A case of the catalogue; without an archive only what the catalogue says.
#[derive(Serialize)]
struct CaseRow {
    case: String,
    index: usize,
    basin: &'static str,
    polygon: u16,
    date: String,
    raw_files: Option<usize>,
    output_files: Option<usize>,
    state: Option<CaseState>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

impl CaseRow {
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
        let config = self.places.config(global, None)?;
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        let selected = self.selection.choice()?.of_catalogue();
        let (rows, count) = match config.data_dir.is_some() || self.state.is_some() {
            true => self.inspect(&config, &selected, limit).await?,
            false => {
                eprint_line("no archive is configured (--data-dir): this is the catalogue only");
                let rows = selected.iter().take(limit).map(|case| CaseRow::of_catalogue(*case));
                (rows.collect(), selected.len())
            }
        };
        match self.json {
            true => write_json(out, &rows)?,
            false => write_rows(out, &rows, count)?,
        }
        Ok(Exit::Done)
    }

    /// The rows to show of the selected cases, and how many match in all.
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
        // Without a condition on the state only the cases that are shown are inspected.
        let inspected = if state.is_some() { usize::MAX } else { limit };
        let cases: Vec<Case> = selected.iter().copied().take(inspected).collect();
        let statuses = status::survey(&raw, research.as_ref(), &cases).await?;
        if statuses.iter().all(|status| status.raw == 0) {
            location_checks::refuse_absent(&raw, archive, "data_dir").await?;
        }
        let matching = statuses.iter().filter(|s| state.is_none_or(|state| s.state == state));
        let count = if state.is_some() { matching.clone().count() } else { selected.len() };
        Ok((matching.take(limit).map(CaseRow::new).collect(), count))
    }
}

/// Prints the rows of `count` cases as a table, and the problems of damaged ones.
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
        for problem in row.problems.iter().take(SHOWN) {
            writeln!(out, "damaged: {problem}")?;
        }
        if row.problems.len() > SHOWN {
            writeln!(out, "and {} more of this case", row.problems.len() - SHOWN)?;
        }
    }
    if rows.len() < count {
        writeln!(out, "{} of {count} cases; --limit 0 shows all", rows.len())?;
    }
    Ok(())
}
