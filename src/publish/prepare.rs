//! Finding out what a publish would do.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::audit::{Arrived, Audit, Extent, Listing, audit, confirm, fingerprint, list};
use super::cleanup::REQUESTS;
use super::doubt::Doubt;
use super::flow::Concurrency;
use super::inventory::{Inventory, Selection, inventory};
use super::journal::{Earlier, Journal, state_folder};
use super::losses::losses;
use super::plan::Plan;
use super::published::Published;
use super::sign::Sign;
use super::unfinished::Unfinished;
use super::worse::Change;
use super::{Entry, PublishError, is_publishable};
use crate::ledger::{CASES, SHARED};
use crate::model::Parts;
use crate::pipeline::Pool;
use crate::store::{Location, ObjectInfo, PassedOver, Store, StoreError};

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
    /// Replace what is published by a source that has less of it, or that is another one.
    pub overwrite: bool,
    /// Compare with a listing of the destination, as is always done when it is overwritten.
    pub audit: bool,
    /// Read again afterwards what lies there.
    pub verify: Option<Extent>,
    /// Requests at a time.
    pub concurrency: Concurrency,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// The memory that what is held on its way takes; without a bound when there is none.
    pub pool: Option<Pool>,
    /// `Cache-Control` of all objects.
    pub cache_control: Option<String>,
    /// `Content-Type` of all objects; by name when there is none.
    pub content_type: Option<String>,
}

/// A publish that has been found out, before anything is changed.
pub struct Prepared {
    pub(super) source: Store,
    pub(super) destination: Store,
    pub(super) options: Options,
    /// What will be done.
    pub plan: Plan,
    /// What the source holds.
    pub inventory: Inventory,
    /// What was published before.
    pub published: Option<Published>,
    /// Bytes of the parts that objects have at the destination: those of its first publish, or as configured.
    pub(super) part_size: u64,
    /// What a listing of the destination says.
    pub audit: Option<Audit>,
    /// Uploads that this machine has begun and not ended.
    pub(super) uploads: BTreeMap<String, BTreeSet<String>>,
    /// What lies at the destination, where that is not what the manifest tells, or may not be (`None`).
    pub(super) arrived: Arrived,
    /// What tells the listing of a destination from others, where a publish of somebody else has not ended.
    pub(super) of_others: Option<[u8; 32]>,
    /// Whether the journal of this machine speaks of it.
    pub(super) is_journal_valid: bool,
    pub(super) unfinished: Unfinished,
    /// What a publisher that had lost its claim may have written over.
    pub doubt: Doubt,
    /// Objects that an earlier publish has sent and that the source no longer has; they stay, because
    /// nobody asked to delete them.
    pub orphans: Vec<Entry>,
    /// Objects that are in no manifest and may lie there, but are not deleted now.
    pub(super) left: Vec<Entry>,
    /// Whether the journal tells of objects that this publish does not speak for, so that another
    /// needs it.
    pub(super) leaves_journal: bool,
    /// Objects that have arrived since the last complete publish.
    pub arrived_since: usize,
    /// Objects of the plan of which there are folders, on disk.
    pub(super) folders: Vec<String>,
    /// Asked for when all is to stop, and when somebody else takes the claim over.
    pub(super) stop: CancellationToken,
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
    mut options: Options,
    stop: &CancellationToken,
) -> Result<Prepared, PublishError> {
    check(source, destination)?;
    // To be as the source is, it must not have lost anything either.
    options.audit |= options.overwrite;
    let state = state_folder(source.location(), destination.location());
    let published = async {
        match options.audit {
            true => Published::load_or_begin(destination).await,
            false => Published::load(destination).await,
        }
    };
    let unfinished = async { Ok(Unfinished::load(destination).await?) };
    let doubt = async { Ok(Doubt::load(destination).await?) };
    let (published, unfinished, doubt) = tokio::try_join!(published, unfinished, doubt)?;
    let part_size = published.as_ref().map(|published| published.header.part_size);
    let part_size = part_size.unwrap_or(destination.multipart_size());
    let inventory = inventory(source, &options.selection, &state, part_size, stop).await?;
    let Earlier { token, mut arrived, uploads } = Journal::earlier(&state)?;
    let is_journal_valid = token.is_some() && token.as_deref() == unfinished.token();
    if !is_journal_valid {
        // Somebody else has published since, or all was removed: what the journal tells is past.
        arrived.clear();
    }
    let arrived_since = arrived.values().flatten().count();
    let of_others = |(key, etag): (&String, &Option<_>)| etag.is_some() && !inventory.has(key);
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
    let is_changed =
        has_changed_there(destination, &inventory, published.as_ref(), part_size).await?;
    let listed = match options.audit || is_open || is_changed {
        true => Some(list(destination).await?),
        false => None,
    };
    [source, destination].into_iter().for_each(Store::tell_passed_over);
    if !doubt.is_none() {
        tracing::warn!(
            "a publisher that had lost its claim may have changed objects at {}: they are in doubt",
            destination.location()
        );
    }
    let known = || merge(&inventory, published.as_ref(), &Plan::default(), &Arrived::new());
    let mut audited = None;
    if let Some(listed) = &listed {
        if options.audit || is_unknown || is_changed {
            let known = known();
            let read_all = options.verify == Some(Extent::All);
            // A size is enough only for what was published like this and has not been written since.
            let read = |entry: &Entry, object: &ObjectInfo, tells_md5: bool| {
                let before = names(published.as_ref(), &entry.key);
                let is_in_doubt = unfinished.concerns(object)
                    || doubt.concerns(&entry.key)
                    || before != Some(entry);
                // What a listing tells is not what can be read, where a disk has failed.
                read_all || !tells_md5 && is_in_doubt
            };
            let (audit, states) =
                audit(destination, listed, (&known, part_size), read, stop).await?;
            arrived = states;
            audited = Some(audit);
        } else {
            confirm(destination, &mut arrived, listed);
        }
    }
    if !doubt.is_none() && audited.is_none() {
        let doubtful = known().into_iter().filter(|entry| doubt.concerns(&entry.key));
        arrived.extend(doubtful.map(|entry| (entry.key.into(), None)));
    }
    // Whatever a manifest names, only what this program could have sent is deleted.
    let concerns = |key: &str| options.selection.has(key) && is_publishable(key);
    let mut plan = Plan::new(&inventory.entries, published.as_ref(), &arrived, concerns);
    let was_ended = unfinished.token().is_none();
    let ended = published.as_ref().filter(|_| was_ended);
    let is_known = |key: &str| {
        names(published.as_ref(), key).is_some()
            || unfinished.may_have(key)
            || arrived.get(key).is_some_and(Option::is_some)
    };
    let change = Change {
        source,
        destination,
        inventory: &inventory,
        plan: &plan,
        published: ended,
        is_unfinished: !was_ended,
        is_known: &is_known,
        part_size,
    };
    change.refuse_other_kind().await?;
    if !options.overwrite {
        change.refuse_worse(&options).await?;
    }
    let in_none = unfinished.objects.iter().chain(&doubt.objects);
    let mut left = left_behind(&inventory, published.as_ref(), in_none, &arrived, listed.as_ref());
    if options.delete && options.selection.is_whole() {
        let concerned;
        (concerned, left) = left.into_iter().partition(|entry: &Entry| concerns(&entry.key));
        plan.gone.extend(concerned);
        plan.gone.sort_by(|a, b| a.key.cmp(&b.key));
        plan.gone.dedup_by(|a, b| a.key == b.key);
    } else if let Some(entry) = plan.in_the_way().first() {
        let url = destination.location().join(&entry.key).to_string();
        return Err(PublishError::InTheWay { url });
    } else if !options.selection.is_whole() {
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
    let orphans = if options.delete { Vec::new() } else { std::mem::take(&mut plan.gone) };
    let shares = entries(published.as_ref()).iter().any(|entry| inventory.has(&entry.key));
    if let (false, false, Some(first), Some(before)) =
        (shares, options.overwrite, plan.gone.first(), &published)
    {
        return Err(PublishError::Unrelated {
            source_url: source.location().to_string(),
            url: destination.location().to_string(),
            before: before.header.source.clone(),
            count: plan.gone.len(),
            first: first.key.to_string(),
        });
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
    let sent: Vec<Entry> = plan.send.iter().map(|(entry, _)| entry.clone()).collect();
    for loss in losses(destination, (&sent, part_size), options.cache_control.as_deref()) {
        tracing::warn!("{}: {loss}", destination.location());
    }
    let (source, destination, stop) = (source.clone(), destination.clone(), stop.child_token());
    Ok(Prepared {
        source,
        destination,
        options,
        plan,
        inventory,
        published,
        part_size,
        audit: audited,
        uploads,
        arrived,
        of_others: listed.as_ref().filter(|_| is_unknown).map(fingerprint),
        is_journal_valid,
        unfinished,
        doubt,
        orphans,
        left,
        leaves_journal,
        arrived_since,
        folders,
        stop,
    })
}

/// Whether a map store was finalized where it is published, so that the manifest does not tell what is there.
async fn has_changed_there(
    destination: &Store,
    inventory: &Inventory,
    published: Option<&Published>,
    part_size: u64,
) -> Result<bool, PublishError> {
    let shared = format!("{CASES}/{SHARED}");
    let records = inventory.entries.iter().filter(|entry| entry.key.ends_with(&shared));
    let before = records.filter_map(|entry| names(published, &entry.key).cloned());
    let changed = async |before: Entry| {
        let found = destination.read(&before.key).await?;
        let etag = found.map(|(bytes, _)| Parts::of(&bytes, part_size).etag());
        Ok::<_, PublishError>(etag != Some(before.etag))
    };
    let changed: Vec<bool> = stream::iter(before.collect::<Vec<_>>())
        .map(changed)
        .buffered(REQUESTS)
        .try_collect()
        .await?;
    Ok(changed.contains(&true))
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
pub(super) fn names<'a>(published: Option<&'a Published>, key: &str) -> Option<&'a Entry> {
    published.and_then(|published| published.entry(key))
}

/// Objects that may lie at the destination, are in no manifest or will not be, and are not in the source:
/// they were to be sent or deleted, or somebody has replaced them.
fn left_behind<'a>(
    inventory: &Inventory,
    published: Option<&'a Published>,
    marked: impl Iterator<Item = &'a Entry>,
    arrived: &Arrived,
    listed: Option<&Listing>,
) -> Vec<Entry> {
    let replaced = entries(published).iter().filter(|entry| differs(arrived, entry));
    let in_none = marked.filter(|e| names(published, &e.key).is_none());
    let may_be_there = |entry: &&Entry| {
        is_publishable(&entry.key)
            && !inventory.has(&entry.key)
            && listed.is_none_or(|listed| listed.contains_key(&*entry.key))
    };
    let mut left: Vec<Entry> = in_none.chain(replaced).filter(may_be_there).cloned().collect();
    left.sort_by(|a, b| a.key.cmp(&b.key));
    left.dedup_by(|a, b| a.key == b.key);
    left
}

/// Whether an object is no longer in the source. What belongs to a case that is being made again is no
/// longer recorded, but not gone.
async fn is_gone(
    source: &Store,
    inventory: &Inventory,
    entry: &Entry,
) -> Result<bool, PublishError> {
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

impl Prepared {
    /// What of the source is not published whatever is asked for: why, how many, and one of them. Lists the
    /// source.
    pub async fn left_out(&self) -> Result<Vec<(PassedOver, usize, String)>, PublishError> {
        let of_program = format!("{CASES}/");
        let is_own =
            |key: &str| key.starts_with(&of_program) || key.contains(&format!("/{CASES}/"));
        let found = self.source.look_through(is_own).await?;
        let mut left_out = self.source.passed_over();
        let Options { selection, .. } = &self.options;
        let is_foreign = |key: &&String| {
            selection.has(key) && !self.inventory.has(key) && !self.inventory.is_pending(key)
        };
        let mut foreign = found.iter().filter(is_foreign);
        // What was not asked for is not looked at so closely.
        if let Some(first) = foreign.next().filter(|_| selection.is_whole()) {
            left_out.push((PassedOver::Foreign, 1 + foreign.count(), first.clone()));
        }
        Ok(left_out)
    }

    /// Whether there is nothing to do.
    pub(super) fn is_done(&self) -> bool {
        self.plan.is_empty()
            && self.uploads.is_empty()
            && self.doubt.is_none()
            && (self.unfinished.token().is_none() || self.leaves_journal)
            && self.forgotten() == 0
            && self.published.as_ref().is_some_and(|published| !published.is_damaged)
    }

    /// Objects of the manifest that are known not to lie there as it tells, and that the source
    /// does not have either: the next manifest is without them.
    pub(super) fn forgotten(&self) -> usize {
        let before = entries(self.published.as_ref());
        before.iter().filter(|e| !self.inventory.has(&e.key) && differs(&self.arrived, e)).count()
    }
}

/// Whether an object is known not to be what the manifest tells.
fn differs(arrived: &Arrived, entry: &Entry) -> bool {
    arrived.get(&*entry.key).is_some_and(|etag| *etag != Some(entry.etag))
}

/// What is at the destination once a plan is carried out: of the source, and of what was published
/// before what the source does not speak for and what still lies there as it was.
pub(super) fn merge(
    inventory: &Inventory,
    published: Option<&Published>,
    plan: &Plan,
    arrived: &Arrived,
) -> Vec<Entry> {
    let goes = |key: &str| plan.gone.binary_search_by(|e| (*e.key).cmp(key)).is_ok();
    let stays = |e: &&Entry| !inventory.has(&e.key) && !goes(&e.key) && !differs(arrived, e);
    let kept = entries(published).iter().filter(stays).cloned();
    let mut entries: Vec<Entry> = inventory.entries.iter().cloned().chain(kept).collect();
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    entries
}

fn refuse_within(source: &Location, destination: &Location) -> Result<(), PublishError> {
    if !source.overlaps(destination) {
        return Ok(());
    }
    let [source_url, destination] = [source, destination].map(Location::to_string);
    Err(PublishError::Within { source_url, destination })
}
