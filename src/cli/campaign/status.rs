//! `dor status`: how far a plan is.

use std::collections::BTreeSet;
use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::arguments::{PlanArgs, load};
use crate::campaign::heartbeat::Heartbeat;
use crate::campaign::status::{CampaignStatus, Missing, archive, array, missing, outputs, status};
use crate::campaign::{CampaignPlan, OpenPlan, ProductError};
use crate::cli::arguments::from_one;
use crate::cli::output::{Table, bytes, count, duration, write_json};
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;

/// Time between two looks.
const PAUSE: Duration = Duration::from_secs(10);
/// Failures that are shown.
const SHOWN: usize = 20;

/// Tell how far a plan is: done, running, failed, and which shards are still to run
///
/// Done is what has a record of the plan's files and rules; running and failed is what the shards tell beside
/// the plan.
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    plan: PlanArgs,
    /// Number of shards [default: that of the last run]
    #[arg(long, value_name = "N", value_parser = from_one)]
    shards: Option<NonZeroUsize>,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Look again every 10 seconds, until all is done
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = Config::load(&self.plan.over(global.overrides()))?;
        let OpenPlan { stores, store, key, plan, .. } = load(&config).await?;
        plan.places.refuse_absent(&plan.stages, &stores).await?;
        let (raw, outputs) = (archive(&plan, &stores)?, outputs(&plan, &stores)?);
        // What is done stays so.
        let mut done = BTreeSet::new();
        loop {
            let missing = missing(&plan, &raw, &outputs, &mut done).await?;
            let marks = Heartbeat::all(&store, &key, &plan).await.map_err(ProductError::from)?;
            let shards = self.shards.map(NonZeroUsize::get);
            let found = status(&plan, missing, &marks, shards);
            match self.json {
                true => write_json(
                    out,
                    &json!({ "plan": plan.sha256, "cases": plan.cases.len(), "status": found }),
                )?,
                false => write_status(out, &plan, &found)?,
            }
            out.flush()?;
            if !self.watch || found.done == plan.cases.len() {
                return Ok(Exit::Done);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn write_status(
    out: &mut dyn Write,
    plan: &CampaignPlan,
    found: &CampaignStatus,
) -> anyhow::Result<()> {
    let mut table = Table::new(["", "done", "running", "failed", "waiting"]);
    for (stage, counts) in &found.stages {
        let numbers = [counts.done, counts.running, counts.failed, counts.waiting];
        let [done, running, failed, waiting] = numbers.map(|n| n.to_string());
        table.row([stage.to_string(), done, running, failed, waiting]);
    }
    table.write(out)?;
    let of = count(plan.cases.len(), "case");
    writeln!(out, "{} of {of}, {} of {}", found.done, bytes(found.bytes_done), bytes(found.bytes))?;
    if found.at_work > 0 {
        let left = found.bytes.saturating_sub(found.bytes_done) as f64 / found.rate.max(1.0);
        let at_work = count(found.at_work, "shard");
        write!(out, "{at_work} at work, {}/s", bytes(found.rate as u64))?;
        match found.rate > 0.0 {
            true => writeln!(out, ", about {} left", duration(Duration::from_secs_f64(left)))?,
            false => writeln!(out)?,
        }
    }
    let failures = found.failed.iter().flat_map(|(case, all)| all.iter().map(move |f| (case, f)));
    for (case, failure) in failures.clone().take(SHOWN) {
        let stages: Vec<_> = failure.stages.iter().map(|stage| stage.name()).collect();
        writeln!(out, "failed: {case}, {}: {}", stages.join(" and "), failure.error)?;
    }
    for Missing { case, stage, problem } in found.outdated.iter().take(SHOWN) {
        writeln!(out, "not as planned: {case}, {stage}: {problem}")?;
    }
    if found.outdated.len() > SHOWN {
        writeln!(out, "and {} more not as planned", found.outdated.len() - SHOWN)?;
    }
    let more = failures.count().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(out, "and {more} more; --json tells all")?;
    }
    if let (Some(shards), false) = (found.shards, found.to_run.is_empty()) {
        writeln!(out, "still to run, of {shards} shards: --array={}", array(&found.to_run))?;
    }
    Ok(())
}
