//! Claims of cases. Only processes with equal settings convert a case at the same time: each writes its
//! settings to the partial manifest before it writes files, and compares them with those of the others.

use super::PlanError;
use super::plan::CasePlan;
use super::recorded::differences;
use crate::case_manifest::{CASE_MANIFEST, CaseManifest, ConversionRecipe, PARTIAL_MANIFEST};
use crate::model::Case;
use crate::store::{PutMode, Store};

/// Writes the settings of this run to the partial manifest, before the first file of the case. Of several
/// processes that begin at the same time with different settings, one continues.
///
/// # Errors
/// [`PlanError::Taken`] when another process converts the case with other settings.
pub(super) async fn claim(out: &Store, plan: &CasePlan, folder: &str) -> Result<(), PlanError> {
    if !plan.begun_before {
        plan.record.save_if(out, folder, PARTIAL_MANIFEST, PutMode::Absent).await?;
    } else {
        // Only a forced run comes here with settings other than those of the manifest.
        let existing = CaseManifest::load(out, folder, PARTIAL_MANIFEST).await.ok().flatten();
        if existing.is_none_or(|existing| existing.recipe != plan.record.recipe) {
            plan.record.save(out, folder, PARTIAL_MANIFEST).await?;
        }
    }
    agree(out, plan.case, folder, &plan.record.recipe).await?;
    if plan.ended_before {
        return Ok(());
    }
    // Another process can have completed the case since the plan was made.
    let completed = differences(out, plan.case, folder, (CASE_MANIFEST, &plan.record.recipe)).await;
    if completed.is_err() {
        withdraw(out, plan, folder).await;
    }
    completed.map(drop)
}

/// Writes to the partial manifest which files are done, then deletes the manifest of the complete case. Runs
/// before the first new file becomes visible.
pub(super) async fn confirm(out: &Store, plan: &CasePlan, folder: &str) -> Result<(), PlanError> {
    let record = &plan.record;
    let (existing, condition) =
        CaseManifest::load_with_condition(out, folder, PARTIAL_MANIFEST).await?;
    let is_same = existing.is_none_or(|existing| existing.recipe == record.recipe);
    if !is_same || !record.save_if(out, folder, PARTIAL_MANIFEST, condition).await? {
        agree(out, plan.case, folder, &record.recipe).await?;
        record.save(out, folder, PARTIAL_MANIFEST).await?;
    }
    Ok(out.delete(&format!("{folder}/{CASE_MANIFEST}")).await?)
}

/// Compares the settings with those of other processes that convert the case.
///
/// # Errors
/// [`PlanError::Taken`] when another process converts the case with other settings, or has just completed it.
pub(super) async fn agree(
    out: &Store,
    case: Case,
    folder: &str,
    recipe: &ConversionRecipe,
) -> Result<(), PlanError> {
    if !differences(out, case, folder, (PARTIAL_MANIFEST, recipe)).await? {
        differences(out, case, folder, (CASE_MANIFEST, recipe)).await?;
    }
    Ok(())
}

/// Deletes the partial manifest that [`claim`] wrote, when no file was converted.
pub(super) async fn withdraw(out: &Store, plan: &CasePlan, folder: &str) {
    if plan.begun_before {
        return;
    }
    let key = format!("{folder}/{PARTIAL_MANIFEST}");
    if let Ok(Some(existing)) = CaseManifest::load(out, folder, PARTIAL_MANIFEST).await
        && existing == plan.record
        && let Err(error) = out.delete(&key).await
    {
        tracing::warn!("{error}; the manifest lists no file, and the next run replaces it");
    }
}
