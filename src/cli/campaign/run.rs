//! `dor run`: the cases of a shard, each in one pass.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::arguments::{PlanArgs, load};
use crate::campaign::heartbeat::Failure;
use crate::campaign::run::{CaseReport, ShardOptions, ShardReport, ShardRun, stages_of};
use crate::campaign::{CampaignPlan, Product, ProductError, Shard};
use crate::cli::arguments::{CaseArgs, from_one, size, workers};
use crate::cli::output::{bytes, count, duration, eprint_line};
use crate::cli::progress::ConversionBar;
use crate::cli::signals::stop_on_signals;
use crate::cli::{Exit, GlobalArgs};
use crate::config::{Config, Overrides};
use crate::executor::{memory, unless_stopped};
use crate::vis::VisError;
use crate::research::failures;

/// Make all products of the cases of a shard, reading each raw file once
///
/// What is done already is passed over; a case that fails does not stop the others. Case i of the plan
/// belongs to shard i mod N. How far it is lies beside the plan, for `dor status`, with a log of one
/// line of JSON an event. Ends with 65 when all that failed is in the input, 78 when it is in the configuration
/// (permissions, credentials), 1 when something else did, 75 when it was told to stop.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    plan: PlanArgs,
    /// Number of shards [default: 1, all cases on this machine]
    #[arg(long, value_name = "N", value_parser = from_one)]
    shards: Option<NonZeroUsize>,
    /// This shard, from 0 [default: from the Slurm, Kubernetes or AWS Batch array]
    #[arg(long, value_name = "K")]
    shard: Option<usize>,
    /// Only these products of the plan [default: all]
    #[arg(long = "products", aliases = ["stages", "only"], value_name = "PRODUCT", value_delimiter = ',')]
    stages: Vec<Product>,
    #[command(flatten)]
    cases: CaseArgs,
    /// Files worked on at the same time [default: workers of the configuration, or all cores]
    #[arg(short, long, value_name = "N", value_parser = workers)]
    workers: Option<NonZeroUsize>,
    /// Memory to stay under, such as 400GB [default: the limit of the Slurm job, control group or machine]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    memory: Option<u64>,
    /// Make what is done once more
    #[arg(long)]
    force: bool,
}

impl Run {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let overrides = Overrides { workers: self.workers, ..self.plan.over(global.overrides()) };
        let config = Config::load(&overrides)?;
        let opened = unless_stopped(&stop, load(&config)).await??;
        let options = self.options(&opened.plan, config.workers.value.get())?;
        let run = ShardRun::begin(opened, options).await?;
        work(run, stop, out).await
    }

    fn options(&self, plan: &CampaignPlan, workers: usize) -> anyhow::Result<ShardOptions> {
        let stages = stages_of(plan, &self.stages)?;
        let shard = self.shard()?;
        let choice = self.cases.choice()?;
        let memory = self.memory.map_or_else(memory::to_use, |memory| memory / 5 * 4);
        Ok(ShardOptions { shard, stages, choice, workers, memory, force: self.force })
    }

    /// The shard of this process. Without `--shards` it is the only one, which an element of an array is not.
    fn shard(&self) -> anyhow::Result<Shard> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(shards) = self.shards else {
            let is_element = |name: &&&str| variable(name).is_some();
            if let Some(name) = Shard::VARIABLES.iter().find(is_element) {
                let needed = format!("{name} is set, so that there are several shards: give --shards N");
                return Err(VisError::Needs(needed).into());
            }
            return Ok(Shard::find(1, self.shard, |_| None)?);
        };
        Ok(Shard::find(shards.get(), self.shard, variable)?)
    }
}

/// Makes the products of a shard's cases and says how that went.
pub(crate) async fn work(
    run: ShardRun,
    stop: CancellationToken,
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let told = |case: CaseReport<'_>| write_case(out, &case);
    let done = run.work(stop, Arc::new(ConversionBar::new()), told).await;
    let done = done.and_then(|report| write_report(out, &report));
    let exit = done.as_ref().map_or_else(|error| Exit::of(error.as_ref()), |exit| *exit);
    run.end(exit as u8).await;
    done
}

/// Says how a case went, and why products of it were not made.
fn write_case(out: &mut dyn Write, report: &CaseReport<'_>) -> anyhow::Result<()> {
    let CaseReport { case, done, all, products, made, size, fetched, elapsed, failures } = report;
    let of = format!("case {case} ({done} of {all})");
    if made.len() == *products && made.iter().all(|made| made.before) {
        writeln!(out, "{of}: done before")?;
    } else {
        writeln!(
            out,
            "{of}: {} of {}, {} read of {}, {} and {} written in {}",
            made.len(),
            count(*products, "product"),
            bytes(*fetched),
            bytes(*size),
            count(made.iter().map(|made| made.objects).sum(), "object"),
            bytes(made.iter().map(|made| made.written).sum()),
            duration(*elapsed)
        )?;
    }
    out.flush()?;
    for (_, error) in *failures {
        if let ProductError::Research(error) = error {
            failures::lines(error).iter().for_each(|line| eprint_line(line));
        }
        crate::cli::report(error);
    }
    Ok(())
}

/// Says how the shard went.
fn write_report(out: &mut dyn Write, report: &ShardReport) -> anyhow::Result<Exit> {
    let ShardReport { all, done, read, elapsed, failed, failure } = report;
    if *all == 0 {
        writeln!(out, "this shard has none of the cases")?;
        return Ok(Exit::Done);
    }
    let rate = bytes((*read as f64 / elapsed.as_secs_f64().max(1e-3)) as u64);
    let (cases, read) = (count(*all, "case"), bytes(*read));
    writeln!(out, "{done} of {cases} done, {} failed, {read} read, {rate}/s", failed.len())?;
    for (case, Failure { stages, error, .. }) in
        failed.iter().flat_map(|(case, all)| all.iter().map(move |failure| (case, failure)))
    {
        let stages: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
        writeln!(out, "failed: {}, {}: {error}", case.short(), stages.join(" and "))?;
    }
    Ok(failure.map_or(Exit::Done, Exit::from))
}
