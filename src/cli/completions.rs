//! `dor completions`, and what shells ask `dor` for on a press of the tab key.
//!
//! The script of a shell calls `dor` with the variable [`VARIABLE`] and the words of the command line. `dor`
//! answers from the definition of its commands, without configuration and network.

use std::any::TypeId;
use std::ffi::OsStr;
use std::io::Write;

use clap::{Arg, Args, ValueHint};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use super::Exit;
use crate::model::Case;
use crate::model::case::POLYGONS;
use crate::store::Location;

/// Variable that the scripts set to the name of the shell.
const VARIABLE: &str = "DOR_COMPLETE";
/// Name of the program in the scripts.
const PROGRAM: &str = "dor";

/// Print the completion script of a shell
///
/// For bash: `dor completions bash > ~/.local/share/bash-completion/completions/dor`. The script asks `dor` for
/// commands, options and values, so it stays right when `dor` is updated.
#[derive(Args, Debug)]
pub(super) struct Command {
    /// Shell that the script is for
    shell: Shell,
}

impl Command {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let name = self.shell.to_string();
        let shells = Shells::builtins();
        // Every shell of clap_complete has a script of this kind.
        let Some(shell) = shells.completer(&name) else { return Ok(Exit::Usage) };
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
        out.write_all(&script)?;
        Ok(Exit::Done)
    }
}

/// Answers the script of a shell and ends the process, if such a script has called it. `profiles` returns the names
/// of the profiles for S3.
pub(super) fn answer_shell(program: fn() -> clap::Command, profiles: fn() -> Vec<String>) {
    CompleteEnv::with_factory(|| with_hints(program(), profiles)).var(VARIABLE).complete();
}

/// Adds to each argument of a command what completes its values: paths for locations, names for cases and profiles.
fn with_hints(command: clap::Command, profiles: fn() -> Vec<String>) -> clap::Command {
    command
        .mut_args(|argument| with_hint(argument, profiles))
        .mut_subcommands(|inner| with_hints(inner, profiles))
}

fn with_hint(argument: Arg, profiles: fn() -> Vec<String>) -> Arg {
    let values = argument.get_value_parser().type_id();
    if values == TypeId::of::<Location>() {
        argument.value_hint(ValueHint::AnyPath)
    } else if values == TypeId::of::<Case>() {
        argument.add(ArgValueCompleter::new(cases))
    } else if argument.get_id() == "profile" {
        let candidates = move || profiles().into_iter().map(CompletionCandidate::new).collect();
        argument.add(ArgValueCandidates::new(candidates))
    } else {
        argument
    }
}

/// Cases in their short form, with the name of the basin.
fn cases(typed: &OsStr) -> Vec<CompletionCandidate> {
    let all = Case::all().map(|case| (case.short(), case.basin().0));
    let matching = all.filter(|(name, _)| is_prefix(typed, name));
    matching.map(|(name, basin)| CompletionCandidate::new(name).help(Some(basin.into()))).collect()
}

/// Polygons; after `200-`, the last polygons of a range.
pub(super) fn polygons(typed: &OsStr) -> Vec<CompletionCandidate> {
    let first = typed.to_str().and_then(|typed| typed.split_once('-')?.0.parse::<u16>().ok());
    let name = |polygon: u16| match first {
        Some(first) => format!("{first}-{polygon}"),
        None => polygon.to_string(),
    };
    let names = (first.unwrap_or(0)..POLYGONS).map(name).filter(|name| is_prefix(typed, name));
    names.map(CompletionCandidate::new).collect()
}

/// Names among other values.
pub(super) fn names(names: &'static [&'static str]) -> ArgValueCandidates {
    ArgValueCandidates::new(|| names.iter().map(CompletionCandidate::new).collect())
}

fn is_prefix(typed: &OsStr, name: &str) -> bool {
    typed.to_str().is_some_and(|typed| name.starts_with(typed))
}
