//! `dor research-data`: lists, converts and checks cases.

mod arguments;
mod check;
mod list_cases;
mod location_checks;
mod process_all_cases;
mod process_case;
mod run;

use std::io::Write;

use clap::{Args, Subcommand};

use super::{Exit, GlobalArgs};
pub(super) use arguments::data_dir;
use check::Check;
use list_cases::ListCases;
pub(super) use location_checks::{refuse_inside, refuse_mixed};
use process_all_cases::ProcessAllCases;
use process_case::ProcessCase;
pub(super) use run::convert_case;

/// Make the research-grade dataset: list cases, convert them, check the files
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    ListCases(ListCases),
    ProcessCase(ProcessCase),
    ProcessAllCases(ProcessAllCases),
    Check(Check),
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        match self.verb {
            Verb::ListCases(command) => command.run(global, out).await,
            Verb::ProcessCase(command) => command.run(global, out).await,
            Verb::ProcessAllCases(command) => command.run(global, out).await,
            Verb::Check(command) => command.run(global, out).await,
        }
    }
}
