//! The command line. Each file parses the arguments of one command and calls the library. Only this module
//! prints tables, JSON and progress bars.
//!
//! The `run` method of a command prints to the given writer and returns the exit code.

mod arguments;
mod campaign;
mod completions;
mod config;
mod demo;
mod environment;
mod escape;
mod exit;
mod failure_report;
mod global;
mod man;
mod output;
mod process;
mod progress;
mod publish;
mod publish_to;
mod report;
mod research_data;
mod setup_environment;
mod signals;
mod stores;
mod system_info;
mod terminal;
mod version;
mod vis;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use escape::printable;
pub use exit::Exit;
pub use failure_report::report;
pub use global::GlobalArgs;
pub use output::Stdout;

use crate::{executor, store};

const SETTINGS: &str = "\
Settings come from flags, environment variables, dor.toml and defaults, in this order: see \
`dor config show`.";

/// Returns the end of `dor --help`: the exit codes, and where settings come from.
fn after_help() -> String {
    let code = |exit: Exit| format!("  {:<2}  {}\n", exit as u8, exit.meaning());
    format!("Exit codes:\n{}\n{SETTINGS}", Exit::ALL.map(code).concat())
}

/// Convert CESM/POP history to the research dataset and the map stores of the DOR atlas, on any object store
#[derive(Debug, Parser)]
#[command(name = "dor", version, after_help = after_help(), max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    SetupEnvironment(setup_environment::Command),
    ResearchData(research_data::Command),
    Vis(Box<vis::Command>),
    Publish(Box<publish::Command>),
    Plan(Box<campaign::Plan>),
    Run(campaign::Run),
    Status(campaign::Status),
    Finalize(campaign::Finalize),
    Slurm(Box<campaign::Slurm>),
    Demo(demo::Command),
    Config(config::Command),
    Completions(completions::Command),
    Man(man::Command),
}

impl Cli {
    /// Configures the allocator and HDF5 for the command. Call it before any other thread runs.
    pub fn manage_memory(&self) {
        process::lock_no_files();
        process::manage_large_buffers(matches!(self.command, Command::Vis(_)));
    }

    /// Runs the command, which prints to `out`, and returns the exit code.
    ///
    /// # Errors
    /// The command failed; [`Exit::of`] gives the exit code.
    pub async fn run(self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        process::init_logging(self.global.verbosity());
        process::outlive_limits();
        match self.command {
            Command::SetupEnvironment(command) => command.run(&self.global, out).await,
            Command::ResearchData(command) => command.run(&self.global, out).await,
            Command::Vis(command) => command.run(&self.global, out).await,
            Command::Publish(command) => command.run(&self.global, out).await,
            Command::Plan(command) => command.run(&self.global, out).await,
            Command::Run(command) => command.run(&self.global, out).await,
            Command::Status(command) => command.run(&self.global, out).await,
            Command::Finalize(command) => command.run(&self.global, out).await,
            Command::Slurm(command) => command.run(&self.global, out).await,
            Command::Demo(command) => command.run(&self.global, out).await,
            Command::Config(command) => command.run(&self.global, out).await,
            Command::Completions(command) => command.run(out),
            Command::Man(command) => command.run(Self::command()),
        }
    }
}

/// Parses the command line. Prints help, the version or a usage error, and returns the exit code for them.
///
/// Also removes empty variables from the environment: call it before any other thread runs.
///
/// # Errors
/// The command line asks for help or the version, or is not valid.
pub fn parse(out: &mut Stdout) -> Result<Cli, Exit> {
    environment::forget_empty();
    Cli::try_parse().map_err(|error| {
        let text = error.render();
        let written = match error.kind() {
            _ if error.use_stderr() => {
                // The text quotes the arguments. Keep the colours only if it has no control characters.
                let plain = text.to_string();
                let lines = plain.lines().map(|line| printable(line) + "\n").collect::<String>();
                let text = match io::stderr().is_terminal() && lines == plain {
                    true => text.ansi().to_string(),
                    false => lines,
                };
                // A failure to write to standard error cannot be reported.
                let _ = write!(io::stderr().lock(), "{text}");
                return Exit::Usage;
            }
            ErrorKind::DisplayVersion => version::write(out),
            _ if io::stdout().is_terminal() => out.write_styled(&text.ansi().to_string()),
            _ => write!(out, "{text}"),
        };
        match written.and_then(|()| out.finish()) {
            Ok(()) => Exit::Done,
            Err(error) => {
                report(&error);
                Exit::SomeFailed
            }
        }
    })
}

/// The `dor` program: parses the command line, runs the command and reports its error. Returns the exit code.
pub fn main() -> ExitCode {
    completions::answer_shell(Cli::command, || {
        executor::block_on(store::profile_names()).unwrap_or_default()
    });
    let mut out = Stdout::new();
    let cli = match parse(&mut out) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    cli.manage_memory();
    let result = executor::block_on(cli.run(&mut out))
        .map_err(anyhow::Error::from)
        .flatten()
        .and_then(|exit| out.finish().map(|()| exit).map_err(anyhow::Error::from));
    result
        .unwrap_or_else(|error| {
            report(error.as_ref());
            Exit::of(error.as_ref())
        })
        .into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    fn undocumented(command: &clap::Command, missing: &mut Vec<String>) {
        if command.get_about().is_none() {
            missing.push(command.get_name().to_owned());
        }
        for argument in command.get_arguments().filter(|argument| argument.get_help().is_none()) {
            missing.push(format!("{} {}", command.get_name(), argument.get_id()));
        }
        command.get_subcommands().for_each(|inner| undocumented(inner, missing));
    }

    #[test]
    fn every_command_and_argument_is_documented() {
        let mut command = Cli::command();
        command.build();
        let mut missing = Vec::new();
        undocumented(&command, &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
