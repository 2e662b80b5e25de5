//! Limits on the requests in flight and on the bytes sent per second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// First and largest limit of requests in flight with [`Concurrency::Auto`].
const FIRST_LIMIT: f64 = 16.0;
const MAX_LIMIT: f64 = 256.0;
/// Shortest time between two halvings of the limit. A busy server refuses many requests at the same
/// time; they halve the limit once.
const HALVING_INTERVAL: Duration = Duration::from_secs(1);

/// The number of requests that may be in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Adapts to the server: one more request after each round without a failure, half as many
    /// after a failure (additive increase, multiplicative decrease).
    #[default]
    Auto,
    /// A constant number, at least 1.
    Fixed(usize),
}

/// A limiter that all requests of a publish to its destination share.
#[derive(Clone)]
pub struct RequestLimiter(Arc<LimiterShared>);

struct LimiterShared {
    state: Mutex<LimiterState>,
    changed: Notify,
    /// Bytes per second. `None`: unlimited.
    rate: Option<u64>,
}

struct LimiterState {
    /// Requests that may be in flight; a fraction counts towards the next whole request.
    limit: f64,
    adapts: bool,
    in_flight: usize,
    last_halved: Option<Instant>,
    /// Total of failed requests that the limit already reflects.
    failures: u64,
    /// Time at which the bytes permitted so far are sent, at the given rate.
    free_at: Instant,
}

/// Permission for one request, given back when it is dropped.
pub struct Permit(RequestLimiter);

impl RequestLimiter {
    /// A limiter for `concurrency` requests and, if given, `rate` bytes per second.
    pub fn new(concurrency: Concurrency, rate: Option<u64>) -> Self {
        let (limit, adapts) = match concurrency {
            Concurrency::Auto => (FIRST_LIMIT, true),
            Concurrency::Fixed(number) => (number.max(1) as f64, false),
        };
        let state = LimiterState {
            limit,
            adapts,
            in_flight: 0,
            last_halved: None,
            failures: 0,
            free_at: Instant::now(),
        };
        Self(Arc::new(LimiterShared { state: Mutex::new(state), changed: Notify::new(), rate }))
    }

    fn state(&self) -> MutexGuard<'_, LimiterState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of requests that may be in flight now.
    pub fn limit(&self) -> usize {
        self.state().limit as usize
    }

    /// Waits until a request of `bytes` may be sent.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut state = self.state();
                if state.in_flight < state.limit as usize {
                    state.in_flight += 1;
                    break;
                }
            }
            changed.await;
        }
        let permit = Permit(self.clone());
        if let Some(rate) = self.0.rate {
            let time = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            let free_at = {
                let mut state = self.state();
                state.free_at = state.free_at.max(Instant::now()) + time;
                state.free_at
            };
            // The wait is before the request, so that the rate is never exceeded.
            tokio::time::sleep_until(free_at.into()).await;
        }
        permit
    }

    /// Adapts the limit after a request. `failures` is the total of failed requests so far; if it
    /// has grown, the server was too busy or could not be reached.
    pub fn record_result(&self, failures: u64) {
        let before = std::mem::replace(&mut self.state().failures, failures);
        match failures > before {
            true => self.decrease(),
            false => self.increase(),
        }
    }

    fn increase(&self) {
        let mut state = self.state();
        if state.adapts {
            state.limit = (state.limit + 1.0 / state.limit).min(MAX_LIMIT);
        }
    }

    fn decrease(&self) {
        let mut state = self.state();
        let is_due = state.last_halved.is_none_or(|at| at.elapsed() > HALVING_INTERVAL);
        if state.adapts && is_due {
            state.last_halved = Some(Instant::now());
            state.limit = (state.limit / 2.0).max(1.0);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.state().in_flight -= 1;
        self.0.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_grows_by_one_a_round_and_is_halved_once() {
        let limiter = RequestLimiter::new(Concurrency::Auto, None);
        for _ in 0..17 {
            limiter.increase();
        }
        assert_eq!(limiter.limit(), 17);
        limiter.decrease();
        limiter.decrease();
        assert_eq!(limiter.limit(), 8);
        let fixed = RequestLimiter::new(Concurrency::Fixed(2), None);
        fixed.decrease();
        fixed.increase();
        assert_eq!(fixed.limit(), 2);
    }

    #[tokio::test]
    async fn a_request_above_the_limit_waits() {
        let limiter = RequestLimiter::new(Concurrency::Fixed(1), None);
        let first = limiter.acquire(0).await;
        let second = tokio::spawn({
            let limiter = limiter.clone();
            async move { drop(limiter.acquire(0).await) }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn bytes_wait_until_the_rate_allows_them() {
        let start = Instant::now();
        let limiter = RequestLimiter::new(Concurrency::Fixed(4), Some(1000));
        for _ in 0..2 {
            drop(limiter.acquire(100).await);
        }
        assert!(start.elapsed() >= Duration::from_millis(200));
    }
}
