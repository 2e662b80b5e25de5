//! The command line: a file a verb, thin. Tables, JSON and progress bars live here and nowhere else.
//!
//! Handlers print into the writer that they are given and return how the program shall end.

mod batch;
mod capabilities;
mod completions;
mod config;
mod demo;
mod environment;
mod exit;
mod failures;
mod global;
mod grid;
mod man;
mod memory;
mod output;
mod progress;
mod publish;
mod publish_to;
mod research_data;
mod setup_environment;
mod version;
mod vis;

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use capabilities::Capabilities;
pub use exit::Exit;
pub use global::GlobalArgs;
pub use output::Stdout;
use output::{Log, printable};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::pipeline::Stopped;
use crate::store::{RESENT, Stores, causes};

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 some cases failed; 2 wrong use; 3 not all of a plan is done; 65 bad data; 75 interrupted, safe to run \
again; 78 configuration.\n\
Settings come from flags, environment variables, dor.toml and defaults, in this order: see \
`dor config show`.";

/// From CESM/POP history to the research dataset and the map stores of the DOR atlas, on any object store
#[derive(Debug, Parser)]
#[command(name = "dor", version, after_help = AFTER_HELP, max_term_width = 100)]
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
    Plan(Box<batch::Plan>),
    Run(batch::Run),
    Status(batch::Status),
    Finalize(batch::Finalize),
    Slurm(Box<batch::Slurm>),
    Demo(demo::Command),
    Config(config::Command),
    Completions(completions::Command),
    Man(man::Command),
}

impl Cli {
    /// Suits the allocator and the libraries to the command; before any other thread runs.
    pub fn manage_memory(&self) {
        memory::lock_no_files();
        memory::manage_large_buffers(matches!(self.command, Command::Vis(_)));
    }

    /// Runs the command.
    pub async fn run(self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        init_logging(self.global.verbosity());
        outlive_limits();
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
            Command::Man(command) => command.run(),
        }
    }
}

/// Runs a command from its words, as the demo does.
async fn run_words<'a>(
    words: impl Iterator<Item = &'a str>,
    global: &GlobalArgs,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    match Cli::try_parse_from(words)?.command {
        Command::Vis(command) => command.run(global, out).await,
        Command::Plan(command) => command.run(global, out).await,
        Command::Run(command) => command.run(global, out).await,
        Command::Finalize(command) => command.run(global, out).await,
        _ => Ok(Exit::Usage),
    }
}

/// Reads the command line; help, version and errors are printed here and end the program.
///
/// Forgets the variables that are set to nothing, too: call it before any other thread runs.
pub fn parse(out: &mut Stdout) -> Result<Cli, Exit> {
    environment::forget_empty();
    Cli::try_parse().map_err(|error| {
        let text = error.render();
        let written = match error.kind() {
            _ if error.use_stderr() => {
                // It quotes what was given: in colour only what cannot steer the terminal.
                let plain = text.to_string();
                let lines = plain.lines().map(|line| printable(line) + "\n").collect::<String>();
                let text = match io::stderr().is_terminal() && lines == plain {
                    true => text.ansi().to_string(),
                    false => lines,
                };
                // Nowhere is left to report to when this fails.
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
                report(&error.into());
                Exit::SomeFailed
            }
        }
    })
}

/// Prints an error and its causes; of what a stop cut short, only that it was stopped.
pub fn report(error: &anyhow::Error) {
    let mut to = io::stderr().lock();
    let mut causes = causes(error.as_ref());
    // A stop is no failure of what it has cut short.
    if Exit::stopped(error) {
        causes = vec![Stopped.to_string()];
    }
    let says = |words: &str| causes.iter().any(|said| said.contains(words));
    let too_many = TOO_MANY_FILES.into_iter().any(says) && !says("ulimit -n");
    // Nowhere is left to report to when this fails.
    for (n, said) in causes.iter().map(|said| printable(said)).enumerate() {
        let _ = writeln!(to, "{} {said}", if n == 0 { "error:" } else { "  caused by:" });
    }
    if too_many {
        let _ = writeln!(to, "  raise the limit (ulimit -n 4096) or use fewer workers (--workers)");
    }
}

/// How the system's errors of too many open files, of the process and of the machine, are told.
const TOO_MANY_FILES: [&str; 2] = ["(os error 24)", "(os error 23)"];

/// Parses a number from 1 on.
fn from_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "give a whole number from 1 on".to_owned())
}

/// Parses a number of bytes with its unit: 500k, 50M, 1Gi, 400GB.
fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit: f64 = match text[digits..].trim_end_matches(['B', 'b']) {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1048576.0,
        "Gi" => 1073741824.0,
        _ => return None,
    };
    Some((number * unit) as u64).filter(|bytes| *bytes > 0)
}

/// Parses an amount of memory.
fn size(text: &str) -> Result<u64, String> {
    bytes_of(text).ok_or_else(|| "give bytes, such as 2GB or 400GB".to_owned())
}

/// Prints a line to standard error.
fn say(line: &str) {
    // Nowhere is left to report to when this fails.
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// A signal that follows another so soon is the same.
const AGAIN: Duration = Duration::from_millis(500);

/// Lets SIGINT, SIGTERM and SIGHUP request a stop; a second one ends the program at once. SIGHUP
/// stays ignored where it is: `nohup` is for that.
fn stop_on_signals(stop: CancellationToken) {
    tokio::spawn(async move {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        let mut told: Option<Instant> = None;
        let mut hangup = if hangup_is_ignored() { None } else { signal(SignalKind::hangup()).ok() };
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                _ = hung_up => {}
            }
            match told {
                // One wish may come twice: from the terminal or the scheduler, and handed on by a script.
                Some(at) if Instant::now() - at < AGAIN => continue,
                Some(_) => std::process::exit(Exit::Interrupted as i32),
                None => told = Some(Instant::now()),
            }
            say("stopping: finished files are kept; once more to stop at once");
            stop.cancel();
        }
    });
}

/// Stores as they are configured, for the memory that there is.
fn stores(config: &Config) -> Stores {
    Stores::new(config.s3.clone()).within(Capabilities::memory_to_use())
}

/// The same stores, of which nothing is read any more over a network after a stop.
fn until(stop: &CancellationToken, stores: &Stores) -> Stores {
    let stop = stop.clone();
    stores.until(move || {
        let stop = stop.clone();
        async move { stop.cancelled().await }
    })
}

/// Whether this process was started with SIGHUP ignored. Only Linux tells.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

/// A file that grows beyond the limit of the process (`ulimit -f`) fails to be written, which is told,
/// instead of ending the program; and as many files may be open as the system allows.
fn outlive_limits() {
    // With a handler, the signal no longer ends the process; nobody waits for it.
    let _ = signal(SignalKind::from_raw(libc::SIGXFSZ));
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, fewer will do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn init_logging(verbose: u8) {
    // What these warn of comes back to us as an error, and is reported.
    let warnings = "warn,aws_config=off,rustls_platform_verifier=off";
    let default = || match verbose {
        0 => EnvFilter::new(warnings),
        1 => EnvFilter::new(format!("{warnings},dor_atlas=info,{RESENT}")),
        2 => EnvFilter::new("info,dor_atlas=debug"),
        _ => EnvFilter::new("trace"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default());
    // Fails only when a program that embeds this has its own logging, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Log)
        .with_ansi(false)
        // A reader that is gone is no failure, and nowhere is left to tell of it.
        .log_internal_errors(false)
        .try_init();
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
