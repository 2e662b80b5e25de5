//! A publish from beginning to end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};

use super::audit::{Audit, Extent, Wrong, audit, verify};
use super::claim::Claim;
use super::flow::{Concurrency, Flow};
use super::inventory::{Inventory, Selection, inventory};
use super::journal::{Earlier, Journal, state_folder};
use super::plan::{Plan, Why, stage};
use super::published::Published;
use super::transfer::{Progress, Transfer};
use super::{Entry, FOLDER, PublishError};
use crate::pipeline::{Stop, Stopped};
use crate::store::{Location, Store, is_public};

/// Deletes under way at the same time, one request each: not every server takes several in one.
const DELETES: usize = 16;

/// Objects that an error names.
const SHOWN: usize = 5;
/// How long a stop waits for a server.
const GRACE: Duration = Duration::from_secs(10);

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
    earlier: Earlier,
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
    let earlier = Journal::earlier(&state)?;
    let mut arrived = earlier.arrived.clone();
    let mut audited = None;
    if options.audit {
        let known = merge(&inventory, published.as_ref(), &Plan::default());
        let (audit, states) =
            audit(destination, &known, options.verify == Some(Extent::All), stop).await?;
        arrived = states;
        audited = Some(audit);
    }
    let concerns = |key: &str| options.selection.has(key) && !key.starts_with(FOLDER);
    let mut plan = Plan::new(&inventory.entries, published.as_ref(), &arrived, concerns);
    let still_there = async |entry: Entry| -> Result<Option<Entry>, PublishError> {
        // What belongs to a case that is being made again is no longer recorded, but not gone.
        let found = is_public(&entry.key) && source.find(&entry.key).await?.is_some();
        Ok((!found).then_some(entry))
    };
    let gone = match options.delete && options.selection.is_whole() {
        true => std::mem::take(&mut plan.gone),
        false => Vec::new(),
    };
    let gone = stream::iter(gone).map(still_there).buffered(DELETES);
    plan.gone = gone.try_filter_map(async |gone| Ok(gone)).try_collect().await?;
    if plan.gone.len() > options.max_delete {
        return Err(PublishError::TooManyDeletes {
            url: destination.location().to_string(),
            count: plan.gone.len(),
            keys: plan.gone.iter().take(SHOWN).map(|entry| entry.key.to_string()).collect(),
            allowed: options.max_delete,
        });
    }
    let (source, destination, stop) = (source.clone(), destination.clone(), stop.clone());
    let audit = audited;
    Ok(Prepared { source, destination, options, plan, inventory, published, audit, earlier, stop })
}

/// Carries a publish out.
pub async fn publish(
    prepared: Prepared,
    progress: Arc<dyn Progress>,
) -> Result<Outcome, PublishError> {
    let version = prepared.published.as_ref().map_or(0, |published| published.header.version);
    let mut outcome = Outcome { version, ..Outcome::default() };
    let left = !prepared.earlier.uploads.is_empty() || !prepared.earlier.arrived.is_empty();
    if !prepared.plan.is_empty() || left || prepared.published.is_none() {
        let claim = Claim::take(&prepared.destination).await?;
        let changed = change(&prepared, progress, &mut outcome).await;
        let released = tokio::time::timeout(GRACE, claim.release()).await;
        changed?;
        released.unwrap_or(Ok(()))?;
    }
    if let Some(extent) = prepared.options.verify {
        let entries = merge(&prepared.inventory, None, &prepared.plan);
        let verified = verify(&prepared.destination, &entries, extent, &prepared.stop).await?;
        outcome.verified = Some(verified);
    }
    Ok(outcome)
}

async fn change(
    prepared: &Prepared,
    progress: Arc<dyn Progress>,
    outcome: &mut Outcome,
) -> Result<(), PublishError> {
    let Prepared { source, destination, options, plan, inventory, published, .. } = prepared;
    for (key, ids) in &prepared.earlier.uploads {
        let ids: Vec<String> = ids.iter().cloned().collect();
        destination.abort_uploads(key, &ids).await?;
    }
    if options.audit {
        // Begun on another machine, maybe, whose journal is not ours.
        let is_large = |entry: &Entry| entry.size > destination.part_size() as u64;
        for (entry, _) in &plan.send {
            if is_large(entry) {
                destination.abort_uploads(&entry.key, &[]).await?;
            }
        }
    }
    destination.sweep("").await?;
    let journal =
        Arc::new(Journal::open(&state_folder(source.location(), destination.location()))?);
    let changing = plan.send.iter().filter(|(_, why)| *why == Why::Changed);
    journal.changing(changing.map(|(entry, _)| &*entry.key)).await;
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
    let entries = merge(inventory, published.as_ref(), plan);
    let source = source.location().to_string();
    let mut recipes: BTreeMap<_, _> =
        published.as_ref().map(|before| before.header.recipes.clone()).unwrap_or_default();
    recipes.extend(inventory.recipes.clone());
    let mut next = Published::after(published.as_ref(), &source, recipes, entries);
    next.save(destination).await?;
    outcome.version = next.header.version;
    let delete = async |entry: &Entry| destination.delete(&entry.key).await;
    let deleted = stream::iter(&plan.gone).map(delete).buffered(DELETES);
    outcome.deleted = deleted.try_fold(0, async |n, ()| Ok(n + 1)).await?;
    journal.map_or(Ok(()), Journal::remove)
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

/// What is at the destination once a plan is carried out: of the source, and of what was published
/// before what the source does not speak for.
fn merge(inventory: &Inventory, published: Option<&Published>, plan: &Plan) -> Vec<Entry> {
    let own = |key: &str| inventory.entries.binary_search_by(|e| (*e.key).cmp(key)).is_ok();
    let goes = |key: &str| plan.gone.binary_search_by(|e| (*e.key).cmp(key)).is_ok();
    let before = published.map_or(&[][..], |published| &published.entries);
    let kept = before.iter().filter(|entry| !own(&entry.key) && !goes(&entry.key)).cloned();
    let mut entries: Vec<Entry> = inventory.entries.iter().cloned().chain(kept).collect();
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    entries
}

/// Where a path leads, through all links; what does not exist yet lies where it will be made.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match found {
        Some((above, real)) => real.join(path.strip_prefix(above).unwrap_or(Path::new(""))),
        None => path,
    }
}

fn refuse_within(source: &Location, destination: &Location) -> Result<(), PublishError> {
    let [a, b] = [source, destination].map(|location| {
        let text = match location.local_path() {
            Some(path) => real(path).display().to_string(),
            None => location.to_string(),
        };
        format!("{}/", text.trim_end_matches('/'))
    });
    if !a.starts_with(&b) && !b.starts_with(&a) {
        return Ok(());
    }
    let [source_url, destination] = [source, destination].map(Location::to_string);
    Err(PublishError::Within { source_url, destination })
}
