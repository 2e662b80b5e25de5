//! Processing of the cases of a shard. All products of a case come from one reading of its raw files.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::case_pipeline::{CaseResult, ProductError, ProductResult, Products, Results};
use super::heartbeat::{Failure, HeartbeatWriter};
use super::{CampaignPlan, OpenPlan, PlanFileError, Product, Shard};
use crate::case_manifest;
use crate::executor::{Pool, Reader, until};
use crate::model::{Case, ErrorKind, Grid, WithErrorKind};
use crate::research::{
    ConversionContext, ConversionProgress, GridFile, NoProgress, PlanOptions, RECIPE,
};
use crate::store::{Location, Store, StoreRegistry};
use crate::vis::cases::CaseChoice;
use crate::vis::create::OpenStore;
use crate::vis::input::CaseSource;
use crate::vis::maps::MapOptions;
use crate::vis::store2::MapContext;
use crate::vis::store3::UptakeContext;
use crate::vis::{RunContext, VisError};

/// Cases that are processed at the same time. The second case keeps workers busy while the last files
/// of the first are in work.
const CONCURRENT_CASES: usize = 2;
/// Time that cases in work have to end after a stop.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// Which part of a plan to process, and how.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// The share of the plan's cases.
    pub shard: Shard,
    /// Products to make, a subset of the plan's.
    pub products: Vec<Product>,
    /// Selection among the cases of the shard.
    pub choice: CaseChoice,
    /// Files that are processed at the same time, one on each CPU thread.
    pub workers: usize,
    /// Memory budget of all work, in bytes.
    pub memory: u64,
    /// Make products again that are done.
    pub force: bool,
}

impl ShardOptions {
    /// The selected cases of the shard, with the numbers of their raw files.
    pub fn cases(&self, plan: &CampaignPlan) -> Vec<CaseFileCount> {
        let own = plan.cases().zip(&plan.cases).filter(|((n, _), _)| self.shard.has(*n));
        let own = own.map(|((_, case), planned)| (case, planned.files));
        own.filter(|(case, _)| self.choice.allows(*case)).collect()
    }
}

/// Result of one case of a shard.
pub struct CaseReport<'a> {
    /// The case that has ended.
    pub case: Case,
    /// Cases of the shard that are done, with this one.
    pub done: usize,
    /// Number of cases of the shard.
    pub all: usize,
    /// Number of products of the case.
    pub products: usize,
    /// Products that are done, now or before.
    pub made: &'a [ProductResult],
    /// Bytes of the case's raw files.
    pub size: u64,
    /// Bytes read from the archive.
    pub fetched: u64,
    /// Time from the start of the case to its end.
    pub elapsed: Duration,
    /// Products that failed, with causes. Products that a stop interrupted are not listed.
    pub failures: &'a [(Vec<Product>, ProductError)],
}

/// Result of a shard.
#[derive(Debug, Default)]
pub struct ShardReport {
    /// Number of cases of the shard.
    pub all: usize,
    /// Number of cases with all products done.
    pub done: usize,
    /// Bytes read from the archive.
    pub read: u64,
    /// Time of all cases together.
    pub elapsed: Duration,
    /// Cases with failed products.
    pub failed: Vec<(Case, Vec<Failure>)>,
    /// Kind of failure of the whole shard; `None` when every case is done.
    pub failure: Option<ErrorKind>,
}

/// A case and the number of its raw files in the plan.
pub type CaseFileCount = (Case, usize);

/// The selected products of a plan, in the order of the plan; all when `selected` is empty.
///
/// # Errors
/// The plan does not contain a selected product.
pub fn selected_products(
    plan: &CampaignPlan,
    selected: &[Product],
) -> Result<Vec<Product>, VisError> {
    if let Some(other) = selected.iter().find(|product| !plan.products.contains(product)) {
        let problem =
            format!("the plan does not contain {other}; make one that does: dor plan --products");
        return Err(VisError::Settings(problem));
    }
    let is_selected = |product: &Product| selected.is_empty() || selected.contains(product);
    Ok(plan.products.iter().copied().filter(is_selected).collect())
}

/// Checks that the plan has the chosen cases.
///
/// # Errors
/// The plan lacks a case that is named, or all cases of the choice.
pub fn ensure_planned(plan: &CampaignPlan, choice: &CaseChoice) -> Result<(), VisError> {
    let planned: BTreeSet<Case> = plan.cases().map(|(_, case)| case).collect();
    let absent = choice.cases.iter().find(|case| !planned.contains(case));
    let problem = match absent {
        Some(case) => format!("does not contain case {}", case.short()),
        None if planned.iter().any(|case| choice.allows(*case)) => return Ok(()),
        None => "contains none of the chosen cases".to_owned(),
    };
    Err(VisError::Settings(format!("the plan {problem}; make one that does: dor plan")))
}

/// A shard in work, which writes a heartbeat beside the plan.
pub struct ShardRun {
    plan: CampaignPlan,
    stores: StoreRegistry,
    options: ShardOptions,
    cases: Vec<CaseFileCount>,
    heartbeat: HeartbeatWriter,
}

impl ShardRun {
    /// Selects the cases of a shard and writes its first heartbeat.
    ///
    /// # Errors
    /// The heartbeat cannot be written beside the plan.
    pub async fn begin(opened: OpenPlan, options: ShardOptions) -> Result<Self, PlanFileError> {
        let OpenPlan { stores, store, key, plan, .. } = opened;
        let stores = stores.with_memory_limit(options.memory);
        let cases = options.cases(&plan);
        let heartbeat = HeartbeatWriter::begin(store, &key, &plan, options.shard).await?;
        Ok(Self { plan, stores, options, cases, heartbeat })
    }

    /// Makes the products of all cases and reports each case to `on_case`. Cases whose failures are all
    /// transient are processed once more.
    ///
    /// # Errors
    /// A location of the plan is absent, an input differs from the plan, or `on_case` fails.
    pub async fn work<E: From<PlanFileError>>(
        &self,
        stop: CancellationToken,
        progress: Arc<dyn ConversionProgress>,
        mut on_case: impl FnMut(CaseReport<'_>) -> Result<(), E>,
    ) -> Result<ShardReport, E> {
        self.plan.locations.ensure_present(&self.options.products, &self.stores).await?;
        let mut report = ShardReport { all: self.cases.len(), ..ShardReport::default() };
        if self.cases.is_empty() {
            return Ok(report);
        }
        let ShardOptions { workers, memory, .. } = self.options;
        let pool = Pool::new(workers, memory);
        let quiet = RunContext { pool, stop, progress: Arc::new(NoProgress) };
        let reporting = RunContext { progress, ..quiet.clone() };
        let context = &quiet;
        let products = self.products(&quiet, &reporting).await?;
        let began = Instant::now();
        let mut failed = self.process(&products, &self.cases, &mut report, &mut on_case).await?;
        let is_transient =
            |(_, failures): &Failed| failures.iter().all(|(failure, _)| !failure.permanent);
        let transient: Vec<Failed>;
        (transient, failed) = failed.into_iter().partition(is_transient);
        let again: Vec<CaseFileCount> = transient.into_iter().map(|(case, _)| case).collect();
        failed.extend(self.process(&products, &again, &mut report, &mut on_case).await?);
        report.elapsed = began.elapsed();
        report.failure = match context.stop.is_cancelled() && report.done < report.all {
            true => Some(ErrorKind::Interrupted),
            false => failure(&failed),
        };
        let of_case = |((case, _), all): Failed| (case, all.into_iter().map(|(f, _)| f).collect());
        report.failed = failed.into_iter().map(of_case).collect();
        Ok(report)
    }

    /// Writes the last heartbeat, with the exit code of the process.
    pub async fn end(self, exit: u8) {
        self.heartbeat.end(exit).await;
    }

    /// Makes the products of cases until a stop, and returns the cases that failed.
    async fn process<E>(
        &self,
        products: &Products<'_>,
        cases: &[CaseFileCount],
        report: &mut ShardReport,
        on_case: &mut impl FnMut(CaseReport<'_>) -> Result<(), E>,
    ) -> Result<Vec<Failed>, E> {
        let stop = &products.context.stop;
        let make = async |(case, files): CaseFileCount| {
            let start = Instant::now();
            self.heartbeat.case_begun(case);
            ((case, files), products.make(case, files).await, start.elapsed())
        };
        let running = stream::iter(cases).take_while(|_| {
            let is_running = !stop.is_cancelled();
            async move { is_running }
        });
        let mut running = pin!(running.map(|case| make(*case)).buffer_unordered(CONCURRENT_CASES));
        let grace_over = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        let mut grace_over = pin!(grace_over);
        let mut failed = Vec::new();
        while let Some(ended) = tokio::select! {
            ended = running.next() => ended,
            () = &mut grace_over => None,
        } {
            failed.extend(self.end_case(ended, stop, report, on_case)?);
        }
        Ok(failed)
    }

    /// Reports the end of a case to `on_case`, then in the heartbeat. Returns the failures, if any.
    fn end_case<E>(
        &self,
        (planned, result, elapsed): (CaseFileCount, CaseResult, Duration),
        stop: &CancellationToken,
        report: &mut ShardReport,
        on_case: &mut impl FnMut(CaseReport<'_>) -> Result<(), E>,
    ) -> Result<Option<Failed>, E> {
        let (case, _) = planned;
        let CaseResult { results, size, fetched } = result;
        let products: usize = results.iter().map(|(products, _)| products.len()).sum();
        let (made, failures) = separate(results, stop);
        report.read += fetched;
        report.done += usize::from(made.len() == products);
        on_case(CaseReport {
            case,
            done: report.done,
            all: report.all,
            products,
            made: &made,
            size,
            fetched,
            elapsed,
            failures: &failures,
        })?;
        let written: u64 = made.iter().map(|made| made.written).sum();
        let (failures, kinds): (Vec<Failure>, Vec<ErrorKind>) =
            failures.into_iter().map(recorded).unzip();
        self.heartbeat.case_ended(case, (fetched, written), &failures, elapsed.as_secs_f64());
        if failures.is_empty() {
            return Ok(None);
        }
        Ok(Some((planned, failures.into_iter().zip(kinds).collect())))
    }

    /// Opens the stores and inputs of the products.
    ///
    /// The products share the reading of the files, so one of them gets the context `reporting`, and the others
    /// the context `quiet`: research-grade files before maps, and maps before the other stores.
    async fn products<'a>(
        &self,
        quiet: &'a RunContext,
        reporting: &'a RunContext,
    ) -> Result<Products<'a>, PlanFileError> {
        let has = |product| self.options.products.contains(&product);
        let maps_context = if has(Product::Research) { quiet } else { reporting };
        let context = if has(Product::Store2) { quiet } else { maps_context };
        let stores = &until(&context.stop, &self.stores);
        let raw = open(stores, self.plan.locations.data_dir.as_ref(), "data_dir")?;
        let grid = self.grid(stores).await?;
        let mut products = Products {
            raw: raw.clone(),
            research: None,
            store1: None,
            store2: None,
            store3: None,
            context,
            allow_missing: self.plan.allow_missing,
            force: self.options.force,
        };
        for product in &self.options.products {
            match product {
                Product::Research => {
                    let conversion =
                        self.conversion(stores, &raw, grid.as_ref(), reporting.clone())?;
                    products.research = Some(conversion);
                }
                Product::Store1 => {
                    products.store1 = Some(self.map_store(stores, *product).await?);
                }
                Product::Store2 => {
                    products.store2 = Some(self.maps(stores, &raw, maps_context).await?);
                }
                Product::Store3 => {
                    products.store3 = Some(UptakeContext {
                        destination: self.map_store(stores, *product).await?,
                        centers: (self.plan.centers(), "the plan".to_owned()),
                        grid: grid.clone(),
                    });
                }
            }
        }
        Ok(products)
    }

    /// Context and options of the conversion to research-grade files.
    fn conversion(
        &self,
        stores: &StoreRegistry,
        raw: &Store,
        grid: Option<&(Arc<Grid>, String)>,
        RunContext { pool, stop, progress }: RunContext,
    ) -> Result<(ConversionContext, PlanOptions), PlanFileError> {
        let context = ConversionContext {
            raw: raw.clone(),
            out: open(stores, self.plan.locations.output_dir.as_ref(), "output_dir")?,
            grid: grid.map(|(grid, _)| grid.clone()),
            pool,
            stop,
            progress,
            reader: Reader::default(),
        };
        let recipe = case_manifest::ConversionRecipe {
            product: "research-grade".to_owned(),
            version: RECIPE,
            grid_sha256: grid.map(|(_, sha256)| sha256.clone()),
        };
        let (force, allow_missing) = (self.options.force, self.plan.allow_missing);
        Ok((context, PlanOptions { force, allow_missing, recipe }))
    }

    /// Opens the map store of a product under the rules of the plan.
    async fn map_store(
        &self,
        stores: &StoreRegistry,
        product: Product,
    ) -> Result<OpenStore, PlanFileError> {
        let store = open(stores, self.plan.locations.of(product), product.setting())?;
        Ok(OpenStore::open(store, product.name(), self.plan.recipe(product)).await?)
    }

    /// Opens store 2 with its grid and weights, and the series of sea surface height, whose content must
    /// be that of the plan.
    async fn maps<'a>(
        &self,
        stores: &StoreRegistry,
        raw: &Store,
        context: &'a RunContext,
    ) -> Result<MapContext<'a>, PlanFileError> {
        let CampaignPlan { locations, fingerprints, reference_compat, .. } = &self.plan;
        let options = MapOptions {
            grid: self.grid_file(),
            ssh: locations.ssh.clone(),
            reference_compat: *reference_compat,
            ..MapOptions::default()
        };
        let store = open(stores, locations.store2.as_ref(), "store2")?;
        let cases: Vec<Case> = self.cases.iter().map(|(case, _)| *case).collect();
        let input = CaseSource::Raw(raw.clone());
        let maps = options.open_map_context(store, stores, (&input, &cases), context).await?;
        let is_planned = match (&maps.ssh, &fingerprints.ssh) {
            (Some((_, file)), Some(planned)) => planned.has_same_content(file),
            (current, planned) => current.is_none() && planned.is_none(),
        };
        if !is_planned {
            let url = locations.ssh.as_ref().map(Location::to_string).unwrap_or_default();
            return Err(PlanFileError::Changed { url });
        }
        Ok(maps)
    }

    /// The grid file of the plan, the same for every node.
    fn grid_file(&self) -> Option<GridFile> {
        let location = self.plan.locations.grid.clone()?;
        Some(GridFile { location, named_by: "plan".to_owned() })
    }

    /// Loads the grid file with its SHA-256, which must be that of the plan; `None` when no product needs
    /// a grid.
    async fn grid(
        &self,
        stores: &StoreRegistry,
    ) -> Result<Option<(Arc<Grid>, String)>, PlanFileError> {
        let needs_grid = self.options.products.iter().any(|product| *product != Product::Store1);
        let Some(file) = self.grid_file().filter(|_| needs_grid) else { return Ok(None) };
        let (grid, sha256) = file.load(stores).await.map_err(VisError::from)?;
        if self.plan.fingerprints.grid_sha256.as_ref() != Some(&sha256) {
            return Err(PlanFileError::Changed { url: file.location.to_string() });
        }
        Ok(Some((Arc::new(grid), sha256)))
    }
}

/// Products that failed together, and the cause.
type ProductFailure = (Vec<Product>, ProductError);

/// Separates the products that are done from those that failed. Products that a stop interrupted are
/// neither.
fn separate(
    results: Results,
    stop: &CancellationToken,
) -> (Vec<ProductResult>, Vec<ProductFailure>) {
    let (mut made, mut failures) = (Vec::new(), Vec::new());
    for (products, result) in results {
        match result {
            // Only failures are of several products at once.
            Ok(product) => made.push(product),
            Err(_) if stop.is_cancelled() => {}
            Err(error) => failures.push((products, error)),
        }
    }
    (made, failures)
}

/// A case, and its failures with their kinds.
type Failed = (CaseFileCount, Vec<(Failure, ErrorKind)>);

/// A failure for the heartbeat, and its kind.
fn recorded((products, error): ProductFailure) -> (Failure, ErrorKind) {
    let kind = error.kind();
    let permanent = matches!(kind, ErrorKind::BadData | ErrorKind::Config);
    (Failure { products, error: error.cause(), permanent }, kind)
}

/// The kind of failure of a shard: transient when another run can succeed for any product.
fn failure(failed: &[Failed]) -> Option<ErrorKind> {
    let mut all = failed.iter().flat_map(|(_, failures)| failures);
    match () {
        () if failed.is_empty() => None,
        () if !all.clone().all(|(failure, _)| failure.permanent) => Some(ErrorKind::Transient),
        () if all.any(|(_, kind)| *kind == ErrorKind::Config) => Some(ErrorKind::Config),
        () => Some(ErrorKind::BadData),
    }
}

/// Opens the location of a plan that has the key `what`.
fn open(
    stores: &StoreRegistry,
    location: Option<&Location>,
    what: &str,
) -> Result<Store, VisError> {
    let absent = || VisError::Settings(format!("the plan names no {what}"));
    Ok(stores.open(location.ok_or_else(absent)?)?)
}
