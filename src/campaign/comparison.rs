//! Comparison of the products of a case with a plan.

use std::cmp::Ordering;

use serde::{Serialize, Serializer};

use super::{CampaignPlan, PlannedCase, Product, ProductError};
use crate::case_manifest::{
    CASE_MANIFEST, CaseManifest, CaseManifestError, InputRecord, InputState, SettingDifference,
};
use crate::model::Case;
use crate::research::plan::raw_folder;
use crate::research::status::wrong_outputs;
use crate::research::{PlanError, RECIPE, folder};
use crate::store::{ObjectMeta, Store, StoreError};
use crate::vis::VisError;
use crate::vis::earlier::{RAW_HISTORY, input_kind};
use crate::vis::record::CaseRecord;

/// Why a product of a case is not what a plan asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The product was not made, or not completely.
    #[error("there is no case manifest of it")]
    Absent,
    /// The record cannot be parsed or has an unknown format.
    #[error("{0}; make it again: dor run --force")]
    Damaged(String),
    /// The location holds another kind of store, whose name this is.
    #[error("it is a result of {0}: the plan names the location of another store")]
    Store(String),
    /// Another version made the product, or `reference_compat` differs.
    #[error(
        "it was made under other rules than the plan's, and one store has one set of rules: \
         name another store in another plan"
    )]
    Rules,
    /// The product was made of other raw files.
    #[error(
        "it was made of {} files of {} bytes, the plan has {} of {}{}",
        .found.0, .found.1, .planned.0, .planned.1, advice(.found.0, .planned.0)
    )]
    Files {
        /// Number and bytes of the recorded inputs.
        found: (usize, u64),
        /// Number and bytes of the planned inputs.
        planned: (usize, u64),
    },
    /// The product was made of this kind of file, not of raw history.
    #[error(
        "it was made of {0}, the plan makes it of {RAW_HISTORY}; make it again: dor run --force"
    )]
    Source(&'static str),
    /// This input other than the archive differs.
    #[error(
        "it was made with another {0} than the plan's; make a plan with that one, or make it again: \
         dor run --force"
    )]
    Given(&'static str),
    /// The product was made without a grid file, and the plan names one.
    #[error("it was made without the plan's grid; dor run makes it again")]
    NoGrid,
    /// The raw file at this URL has changed.
    #[error("{0} has other bytes than recorded; dor run makes the product again")]
    Input(String),
    /// The raw file at this URL is an older version than the recorded one.
    #[error(
        "{0} is older than the file that it was made of, and has other bytes; restore that file, or make the \
         product of the older one: dor run --force"
    )]
    OlderInput(String),
    /// The raw file at this URL has another time than recorded, and no checksum of it is recorded.
    #[error(
        "{0} has another time than recorded, and no recorded checksum; dor run makes the product again"
    )]
    InputTime(String),
    /// A research-grade file differs from its case manifest as this text says.
    #[error("{0}; dor run makes it again")]
    Output(String),
}

impl Problem {
    /// Whether a run without `--force` refuses to make the product again.
    pub fn needs_force(&self) -> bool {
        match self {
            Self::Damaged(_) | Self::Store(_) | Self::Rules | Self::Source(_) => true,
            Self::Given(_) | Self::OlderInput(_) => true,
            Self::Files { found, planned } => found.0 > planned.0,
            Self::Absent | Self::NoGrid => false,
            Self::Input(_) | Self::InputTime(_) | Self::Output(_) => false,
        }
    }

    /// The kind of the difference, without names of files.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Absent => "not made before",
            Self::Damaged(_) => "the case manifest is damaged",
            Self::Store(_) => "the location holds another store",
            Self::Rules => "made under other rules",
            Self::Files { .. } => "made of other raw files",
            Self::Source(_) => "made of another kind of input",
            Self::Given(_) => "made with another input than the plan's",
            Self::NoGrid => "made without the plan's grid",
            Self::Input(_) => "a raw file has changed",
            Self::OlderInput(_) => "a raw file is older than recorded",
            Self::InputTime(_) => "a raw file has another time, and no recorded checksum",
            Self::Output(_) => "a research-grade file differs from its case manifest",
        }
    }
}

/// What to do about a product of other raw files, by the numbers of files.
fn advice(recorded: usize, planned: usize) -> &'static str {
    match recorded.cmp(&planned) {
        Ordering::Greater => "; dor run --force drops the months without a raw file",
        Ordering::Equal => "; make another plan if the archive has changed, then dor run",
        Ordering::Less => "",
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// A product of a case, and its difference from the plan; `None` when the product is done.
pub(super) type ComparedProduct = (Product, Case, Option<Problem>);

/// Compares products of a case with the plan and the archive.
pub(super) async fn compare_case(
    plan: &CampaignPlan,
    raw: &Store,
    outputs: &[&(Product, Store)],
    (case, planned): (Case, &PlannedCase),
) -> Result<Vec<ComparedProduct>, ProductError> {
    let (mut compared, mut unchanged) = (Vec::new(), Vec::new());
    // Listed once, and only when a product is as planned.
    let mut present = None;
    for (product, store) in outputs.iter().copied() {
        let problem = match inputs_of(plan, (*product, store), (case, planned)).await? {
            Err(problem) => Some(problem),
            Ok(_) if !raw.can_list() => None,
            Ok(inputs) => {
                if present.is_none() {
                    present = Some(raw.list(&raw_folder(case)).await?);
                }
                let present = present.as_deref().unwrap_or_default();
                changed_input(raw, present, &inputs, &mut unchanged).await?
            }
        };
        compared.push((*product, case, problem));
    }
    Ok(compared)
}

/// Whether a record agrees with the plan in one respect, and the problem when it does not.
type Check = (bool, Problem);

/// The problem of the first check that fails.
fn first_problem(checks: impl IntoIterator<Item = Check>) -> Option<Problem> {
    checks.into_iter().find_map(|(is_right, problem)| (!is_right).then_some(problem))
}

/// The inputs of a product that is as planned, or the difference from the plan.
type Comparison = Result<Vec<InputRecord>, Problem>;

/// Compares the record of a product with the plan.
async fn inputs_of(
    plan: &CampaignPlan,
    (product, store): (Product, &Store),
    (case, planned): (Case, &PlannedCase),
) -> Result<Comparison, ProductError> {
    match product {
        Product::Research => research_inputs(plan, store, (case, planned)).await,
        product => map_inputs(plan, (product, store), (case, planned)).await,
    }
}

/// Compares the case manifest and the research-grade files with the plan.
async fn research_inputs(
    plan: &CampaignPlan,
    store: &Store,
    (case, planned): (Case, &PlannedCase),
) -> Result<Comparison, ProductError> {
    let manifest = match CaseManifest::load(store, &folder(case), CASE_MANIFEST).await {
        Err(error @ (CaseManifestError::Damaged { .. } | CaseManifestError::Format { .. })) => {
            return Ok(Err(Problem::Damaged(error.to_string())));
        }
        manifest => manifest.map_err(PlanError::from)?,
    };
    let Some(manifest) = manifest else { return Ok(Err(Problem::Absent)) };
    let (recorded, wanted) = (&manifest.recipe.grid_sha256, &plan.fingerprints.grid_sha256);
    let problem = first_problem([
        (manifest.recipe.version == RECIPE, Problem::Rules),
        files_check(manifest.files.iter().map(|file| &file.input), planned),
        grid_check(recorded.as_deref(), wanted.as_deref()),
    ]);
    let problem = match problem {
        None => wrong_output(store, case, &manifest).await?,
        problem => problem,
    };
    let inputs = || manifest.files.into_iter().map(|file| file.input).collect();
    Ok(problem.map_or_else(|| Ok(inputs()), Err))
}

/// The first research-grade file that is absent or of another size than recorded, where the store
/// can be listed.
async fn wrong_output(
    store: &Store,
    case: Case,
    manifest: &CaseManifest,
) -> Result<Option<Problem>, StoreError> {
    if !store.can_list() {
        return Ok(None);
    }
    let listed = store.list(&folder(case)).await?;
    Ok(wrong_outputs(manifest, &listed).into_iter().next().map(Problem::Output))
}

/// Compares the record of a case in a map store with the plan.
async fn map_inputs(
    plan: &CampaignPlan,
    (product, store): (Product, &Store),
    (case, planned): (Case, &PlannedCase),
) -> Result<Comparison, ProductError> {
    let record = match CaseRecord::load(store, case).await {
        Err(error @ (VisError::Record { .. } | VisError::Format { .. })) => {
            return Ok(Err(Problem::Damaged(error.to_string())));
        }
        record => record?,
    };
    let Some(record) = record else { return Ok(Err(Problem::Absent)) };
    let made_of = input_kind(&record.inputs);
    let checks = [
        (record.store == product.name(), Problem::Store(record.store.clone())),
        (record.recipe == plan.recipe(product), Problem::Rules),
        (made_of == RAW_HISTORY, Problem::Source(made_of)),
        files_check(record.inputs.iter(), planned),
    ];
    let settings = settings_checks(plan, product, planned, &record);
    let problem = first_problem(checks.into_iter().chain(settings));
    Ok(problem.map_or_else(|| Ok(record.inputs), Err))
}

/// Checks the number and the bytes of the recorded inputs.
fn files_check<'a>(inputs: impl Iterator<Item = &'a InputRecord>, planned: &PlannedCase) -> Check {
    let found = inputs.fold((0, 0), |(files, bytes), input| (files + 1, bytes + input.size));
    let planned = (planned.files, planned.bytes);
    (found == planned, Problem::Files { found, planned })
}

/// Checks the SHA-256 of the grid file. A product without a grid can be made again with one; a
/// product of another grid is kept.
fn grid_check(recorded: Option<&str>, wanted: Option<&str>) -> Check {
    let is_without = recorded.is_none() && wanted.is_some();
    (recorded == wanted, if is_without { Problem::NoGrid } else { Problem::Given("grid") })
}

/// Checks the inputs other than raw files that a map store depends on. The rules are those by which
/// `vis` decides whether a case is done.
fn settings_checks(
    plan: &CampaignPlan,
    product: Product,
    planned: &PlannedCase,
    record: &CaseRecord,
) -> Vec<Check> {
    let grid = plan.fingerprints.grid_sha256.as_deref();
    let recorded = record.settings.grid_sha256.as_deref();
    match product {
        // With `reference_compat`, the grid comes from the raw files.
        Product::Store2 => vec![
            grid_check(recorded, grid.filter(|_| !plan.reference_compat)),
            (has_planned_ssh(plan, record), Problem::Given("series of sea surface height")),
        ],
        Product::Store3 => {
            let center = record.settings.center;
            vec![
                grid_check(recorded, grid),
                (center.is_some() && center == planned.center, Problem::Given("center")),
            ]
        }
        Product::Research | Product::Store1 => Vec::new(),
    }
}

/// Whether the maps have the planned series of sea surface height. Only maps that need a series
/// record one.
fn has_planned_ssh(plan: &CampaignPlan, record: &CaseRecord) -> bool {
    match (&record.settings.ssh, &plan.fingerprints.ssh) {
        (None, _) | (_, None) => true,
        (Some(recorded), Some(planned)) => recorded.has_same_content(planned),
    }
}

/// The first input whose raw file has other bytes now, or another time where its content is not recorded. An
/// absent raw file is no problem. `unchanged` has the inputs of products before this one that have the same
/// content now, and those of this product are added.
async fn changed_input(
    raw: &Store,
    present: &[ObjectMeta],
    inputs: &[InputRecord],
    unchanged: &mut Vec<InputRecord>,
) -> Result<Option<Problem>, StoreError> {
    for input in inputs {
        let Some(info) = present.iter().find(|info| info.key == input.key) else { continue };
        let is_same = |same: &InputRecord| same.is_same_version(input);
        if unchanged.iter().any(is_same) {
            continue;
        }
        let url = || raw.location().join(&input.key).to_string();
        match input.compare(raw, info).await? {
            InputState::Same | InputState::Touched => unchanged.push(input.clone()),
            InputState::Changed => {
                return Ok(Some(match SettingDifference::of_older_input(input, info) {
                    Some(_) => Problem::OlderInput(url()),
                    None => Problem::Input(url()),
                }));
            }
            InputState::Unknown => return Ok(Some(Problem::InputTime(url()))),
        }
    }
    Ok(None)
}
