//! What the records of a case tell of earlier runs, before it is planned, and of other runs.

use std::collections::BTreeMap;

use super::PlanError;
use crate::case_manifest::{COMPLETE, CaseManifest, ConversionRecipe, PARTIAL, SettingDifference};
use crate::encode::research as layout;
use crate::model::Case;
use crate::store::Store;

/// What was made of the case before, and whether that is recorded as complete; refused when it was
/// made under other settings that this run would not better, or is not recorded.
pub(super) async fn earlier(
    out: &Store,
    case: Case,
    recipe: &ConversionRecipe,
    present: &BTreeMap<String, u64>,
) -> Result<(Option<CaseManifest>, bool), PlanError> {
    let folder = layout::folder(case);
    let has = |name: &str| present.contains_key(&format!("{folder}/{name}"));
    // Left by a stop between the two records: carrying out the plan removes the second.
    let (mut name, complete) = match (has(COMPLETE), has(PARTIAL)) {
        (true, partial) => (COMPLETE, !partial),
        (false, _) => (PARTIAL, false),
    };
    let files = case.months().filter(|m| present.contains_key(&layout::key(case, *m))).count();
    // Whoever makes it with other settings may be at work.
    if has(PARTIAL) {
        differences(out, case, &folder, (PARTIAL, recipe)).await?;
    }
    let mut record = match has(name) || files > 0 {
        true => CaseManifest::load(out, &folder, name).await?,
        false => return Ok((None, false)),
    };
    if record.is_none() && files > 0 {
        // Another process may have ended the case while the folder was listed.
        name = COMPLETE;
        record = CaseManifest::load(out, &folder, name).await?;
    }
    let unrecorded = |problem: String| {
        let folder = out.location().join(&folder).to_string();
        PlanError::NoRecord { case, folder, files, problem }
    };
    let Some(record) = record else {
        let problem = || unrecorded(format!("no record of them ({COMPLETE})"));
        return if files > 0 { Err(problem()) } else { Ok((None, false)) };
    };
    if record.case != case.to_string() {
        return Err(unrecorded(format!("{name} there is of case {}", record.case)));
    }
    let differences = record.recipe.conflicts(recipe);
    if !differences.is_empty() {
        let url = out.location().join(&format!("{folder}/{name}")).to_string();
        return Err(PlanError::Settings { case, url, differences });
    }
    let there = |key: &str, size: u64| present.get(key).map(|found| *found == size);
    let same: Vec<bool> =
        record.files.iter().filter_map(|f| there(&f.key, f.content.size)).collect();
    if same.len() > 1 && !same.contains(&true) {
        let problem = format!("{name} there does not describe them: all have other sizes");
        return Err(unrecorded(problem));
    }
    Ok(((!record.files.is_empty()).then_some(record), complete))
}

/// Whether there is a record of this name, which must be of the same settings; a complete case may lack
/// the grid file that makes it better.
pub(super) async fn differences(
    out: &Store,
    case: Case,
    folder: &str,
    (name, recipe): (&str, &ConversionRecipe),
) -> Result<bool, PlanError> {
    let Some(CaseManifest { recipe: found, .. }) = CaseManifest::load(out, folder, name).await?
    else {
        return Ok(false);
    };
    let mut differences = found.conflicts(recipe);
    if name == PARTIAL && differences.is_empty() && found != *recipe {
        let (recorded, now) = ("none".to_owned(), "one (--grid is given)".to_owned());
        differences.push(SettingDifference { setting: "grid", recorded, now });
    }
    if differences.is_empty() {
        return Ok(true);
    }
    let url = out.location().join(&format!("{folder}/{name}")).to_string();
    Err(PlanError::Taken { case, url, differences })
}
