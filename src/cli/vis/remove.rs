//! `dor vis remove`: removes cases from a store.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use serde_json::json;

use super::arguments::config;
use super::finalize::write_completeness;
use crate::cli::arguments::CaseArgs;
use crate::cli::exit::UsageError;
use crate::cli::output::short_names;
use crate::cli::report::ReportArgs;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::model::case::describe_cases;
use crate::store::Location;
use crate::vis::{VisError, remove};

/// Remove cases from a store: delete their case manifests and values, and finalize the store without them
///
/// Only populating the cases again restores their values. `--dry-run` lists the cases. `dor publish --delete`
/// then removes the cases from a published copy.
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// Store to change: a path or URL
    store: Location,
    #[command(flatten)]
    cases: CaseArgs,
    #[command(flatten)]
    report: ReportArgs,
}

impl Remove {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, None, None)?;
        let store = stores(&config).open(&self.store)?;
        let selected: BTreeSet<Case> = self.cases.choice()?.named_cases().into_iter().collect();
        if selected.is_empty() {
            let problem = "no case is chosen; give --polygon or --case".to_owned();
            return Err(UsageError(problem).into());
        }
        let present = remove::present(&store, &selected).await?;
        let cases: Vec<Case> = present.iter().copied().collect();
        if cases.is_empty() {
            let selected: Vec<Case> = selected.into_iter().collect();
            let problem = format!("{} holds nothing of {}", self.store, describe_cases(&selected));
            return Err(VisError::Settings(problem).into());
        }
        let mut report = self.report.report(out);
        report.set("removed", json!(short_names(&cases)));
        if report.is_dry() {
            writeln!(report, "{}: would remove {}", self.store, describe_cases(&cases))?;
        } else {
            let (kind, completeness) = remove::remove(&store, &present).await?;
            writeln!(report, "{}: removed {}", self.store, describe_cases(&cases))?;
            write_completeness(&mut report, &store, &kind, &completeness)?;
        }
        report.end()?;
        Ok(Exit::Done)
    }
}
