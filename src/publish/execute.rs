//! Carrying a publish out.
//!
//! ```text
//! the intent      what may be there until this publish ends; while it is there, whoever publishes lists the
//!                 destination
//! deletes         only of what blocks an object that is sent: a file became a folder, or a folder a file
//! data, metadata  stage after stage, each when all of the one before has arrived
//! the manifest    what is there now, if nobody else wrote one
//! deletes         what names others before those
//! end             the intent is removed, then the lease
//! ```
//!
//! Killed before the intent is there, a publish leaves nothing but its lease. Killed after that, it leaves the
//! intent: the next publish lists what lies there, sends what differs, and deletes the rest if it may delete.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::changes::{Changes, upload_phase};
use super::destination::{KnownObjects, Mismatch, VerifyScope, list, look, verify};
use super::lease_guard::{ActiveLease, LeaseEnd, LeaseGuard};
use super::limiter::RequestLimiter;
use super::manifest::{Manifest, find};
use super::plan::{DestinationState, LeasedPlan, PublishPlan, REQUESTS, entries};
use super::transfer::{Transfer, TransferProgress};
use super::{ObjectEntry, PublishError};
use crate::executor::Stopped;
use crate::store::{Store, StoreError};

/// What a publish did.
#[derive(Clone, Debug, Default)]
pub struct PublishReport {
    /// Version of the published manifest.
    pub version: u64,
    /// Objects sent.
    pub sent: usize,
    /// Objects deleted.
    pub deleted: usize,
    /// Objects that lie there no longer, or not as they were published, and that the source has not, or not of
    /// what was asked for.
    pub dropped: usize,
    /// Objects read again, and those of them that are wrong.
    pub verified: Option<(usize, Vec<Mismatch>)>,
}

/// Carries out a plan, and gives up the lease under which it was made.
pub async fn publish(
    LeasedPlan { plan, lease, stop }: LeasedPlan,
    progress: Arc<dyn TransferProgress>,
) -> Result<PublishReport, PublishError> {
    let before = plan.state.manifest.as_ref();
    let version = before.map_or(0, |published| published.header.version);
    let mut outcome = PublishReport { version, ..PublishReport::default() };
    let next = plan.next();
    if plan.is_done(&next) {
        lease.release(Ok(()), LeaseEnd::Untouched).await?;
    } else {
        let changed = change(&plan, next, (&lease, &stop), progress, &mut outcome).await;
        let end = if changed.is_ok() { LeaseEnd::Complete } else { LeaseEnd::Unfinished };
        lease.release(changed, end).await?;
        outcome.dropped = plan.dropped();
    }
    if let Some(extent) = plan.options.verify {
        outcome.verified = Some(read_again(&plan, extent, &stop).await?);
    }
    Ok(outcome)
}

/// Reads objects of the source back from the destination: how many were read, and those that are wrong. After
/// `--audit --verify all` only what was sent is read; the plan has read the rest.
async fn read_again(
    plan: &PublishPlan,
    extent: VerifyScope,
    stop: &CancellationToken,
) -> Result<(usize, Vec<Mismatch>), PublishError> {
    let all = &plan.inventory.entries;
    let sent: Vec<ObjectEntry>;
    let (read_before, entries) = match (&plan.audit, extent) {
        (Some(_), VerifyScope::All) => {
            sent = plan.changes.send.iter().map(|(entry, _)| entry.clone()).collect();
            (all.len() - sent.len(), &sent)
        }
        _ => (0, all),
    };
    let entries = (&entries[..], plan.part_size);
    let (read, wrong) = verify(&plan.destination, entries, extent, stop).await?;
    Ok((read_before + read, wrong))
}

/// Makes the destination what comes `next`.
async fn change(
    plan: &PublishPlan,
    next: Vec<ObjectEntry>,
    (lease, stop): (&LeaseGuard, &CancellationToken),
    progress: Arc<dyn TransferProgress>,
    outcome: &mut PublishReport,
) -> Result<(), PublishError> {
    let PublishPlan { destination, changes, .. } = plan;
    let held = lease.shared();
    held.confirm().await?;
    let next = manifest(plan, next);
    announce(plan, &next).await?;
    let in_the_way = changes.in_the_way();
    outcome.deleted += delete(destination, &in_the_way, held, &*progress, stop).await?;
    destination.remove_empty_folders(plan.folders.clone()).await?;
    progress.begin(changes.send.len(), changes.bytes());
    let transfer = Arc::new(transfer(plan, (held, stop), &progress));
    send(&transfer, changes, outcome).await?;
    if stop.is_cancelled() {
        return Err(Stopped.into());
    }
    held.confirm().await?;
    next.save(destination).await?;
    outcome.version = next.header.version;
    let mut gone = changes.gone.clone();
    gone.retain(|entry| find(&in_the_way, &entry.key).is_none());
    outcome.deleted += delete(destination, &gone, held, &*progress, stop).await?;
    held.confirm().await?;
    if lease.may_have_other_holder && plan.state.intent.is_some() || lease.was_marked_dirty() {
        refuse_disturbed(plan, stop).await?;
    }
    // After a sleep here the intent may be that of somebody who has taken over.
    held.allow().await?;
    Ok(Manifest::end_intent(destination).await?)
}

/// The manifest of what comes `next`.
fn manifest(plan: &PublishPlan, next: Vec<ObjectEntry>) -> Manifest {
    let before = plan.state.manifest.as_ref();
    let mut recipes = before.map(|before| before.header.recipes.clone()).unwrap_or_default();
    recipes.extend(plan.inventory.recipes.clone());
    let source = plan.source.location().to_string();
    Manifest::after(before, &source, plan.part_size, recipes, next)
}

/// Writes the intent: the next manifest and the objects to delete. Then removes what an interrupted publish
/// left: its unfinished files on disk, and its uploads by parts of objects that are not sent now.
async fn announce(plan: &PublishPlan, next: &Manifest) -> Result<(), PublishError> {
    let PublishPlan {
        destination, changes, state: DestinationState { manifest, intent, .. }, ..
    } = plan;
    let mut all: Vec<ObjectEntry> = next.entries.iter().chain(&changes.gone).cloned().collect();
    all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let Manifest { header, .. } = next;
    let (recipes, part_size) = (header.recipes.clone(), header.part_size);
    let announced = Manifest::after(manifest.as_ref(), &header.source, part_size, recipes, all);
    announced.save_intent(destination, intent.as_ref()).await?;
    destination.remove_stale_temp_files("").await?;
    let large =
        changes.send.iter().map(|(entry, _)| entry).filter(|entry| entry.etag.is_of_parts());
    let large: BTreeSet<&str> = large.map(|entry| &*entry.key).collect();
    let is_left = |entry: &&ObjectEntry| entry.etag.is_of_parts() && !large.contains(&*entry.key);
    let left = entries(intent.as_ref()).iter().filter(is_left);
    let is_new =
        |entry: &&ObjectEntry| find(entries(manifest.as_ref()), &entry.key) != Some(*entry);
    let end = async |entry: &ObjectEntry| Ok(destination.abort_uploads(&entry.key).await?);
    stream::iter(left.filter(is_new))
        .map(end)
        .buffered(REQUESTS)
        .try_for_each(async |_| Ok(()))
        .await
}

fn transfer(
    plan: &PublishPlan,
    (held, stop): (&Arc<ActiveLease>, &CancellationToken),
    progress: &Arc<dyn TransferProgress>,
) -> Transfer {
    let PublishPlan { source, destination, options, inventory, .. } = plan;
    Transfer {
        source: source.clone(),
        destination: destination.clone(),
        flow: RequestLimiter::new(options.concurrency, options.rate),
        large: Transfer::large_limiter(options.concurrency),
        part_size: plan.part_size,
        resumes: plan.state.intent.is_some() || plan.audit.is_some(),
        damaged: inventory.damaged.clone(),
        pool: options.pool.clone(),
        held: held.clone(),
        progress: progress.clone(),
        stop: stop.clone(),
        cache_control: options.cache_control.clone(),
        content_type: options.content_type.clone(),
    }
}

/// Sends stage after stage; none is begun before all of the one before has arrived.
async fn send(
    transfer: &Arc<Transfer>,
    changes: &Changes,
    outcome: &mut PublishReport,
) -> Result<(), PublishError> {
    for stage in
        changes.send.chunk_by(|(a, _), (b, _)| upload_phase(&a.key) == upload_phase(&b.key))
    {
        if transfer.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        let entries: Vec<ObjectEntry> = stage.iter().map(|(entry, _)| entry.clone()).collect();
        let failed = transfer.send_all(&entries).await?;
        outcome.sent += entries.len() - failed;
        if failed > 0 {
            return Err(PublishError::SomeFailed { failed, total: changes.send.len() });
        }
    }
    Ok(())
}

/// Deletes objects at the destination, what names others before those: the order of sending, backwards.
/// How many.
async fn delete(
    destination: &Store,
    gone: &[ObjectEntry],
    held: &Arc<ActiveLease>,
    progress: &dyn TransferProgress,
    stop: &CancellationToken,
) -> Result<usize, PublishError> {
    let delete = async |entry: &ObjectEntry| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        held.allow().await?;
        match destination.delete(&entry.key).await {
            // On a disk, a folder that it was in has become a file, or it a folder.
            Err(StoreError::BadLocation(_) | StoreError::UnsupportedFileType { .. }) => {}
            deleted => {
                deleted?;
                destination.remove_empty_parents(&entry.key).await?;
            }
        }
        progress.deleted(&entry.key);
        Ok(())
    };
    let mut gone = gone.to_vec();
    gone.sort_by_key(|entry| Reverse(upload_phase(&entry.key)));
    for same in gone.chunk_by(|a, b| upload_phase(&a.key) == upload_phase(&b.key)) {
        let deleted = stream::iter(same).map(&delete).buffered(REQUESTS);
        deleted.try_for_each(async |()| Ok(())).await?;
    }
    Ok(gone.len())
}

/// Lists what lies there of the source once more, after another publisher may have changed it meanwhile.
async fn refuse_disturbed(
    plan: &PublishPlan,
    stop: &CancellationToken,
) -> Result<(), PublishError> {
    let PublishPlan { destination, part_size, inventory, .. } = plan;
    let known = KnownObjects {
        source: &inventory.entries,
        manifest: &[],
        intent: &[],
        is_dirty: true,
        reads_all: false,
        part_size: *part_size,
    };
    let (_, audit) = look(destination, list(destination).await?, &known, stop).await?;
    let objects = audit.missing.len() + audit.wrong.len();
    match objects {
        0 => Ok(()),
        _ => {
            Err(PublishError::ConcurrentWrite { url: destination.location().to_string(), objects })
        }
    }
}
