//! `dor slurm`: a plan on the nodes of a Slurm cluster.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::arguments::{PlanArgs, load};
use crate::campaign::OpenPlan;
use crate::campaign::slurm::{Jobs, Scripts, submit};
use crate::cli::arguments::{CaseArgs, from_one, in_order, polygon, words};
use crate::cli::output::count;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::model::case::POLYGONS;
use crate::store::Location;
use crate::vis::VisError;
use crate::vis::cases::CaseChoice;

/// Run a plan on the nodes of a Slurm cluster
///
/// An array job, of which each element is a shard on a node of its own, and a job after it that puts the
/// results together. An element that is told to stop (its time is nearly up, or it is preempted) is queued
/// again by itself.
#[derive(Args, Debug)]
pub(crate) struct Slurm {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write the scripts, dor-run.sbatch and dor-finalize.sbatch
    Script(SlurmArgs),
    /// Write the scripts and send them to Slurm
    Submit(SlurmArgs),
}

#[derive(Args, Debug)]
struct SlurmArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Number of nodes: shards of the plan, elements of the array
    #[arg(long, value_name = "N", value_parser = from_one)]
    nodes: NonZeroUsize,
    /// Only these elements, as `dor status` tells them: 3,7,10-12, with %2 at most two at a time; the number of shards stays the same
    #[arg(long, value_name = "LIST", value_parser = list)]
    array: Option<String>,
    #[command(flatten)]
    cases: CaseArgs,
    /// First polygon
    #[arg(long, hide = true, value_name = "ID", value_parser = polygon)]
    start: Option<u16>,
    /// Last polygon
    #[arg(long, hide = true, value_name = "ID", value_parser = polygon)]
    end: Option<u16>,
    /// Quality of service, such as regular or preempt
    #[arg(long, value_name = "QOS", value_parser = word)]
    qos: Option<String>,
    /// Partition
    #[arg(long, value_name = "NAME", value_parser = word)]
    partition: Option<String>,
    /// Time limit of an element
    #[arg(long, value_name = "HH:MM:SS", default_value = "04:00:00", value_parser = time)]
    time: String,
    /// Time limit of the job that puts the results together, and publishes them
    #[arg(long, value_name = "HH:MM:SS", default_value = "01:00:00", value_parser = time)]
    finalize_time: String,
    /// Account that is charged
    #[arg(long, value_name = "NAME", value_parser = word)]
    account: Option<String>,
    /// Kind of nodes, such as cpu
    #[arg(long, value_name = "FEATURE", value_parser = word)]
    constraint: Option<String>,
    /// Processors of a node, where Slurm does not give all
    #[arg(long, value_name = "N", value_parser = from_one)]
    cpus_per_task: Option<NonZeroUsize>,
    /// Run in this image, with Shifter
    #[arg(long, value_name = "IMAGE", value_parser = word)]
    container: Option<String>,
    /// The program on the nodes [default: this one; `dor` in an image]
    #[arg(long, value_name = "PATH")]
    program: Option<String>,
    /// Memory of a node to stay under [default: the limit of the job]
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    memory: Option<String>,
    /// Publish the finalized products here; not with a selection of cases, after which nothing is finalized
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["polygons", "polygon_range", "months", "cases", "start", "end"])]
    publish_to: Option<Location>,
    /// Folder for the scripts
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
}

/// What stands in a line of a script: no spaces, nothing that a shell or Slurm would take apart.
fn word(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+&|*".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("give one word".to_owned()),
    }
}

/// A time limit as Slurm takes it.
fn time(text: &str) -> Result<String, String> {
    match minutes(text) {
        None => Err("give hours, minutes and seconds, such as 04:00:00".to_owned()),
        Some(0..5) => Err("give 5 minutes or more: the last two are for stopping".to_owned()),
        Some(_) => Ok(text.to_owned()),
    }
}

/// The whole minutes of `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`.
fn minutes(text: &str) -> Option<u64> {
    // `parse` would take a sign.
    let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => part.parse::<u64>().ok(),
        false => None,
    };
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, text),
    };
    let parts: Option<Vec<u64>> = rest.split(':').map(number).collect();
    let (hours, minutes) = match (days, parts?.as_slice()) {
        (Some(_), &[hours]) => (hours, 0),
        (Some(_), &[hours, minutes] | &[hours, minutes, _]) => (hours, minutes),
        (None, &[minutes] | &[minutes, _]) => (0, minutes),
        (None, &[hours, minutes, _]) => (hours, minutes),
        _ => return None,
    };
    let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
    hours.checked_mul(60)?.checked_add(minutes)
}

/// An amount of memory, as it was written.
fn memory(text: &str) -> Result<String, String> {
    crate::cli::arguments::size(text).map(|_| text.to_owned())
}

/// The largest number of a list such as `3,7,10-12` or `0-15%4`, if it is one.
fn largest(text: &str) -> Option<usize> {
    let (text, at_a_time) = text.split_once('%').unwrap_or((text, "1"));
    from_one(at_a_time).ok()?;
    let end = |part: &str| {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        let (a, b): (usize, usize) = (a.parse().ok()?, b.parse().ok()?);
        (a <= b).then_some(b)
    };
    text.split(',').map(end).try_fold(0, |most, end| Some(most.max(end?)))
}

fn list(text: &str) -> Result<String, String> {
    let wrong = || "give numbers and ranges, such as 3,7,10-12".to_owned();
    largest(text).map(|_| text.to_owned()).ok_or_else(wrong)
}

impl Slurm {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let (options, submits) = match self.action {
            Action::Script(options) => (options, false),
            Action::Submit(options) => (options, true),
        };
        let config = Config::load(&options.plan.over(global.overrides()))?;
        // Nothing is sent for a plan that cannot be read.
        let OpenPlan { location, plan, .. } = load(&config).await?;
        warn_of_idle_nodes(&location, plan.cases.len(), options.nodes.get());
        let jobs = options.jobs(&location, global)?;
        // Cases that are not selected would be missing.
        let scripts = jobs.write_scripts(&options.output, options.choice()?.is_all())?;
        match submits {
            true => submit_jobs(&scripts, &location, options.nodes, out)?,
            false => write_paths(&scripts, out)?,
        }
        Ok(Exit::Done)
    }
}

fn warn_of_idle_nodes(plan: &Location, cases: usize, nodes: usize) {
    if let Some(idle) = nodes.checked_sub(cases).filter(|idle| *idle > 0) {
        let cases = count(cases, "case");
        tracing::warn!("{plan} has {cases}: of {nodes} nodes, {idle} get none");
    }
}

fn write_paths(Scripts { run, finalize }: &Scripts, out: &mut dyn Write) -> std::io::Result<()> {
    for path in std::iter::once(run).chain(finalize) {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// Sends the scripts to Slurm and says which jobs they are.
fn submit_jobs(
    Scripts { run, finalize }: &Scripts,
    plan: &Location,
    nodes: NonZeroUsize,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let id = submit(run, None)?;
    writeln!(out, "job {id}: {plan} on {}", count(nodes.get(), "node"))?;
    if let Some(finalize) = finalize {
        // An element that failed would keep afterok waiting for ever: finalize looks for itself.
        let last = submit(finalize, Some(&id)).with_context(|| {
            format!("job {id} is queued; dor finalize it by hand when it has ended")
        })?;
        writeln!(out, "job {last}: finalize, after it")?;
    }
    writeln!(out, "how far it is: dor status --plan {plan} --shards {nodes}")?;
    Ok(())
}

impl SlurmArgs {
    /// The cases to run.
    fn choice(&self) -> Result<CaseChoice, VisError> {
        let mut choice = self.cases.choice()?;
        if self.start.is_some() || self.end.is_some() {
            let range = (self.start.unwrap_or(0), self.end.unwrap_or(POLYGONS - 1));
            in_order(Some(range))?;
            choice.ranges.push(range);
        }
        Ok(choice)
    }

    fn jobs(&self, plan: &Location, global: &GlobalArgs) -> anyhow::Result<Jobs> {
        let shards = self.nodes.get();
        if let Some(list) = self.array.as_deref().filter(|list| largest(list) >= Some(shards)) {
            let last = shards - 1;
            anyhow::bail!(VisError::Needs(format!("--array {list}: the shards are 0 to {last}")));
        }
        let own = || -> anyhow::Result<String> {
            let path = std::env::current_exe().context("cannot tell where this program is")?;
            Ok(path.display().to_string())
        };
        let program = match (&self.program, &self.container) {
            (Some(program), _) => program.clone(),
            (None, Some(_)) => "dor".to_owned(),
            (None, None) => own()?,
        };
        let mut run = global.words();
        run.extend(words(&self.choice()?));
        if let Some(memory) = &self.memory {
            run.extend(["--memory".to_owned(), memory.clone()]);
        }
        let publish_to = self.publish_to.as_ref().map(|to| to.absolute().to_string());
        let publish_to = publish_to.into_iter().flat_map(|to| ["--publish-to".to_owned(), to]);
        let finalize = global.words().into_iter().chain(publish_to);
        Ok(Jobs {
            program,
            plan: plan.to_string(),
            shards,
            array: self.array.clone(),
            qos: self.qos.clone(),
            partition: self.partition.clone(),
            time: self.time.clone(),
            finalize_time: self.finalize_time.clone(),
            account: self.account.clone(),
            constraint: self.constraint.clone(),
            cpus: self.cpus_per_task.map(NonZeroUsize::get),
            container: self.container.clone(),
            run,
            finalize: finalize.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_script_is_refused() {
        assert!(word("m1234_g").is_ok() && word("cpu&gpu").is_ok() && word("04:00:00").is_ok());
        assert!(word("a b").is_err() && word("a\n#SBATCH").is_err() && word("").is_err());
        assert!(list("3,7,10-12").is_ok() && list("3,x").is_err() && list("3-").is_err());
        assert!(list("0-15%4").is_ok() && list("0-15%0").is_err() && list("%4").is_err());
        assert!(list("7-3").is_err() && time("4h").is_err() && time("1-00:30").is_ok());
        for enough in ["10", "5:00", "00:05:00", "1-0", "1-00:00:00"] {
            assert!(time(enough).is_ok(), "{enough}");
        }
        for wrong in ["00:01:00", "0", "4:59", "1:2:3:4", "-3", "+9", "1:", ""] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
