//! A publish from beginning to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::audit::{Audit, Extent, Listing, Wrong, audit, confirm, list, verify};
use super::claim::{Claim, Sign};
use super::cleanup::{REQUESTS, delete, end_uploads};
use super::flow::{Concurrency, Flow};
use super::inventory::{Inventory, Selection, inventory};
use super::journal::{Earlier, Journal, state_folder};
use super::plan::{Plan, Why, stage};
use super::published::Published;
use super::transfer::{Progress, Transfer};
use super::unfinished::Unfinished;
use super::{Digest, Entry, FOLDER, PublishError};
use crate::pipeline::{Stop, Stopped};
use crate::store::{Location, ObjectInfo, Store, StoreError, is_public};

/// Objects that an error names.
const SHOWN: usize = 5;

/// How a publish is done.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What of the source.
    pub selection: Selection,
    /// Remove what an earlier publish sent and the source no longer has,
    pub delete: bool,
    /// unless that are more objects than this.
    pub max_delete: usize,
    /// Compare with a listing of the destination.
    pub audit: bool,
    /// Read again afterwards what lies there.
    pub verify: Option<Extent>,
    /// Requests at a time.
    pub concurrency: Concurrency,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// `Cache-Control` of all objects.
    pub cache_control: Option<String>,
    /// `Content-Type` of all objects; by name when there is none.
    pub content_type: Option<String>,
}

/// A publish that has been found out, before anything is changed.
pub struct Prepared {
    source: Store,
    destination: Store,
    options: Options,
    /// What will be done.
    pub plan: Plan,
    /// What the source holds.
    pub inventory: Inventory,
    /// What was published before.
    pub published: Option<Published>,
    /// What a listing of the destination says.
    pub audit: Option<Audit>,
    /// Uploads that this machine has begun and not ended.
    uploads: BTreeMap<String, BTreeSet<String>>,
    /// What lies at the destination, where that is not what the manifest tells, or may not be (`None`).
    arrived: BTreeMap<String, Option<Digest>>,
    /// Whether the journal of this machine speaks of it.
    is_journal_valid: bool,
    unfinished: Unfinished,
    /// Objects that are in no manifest and may lie there, but are not deleted now.
    left: Vec<Entry>,
    /// Whether the journal tells of objects that this publish does not speak for, so that another
    /// needs it.
    leaves_journal: bool,
    /// Objects that have arrived since the last complete publish.
    pub arrived_since: usize,
    /// Objects of the plan of which there are folders, on disk.
    folders: Vec<String>,
    /// Asked for when all is to stop, and when somebody else takes the claim over.
    stop: Stop,
}

/// What a publish did.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Version of the published manifest.
    pub version: u64,
    /// Objects sent.
    pub sent: usize,
    /// Objects deleted.
    pub deleted: usize,
    /// Objects read again, and those of them that are wrong.
    pub verified: Option<(usize, Vec<Wrong>)>,
}

/// Refuses a destination that cannot be one, without asking it.
fn check(source: &Store, destination: &Store) -> Result<(), PublishError> {
    refuse_within(source.location(), destination.location())?;
    Ok(destination.refuse_read_only()?)
}

/// Finds out whether a destination can be published to, before work that takes long is begun.
pub async fn look_at(source: &Store, destination: &Store) -> Result<(), PublishError> {
    check(source, destination)?;
    Published::load(destination).await.map(drop)
}

/// Finds out what a publish would do. Changes nothing.
pub async fn prepare(
    source: &Store,
    destination: &Store,
    options: Options,
    stop: &Stop,
) -> Result<Prepared, PublishError> {
    check(source, destination)?;
    let state = state_folder(source.location(), destination.location());
    let inventory = inventory(source, &options.selection, &state, stop).await?;
    let published = match options.audit {
        true => Published::load_or_begin(destination).await?,
        false => Published::load(destination).await?,
    };
    let Earlier { token, mut arrived, uploads } = Journal::earlier(&state)?;
    let unfinished = Unfinished::load(destination).await?;
    let is_journal_valid = token.is_some() && token.as_deref() == unfinished.token();
    if !is_journal_valid {
        // Somebody else has published since, or all was removed: what the journal tells is past.
        arrived.clear();
    }
    let arrived_since = arrived.values().flatten().count();
    let of_others = |(key, md5): (&String, &Option<_>)| md5.is_some() && !inventory.has(key);
    let leaves_journal = !options.selection.is_all() && arrived.iter().any(of_others);
    // Who is about to publish knows what lies there; to publish now is refused anyway.
    let is_open = unfinished.token().is_some() && Sign::find(destination).await?.is_none();
    let is_unknown = is_open && !is_journal_valid;
    if is_unknown && !options.audit {
        tracing::warn!(
            "a publish to {} was begun elsewhere and has not ended: comparing with what lies there",
            destination.location()
        );
    }
    let listed = match options.audit || is_open {
        true => Some(list(destination).await?),
        false => None,
    };
    let mut audited = None;
    if let Some(listed) = &listed {
        if options.audit || is_unknown {
            let known = merge(&inventory, published.as_ref(), &Plan::default(), &BTreeMap::new());
            let read_all = options.verify == Some(Extent::All);
            // A size is enough only for what was published like this and has not been written since.
            let read = |entry: &Entry, object: &ObjectInfo, tells_md5: bool| {
                let before = names(published.as_ref(), &entry.key);
                let is_in_doubt = unfinished.concerns(object) || before != Some(entry);
                // What a listing tells is not what can be read, where a disk has failed.
                read_all || !tells_md5 && is_in_doubt
            };
            let (audit, states) = audit(destination, listed, &known, read, stop).await?;
            arrived = states;
            audited = Some(audit);
        } else {
            confirm(&mut arrived, listed);
        }
    }
    let concerns = |key: &str| options.selection.has(key) && !key.starts_with(FOLDER);
    let mut plan = Plan::new(&inventory.entries, published.as_ref(), &arrived, concerns);
    let mut left =
        left_behind(&inventory, published.as_ref(), &unfinished, &arrived, listed.as_ref());
    if options.delete && options.selection.is_whole() {
        let concerned;
        (concerned, left) = left.into_iter().partition(|entry: &Entry| concerns(&entry.key));
        plan.gone.extend(concerned);
        plan.gone.sort_by(|a, b| a.key.cmp(&b.key));
        plan.gone.dedup_by(|a, b| a.key == b.key);
    } else if let Some(entry) = plan.in_the_way().first() {
        let url = destination.location().join(&entry.key).to_string();
        return Err(PublishError::InTheWay { url });
    } else {
        plan.gone.clear();
    }
    let looked_for = async |entry| {
        let is_gone = is_gone(source, &inventory, &entry).await?;
        Ok::<_, PublishError>((is_gone, entry))
    };
    let looked_for =
        stream::iter(std::mem::take(&mut plan.gone)).map(looked_for).buffered(REQUESTS);
    let looked_for: Vec<(bool, Entry)> = looked_for.try_collect().await?;
    for (is_gone, entry) in looked_for {
        match is_gone {
            true => plan.gone.push(entry),
            false if names(published.as_ref(), &entry.key).is_none() => left.push(entry),
            false => {}
        }
    }
    if plan.gone.len() > options.max_delete {
        return Err(PublishError::TooManyDeletes {
            url: destination.location().to_string(),
            count: plan.gone.len(),
            keys: plan.gone.iter().take(SHOWN).map(|entry| entry.key.to_string()).collect(),
            allowed: options.max_delete,
        });
    }
    let folders = folders_in_the_way(destination, &plan).await?;
    let (source, destination, stop) = (source.clone(), destination.clone(), stop.child());
    Ok(Prepared {
        source,
        destination,
        options,
        plan,
        inventory,
        published,
        audit: audited,
        uploads,
        arrived,
        is_journal_valid,
        unfinished,
        left,
        leaves_journal,
        arrived_since,
        folders,
        stop,
    })
}

/// Keys of the plan of which there are folders on disk, with nothing in them but what is deleted first.
async fn folders_in_the_way(destination: &Store, plan: &Plan) -> Result<Vec<String>, PublishError> {
    let keys = plan.send.iter().map(|(entry, _)| entry.key.to_string()).collect();
    let found = destination.obstacles(keys).await?;
    let stays = |file: &str| plan.gone.binary_search_by(|entry| (*entry.key).cmp(file)).is_err();
    match found.files.into_iter().find(|(_, file)| stays(file)) {
        None => Ok(found.folders),
        Some((key, file)) => {
            let url = destination.location().join(&file).to_string();
            Err(PublishError::Obstacle { url, key })
        }
    }
}

/// What a manifest names; nothing when there is none.
fn entries(published: Option<&Published>) -> &[Entry] {
    published.map_or(&[], |published| &published.entries)
}

/// What a manifest has of an object.
fn names<'a>(published: Option<&'a Published>, key: &str) -> Option<&'a Entry> {
    published.and_then(|published| published.entry(key))
}

/// Objects that may lie at the destination, are in no manifest or will not be, and are not in the source:
/// they were to be sent or deleted, or somebody has replaced them.
fn left_behind(
    inventory: &Inventory,
    published: Option<&Published>,
    unfinished: &Unfinished,
    arrived: &BTreeMap<String, Option<Digest>>,
    listed: Option<&Listing>,
) -> Vec<Entry> {
    let replaced = entries(published).iter().filter(|entry| differs(arrived, entry));
    let in_none = unfinished.objects.iter().filter(|e| names(published, &e.key).is_none());
    let may_be_there = |entry: &&Entry| {
        !inventory.has(&entry.key) && listed.is_none_or(|listed| listed.contains_key(&*entry.key))
    };
    let mut left: Vec<Entry> = in_none.chain(replaced).filter(may_be_there).cloned().collect();
    left.sort_by(|a, b| a.key.cmp(&b.key));
    left
}

/// Whether an object is no longer in the source. What belongs to a case that is being made again is no
/// longer recorded, but not gone.
async fn is_gone(
    source: &Store,
    inventory: &Inventory,
    entry: &Entry,
) -> Result<bool, PublishError> {
    if !is_public(&entry.key) {
        return Ok(true);
    }
    if inventory.is_pending(&entry.key) {
        return Ok(false);
    }
    match source.find(&entry.key).await {
        Ok(found) => Ok(found.is_none()),
        // A folder has become a file, or a file a folder.
        Err(StoreError::BadLocation(_) | StoreError::NotAFile { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
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
        let changed = change(&prepared, &claim, progress, &mut outcome).await;
        claim.release(changed).await?;
    }
    if let Some(extent) = prepared.options.verify {
        let all = merge(&prepared.inventory, None, &prepared.plan, &BTreeMap::new());
        let sent = || prepared.plan.send.iter().map(|(entry, _)| entry.clone()).collect();
        // What the audit has read and found right needs no second reading.
        let (read_before, entries) = match (&prepared.audit, extent) {
            (Some(_), Extent::All) => (all.len() - prepared.plan.send.len(), sent()),
            _ => (0, all),
        };
        let Prepared { destination, stop, .. } = &prepared;
        let (read, wrong) = verify(destination, &entries, extent, stop).await?;
        outcome.verified = Some((read_before + read, wrong));
    }
    Ok(outcome)
}

impl Prepared {
    /// Whether there is nothing to do.
    fn is_done(&self) -> bool {
        self.plan.is_empty()
            && self.uploads.is_empty()
            && (self.unfinished.token().is_none() || self.leaves_journal)
            && self.forgotten() == 0
            && self.published.as_ref().is_some_and(|published| !published.is_damaged)
    }

    /// Objects of the manifest that are known not to lie there as it tells, and that the source
    /// does not have either: the next manifest is without them.
    fn forgotten(&self) -> usize {
        let before = entries(self.published.as_ref());
        before.iter().filter(|e| !self.inventory.has(&e.key) && differs(&self.arrived, e)).count()
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
    let is_other = |key: &str, md5| {
        let before = names(published.as_ref(), key);
        before.is_none_or(|before| Some(before.md5) != md5)
    };
    let differing = prepared.arrived.iter().filter(|(key, md5)| is_other(key, **md5));
    let differing = differing.map(|(key, md5)| (key.as_str(), *md5)).chain(goes);
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
    delete(destination, &in_the_way, &*progress, &prepared.stop).await?;
    destination.remove_empty_folders(prepared.folders.clone()).await?;
    let transfer = Arc::new(Transfer {
        source: source.clone(),
        destination: destination.clone(),
        flow: Flow::new(options.concurrency, options.rate),
        large: Transfer::large_queue(options.concurrency),
        lanes: Arc::default(),
        journal: journal.clone(),
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
        return journal.map_or(Ok(()), Journal::keep);
    }
    Unfinished::end(destination, &prepared.left).await?;
    journal.map_or(Ok(()), Journal::remove)
}

/// Writes the manifest of what has arrived, then deletes what it is without.
async fn complete(
    prepared: &Prepared,
    claim: &Claim,
    progress: &dyn Progress,
    outcome: &mut Outcome,
) -> Result<(), PublishError> {
    let Prepared { source, destination, plan, inventory, published, stop, .. } = prepared;
    if stop.is_requested() {
        return Err(Stopped.into());
    }
    let entries = merge(inventory, published.as_ref(), plan, &prepared.arrived);
    let source = source.location().to_string();
    let mut recipes: BTreeMap<_, _> =
        published.as_ref().map(|before| before.header.recipes.clone()).unwrap_or_default();
    recipes.extend(inventory.recipes.clone());
    let mut next = Published::after(published.as_ref(), &source, recipes, entries);
    claim.confirm().await?;
    next.save(destination).await?;
    outcome.version = next.header.version;
    outcome.deleted += delete(destination, &plan.gone, progress, stop).await?;
    // The mark that is changed next may be somebody else's by now.
    claim.confirm().await
}

/// Sends stage after stage; none is begun before all of the one before has arrived.
async fn send(
    transfer: &Arc<Transfer>,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<(), PublishError> {
    for stage in plan.send.chunk_by(|(a, _), (b, _)| stage(&a.key) == stage(&b.key)) {
        if transfer.stop.is_requested() {
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

/// Whether an object is known not to be what the manifest tells.
fn differs(arrived: &BTreeMap<String, Option<Digest>>, entry: &Entry) -> bool {
    arrived.get(&*entry.key).is_some_and(|md5| *md5 != Some(entry.md5))
}

/// What is at the destination once a plan is carried out: of the source, and of what was published
/// before what the source does not speak for and what still lies there as it was.
fn merge(
    inventory: &Inventory,
    published: Option<&Published>,
    plan: &Plan,
    arrived: &BTreeMap<String, Option<Digest>>,
) -> Vec<Entry> {
    let goes = |key: &str| plan.gone.binary_search_by(|e| (*e.key).cmp(key)).is_ok();
    let stays = |e: &&Entry| !inventory.has(&e.key) && !goes(&e.key) && !differs(arrived, e);
    let kept = entries(published).iter().filter(stays).cloned();
    let mut entries: Vec<Entry> = inventory.entries.iter().cloned().chain(kept).collect();
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    entries
}

fn refuse_within(source: &Location, destination: &Location) -> Result<(), PublishError> {
    let [a, b] = [source, destination].map(|location| format!("{}/", location.real()));
    if !a.starts_with(&b) && !b.starts_with(&a) {
        return Ok(());
    }
    let [source_url, destination] = [source, destination].map(Location::to_string);
    Err(PublishError::Within { source_url, destination })
}
