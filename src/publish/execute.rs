//! Execution of a plan.
//!
//! ```text
//! stale uploads   parts of large objects that an interrupted publish has sent and nobody continues
//! intent          objects that the destination may have until this publish ends; while it is there,
//!                 every publish lists the destination
//! deletes         only objects whose path conflicts with an object that is sent
//! data, metadata  phase after phase; a phase starts when all objects of the previous one have arrived
//! manifest        the objects that are there now, unless another publisher wrote a manifest
//! deletes         the other objects, in reverse order of the phases: metadata before data
//! second listing  only where requests of another publisher may have arrived meanwhile
//! end             the intent is removed, then the lease
//! verification    objects are read back, without the lease
//! ```
//!
//! A publish that is killed before it writes the intent leaves only its lease. A publish that is killed
//! later leaves the intent: the next publish lists the destination, sends the objects that differ, and
//! with `--delete` deletes objects that the source does not have.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::changes::{Changes, upload_phase};
use super::destination::{KnownObjects, Mismatch, VerifyScope, list_and_compare, verify};
use super::destination_state::DestinationState;
use super::held_lease::{GRACE_PERIOD, HeldLease, LeaseEnd, LeaseHandle, PreviousHolder};
use super::limiter::RequestLimiter;
use super::manifest::{MAX_RESULTS, Manifest, ResultHistory, entries as entries_of, find};
use super::plan::{LeasedPlan, PublishPlan, REQUESTS};
use super::transfer::{Transfer, TransferProgress};
use super::{ObjectEntry, PublishError};
use crate::executor::{Stopped, unless_stopped};
use crate::model::ETag;
use crate::store::{Store, StoreError};

/// The result of a publish.
#[derive(Clone, Debug, Default)]
pub struct PublishReport {
    /// Version of the published manifest; 0 when there is none.
    pub version: u64,
    /// Number of objects sent.
    pub sent: usize,
    /// Number of objects deleted.
    pub deleted: usize,
    /// Number of dropped entries: objects of the manifest that were removed or changed at the
    /// destination and are not in this selection.
    pub dropped: usize,
    /// Number of objects read back, and those that differ. `None`: no verification was asked for.
    pub verified: Option<(usize, Vec<Mismatch>)>,
}

/// Carries out a plan and releases the lease under which it was made.
///
/// # Errors
/// The lease is lost, an object cannot be sent, source or destination fail, or the user stops the
/// program. The next publish continues.
pub async fn publish(
    LeasedPlan { plan, lease, stop }: LeasedPlan,
    progress: Arc<dyn TransferProgress>,
) -> Result<PublishReport, PublishError> {
    let before = plan.state.manifest.as_ref();
    let version = before.map_or(0, |published| published.header.version);
    let mut report = PublishReport { version, ..PublishReport::default() };
    let next = plan.entries_after();
    if plan.is_done(&next) {
        lease.release(Ok(()), LeaseEnd::NothingWritten).await?;
    } else {
        let result = change(&plan, next, (&lease, &stop), progress, &mut report).await;
        let end = match &result {
            Ok(()) => LeaseEnd::Complete,
            Err(PublishError::ConcurrentWrite { .. }) => LeaseEnd::Dirty,
            Err(_) => LeaseEnd::Interrupted,
        };
        lease.release(result, end).await?;
        report.dropped = plan.dropped();
    }
    if let Some(scope) = plan.options.verify {
        report.verified = Some(read_back(&plan, scope, &stop).await?);
    }
    Ok(report)
}

/// Reads objects of the source back from the destination. Returns their number and those that differ.
/// With `--audit --verify all`, the plan has read all objects except those that were sent.
async fn read_back(
    plan: &PublishPlan,
    scope: VerifyScope,
    stop: &CancellationToken,
) -> Result<(usize, Vec<Mismatch>), PublishError> {
    let all = &plan.inventory.entries;
    let sent: Vec<ObjectEntry>;
    let (already_read, entries) = match (&plan.audit, scope) {
        (Some(_), VerifyScope::All) => {
            sent = plan.changes.send.iter().map(|(entry, _)| entry.clone()).collect();
            (all.len() - sent.len(), &sent)
        }
        _ => (0, all),
    };
    let entries = (&entries[..], plan.part_size);
    let (read, wrong) = verify(&plan.destination, entries, scope, stop).await?;
    Ok((already_read + read, wrong))
}

/// Changes the destination so that it has the objects `next`.
async fn change(
    plan: &PublishPlan,
    next: Vec<ObjectEntry>,
    (lease, stop): (&HeldLease, &CancellationToken),
    progress: Arc<dyn TransferProgress>,
    report: &mut PublishReport,
) -> Result<(), PublishError> {
    let PublishPlan { destination, changes, .. } = plan;
    let active = lease.shared();
    active.confirm().await?;
    let next = next_manifest(plan, next);
    // Only the intent of the interrupted publish names its uploads.
    abort_stale_uploads(plan).await?;
    write_intent(plan, &next).await?;
    let conflicts = changes.path_conflicts();
    report.deleted += delete(destination, &conflicts, active, &*progress, stop).await?;
    destination.remove_empty_folders(plan.folders.clone()).await?;
    progress.begin(changes.send.len(), changes.bytes());
    let transfer = Arc::new(transfer(plan, (active, stop), &progress));
    send(&transfer, changes, report).await?;
    if stop.is_cancelled() {
        return Err(Stopped.into());
    }
    active.confirm().await?;
    next.save(destination).await?;
    report.version = next.header.version;
    let mut deletes = changes.deletes.clone();
    deletes.retain(|entry| find(&conflicts, &entry.key).is_none());
    report.deleted += delete(destination, &deletes, active, &*progress, stop).await?;
    active.confirm().await?;
    let may_arrive_late = replaces_interrupted(plan, &next);
    if may_arrive_late {
        wait_for_late_requests(lease, stop).await?;
    }
    let had_other_holder = lease.previous != PreviousHolder::Ended && plan.state.intent.is_some();
    if may_arrive_late || had_other_holder || lease.was_marked_dirty() {
        refuse_concurrent_writes(plan, &next, stop).await?;
    }
    // If the machine slept until here, another publisher may have taken over and written its intent.
    active.ensure_held().await?;
    Ok(Manifest::delete_intent(destination).await?)
}

/// The manifest with the entries `next`.
fn next_manifest(plan: &PublishPlan, next: Vec<ObjectEntry>) -> Manifest {
    let before = plan.state.manifest.as_ref();
    let mut recipes = before.map(|before| before.header.recipes.clone()).unwrap_or_default();
    recipes.extend(plan.inventory.recipes.clone());
    let source = plan.source.location().to_string();
    let results = result_history(before, &plan.inventory.results, &next);
    let mut next = Manifest::after(before, &source, plan.part_size, recipes, next);
    next.results = results;
    next
}

/// The results that publishes have sent, with those of this publish. They show that the result of a source is
/// an earlier one.
fn result_history(
    before: Option<&Manifest>,
    sent: &BTreeMap<String, ETag>,
    next: &[ObjectEntry],
) -> ResultHistory {
    let mut history = before.map(|before| before.results.clone()).unwrap_or_default();
    for (key, result) in sent.iter().filter(|(key, _)| find(next, key).is_some()) {
        let results = history.entry(key.as_str().into()).or_default();
        results.retain(|earlier| earlier != result);
        results.push(*result);
        results.drain(..results.len().saturating_sub(MAX_RESULTS));
    }
    history
}

/// Writes the intent: the entries of the next manifest, the objects to delete, those of an interrupted publish
/// that may still arrive, and the versions that an interrupted publish has left of them.
async fn write_intent(plan: &PublishPlan, next: &Manifest) -> Result<(), PublishError> {
    let DestinationState { manifest, intent, .. } = &plan.state;
    let Manifest { header, entries, .. } = next;
    let mut all: Vec<ObjectEntry> = entries.iter().chain(&plan.changes.deletes).cloned().collect();
    all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let is_listed = |key: &str| find(&all, key).is_some() || plan.is_foreign(key);
    let late = late_objects(plan).filter(|entry| !is_listed(&entry.key));
    let late: Vec<ObjectEntry> = late.cloned().collect();
    all.extend(late);
    all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let before = entries_of(manifest.as_ref());
    let is_replaced = |entry: &&ObjectEntry| {
        find(&all, &entry.key).is_some_and(|next| next != *entry)
            && find(before, &entry.key) != Some(*entry)
    };
    // A request of the interrupted publish may still arrive, so its version counts where none is there.
    let versions = plan.present.iter().chain(entries_of(intent.as_ref()));
    let mut found_versions: Vec<ObjectEntry> = versions.filter(is_replaced).cloned().collect();
    found_versions.sort_by(|a, b| a.key.cmp(&b.key));
    found_versions.dedup_by(|a, b| a.key == b.key);
    let (recipes, part_size) = (header.recipes.clone(), header.part_size);
    let mut written = Manifest::after(manifest.as_ref(), &header.source, part_size, recipes, all);
    written.found_versions = found_versions;
    written.save_intent(&plan.destination, intent.as_ref()).await
}

/// Removes the temporary files of an interrupted publish on disk, and its multipart uploads of objects
/// that this publish does not send.
async fn abort_stale_uploads(plan: &PublishPlan) -> Result<(), PublishError> {
    let PublishPlan {
        destination, changes, state: DestinationState { manifest, intent, .. }, ..
    } = plan;
    destination.remove_stale_temp_files("").await?;
    let multipart =
        changes.send.iter().map(|(entry, _)| entry).filter(|entry| entry.etag.is_multipart());
    let sent: BTreeSet<&str> = multipart.map(|entry| &*entry.key).collect();
    let is_stale = |entry: &&ObjectEntry| {
        entry.etag.is_multipart()
            && !sent.contains(&*entry.key)
            && find(entries_of(manifest.as_ref()), &entry.key) != Some(*entry)
    };
    let abort = async |entry: &ObjectEntry| Ok(destination.abort_uploads(&entry.key).await?);
    stream::iter(entries_of(intent.as_ref()).iter().filter(is_stale))
        .map(abort)
        .buffered(REQUESTS)
        .try_for_each(async |_| Ok(()))
        .await
}

fn transfer(
    plan: &PublishPlan,
    (lease, stop): (&Arc<LeaseHandle>, &CancellationToken),
    progress: &Arc<dyn TransferProgress>,
) -> Transfer {
    let PublishPlan { source, destination, options, inventory, .. } = plan;
    Transfer {
        source: source.clone(),
        destination: destination.clone(),
        requests: RequestLimiter::new(options.concurrency, options.rate),
        multipart: Transfer::multipart_limiter(options.concurrency),
        part_size: plan.part_size,
        resumes: plan.state.intent.is_some() || plan.audit.is_some(),
        mismatched: inventory.mismatched.clone(),
        pool: options.pool.clone(),
        lease: lease.clone(),
        progress: progress.clone(),
        stop: stop.clone(),
        cache_control: options.cache_control.clone(),
        content_type: options.content_type.clone(),
    }
}

/// Sends the objects phase by phase; a phase starts when all objects of the previous one have arrived.
async fn send(
    transfer: &Arc<Transfer>,
    changes: &Changes,
    report: &mut PublishReport,
) -> Result<(), PublishError> {
    for phase in
        changes.send.chunk_by(|(a, _), (b, _)| upload_phase(&a.key) == upload_phase(&b.key))
    {
        if transfer.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        let entries: Vec<ObjectEntry> = phase.iter().map(|(entry, _)| entry.clone()).collect();
        let failed = transfer.send_all(&entries).await?;
        report.sent += entries.len() - failed;
        if failed > 0 {
            return Err(PublishError::SomeFailed { failed, total: changes.send.len() });
        }
    }
    Ok(())
}

/// Deletes objects at the destination in reverse order of the upload phases, so that metadata never
/// names a deleted chunk. Returns the number of objects.
async fn delete(
    destination: &Store,
    deletes: &[ObjectEntry],
    lease: &Arc<LeaseHandle>,
    progress: &dyn TransferProgress,
    stop: &CancellationToken,
) -> Result<usize, PublishError> {
    let delete = async |entry: &ObjectEntry| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        lease.ensure_held().await?;
        match destination.delete(&entry.key).await {
            // On a disk, the path is now a folder, or one of its folders is now a file.
            Err(StoreError::BadLocation(_) | StoreError::UnsupportedFileType { .. }) => {}
            deleted => {
                deleted?;
                destination.remove_empty_parents(&entry.key).await?;
            }
        }
        progress.deleted(&entry.key);
        Ok(())
    };
    let mut deletes = deletes.to_vec();
    deletes.sort_by_key(|entry| Reverse(upload_phase(&entry.key)));
    for phase in deletes.chunk_by(|a, b| upload_phase(&a.key) == upload_phase(&b.key)) {
        let deleted = stream::iter(phase).map(&delete).buffered(REQUESTS);
        deleted.try_for_each(async |()| Ok(())).await?;
    }
    Ok(deletes.len())
}

/// Objects that an interrupted publish was going to send. A request of it may arrive after its process has
/// ended.
fn late_objects(plan: &PublishPlan) -> impl Iterator<Item = &ObjectEntry> {
    let DestinationState { manifest, intent, .. } = &plan.state;
    let before = entries_of(manifest.as_ref());
    entries_of(intent.as_ref()).iter().filter(|entry| find(before, &entry.key) != Some(*entry))
}

/// Whether an interrupted publish was going to send objects that this publish sends with other bytes, deletes,
/// or does not have.
fn replaces_interrupted(plan: &PublishPlan, next: &Manifest) -> bool {
    // On a disk, nothing of a process that has ended arrives.
    !plan.destination.location().is_local()
        && late_objects(plan).any(|entry| next.entry(&entry.key) != Some(entry))
}

/// Waits until requests of an earlier publisher, which has ended, have arrived.
async fn wait_for_late_requests(
    lease: &HeldLease,
    stop: &CancellationToken,
) -> Result<(), PublishError> {
    let rest = GRACE_PERIOD.saturating_sub(lease.age());
    if !rest.is_zero() {
        let seconds = rest.as_secs() + 1;
        tracing::warn!("waiting {seconds} s: requests of an interrupted publish may still arrive");
        unless_stopped(stop, tokio::time::sleep(rest)).await?;
    }
    Ok(())
}

/// Lists the destination again and fails if another publisher has changed objects of the source, or has sent
/// objects that are not in the manifest.
async fn refuse_concurrent_writes(
    plan: &PublishPlan,
    next: &Manifest,
    stop: &CancellationToken,
) -> Result<(), PublishError> {
    let PublishPlan { destination, part_size, inventory, changes, .. } = plan;
    let known = KnownObjects {
        source: &inventory.entries,
        manifest: &[],
        intent: &[],
        found_versions: &[],
        is_dirty: true,
        repairs: true,
        reads_all: false,
        part_size: *part_size,
    };
    let (_, audit) = list_and_compare(destination, &known, stop).await?;
    let intent = plan.state.intent.as_ref();
    let is_sent = |key: &str| {
        find(&changes.deletes, key).is_some() || find(entries_of(intent), key).is_some()
    };
    let is_back =
        |key: &&String| next.entry(key).is_none() && is_sent(key) && !plan.is_foreign(key);
    let back = audit.unmanaged.iter().filter(is_back).count();
    match audit.missing.len() + audit.wrong.len() + back {
        0 => Ok(()),
        objects => {
            Err(PublishError::ConcurrentWrite { url: destination.location().to_string(), objects })
        }
    }
}
