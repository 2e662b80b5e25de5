//! `dor vis`: creates, fills, finalizes, checks and plots the three visualization stores.

mod arguments;
mod check;
mod create;
mod finalize;
mod plot;
mod populate_store1;
mod populate_store2;
mod populate_store3;
mod remove;
mod run;

pub(super) use arguments::centers_unset;
pub(super) use check::{check_progress, write_as_table};
pub(super) use create::create;
pub(super) use finalize::{finalize_store, write_completeness};
pub(super) use plot::{Picture, draw};
pub(super) use run::{each, print_polygons_without_files, run_context};

use std::io::Write;

use clap::{Args, Subcommand};

use super::{Exit, GlobalArgs};

/// Make the stores of the public map: create, fill, finalize, check and plot them
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(name = "create-template-store1")]
    CreateTemplateStore1(create::Store1),
    #[command(name = "create-template-store2")]
    CreateTemplateStore2(create::Store2),
    #[command(name = "create-template-store3")]
    CreateTemplateStore3(create::Store3),
    #[command(name = "populate-store1")]
    PopulateStore1(populate_store1::PopulateStore1),
    #[command(name = "populate-store2")]
    PopulateStore2(populate_store2::PopulateStore2),
    #[command(name = "populate-store3")]
    PopulateStore3(populate_store3::PopulateStore3),
    Finalize(finalize::Finalize),
    Check(check::Check),
    Plot(plot::Plot),
    Remove(remove::Remove),
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        match self.verb {
            Verb::CreateTemplateStore1(command) => command.run(global, out).await,
            Verb::CreateTemplateStore2(command) => command.run(global, out).await,
            Verb::CreateTemplateStore3(command) => command.run(global, out).await,
            Verb::PopulateStore1(command) => command.run(global, out).await,
            Verb::PopulateStore2(command) => command.run(global, out).await,
            Verb::PopulateStore3(command) => command.run(global, out).await,
            Verb::Finalize(command) => command.run(global, out).await,
            Verb::Check(command) => command.run(global, out).await,
            Verb::Plot(command) => command.run(global, out).await,
            Verb::Remove(command) => command.run(global, out).await,
        }
    }
}
