//! How far a plan is: from the records of its cases, and from what its shards tell.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::mark::{Failure, Mark};
use super::{Plan, Shard, Stage, StageError};
use crate::ledger::{COMPLETE, Record};
use crate::model::Case;
use crate::research::{RECIPE, folder};
use crate::store::{Store, Stores};
use crate::vis::VisError;
use crate::vis::record::CaseRecord;

/// Records that are looked for at the same time.
const READS: usize = 32;

/// How far a product is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Cases that are done.
    pub done: usize,
    /// Cases that are being worked on.
    pub running: usize,
    /// Cases that failed last time.
    pub failed: usize,
    /// Cases that wait.
    pub waiting: usize,
}

/// How far a plan is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Each product.
    pub stages: BTreeMap<Stage, Counts>,
    /// Cases of which every product is done.
    pub done: usize,
    /// Cases that failed last time, and why.
    pub failed: BTreeMap<String, Vec<Failure>>,
    /// Bytes of the raw files of all cases.
    pub bytes: u64,
    /// Bytes of those of the cases that are done.
    pub bytes_done: u64,
    /// Bytes that the shards at work read a second.
    pub rate: f64,
    /// Shards at work.
    pub at_work: usize,
    /// Number of shards that the rest is distributed over.
    pub shards: Option<usize>,
    /// Shards that have something to do.
    pub to_run: Vec<usize>,
}

/// Something that a plan asks for and that is not there as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Case in short.
    pub case: String,
    /// Product.
    pub stage: Stage,
    /// What is wrong.
    pub problem: String,
}

/// Where the products of a plan are.
pub fn outputs(plan: &Plan, stores: &Stores) -> Result<Vec<(Stage, Store)>, VisError> {
    let open = |stage: &Stage| {
        let place = plan.places.of(*stage);
        let needed = || VisError::Needs(format!("the plan names no place for {stage}"));
        Ok((*stage, stores.open(place.ok_or_else(needed)?)?))
    };
    plan.stages.iter().map(open).collect()
}

/// Cases of the plan of which a product has a record.
async fn recorded(stage: Stage, store: &Store, plan: &Plan) -> Result<BTreeSet<Case>, StageError> {
    if stage != Stage::Research {
        return Ok(CaseRecord::cases(store).await?.into_iter().collect());
    }
    let find = async |(_, case): (usize, Case)| {
        let found = store.find(&format!("{}/{COMPLETE}", folder(case))).await?;
        Ok::<_, StageError>(found.map(|_| case))
    };
    let found = stream::iter(plan.cases()).map(find).buffer_unordered(READS);
    found.try_filter_map(async |case| Ok(case)).try_collect().await
}

/// How far a plan is; `shards` is the number of shards that what is left is distributed over, when it is
/// not that of the shard that was at work last.
pub async fn status(
    plan: &Plan,
    outputs: &[(Stage, Store)],
    marks: &[Mark],
    shards: Option<usize>,
) -> Result<Status, StageError> {
    let mut marks: Vec<&Mark> = marks.iter().collect();
    marks.sort_by_key(|mark| mark.renewed);
    let alive: Vec<&&Mark> = marks.iter().filter(|mark| mark.is_alive()).collect();
    let running: BTreeSet<&String> = alive.iter().flat_map(|mark| &mark.running).collect();
    // What a later run tells of a case counts.
    let failed: BTreeMap<&String, &Vec<Failure>> =
        marks.iter().flat_map(|mark| &mark.failed).collect();
    let has_failed = |case: &String, stage: Stage| {
        failed.get(case).is_some_and(|all| all.iter().any(|f| f.stages.contains(&stage)))
    };
    let mut status = Status {
        bytes: plan.bytes(),
        rate: alive.iter().map(|mark| mark.rate()).fold(0.0, |sum, rate| sum + rate),
        at_work: alive.len(),
        shards: shards.or(marks.last().map(|mark| mark.shards)),
        ..Status::default()
    };
    let mut open: BTreeSet<Case> = BTreeSet::new();
    for (stage, store) in outputs {
        let recorded = recorded(*stage, store, plan).await?;
        let counts = status.stages.entry(*stage).or_default();
        for (_, case) in plan.cases() {
            let short = case.short();
            if recorded.contains(&case) {
                counts.done += 1;
                continue;
            }
            open.insert(case);
            let of = match () {
                () if running.contains(&short) => &mut counts.running,
                () if has_failed(&short, *stage) => &mut counts.failed,
                () => &mut counts.waiting,
            };
            *of += 1;
        }
    }
    for ((n, case), planned) in plan.cases().zip(&plan.cases) {
        if !open.contains(&case) {
            status.done += 1;
            status.bytes_done += planned.bytes;
            continue;
        }
        let short = case.short();
        if let Some(failures) = failed.get(&short).filter(|_| !running.contains(&short)) {
            status.failed.insert(short, failures.to_vec());
        }
        status.to_run.extend(status.shards.map(|of| Shard::of_case(n, of).index));
    }
    status.to_run.sort_unstable();
    status.to_run.dedup();
    Ok(status)
}

/// What a plan asks for and what is not there, or was not made of all its files.
pub async fn missing(plan: &Plan, outputs: &[(Stage, Store)]) -> Result<Vec<Missing>, StageError> {
    let mut missing = Vec::new();
    for (stage, store) in outputs {
        let look = async |((_, case), planned): ((usize, Case), &super::Planned)| {
            let files = match stage {
                Stage::Research => {
                    let record = Record::load(store, &folder(case), COMPLETE).await;
                    let record = record.map_err(crate::research::PlanError::from)?;
                    record.map(|record| (record.files.len(), record.recipe.version == RECIPE))
                }
                _ => CaseRecord::load(store, case)
                    .await?
                    .map(|record| (record.inputs.len(), record.recipe == plan.recipe(*stage))),
            };
            let problem = match files {
                None => "there is no record of it".to_owned(),
                Some((_, false)) => "it was made under other rules than the plan's".to_owned(),
                Some((files, _)) if files != planned.files => {
                    format!("it was made of {files} files, the plan has {}", planned.files)
                }
                Some(_) => return Ok(None),
            };
            Ok::<_, StageError>(Some(Missing { case: case.short(), stage: *stage, problem }))
        };
        let looked = stream::iter(plan.cases().zip(&plan.cases)).map(look).buffered(READS);
        let found: Vec<Missing> =
            looked.try_filter_map(async |found| Ok(found)).try_collect().await?;
        missing.extend(found);
    }
    Ok(missing)
}

/// Numbers as Slurm's `--array` takes them: `3,7,10-12`.
pub fn array(numbers: &[usize]) -> String {
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
        assert_eq!(array(&[]), "");
        assert_eq!(array(&[3, 7, 10, 11, 12]), "3,7,10-12");
        assert_eq!(array(&[0, 1]), "0-1");
    }
}
