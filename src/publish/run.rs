//! Carrying a publish out.
//!
//! ```text
//! the intent      what will be there; until it is removed, whoever publishes lists the destination
//! data, metadata  stage after stage, each when all of the one before has arrived
//! the manifest    what is there now, if nobody else wrote one
//! deletes         what names others before those
//! end             the intent is removed, then the lease
//! ```
//!
//! Killed before the intent is there, a publish has changed nothing. Killed after that, the next one finds
//! the intent, lists what lies there, and sends and deletes the rest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::destination::{Extent, Known, Wrong, list, look, verify};
use super::flow::Flow;
use super::held::{End, Held, Shared};
use super::manifest::{Manifest, find};
use super::plan::{Plan, stage};
use super::prepare::{Prepared, REQUESTS, entries};
use super::transfer::{Progress, Transfer};
use super::{Entry, PublishError};
use crate::pipeline::Stopped;
use crate::store::{Store, StoreError};

/// What a publish did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Version of the published manifest.
    pub version: u64,
    /// Objects sent.
    pub sent: usize,
    /// Objects deleted.
    pub deleted: usize,
    /// Objects that lie there no longer, or not as they were published, and that the source has not, or not of
    /// what was asked for.
    pub forgotten: usize,
    /// Objects read again, and those of them that are wrong.
    pub verified: Option<(usize, Vec<Wrong>)>,
}

/// Carries out what [`super::prepare()`] found, and gives its lease up.
pub async fn publish(
    mut prepared: Prepared,
    progress: Arc<dyn Progress>,
) -> Result<Outcome, PublishError> {
    let before = prepared.published.as_ref();
    let version = before.map_or(0, |published| published.header.version);
    let mut outcome = Outcome { version, ..Outcome::default() };
    let next = prepared.next();
    match prepared.lease.take() {
        Some(lease) if !prepared.is_done(&next) => {
            let changed = change(&prepared, next, &lease, progress, &mut outcome).await;
            let end = if changed.is_ok() { End::Complete } else { End::Unfinished };
            lease.release(changed, end).await?;
            outcome.forgotten = prepared.forgotten();
        }
        Some(lease) => lease.release(Ok(()), End::Untouched).await?,
        None => {}
    }
    if let Some(extent) = prepared.options.verify {
        let all = &prepared.inventory.entries;
        // What was read and found right before needs no second reading.
        let sent: Vec<Entry>;
        let (read_before, entries) = match (&prepared.audit, extent) {
            (Some(_), Extent::All) => {
                sent = prepared.plan.send.iter().map(|(entry, _)| entry.clone()).collect();
                (all.len() - sent.len(), &sent)
            }
            _ => (0, all),
        };
        let Prepared { destination, part_size, stop, .. } = &prepared;
        let (read, wrong) = verify(destination, (entries, *part_size), extent, stop).await?;
        outcome.verified = Some((read_before + read, wrong));
    }
    Ok(outcome)
}

async fn change(
    prepared: &Prepared,
    next: Vec<Entry>,
    lease: &Held,
    progress: Arc<dyn Progress>,
    outcome: &mut Outcome,
) -> Result<(), PublishError> {
    let Prepared { source, destination, plan, inventory, published, stop, .. } = prepared;
    let held = lease.shared();
    held.confirm().await?;
    let mut recipes: BTreeMap<_, _> =
        published.as_ref().map(|before| before.header.recipes.clone()).unwrap_or_default();
    recipes.extend(inventory.recipes.clone());
    let source = source.location().to_string();
    let next = Manifest::after(published.as_ref(), &source, prepared.part_size, recipes, next);
    announce(prepared, &next).await?;
    let in_the_way = plan.in_the_way();
    delete(destination, &in_the_way, held, &*progress, stop).await?;
    destination.remove_empty_folders(prepared.folders.clone()).await?;
    progress.begin(plan.send.len(), plan.bytes());
    let transfer = Arc::new(transfer(prepared, held, &progress));
    send(&transfer, plan, outcome).await?;
    if stop.is_cancelled() {
        return Err(Stopped.into());
    }
    held.confirm().await?;
    next.save(destination).await?;
    outcome.version = next.header.version;
    outcome.deleted += delete(destination, &plan.gone, held, &*progress, stop).await?;
    held.confirm().await?;
    if lease.is_disputed && prepared.intent.is_some() || lease.was_disturbed() {
        refuse_disturbed(prepared).await?;
    }
    Ok(Manifest::end_intent(destination).await?)
}

/// Writes the intent: what comes next and what may lie there until then. Ends what an interrupted publish
/// left, uploads by parts that nobody will continue among it.
async fn announce(prepared: &Prepared, next: &Manifest) -> Result<(), PublishError> {
    let Prepared { destination, plan, intent, .. } = prepared;
    let mut all: Vec<Entry> = next.entries.iter().chain(&plan.gone).cloned().collect();
    all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let Manifest { header, .. } = next;
    let (recipes, part_size) = (header.recipes.clone(), header.part_size);
    let announced =
        Manifest::after(prepared.published.as_ref(), &header.source, part_size, recipes, all);
    announced.save_intent(destination, intent.as_ref()).await?;
    destination.sweep("").await?;
    let large = plan.send.iter().map(|(entry, _)| entry).filter(|entry| entry.etag.is_of_parts());
    let large: BTreeSet<&str> = large.map(|entry| &*entry.key).collect();
    let is_left = |entry: &&Entry| entry.etag.is_of_parts() && !large.contains(&*entry.key);
    let left = entries(intent.as_ref()).iter().filter(is_left);
    let is_new =
        |entry: &&Entry| find(entries(prepared.published.as_ref()), &entry.key) != Some(*entry);
    let end = async |entry: &Entry| Ok(destination.abort_uploads(&entry.key).await?);
    stream::iter(left.filter(is_new))
        .map(end)
        .buffered(REQUESTS)
        .try_for_each(async |_| Ok(()))
        .await
}

fn transfer(prepared: &Prepared, held: &Arc<Shared>, progress: &Arc<dyn Progress>) -> Transfer {
    let Prepared { source, destination, options, inventory, .. } = prepared;
    Transfer {
        source: source.clone(),
        destination: destination.clone(),
        flow: Flow::new(options.concurrency, options.rate),
        large: Transfer::large_queue(options.concurrency),
        part_size: prepared.part_size,
        resumes: prepared.intent.is_some() || prepared.audit.is_some(),
        damaged: inventory.damaged.clone(),
        pool: options.pool.clone(),
        held: held.clone(),
        progress: progress.clone(),
        stop: prepared.stop.clone(),
        cache_control: options.cache_control.clone(),
        content_type: options.content_type.clone(),
    }
}

/// Sends stage after stage; none is begun before all of the one before has arrived.
async fn send(
    transfer: &Arc<Transfer>,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<(), PublishError> {
    for stage in plan.send.chunk_by(|(a, _), (b, _)| stage(&a.key) == stage(&b.key)) {
        if transfer.stop.is_cancelled() {
            return Err(Stopped.into());
        }
        let entries: Vec<Entry> = stage.iter().map(|(entry, _)| entry.clone()).collect();
        let failed = transfer.send_all(&entries).await?;
        outcome.sent += entries.len() - failed;
        if failed > 0 {
            return Err(PublishError::SomeFailed { failed, total: plan.send.len() });
        }
    }
    Ok(())
}

/// Deletes objects at the destination, what names others before those: the order of sending, backwards.
/// How many.
async fn delete(
    destination: &Store,
    gone: &[Entry],
    held: &Arc<Shared>,
    progress: &dyn Progress,
    stop: &CancellationToken,
) -> Result<usize, PublishError> {
    let delete = async |entry: &Entry| {
        if stop.is_cancelled() {
            return Err(PublishError::from(Stopped));
        }
        held.allow().await?;
        match destination.delete(&entry.key).await {
            // On a disk, a folder that it was in has become a file, or it a folder.
            Err(StoreError::BadLocation(_) | StoreError::NotAFile { .. }) => {}
            deleted => {
                deleted?;
                destination.prune(&entry.key).await?;
            }
        }
        progress.deleted(&entry.key);
        Ok(())
    };
    let mut gone = gone.to_vec();
    gone.sort_by_key(|entry| Reverse(stage(&entry.key)));
    for same in gone.chunk_by(|a, b| stage(&a.key) == stage(&b.key)) {
        let deleted = stream::iter(same).map(&delete).buffered(REQUESTS);
        deleted.try_for_each(async |()| Ok(())).await?;
    }
    Ok(gone.len())
}

/// Lists what lies there of the source once more, after another publisher may have changed it meanwhile.
async fn refuse_disturbed(prepared: &Prepared) -> Result<(), PublishError> {
    let Prepared { destination, part_size, inventory, stop, .. } = prepared;
    let known = Known {
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
        _ => Err(PublishError::Disturbed { url: destination.location().to_string(), objects }),
    }
}
