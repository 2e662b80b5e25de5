//! One publisher at a time: a claim on a destination is held as long as its sign lies there. All that is
//! changed under it is noted, so that who loses it can tell what may have been written over somebody
//! else's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::doubt::Doubt;
use super::sign::{DEAD, Sign};
use super::{Entry, PublishError};
use crate::pipeline::begin;
use crate::store::{Condition, Store, StoreError};

/// Time between two signs of life.
const RENEWED: Duration = Duration::from_secs(60);
/// Nothing is changed when the sign was not looked at for so long.
const LOOK: Duration = Duration::from_secs(5);
/// After so long with a claim, one that had it before and is at work has seen that, and stopped.
pub(super) const OUTLASTED: Duration = Duration::from_secs(15);
/// How long giving a claim up waits for a server.
const GRACE: Duration = Duration::from_secs(10);

/// A moment by the clock, which goes on while a machine sleeps, and by a timer, which nobody sets.
#[derive(Clone, Copy)]
struct Moment(DateTime<Utc>, Instant);

impl Moment {
    fn now() -> Self {
        Self(Utc::now(), Instant::now())
    }

    fn elapsed(&self) -> Duration {
        let by_clock = Utc::now().signed_duration_since(self.0).abs().to_std();
        by_clock.unwrap_or_default().max(self.1.elapsed())
    }
}

/// The claim on a destination; given up by [`Claim::release`].
pub struct Claim {
    held: Arc<Held>,
    /// Renews the sign while the claim is held.
    renewing: AbortOnDropHandle<()>,
    /// Whether one that published before may still be at work: it was not seen to be dead.
    pub is_disputed: bool,
}

/// A claim, for those who work under it.
pub struct Held {
    destination: Store,
    sign: Sign,
    /// Asked for when the claim is lost.
    stop: CancellationToken,
    state: Mutex<State>,
    /// One looks at a time; the others wait for what it finds.
    turn: tokio::sync::Mutex<()>,
}

struct State {
    /// When the sign was last looked at, seen to lie there, and renewed.
    looked: Moment,
    seen: Moment,
    renewed: Moment,
    /// Whether somebody else has the claim, or may have.
    is_lost: bool,
    /// Objects that are being changed, by the number of the change, and those that have been since the
    /// sign was last seen.
    changing: BTreeMap<u64, Entry>,
    changed: Vec<Entry>,
    changes: u64,
}

/// An object is being changed, until this is dropped.
pub struct Change {
    held: Arc<Held>,
    number: u64,
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut state = self.held.state();
        let changed = state.changing.remove(&self.number);
        state.changed.extend(changed);
    }
}

impl Claim {
    /// Claims a destination; [`PublishError::Busy`] when another publisher that lives has it.
    /// When it is lost later, `stop` is asked for.
    pub async fn take(destination: &Store, stop: &CancellationToken) -> Result<Self, PublishError> {
        let busy = |who: String| PublishError::Busy {
            url: destination.location().to_string(),
            who,
            minutes: DEAD.as_secs() / 60,
        };
        let found = Sign::load(destination).await?;
        let of_dead = |sign: &Option<Sign>| sign.as_ref().is_some_and(Sign::is_gone);
        let is_disputed = !found.as_ref().is_some_and(|(sign, _)| of_dead(sign));
        let condition = match found {
            None => Condition::Absent,
            Some((Some(sign), _)) if sign.is_alive() => return Err(busy(sign.to_string())),
            Some((_, etag)) => etag.map_or(Condition::Always, Condition::Is),
        };
        let (sign, now) = (Sign::own(), Moment::now());
        let write = async || match sign.write(destination, condition.clone()).await {
            Ok(()) => Ok(false),
            // A try whose answer was lost may have written it.
            Err(StoreError::Overtaken { .. }) => Ok(true),
            Err(error) => Err(error),
        };
        let mut refused = write().await?;
        // Not every server knows conditions: of two that wrote, the later one has it.
        let mut found = Sign::load(destination).await?;
        let is_first = condition == Condition::Absent;
        if is_first && refused && found.is_none() {
            // Who had it may have given it up just now.
            refused = write().await?;
            found = Sign::load(destination).await?;
        }
        if is_first && refused && found.is_none() {
            let url = destination.location().join(&Sign::key()).to_string();
            let request = "a write on the condition that there is nothing".to_owned();
            let detail = "there is nothing".to_owned();
            return Err(StoreError::Refused { url, request, status: 412, detail }.into());
        }
        let found = found.and_then(|(found, _)| found);
        if found.as_ref() != Some(&sign) {
            return Err(busy(found.map_or("somebody".to_owned(), |s| s.to_string())));
        }
        let held = Held::new(destination.clone(), sign, now, stop.clone());
        Ok(Self { renewing: begin(renew(held.clone())), held, is_disputed })
    }

    /// The claim, for those who work under it.
    pub fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// Gives the claim up after what was done under it, of which `done` is the result. One that is
    /// lost is somebody else's to give up, and why the work was stopped: what may have been written over
    /// the other's is marked.
    pub async fn release(self, done: Result<(), PublishError>) -> Result<(), PublishError> {
        let Self { held, renewing, .. } = self;
        drop(renewing);
        let give_up = async {
            held.confirm().await?;
            Ok::<_, PublishError>(held.destination.delete(&Sign::key()).await?)
        };
        let given_up = match held.is_lost() {
            true => Ok(()),
            false => tokio::time::timeout(GRACE, give_up).await.unwrap_or(Ok(())),
        };
        if !held.is_lost() {
            return done.and(given_up);
        }
        let doubtful = held.doubtful();
        match done {
            // It was done before.
            Ok(()) if doubtful.is_empty() => Ok(()),
            _ => Err(held.mark(doubtful).await),
        }
    }
}

impl Held {
    fn new(destination: Store, sign: Sign, since: Moment, stop: CancellationToken) -> Arc<Self> {
        let state = State {
            looked: since,
            seen: since,
            renewed: since,
            is_lost: false,
            changing: BTreeMap::new(),
            changed: Vec::new(),
            changes: 0,
        };
        let (state, turn) = (Mutex::new(state), tokio::sync::Mutex::default());
        Arc::new(Self { destination, sign, stop, state, turn })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the claim is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.state().is_lost
    }

    /// An object is about to be changed; [`PublishError::ClaimLost`] when that is not ours to do.
    pub async fn change(self: &Arc<Self>, entry: &Entry) -> Result<Change, PublishError> {
        // Noted first: what is under way when the loss is seen is in doubt.
        let change = {
            let mut state = self.state();
            if state.is_lost {
                return Err(self.lost(0));
            }
            state.changes += 1;
            let number = state.changes;
            state.changing.insert(number, entry.clone());
            Change { held: self.clone(), number }
        };
        match self.look().await {
            Ok(()) => Ok(change),
            Err(error) => {
                self.state().changing.remove(&change.number);
                Err(error)
            }
        }
    }

    /// Looks whether the claim is held, unless that was done a moment ago. While a server does not
    /// answer, it counts as held for as long as it is nobody else's.
    async fn look(&self) -> Result<(), PublishError> {
        let is_due = || self.state().looked.elapsed() >= LOOK;
        if is_due() {
            let _turn = self.turn.lock().await;
            if is_due() {
                let looked = self.look_now(false).await;
                looked.or_else(|e| if self.is_lost() { Err(e) } else { Ok(()) })?;
            }
        }
        match self.is_lost() {
            true => Err(self.lost(0)),
            false => Ok(()),
        }
    }

    /// Looks whether the claim is held; an error when that cannot be known, too.
    pub async fn confirm(&self) -> Result<(), PublishError> {
        let _turn = self.turn.lock().await;
        self.look_now(false).await
    }

    async fn look_now(&self, renews: bool) -> Result<(), PublishError> {
        if self.is_lost() {
            return Err(self.lost(0));
        }
        let (begun, before) = (Moment::now(), self.state().changed.len());
        let found = match renews {
            true => renew_sign(&self.destination, &self.sign).await,
            false => self.sign.find_own(&self.destination).await.map(|found| found.is_some()),
        };
        {
            let mut state = self.state();
            state.looked = begun;
            match &found {
                Ok(true) => {
                    state.seen = begun;
                    drop(state.changed.drain(..before));
                    if renews {
                        state.renewed = begun;
                    }
                }
                Ok(false) => state.is_lost = true,
                // Soon it is anybody's.
                Err(_) => state.is_lost = state.renewed.elapsed() >= DEAD - RENEWED,
            }
        }
        if self.is_lost() {
            warn!("the claim on {} is lost: stopping", self.destination.location());
            self.stop.cancel();
            return Err(self.lost(0));
        }
        Ok(found.map(drop)?)
    }

    fn lost(&self, doubtful: usize) -> PublishError {
        PublishError::ClaimLost { url: self.destination.location().to_string(), doubtful }
    }

    /// What was changed, or may have been, since the sign was last seen to lie there.
    fn doubtful(&self) -> Vec<Entry> {
        let state = self.state();
        let mut all: Vec<Entry> =
            state.changed.iter().chain(state.changing.values()).cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        all
    }

    /// Marks at the destination what is in doubt, for whoever publishes next; the error that tells so.
    async fn mark(&self, doubtful: Vec<Entry>) -> PublishError {
        if doubtful.is_empty() {
            return self.lost(0);
        }
        match Doubt::mark(&self.destination, &doubtful).await {
            Ok(()) => self.lost(doubtful.len()),
            Err(source) => PublishError::NotMarked {
                url: self.destination.location().to_string(),
                doubtful: doubtful.len(),
                source: Box::new(source),
            },
        }
    }
}

/// Gives signs of life, and looks whether the claim is held.
async fn renew(held: Arc<Held>) {
    while !held.is_lost() {
        tokio::time::sleep(LOOK).await;
        if held.state().renewed.elapsed() < RENEWED {
            // Who changes something looks by itself.
            _ = held.look().await;
            continue;
        }
        let _turn = held.turn.lock().await;
        match held.look_now(true).await {
            Ok(()) | Err(PublishError::ClaimLost { .. }) => {}
            Err(error) => warn!(%error, "cannot renew the claim on the destination"),
        }
    }
}

/// Renews a sign where it is still the one that lies there; whether it is.
async fn renew_sign(destination: &Store, sign: &Sign) -> Result<bool, StoreError> {
    let Some(etag) = sign.find_own(destination).await? else { return Ok(false) };
    let renewed = Sign { renewed: Utc::now(), ..sign.clone() };
    match renewed.write(destination, etag.map_or(Condition::Always, Condition::Is)).await {
        // A try whose answer was lost may have written it.
        Err(StoreError::Overtaken { .. }) => Ok(sign.find_own(destination).await?.is_some()),
        written => written.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(store: &Store) -> Result<Claim, PublishError> {
        Claim::take(store, &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn a_destination_has_one_publisher_and_the_dead_are_replaced() {
        let store = Store::memory();
        let claim = take(&store).await.unwrap();
        assert!(matches!(take(&store).await, Err(PublishError::Busy { .. })));
        claim.release(Ok(())).await.unwrap();
        let far = Sign { host: "elsewhere".to_owned(), machine: None, ..Sign::own() };
        far.write(&store, Condition::Always).await.unwrap();
        let error = take(&store).await.err().unwrap().to_string();
        assert!(error.contains("elsewhere") && error.contains("10 min"), "{error}");
        let dead = Sign { renewed: Utc::now() - chrono::TimeDelta::hours(1), ..far };
        dead.write(&store, Condition::Always).await.unwrap();
        assert!(Sign::find(&store).await.unwrap().is_none());
        take(&store).await.unwrap();
    }

    #[tokio::test]
    async fn a_container_of_the_same_name_is_another_machine() {
        let store = Store::memory();
        let before = Sign { machine: Some("another".to_owned()), ..Sign::own() };
        before.write(&store, Condition::Always).await.unwrap();
        let taken = take(&store).await;
        assert!(matches!(taken, Err(PublishError::Busy { .. })));
        let dead = Sign { renewed: Utc::now() - chrono::TimeDelta::minutes(20), ..before };
        dead.write(&store, Condition::Always).await.unwrap();
        take(&store).await.unwrap();
    }

    fn entry(key: &str) -> Entry {
        Entry::of(key, b"x", 16 << 20)
    }

    /// A claim whose sign was last looked at so many seconds ago, by the clock.
    async fn claimed(store: &Store, seconds: i64) -> (Claim, CancellationToken) {
        let sign = Sign::own();
        sign.write(store, Condition::Always).await.unwrap();
        let then = Moment(Utc::now() - chrono::TimeDelta::seconds(seconds), Instant::now());
        let stop = CancellationToken::new();
        let held = Held::new(store.clone(), sign, then, stop.clone());
        let renewing = begin(std::future::pending());
        (Claim { held, renewing, is_disputed: false }, stop)
    }

    #[tokio::test]
    async fn a_claim_is_renewed_and_what_was_changed_while_it_was_held_is_not_in_doubt() {
        let store = Store::memory();
        let (claim, _) = claimed(&store, 0).await;
        let (first, before) = (claim.held.change(&entry("a")).await.unwrap(), Utc::now());
        drop(first);
        let under_way = claim.held.change(&entry("b")).await.unwrap();
        assert_eq!(claim.held.doubtful(), [entry("a"), entry("b")]);
        claim.held.look_now(true).await.unwrap();
        let (found, _) = Sign::load(&store).await.unwrap().unwrap();
        assert!(found.is_some_and(|found| found.renewed >= before));
        assert_eq!(claim.held.doubtful(), [entry("b")]);
        drop(under_way);
        claim.release(Ok(())).await.unwrap();
        assert!(Sign::load(&store).await.unwrap().is_none());
        assert!(Doubt::load(&store).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_lost_claim_changes_nothing_more_and_what_was_changed_is_marked() {
        let other = Sign { process: 1, host: "elsewhere".to_owned(), ..Sign::own() };
        for other in [Some(other), None] {
            let store = Store::memory();
            let (claim, stop) = claimed(&store, 0).await;
            drop(claim.held.change(&entry("a")).await.unwrap());
            let _under_way = claim.held.change(&entry("b")).await.unwrap();
            match &other {
                Some(other) => other.write(&store, Condition::Always).await.unwrap(),
                None => store.delete(&Sign::key()).await.unwrap(),
            }
            // Seen a moment ago.
            drop(claim.held.change(&entry("c")).await.unwrap());
            let lost = claim.held.confirm().await;
            assert!(matches!(lost, Err(PublishError::ClaimLost { .. })) && stop.is_cancelled());
            assert!(claim.held.change(&entry("d")).await.is_err());
            let ended = claim.release(Err(crate::pipeline::Stopped.into())).await;
            assert!(matches!(ended, Err(PublishError::ClaimLost { doubtful: 3, .. })), "{ended:?}");
            let doubt = Doubt::load(&store).await.unwrap();
            assert_eq!(doubt.objects, ["a", "b", "c"].map(entry));
            let found = Sign::load(&store).await.unwrap().and_then(|(found, _)| found);
            assert_eq!(found, other);
        }
    }

    #[tokio::test]
    async fn after_a_pause_the_sign_is_looked_at_before_anything_is_changed() {
        let store = Store::memory();
        let (claim, stop) = claimed(&store, 8).await;
        store.delete(&Sign::key()).await.unwrap();
        let change = claim.held.change(&entry("a")).await;
        assert!(matches!(change, Err(PublishError::ClaimLost { .. })) && stop.is_cancelled());
        drop(change);
        // It was complete before: nothing is in doubt.
        claim.release(Ok(())).await.unwrap();
        assert!(Doubt::load(&store).await.unwrap().is_none());
    }
}
