//! Comparison of a case with the manifests of earlier and of concurrent runs.

use std::collections::BTreeMap;

use super::PlanError;
use crate::case_manifest::{
    CASE_MANIFEST, CaseManifest, ConversionRecipe, PARTIAL_MANIFEST, SettingDifference,
};
use crate::encode::research as layout;
use crate::model::Case;
use crate::store::Store;

/// What earlier and concurrent runs have made of a case.
#[derive(Default)]
pub(super) struct EarlierRuns {
    /// The manifest of earlier runs, if it has files.
    pub manifest: Option<CaseManifest>,
    /// Whether it is that of a complete case.
    pub complete: bool,
    /// The reason why this run must not convert files of the case: a process with other settings converts it,
    /// or was stopped, and has not replaced a file of the complete case yet.
    pub taken: Option<PlanError>,
}

/// The manifest of earlier runs. `present` has the sizes of the existing objects by key.
///
/// # Errors
/// The settings conflict with `recipe`, files have no valid manifest, or another process converts the case.
pub(super) async fn earlier(
    out: &Store,
    case: Case,
    recipe: &ConversionRecipe,
    present: &BTreeMap<String, u64>,
) -> Result<EarlierRuns, PlanError> {
    let folder = layout::folder(case);
    let exists = |name: &str| present.contains_key(&format!("{folder}/{name}"));
    // Both exist after a stop between writing the one and deleting the other. The conversion then deletes
    // the partial manifest.
    let (mut name, complete) = match (exists(CASE_MANIFEST), exists(PARTIAL_MANIFEST)) {
        (true, partial) => (CASE_MANIFEST, !partial),
        (false, _) => (PARTIAL_MANIFEST, false),
    };
    let files = case.months().filter(|m| present.contains_key(&layout::key(case, *m))).count();
    // A process with other settings can be converting the case now. It deletes the manifest of the complete
    // case before it replaces the first file.
    let taken = match exists(PARTIAL_MANIFEST) {
        true => differences(out, case, &folder, (PARTIAL_MANIFEST, recipe)).await.err(),
        false => None,
    };
    let taken = match taken {
        Some(error @ PlanError::Taken { .. }) if exists(CASE_MANIFEST) => Some(error),
        Some(error) => return Err(error),
        None => None,
    };
    let complete = complete || taken.is_some();
    let mut record = match exists(name) || files > 0 {
        true => CaseManifest::load(out, &folder, name).await?,
        false => return Ok(EarlierRuns::default()),
    };
    if record.is_none() && files > 0 {
        // Another process can have completed the case since the folder was listed.
        name = CASE_MANIFEST;
        record = CaseManifest::load(out, &folder, name).await?;
    }
    let unrecorded = |problem: String| {
        let folder = out.location().join(&folder).to_string();
        PlanError::NoRecord { case, folder, files, problem }
    };
    let Some(record) = record else {
        let problem = || unrecorded(format!("no case manifest of them ({CASE_MANIFEST})"));
        return if files > 0 { Err(problem()) } else { Ok(EarlierRuns::default()) };
    };
    if record.case != case.to_string() {
        return Err(unrecorded(format!("{name} there is of case {}", record.case)));
    }
    let differences = record.recipe.conflicts(recipe);
    if !differences.is_empty() {
        let url = out.location().join(&format!("{folder}/{name}")).to_string();
        return Err(PlanError::Settings { case, url, differences });
    }
    let has_size = |key: &str, size: u64| present.get(key).map(|present| *present == size);
    let has_recorded_size: Vec<bool> =
        record.files.iter().filter_map(|f| has_size(&f.key, f.content.size)).collect();
    if has_recorded_size.len() > 1 && !has_recorded_size.contains(&true) {
        let problem = format!("{name} there does not describe them: all have other sizes");
        return Err(unrecorded(problem));
    }
    let manifest = (!record.files.is_empty()).then_some(record);
    Ok(EarlierRuns { manifest, complete, taken })
}

/// The manifest `name`, if it exists. Its settings must be equal to `recipe`; that of a complete case may
/// lack the grid file, because a conversion with the grid file replaces its files.
///
/// # Errors
/// [`PlanError::Taken`] when the settings differ.
pub(super) async fn differences(
    out: &Store,
    case: Case,
    folder: &str,
    (name, recipe): (&str, &ConversionRecipe),
) -> Result<Option<CaseManifest>, PlanError> {
    let Some(manifest) = CaseManifest::load(out, folder, name).await? else { return Ok(None) };
    let existing = &manifest.recipe;
    let mut differences = existing.conflicts(recipe);
    if name == PARTIAL_MANIFEST && differences.is_empty() && existing != recipe {
        let (recorded, now) = ("none".to_owned(), "one (--grid is given)".to_owned());
        differences.push(SettingDifference { setting: "grid", recorded, now });
    }
    if differences.is_empty() {
        return Ok(Some(manifest));
    }
    let url = out.location().join(&format!("{folder}/{name}")).to_string();
    Err(PlanError::Taken { case, url, differences })
}
