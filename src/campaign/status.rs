//! How far a plan is: from the records of its cases, and from what its shards tell. Done is what was made of
//! what the plan names, under its rules.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Serialize, Serializer};

use super::heartbeat::{Failure, Heartbeat};
use super::{CampaignPlan, PlannedCase, Product, ProductError, Shard};
use crate::case_manifest::{COMPLETE, CaseManifest, CaseManifestError, InputRecord, InputState};
use crate::model::Case;
use crate::research::plan::raw_folder;
use crate::research::status::wrong_outputs;
use crate::research::{RECIPE, folder};
use crate::store::{ObjectMeta, Store, StoreError, StoreRegistry};
use crate::vis::earlier::{RAW_HISTORY, source};
use crate::vis::record::CaseRecord;
use crate::vis::{VisError, store3};

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
pub struct CampaignStatus {
    /// Each product.
    pub stages: BTreeMap<Product, Counts>,
    /// Cases of which every product is done.
    pub done: usize,
    /// Cases that failed last time, and why.
    pub failed: BTreeMap<String, Vec<Failure>>,
    /// What was made, but not as the plan has it.
    pub outdated: Vec<Missing>,
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
    pub stage: Product,
    /// What is wrong.
    pub problem: Problem,
}

/// Why a product of a case is not what a plan asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not made, or not to its end.
    #[error("there is no record of it")]
    Absent,
    /// Its record cannot be used.
    #[error("{0} (dor run --force)")]
    Damaged(String),
    /// The store is another.
    #[error("it is a result of {0}: the plan has the place of another store")]
    Store(String),
    /// Made by another version, or with or without the known defects.
    #[error(
        "it was made under other rules than the plan's, which one store must not mix: give another store"
    )]
    Rules,
    /// Made of other raw files.
    #[error(
        "it was made of {} files of {} bytes, the plan has {} of {}{}", .found.0, .found.1, .planned.0, .planned.1,
hint(.found.0, .planned.0)
    )]
    Files {
        /// Number and bytes of the files it was made of.
        found: (usize, u64),
        /// Those of the plan.
        planned: (usize, u64),
    },
    /// Made of something else than raw files.
    #[error("it was made of {0}, the plan makes it of {RAW_HISTORY} (dor run --force)")]
    Source(&'static str),
    /// Made with another file beside the archive.
    #[error(
        "it was made with another {0} than the plan's (make a plan with that one, or dor run --force)"
    )]
    Given(&'static str),
    /// Made without a grid file, where the plan has one.
    #[error("it was made without the plan's grid (dor run makes it again)")]
    NoGrid,
    /// A raw file has other bytes by now.
    #[error("{0} has other bytes than recorded (dor run makes it again)")]
    Input(String),
    /// A file is not as its record has it.
    #[error("{0} (dor run makes it again)")]
    Output(String),
}

/// What to do about a result of other files.
fn hint(found: usize, planned: usize) -> &'static str {
    match found.cmp(&planned) {
        Ordering::Greater => " (dor run --force gives up what is gone)",
        Ordering::Equal => " (make another plan where the archive has changed, then dor run)",
        Ordering::Less => "",
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The archive of a plan.
pub fn archive(plan: &CampaignPlan, stores: &StoreRegistry) -> Result<Store, VisError> {
    let needed = || VisError::Needs("the plan names no data_dir".to_owned());
    Ok(stores.open(plan.places.data_dir.as_ref().ok_or_else(needed)?)?)
}

/// Where the products of a plan are.
pub fn outputs(
    plan: &CampaignPlan,
    stores: &StoreRegistry,
) -> Result<Vec<(Product, Store)>, VisError> {
    let open = |stage: &Product| {
        let place = plan.places.of(*stage);
        let needed = || VisError::Needs(format!("the plan names no place for {stage}"));
        Ok((*stage, stores.open(place.ok_or_else(needed)?)?))
    };
    plan.stages.iter().map(open).collect()
}

/// The first of the problems that is one.
fn compare(problems: impl IntoIterator<Item = (bool, Problem)>) -> Option<Problem> {
    problems.into_iter().find_map(|(is_right, problem)| (!is_right).then_some(problem))
}

/// What a product of a case was made of, when it is what the plan asks for; else why not.
async fn inputs_of(
    plan: &CampaignPlan,
    (stage, store): (Product, &Store),
    (case, planned): (Case, &PlannedCase),
) -> Result<Result<Vec<InputRecord>, Problem>, ProductError> {
    let grid = plan.givens.grid_sha256.as_deref();
    let with_grid = |recorded: Option<&str>, wanted: Option<&str>| {
        let is_worse = recorded.is_none() && wanted.is_some();
        (recorded == wanted, if is_worse { Problem::NoGrid } else { Problem::Given("grid") })
    };
    let of_files = |inputs: &mut dyn Iterator<Item = &InputRecord>| {
        let found = inputs.fold((0, 0), |(n, bytes), input| (n + 1, bytes + input.size));
        let planned = (planned.files, planned.bytes);
        (found == planned, Problem::Files { found, planned })
    };
    if stage == Product::Research {
        let record = CaseManifest::load(store, &folder(case), COMPLETE).await;
        let record = match record {
            Err(error @ (CaseManifestError::Damaged { .. } | CaseManifestError::Format { .. })) => {
                return Ok(Err(Problem::Damaged(error.to_string())));
            }
            record => record.map_err(crate::research::PlanError::from)?,
        };
        let Some(record) = record else { return Ok(Err(Problem::Absent)) };
        let found = compare([
            (record.recipe.version == RECIPE, Problem::Rules),
            of_files(&mut record.files.iter().map(|file| &file.input)),
            with_grid(record.recipe.grid_sha256.as_deref(), grid),
        ]);
        let wrong = match found.is_none() && store.can_list() {
            true => wrong_outputs(&record, &store.list(&folder(case)).await?),
            false => Vec::new(),
        };
        let found = found.or_else(|| wrong.into_iter().next().map(Problem::Output));
        let inputs = || record.files.into_iter().map(|file| file.input).collect();
        return Ok(found.map_or_else(|| Ok(inputs()), Err));
    }
    let record = match CaseRecord::load(store, case).await {
        Err(error @ (VisError::Record { .. } | VisError::Format { .. })) => {
            return Ok(Err(Problem::Damaged(error.to_string())));
        }
        record => record?,
    };
    let Some(record) = record else { return Ok(Err(Problem::Absent)) };
    let grid_before = record.settings.grid_sha256.as_deref();
    let is_ssh = match (&record.settings.ssh, &plan.givens.ssh) {
        // Only maps that need one are recorded with it.
        (None, _) | (_, None) => true,
        (Some(recorded), Some(planned)) => recorded.is_content(planned),
    };
    let made_of = source(&record.inputs);
    let of_all = [
        (record.store == stage.name(), Problem::Store(record.store.clone())),
        (record.recipe == plan.recipe(stage), Problem::Rules),
        (made_of == RAW_HISTORY, Problem::Source(made_of)),
        of_files(&mut record.inputs.iter()),
    ];
    // What decides, in the words of those who fill the stores.
    let of_givens = match stage {
        // With the known defects, the grid is that of the raw files.
        Product::Store2 => vec![
            with_grid(grid_before, grid.filter(|_| !plan.reference_compat)),
            (is_ssh, Problem::Given("series of sea surface height")),
        ],
        Product::Store3 => {
            let wanted = planned.center.map(|center| store3::settings(center, grid));
            vec![
                with_grid(grid_before, grid),
                (wanted.as_ref() == Some(&record.settings), Problem::Given("centre")),
            ]
        }
        Product::Research | Product::Store1 => Vec::new(),
    };
    let found = compare(of_all.into_iter().chain(of_givens));
    Ok(found.map_or_else(|| Ok(record.inputs), Err))
}

/// The first of the inputs that has other bytes by now. One that is gone takes nothing from what was made
/// of it, nor does one whose content nobody knows.
async fn changed(
    raw: &Store,
    present: &[ObjectMeta],
    inputs: &[InputRecord],
) -> Result<Option<Problem>, StoreError> {
    for input in inputs {
        let Some(info) = present.iter().find(|info| info.key == input.key) else { continue };
        if input.compare(raw, info).await? == InputState::Changed {
            return Ok(Some(Problem::Input(raw.location().join(&input.key).to_string())));
        }
    }
    Ok(None)
}

/// What a plan asks for and what is not there, or was not made as the plan has it of what is in the
/// archive `raw`; but for what is `done` already, where what is found to be goes too.
pub async fn missing(
    plan: &CampaignPlan,
    raw: &Store,
    outputs: &[(Product, Store)],
    done: &mut BTreeSet<(Product, Case)>,
) -> Result<Vec<Missing>, ProductError> {
    let known = &*done;
    let look = async |(case, planned): (Case, &PlannedCase)| {
        let mut found = Vec::new();
        let mut present = None;
        for (stage, store) in outputs.iter().filter(|(stage, _)| !known.contains(&(*stage, case))) {
            let problem = match inputs_of(plan, (*stage, store), (case, planned)).await? {
                Err(problem) => Some(problem),
                Ok(_) if !raw.can_list() => None,
                Ok(inputs) => {
                    if present.is_none() {
                        present = Some(raw.list(&raw_folder(case)).await?);
                    }
                    changed(raw, present.as_deref().unwrap_or_default(), &inputs).await?
                }
            };
            found.push((*stage, case, problem));
        }
        Ok::<_, ProductError>(found)
    };
    let cases = plan.cases().zip(&plan.cases).map(|((_, case), planned)| (case, planned));
    let looked = stream::iter(cases).map(look).buffered(READS);
    let mut looked: Vec<_> = looked.try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
    looked.sort_by_key(|(stage, ..)| *stage);
    let mut missing = Vec::new();
    for (stage, case, problem) in looked {
        match problem {
            None => _ = done.insert((stage, case)),
            Some(problem) => missing.push(Missing { case: case.short(), stage, problem }),
        }
    }
    Ok(missing)
}

/// How far a plan is of which this is missing; `shards` is the number of shards that what is left is
/// distributed over, when it is not that of the shard that was at work last.
pub fn status(
    plan: &CampaignPlan,
    missing: Vec<Missing>,
    marks: &[Heartbeat],
    shards: Option<usize>,
) -> CampaignStatus {
    let mut marks: Vec<&Heartbeat> = marks.iter().collect();
    marks.sort_by_key(|mark| mark.renewed);
    let alive: Vec<&&Heartbeat> = marks.iter().filter(|mark| mark.is_alive()).collect();
    let running: BTreeSet<&String> = alive.iter().flat_map(|mark| &mark.running).collect();
    // What a later run tells of a case counts.
    let failed: BTreeMap<&String, &Vec<Failure>> =
        marks.iter().flat_map(|mark| &mark.failed).collect();
    let has_failed = |case: &String, stage: Product| {
        failed.get(case).is_some_and(|all| all.iter().any(|f| f.stages.contains(&stage)))
    };
    let mut status = CampaignStatus {
        bytes: plan.bytes(),
        rate: alive.iter().map(|mark| mark.rate()).fold(0.0, |sum, rate| sum + rate),
        at_work: alive.len(),
        shards: shards.or(marks.last().map(|mark| mark.shards)),
        ..CampaignStatus::default()
    };
    let absent: BTreeSet<(Product, &str)> =
        missing.iter().map(|missing| (missing.stage, missing.case.as_str())).collect();
    for stage in &plan.stages {
        let counts = status.stages.entry(*stage).or_default();
        for planned in &plan.cases {
            let case = &planned.case;
            let of = match () {
                () if !absent.contains(&(*stage, case)) => &mut counts.done,
                () if running.contains(case) => &mut counts.running,
                () if has_failed(case, *stage) => &mut counts.failed,
                () => &mut counts.waiting,
            };
            *of += 1;
        }
    }
    let open: BTreeSet<&str> = absent.iter().map(|(_, case)| *case).collect();
    for ((n, case), planned) in plan.cases().zip(&plan.cases) {
        let short = case.short();
        if !open.contains(short.as_str()) {
            status.done += 1;
            status.bytes_done += planned.bytes;
            continue;
        }
        if let Some(failures) = failed.get(&short).filter(|_| !running.contains(&short)) {
            status.failed.insert(short, failures.to_vec());
        }
        status.to_run.extend(status.shards.map(|of| Shard::of_case(n, of).index));
    }
    status.to_run.sort_unstable();
    status.to_run.dedup();
    status.outdated =
        missing.into_iter().filter(|missing| missing.problem != Problem::Absent).collect();
    status
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
