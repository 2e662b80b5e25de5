//! The plan of a publish: under the lease, before anything is changed, or without it, for those who only want
//! to know.

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use super::checksum_cache::state_folder;
use super::destination::{Audit, KnownObjects, VerifyScope, list, look};
use super::guard::Guard;
use super::inventory::{Inventory, inventory};
use super::lease::Lease;
use super::lease_guard::{GRACE_PERIOD, LeaseEnd, LeaseGuard};
use super::manifest::{Manifest, find};
use super::options::PublishOptions;
use super::service_limits::losses;
use super::{ObjectEntry, PublishError, is_publishable};
use crate::case_manifest::{CASES, SHARED};
use crate::executor::unless_stopped;
use crate::model::Parts;
use crate::store::{Location, SkipReason, Store, StoreError};

/// Objects that an error names.
const SHOWN: usize = 5;
/// Requests under way at the same time, one for each object: not every server takes several in one.
pub(super) const REQUESTS: usize = 16;

/// What a publish will do, found out before anything is changed.
pub struct PublishPlan {
    pub(super) source: Store,
    pub(super) destination: Store,
    pub(super) options: PublishOptions,
    /// What will be sent and deleted.
    pub changes: Changes,
    /// What the source holds.
    pub inventory: Inventory,
    pub(super) state: DestinationState,
    /// What lies at the destination of all that is known, ordered by key: by the manifest, or, where that is in
    /// doubt, by a listing.
    pub(super) there: Vec<ObjectEntry>,
    /// Bytes of the parts that objects have at the destination: those of its first publish, or as configured.
    pub(super) part_size: u64,
    /// What a listing of the destination says, where one was asked for.
    pub audit: Option<Audit>,
    /// Objects that an earlier publish has sent and that the source no longer has; they stay, because
    /// nobody asked to delete them.
    pub orphans: Vec<ObjectEntry>,
    /// Objects that have arrived since the last complete publish.
    pub arrived_since: usize,
    /// Objects of the plan of which there are folders, on disk.
    pub(super) folders: Vec<String>,
}

/// A plan with the lease under which it was made, to be carried out by [`super::publish`].
pub struct LeasedPlan {
    /// What will be done.
    pub plan: PublishPlan,
    pub(super) lease: LeaseGuard,
    /// Cancelled when all is to stop, and when the lease is lost.
    pub(super) stop: CancellationToken,
}

/// Refuses a destination that cannot be one, without asking it.
fn check(source: &Store, destination: &Store) -> Result<(), PublishError> {
    refuse_within(source.location(), destination.location())?;
    Ok(destination.ensure_writable()?)
}

/// Checks that a destination can be published to, before work that takes long is begun.
pub async fn preflight(source: &Store, destination: &Store) -> Result<(), PublishError> {
    check(source, destination)?;
    Manifest::load(destination).await.map(drop)
}

/// Takes the lease on a destination and plans what is to be done.
pub async fn prepare(
    source: &Store,
    destination: &Store,
    options: PublishOptions,
    stop: &CancellationToken,
) -> Result<LeasedPlan, PublishError> {
    check(source, destination)?;
    let stop = stop.child_token();
    let load = || DestinationState::load(destination, &options);
    let (lease, loaded) =
        unless_stopped(&stop, LeaseGuard::take(destination, &stop, load)).await??;
    let mut end = LeaseEnd::Untouched;
    let planned = async {
        let state = wait_for_others(destination, &options, &lease, loaded?, &mut end).await?;
        let state = DestinationState { is_dirty: lease.dirty > 0, ..state };
        plan(source, destination, options, state, &stop).await
    };
    let planned = unless_stopped(&stop, planned).await;
    match planned.map_err(PublishError::from).flatten() {
        Ok(plan) => Ok(LeasedPlan { plan, lease, stop }),
        Err(error) => lease.release(Err(error), end).await,
    }
}

/// Plans what a publish would do, without the lease: others may change what it found at any time.
pub async fn plan_without_lease(
    source: &Store,
    destination: &Store,
    options: PublishOptions,
    stop: &CancellationToken,
) -> Result<PublishPlan, PublishError> {
    check(source, destination)?;
    let planned = async {
        let lease = async { Ok(Lease::load(destination).await?) };
        let load = DestinationState::load(destination, &options);
        let (state, lease) = tokio::try_join!(load, lease)?;
        let is_dirty = lease.is_some_and(|lease| lease.is_dirty());
        plan(source, destination, options, DestinationState { is_dirty, ..state }, stop).await
    };
    unless_stopped(stop, planned).await?
}

/// What publishers keep at a destination.
pub(super) struct DestinationState {
    /// What was published before.
    pub manifest: Option<Manifest>,
    /// What a publish that has not ended was to leave.
    pub intent: Option<Manifest>,
    /// Whether a publisher that had lost its lease may have changed objects.
    pub is_dirty: bool,
}

impl DestinationState {
    /// Loads manifest and intent; the lease tells whether it is dirty.
    async fn load(destination: &Store, options: &PublishOptions) -> Result<Self, PublishError> {
        let manifest = async {
            match options.is_audit() {
                true => Manifest::load_or_begin(destination).await,
                false => Manifest::load(destination).await,
            }
        };
        let (manifest, intent) = tokio::try_join!(manifest, Manifest::load_intent(destination))?;
        Ok(Self { manifest, intent, is_dirty: false })
    }

    /// Whether publishing has sent an object, or was about to. A manifest that is damaged may have had any.
    fn has(&self, key: &str) -> bool {
        let both = || self.manifest.iter().chain(&self.intent);
        both().any(|manifest| manifest.is_damaged || manifest.entry(key).is_some())
    }
}

/// Where there is an intent, or the lease had expired, and its previous holder may still run, waits
/// [`GRACE_PERIOD`] and loads the state again.
async fn wait_for_others(
    destination: &Store,
    options: &PublishOptions,
    lease: &LeaseGuard,
    state: DestinationState,
    end: &mut LeaseEnd,
) -> Result<DestinationState, PublishError> {
    if state.intent.is_none() && !lease.has_expired {
        return Ok(state);
    }
    if !lease.may_have_other_holder {
        *end = LeaseEnd::Unfinished;
        return Ok(state);
    }
    let (url, seconds) = (destination.location(), GRACE_PERIOD.as_secs());
    tracing::warn!("waiting {seconds} s: whoever began a publish to {url} may still be at work");
    tokio::time::sleep(GRACE_PERIOD).await;
    lease.shared().confirm().await?;
    *end = LeaseEnd::Unfinished;
    DestinationState::load(destination, options).await
}

async fn plan(
    source: &Store,
    destination: &Store,
    options: PublishOptions,
    state: DestinationState,
    stop: &CancellationToken,
) -> Result<PublishPlan, PublishError> {
    let known = state.manifest.as_ref().or(state.intent.as_ref());
    let part_size = known.map_or(destination.multipart_size(), |known| known.header.part_size);
    let folder = state_folder(source.location());
    let inventory = inventory(source, &options.selection, &folder, part_size, stop).await?;
    let (there, audit) =
        observe(destination, &options, &state, (&inventory, part_size), stop).await?;
    [source, destination].into_iter().for_each(Store::log_skipped);
    // Whatever a manifest names, only what this program could have sent is deleted.
    let concerns = |key: &str| options.selection.has(key) && is_publishable(key);
    let changes = Changes::new(&inventory.entries, &there, concerns);
    let mut plan = PublishPlan {
        arrived_since: arrived_since(&there, &inventory, &state),
        source: source.clone(),
        destination: destination.clone(),
        audit: audit.filter(|_| options.is_audit()),
        options,
        changes,
        inventory,
        state,
        there,
        part_size,
        orphans: Vec::new(),
        folders: Vec::new(),
    };
    plan.refuse_worse().await?;
    plan.limit_deletes().await?;
    plan.refuse_deletes()?;
    plan.folders = plan.folders_in_the_way().await?;
    plan.tell_losses();
    Ok(plan)
}

/// What lies at the destination of all that is known: by the manifest, or, where that is in doubt, by a listing.
async fn observe(
    destination: &Store,
    options: &PublishOptions,
    state: &DestinationState,
    (inventory, part_size): (&Inventory, u64),
    stop: &CancellationToken,
) -> Result<(Vec<ObjectEntry>, Option<Audit>), PublishError> {
    let known = KnownObjects {
        source: &inventory.entries,
        manifest: entries(state.manifest.as_ref()),
        intent: entries(state.intent.as_ref()),
        is_dirty: state.is_dirty,
        reads_all: options.verify == Some(VerifyScope::All) && options.is_audit(),
        part_size,
    };
    let is_in_doubt = options.is_audit()
        || state.intent.is_some()
        || state.is_dirty
        || has_changed_there(destination, inventory, state.manifest.as_ref(), part_size).await?;
    if !is_in_doubt {
        return Ok((known.manifest.to_vec(), None));
    }
    let (there, audit) = look(destination, list(destination).await?, &known, stop).await?;
    Ok((there, Some(audit)))
}

/// How many objects of the source have arrived since the last complete publish.
fn arrived_since(there: &[ObjectEntry], inventory: &Inventory, state: &DestinationState) -> usize {
    let before = entries(state.manifest.as_ref());
    let is_new = |entry: &&ObjectEntry| find(before, &entry.key) != Some(*entry);
    let has_arrived = |e: &&ObjectEntry| find(&inventory.entries, &e.key) == Some(*e);
    there.iter().filter(has_arrived).filter(is_new).count()
}

impl PublishPlan {
    /// Refuses to replace what is published by something else or worse.
    async fn refuse_worse(&self) -> Result<(), PublishError> {
        let Self { state, .. } = self;
        let guard = Guard {
            source: &self.source,
            destination: &self.destination,
            inventory: &self.inventory,
            changes: &self.changes,
            published: state.manifest.as_ref(),
            is_unfinished: state.intent.is_some(),
            is_known: &|key| state.has(key),
            part_size: self.part_size,
        };
        guard.refuse_other_kind().await?;
        match self.options.overwrite {
            true => Ok(()),
            false => guard.refuse_worse(&self.options).await,
        }
    }

    /// Limits deletes to objects that are in the source no longer. Without `--delete` they become orphans; of
    /// some products or cases nothing is deleted.
    async fn limit_deletes(&mut self) -> Result<(), PublishError> {
        let is_whole = self.options.selection.is_whole();
        if !(is_whole && self.options.delete)
            && let Some(entry) = self.changes.in_the_way().first()
        {
            let url = self.destination.location().join(&entry.key).to_string();
            return Err(PublishError::InTheWay { url });
        }
        let gone = std::mem::take(&mut self.changes.gone);
        let gone = if is_whole { gone } else { Vec::new() };
        let look = async |entry| {
            let is_gone = is_gone(&self.source, &self.inventory, &entry).await?;
            Ok::<_, PublishError>(is_gone.then_some(entry))
        };
        let gone = stream::iter(gone).map(look).buffered(REQUESTS);
        let gone: Vec<ObjectEntry> =
            gone.try_filter_map(async |gone| Ok(gone)).try_collect().await?;
        match self.options.delete {
            true => self.changes.gone = gone,
            false => self.orphans = gone,
        }
        Ok(())
    }

    /// Refuses to delete all that is published by a source that has nothing of it, and more than is allowed.
    fn refuse_deletes(&self) -> Result<(), PublishError> {
        let (url, gone) = (self.destination.location().to_string(), &self.changes.gone);
        let published = self.state.manifest.as_ref();
        let shares = entries(published).iter().any(|entry| self.inventory.has(&entry.key));
        if let (false, false, Some(first), Some(before)) =
            (shares, self.options.overwrite, gone.first(), published)
        {
            return Err(PublishError::Unrelated {
                source_url: self.source.location().to_string(),
                url,
                before: before.header.source.clone(),
                count: gone.len(),
                first: first.key.to_string(),
            });
        }
        if gone.len() > self.options.max_delete {
            return Err(PublishError::TooManyDeletes {
                url,
                count: gone.len(),
                keys: gone.iter().take(SHOWN).map(|entry| entry.key.to_string()).collect(),
                allowed: self.options.max_delete,
            });
        }
        Ok(())
    }

    /// Keys of the plan of which there are folders on disk, with nothing in them but what is deleted first.
    async fn folders_in_the_way(&self) -> Result<Vec<String>, PublishError> {
        let keys = self.changes.send.iter().map(|(entry, _)| entry.key.to_string()).collect();
        let found = self.destination.obstacles(keys).await?;
        let stays = |file: &str| find(&self.changes.gone, file).is_none();
        match found.files.into_iter().find(|(_, file)| stays(file)) {
            None => Ok(found.folders),
            Some((key, file)) => {
                let url = self.destination.location().join(&file).to_string();
                Err(PublishError::Obstacle { url, key })
            }
        }
    }

    /// Warns of what the service of the destination does not keep.
    fn tell_losses(&self) {
        let sent: Vec<ObjectEntry> =
            self.changes.send.iter().map(|(entry, _)| entry.clone()).collect();
        let cache_control = self.options.cache_control.as_deref();
        for loss in losses(&self.destination, (&sent, self.part_size), cache_control) {
            tracing::warn!("{}: {loss}", self.destination.location());
        }
    }

    /// What of the source is not published whatever is asked for: why, how many, and one of them. Lists the
    /// source.
    pub async fn left_out(&self) -> Result<Vec<(SkipReason, usize, String)>, PublishError> {
        let of_program = format!("{CASES}/");
        let is_own =
            |key: &str| key.starts_with(&of_program) || key.contains(&format!("/{CASES}/"));
        let found = self.source.list_keys(is_own).await?;
        let mut left_out = self.source.skipped();
        let PublishOptions { selection, .. } = &self.options;
        let is_foreign = |key: &&String| {
            selection.has(key) && !self.inventory.has(key) && !self.inventory.is_pending(key)
        };
        let mut foreign = found.iter().filter(is_foreign);
        // What was not asked for is not looked at so closely.
        if let Some(first) = foreign.next().filter(|_| selection.is_whole()) {
            left_out.push((SkipReason::Foreign, 1 + foreign.count(), first.clone()));
        }
        Ok(left_out)
    }

    /// What is at the destination once the plan is carried out: of the source, and of what was published
    /// before what the source does not speak for and what still lies there.
    pub(super) fn next(&self) -> Vec<ObjectEntry> {
        let stays = |e: &&ObjectEntry| {
            !self.inventory.has(&e.key) && find(&self.changes.gone, &e.key).is_none()
        };
        let kept = self.there.iter().filter(stays).cloned();
        let mut entries: Vec<ObjectEntry> =
            self.inventory.entries.iter().cloned().chain(kept).collect();
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        entries
    }

    /// Whether there is nothing to do, where this is what comes next.
    pub(super) fn is_done(&self, next: &[ObjectEntry]) -> bool {
        let is_published = |before: &Manifest| !before.is_damaged && before.entries == next;
        self.changes.is_empty()
            && self.state.intent.is_none()
            && !self.state.is_dirty
            && self.state.manifest.as_ref().is_some_and(is_published)
    }

    /// Objects of the manifest that no longer lie there as it tells, and that the source does not have either.
    pub(super) fn dropped(&self) -> usize {
        let before = entries(self.state.manifest.as_ref()).iter();
        let is_other = |e: &&ObjectEntry| find(&self.there, &e.key) != Some(*e);
        before.filter(|e| !self.inventory.has(&e.key)).filter(is_other).count()
    }
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
    let changed = async |before: ObjectEntry| {
        let found = destination.get(&before.key).await?;
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

/// What a manifest names; nothing when there is none.
pub(super) fn entries(manifest: Option<&Manifest>) -> &[ObjectEntry] {
    manifest.map_or(&[], |manifest| &manifest.entries)
}

/// Whether an object is no longer in the source. What belongs to a case that is being made again is no
/// longer recorded, but not gone.
async fn is_gone(
    source: &Store,
    inventory: &Inventory,
    entry: &ObjectEntry,
) -> Result<bool, PublishError> {
    if inventory.is_pending(&entry.key) {
        return Ok(false);
    }
    match source.head(&entry.key).await {
        Ok(found) => Ok(found.is_none()),
        // A folder has become a file, or a file a folder.
        Err(StoreError::BadLocation(_) | StoreError::UnsupportedFileType { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn refuse_within(source: &Location, destination: &Location) -> Result<(), PublishError> {
    if !source.overlaps(destination) {
        return Ok(());
    }
    let [source_url, destination] = [source, destination].map(Location::to_string);
    Err(PublishError::OverlappingLocations { source_url, destination })
}
