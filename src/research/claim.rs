//! A case is made under one set of settings at a time: what a run notes down, and looks for, while it makes it.

use super::PlanError;
use super::plan::CasePlan;
use super::recorded::differences;
use crate::case_manifest::{COMPLETE, CaseManifest, ConversionRecipe, PARTIAL};
use crate::model::Case;
use crate::store::{PutMode, Store};

/// Notes down under which settings the case is made, before its first file; refused when another
/// process makes it under others. Of several that begin at once under different settings, one goes on.
pub(super) async fn claim(out: &Store, plan: &CasePlan, folder: &str) -> Result<(), PlanError> {
    if !plan.begun_before {
        plan.record.save_on(out, folder, PARTIAL, PutMode::Absent).await?;
    } else {
        // Of other settings only where that is forced.
        let found = CaseManifest::load(out, folder, PARTIAL).await.ok().flatten();
        if found.is_none_or(|found| found.recipe != plan.record.recipe) {
            plan.record.save(out, folder, PARTIAL).await?;
        }
    }
    agree(out, plan.case, folder, &plan.record.recipe).await?;
    if plan.ended_before {
        return Ok(());
    }
    // Another process may have begun and ended since the plan was made.
    let ended = differences(out, plan.case, folder, (COMPLETE, &plan.record.recipe)).await;
    if ended.is_err() {
        give_up(out, plan, folder).await;
    }
    ended.map(drop)
}

/// Notes, before the first file becomes visible, which files are done; from then on the case is not complete.
pub(super) async fn confirm(out: &Store, plan: &CasePlan, folder: &str) -> Result<(), PlanError> {
    let record = &plan.record;
    let (found, condition) = CaseManifest::load_version(out, folder, PARTIAL).await?;
    let is_ours = found.is_none_or(|found| found.recipe == record.recipe);
    if !is_ours || !record.save_on(out, folder, PARTIAL, condition).await? {
        agree(out, plan.case, folder, &record.recipe).await?;
        record.save(out, folder, PARTIAL).await?;
    }
    Ok(out.delete(&format!("{folder}/{COMPLETE}")).await?)
}

/// Refuses to go on when another process makes the case under other settings, or has just done so.
pub(super) async fn agree(
    out: &Store,
    case: Case,
    folder: &str,
    recipe: &ConversionRecipe,
) -> Result<(), PlanError> {
    if !differences(out, case, folder, (PARTIAL, recipe)).await? {
        differences(out, case, folder, (COMPLETE, recipe)).await?;
    }
    Ok(())
}

/// Takes back what [`claim`] noted, when no file was made.
pub(super) async fn give_up(out: &Store, plan: &CasePlan, folder: &str) {
    if plan.begun_before {
        return;
    }
    let key = format!("{folder}/{PARTIAL}");
    if let Ok(Some(found)) = CaseManifest::load(out, folder, PARTIAL).await
        && found == plan.record
        && let Err(error) = out.delete(&key).await
    {
        tracing::warn!("{error}; it tells of no file, and the next run takes it over");
    }
}
