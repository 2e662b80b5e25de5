//! One publisher at a time: whoever holds the lease on a destination, and renews it.
//!
//! A publisher takes the lease with a conditional PUT and reads it back: the token tells who has won, even
//! if an answer was lost or the server ignores conditions. A lease is free when it was released or its
//! process is known to be dead, and never while its process is known to run. Where that cannot be known
//! (another machine or container), it is free ten minutes after its last renewal.
//!
//! The holder checks the lease at most [`LOOK`] before each change, and stops when it is another's. S3 has
//! no fencing tokens: a request in flight when the lease is lost may still take effect. A publisher that has
//! lost its lease therefore increments `dirty` in the current one, and one that finds `dirty` raised lists
//! the destination.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::PublishError;
use super::lease::{EXPIRES, Lease, load};
use crate::executor::begin;
use crate::store::{PutMode, Store, StoreError};

/// Time between two renewals.
const RENEWED: Duration = Duration::from_secs(60);
/// Age of the last check of the lease, at most, before a change.
const LOOK: Duration = Duration::from_secs(5);
/// Wait after a takeover: longer than [`LOOK`], so that a previous holder that still runs has checked the lease,
/// and stopped.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(15);
/// Time to release the lease, at most.
const RELEASE: Duration = Duration::from_secs(10);
/// Attempts to write a lease that another process writes too.
const TRIES: usize = 5;

/// A time on two clocks: the wall clock, which counts while a machine sleeps, and the monotonic one, which nobody
/// can set. What has elapsed is the larger of the two.
#[derive(Clone, Copy)]
struct DualClock(DateTime<Utc>, Instant);

impl DualClock {
    fn now() -> Self {
        Self(Utc::now(), Instant::now())
    }

    fn elapsed(&self) -> Duration {
        let by_clock = Utc::now().signed_duration_since(self.0).abs().to_std();
        by_clock.unwrap_or_default().max(self.1.elapsed())
    }
}

/// How the work under a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// Nothing was written, and neither an intent nor an expired lease was found.
    Untouched,
    /// A publish, this one or an earlier one, may not be complete.
    Unfinished,
    /// The publish is complete, and objects that were in doubt before were checked.
    Complete,
}

/// A lease that this process has taken; given up by [`LeaseGuard::release`].
pub struct LeaseGuard {
    shared: Arc<ActiveLease>,
    renewing: AbortOnDropHandle<()>,
    /// Whether a previous holder may still run: its lease had expired, or there was none.
    pub may_have_other_holder: bool,
    /// Whether the previous lease had expired.
    pub has_expired: bool,
    /// How often it was called dirty before.
    pub dirty: u32,
}

/// A lease, for those who work under it.
pub struct ActiveLease {
    destination: Store,
    own: Lease,
    /// Cancelled when the lease is lost.
    stop: CancellationToken,
    state: Mutex<LeaseState>,
    /// One looks at a time; the others wait for what it finds.
    turn: tokio::sync::Mutex<()>,
}

struct LeaseState {
    /// When the lease was last looked at, and renewed.
    looked: DualClock,
    renewed: DualClock,
    /// Whether somebody else has it, or may have.
    is_lost: bool,
    /// Whether an object may have been changed since the last [`ActiveLease::confirm`].
    has_changed: bool,
    dirty: u32,
}

impl LeaseGuard {
    /// Takes the lease on a destination; [`PublishError::Busy`] when a publisher that lives has it.
    /// When it is lost later, `stop` is cancelled. `then` begins once the lease is written, while it is read
    /// back: its result is that of a request under the lease.
    pub async fn take<F: Future>(
        destination: &Store,
        stop: &CancellationToken,
        then: impl Fn() -> F,
    ) -> Result<(Self, F::Output), PublishError> {
        let url = || destination.location().to_string();
        let busy =
            |who: String| PublishError::Busy { url: url(), who, minutes: EXPIRES.as_secs() / 60 };
        let mut found = load(destination).await?;
        // Who had it may give it up just now: then it is tried once more.
        for is_last in [false, true] {
            let (before, condition) = match &found {
                None => (None, PutMode::Absent),
                Some((Some(lease), _)) if lease.is_held() => return Err(busy(lease.to_string())),
                Some((lease, condition)) => (lease.clone(), condition.clone()),
            };
            let own = Lease::new(before.as_ref().map_or(0, |lease| lease.dirty));
            let now = DualClock::now();
            let written = own.write(destination, condition).await;
            if let Err(error) = written
                && !matches!(error, StoreError::PreconditionFailed { .. })
            {
                return Err(error.into());
            }
            // A try whose answer was lost may have written it, and not every server knows conditions: of
            // two that wrote, the later one has it.
            let (read_back, result) = tokio::join!(load(destination), then());
            found = read_back?;
            match &found {
                Some((Some(lease), _)) if lease.token == own.token => {
                    let may_have_other_holder = !before.as_ref().is_some_and(Lease::is_over);
                    let has_expired = may_have_other_holder && before.is_some();
                    let taken = Self::new(destination.clone(), own, now, stop.clone());
                    return Ok((Self { may_have_other_holder, has_expired, ..taken }, result));
                }
                Some((lease, _)) if is_last => {
                    let who = lease.as_ref().map_or("somebody".to_owned(), Lease::to_string);
                    return Err(busy(who));
                }
                None if is_last => {
                    let url = destination.location().join(&Lease::key()).to_string();
                    let request = "a write on the condition that there is nothing".to_owned();
                    let detail = "there is nothing".to_owned();
                    return Err(StoreError::Refused { url, request, status: 412, detail }.into());
                }
                _ => {}
            }
        }
        Err(busy("somebody".to_owned()))
    }

    fn new(destination: Store, own: Lease, since: DualClock, stop: CancellationToken) -> Self {
        let dirty = own.dirty;
        let state =
            LeaseState { looked: since, renewed: since, is_lost: false, has_changed: false, dirty };
        let (state, turn) = (Mutex::new(state), tokio::sync::Mutex::default());
        let shared = Arc::new(ActiveLease { destination, own, stop, state, turn });
        let renewing = begin(renew(shared.clone()));
        Self { renewing, shared, may_have_other_holder: false, has_expired: false, dirty }
    }

    /// The lease, for those who work under it.
    pub fn shared(&self) -> &Arc<ActiveLease> {
        &self.shared
    }

    /// Whether another publisher, which had lost it, may have changed objects since it was taken.
    pub fn was_marked_dirty(&self) -> bool {
        self.shared.state().dirty != self.dirty
    }

    /// Releases the lease, and gives back the result of what was done under it. The object is removed when the
    /// publish is complete and nobody has marked it dirty meanwhile; else it stays, marked as released. When the
    /// lease was lost after changes, the current one is marked dirty.
    pub async fn release<T>(
        self,
        done: Result<T, PublishError>,
        end: LeaseEnd,
    ) -> Result<T, PublishError> {
        let Self { shared, renewing, dirty, .. } = self;
        drop(renewing);
        if !shared.is_lost() {
            let settled = if end == LeaseEnd::Complete { dirty } else { 0 };
            let settled = (end != LeaseEnd::Unfinished).then_some(settled);
            let given_up = tokio::time::timeout(RELEASE, shared.give_up(settled)).await;
            if let (Ok(_), Ok(Err(error))) = (&done, given_up)
                && !shared.is_lost()
            {
                return Err(error);
            }
        }
        if !shared.is_lost() || done.is_ok() && !shared.state().has_changed {
            return done;
        }
        Err(shared.mark_dirty().await)
    }
}

impl ActiveLease {
    fn state(&self) -> MutexGuard<'_, LeaseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lease is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.state().is_lost
    }

    /// To be called before each change of an object.
    ///
    /// # Errors
    /// [`PublishError::LeaseLost`]. While a server does not answer, the lease counts as held until nine minutes
    /// after its last renewal.
    pub async fn allow(&self) -> Result<(), PublishError> {
        self.look().await?;
        self.state().has_changed = true;
        Ok(())
    }

    async fn look(&self) -> Result<(), PublishError> {
        let is_due = || self.state().looked.elapsed() >= LOOK;
        if is_due() {
            let _turn = self.turn.lock().await;
            if is_due()
                && let Err(error) = self.check_now(false).await
                && self.is_lost()
            {
                return Err(error);
            }
        }
        match self.is_lost() {
            true => Err(self.lost(true)),
            false => Ok(()),
        }
    }

    /// Checks the lease at the destination. To be called only while no change is in flight, for it takes all
    /// changes so far for checked.
    ///
    /// # Errors
    /// [`PublishError::LeaseLost`], and those of a server that does not answer.
    pub async fn confirm(&self) -> Result<(), PublishError> {
        let _turn = self.turn.lock().await;
        self.check_now(false).await?;
        self.state().has_changed = false;
        Ok(())
    }

    async fn check_now(&self, renews: bool) -> Result<(), PublishError> {
        if self.is_lost() {
            return Err(self.lost(true));
        }
        let begun = DualClock::now();
        let found = self.find_own(renews).await;
        let is_lost = {
            let mut state = self.state();
            state.looked = begun;
            match &found {
                Ok(Some(lease)) => {
                    state.dirty = lease.dirty;
                    state.renewed = if renews { begun } else { state.renewed };
                }
                Ok(None) => state.is_lost = true,
                // Unreachable for so long that another may soon take it over.
                Err(_) => state.is_lost = state.renewed.elapsed() >= EXPIRES - RENEWED,
            }
            state.is_lost
        };
        if is_lost {
            warn!("the lease on {} is lost: stopping", self.destination.location());
            self.stop.cancel();
            return Err(self.lost(true));
        }
        Ok(found.map(drop)?)
    }

    /// The lease as it lies there, if it is still this one; renewed, where that is asked for.
    async fn find_own(&self, renews: bool) -> Result<Option<Lease>, StoreError> {
        let is_own = |lease: &Lease| lease.token == self.own.token && !lease.released;
        let Some((Some(lease), condition)) = load(&self.destination).await? else {
            return Ok(None);
        };
        if !is_own(&lease) || !renews {
            return Ok(Some(lease).filter(is_own));
        }
        let renewed = Lease { renewed: Utc::now(), ..lease };
        match renewed.write(&self.destination, condition).await {
            // A try whose answer was lost may have written it, or somebody has called it dirty.
            Err(StoreError::PreconditionFailed { .. }) => {
                Ok(Lease::load(&self.destination).await?.filter(is_own))
            }
            written => written.map(|()| Some(renewed)),
        }
    }

    fn lost(&self, is_marked: bool) -> PublishError {
        let url = self.destination.location().to_string();
        PublishError::LeaseLost { url, is_marked }
    }

    /// Removes the lease, if it is no dirtier than is `settled`; else says in it that nobody has it.
    async fn give_up(&self, settled: Option<u32>) -> Result<(), PublishError> {
        for _ in 0..TRIES {
            let found = load(&self.destination).await?;
            let own = found.and_then(|(lease, condition)| Some((lease?, condition)));
            let Some((lease, condition)) = own.filter(|(l, _)| l.token == self.own.token) else {
                self.state().is_lost = true;
                return Err(self.lost(true));
            };
            if settled == Some(lease.dirty) {
                self.destination.delete(&Lease::key()).await?;
                return Ok(self.destination.remove_empty_parents(&Lease::key()).await?);
            }
            let released = Lease { released: true, ..lease };
            match released.write(&self.destination, condition).await {
                Err(StoreError::PreconditionFailed { .. }) => {}
                written => return Ok(written?),
            }
        }
        Ok(())
    }

    /// Raises `dirty` in the lease at the destination, whoever holds it, if this publisher may have changed objects
    /// since it last confirmed its own; the error to report.
    async fn mark_dirty(&self) -> PublishError {
        if !self.state().has_changed {
            return self.lost(true);
        }
        for _ in 0..TRIES {
            let dirty = async {
                let (lease, condition) = match load(&self.destination).await? {
                    Some((Some(lease), condition)) => (lease, condition),
                    Some((None, condition)) => {
                        (Lease { released: true, ..Lease::new(0) }, condition)
                    }
                    None => (Lease { released: true, ..Lease::new(0) }, PutMode::Absent),
                };
                let dirty = lease.dirty.saturating_add(1);
                Lease { dirty, ..lease }.write(&self.destination, condition).await
            };
            match dirty.await {
                Ok(()) => return self.lost(true),
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(error) => {
                    warn!(%error, "cannot tell the next publisher");
                    break;
                }
            }
        }
        self.lost(false)
    }
}

/// Renews the lease, and looks whether it is held.
async fn renew(shared: Arc<ActiveLease>) {
    while !shared.is_lost() {
        tokio::time::sleep(LOOK).await;
        if shared.state().renewed.elapsed() < RENEWED {
            // Who changes something looks by itself.
            _ = shared.look().await;
            continue;
        }
        let _turn = shared.turn.lock().await;
        match shared.check_now(true).await {
            Ok(()) | Err(PublishError::LeaseLost { .. }) => {}
            Err(error) => warn!(%error, "cannot renew the lease on the destination"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Process;

    async fn take(store: &Store) -> Result<LeaseGuard, PublishError> {
        Ok(LeaseGuard::take(store, &CancellationToken::new(), || async {}).await?.0)
    }

    /// A lease that was last looked at so many seconds ago, by the clock.
    async fn taken(store: &Store, seconds: i64) -> (LeaseGuard, CancellationToken) {
        let (own, stop) = (Lease::new(0), CancellationToken::new());
        own.write(store, PutMode::Always).await.unwrap();
        let then = DualClock(Utc::now() - chrono::TimeDelta::seconds(seconds), Instant::now());
        (LeaseGuard::new(store.clone(), own, then, stop.clone()), stop)
    }

    fn of_elsewhere() -> Lease {
        let elsewhere = Process { host: "elsewhere".into(), machine: None, ..Process::own() };
        Lease { owner: elsewhere, ..Lease::new(0) }
    }

    #[tokio::test]
    async fn a_destination_has_one_publisher_and_the_dead_are_replaced() {
        let store = Store::memory();
        let held = take(&store).await.unwrap();
        assert!(matches!(take(&store).await, Err(PublishError::Busy { .. })));
        held.release(Ok(()), LeaseEnd::Complete).await.unwrap();
        assert!(Lease::load(&store).await.unwrap().is_none());
        of_elsewhere().write(&store, PutMode::Always).await.unwrap();
        let error = take(&store).await.err().unwrap().to_string();
        assert!(error.contains("elsewhere") && error.contains("10 min"), "{error}");
        let expired = Lease { renewed: Utc::now() - chrono::TimeDelta::hours(1), ..of_elsewhere() };
        expired.write(&store, PutMode::Always).await.unwrap();
        let held = take(&store).await.unwrap();
        assert!(held.may_have_other_holder);
        // Of a publish that has not ended it stays, and nobody has it.
        assert!(
            held.release(Err::<(), _>(crate::executor::Stopped.into()), LeaseEnd::Unfinished)
                .await
                .is_err()
        );
        assert!(!Lease::load(&store).await.unwrap().unwrap().is_held());
        assert!(!take(&store).await.unwrap().may_have_other_holder);
    }

    #[tokio::test]
    async fn who_has_lost_a_lease_changes_nothing_and_says_so_to_whoever_has_it() {
        let store = Store::memory();
        let (held, stop) = taken(&store, 0).await;
        held.shared().allow().await.unwrap();
        let other = of_elsewhere();
        other.write(&store, PutMode::Always).await.unwrap();
        // Not looked at for a moment.
        held.shared().allow().await.unwrap();
        assert!(held.shared().confirm().await.is_err() && stop.is_cancelled());
        assert!(held.shared().allow().await.is_err());
        let error = held.release(Ok(()), LeaseEnd::Complete).await.unwrap_err();
        assert!(matches!(error, PublishError::LeaseLost { is_marked: true, .. }), "{error}");
        let found = Lease::load(&store).await.unwrap().unwrap();
        assert_eq!(found, Lease { dirty: 1, ..other });
    }

    #[tokio::test]
    async fn a_machine_that_slept_looks_first_and_a_renewal_keeps_what_others_say() {
        let store = Store::memory();
        let (held, _) = taken(&store, 61).await;
        store.delete(&Lease::key()).await.unwrap();
        assert!(held.shared().allow().await.is_err());
        let (held, _) = taken(&store, 61).await;
        let lies_there = async || Lease::load(&store).await.unwrap().unwrap();
        let dirty = Lease { dirty: 1, ..lies_there().await };
        dirty.write(&store, PutMode::Always).await.unwrap();
        held.shared().check_now(true).await.unwrap();
        let renewed = lies_there().await;
        assert!(renewed.dirty == 1 && renewed.renewed > dirty.renewed && held.was_marked_dirty());
        held.release(Ok(()), LeaseEnd::Complete).await.unwrap();
        let left = lies_there().await;
        assert!(left.is_dirty() && !left.is_held());
    }
}
