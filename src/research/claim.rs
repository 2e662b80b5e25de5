//! Claims of cases. Only processes with equal settings and equal raw files convert a case at the same time:
//! each writes both to the partial manifest before it writes files, and compares them with those of the
//! others.

use super::PlanError;
use super::plan::CasePlan;
use super::recorded::differences;
use crate::case_manifest::{
    CASE_MANIFEST, CaseManifest, InputRecord, PARTIAL_MANIFEST, SettingDifference,
};
use crate::model::Case;
use crate::store::{PutMode, Store};

/// Writes the settings and raw files of this run to the partial manifest, before the first file of the case. Of
/// several processes that begin at the same time with different ones, one continues.
///
/// # Errors
/// [`PlanError::Taken`] when another process converts the case with other settings or raw files.
pub(super) async fn claim(out: &Store, plan: &CasePlan, folder: &str) -> Result<(), PlanError> {
    if !plan.has_partial_manifest {
        plan.record.save_if(out, folder, PARTIAL_MANIFEST, PutMode::Absent).await?;
    } else {
        // Only a forced run comes here with settings other than those of the manifest. With other raw files,
        // this run continues, and the other process, if it still runs, stops.
        let existing = CaseManifest::load(out, folder, PARTIAL_MANIFEST).await.ok().flatten();
        if existing.is_none_or(|existing| !is_same_work(&existing, &plan.record)) {
            plan.record.save(out, folder, PARTIAL_MANIFEST).await?;
        }
    }
    agree(out, plan.case, folder, &plan.record).await?;
    if plan.has_manifest {
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
    let is_same = existing.is_none_or(|existing| is_same_work(&existing, record));
    if !is_same || !record.save_if(out, folder, PARTIAL_MANIFEST, condition).await? {
        agree(out, plan.case, folder, record).await?;
        record.save(out, folder, PARTIAL_MANIFEST).await?;
    }
    Ok(out.delete(&format!("{folder}/{CASE_MANIFEST}")).await?)
}

/// Whether two manifests are of conversions with the same settings and raw files.
fn is_same_work(one: &CaseManifest, other: &CaseManifest) -> bool {
    one.recipe == other.recipe && one.inputs_fingerprint == other.inputs_fingerprint
}

/// Compares the settings and the raw files with those of other processes that convert the case.
///
/// # Errors
/// [`PlanError::Taken`] when another process converts the case with other settings or raw files, or has just
/// completed it.
pub(super) async fn agree(
    out: &Store,
    case: Case,
    folder: &str,
    record: &CaseManifest,
) -> Result<(), PlanError> {
    let find = async |name| differences(out, case, folder, (name, &record.recipe)).await;
    let (name, fingerprint) = match find(PARTIAL_MANIFEST).await? {
        Some(partial) => (PARTIAL_MANIFEST, partial.inputs_fingerprint),
        // The other process has completed the case.
        None => match find(CASE_MANIFEST).await? {
            Some(complete) => {
                let inputs = complete.files.iter().map(|file| &file.input);
                (CASE_MANIFEST, Some(InputRecord::fingerprint(inputs)))
            }
            None => return Ok(()),
        },
    };
    if fingerprint == record.inputs_fingerprint {
        return Ok(());
    }
    let difference = SettingDifference {
        setting: "raw files",
        recorded: "other files or other versions of them".to_owned(),
        now: "those of --data-dir".to_owned(),
    };
    let url = out.location().join(&format!("{folder}/{name}")).to_string();
    Err(PlanError::Taken { case, url, differences: vec![difference] })
}

/// Deletes the partial manifest that [`claim`] wrote, when no file was converted.
pub(super) async fn withdraw(out: &Store, plan: &CasePlan, folder: &str) {
    if plan.has_partial_manifest {
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
