//! Carrying a publish out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::audit::{Arrived, Extent, Wrong, fingerprint, list, verify};
use super::claim::{Claim, OUTLASTED};
use super::cleanup::{delete, end_uploads};
use super::doubt::Doubt;
use super::flow::Flow;
use super::journal::{Journal, state_folder};
use super::plan::{Plan, Why, stage};
use super::prepare::{Prepared, merge, names};
use super::published::Published;
use super::transfer::{Progress, Transfer};
use super::unfinished::Unfinished;
use super::{Entry, PublishError};
use crate::pipeline::{Stopped, unless_stopped};

/// What a publish did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Version of the published manifest.
    pub version: u64,
    /// Objects sent.
    pub sent: usize,
    /// Objects deleted.
    pub deleted: usize,
    /// Objects that the manifest no longer names: others have changed them, and the source has them not, or not of
    /// what was asked for.
    pub forgotten: usize,
    /// Objects read again, and those of them that are wrong.
    pub verified: Option<(usize, Vec<Wrong>)>,
}

/// Carries a publish out.
pub async fn publish(
    prepared: Prepared,
    progress: Arc<dyn Progress>,
) -> Result<Outcome, PublishError> {
    let before = prepared.published.as_ref();
    let version = before.map_or(0, |published| published.header.version);
    let mut outcome = Outcome { version, ..Outcome::default() };
    if !prepared.is_done() {
        let claim = Claim::take(&prepared.destination, &prepared.stop).await?;
        let changed = async {
            outlast(&prepared, &claim).await?;
            change(&prepared, &claim, progress, &mut outcome).await
        };
        let changed = changed.await;
        claim.release(changed).await?;
        outcome.forgotten = prepared.forgotten();
        let Prepared { destination, doubt, .. } = &prepared;
        let now = Doubt::load(destination).await?;
        if now.is_more_than(doubt) {
            let url = destination.location().to_string();
            return Err(PublishError::Disturbed { url, objects: now.objects.len() });
        }
    }
    if let Some(extent) = prepared.options.verify {
        let all = merge(&prepared.inventory, None, &prepared.plan, &Arrived::new());
        let sent = || prepared.plan.send.iter().map(|(entry, _)| entry.clone()).collect();
        // What the audit has read and found right needs no second reading.
        let (read_before, entries) = match (&prepared.audit, extent) {
            (Some(_), Extent::All) => (all.len() - prepared.plan.send.len(), sent()),
            _ => (0, all),
        };
        let Prepared { destination, part_size, stop, .. } = &prepared;
        let (read, wrong) = verify(destination, (&entries, *part_size), extent, stop).await?;
        outcome.verified = Some((read_before + read, wrong));
    }
    Ok(outcome)
}

/// Where somebody else's publish has not ended and may still be at work, waits until it has noticed that the
/// claim is ours; [`PublishError::Overtaken`] when it was at work.
async fn outlast(prepared: &Prepared, claim: &Claim) -> Result<(), PublishError> {
    let Prepared { destination, stop, doubt, .. } = prepared;
    let Some(before) = prepared.of_others.filter(|_| claim.is_disputed) else { return Ok(()) };
    let url = destination.location().to_string();
    let seconds = OUTLASTED.as_secs();
    tracing::warn!("waiting {seconds} s: whoever began a publish to {url} may still be at work");
    unless_stopped(stop, tokio::time::sleep(OUTLASTED)).await?;
    let is_same = fingerprint(&list(destination).await?) == before
        && !Doubt::load(destination).await?.is_more_than(doubt);
    match is_same {
        true => Ok(()),
        false => Err(PublishError::Overtaken { url }),
    }
}

async fn change(
    prepared: &Prepared,
    claim: &Claim,
    progress: Arc<dyn Progress>,
    outcome: &mut Outcome,
) -> Result<(), PublishError> {
    let Prepared { source, destination, options, plan, published, unfinished, .. } = prepared;
    let is_current = Published::is_current(published.as_ref(), destination).await?
        && Unfinished::load(destination).await? == *unfinished;
    if !is_current {
        return Err(PublishError::Overtaken { url: destination.location().to_string() });
    }
    for (key, ids) in &prepared.uploads {
        let ids: Vec<String> = ids.iter().cloned().collect();
        destination.abort_uploads(key, &ids).await?;
    }
    if prepared.audit.is_some() {
        // Begun on another machine or from another source, maybe, whose journal is not ours.
        let sent = plan.send.iter().map(|(entry, _)| entry);
        end_uploads(destination, sent.chain(&unfinished.objects)).await?;
    }
    destination.sweep("").await?;
    let state = state_folder(source.location(), destination.location());
    let ours = unfinished.token().filter(|_| prepared.is_journal_valid).map(str::to_owned);
    let token = ours.unwrap_or_else(Unfinished::new_token);
    let journal = Arc::new(Journal::open(&state, &token)?);
    // Until the mark is there, nobody believes the journal; until both are, nothing changes.
    let replaced = plan.send.iter().filter(|(_, why)| *why == Why::Changed);
    let in_the_way = plan.in_the_way();
    let goes = replaced.map(|(entry, _)| entry).chain(&in_the_way).map(|entry| (&*entry.key, None));
    let is_other = |key: &str, etag| {
        let before = names(published.as_ref(), key);
        before.is_none_or(|before| Some(before.etag) != etag)
    };
    let differing = prepared.arrived.iter().filter(|(key, etag)| is_other(key, **etag));
    let differing = differing.map(|(key, etag)| (key.as_str(), *etag)).chain(goes);
    if let Err(error) = journal.differ(differing).await {
        Arc::into_inner(journal).map_or(Ok(()), Journal::keep)?;
        return Err(error);
    }
    let since = published.as_ref().map(|published| published.written);
    let is_new = |entry: &&Entry| names(published.as_ref(), &entry.key).is_none();
    // Some of them may have arrived already.
    let new = prepared.inventory.entries.iter().filter(is_new);
    let mut may_lie_there: Vec<&Entry> = new.chain(&plan.gone).chain(&prepared.left).collect();
    may_lie_there.sort_by(|a, b| a.key.cmp(&b.key));
    may_lie_there.dedup_by(|a, b| a.key == b.key);
    unfinished.begin(destination, &token, since, may_lie_there.into_iter()).await?;
    delete(destination, &in_the_way, claim.held(), &*progress, &prepared.stop).await?;
    destination.remove_empty_folders(prepared.folders.clone()).await?;
    let transfer = Arc::new(Transfer {
        source: source.clone(),
        destination: destination.clone(),
        flow: Flow::new(options.concurrency, options.rate),
        large: Transfer::large_queue(options.concurrency),
        part_size: prepared.part_size,
        journal: journal.clone(),
        damaged: prepared.inventory.damaged.clone(),
        pool: options.pool.clone(),
        held: claim.held().clone(),
        progress: progress.clone(),
        stop: prepared.stop.clone(),
        cache_control: options.cache_control.clone(),
        content_type: options.content_type.clone(),
    });
    progress.begin(plan.send.len(), plan.bytes());
    let sent = send(&transfer, plan, outcome).await;
    drop(transfer);
    // Nobody else holds the journal, unless a stop gave up tasks, which end by themselves: what the
    // journal's thread does not get to write by then is sent again.
    let journal = Arc::into_inner(journal);
    if let Err(error) = sent {
        journal.map_or(Ok(()), Journal::keep)?;
        return Err(error);
    }
    if let Err(error) = complete(prepared, claim, &*progress, outcome).await {
        journal.map_or(Ok(()), Journal::keep)?;
        return Err(error);
    }
    if prepared.leaves_journal {
        unfinished.begin(destination, &token, since, prepared.left.iter()).await?;
        prepared.doubt.settle(destination).await?;
        return journal.map_or(Ok(()), Journal::keep);
    }
    Unfinished::end(destination, &prepared.left).await?;
    prepared.doubt.settle(destination).await?;
    // Nobody believes it any more.
    if let Some(Err(error)) = journal.map(Journal::remove) {
        tracing::warn!("{error}; all is published nevertheless");
    }
    Ok(())
}

/// Writes the manifest of what has arrived, then deletes what it is without.
async fn complete(
    prepared: &Prepared,
    claim: &Claim,
    progress: &dyn Progress,
    outcome: &mut Outcome,
) -> Result<(), PublishError> {
    let Prepared { source, destination, plan, inventory, published, stop, .. } = prepared;
    if stop.is_cancelled() {
        return Err(Stopped.into());
    }
    let entries = merge(inventory, published.as_ref(), plan, &prepared.arrived);
    let source = source.location().to_string();
    let mut recipes: BTreeMap<_, _> =
        published.as_ref().map(|before| before.header.recipes.clone()).unwrap_or_default();
    recipes.extend(inventory.recipes.clone());
    let mut next =
        Published::after(published.as_ref(), &source, prepared.part_size, recipes, entries);
    claim.held().confirm().await?;
    next.save(destination).await?;
    outcome.version = next.header.version;
    outcome.deleted += delete(destination, &plan.gone, claim.held(), progress, stop).await?;
    // The mark that is changed next may be somebody else's by now.
    claim.held().confirm().await
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
