//! How many requests are under way, and how many bytes go out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Requests under way at the start, and at most, when their number is found out.
const START: f64 = 16.0;
const MOST: f64 = 256.0;
/// A server that is too busy answers many requests so at once: they count as one.
const ONE_ANSWER: Duration = Duration::from_secs(1);

/// How many requests may be under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Found out: one more for every round that goes well, half as many when the server is busy.
    #[default]
    Auto,
    /// So many.
    Fixed(usize),
}

/// The one gate that all requests to a destination pass.
#[derive(Clone)]
pub struct RequestLimiter(Arc<LimiterShared>);

struct LimiterShared {
    state: Mutex<LimiterState>,
    changed: Notify,
    rate: Option<u64>,
}

struct LimiterState {
    limit: f64,
    adapts: bool,
    under_way: usize,
    halved: Option<Instant>,
    /// Failures that have been taken account of.
    failures: u64,
    /// When the bytes that were let through will be out, at the given rate.
    free_at: Instant,
}

/// Leave for one request.
pub struct Permit(RequestLimiter);

impl RequestLimiter {
    /// A gate for so many requests and, if given, bytes per second.
    pub fn new(concurrency: Concurrency, rate: Option<u64>) -> Self {
        let (limit, adapts) = match concurrency {
            Concurrency::Auto => (START, true),
            Concurrency::Fixed(number) => (number.max(1) as f64, false),
        };
        let state = LimiterState {
            limit,
            adapts,
            under_way: 0,
            halved: None,
            failures: 0,
            free_at: Instant::now(),
        };
        Self(Arc::new(LimiterShared { state: Mutex::new(state), changed: Notify::new(), rate }))
    }

    fn state(&self) -> MutexGuard<'_, LimiterState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that may be under way now.
    pub fn limit(&self) -> usize {
        self.state().limit as usize
    }

    /// Waits until a request of `bytes` may be sent.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut state = self.state();
                if state.under_way < state.limit as usize {
                    state.under_way += 1;
                    break;
                }
            }
            changed.await;
        }
        let leave = Permit(self.clone());
        if let Some(rate) = self.0.rate {
            let time = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            let free_at = {
                let mut state = self.state();
                state.free_at = state.free_at.max(Instant::now()) + time;
                state.free_at
            };
            // Before they go out: then no more have than may, at any moment.
            tokio::time::sleep_until(free_at.into()).await;
        }
        leave
    }

    /// After a request: so many have failed so far, of this one and all others.
    pub fn record_result(&self, failures: u64) {
        let before = std::mem::replace(&mut self.state().failures, failures);
        match failures > before {
            true => self.was_refused(),
            false => self.went_well(),
        }
    }

    fn went_well(&self) {
        let mut state = self.state();
        if state.adapts {
            state.limit = (state.limit + 1.0 / state.limit).min(MOST);
        }
    }

    /// The server was too busy, or could not be reached.
    fn was_refused(&self) {
        let mut state = self.state();
        if state.adapts && state.halved.is_none_or(|at| at.elapsed() > ONE_ANSWER) {
            state.halved = Some(Instant::now());
            state.limit = (state.limit / 2.0).max(1.0);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
        self.0.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_grow_by_one_a_round_and_are_halved_once() {
        let flow = RequestLimiter::new(Concurrency::Auto, None);
        for _ in 0..17 {
            flow.went_well();
        }
        assert_eq!(flow.limit(), 17);
        flow.was_refused();
        flow.was_refused();
        assert_eq!(flow.limit(), 8);
        let fixed = RequestLimiter::new(Concurrency::Fixed(2), None);
        fixed.was_refused();
        fixed.went_well();
        assert_eq!(fixed.limit(), 2);
    }

    #[tokio::test]
    async fn no_more_enter_than_may() {
        let flow = RequestLimiter::new(Concurrency::Fixed(1), None);
        let first = flow.acquire(0).await;
        let second = tokio::spawn({
            let flow = flow.clone();
            async move { drop(flow.acquire(0).await) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn bytes_wait_until_the_rate_allows_them_and_those_before_them() {
        let begun = Instant::now();
        let flow = RequestLimiter::new(Concurrency::Fixed(4), Some(1000));
        for _ in 0..2 {
            drop(flow.acquire(100).await);
        }
        assert!(begun.elapsed() >= Duration::from_millis(200));
    }
}
