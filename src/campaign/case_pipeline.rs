//! All products of a case from one reading of its raw files.
//!
//! The commands for one product each read for themselves. Here they run side by side over a
//! [`ReadCoordinator`]: when each of them has asked for a month, its file is fetched, the curves and maps take
//! their fields from it, and it is converted. Each product has its record, so that what is done
//! already is passed over; what fails does not stop the others.

use super::Product;
use crate::executor::{ReadCoordinator, Stopped, unless_stopped};
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::research::plan::FileTask;
use crate::research::{
    self, CaseError, CasePlan, ConversionContext, PlanError, PlanOptions, failures,
};
use crate::store::{Store, StoreError};
use crate::vis::create::OpenStore;
use crate::vis::input::{CaseFiles, CaseSource};
use crate::vis::schema::reading_place;
use crate::vis::series::{self, CaseSlot, FillReport, RequestedSeries};
use crate::vis::store2::MapContext;
use crate::vis::store3::UptakeContext;
use crate::vis::{RunContext, VisError, store1, store3};

/// What is made of cases, and where it goes.
pub struct Products<'a> {
    /// The archive of raw history.
    pub raw: Store,
    /// Research-grade files.
    pub research: Option<(ConversionContext, PlanOptions)>,
    /// Efficiencies.
    pub store1: Option<OpenStore>,
    /// Maps.
    pub store2: Option<MapContext<'a>>,
    /// Uptake by distance.
    pub store3: Option<UptakeContext>,
    /// Workers and progress.
    pub workshop: &'a RunContext,
    /// Use the months that are there.
    pub allow_missing: bool,
    /// Make what is done once more.
    pub force: bool,
}

/// A product was not made.
#[derive(Debug, thiserror::Error)]
pub enum ProductError {
    /// The research-grade files.
    #[error(transparent)]
    Research(#[from] CaseError),
    /// A part of a map store.
    #[error(transparent)]
    Vis(#[from] VisError),
    /// The archive has no files any more.
    #[error(
        "case {case} has no raw files in {folder}, and had {planned} when the plan was made; bring \
         the archive back, or make another plan"
    )]
    Gone {
        /// Case.
        case: Case,
        /// Where they were.
        folder: String,
        /// Files there were.
        planned: usize,
    },
    /// The archive is not what it was when the plan was made.
    #[error(
        "case {case} has {found} raw files, and had {planned} when the plan was made; put the \
         archive back as it was, or make another plan"
    )]
    Files {
        /// Case.
        case: Case,
        /// Files there are.
        found: usize,
        /// Files there were.
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
    /// The cause for a list: the first one, in one line.
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

/// A product that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProductResult {
    /// Whether it was done before.
    pub before: bool,
    /// Objects written.
    pub objects: usize,
    /// Bytes written.
    pub written: u64,
}

impl From<FillReport> for ProductResult {
    fn from(FillReport { before, objects, written, .. }: FillReport) -> Self {
        Self { before, objects, written }
    }
}

/// Each product, or those together that failed together.
pub type Results = Vec<(Vec<Product>, Result<ProductResult, ProductError>)>;

/// How a case went.
#[derive(Debug)]
pub struct CaseResult {
    /// The products.
    pub stages: Results,
    /// Bytes of the raw files.
    pub size: u64,
    /// Bytes that were read from the archive.
    pub fetched: u64,
}

impl Products<'_> {
    /// The products there are to be.
    pub fn stages(&self) -> Vec<Product> {
        let wanted = |stage: &Product| match stage {
            Product::Research => self.research.is_some(),
            Product::Store1 => self.store1.is_some(),
            Product::Store2 => self.store2.is_some(),
            Product::Store3 => self.store3.is_some(),
        };
        Product::ALL.into_iter().filter(wanted).collect()
    }

    /// The files of a case, as many as are `planned`.
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

    /// Makes all products of a case of so many `planned` files.
    pub async fn make(&self, case: Case, planned: usize) -> CaseResult {
        let table = ReadCoordinator::new(self.workshop.pool.clone(), self.workshop.stop.clone());
        let mut files = match self.files(case, planned).await {
            Ok(files) => files,
            Err(error) => {
                let stages = vec![(self.stages(), Err(error))];
                return CaseResult { stages, size: 0, fetched: 0 };
            }
        };
        let plan = match &self.research {
            None => None,
            Some((ConversionContext { raw, out, .. }, options)) => {
                let plan =
                    unless_stopped(&self.workshop.stop, research::plan(raw, out, case, options))
                        .await;
                let plan = match plan {
                    Ok(plan) => plan.map_err(ProductError::from),
                    Err(stopped) => Err(stopped.into()),
                };
                Some(plan.map(|plan| in_reading_order(case, plan)))
            }
        };
        // What was read to be compared for one product need not be read again for the others.
        if let Some(Ok(plan)) = &plan {
            files = files.known_as(plan.unchanged.clone());
        }
        // Everyone joins before the first one reads.
        let to_convert: Vec<String> = match &plan {
            Some(Ok(plan)) => plan.steps.iter().map(|step| step.input.key.clone()).collect(),
            _ => Vec::new(),
        };
        let converter = table.register(to_convert);
        let [curves, maps] = [(); 2].map(|()| files.read_by(table.register(files.keys())));
        let research = async {
            let Some(((environment, _), plan)) = self.research.as_ref().zip(plan) else {
                return Vec::new();
            };
            let environment = ConversionContext { reader: converter, ..environment.clone() };
            vec![(vec![Product::Research], convert(&environment, plan).await)]
        };
        let (research, curves, maps) = tokio::join!(research, self.curves(curves), self.maps(maps));
        let stages = research.into_iter().chain(curves).chain(maps).collect();
        CaseResult { stages, size: files.size(), fetched: table.fetched() }
    }

    async fn maps(&self, files: CaseFiles) -> Results {
        let Some(atlas) = &self.store2 else { return Vec::new() };
        let filled = atlas.fill(&files, self.force).await;
        vec![(vec![Product::Store2], filled.map(ProductResult::from).map_err(ProductError::from))]
    }

    /// Stores 1 and 3, which share a reading in any case.
    async fn curves(&self, files: CaseFiles) -> Results {
        let (mut results, mut parts) = (Results::new(), Vec::new());
        for (stage, part) in self.parts(&files).await {
            match part {
                Ok(part) if part.done => {
                    results.push((
                        vec![stage],
                        Ok(ProductResult { before: true, ..ProductResult::default() }),
                    ));
                }
                Ok(part) => parts.push((stage, part)),
                Err(error) => results.push((vec![stage], Err(error.into()))),
            }
        }
        let stages: Vec<Product> = parts.iter().map(|(stage, _)| *stage).collect();
        if stages.is_empty() {
            return results;
        }
        let series = async {
            let wanted = self.wanted(&stages, files.case)?;
            series::read(self.workshop, &files, &wanted).await
        };
        let series = match series.await {
            Ok(series) => series,
            Err(error) => {
                results.push((stages, Err(error.into())));
                return results;
            }
        };
        for (stage, part) in parts {
            let filled = match &self.store3 {
                Some(UptakeContext { destination, .. }) if stage == Product::Store3 => {
                    let compat = destination.recipe.reference_compat;
                    store3::fill(part, &files, &series, compat).await
                }
                _ => store1::fill(part, &files, &series).await,
            };
            results
                .push((vec![stage], filled.map(ProductResult::from).map_err(ProductError::from)));
        }
        results
    }

    /// The case's parts of stores 1 and 3.
    async fn parts(&self, files: &CaseFiles) -> Vec<(Product, Result<CaseSlot<'_>, VisError>)> {
        let mut parts = Vec::new();
        if let Some(destination) = &self.store1 {
            parts.push((Product::Store1, store1::part(destination, files, self.force).await));
        }
        if let Some(distances) = &self.store3 {
            parts.push((Product::Store3, distances.part(files, self.force).await));
        }
        parts
    }

    fn wanted(&self, stages: &[Product], case: Case) -> Result<RequestedSeries, VisError> {
        let distances = self.store3.as_ref().filter(|_| stages.contains(&Product::Store3));
        let spread = |distances: &UptakeContext| {
            Ok::<_, VisError>(distances.spread(distances.center(case)?))
        };
        let uptake = distances.map(spread).transpose()?;
        Ok(RequestedSeries { efficiency: stages.contains(&Product::Store1), uptake })
    }
}

/// The steps in the order in which the maps need the months.
fn in_reading_order(case: Case, mut plan: CasePlan) -> CasePlan {
    let elapsed = |step: &FileTask| step.month.months_since(case.first_month());
    plan.steps.sort_by_key(|step| usize::try_from(elapsed(step)).map(reading_place).ok());
    plan
}

async fn convert(
    environment: &ConversionContext,
    plan: Result<CasePlan, ProductError>,
) -> Result<ProductResult, ProductError> {
    let plan = plan?;
    let before = plan.complete;
    let summary = research::run(environment, plan).await?;
    Ok(ProductResult { before, objects: summary.converted, written: summary.bytes_out })
}
