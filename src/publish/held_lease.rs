//! Taking, checking, renewing and releasing the lease on a destination.
//!
//! A publisher takes the lease with a conditional PUT and then reads it back. The token tells which
//! publisher has it, even if a response was lost or the server ignores conditions. A lease is free
//! when it was released or when the process of its holder is dead. It is not free while that process is
//! known to run. Where the state of the process is unknown (another machine or container, or the same
//! machine after a restart), the lease is free ten minutes after its last renewal.
//!
//! A change is made only if the lease was checked in the last [`CHECK_INTERVAL`]. The holder stops when
//! another publisher has the lease. S3 has no fencing token: a request in flight when the lease is lost may still
//! take effect. A publisher that has lost its lease therefore increments `dirty` in the current
//! lease, and a publisher that finds `dirty` raised lists the destination.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::Utc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::PublishError;
use super::lease::{DualClock, EXPIRES, Lease, load};
use crate::executor::spawn_abort_on_drop;
use crate::store::{PutMode, Store, StoreError};

/// Time between two renewals.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// Largest age of the last check of the lease before a change.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Takeover grace period; any previous holder has stopped by then, because it is longer than
/// [`CHECK_INTERVAL`], and the requests of one that has ended have arrived.
pub(super) const GRACE_PERIOD: Duration = Duration::from_secs(15);
/// Longest time that releasing the lease may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to write a lease that another process writes at the same time.
const ATTEMPTS: usize = 5;

/// The holder that messages name when the lease does not tell it.
const UNKNOWN: &str = "another publisher";

/// The holder of the lease before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousHolder {
    /// There was no lease: nobody has published, the last publish was complete, or the lease was removed.
    None,
    /// It has ended: it has released the lease, or its process is dead.
    Ended,
    /// Its lease has expired. It may still run.
    Expired,
}

/// How the work under a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// This publisher has written nothing.
    NothingWritten,
    /// A publish, this one or an earlier one, may not be complete.
    Interrupted,
    /// Another publisher has changed objects during this publish: the lease is marked dirty.
    Dirty,
    /// The publish is complete. If the lease was dirty, the destination was listed.
    Complete,
}

/// A lease that this process has taken; [`HeldLease::release`] gives it back.
pub struct HeldLease {
    shared: Arc<LeaseHandle>,
    renewal: AbortOnDropHandle<()>,
    taken: DualClock,
    /// The holder before.
    pub previous: PreviousHolder,
    /// Value of `dirty` when the lease was taken.
    pub dirty: u32,
}

/// The part of a [`HeldLease`] that is shared with the tasks that change objects.
pub struct LeaseHandle {
    destination: Store,
    own: Lease,
    /// Cancelled when the lease is lost.
    stop: CancellationToken,
    state: Mutex<LeaseState>,
    /// Held during a check, so that only one task checks at a time and the others use its result.
    check_lock: tokio::sync::Mutex<()>,
}

struct LeaseState {
    checked: DualClock,
    renewed: DualClock,
    /// Whether another publisher has the lease, or may have it.
    is_lost: bool,
    /// Whether an object may have been changed since the last [`LeaseHandle::confirm`].
    has_changed: bool,
    /// Value of `dirty` at the last check.
    dirty: u32,
}

impl HeldLease {
    /// Takes the lease on a destination. `stop` is cancelled when the lease is lost later.
    ///
    /// `load_state` starts after the lease is written and runs while the lease is read back, so it
    /// reads the destination under the lease.
    ///
    /// # Errors
    /// [`PublishError::Busy`] when another publisher holds the lease; errors of the destination.
    pub async fn take<F: Future>(
        destination: &Store,
        stop: &CancellationToken,
        load_state: impl Fn() -> F,
    ) -> Result<(Self, F::Output), PublishError> {
        let url = || destination.location().to_string();
        let busy =
            |who: String| PublishError::Busy { url: url(), who, minutes: EXPIRES.as_secs() / 60 };
        let mut found = load(destination).await?;
        // The holder may release the lease between the read and the write: then try once more.
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
            // A write whose response was lost may have succeeded, and some servers ignore conditions.
            // If two publishers wrote the lease, the later one has it.
            let (read_back, result) = tokio::join!(load(destination), load_state());
            found = read_back?;
            match &found {
                Some((Some(lease), _)) if lease.token == own.token => {
                    let previous = match before {
                        None => PreviousHolder::None,
                        Some(before) if before.is_over() => PreviousHolder::Ended,
                        Some(_) => PreviousHolder::Expired,
                    };
                    let taken = Self::new(destination.clone(), own, now, stop.clone());
                    return Ok((Self { previous, ..taken }, result));
                }
                Some((lease, _)) if is_last => {
                    let who = lease.as_ref().map_or(UNKNOWN.to_owned(), Lease::to_string);
                    return Err(busy(who));
                }
                None if is_last => {
                    let url = destination.location().join(&Lease::key()).to_string();
                    let request = "PUT with If-None-Match: *".to_owned();
                    let detail = "but there is no such object".to_owned();
                    return Err(StoreError::Refused { url, request, status: 412, detail }.into());
                }
                _ => {}
            }
        }
        Err(busy(UNKNOWN.to_owned()))
    }

    fn new(destination: Store, own: Lease, since: DualClock, stop: CancellationToken) -> Self {
        let dirty = own.dirty;
        let (is_lost, has_changed) = (false, false);
        let state = LeaseState { checked: since, renewed: since, is_lost, has_changed, dirty };
        let (state, check_lock) = (Mutex::new(state), tokio::sync::Mutex::default());
        let shared = Arc::new(LeaseHandle { destination, own, stop, state, check_lock });
        let renewal = spawn_abort_on_drop(renew(shared.clone()));
        Self { renewal, shared, taken: since, previous: PreviousHolder::None, dirty }
    }

    /// The part of the lease that is shared with the tasks that change objects.
    pub fn shared(&self) -> &Arc<LeaseHandle> {
        &self.shared
    }

    /// Time since the lease was taken.
    pub fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// Whether another publisher, which had lost its lease, may have changed objects since this
    /// lease was taken.
    pub fn was_marked_dirty(&self) -> bool {
        self.shared.state().dirty != self.dirty
    }

    /// Releases the lease and returns `result`, the result of the work under it.
    ///
    /// The lease object is removed when the publish is complete and no other publisher has marked
    /// it dirty meanwhile. Otherwise it stays, marked as released. If the lease was lost after this
    /// publisher changed objects, the current lease is marked dirty.
    ///
    /// # Errors
    /// That of `result`; [`PublishError::LeaseLost`]; errors of the destination.
    pub async fn release<T>(
        self,
        result: Result<T, PublishError>,
        end: LeaseEnd,
    ) -> Result<T, PublishError> {
        let Self { shared, renewal, dirty, .. } = self;
        drop(renewal);
        if !shared.is_lost() {
            let removable_dirty = match end {
                LeaseEnd::Complete => Some(dirty),
                LeaseEnd::NothingWritten => Some(0),
                LeaseEnd::Interrupted | LeaseEnd::Dirty => None,
            };
            let reports = u32::from(end == LeaseEnd::Dirty);
            let releasing = shared.remove_or_mark_released(removable_dirty, reports);
            let released = tokio::time::timeout(RELEASE_TIMEOUT, releasing).await;
            if let (Ok(_), Ok(Err(error))) = (&result, released)
                && !shared.is_lost()
            {
                return Err(error);
            }
        }
        if !shared.is_lost() || result.is_ok() && !shared.state().has_changed {
            return result;
        }
        Err(shared.mark_dirty().await)
    }
}

impl LeaseHandle {
    fn state(&self) -> MutexGuard<'_, LeaseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lease is known to be lost.
    pub fn is_lost(&self) -> bool {
        self.state().is_lost
    }

    /// Checks the lease, if a check is due, and notes that an object may change. Call it before
    /// each change of an object.
    ///
    /// # Errors
    /// [`PublishError::LeaseLost`]. While the server does not respond, the lease counts as held until
    /// nine minutes after its last renewal.
    pub async fn ensure_held(&self) -> Result<(), PublishError> {
        self.check_if_due().await?;
        self.state().has_changed = true;
        Ok(())
    }

    async fn check_if_due(&self) -> Result<(), PublishError> {
        let is_due = || self.state().checked.elapsed() >= CHECK_INTERVAL;
        if is_due() {
            let _lock = self.check_lock.lock().await;
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

    /// Checks the lease now and confirms that all changes so far were made under it. Call it only
    /// while no change is in flight.
    ///
    /// # Errors
    /// [`PublishError::LeaseLost`], and the error of a server that does not respond.
    pub async fn confirm(&self) -> Result<(), PublishError> {
        let _lock = self.check_lock.lock().await;
        self.check_now(false).await?;
        self.state().has_changed = false;
        Ok(())
    }

    /// Checks the lease, and renews it if `renews`. The caller holds `check_lock`.
    async fn check_now(&self, renews: bool) -> Result<(), PublishError> {
        if self.is_lost() {
            return Err(self.lost(true));
        }
        let start = DualClock::now();
        let found = self.load_own(renews).await;
        let is_lost = {
            let mut state = self.state();
            state.checked = start;
            match &found {
                Ok(Some(lease)) => {
                    state.dirty = lease.dirty;
                    state.renewed = if renews { start } else { state.renewed };
                }
                Ok(None) => state.is_lost = true,
                // Stop before the lease expires and another publisher can take it over.
                Err(_) => state.is_lost = state.renewed.elapsed() >= EXPIRES - RENEWAL_INTERVAL,
            }
            state.is_lost
        };
        if is_lost {
            warn!("the lease on {} is lost; stopping", self.destination.location());
            self.stop.cancel();
            return Err(self.lost(true));
        }
        Ok(found.map(drop)?)
    }

    /// Loads the lease, and renews it if `renews`. `None`: it is not the lease of this publisher.
    async fn load_own(&self, renews: bool) -> Result<Option<Lease>, StoreError> {
        let is_own = |lease: &Lease| lease.token == self.own.token && !lease.released;
        let Some((Some(lease), condition)) = load(&self.destination).await? else {
            return Ok(None);
        };
        if !is_own(&lease) || !renews {
            return Ok(Some(lease).filter(is_own));
        }
        let renewed = Lease { renewed: Utc::now(), ..lease };
        match renewed.write(&self.destination, condition).await {
            // A write whose response was lost has succeeded, or another publisher has marked the
            // lease dirty.
            Err(StoreError::PreconditionFailed { .. }) => {
                Ok(Lease::load(&self.destination).await?.filter(is_own))
            }
            written => written.map(|()| Some(renewed)),
        }
    }

    /// The error of a lost lease. `is_marked`: possible changes are reported in the current lease.
    fn lost(&self, is_marked: bool) -> PublishError {
        let url = self.destination.location().to_string();
        PublishError::LeaseLost { url, is_marked }
    }

    /// Removes the lease object if its `dirty` is `removable_dirty`, otherwise marks it as released and
    /// adds `reports` to `dirty`.
    async fn remove_or_mark_released(
        &self,
        removable_dirty: Option<u32>,
        reports: u32,
    ) -> Result<(), PublishError> {
        for _ in 0..ATTEMPTS {
            let found = load(&self.destination).await?;
            let own = found.and_then(|(lease, condition)| Some((lease?, condition)));
            let Some((lease, condition)) = own.filter(|(l, _)| l.token == self.own.token) else {
                self.state().is_lost = true;
                return Err(self.lost(true));
            };
            if removable_dirty == Some(lease.dirty) {
                self.destination.delete(&Lease::key()).await?;
                return Ok(self.destination.remove_empty_parents(&Lease::key()).await?);
            }
            let dirty = lease.dirty.saturating_add(reports);
            let released = Lease { released: true, dirty, ..lease };
            match released.write(&self.destination, condition).await {
                Err(StoreError::PreconditionFailed { .. }) => {}
                written => return Ok(written?),
            }
        }
        Ok(())
    }

    /// Increments `dirty` in the current lease, whoever holds it, if this publisher may have changed
    /// objects since it last confirmed its own lease. Returns the error to report.
    async fn mark_dirty(&self) -> PublishError {
        if !self.state().has_changed {
            return self.lost(true);
        }
        for _ in 0..ATTEMPTS {
            let mark = async {
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
            match mark.await {
                Ok(()) => return self.lost(true),
                Err(StoreError::PreconditionFailed { .. }) => {}
                Err(error) => {
                    warn!(%error, "cannot mark the lease for the next publisher");
                    break;
                }
            }
        }
        self.lost(false)
    }
}

/// Checks and renews the lease in the background until it is lost.
async fn renew(shared: Arc<LeaseHandle>) {
    while !shared.is_lost() {
        tokio::time::sleep(CHECK_INTERVAL).await;
        if shared.state().renewed.elapsed() < RENEWAL_INTERVAL {
            // The error is not needed: a lost lease cancels `stop`, and `ensure_held` returns it.
            _ = shared.check_if_due().await;
            continue;
        }
        let _lock = shared.check_lock.lock().await;
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

    async fn take(store: &Store) -> Result<HeldLease, PublishError> {
        Ok(HeldLease::take(store, &CancellationToken::new(), || async {}).await?.0)
    }

    /// A lease that was last checked `seconds` ago by the wall clock.
    async fn taken(store: &Store, seconds: i64) -> (HeldLease, CancellationToken) {
        let (own, stop) = (Lease::new(0), CancellationToken::new());
        own.write(store, PutMode::Always).await.unwrap();
        let then =
            DualClock(Utc::now() - chrono::TimeDelta::seconds(seconds), std::time::Instant::now());
        (HeldLease::new(store.clone(), own, then, stop.clone()), stop)
    }

    /// A lease of a process on another machine.
    fn of_elsewhere() -> Lease {
        let elsewhere = Process { host: "elsewhere".into(), machine: None, ..Process::own() };
        Lease { owner: elsewhere, ..Lease::new(0) }
    }

    #[tokio::test]
    async fn a_destination_has_one_publisher_and_an_expired_lease_is_taken_over() {
        let store = Store::memory();
        let held = take(&store).await.unwrap();
        assert!(matches!(take(&store).await, Err(PublishError::Busy { .. })));
        held.release(Ok(()), LeaseEnd::Complete).await.unwrap();
        assert!(Lease::load(&store).await.unwrap().is_none());
        of_elsewhere().write(&store, PutMode::Always).await.unwrap();
        let error = take(&store).await.err().unwrap().to_string();
        assert!(error.contains("elsewhere") && error.contains("10 min"), "{error}");
        let expired = |hours| {
            let renewed = Utc::now() - chrono::TimeDelta::hours(hours);
            Lease { renewed, ..of_elsewhere() }
        };
        // A time in the future is wrong.
        expired(-1).write(&store, PutMode::Always).await.unwrap();
        assert_eq!(take(&store).await.unwrap().previous, PreviousHolder::Expired);
        expired(1).write(&store, PutMode::Always).await.unwrap();
        let held = take(&store).await.unwrap();
        assert_eq!(held.previous, PreviousHolder::Expired);
        // After an unfinished publish the lease stays, marked as released.
        assert!(
            held.release(Err::<(), _>(crate::executor::Stopped.into()), LeaseEnd::Interrupted)
                .await
                .is_err()
        );
        assert!(!Lease::load(&store).await.unwrap().unwrap().is_held());
        assert_eq!(take(&store).await.unwrap().previous, PreviousHolder::Ended);
    }

    #[tokio::test]
    async fn a_publisher_without_its_lease_changes_nothing_and_marks_the_new_lease_dirty() {
        let store = Store::memory();
        let (held, stop) = taken(&store, 0).await;
        held.shared().ensure_held().await.unwrap();
        let other = of_elsewhere();
        other.write(&store, PutMode::Always).await.unwrap();
        // The lease was checked less than `CHECK_INTERVAL` ago.
        held.shared().ensure_held().await.unwrap();
        assert!(held.shared().confirm().await.is_err() && stop.is_cancelled());
        assert!(held.shared().ensure_held().await.is_err());
        let error = held.release(Ok(()), LeaseEnd::Complete).await.unwrap_err();
        assert!(matches!(error, PublishError::LeaseLost { is_marked: true, .. }), "{error}");
        let found = Lease::load(&store).await.unwrap().unwrap();
        assert_eq!(found, Lease { dirty: 1, ..other });
    }

    #[tokio::test]
    async fn the_lease_is_checked_after_a_sleep_and_a_renewal_keeps_the_dirty_mark() {
        let store = Store::memory();
        let (held, _) = taken(&store, 61).await;
        store.delete(&Lease::key()).await.unwrap();
        assert!(held.shared().ensure_held().await.is_err());
        let (held, _) = taken(&store, 61).await;
        let current = async || Lease::load(&store).await.unwrap().unwrap();
        let dirty = Lease { dirty: 1, ..current().await };
        dirty.write(&store, PutMode::Always).await.unwrap();
        held.shared().check_now(true).await.unwrap();
        let renewed = current().await;
        assert!(renewed.dirty == 1 && renewed.renewed > dirty.renewed && held.was_marked_dirty());
        held.release(Ok(()), LeaseEnd::Complete).await.unwrap();
        let left = current().await;
        assert!(left.is_dirty() && !left.is_held());
    }
}
