//! `dor vis remove`: cases taken out of a store.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;

use super::arguments::config;
use super::finalize::write_completeness;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::model::case::in_short;
use crate::store::Location;
use crate::cli::arguments::CaseArgs;
use crate::vis::{VisError, remove};

/// Take cases out of a store for good: delete their records and values, and finalize the store without them
///
/// Their values can be had again only by populating the cases. `--dry-run` names the cases first.
/// `dor publish --delete` takes them out of a published copy afterwards.
#[derive(Args, Debug)]
pub(super) struct Remove {
    /// The store: a path or URL
    store: Location,
    #[command(flatten)]
    cases: CaseArgs,
    /// Print the cases, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl Remove {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, None, None)?;
        let store = stores(&config).open(&self.store)?;
        let asked: BTreeSet<Case> = self.cases.choice()?.asked().into_iter().collect();
        if asked.is_empty() {
            let needed = "name the cases to remove: --polygon or --case".to_owned();
            return Err(VisError::Needs(needed).into());
        }
        let present = remove::present(&store, &asked).await?;
        let cases: Vec<Case> = present.iter().copied().collect();
        if cases.is_empty() {
            let asked: Vec<Case> = asked.into_iter().collect();
            let problem = format!("{} holds nothing of {}", self.store, in_short(&asked));
            return Err(VisError::Needs(problem).into());
        }
        if self.dry_run {
            writeln!(out, "{}: would remove {}", self.store, in_short(&cases))?;
            return Ok(Exit::Done);
        }
        let (kind, completeness) = remove::remove(&store, &present).await?;
        writeln!(out, "{}: removed {}", self.store, in_short(&cases))?;
        write_completeness(out, &store, &kind, &completeness)?;
        Ok(Exit::Done)
    }
}
