//! The cases of a shard, each in one pass.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::case_pipeline::{CaseResult, ProductError, ProductResult, Products};
use super::heartbeat::{Failure, HeartbeatWriter};
use super::{CampaignPlan, OpenPlan, PlanFileError, Product, Shard};
use crate::case_manifest;
use crate::executor::{Pool, Reader, until};
use crate::model::{Case, ErrorKind, Grid, WithErrorKind};
use crate::research::{
    ConversionContext, ConversionProgress, GridFile, NoProgress, PlanOptions, RECIPE,
};
use crate::store::{Location, Store, StoreRegistry};
use crate::vis::create::OpenStore;
use crate::vis::input::CaseSource;
use crate::vis::maps::MapOptions;
use crate::vis::store3::UptakeContext;
use crate::vis::{RunContext, VisError};

/// Cases at the same time: the second begins while the last files of the first are worked on.
const CASES: usize = 2;
/// How long a stop waits for what is under way.
const GRACE: Duration = Duration::from_secs(30);

/// Which part of a plan is done, and how.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// The shard.
    pub shard: Shard,
    /// Products of the plan that are made.
    pub stages: Vec<Product>,
    /// Of the shard's cases, those of these polygons, first and last.
    pub range: Option<(u16, u16)>,
    /// Files worked on at the same time.
    pub workers: usize,
    /// Bytes of memory for all work.
    pub memory: u64,
    /// Make what is done once more.
    pub force: bool,
}

/// How a case of a shard went.
pub struct CaseReport<'a> {
    /// The case.
    pub case: Case,
    /// Cases that are done by now.
    pub done: usize,
    /// Cases of the shard.
    pub all: usize,
    /// Products that there were to be.
    pub products: usize,
    /// Products that are there.
    pub made: &'a [ProductResult],
    /// Bytes of the raw files.
    pub size: u64,
    /// Bytes that were read from the archive.
    pub fetched: u64,
    /// Time it took.
    pub elapsed: Duration,
    /// Why the other products were not made; without what a stop cut short.
    pub failures: &'a [(Vec<Product>, ProductError)],
}

/// How a shard went.
#[derive(Debug, Default)]
pub struct ShardReport {
    /// Cases of the shard.
    pub all: usize,
    /// Cases that are done.
    pub done: usize,
    /// Bytes that were read.
    pub read: u64,
    /// Time it took.
    pub elapsed: Duration,
    /// Cases with products that were not made.
    pub failed: Vec<(Case, Vec<Failure>)>,
    /// How it failed as a whole; `None` when all is done.
    pub failure: Option<ErrorKind>,
}

/// A case and the number of its files in the plan.
type CaseFileCount = (Case, usize);

/// The products of a plan that are asked for, in the plan's order; all when none is named.
///
/// # Errors
/// The plan is not for one of them.
pub fn stages_of(plan: &CampaignPlan, asked: &[Product]) -> Result<Vec<Product>, VisError> {
    if let Some(other) = asked.iter().find(|stage| !plan.stages.contains(stage)) {
        let problem = format!("the plan is not for {other}; `dor plan --stages` makes one that is");
        return Err(VisError::Needs(problem));
    }
    let is_asked = |stage: &Product| asked.is_empty() || asked.contains(stage);
    Ok(plan.stages.iter().copied().filter(is_asked).collect())
}

/// A shard that is at work, and tells so beside the plan.
pub struct ShardRun {
    plan: CampaignPlan,
    stores: StoreRegistry,
    options: ShardOptions,
    cases: Vec<CaseFileCount>,
    reporter: HeartbeatWriter,
}

impl ShardRun {
    /// Begins to tell of a shard.
    ///
    /// # Errors
    /// Nothing can be written beside the plan.
    pub async fn begin(opened: OpenPlan, options: ShardOptions) -> Result<Self, PlanFileError> {
        let OpenPlan { stores, store, key, plan, .. } = opened;
        let stores = stores.within(options.memory);
        let is_asked = |(case, _): &CaseFileCount| {
            options.range.is_none_or(|(first, last)| (first..=last).contains(&case.polygon()))
        };
        let own = plan.cases().zip(&plan.cases).filter(|((n, _), _)| options.shard.has(*n));
        let own = own.map(|((_, case), planned)| (case, planned.files));
        let cases = own.filter(is_asked).collect();
        let reporter = HeartbeatWriter::begin(store, &key, &plan, options.shard).await?;
        Ok(Self { plan, stores, options, cases, reporter })
    }

    /// Makes the products of the cases, each told of to `told`; what may go better next time is tried
    /// once more.
    ///
    /// # Errors
    /// A place of the plan is not there, or not as planned; those of `told`.
    pub async fn work<E: From<PlanFileError>>(
        &self,
        stop: CancellationToken,
        progress: Arc<dyn ConversionProgress>,
        mut told: impl FnMut(CaseReport<'_>) -> Result<(), E>,
    ) -> Result<ShardReport, E> {
        self.plan.places.refuse_absent(&self.options.stages, &self.stores).await?;
        let mut report = ShardReport { all: self.cases.len(), ..ShardReport::default() };
        if self.cases.is_empty() {
            return Ok(report);
        }
        let ShardOptions { workers, memory, .. } = self.options;
        let has_research = self.options.stages.contains(&Product::Research);
        let workshop = RunContext {
            pool: Pool::new(workers, memory),
            stop,
            // Where files are converted, the other products read along.
            progress: if has_research { Arc::new(NoProgress) } else { progress.clone() },
        };
        let products = self.products(&workshop, progress).await?;
        let began = Instant::now();
        let mut failed = self.pass(&products, &self.cases, &mut report, &mut told).await?;
        let passing =
            |(_, failures): &Failed| failures.iter().all(|(failure, _)| !failure.permanent);
        let again: Vec<Failed>;
        (again, failed) = failed.into_iter().partition(passing);
        let again: Vec<CaseFileCount> = again.into_iter().map(|(case, _)| case).collect();
        failed.extend(self.pass(&products, &again, &mut report, &mut told).await?);
        report.elapsed = began.elapsed();
        report.failure = match workshop.stop.is_cancelled() && report.done < report.all {
            true => Some(ErrorKind::Interrupted),
            false => failure(&failed),
        };
        let of_case = |((case, _), all): Failed| (case, all.into_iter().map(|(f, _)| f).collect());
        report.failed = failed.into_iter().map(of_case).collect();
        Ok(report)
    }

    /// Tells that the shard has ended, and with which exit code.
    pub async fn end(self, exit: u8) {
        self.reporter.end(exit).await;
    }

    /// Makes the products of cases, until a stop; what failed.
    async fn pass<E>(
        &self,
        products: &Products<'_>,
        cases: &[CaseFileCount],
        report: &mut ShardReport,
        told: &mut impl FnMut(CaseReport<'_>) -> Result<(), E>,
    ) -> Result<Vec<Failed>, E> {
        let stop = &products.workshop.stop;
        let make = async |(case, files): CaseFileCount| {
            let begun = Instant::now();
            self.reporter.case_begun(case);
            ((case, files), products.make(case, files).await, begun.elapsed())
        };
        let running = stream::iter(cases).take_while(|_| {
            let goes_on = !stop.is_cancelled();
            async move { goes_on }
        });
        let mut running = pin!(running.map(|case| make(*case)).buffer_unordered(CASES));
        let mut failed = Vec::new();
        let given_up = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let mut given_up = pin!(given_up);
        while let Some((planned, outcome, elapsed)) = tokio::select! {
            ended = running.next() => ended,
            () = &mut given_up => None,
        } {
            let (case, _) = planned;
            let CaseResult { stages, size, fetched } = outcome;
            let (mut made, mut failures) = (Vec::new(), Vec::new());
            let products = stages.iter().map(|(stages, _)| stages.len()).sum();
            for (stages, result) in stages {
                match result {
                    // Each that was made was made by itself.
                    Ok(product) => made.push(product),
                    // What a stop cuts short has not failed.
                    Err(_) if stop.is_cancelled() => {}
                    Err(error) => failures.push((stages, error)),
                }
            }
            report.read += fetched;
            report.done += usize::from(made.len() == products);
            let written = made.iter().map(|made| made.written).sum();
            let (done, all) = (report.done, report.all);
            told(CaseReport {
                case,
                done,
                all,
                products,
                made: &made,
                size,
                fetched,
                elapsed,
                failures: &failures,
            })?;
            let (recorded, kinds): (Vec<Failure>, Vec<ErrorKind>) =
                failures.into_iter().map(recorded).unzip();
            let seconds = elapsed.as_secs_f64();
            self.reporter.case_ended(case, (fetched, written), &recorded, seconds);
            if !recorded.is_empty() {
                failed.push((planned, recorded.into_iter().zip(kinds).collect()));
            }
        }
        Ok(failed)
    }

    /// What the products are made by.
    async fn products<'a>(
        &self,
        workshop: &'a RunContext,
        research: Arc<dyn ConversionProgress>,
    ) -> Result<Products<'a>, PlanFileError> {
        let (plan, places) = (&self.plan, &self.plan.places);
        let stores = &until(&workshop.stop, &self.stores);
        let raw = open(stores, &places.data_dir, "data_dir")?;
        let grid_file = self.grid_file();
        let grid = self.grid(stores, grid_file.as_ref()).await?;
        let (force, allow_missing) = (self.options.force, plan.allow_missing);
        let mut products = Products {
            raw: raw.clone(),
            research: None,
            store1: None,
            store2: None,
            store3: None,
            workshop,
            allow_missing,
            force,
        };
        for stage in &self.options.stages {
            match stage {
                Product::Research => {
                    let environment = ConversionContext {
                        raw: raw.clone(),
                        out: open(stores, &places.output_dir, "output_dir")?,
                        grid: grid.as_ref().map(|(grid, _)| grid.clone()),
                        pool: workshop.pool.clone(),
                        stop: workshop.stop.clone(),
                        progress: research.clone(),
                        reader: Reader::default(),
                    };
                    let recipe = case_manifest::ConversionRecipe {
                        product: "research-grade".to_owned(),
                        version: RECIPE,
                        grid_sha256: grid.as_ref().map(|(_, sha256)| sha256.clone()),
                    };
                    let options = PlanOptions { force, allow_missing, recipe };
                    products.research = Some((environment, options));
                }
                Product::Store1 => {
                    let store = open(stores, &places.store1, "store1")?;
                    let open = OpenStore::open(store, "store1", plan.recipe(*stage));
                    products.store1 = Some(open.await?);
                }
                Product::Store2 => {
                    let options = MapOptions {
                        grid: grid_file.clone(),
                        ssh: places.ssh.clone(),
                        reference_compat: plan.reference_compat,
                        ..MapOptions::default()
                    };
                    let store = open(stores, &places.store2, "store2")?;
                    let cases: Vec<Case> = self.cases.iter().map(|(case, _)| *case).collect();
                    let input = CaseSource::Raw(raw.clone());
                    let atlas = options.atlas(store, stores, (&input, &cases), workshop).await?;
                    let is_planned = match (&atlas.ssh, &plan.givens.ssh) {
                        (Some((_, file)), Some(planned)) => planned.is_content(file),
                        (found, planned) => found.is_none() && planned.is_none(),
                    };
                    if !is_planned {
                        let url = places.ssh.as_ref().map(Location::to_string).unwrap_or_default();
                        return Err(PlanFileError::Changed { url });
                    }
                    products.store2 = Some(atlas);
                }
                Product::Store3 => {
                    let store = open(stores, &places.store3, "store3")?;
                    products.store3 = Some(UptakeContext {
                        destination: OpenStore::open(store, "store3", plan.recipe(*stage)).await?,
                        centers: (plan.centers(), "the plan".to_owned()),
                        grid: grid.clone(),
                    });
                }
            }
        }
        Ok(products)
    }

    /// The grid file of the plan, which holds on every node.
    fn grid_file(&self) -> Option<GridFile> {
        let location = self.plan.places.grid.clone()?;
        Some(GridFile { location, named_by: "plan".to_owned() })
    }

    /// The grid that the plan was made with, for products that need it.
    async fn grid(
        &self,
        stores: &StoreRegistry,
        file: Option<&GridFile>,
    ) -> Result<Option<(Arc<Grid>, String)>, PlanFileError> {
        let needs_grid = self.options.stages.iter().any(|stage| *stage != Product::Store1);
        let Some(file) = file.filter(|_| needs_grid) else { return Ok(None) };
        let (grid, sha256) = file.load(stores).await.map_err(VisError::from)?;
        if self.plan.givens.grid_sha256.as_ref() != Some(&sha256) {
            return Err(PlanFileError::Changed { url: file.location.to_string() });
        }
        Ok(Some((Arc::new(grid), sha256)))
    }
}

/// A case, and its failures with their kinds.
type Failed = (CaseFileCount, Vec<(Failure, ErrorKind)>);

/// A failure as it is told beside the plan, and its kind.
fn recorded((stages, error): (Vec<Product>, ProductError)) -> (Failure, ErrorKind) {
    let kind = error.kind();
    let permanent = matches!(kind, ErrorKind::BadData | ErrorKind::Config);
    (Failure { stages, error: error.cause(), permanent }, kind)
}

/// What failures come to: where all are permanent, nothing is gained by running again.
fn failure(failed: &[Failed]) -> Option<ErrorKind> {
    let mut all = failed.iter().flat_map(|(_, failures)| failures);
    match () {
        () if failed.is_empty() => None,
        () if !all.clone().all(|(failure, _)| failure.permanent) => Some(ErrorKind::Transient),
        () if all.any(|(_, kind)| *kind == ErrorKind::Config) => Some(ErrorKind::Config),
        () => Some(ErrorKind::BadData),
    }
}

fn open(stores: &StoreRegistry, place: &Option<Location>, what: &str) -> Result<Store, VisError> {
    let needed = || VisError::Needs(format!("the plan names no {what}"));
    Ok(stores.open(place.as_ref().ok_or_else(needed)?)?)
}
