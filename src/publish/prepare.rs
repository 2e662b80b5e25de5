//! Finding out what a publish would do: under the lease, before anything is changed, or without it, for
//! those who only want to know.

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::cache::state_folder;
use super::destination::{Audit, Extent, Known, list, look};
use super::flow::Concurrency;
use super::held::{End, GRACE_PERIOD, Held};
use super::inventory::{Inventory, Selection, inventory};
use super::lease::Lease;
use super::losses::losses;
use super::manifest::{Manifest, find};
use super::plan::Plan;
use super::worse::Change;
use super::{Entry, PublishError, is_publishable};
use crate::ledger::{CASES, SHARED};
use crate::model::Parts;
use crate::pipeline::{Pool, unless_stopped};
use crate::store::{Location, PassedOver, Store, StoreError};

/// Objects that an error names.
const SHOWN: usize = 5;
/// Requests under way at the same time, one for each object: not every server takes several in one.
pub(super) const REQUESTS: usize = 16;

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

impl Options {
    /// Whether the destination is to be listed: to be as the source is, it must not have lost anything either.
    fn is_audit(&self) -> bool {
        self.audit || self.overwrite
    }
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
    pub published: Option<Manifest>,
    /// What a publish that has not ended was to leave.
    pub(super) intent: Option<Manifest>,
    /// What lies at the destination of all that is known, ordered by key: by the manifest, or, where that is in
    /// doubt, by a listing.
    pub(super) there: Vec<Entry>,
    /// Bytes of the parts that objects have at the destination: those of its first publish, or as configured.
    pub(super) part_size: u64,
    /// What a listing of the destination says, where one was asked for.
    pub audit: Option<Audit>,
    /// Objects that an earlier publish has sent and that the source no longer has; they stay, because
    /// nobody asked to delete them.
    pub orphans: Vec<Entry>,
    /// Objects that have arrived since the last complete publish.
    pub arrived_since: usize,
    /// Objects of the plan of which there are folders, on disk.
    pub(super) folders: Vec<String>,
    /// Whether a publisher that had lost its lease may have changed objects before this was found out.
    pub(super) is_dirty: bool,
    /// The lease under which it was found out, if it is to be carried out.
    pub(super) lease: Option<Held>,
    /// Cancelled when all is to stop, and when the lease is lost.
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
    Manifest::load(destination).await.map(drop)
}

/// Takes the lease on a destination and finds out what is to be done, for [`super::publish`] to carry out.
pub async fn prepare(
    source: &Store,
    destination: &Store,
    options: Options,
    stop: &CancellationToken,
) -> Result<Prepared, PublishError> {
    check(source, destination)?;
    let stop = stop.child_token();
    let lease = unless_stopped(&stop, Held::take(destination, &stop)).await??;
    let mut end = End::Untouched;
    let found = async {
        let state = wait_for_others(destination, &options, &lease, &mut end).await?;
        find_out(source, destination, options, (state, lease.dirty > 0), &stop).await
    };
    let found = unless_stopped(&stop, found).await;
    match found.map_err(PublishError::from).flatten() {
        Ok(prepared) => Ok(Prepared { lease: Some(lease), ..prepared }),
        error => lease.release(error, end).await,
    }
}

/// Finds out what a publish would do, without the lease: others may change what it found at any time.
pub async fn look_ahead(
    source: &Store,
    destination: &Store,
    options: Options,
    stop: &CancellationToken,
) -> Result<Prepared, PublishError> {
    check(source, destination)?;
    let lease = async { Ok(Lease::load(destination).await?) };
    let found = async {
        let (state, lease) = tokio::try_join!(State::load(destination, &options), lease)?;
        let is_dirty = lease.is_some_and(|lease| lease.is_dirty());
        find_out(source, destination, options, (state, is_dirty), stop).await
    };
    unless_stopped(stop, found).await?
}

/// What publishers keep at a destination.
struct State {
    manifest: Option<Manifest>,
    intent: Option<Manifest>,
}

impl State {
    async fn load(destination: &Store, options: &Options) -> Result<Self, PublishError> {
        let manifest = async {
            match options.is_audit() {
                true => Manifest::load_or_begin(destination).await,
                false => Manifest::load(destination).await,
            }
        };
        let (manifest, intent) = tokio::try_join!(manifest, Manifest::load_intent(destination))?;
        Ok(Self { manifest, intent })
    }
}

/// The state under a lease. Where one that had it before may still be at work, waits until it has seen that.
async fn wait_for_others(
    destination: &Store,
    options: &Options,
    lease: &Held,
    end: &mut End,
) -> Result<State, PublishError> {
    let state = State::load(destination, options).await?;
    if state.intent.is_none() && !lease.has_expired {
        return Ok(state);
    }
    if !lease.is_disputed {
        *end = End::Unfinished;
        return Ok(state);
    }
    let (url, seconds) = (destination.location(), GRACE_PERIOD.as_secs());
    tracing::warn!("waiting {seconds} s: whoever began a publish to {url} may still be at work");
    tokio::time::sleep(GRACE_PERIOD).await;
    lease.shared().confirm().await?;
    *end = End::Unfinished;
    State::load(destination, options).await
}

async fn find_out(
    source: &Store,
    destination: &Store,
    options: Options,
    (State { manifest, intent }, is_dirty): (State, bool),
    stop: &CancellationToken,
) -> Result<Prepared, PublishError> {
    let known = manifest.as_ref().or(intent.as_ref()).map(|known| known.header.part_size);
    let part_size = known.unwrap_or(destination.multipart_size());
    let folder = state_folder(source.location());
    let inventory = inventory(source, &options.selection, &folder, part_size, stop).await?;
    let known = Known {
        source: &inventory.entries,
        manifest: entries(manifest.as_ref()),
        intent: entries(intent.as_ref()),
        is_dirty,
        reads_all: options.verify == Some(Extent::All) && options.is_audit(),
        part_size,
    };
    let is_listed = options.is_audit()
        || intent.is_some()
        || is_dirty
        || has_changed_there(destination, &inventory, manifest.as_ref(), part_size).await?;
    let (there, audit) = match is_listed {
        true => {
            let (there, audit) = look(destination, list(destination).await?, &known, stop).await?;
            (there, Some(audit))
        }
        false => (known.manifest.to_vec(), None),
    };
    [source, destination].into_iter().for_each(Store::tell_passed_over);
    let is_new = |entry: &&Entry| find(known.manifest, &entry.key) != Some(*entry);
    let arrived = there.iter().filter(|entry| find(known.source, &entry.key) == Some(*entry));
    let arrived_since = arrived.filter(is_new).count();
    // Whatever a manifest names, only what this program could have sent is deleted.
    let concerns = |key: &str| options.selection.has(key) && is_publishable(key);
    let mut plan = Plan::new(&inventory.entries, &there, concerns);
    // One that is damaged may have had any.
    let is_damaged = manifest.iter().chain(&intent).any(|manifest| manifest.is_damaged);
    let is_known =
        |key: &str| is_damaged || find(known.manifest, key).or(find(known.intent, key)).is_some();
    let change = Change {
        source,
        destination,
        inventory: &inventory,
        plan: &plan,
        published: manifest.as_ref().filter(|_| intent.is_none()),
        is_unfinished: intent.is_some(),
        is_known: &is_known,
        part_size,
    };
    change.refuse_other_kind().await?;
    if !options.overwrite {
        change.refuse_worse(&options).await?;
    }
    if options.selection.is_whole() && options.delete {
    } else if let Some(entry) = plan.in_the_way().first() {
        let url = destination.location().join(&entry.key).to_string();
        return Err(PublishError::InTheWay { url });
    } else if !options.selection.is_whole() {
        plan.gone.clear();
    }
    let looked_for = async |entry| {
        let is_gone = is_gone(source, &inventory, &entry).await?;
        Ok::<_, PublishError>(is_gone.then_some(entry))
    };
    let looked_for =
        stream::iter(std::mem::take(&mut plan.gone)).map(looked_for).buffered(REQUESTS);
    plan.gone = looked_for.try_filter_map(async |gone| Ok(gone)).try_collect().await?;
    let orphans = if options.delete { Vec::new() } else { std::mem::take(&mut plan.gone) };
    refuse_deletes(source, destination, &options, (&plan, &inventory), manifest.as_ref())?;
    let folders = folders_in_the_way(destination, &plan).await?;
    let sent: Vec<Entry> = plan.send.iter().map(|(entry, _)| entry.clone()).collect();
    for loss in losses(destination, (&sent, part_size), options.cache_control.as_deref()) {
        tracing::warn!("{}: {loss}", destination.location());
    }
    let audit = audit.filter(|_| options.is_audit());
    let (source, destination, stop) = (source.clone(), destination.clone(), stop.clone());
    Ok(Prepared {
        source,
        destination,
        options,
        plan,
        inventory,
        published: manifest,
        intent,
        there,
        part_size,
        audit,
        orphans,
        arrived_since,
        folders,
        is_dirty,
        lease: None,
        stop,
    })
}

/// Refuses to delete all that is published by a source that has nothing of it, and more than is allowed.
fn refuse_deletes(
    source: &Store,
    destination: &Store,
    options: &Options,
    (plan, inventory): (&Plan, &Inventory),
    published: Option<&Manifest>,
) -> Result<(), PublishError> {
    let url = destination.location().to_string();
    let shares = entries(published).iter().any(|entry| inventory.has(&entry.key));
    if let (false, false, Some(first), Some(before)) =
        (shares, options.overwrite, plan.gone.first(), published)
    {
        return Err(PublishError::Unrelated {
            source_url: source.location().to_string(),
            url,
            before: before.header.source.clone(),
            count: plan.gone.len(),
            first: first.key.to_string(),
        });
    }
    if plan.gone.len() > options.max_delete {
        return Err(PublishError::TooManyDeletes {
            url,
            count: plan.gone.len(),
            keys: plan.gone.iter().take(SHOWN).map(|entry| entry.key.to_string()).collect(),
            allowed: options.max_delete,
        });
    }
    Ok(())
}

/// Whether a map store was finalized where it is published, so that the manifest does not tell what is there.
async fn has_changed_there(
    destination: &Store,
    inventory: &Inventory,
    published: Option<&Manifest>,
    part_size: u64,
) -> Result<bool, PublishError> {
    let shared = format!("{CASES}/{SHARED}");
    let records = inventory.entries.iter().filter(|entry| entry.key.ends_with(&shared));
    let before = records.filter_map(|entry| find(entries(published), &entry.key).cloned());
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
pub(super) fn entries(manifest: Option<&Manifest>) -> &[Entry] {
    manifest.map_or(&[], |manifest| &manifest.entries)
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

    /// What is at the destination once the plan is carried out: of the source, and of what was published
    /// before what the source does not speak for and what still lies there.
    pub(super) fn next(&self) -> Vec<Entry> {
        let stays =
            |e: &&Entry| !self.inventory.has(&e.key) && find(&self.plan.gone, &e.key).is_none();
        let kept = self.there.iter().filter(stays).cloned();
        let mut entries: Vec<Entry> = self.inventory.entries.iter().cloned().chain(kept).collect();
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        entries
    }

    /// Whether there is nothing to do, where this is what comes next.
    pub(super) fn is_done(&self, next: &[Entry]) -> bool {
        let is_published = |before: &Manifest| !before.is_damaged && before.entries == next;
        self.plan.is_empty()
            && self.intent.is_none()
            && !self.is_dirty
            && self.published.as_ref().is_some_and(is_published)
    }

    /// Objects of the manifest that no longer lie there as it tells, and that the source does not have either.
    pub(super) fn forgotten(&self) -> usize {
        let before = entries(self.published.as_ref()).iter();
        let is_other = |e: &&Entry| find(&self.there, &e.key) != Some(*e);
        before.filter(|e| !self.inventory.has(&e.key)).filter(is_other).count()
    }
}

fn refuse_within(source: &Location, destination: &Location) -> Result<(), PublishError> {
    if !source.overlaps(destination) {
        return Ok(());
    }
    let [source_url, destination] = [source, destination].map(Location::to_string);
    Err(PublishError::Within { source_url, destination })
}
