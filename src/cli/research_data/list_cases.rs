//! `dor research-data list-cases`: the catalogue, with what exists of each case.

use std::io::Write;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::arguments::{CaseSelection, ResearchArgs, data_dir};
use super::location_checks;
use crate::cli::output::{Table, write_json};
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
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
    selection: CaseSelection,
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

#[derive(Serialize)]
struct CaseRow {
    case: String,
    index: usize,
    basin: &'static str,
    polygon: u16,
    date: String,
    raw_files: usize,
    output_files: usize,
    state: CaseState,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

impl CaseRow {
    fn new(survey: &CaseStatus) -> Self {
        let case = survey.case;
        Self {
            case: case.to_string(),
            index: case.index(),
            basin: case.basin().0,
            polygon: case.polygon(),
            date: format!("1999-{:02}-01", case.month().number()),
            raw_files: survey.raw,
            output_files: survey.outputs,
            state: survey.state,
            problems: survey.problems.clone(),
        }
    }
}

impl ListCases {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = self.places.config(global, None)?;
        let stores = stores(&config);
        let archive = data_dir(&config)?;
        let raw = stores.open(&archive.value)?;
        let research = config.output_dir.as_ref().map(|o| stores.open(&o.value)).transpose()?;
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        // Without a condition on the state there is no need to look at more than is shown.
        let looked_at = if self.state.is_some() { usize::MAX } else { limit };
        let selected: Vec<Case> = self.selection.cases().collect();
        let cases: Vec<Case> = selected.iter().copied().take(looked_at).collect();
        let surveys = status::survey(&raw, research.as_ref(), &cases).await?;
        if surveys.iter().all(|survey| survey.raw == 0) {
            location_checks::refuse_absent(&raw, archive, "data_dir").await?;
        }
        let state = self.state.map(StateArg::state);
        let matching = surveys.iter().filter(|s| state.is_none_or(|state| s.state == state));
        let count = if state.is_some() { matching.clone().count() } else { selected.len() };
        let rows: Vec<CaseRow> = matching.take(limit).map(CaseRow::new).collect();
        if self.json {
            write_json(out, &rows)?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["INDEX", "BASIN", "POLYGON", "DATE", "RAW", "OUTPUT", "STATE"]);
        for row in &rows {
            table.row([
                format!("{:05}", row.index),
                row.basin.to_owned(),
                format!("{:03}", row.polygon),
                row.date.clone(),
                format!("{}/{MONTHS}", row.raw_files),
                format!("{}/{MONTHS}", row.output_files),
                format!("{:?}", row.state).to_lowercase(),
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
        Ok(Exit::Done)
    }
}
