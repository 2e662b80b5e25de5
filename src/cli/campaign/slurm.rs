//! `dor slurm`: a plan on the nodes of a Slurm cluster.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::arguments::{PlanArgs, load};
use crate::campaign::OpenPlan;
use crate::campaign::slurm::Jobs;
use crate::cli::arguments::{from_one, in_order, polygon};
use crate::cli::output::count;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::store::Location;
use crate::vis::VisError;

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
    /// First polygon
    #[arg(long, value_name = "ID", value_parser = polygon)]
    start: Option<u16>,
    /// Last polygon
    #[arg(long, value_name = "ID", value_parser = polygon)]
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
    /// Publish what was put together here; not with --start and --end, after which nothing is
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["start", "end"])]
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
        let OpenPlan { location: plan, plan: cases, .. } = load(&config).await?;
        let (cases, nodes) = (cases.cases.len(), options.nodes.get());
        if let Some(idle) = nodes.checked_sub(cases).filter(|idle| *idle > 0) {
            let cases = count(cases, "case");
            tracing::warn!("{plan} has {cases}: of {nodes} nodes, {idle} get none");
        }
        let jobs = options.jobs(&plan, global)?;
        std::fs::create_dir_all(&options.output)
            .with_context(|| format!("cannot make the folder {}", options.output.display()))?;
        let write = |name: &str, text: String| {
            let path = options.output.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            anyhow::Ok(path)
        };
        let run = write("dor-run.sbatch", jobs.run_script())?;
        // Polygons that were left out would be missing.
        let finalizes = options.range().is_none();
        let finalize = match finalizes {
            true => Some(write("dor-finalize.sbatch", jobs.finalize_script())?),
            false => {
                // One of an earlier call would put together what is not all there.
                let _ = std::fs::remove_file(options.output.join("dor-finalize.sbatch"));
                None
            }
        };
        if !submits {
            for path in [Some(run), finalize].into_iter().flatten() {
                writeln!(out, "{}", path.display())?;
            }
            return Ok(Exit::Done);
        }
        let id = submit(&run, None)?;
        writeln!(out, "job {id}: {plan} on {}", count(options.nodes.get(), "node"))?;
        if let Some(finalize) = finalize {
            // An element that failed would keep afterok waiting for ever: finalize looks for itself.
            let last = submit(&finalize, Some(&id)).with_context(|| {
                format!("job {id} is queued; dor finalize it by hand when it has ended")
            })?;
            writeln!(out, "job {last}: finalize, after it")?;
        }
        writeln!(out, "how far it is: dor status --plan {plan} --shards {}", options.nodes)?;
        Ok(Exit::Done)
    }
}

impl SlurmArgs {
    fn range(&self) -> Option<(u16, u16)> {
        let (start, end) = (self.start, self.end);
        let given = start.is_some() || end.is_some();
        given.then(|| (start.unwrap_or(0), end.unwrap_or(crate::model::case::POLYGONS - 1)))
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
        if let Some((start, end)) = self.range() {
            in_order(Some((start, end)))?;
            run.extend(["--polygon-range".to_owned(), start.to_string(), end.to_string()]);
        }
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

/// Sends a script to Slurm, to run after another job has ended; its number.
fn submit(script: &Path, after: Option<&str>) -> anyhow::Result<String> {
    let mut sbatch = Process::new("sbatch");
    sbatch.arg("--parsable");
    if let Some(after) = after {
        sbatch.arg(format!("--dependency=afterany:{after}"));
    }
    let output = sbatch
        .arg(script)
        .output()
        .context("cannot run sbatch: is this a login node of a Slurm cluster?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        anyhow::bail!("sbatch refused {}: {}", script.display(), said.trim());
    }
    // With several clusters, the cluster's name follows.
    let id = String::from_utf8_lossy(&output.stdout);
    let number = id.trim().split(';').next().unwrap_or_default();
    match !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(number.to_owned()),
        false => anyhow::bail!("sbatch told no number of a job for {}: {id:?}", script.display()),
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
