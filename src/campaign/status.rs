//! Progress of a plan, from the records of its cases and the heartbeats of its shards. A product is done when its
//! record shows the inputs, grid and rules that the plan names.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

pub use super::comparison::Problem;
use super::comparison::compare_case;
use super::heartbeat::{Failure, Heartbeat};
use super::{CampaignPlan, PlannedCase, Product, ProductError, Shard};
use crate::model::Case;
use crate::store::{Store, StoreRegistry};
use crate::vis::VisError;

/// Cases whose records are read at the same time.
const CONCURRENT_CASES: usize = 32;

/// Cases of one product by state. Each case of the plan counts once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Cases whose product is as planned.
    pub done: usize,
    /// Cases in work at a live shard.
    pub running: usize,
    /// Cases whose last attempt failed.
    pub failed: usize,
    /// All other cases.
    pub waiting: usize,
}

/// Progress of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CampaignStatus {
    /// Cases by state, for each product of the plan.
    pub products: BTreeMap<Product, Counts>,
    /// Cases with every product done.
    pub done: usize,
    /// Failures of the last attempt, by short name of the case.
    pub failed: BTreeMap<String, Vec<Failure>>,
    /// Products that exist and are not as planned.
    pub outdated: Vec<Missing>,
    /// Bytes of the raw files of all cases.
    pub bytes: u64,
    /// Bytes of the raw files of the cases that are done.
    pub bytes_done: u64,
    /// Bytes per second that the live shards read.
    pub rate: f64,
    /// Number of live shards.
    pub at_work: usize,
    /// Number of shards that the remaining cases are distributed over; `None` when no shard has run.
    pub shards: Option<usize>,
    /// Indexes of the shards that have cases left, ascending.
    pub to_run: Vec<usize>,
}

/// A product of a case that is absent or not as planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Short name of the case, `PPP-MM`.
    pub case: String,
    /// The absent or outdated product.
    pub stage: Product,
    /// Difference from the plan.
    pub problem: Problem,
}

/// Opens the archive of a plan.
///
/// # Errors
/// The plan names no `data_dir`, or the store cannot be opened.
pub fn open_archive(plan: &CampaignPlan, stores: &StoreRegistry) -> Result<Store, VisError> {
    let absent = || VisError::Settings("the plan names no data_dir".to_owned());
    Ok(stores.open(plan.locations.data_dir.as_ref().ok_or_else(absent)?)?)
}

/// Opens the output location of every product of a plan.
///
/// # Errors
/// The plan names no location for a product, or a store cannot be opened.
pub fn open_outputs(
    plan: &CampaignPlan,
    stores: &StoreRegistry,
) -> Result<Vec<(Product, Store)>, VisError> {
    let open = |product: &Product| {
        let location = plan.locations.of(*product);
        let absent = || VisError::Settings(format!("the plan names no location for {product}"));
        Ok((*product, stores.open(location.ok_or_else(absent)?)?))
    };
    plan.products.iter().map(open).collect()
}

/// Compares every product of every case with the plan and with the archive `raw`, and returns those
/// that are absent or not as planned.
///
/// Products in `done` are not compared again; those that are as planned are added to it.
///
/// # Errors
/// A record or a folder cannot be read.
pub async fn missing(
    plan: &CampaignPlan,
    raw: &Store,
    outputs: &[(Product, Store)],
    done: &mut BTreeSet<(Product, Case)>,
) -> Result<Vec<Missing>, ProductError> {
    let known = &*done;
    let compare = async |(case, planned): (Case, &PlannedCase)| {
        let is_open = |(product, _): &&(Product, Store)| !known.contains(&(*product, case));
        let open: Vec<&(Product, Store)> = outputs.iter().filter(is_open).collect();
        compare_case(plan, raw, &open, (case, planned)).await
    };
    let cases = plan.cases().zip(&plan.cases).map(|((_, case), planned)| (case, planned));
    let compared: Vec<_> =
        stream::iter(cases).map(compare).buffered(CONCURRENT_CASES).try_collect().await?;
    let mut compared: Vec<_> = compared.into_iter().flatten().collect();
    compared.sort_by_key(|(product, ..)| *product);
    let mut missing = Vec::new();
    for (stage, case, problem) in compared {
        match problem {
            None => _ = done.insert((stage, case)),
            Some(problem) => missing.push(Missing { case: case.short(), stage, problem }),
        }
    }
    Ok(missing)
}

/// What heartbeats say about cases, by short name.
struct HeartbeatSummary<'a> {
    /// Heartbeats of live shards.
    alive: Vec<&'a Heartbeat>,
    /// Cases in work at live shards.
    running: BTreeSet<&'a str>,
    /// Failures of the latest attempt.
    failed: BTreeMap<&'a str, &'a [Failure]>,
    /// Number of shards of the latest run.
    shards: Option<usize>,
}

impl<'a> HeartbeatSummary<'a> {
    fn of(heartbeats: &'a [Heartbeat]) -> Self {
        let mut heartbeats: Vec<&Heartbeat> = heartbeats.iter().collect();
        heartbeats.sort_by_key(|heartbeat| heartbeat.renewed);
        let alive: Vec<&Heartbeat> =
            heartbeats.iter().copied().filter(|heartbeat| heartbeat.is_alive()).collect();
        let running = alive.iter().copied().flat_map(|heartbeat| &heartbeat.running);
        // A later heartbeat replaces the failures of an earlier one.
        let failed = heartbeats.iter().copied().flat_map(|heartbeat| &heartbeat.failed);
        Self {
            running: running.map(String::as_str).collect(),
            failed: failed.map(|(case, all)| (case.as_str(), all.as_slice())).collect(),
            shards: heartbeats.last().map(|heartbeat| heartbeat.shards),
            alive,
        }
    }

    /// Failures of a case that is not in work again.
    fn failures(&self, case: &str) -> Option<&'a [Failure]> {
        self.failed.get(case).copied().filter(|_| !self.running.contains(case))
    }

    /// Counts the cases of a product by state. `open` has the products that are not done.
    fn count(
        &self,
        plan: &CampaignPlan,
        product: Product,
        open: &BTreeSet<(Product, &str)>,
    ) -> Counts {
        let mut counts = Counts::default();
        for planned in &plan.cases {
            let case = planned.case.as_str();
            let failures = self.failed.get(case).copied().unwrap_or_default();
            let count = match () {
                () if !open.contains(&(product, case)) => &mut counts.done,
                () if self.running.contains(case) => &mut counts.running,
                () if failures.iter().any(|failure| failure.products.contains(&product)) => {
                    &mut counts.failed
                }
                () => &mut counts.waiting,
            };
            *count += 1;
        }
        counts
    }
}

/// Progress of a plan whose missing products are known.
///
/// `shards` is the number of shards that the remaining cases are distributed over; by default that
/// of the latest run.
pub fn status(
    plan: &CampaignPlan,
    missing: Vec<Missing>,
    heartbeats: &[Heartbeat],
    shards: Option<usize>,
) -> CampaignStatus {
    let summary = HeartbeatSummary::of(heartbeats);
    let open: BTreeSet<(Product, &str)> =
        missing.iter().map(|missing| (missing.stage, missing.case.as_str())).collect();
    let counts = |product: &Product| (*product, summary.count(plan, *product, &open));
    let rates = summary.alive.iter().map(|heartbeat| heartbeat.rate());
    let mut status = CampaignStatus {
        products: plan.products.iter().map(counts).collect(),
        bytes: plan.bytes(),
        // `sum` of no rates is -0.
        rate: rates.fold(0.0, |sum, rate| sum + rate),
        at_work: summary.alive.len(),
        shards: shards.or(summary.shards),
        ..CampaignStatus::default()
    };
    let open_cases: BTreeSet<&str> = open.iter().map(|(_, case)| *case).collect();
    for ((n, case), planned) in plan.cases().zip(&plan.cases) {
        let short = case.short();
        if !open_cases.contains(short.as_str()) {
            status.done += 1;
            status.bytes_done += planned.bytes;
            continue;
        }
        if let Some(failures) = summary.failures(&short) {
            status.failed.insert(short, failures.to_vec());
        }
        status.to_run.extend(status.shards.map(|of| Shard::of_case(n, of).index));
    }
    status.to_run.sort_unstable();
    status.to_run.dedup();
    let is_outdated = |missing: &Missing| missing.problem != Problem::Absent;
    status.outdated = missing.into_iter().filter(is_outdated).collect();
    status
}

/// Writes ascending numbers as Slurm's `--array` takes them: `3,7,10-12`.
pub fn format_array(numbers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == n => *end = n,
            _ => ranges.push((n, n)),
        }
    }
    let text = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_ranges() {
        assert_eq!(format_array(&[]), "");
        assert_eq!(format_array(&[3, 7, 10, 11, 12]), "3,7,10-12");
        assert_eq!(format_array(&[0, 1]), "0-1");
    }
}
