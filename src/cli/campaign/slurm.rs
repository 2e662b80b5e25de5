//! `dor slurm`: runs a plan on the nodes of a Slurm cluster.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::arguments::{PlanArgs, load};
use crate::campaign::OpenPlan;
use crate::campaign::slurm::{Jobs, Scripts, submit};
use crate::case_manifest::enclosing_results;
use crate::cli::arguments::{CaseArgs, from_one, in_order, polygon, words};
use crate::cli::exit::UsageError;
use crate::cli::output::count;
use crate::cli::report::{Report, ReportArgs};
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::model::case::POLYGONS;
use crate::store::Location;
use crate::vis::VisError;
use crate::vis::cases::CaseChoice;

/// Run a plan on the nodes of a Slurm cluster
///
/// Creates an array job, in which each element runs one shard on one node, and a job after it that finalizes the
/// products. An element that Slurm stops (at its time limit, or by preemption) queues itself again.
#[derive(Args, Debug)]
pub(crate) struct Slurm {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write the job scripts, dor-run.sbatch and dor-finalize.sbatch
    Script(SlurmArgs),
    /// Write the job scripts and submit them to Slurm
    Submit(SlurmArgs),
}

#[derive(Args, Debug)]
struct SlurmArgs {
    #[command(flatten)]
    plan: PlanArgs,
    /// Number of nodes, which is also the number of shards and of array elements
    #[arg(long, value_name = "N", value_parser = from_one)]
    nodes: NonZeroUsize,
    /// Only these array elements, as `dor status` prints them: 3,7,10-12; %2 at the end runs two at a time. The number of shards does not change
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
    /// Quality of service of the jobs, such as regular or preempt
    #[arg(long, value_name = "QOS", value_parser = word)]
    qos: Option<String>,
    /// Partition of the jobs
    #[arg(long, value_name = "NAME", value_parser = word)]
    partition: Option<String>,
    /// Time limit of an array element
    #[arg(long, value_name = "HH:MM:SS", default_value = "04:00:00", value_parser = time)]
    time: String,
    /// Time limit of the job that finalizes the products and publishes them
    #[arg(long, value_name = "HH:MM:SS", default_value = "01:00:00", value_parser = time)]
    finalize_time: String,
    /// Account to charge
    #[arg(long, value_name = "NAME", value_parser = word)]
    account: Option<String>,
    /// Feature of the nodes, such as cpu
    #[arg(long, value_name = "FEATURE", value_parser = word)]
    constraint: Option<String>,
    /// Processors of a node, on clusters where Slurm does not allocate all
    #[arg(long, value_name = "N", value_parser = from_one)]
    cpus_per_task: Option<NonZeroUsize>,
    /// Run in this container image, with Shifter
    #[arg(long, value_name = "IMAGE", value_parser = word)]
    container: Option<String>,
    /// Program on the nodes [default: this program; `dor` with --container]
    #[arg(long, value_name = "PATH")]
    program: Option<String>,
    /// Memory limit of a node, such as 400GB [default: that of the job]
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    memory: Option<String>,
    /// Publish the finalized products to this destination; not with a choice of cases, after which nothing is finalized
    #[arg(long, value_name = "LOCATION", conflicts_with_all = ["polygons", "polygon_range", "months", "cases", "start", "end"])]
    publish_to: Option<Location>,
    /// Folder of the job scripts
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    #[command(flatten)]
    report: ReportArgs,
}

/// Parses a word for a line of a script: no spaces, and no characters that a shell or Slurm interprets.
fn word(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+&|*".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("give one word of letters, digits and -_./:@+&|*".to_owned()),
    }
}

/// Parses a time limit in a form of Slurm, at least 5 minutes.
fn time(text: &str) -> Result<String, String> {
    match minutes(text) {
        None => Err("give hours, minutes and seconds, such as 04:00:00".to_owned()),
        Some(0..5) => Err("give at least 5 minutes; stopping takes the last two".to_owned()),
        Some(_) => Ok(text.to_owned()),
    }
}

/// Returns the whole minutes of a time in the form `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S`.
fn minutes(text: &str) -> Option<u64> {
    // `parse` would accept a sign.
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

/// Checks an amount of memory, and returns the text unchanged.
fn memory(text: &str) -> Result<String, String> {
    crate::cli::arguments::size(text).map(|_| text.to_owned())
}

/// Returns the largest number of a list, such as `3,7,10-12` or `0-15%4`. `None`: the list is not valid.
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

/// Checks a list of array elements, and returns the text unchanged.
fn list(text: &str) -> Result<String, String> {
    let expected = || "give numbers and ranges, such as 3,7,10-12".to_owned();
    largest(text).map(|_| text.to_owned()).ok_or_else(expected)
}

impl Slurm {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let (options, submits) = match self.action {
            Action::Script(options) => (options, false),
            Action::Submit(options) => (options, true),
        };
        let config = Config::load(&options.plan.over(global.overrides()))?;
        // A plan that cannot be read must fail here, not on the nodes.
        let OpenPlan { location, plan, .. } = load(&config).await?;
        warn_of_idle_nodes(&location, plan.cases.len(), options.nodes.get());
        let jobs = options.jobs(&location, global)?;
        // With a choice of cases, finalize would find the other cases missing, so it gets no script.
        let finalizes = options.choice()?.is_all();
        let mut report = options.report.report(out);
        if options.report.dry_run {
            write_texts(&jobs, finalizes, &mut report)?;
            report.end()?;
            return Ok(Exit::Done);
        }
        let folder = stores(&config).open(&Location::from(options.output.clone()))?;
        if let Some(other) = enclosing_results(&folder).await {
            let folder = options.output.display();
            let problem =
                format!("{folder} lies in {other}, which holds data; give another --output");
            return Err(VisError::Settings(problem).into());
        }
        let scripts = jobs.write_scripts(&options.output, finalizes)?;
        let paths = std::iter::once(&scripts.run).chain(&scripts.finalize);
        report.set("scripts", paths.map(|path| json!(path.display().to_string())).collect());
        match submits {
            true => submit_jobs(&scripts, &location, options.nodes, &mut report)?,
            false => write_paths(&scripts, &mut report)?,
        }
        report.end()?;
        Ok(Exit::Done)
    }
}

/// Warns when there are more nodes than cases.
fn warn_of_idle_nodes(plan: &Location, cases: usize, nodes: usize) {
    if let Some(idle) = nodes.checked_sub(cases).filter(|idle| *idle > 0) {
        let cases = count(cases, "case");
        tracing::warn!("{plan} has {cases}: {idle} of {nodes} nodes get no case; lower --nodes");
    }
}

/// Prints the texts of the scripts, for a dry run.
fn write_texts(jobs: &Jobs, finalizes: bool, out: &mut Report<'_>) -> std::io::Result<()> {
    let finalize = finalizes.then(|| jobs.finalize_script());
    for text in std::iter::once(jobs.run_script()).chain(finalize) {
        out.push("texts", json!(text));
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// Prints the paths of the scripts.
fn write_paths(Scripts { run, finalize }: &Scripts, out: &mut dyn Write) -> std::io::Result<()> {
    for path in std::iter::once(run).chain(finalize) {
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}

/// Submits the scripts to Slurm and prints the IDs of the jobs.
fn submit_jobs(
    Scripts { run, finalize }: &Scripts,
    plan: &Location,
    nodes: NonZeroUsize,
    out: &mut Report<'_>,
) -> anyhow::Result<()> {
    let id = submit(run, None)?;
    out.push("jobs", json!(id));
    writeln!(out, "job {id}: {plan} on {}", count(nodes.get(), "node"))?;
    if let Some(finalize) = finalize {
        // The job starts also after a failed element, and finalize checks that all cases are done. With
        // `afterok`, a failed element would keep the job in the queue forever.
        let last = submit(finalize, Some(&id)).with_context(|| {
            format!(
                "job {id} is queued, but not finalize; run dor finalize --plan {plan} after the job"
            )
        })?;
        out.push("jobs", json!(last));
        writeln!(out, "job {last}: finalize, after job {id}")?;
    }
    writeln!(out, "progress: dor status --plan {plan} --shards {nodes}")?;
    Ok(())
}

impl SlurmArgs {
    /// Returns the choice of cases.
    ///
    /// # Errors
    /// A range of polygons is empty.
    fn choice(&self) -> Result<CaseChoice, UsageError> {
        let mut choice = self.cases.choice()?;
        if self.start.is_some() || self.end.is_some() {
            let range = (self.start.unwrap_or(0), self.end.unwrap_or(POLYGONS - 1));
            in_order(Some(range))?;
            choice.ranges.push(range);
        }
        Ok(choice)
    }

    /// Returns the program on the nodes.
    ///
    /// # Errors
    /// The path of this program is not known.
    fn program(&self) -> anyhow::Result<String> {
        match (&self.program, &self.container) {
            (Some(program), _) => Ok(program.clone()),
            (None, Some(_)) => Ok("dor".to_owned()),
            (None, None) => {
                let path = std::env::current_exe()
                    .context("cannot find the path of this program; give --program")?;
                Ok(path.display().to_string())
            }
        }
    }

    /// Returns the jobs of a plan.
    ///
    /// # Errors
    /// `--array` has a number that is no shard, or the choice of cases is not valid.
    fn jobs(&self, plan: &Location, global: &GlobalArgs) -> anyhow::Result<Jobs> {
        let shards = self.nodes.get();
        if let Some(list) = self.array.as_deref().filter(|list| largest(list) >= Some(shards)) {
            let last = shards - 1;
            anyhow::bail!(UsageError(format!("--array {list}: the shards are 0 to {last}")));
        }
        let mut run = global.words();
        run.extend(words(&self.choice()?));
        if let Some(memory) = &self.memory {
            run.extend(["--memory".to_owned(), memory.clone()]);
        }
        let publish_to = self.publish_to.as_ref().map(|to| to.absolute().to_string());
        let publish_to = publish_to.into_iter().flat_map(|to| ["--publish-to".to_owned(), to]);
        let finalize = global.words().into_iter().chain(publish_to);
        Ok(Jobs {
            program: self.program()?,
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
    fn values_that_would_break_a_script_are_refused() {
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
