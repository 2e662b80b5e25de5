//! `dor status`: shows the progress of a plan.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::arguments::{PlanArgs, load};
use crate::campaign::heartbeat::{Failure, Heartbeat};
use crate::campaign::status::{
    CampaignStatus, Missing, format_array, missing, open_archive, open_outputs, status,
};
use crate::campaign::{CampaignPlan, OpenPlan, ProductError};
use crate::cli::arguments::from_one;
use crate::cli::output::{Table, bytes, count, duration, write_json};
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;

/// Time between two reads of the status.
const INTERVAL: Duration = Duration::from_secs(10);
/// Most failures, and most outdated products, that are listed.
const MAX_LISTED: usize = 20;

/// Show the progress of a plan: done, running, failed, and the shards still to run
///
/// A product is done if it has a record with the files and rules of the plan. The shards write which cases are
/// running or have failed to a folder next to the plan.
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    plan: PlanArgs,
    /// Number of shards [default: that of the last run]
    #[arg(long, value_name = "N", value_parser = from_one)]
    shards: Option<NonZeroUsize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the progress every 10 seconds until all cases are done
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = Config::load(&self.plan.over(global.overrides()))?;
        let OpenPlan { stores, store, key, plan, .. } = load(&config).await?;
        plan.places.ensure_present(&plan.stages, &stores).await?;
        let (raw, outputs) = (open_archive(&plan, &stores)?, open_outputs(&plan, &stores)?);
        // A product that is done is not read again.
        let mut done = BTreeSet::new();
        loop {
            let missing = missing(&plan, &raw, &outputs, &mut done).await?;
            let heartbeats =
                Heartbeat::all(&store, &key, &plan).await.map_err(ProductError::from)?;
            let shards = self.shards.map(NonZeroUsize::get);
            let status = status(&plan, missing, &heartbeats, shards);
            match self.json {
                true => write_json(
                    out,
                    &json!({ "plan": plan.sha256, "cases": plan.cases.len(), "status": status }),
                )?,
                false => write_status(out, &plan, &status)?,
            }
            out.flush()?;
            if !self.watch || status.done == plan.cases.len() {
                return Ok(Exit::Done);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Prints the progress of a plan, its failures, and the shards that are still to run.
fn write_status(
    out: &mut dyn Write,
    plan: &CampaignPlan,
    status: &CampaignStatus,
) -> io::Result<()> {
    let mut table = Table::new(["", "done", "running", "failed", "waiting"]);
    for (product, counts) in &status.stages {
        let numbers = [counts.done, counts.running, counts.failed, counts.waiting];
        let [done, running, failed, waiting] = numbers.map(|n| n.to_string());
        table.row([product.to_string(), done, running, failed, waiting]);
    }
    table.write(out)?;
    let (cases, done) = (count(plan.cases.len(), "case"), bytes(status.bytes_done));
    writeln!(out, "{} of {cases}, {done} of {}", status.done, bytes(status.bytes))?;
    write_rate(out, status)?;
    write_failures(out, status)?;
    write_outdated(out, &status.outdated)?;
    if let (Some(shards), false) = (status.shards, status.to_run.is_empty()) {
        writeln!(
            out,
            "still to run, of {shards} shards: --array={}",
            format_array(&status.to_run)
        )?;
    }
    Ok(())
}

/// Prints the number of running shards, their rate, and the remaining time.
fn write_rate(out: &mut dyn Write, status: &CampaignStatus) -> io::Result<()> {
    if status.at_work == 0 {
        return Ok(());
    }
    let running = count(status.at_work, "shard");
    write!(out, "{running} running, {}/s", bytes(status.rate as u64))?;
    if status.rate > 0.0 {
        let left = status.bytes.saturating_sub(status.bytes_done) as f64 / status.rate.max(1.0);
        write!(out, ", about {} left", duration(Duration::from_secs_f64(left)))?;
    }
    writeln!(out)
}

/// Lists the failures.
fn write_failures(out: &mut dyn Write, status: &CampaignStatus) -> io::Result<()> {
    let failures: Vec<(&String, &Failure)> = status
        .failed
        .iter()
        .flat_map(|(case, failures)| failures.iter().map(move |failure| (case, failure)))
        .collect();
    for (case, failure) in failures.iter().take(MAX_LISTED) {
        let products: Vec<_> = failure.stages.iter().map(|product| product.name()).collect();
        writeln!(out, "failed: {case}, {}: {}", products.join(" and "), failure.error)?;
    }
    if failures.len() > MAX_LISTED {
        writeln!(out, "and {} more failed; --json lists all", failures.len() - MAX_LISTED)?;
    }
    Ok(())
}

/// Lists the products whose records differ from the plan.
fn write_outdated(out: &mut dyn Write, outdated: &[Missing]) -> io::Result<()> {
    for Missing { case, stage: product, problem } in outdated.iter().take(MAX_LISTED) {
        writeln!(out, "not as planned: {case}, {product}: {problem}")?;
    }
    if outdated.len() > MAX_LISTED {
        writeln!(out, "and {} more not as planned; --json lists all", outdated.len() - MAX_LISTED)?;
    }
    Ok(())
}
