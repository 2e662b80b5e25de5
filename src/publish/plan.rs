//! The plan of a publish. [`prepare`] makes it under the lease, [`plan_without_lease`] only to show it.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::changes::Changes;
use super::checksum_cache::state_folder;
use super::destination::{
    Audit, KnownObjects, VerifyScope, find_changed_by_others, list_and_compare,
};
use super::destination_state::DestinationState;
use super::enclosing::refuse_part_of_another;
use super::guard::ReplacementCheck;
use super::held_lease::{GRACE_PERIOD, HeldLease, LeaseEnd, PreviousHolder};
use super::inventory::{Inventory, inventory};
use super::lease::Lease;
use super::manifest::{Manifest, entries, find};
use super::options::PublishOptions;
use super::service_limits::warnings;
use super::{ObjectEntry, PublishError, is_publishable};
use crate::case_manifest::{CASES_FOLDER, SHARED_MANIFEST};
use crate::executor::unless_stopped;
use crate::model::Parts;
use crate::store::{SkipReason, Store, StoreError};

/// Number of objects that an error names.
const SHOWN: usize = 5;
/// Requests in flight at the same time. Each deletes or checks one object: some servers do not support
/// deleting several objects with one request.
pub(super) const REQUESTS: usize = 16;

/// The changes that a publish will make.
pub struct PublishPlan {
    /// Store from which objects are sent.
    pub source: Store,
    /// Store to which objects are sent, and in which they are deleted.
    pub destination: Store,
    pub(super) options: PublishOptions,
    /// Objects to send and to delete.
    pub changes: Changes,
    /// Objects of the source.
    pub inventory: Inventory,
    pub(super) state: DestinationState,
    /// Known objects that the destination has, ordered by key: those of the manifest, or, where the
    /// manifest may be out of date, those of a listing.
    pub(super) present: Vec<ObjectEntry>,
    /// Keys of objects of a listing that no publish has sent.
    foreign: HashSet<String>,
    /// Size in bytes of the parts of objects at the destination: that of its first publish.
    pub(super) part_size: u64,
    /// The comparison with a listing of the destination, with `--audit` or `--overwrite` only.
    pub audit: Option<Audit>,
    /// Objects of an earlier publish that the source no longer has and that stay, because `--delete`
    /// is not given.
    pub orphans: Vec<ObjectEntry>,
    /// Number of objects that have arrived since the last complete publish.
    pub arrived_since: usize,
    /// Keys of objects to send that are empty folders on the disk of the destination.
    pub(super) folders: Vec<String>,
}

/// A plan and the lease under which it was made; [`super::publish`] carries it out.
pub struct LeasedPlan {
    /// The plan.
    pub plan: PublishPlan,
    pub(super) lease: HeldLease,
    /// Cancelled when the user stops the program, and when the lease is lost.
    pub(super) stop: CancellationToken,
}

/// Checks source and destination without a request.
fn check(source: &Store, destination: &Store) -> Result<(), PublishError> {
    if source.location().overlaps(destination.location()) {
        let [source_url, destination] =
            [source, destination].map(|store| store.location().to_string());
        return Err(PublishError::OverlappingLocations { source_url, destination });
    }
    Ok(destination.ensure_writable()?)
}

/// Checks that a destination can be published to, before long work begins.
///
/// # Errors
/// The destination overlaps the source, is read-only, cannot be reached, has a damaged manifest, or is
/// a part of another published folder.
pub async fn preflight(source: &Store, destination: &Store) -> Result<(), PublishError> {
    check(source, destination)?;
    Manifest::load(destination).await?;
    refuse_part_of_another(destination).await
}

/// Takes the lease on a destination and makes the plan. The lease is released if that fails.
///
/// # Errors
/// Another publisher holds the lease, the plan is refused, or source or destination fail.
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
        unless_stopped(&stop, HeldLease::take(destination, &stop, load)).await??;
    let mut end = LeaseEnd::NothingWritten;
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

/// Makes the plan without the lease, to show it: another publisher may change the destination.
///
/// # Errors
/// The plan is refused, or source or destination fail.
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

/// Waits until a previous publisher has certainly stopped: if there is an intent or the previous lease had
/// expired, and its holder may still run, waits [`GRACE_PERIOD`] and loads the state again. Sets `end` to the
/// way in which the lease must be released from now on.
async fn wait_for_others(
    destination: &Store,
    options: &PublishOptions,
    lease: &HeldLease,
    state: DestinationState,
    end: &mut LeaseEnd,
) -> Result<DestinationState, PublishError> {
    if state.intent.is_none() && lease.previous != PreviousHolder::Expired {
        return Ok(state);
    }
    if lease.previous == PreviousHolder::Ended {
        *end = LeaseEnd::Interrupted;
        return Ok(state);
    }
    let (url, seconds) = (destination.location(), GRACE_PERIOD.as_secs());
    tracing::warn!("waiting {seconds} s: the previous publisher to {url} may still be running");
    tokio::time::sleep(GRACE_PERIOD).await;
    lease.shared().confirm().await?;
    *end = LeaseEnd::Interrupted;
    DestinationState::load(destination, options).await
}

/// Makes the plan from the state of the destination.
async fn plan(
    source: &Store,
    destination: &Store,
    options: PublishOptions,
    mut state: DestinationState,
    stop: &CancellationToken,
) -> Result<PublishPlan, PublishError> {
    let known = state.manifest.as_ref().or(state.intent.as_ref());
    let part_size = known.map_or(destination.multipart_size(), |known| known.header.part_size);
    let folder = state_folder(source.location());
    let inventory = inventory(source, &options.selection, &folder, part_size, stop).await?;
    state.add_products(destination, inventory.recipes.keys(), part_size).await?;
    let (present, audit) =
        present_objects(destination, &options, &state, (&inventory, part_size), stop).await?;
    let is_listed = audit.is_some();
    let foreign = audit.iter().flat_map(|audit| &audit.unmanaged).cloned().collect();
    [source, destination].into_iter().for_each(Store::log_skipped);
    // Even if a manifest names other keys, only keys that this program sends are deleted.
    let is_in_scope = |key: &str| options.selection.has(key) && is_publishable(key);
    let changes = Changes::new(&inventory.entries, &present, is_in_scope);
    let mut plan = PublishPlan {
        arrived_since: arrived_since(&present, &inventory, &state),
        source: source.clone(),
        destination: destination.clone(),
        audit: audit.filter(|_| options.lists_destination()),
        options,
        changes,
        inventory,
        state,
        present,
        foreign,
        part_size,
        orphans: Vec::new(),
        folders: Vec::new(),
    };
    if !plan.changes.is_empty() || plan.state.manifest.is_none() {
        refuse_part_of_another(destination).await?;
    }
    plan.refuse_worse().await?;
    plan.restrict_deletes_to_gone().await?;
    plan.exclude_replaced_by_others(is_listed).await?;
    plan.refuse_deletes()?;
    plan.folders = plan.folders_in_the_way().await?;
    plan.warn_of_service_limits();
    Ok(plan)
}

/// The known objects that the destination has: those of the manifest, or, where the manifest may be out
/// of date, those of a listing.
async fn present_objects(
    destination: &Store,
    options: &PublishOptions,
    state: &DestinationState,
    (inventory, part_size): (&Inventory, u64),
    stop: &CancellationToken,
) -> Result<(Vec<ObjectEntry>, Option<Audit>), PublishError> {
    let [manifest, intent, found_versions] = state.versions();
    let known = KnownObjects {
        source: &inventory.entries,
        manifest,
        intent,
        found_versions,
        is_dirty: state.is_dirty,
        repairs: options.lists_destination(),
        reads_all: options.verify == Some(VerifyScope::All) && options.lists_destination(),
        part_size,
    };
    let may_be_outdated = options.lists_destination()
        || state.intent.is_some()
        || state.is_dirty
        || was_finalized(destination, inventory, state.manifest.as_ref(), part_size).await?;
    if !may_be_outdated {
        return Ok((known.manifest.to_vec(), None));
    }
    let (present, audit) = list_and_compare(destination, &known, stop).await?;
    Ok((present, Some(audit)))
}

/// Number of objects of the source that have arrived since the last complete publish.
fn arrived_since(
    present: &[ObjectEntry],
    inventory: &Inventory,
    state: &DestinationState,
) -> usize {
    let before = entries(state.manifest.as_ref());
    let is_new = |entry: &&ObjectEntry| find(before, &entry.key) != Some(*entry);
    let has_arrived = |e: &&ObjectEntry| find(&inventory.entries, &e.key) == Some(*e);
    present.iter().filter(has_arrived).filter(is_new).count()
}

impl PublishPlan {
    /// Refuses to replace a published result by a poorer one or by one of another kind.
    async fn refuse_worse(&self) -> Result<(), PublishError> {
        let Self { state, .. } = self;
        let guard = ReplacementCheck {
            source: &self.source,
            destination: &self.destination,
            inventory: &self.inventory,
            changes: &self.changes,
            published: state.manifest.as_ref(),
            sent_versions: state.versions(),
            is_known: &|key| state.has(key),
            is_foreign: &|key| self.is_foreign(key),
            part_size: self.part_size,
        };
        guard.refuse_other_kind().await?;
        match self.options.overwrite {
            true => Ok(()),
            false => guard.refuse_worse(&self.options).await,
        }
    }

    /// Restricts deletes to objects that the source no longer has. Without `--delete` these become
    /// orphans. If only some products or cases are selected, nothing is deleted.
    async fn restrict_deletes_to_gone(&mut self) -> Result<(), PublishError> {
        let is_whole = self.options.selection.is_whole();
        if !(is_whole && self.options.delete)
            && let Some(entry) = self.changes.path_conflicts().first()
        {
            let url = self.destination.location().join(&entry.key).to_string();
            return Err(PublishError::SourcePathConflict { url });
        }
        let mut candidates = std::mem::take(&mut self.changes.deletes);
        if !is_whole {
            candidates.clear();
        }
        let keep_if_gone = async |entry| {
            let is_gone = is_gone(&self.source, &self.inventory, &entry).await?;
            Ok::<_, PublishError>(is_gone.then_some(entry))
        };
        let checked = stream::iter(candidates).map(keep_if_gone).buffered(REQUESTS);
        let deletes: Vec<ObjectEntry> =
            checked.try_filter_map(async |entry| Ok(entry)).try_collect().await?;
        match self.options.delete {
            true => self.changes.deletes = deletes,
            false => self.orphans = deletes,
        }
        Ok(())
    }

    /// Keeps objects that another program has replaced since they were published: they are neither
    /// deleted nor in the next manifest. A listing (`is_listed`) has left them out of `present`.
    async fn exclude_replaced_by_others(&mut self, is_listed: bool) -> Result<(), PublishError> {
        if is_listed || !self.options.delete {
            return Ok(());
        }
        let foreign = find_changed_by_others(&self.destination, &self.changes.deletes).await?;
        if let Some(first) = foreign.first() {
            let (url, number) = (self.destination.location().join(first), foreign.len());
            tracing::warn!(
                "{number} object(s), such as {url}, were replaced by another program since they \
                 were published; they are not deleted"
            );
        }
        self.changes.deletes.retain(|entry| !foreign.contains(&entry.key));
        self.present.retain(|entry| !foreign.contains(&entry.key));
        Ok(())
    }

    /// Refuses to delete everything that is published if the source has none of it, and to delete more
    /// than `max_delete` objects.
    fn refuse_deletes(&self) -> Result<(), PublishError> {
        let (url, deletes) = (self.destination.location().to_string(), &self.changes.deletes);
        let published = self.state.manifest.as_ref();
        let shares = entries(published).iter().any(|entry| self.inventory.has(&entry.key));
        if let (false, false, Some(first), Some(before)) =
            (shares, self.options.overwrite, deletes.first(), published)
        {
            return Err(PublishError::Unrelated {
                source_url: self.source.location().to_string(),
                url,
                before: before.header.source.clone(),
                count: deletes.len(),
                first: first.key.to_string(),
            });
        }
        if deletes.len() > self.options.max_delete {
            return Err(PublishError::TooManyDeletes {
                url,
                count: deletes.len(),
                keys: deletes.iter().take(SHOWN).map(|entry| entry.key.to_string()).collect(),
                allowed: self.options.max_delete,
            });
        }
        Ok(())
    }

    /// Keys of objects to send that are folders on the disk of the destination. These folders are
    /// empty once the deletes of the plan are done.
    async fn folders_in_the_way(&self) -> Result<Vec<String>, PublishError> {
        let keys = self.changes.send.iter().map(|(entry, _)| entry.key.to_string()).collect();
        let conflicts = self.destination.path_conflicts(keys).await?;
        let stays = |file: &str| find(&self.changes.deletes, file).is_none();
        match conflicts.files.into_iter().find(|(_, file)| stays(file)) {
            None => Ok(conflicts.folders),
            Some((key, file)) => {
                let url = self.destination.location().join(&file).to_string();
                Err(PublishError::DestinationPathConflict { url, key })
            }
        }
    }

    fn warn_of_service_limits(&self) {
        let sent: Vec<ObjectEntry> =
            self.changes.send.iter().map(|(entry, _)| entry.clone()).collect();
        let cache_control = self.options.cache_control.as_deref();
        for warning in warnings(&self.destination, (&sent, self.part_size), cache_control) {
            tracing::warn!("{}: {warning}", self.destination.location());
        }
    }

    /// Objects of the source that are never published, for each reason: the reason, their number, and
    /// the key of one of them. Lists the source.
    ///
    /// # Errors
    /// The source cannot be listed.
    pub async fn left_out(&self) -> Result<Vec<(SkipReason, usize, String)>, PublishError> {
        let (records, records_below) = (format!("{CASES_FOLDER}/"), format!("/{CASES_FOLDER}/"));
        let is_record = |key: &str| key.starts_with(&records) || key.contains(&records_below);
        let found = self.source.list_keys(is_record).await?;
        let mut left_out = self.source.skipped();
        let PublishOptions { selection, .. } = &self.options;
        let is_foreign = |key: &&String| {
            selection.has(key)
                && !self.inventory.has(key)
                && !self.inventory.is_of_unfinished_case(key)
        };
        let mut foreign = found.iter().filter(is_foreign);
        // With only some products or cases selected, the inventory lacks those of the others.
        if let Some(first) = foreign.next().filter(|_| selection.is_whole()) {
            left_out.push((SkipReason::Foreign, 1 + foreign.count(), first.clone()));
        }
        Ok(left_out)
    }

    /// Objects of the destination once the plan is carried out: those of the source, and known objects
    /// that are present and not deleted.
    pub(super) fn entries_after(&self) -> Vec<ObjectEntry> {
        let stays = |e: &&ObjectEntry| {
            !self.inventory.has(&e.key) && find(&self.changes.deletes, &e.key).is_none()
        };
        let kept = self.present.iter().filter(stays).cloned();
        let mut entries: Vec<ObjectEntry> =
            self.inventory.entries.iter().cloned().chain(kept).collect();
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        entries
    }

    /// Whether nothing remains to be done; `next` is the result of [`Self::entries_after`].
    pub(super) fn is_done(&self, next: &[ObjectEntry]) -> bool {
        // Version 0 has the entries of publishes to single products only, and is not written yet.
        let is_published = |before: &Manifest| {
            before.header.version > 0 && !before.is_damaged && before.entries == next
        };
        self.changes.is_empty()
            && self.state.intent.is_none()
            && !self.state.is_dirty
            && self.state.manifest.as_ref().is_some_and(is_published)
    }

    /// Whether the destination had an object with this key that no publish has sent.
    pub(super) fn is_foreign(&self, key: &str) -> bool {
        self.foreign.contains(key)
    }

    /// Number of objects of the manifest that are missing or changed at the destination and that the
    /// inventory does not have.
    pub(super) fn dropped(&self) -> usize {
        let before = entries(self.state.manifest.as_ref()).iter();
        let has_changed = |e: &&ObjectEntry| find(&self.present, &e.key) != Some(*e);
        before.filter(|e| !self.inventory.has(&e.key)).filter(has_changed).count()
    }
}

/// Whether a map store was finalized at the destination, so that the manifest is out of date.
async fn was_finalized(
    destination: &Store,
    inventory: &Inventory,
    published: Option<&Manifest>,
    part_size: u64,
) -> Result<bool, PublishError> {
    let shared = format!("{CASES_FOLDER}/{SHARED_MANIFEST}");
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

/// Whether the source no longer has an object. Objects of a case that is not complete count as present:
/// the case may be made again.
async fn is_gone(
    source: &Store,
    inventory: &Inventory,
    entry: &ObjectEntry,
) -> Result<bool, PublishError> {
    if inventory.is_of_unfinished_case(&entry.key) {
        return Ok(false);
    }
    match source.head(&entry.key).await {
        Ok(found) => Ok(found.is_none()),
        // On a disk, the path of the object is now a folder, or one of its folders is now a file.
        Err(StoreError::BadLocation(_) | StoreError::UnsupportedFileType { .. }) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
