//! `dor status`: shows the progress of a plan.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use chrono::{DateTime, Local, SecondsFormat};
use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::arguments::{PlanArgs, load};
use crate::campaign::heartbeat::{Failure, Heartbeat};
use crate::campaign::status::{
    CampaignStatus, Missing, format_array, missing, open_archive, open_outputs, status,
};
use crate::campaign::{CampaignPlan, OpenPlan, Product, ProductError};
use crate::cli::arguments::from_one;
use crate::cli::output::{Table, bytes, count, duration, write_json};
use crate::cli::signals::stop_on_signals;
use crate::cli::terminal::{InPlace, reader_is_gone};
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::executor::unless_stopped;
use crate::model::Case;
use crate::store::Store;

/// Seconds between two readings of the status.
const INTERVAL: u64 = 10;
/// Most failures, and most outdated products, that are listed.
const MAX_LISTED: usize = 20;

/// Show the progress of a plan: done, running, failed, and the shards still to run
///
/// A product is done if it has a case manifest with the files and rules of the plan. The shards write which cases are
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
    /// Read the progress every 10 seconds until all cases are done; a terminal shows the last reading only
    #[arg(long)]
    watch: bool,
}

/// A plan whose progress is read, with the stores that say it.
struct Watched {
    opened: OpenPlan,
    raw: Store,
    outputs: Vec<(Product, Store)>,
    /// Products that are done, which are not read again.
    done: BTreeSet<(Product, Case)>,
    shards: Option<usize>,
}

impl Watched {
    /// Reads the progress.
    async fn read(&mut self) -> Result<Reading, ProductError> {
        let OpenPlan { store, key, plan, .. } = &self.opened;
        let missing = missing(plan, &self.raw, &self.outputs, &mut self.done).await?;
        let heartbeats = Heartbeat::all(store, key, plan).await.map_err(ProductError::from)?;
        Ok(Reading { time: Local::now(), status: status(plan, missing, &heartbeats, self.shards) })
    }
}

/// The progress of a plan at a time.
struct Reading {
    time: DateTime<Local>,
    status: CampaignStatus,
}

impl Reading {
    /// The time in words, such as `2026-01-31 09:41:07`.
    fn time(&self) -> String {
        self.time.format("%F %T").to_string()
    }
}

impl Status {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = Config::load(&self.plan.over(global.overrides()))?;
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let mut watched = unless_stopped(&stop, self.open(&config)).await??;
        if !self.watch {
            let reading = unless_stopped(&stop, watched.read()).await??;
            self.write(out, &watched.opened.plan, &reading)?;
            return Ok(Exit::Done);
        }
        tokio::select! {
            // SIGHUP also cancels `stop`.
            biased;
            () = reader_is_gone() => Ok(Exit::Done),
            ended = self.watch(&mut watched, &stop, out) => ended.map(|()| Exit::Done),
        }
    }

    /// Opens the plan and its stores.
    async fn open(&self, config: &Config) -> anyhow::Result<Watched> {
        let opened = load(config).await?;
        let OpenPlan { stores, plan, .. } = &opened;
        plan.locations.ensure_present(&plan.products, stores).await?;
        let (raw, outputs) = (open_archive(plan, stores)?, open_outputs(plan, stores)?);
        let shards = self.shards.map(NonZeroUsize::get);
        Ok(Watched { opened, raw, outputs, done: BTreeSet::new(), shards })
    }

    /// Prints a reading.
    fn write(
        &self,
        out: &mut dyn Write,
        plan: &CampaignPlan,
        reading: &Reading,
    ) -> anyhow::Result<()> {
        if !self.json {
            return Ok(write_status(out, plan, &reading.status)?);
        }
        let time = reading.time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let Reading { status, .. } = reading;
        let cases = plan.cases.len();
        write_json(
            out,
            &json!({ "plan": plan.sha256, "time": time, "cases": cases, "status": status }),
        )
    }

    /// Shows readings until all cases are done. The last one stays on the terminal.
    async fn watch(
        &self,
        watched: &mut Watched,
        stop: &CancellationToken,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let block = if self.json { None } else { InPlace::block() };
        let Some(block) = block else { return self.watch_as_list(watched, stop, out).await };
        let mut last = String::new();
        let ended = self.watch_in_place(watched, stop, &block, &mut last).await;
        drop(block);
        write!(out, "{last}")?;
        out.flush()?;
        ended
    }

    /// Prints readings one after another, each with its time.
    async fn watch_as_list(
        &self,
        watched: &mut Watched,
        stop: &CancellationToken,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        loop {
            let reading = unless_stopped(stop, watched.read()).await??;
            let plan = &watched.opened.plan;
            if !self.json {
                writeln!(out, "{}", reading.time())?;
            }
            self.write(out, plan, &reading)?;
            out.flush()?;
            if reading.status.done == plan.cases.len() {
                return Ok(());
            }
            unless_stopped(stop, tokio::time::sleep(Duration::from_secs(INTERVAL))).await?;
        }
    }

    /// Draws each reading in place of the one before, with the time until the next. `last` receives the last one.
    async fn watch_in_place(
        &self,
        watched: &mut Watched,
        stop: &CancellationToken,
        block: &InPlace,
        last: &mut String,
    ) -> anyhow::Result<()> {
        block.set_lines("reading");
        loop {
            let reading = unless_stopped(stop, watched.read()).await??;
            let (time, plan) = (reading.time(), &watched.opened.plan);
            let mut lines = Vec::new();
            self.write(&mut lines, plan, &reading)?;
            let lines = String::from_utf8_lossy(&lines);
            *last = format!("{time}\n{lines}");
            if reading.status.done == plan.cases.len() {
                return Ok(());
            }
            for left in (1..=INTERVAL).rev() {
                block.set_lines(&format!("{time}, next reading in {left} s\n{lines}"));
                unless_stopped(stop, tokio::time::sleep(Duration::from_secs(1))).await?;
            }
            block.set_lines(&format!("{time}, reading again\n{lines}"));
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
    for (product, counts) in &status.products {
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
        let products: Vec<_> = failure.products.iter().map(|product| product.name()).collect();
        writeln!(out, "failed: {case}, {}: {}", products.join(" and "), failure.error)?;
    }
    if failures.len() > MAX_LISTED {
        writeln!(out, "and {} more failed; --json lists all", failures.len() - MAX_LISTED)?;
    }
    Ok(())
}

/// Lists the products whose case manifests differ from the plan.
fn write_outdated(out: &mut dyn Write, outdated: &[Missing]) -> io::Result<()> {
    for Missing { case, stage: product, problem } in outdated.iter().take(MAX_LISTED) {
        writeln!(out, "not as planned: {case}, {product}: {problem}")?;
    }
    if outdated.len() > MAX_LISTED {
        writeln!(out, "and {} more not as planned; --json lists all", outdated.len() - MAX_LISTED)?;
    }
    Ok(())
}
