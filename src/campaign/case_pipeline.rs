//! All products of a case from one reading of its raw files.
//!
//! A command for one product reads the raw files for that product only. Here all products run at the
//! same time over a [`ReadCoordinator`]: when each of them has requested a month, the coordinator
//! fetches its file, from which every product takes its fields. A product with a valid record is
//! skipped. A product that fails does not stop the others.

use super::Product;
use crate::executor::{ReadCoordinator, Reader, Stopped, unless_stopped};
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::research::plan::FileTask;
use crate::research::{
    self, CaseError, CasePlan, ConversionContext, PlanError, PlanOptions, failures,
};
use crate::store::{Store, StoreError};
use crate::vis::create::OpenStore;
use crate::vis::input::{CaseFiles, CaseSource};
use crate::vis::schema::reading_index;
use crate::vis::series::{self, CaseSlot, FillOptions, FillReport, RequestedSeries};
use crate::vis::store2::MapContext;
use crate::vis::store3::UptakeContext;
use crate::vis::{RunContext, VisError, store1, store3};

/// The products to make of each case, with their outputs.
pub struct Products<'a> {
    /// The archive of raw history.
    pub raw: Store,
    /// Conversion to research-grade files; `None` when they are not a product.
    pub research: Option<(ConversionContext, PlanOptions)>,
    /// Store of efficiencies.
    pub store1: Option<OpenStore>,
    /// Store of maps, with grid and weights.
    pub store2: Option<MapContext<'a>>,
    /// Store of uptake by distance, with centers and grid.
    pub store3: Option<UptakeContext>,
    /// Workers, stop signal and progress.
    pub context: &'a RunContext,
    /// Accept cases with missing months.
    pub allow_missing: bool,
    /// Make products again that are done.
    pub force: bool,
}

/// A product could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProductError {
    /// The conversion to research-grade files failed.
    #[error(transparent)]
    Research(#[from] CaseError),
    /// Filling a map store failed.
    #[error(transparent)]
    Vis(#[from] VisError),
    /// The archive had raw files when the plan was made, and has none now.
    #[error(
        "case {case} has no raw files in {folder}, and had {planned} when the plan was made; restore the \
         archive, or make another plan"
    )]
    Gone {
        /// The case without files.
        case: Case,
        /// URL of the folder of its raw files.
        folder: String,
        /// Number of files in the plan.
        planned: usize,
    },
    /// The number of raw files differs from the plan.
    #[error(
        "case {case} has {found} raw files, and had {planned} when the plan was made; restore the archive, \
         or make another plan"
    )]
    Files {
        /// The case that has changed.
        case: Case,
        /// Number of files now.
        found: usize,
        /// Number of files in the plan.
        planned: usize,
    },
}

impl WithErrorKind for ProductError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Research(error) => error.kind(),
            Self::Vis(error) => error.kind(),
            Self::Gone { .. } => ErrorKind::Config,
            Self::Files { .. } => ErrorKind::BadData,
        }
    }
}

impl ProductError {
    /// The cause of the first failure in one line, for a list.
    pub fn cause(&self) -> String {
        match self {
            Self::Research(error) => failures::cause(error),
            other => failures::one_line(other),
        }
    }
}

impl From<Stopped> for ProductError {
    fn from(stopped: Stopped) -> Self {
        Self::Vis(stopped.into())
    }
}

impl From<StoreError> for ProductError {
    fn from(error: StoreError) -> Self {
        Self::Vis(error.into())
    }
}

impl From<PlanError> for ProductError {
    fn from(error: PlanError) -> Self {
        Self::Research(error.into())
    }
}

/// A product that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProductResult {
    /// Whether it was done before this run.
    pub done_before: bool,
    /// Objects written by this run.
    pub objects: usize,
    /// Bytes written by this run.
    pub written: u64,
}

impl From<FillReport> for ProductResult {
    fn from(FillReport { done_before, objects, written, .. }: FillReport) -> Self {
        Self { done_before, objects, written }
    }
}

/// Results of products. A failure can be of several products at once.
pub type Results = Vec<(Vec<Product>, Result<ProductResult, ProductError>)>;

/// Result of one case.
#[derive(Debug)]
pub struct CaseResult {
    /// Result of every product.
    pub results: Results,
    /// Bytes of the case's raw files.
    pub size: u64,
    /// Bytes read from the archive.
    pub fetched: u64,
}

impl Products<'_> {
    /// The products to make.
    pub fn products(&self) -> Vec<Product> {
        let is_requested = |product: &Product| match product {
            Product::Research => self.research.is_some(),
            Product::Store1 => self.store1.is_some(),
            Product::Store2 => self.store2.is_some(),
            Product::Store3 => self.store3.is_some(),
        };
        Product::ALL.into_iter().filter(is_requested).collect()
    }

    /// Lists the raw files of a case, whose number must be `planned`.
    async fn files(&self, case: Case, planned: usize) -> Result<CaseFiles, ProductError> {
        let files = match CaseSource::Raw(self.raw.clone()).case(case, self.allow_missing).await {
            Err(VisError::Plan(error)) => match *error {
                PlanError::NoFiles { case, folder } => {
                    return Err(ProductError::Gone { case, folder, planned });
                }
                error => return Err(error.into()),
            },
            files => files?,
        };
        let found = files.len();
        match found == planned {
            true => Ok(files),
            false => Err(ProductError::Files { case, found, planned }),
        }
    }

    /// Makes all products of a case that has `planned` raw files.
    pub async fn make(&self, case: Case, planned: usize) -> CaseResult {
        let RunContext { pool, stop, .. } = self.context;
        let coordinator = ReadCoordinator::new(pool.clone(), stop.clone());
        let mut files = match self.files(case, planned).await {
            Ok(files) => files,
            Err(error) => {
                let results = vec![(self.products(), Err(error))];
                return CaseResult { results, size: 0, fetched: 0 };
            }
        };
        let plan = self.plan(case).await;
        // Files that the conversion compared with its record are not compared again for the stores.
        if let Some(Ok(plan)) = &plan {
            files = files.with_same_content(plan.unchanged.clone());
        }
        // All readers register before the first one reads, so that no file is read twice.
        let to_convert: Vec<String> = match &plan {
            Some(Ok(plan)) => plan.steps.iter().map(|task| task.input.key.clone()).collect(),
            _ => Vec::new(),
        };
        let converter = coordinator.register(to_convert);
        let [curves, maps] = [(); 2].map(|()| files.read_by(coordinator.register(files.keys())));
        let (research, curves, maps) =
            tokio::join!(self.convert(plan, converter), self.curves(curves), self.maps(maps));
        let results = research.into_iter().chain(curves).chain(maps).collect();
        CaseResult { results, size: files.size(), fetched: coordinator.fetched() }
    }

    /// Plans the conversion of a case; `None` when research-grade files are not a product.
    async fn plan(&self, case: Case) -> Option<Result<CasePlan, ProductError>> {
        let (ConversionContext { raw, out, .. }, options) = self.research.as_ref()?;
        let planning = research::plan(raw, out, case, options);
        let plan = match unless_stopped(&self.context.stop, planning).await {
            Ok(plan) => plan.map_err(ProductError::from),
            Err(stopped) => Err(stopped.into()),
        };
        Some(plan.map(|plan| in_reading_order(case, plan)))
    }

    /// Converts the files of a plan, which are read by `reader`.
    async fn convert(
        &self,
        plan: Option<Result<CasePlan, ProductError>>,
        reader: Reader,
    ) -> Results {
        let Some(((context, _), plan)) = self.research.as_ref().zip(plan) else {
            return Results::new();
        };
        let context = ConversionContext { reader, ..context.clone() };
        vec![(vec![Product::Research], convert(&context, plan).await)]
    }

    /// Options of filling a case in a map store.
    fn fill_options(&self) -> FillOptions {
        let (force, allow_missing) = (self.force, self.allow_missing);
        FillOptions { force, allow_missing, dry_run: false }
    }

    /// Fills the maps of store 2.
    async fn maps(&self, files: CaseFiles) -> Results {
        let Some(maps) = &self.store2 else { return Results::new() };
        let filled = maps.fill(&files, self.fill_options()).await;
        vec![(vec![Product::Store2], filled.map(ProductResult::from).map_err(ProductError::from))]
    }

    /// Fills stores 1 and 3 from one reading of the files.
    async fn curves(&self, files: CaseFiles) -> Results {
        let (mut results, slots) = self.open_slots(&files).await;
        if slots.is_empty() {
            return results;
        }
        let products: Vec<Product> = slots.iter().map(|(product, _)| *product).collect();
        let series = async {
            let requested = self.requested_series(&products, files.case)?;
            series::read(self.context, &files, &requested).await
        };
        let series = match series.await {
            Ok(series) => series,
            Err(error) => {
                results.push((products, Err(error.into())));
                return results;
            }
        };
        for (product, slot) in slots {
            let filled = match &self.store3 {
                Some(UptakeContext { destination, .. }) if product == Product::Store3 => {
                    let compat = destination.recipe.reference_compat;
                    store3::fill(slot, &files, &series, compat).await
                }
                _ => store1::fill(slot, &files, &series).await,
            };
            let result = filled.map(ProductResult::from).map_err(ProductError::from);
            results.push((vec![product], result));
        }
        results
    }

    /// Opens the slots of a case in stores 1 and 3. Returns the results of products that are done or
    /// failed, and the slots to fill.
    async fn open_slots(&self, files: &CaseFiles) -> (Results, Vec<(Product, CaseSlot<'_>)>) {
        let mut opened = Vec::new();
        if let Some(destination) = &self.store1 {
            opened.push((
                Product::Store1,
                store1::open_slot(destination, files, self.fill_options()).await,
            ));
        }
        if let Some(distances) = &self.store3 {
            opened.push((Product::Store3, distances.open_slot(files, self.fill_options()).await));
        }
        let (mut results, mut slots) = (Results::new(), Vec::new());
        for (product, slot) in opened {
            match slot {
                Ok(slot) if slot.done => {
                    let result = ProductResult { done_before: true, ..ProductResult::default() };
                    results.push((vec![product], Ok(result)));
                }
                Ok(slot) => slots.push((product, slot)),
                Err(error) => results.push((vec![product], Err(error.into()))),
            }
        }
        (results, slots)
    }

    /// The series to compute from the raw files for stores 1 and 3.
    fn requested_series(
        &self,
        products: &[Product],
        case: Case,
    ) -> Result<RequestedSeries, VisError> {
        let distances = self.store3.as_ref().filter(|_| products.contains(&Product::Store3));
        let options = |distances: &UptakeContext| {
            Ok::<_, VisError>(distances.uptake_options(distances.center(case)?))
        };
        let uptake = distances.map(options).transpose()?;
        Ok(RequestedSeries { efficiency: products.contains(&Product::Store1), uptake })
    }
}

/// Sorts the tasks of a plan into the order in which the maps need the months.
fn in_reading_order(case: Case, mut plan: CasePlan) -> CasePlan {
    let elapsed = |task: &FileTask| task.month.months_since(case.first_month());
    plan.steps.sort_by_key(|task| usize::try_from(elapsed(task)).map(reading_index).ok());
    plan
}

/// Converts the files of a case.
async fn convert(
    context: &ConversionContext,
    plan: Result<CasePlan, ProductError>,
) -> Result<ProductResult, ProductError> {
    let plan = plan?;
    let done_before = plan.complete;
    let summary = research::run(context, plan).await?;
    Ok(ProductResult { done_before, objects: summary.converted, written: summary.bytes_out })
}
