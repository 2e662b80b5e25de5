//! `dor run`: processes the cases of a shard.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::arguments::{PlanArgs, load};
use crate::campaign::heartbeat::Failure;
use crate::campaign::run::{
    CaseReport, ShardOptions, ShardReport, ShardRun, ensure_planned, selected_products,
};
use crate::campaign::status::{missing, open_archive, open_outputs};
use crate::campaign::{CampaignPlan, OpenPlan, Product, ProductError, Shard};
use crate::cli::arguments::{CaseArgs, from_one, product, size, workers};
use crate::cli::exit::UsageError;
use crate::cli::output::{bytes, count, duration, eprint_line};
use crate::cli::progress::ConversionBar;
use crate::cli::report::{Report, ReportArgs};
use crate::cli::signals::stop_on_signals;
use crate::cli::{Exit, GlobalArgs};
use crate::config::{Config, Overrides};
use crate::executor::{memory, unless_stopped};
use crate::research::failures;

/// Make all products of the cases of a shard, and read each raw file once
///
/// Skips products that are done. A case that fails does not stop the others. Case i of the plan belongs to shard
/// i mod N. Writes its progress, and a log with one line of JSON for each event, to a folder next to the plan, for
/// `dor status`. Ends with 65 when every failure is in the input, 78 when every failure is in the configuration
/// (permissions, credentials), 1 for other failures, and 75 when a signal stopped it.
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
    #[arg(long = "products", aliases = ["stages", "only"], value_name = "PRODUCT", value_delimiter = ',', value_parser = product())]
    products: Vec<Product>,
    #[command(flatten)]
    cases: CaseArgs,
    /// Files processed at the same time [default: workers of the configuration, or all cores]
    #[arg(short, long, value_name = "N", value_parser = workers)]
    workers: Option<NonZeroUsize>,
    /// Memory limit, such as 400GB [default: that of the Slurm job, control group or machine]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    memory: Option<u64>,
    /// Make products again that are done
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    report: ReportArgs,
}

impl Run {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let overrides = Overrides { workers: self.workers, ..self.plan.over(global.overrides()) };
        let config = Config::load(&overrides)?;
        let opened = unless_stopped(&stop, load(&config)).await??;
        let options = self.options(&opened.plan, config.workers.value.get())?;
        let mut report = self.report.report(out);
        let exit = match self.report.dry_run {
            true => unless_stopped(&stop, preview(&opened, &options, &mut report)).await??,
            false => work(ShardRun::begin(opened, options).await?, stop, &mut report).await?,
        };
        report.end()?;
        Ok(exit)
    }

    /// Returns the options of the run.
    ///
    /// # Errors
    /// The plan does not have a product of `--products` or the chosen cases, or the shard or the choice of cases is not valid.
    fn options(&self, plan: &CampaignPlan, workers: usize) -> anyhow::Result<ShardOptions> {
        let products = selected_products(plan, &self.products)?;
        let shard = self.shard()?;
        let choice = self.cases.choice()?;
        ensure_planned(plan, &choice)?;
        let memory = self.memory.map_or_else(memory::budget, |memory| memory / 5 * 4);
        Ok(ShardOptions { shard, products, choice, workers, memory, force: self.force })
    }

    /// Returns the shard of this process. Without `--shards` there is one shard.
    ///
    /// # Errors
    /// The shard index is not valid, or an element of an array job has no `--shards`.
    fn shard(&self) -> anyhow::Result<Shard> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(shards) = self.shards else {
            let is_element = |name: &&&str| variable(name).is_some();
            if let Some(name) = Shard::VARIABLES.iter().find(is_element) {
                let needed = format!("{name} is set, so there are several shards; give --shards N");
                return Err(UsageError(needed).into());
            }
            return Ok(Shard::find(1, self.shard, |_| None)?);
        };
        Ok(Shard::find(shards.get(), self.shard, variable)?)
    }
}

/// Prints the products that a run would make of each case of the shard, with the number of products by reason.
/// The exit code is 78 when the run would refuse to make a product again.
///
/// # Errors
/// The plan or an output cannot be used.
async fn preview(
    OpenPlan { stores, plan, .. }: &OpenPlan,
    options: &ShardOptions,
    out: &mut Report<'_>,
) -> anyhow::Result<Exit> {
    plan.locations.ensure_present(&options.products, stores).await?;
    let own: Vec<String> = options.cases(plan).iter().map(|(case, _)| case.short()).collect();
    let mut plan = plan.clone();
    plan.cases.retain(|planned| own.contains(&planned.case));
    let (raw, mut outputs) = (open_archive(&plan, stores)?, open_outputs(&plan, stores)?);
    outputs.retain(|(product, _)| options.products.contains(product));
    let missing = missing(&plan, &raw, &outputs, &mut BTreeSet::new()).await?;
    let (mut to_make, mut refused) = (0, 0);
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &own {
        let open = |product: &Product| {
            let mut open = missing.iter().filter(|missing| missing.case == *case);
            open.find(|missing| missing.stage == *product).map(|missing| &missing.problem)
        };
        let (mut to_do, mut is_refused) = (Vec::new(), false);
        for product in &options.products {
            let reason = match open(product) {
                _ if options.force => "asked for with --force",
                None => continue,
                Some(problem) if problem.needs_force() => {
                    writeln!(out, "case {case}: cannot make {}: {problem}", product.name())?;
                    is_refused = true;
                    continue;
                }
                Some(problem) => problem.reason(),
            };
            *reasons.entry(reason).or_default() += 1;
            to_do.push(product.name());
        }
        out.push("cases", json!({ "case": case, "products": to_do, "refused": is_refused }));
        match to_do.is_empty() {
            true if is_refused => {}
            true => writeln!(out, "case {case}: done before")?,
            false => writeln!(out, "case {case}: to make {}", to_do.join(", "))?,
        }
        to_make += usize::from(!to_do.is_empty());
        refused += usize::from(is_refused);
    }
    writeln!(out, "{to_make} of {} to make", count(own.len(), "case"))?;
    for (reason, number) in reasons {
        writeln!(out, "  {}: {reason}", count(number, "product"))?;
    }
    Ok(if refused > 0 { Exit::Configuration } else { Exit::Done })
}

/// Makes the products of the cases of a shard and prints the result of each case.
///
/// # Errors
/// The shard cannot continue: the plan or an output cannot be used, or the user stops the program.
pub(crate) async fn work(
    run: ShardRun,
    stop: CancellationToken,
    out: &mut Report<'_>,
) -> anyhow::Result<Exit> {
    let report_case = |case: CaseReport<'_>| write_case(out, &case);
    let result = run.work(stop, Arc::new(ConversionBar::new()), report_case).await;
    let result = result.and_then(|report| write_report(out, &report));
    let exit = result.as_ref().map_or_else(|error| Exit::of(error.as_ref()), |exit| *exit);
    run.end(exit as u8).await;
    result
}

/// Prints the result of a case, and the errors of the products that failed.
fn write_case(out: &mut Report<'_>, report: &CaseReport<'_>) -> anyhow::Result<()> {
    let CaseReport { case, done, all, products, made, size, fetched, elapsed, failures } = report;
    let label = format!("case {} ({done} of {all})", case.short());
    let objects: usize = made.iter().map(|product| product.objects).sum();
    let written: u64 = made.iter().map(|product| product.written).sum();
    let done_before = made.len() == *products && made.iter().all(|product| product.done_before);
    out.push(
        "cases",
        json!({
            "case": case.short(), "done_before": done_before, "products_done": made.len(),
            "products": products, "bytes_read": fetched, "objects": objects, "bytes_written": written,
        }),
    );
    if done_before {
        writeln!(out, "{label}: done before")?;
    } else {
        writeln!(
            out,
            "{label}: {} of {}, {} read of {}, {} and {} written in {}",
            made.len(),
            count(*products, "product"),
            bytes(*fetched),
            bytes(*size),
            count(objects, "object"),
            bytes(written),
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

/// Prints the result of the shard, and returns the exit code.
fn write_report(out: &mut Report<'_>, report: &ShardReport) -> anyhow::Result<Exit> {
    let ShardReport { all, done, read, elapsed, failed, failure } = report;
    out.set("all", json!(all));
    out.set("done", json!(done));
    out.set("bytes_read", json!(read));
    out.set("failed", json!([]));
    if *all == 0 {
        writeln!(out, "this shard has no cases")?;
        return Ok(Exit::Done);
    }
    let rate = bytes((*read as f64 / elapsed.as_secs_f64().max(1e-3)) as u64);
    let (cases, read) = (count(*all, "case"), bytes(*read));
    writeln!(out, "{done} of {cases} done, {} failed, {read} read, {rate}/s", failed.len())?;
    for (case, failures) in failed {
        for Failure { products, error, .. } in failures {
            let products: Vec<_> = products.iter().map(|product| product.name()).collect();
            writeln!(out, "failed: {}, {}: {error}", case.short(), products.join(" and "))?;
            let failed = json!({ "case": case.short(), "products": products, "error": error });
            out.push("failed", failed);
        }
    }
    Ok(failure.map_or(Exit::Done, Exit::from))
}
