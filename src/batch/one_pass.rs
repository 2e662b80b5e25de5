//! All products of a case from one reading of its raw files.
//!
//! The commands for one product each read for themselves. Here they run side by side over a
//! [`Table`]: when each of them has asked for a month, its file is fetched, the curves and maps take
//! their fields from it, and it is converted. Each product has its record, so that what is done
//! already is passed over; what fails does not stop the others.

use super::Stage;
use crate::model::{Case, ErrorKind, Kinded};
use crate::pipeline::{Stopped, Table, unless_stopped};
use crate::research::plan::Step;
use crate::research::{self, CaseError, Environment, Plan, PlanError, PlanOptions, failures};
use crate::store::{Store, StoreError};
use crate::vis::contract::reading_place;
use crate::vis::input::{CaseFiles, Input};
use crate::vis::series::{self, Filled, Part, Wanted};
use crate::vis::store2::Atlas;
use crate::vis::store3::Distances;
use crate::vis::template::Destination;
use crate::vis::{VisError, Workshop, store1, store3};

/// What is made of cases, and where it goes.
pub struct Products<'a> {
    /// The archive of raw history.
    pub raw: Store,
    /// Research-grade files.
    pub research: Option<(Environment, PlanOptions)>,
    /// Efficiencies.
    pub store1: Option<Destination>,
    /// Maps.
    pub store2: Option<Atlas<'a>>,
    /// Uptake by distance.
    pub store3: Option<Distances>,
    /// Workers and progress.
    pub workshop: &'a Workshop,
    /// Use the months that are there.
    pub allow_missing: bool,
    /// Make what is done once more.
    pub force: bool,
}

/// A product was not made.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
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

impl Kinded for StageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Research(error) => error.kind(),
            Self::Vis(error) => error.kind(),
            Self::Gone { .. } => ErrorKind::Config,
            Self::Files { .. } => ErrorKind::BadData,
        }
    }
}

impl StageError {
    /// The cause for a list: the first one, in one line.
    pub fn cause(&self) -> String {
        match self {
            Self::Research(error) => failures::cause(error),
            other => failures::one_line(other),
        }
    }
}

impl From<Stopped> for StageError {
    fn from(stopped: Stopped) -> Self {
        Self::Vis(stopped.into())
    }
}

impl From<StoreError> for StageError {
    fn from(error: StoreError) -> Self {
        Self::Vis(error.into())
    }
}

impl From<PlanError> for StageError {
    fn from(error: PlanError) -> Self {
        Self::Research(error.into())
    }
}

/// A product that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Whether it was done before.
    pub before: bool,
    /// Objects written.
    pub objects: usize,
    /// Bytes written.
    pub written: u64,
}

impl From<Filled> for Made {
    fn from(Filled { before, objects, written, .. }: Filled) -> Self {
        Self { before, objects, written }
    }
}

/// Each product, or those together that failed together.
pub type Results = Vec<(Vec<Stage>, Result<Made, StageError>)>;

/// How a case went.
#[derive(Debug)]
pub struct Outcome {
    /// The products.
    pub stages: Results,
    /// Bytes of the raw files.
    pub size: u64,
    /// Bytes that were read from the archive.
    pub fetched: u64,
}

impl Products<'_> {
    /// The products there are to be.
    pub fn stages(&self) -> Vec<Stage> {
        let wanted = |stage: &Stage| match stage {
            Stage::Research => self.research.is_some(),
            Stage::Store1 => self.store1.is_some(),
            Stage::Store2 => self.store2.is_some(),
            Stage::Store3 => self.store3.is_some(),
        };
        Stage::ALL.into_iter().filter(wanted).collect()
    }

    /// The files of a case, as many as are `planned`.
    async fn files(&self, case: Case, planned: usize) -> Result<CaseFiles, StageError> {
        let files = match Input::Raw(self.raw.clone()).case(case, self.allow_missing).await {
            Err(VisError::Plan(error)) => match *error {
                PlanError::NoFiles { case, folder } => {
                    return Err(StageError::Gone { case, folder, planned });
                }
                error => return Err(error.into()),
            },
            files => files?,
        };
        let found = files.len();
        match found == planned {
            true => Ok(files),
            false => Err(StageError::Files { case, found, planned }),
        }
    }

    /// Makes all products of a case of so many `planned` files.
    pub async fn make(&self, case: Case, planned: usize) -> Outcome {
        let table = Table::new(self.workshop.pool.clone(), self.workshop.stop.clone());
        let mut files = match self.files(case, planned).await {
            Ok(files) => files,
            Err(error) => {
                let stages = vec![(self.stages(), Err(error))];
                return Outcome { stages, size: 0, fetched: 0 };
            }
        };
        let plan = match &self.research {
            None => None,
            Some((Environment { raw, out, .. }, options)) => {
                let plan =
                    unless_stopped(&self.workshop.stop, research::plan(raw, out, case, options))
                        .await;
                let plan = match plan {
                    Ok(plan) => plan.map_err(StageError::from),
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
        let converter = table.join(to_convert);
        let [curves, maps] = [(); 2].map(|()| files.read_by(table.join(files.keys())));
        let research = async {
            let Some(((environment, _), plan)) = self.research.as_ref().zip(plan) else {
                return Vec::new();
            };
            let environment = Environment { reader: converter, ..environment.clone() };
            vec![(vec![Stage::Research], convert(&environment, plan).await)]
        };
        let (research, curves, maps) = tokio::join!(research, self.curves(curves), self.maps(maps));
        let stages = research.into_iter().chain(curves).chain(maps).collect();
        Outcome { stages, size: files.size(), fetched: table.fetched() }
    }

    async fn maps(&self, files: CaseFiles) -> Results {
        let Some(atlas) = &self.store2 else { return Vec::new() };
        let filled = atlas.fill(&files, self.force).await;
        vec![(vec![Stage::Store2], filled.map(Made::from).map_err(StageError::from))]
    }

    /// Stores 1 and 3, which share a reading in any case.
    async fn curves(&self, files: CaseFiles) -> Results {
        let (mut results, mut parts) = (Results::new(), Vec::new());
        for (stage, part) in self.parts(&files).await {
            match part {
                Ok(part) if part.done => {
                    results.push((vec![stage], Ok(Made { before: true, ..Made::default() })));
                }
                Ok(part) => parts.push((stage, part)),
                Err(error) => results.push((vec![stage], Err(error.into()))),
            }
        }
        let stages: Vec<Stage> = parts.iter().map(|(stage, _)| *stage).collect();
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
                Some(Distances { destination, .. }) if stage == Stage::Store3 => {
                    let compat = destination.recipe.reference_compat;
                    store3::fill(part, &files, &series, compat).await
                }
                _ => store1::fill(part, &files, &series).await,
            };
            results.push((vec![stage], filled.map(Made::from).map_err(StageError::from)));
        }
        results
    }

    /// The case's parts of stores 1 and 3.
    async fn parts(&self, files: &CaseFiles) -> Vec<(Stage, Result<Part<'_>, VisError>)> {
        let mut parts = Vec::new();
        if let Some(destination) = &self.store1 {
            parts.push((Stage::Store1, store1::part(destination, files, self.force).await));
        }
        if let Some(distances) = &self.store3 {
            parts.push((Stage::Store3, distances.part(files, self.force).await));
        }
        parts
    }

    fn wanted(&self, stages: &[Stage], case: Case) -> Result<Wanted, VisError> {
        let distances = self.store3.as_ref().filter(|_| stages.contains(&Stage::Store3));
        let spread =
            |distances: &Distances| Ok::<_, VisError>(distances.spread(distances.center(case)?));
        let uptake = distances.map(spread).transpose()?;
        Ok(Wanted { efficiency: stages.contains(&Stage::Store1), uptake })
    }
}

/// The steps in the order in which the maps need the months.
fn in_reading_order(case: Case, mut plan: Plan) -> Plan {
    let elapsed = |step: &Step| step.month.months_since(case.first_month());
    plan.steps.sort_by_key(|step| usize::try_from(elapsed(step)).map(reading_place).ok());
    plan
}

async fn convert(
    environment: &Environment,
    plan: Result<Plan, StageError>,
) -> Result<Made, StageError> {
    let plan = plan?;
    let before = plan.complete;
    let summary = research::run(environment, plan).await?;
    Ok(Made { before, objects: summary.converted, written: summary.bytes_out })
}
