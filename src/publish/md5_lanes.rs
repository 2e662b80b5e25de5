//! Where threads that take digests meet, so that those of several objects are taken together.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::md5_pair::{LANES, Md5Pair};

/// How long is waited for others, who read the next bytes of their objects meanwhile: less than
/// what is gained by taking theirs along.
const PATIENCE: Duration = Duration::from_micros(500);

/// Where threads meet.
#[derive(Default)]
pub(super) struct Md5Lanes {
    state: Mutex<State>,
    /// Told when somebody comes, and when steps have been taken.
    comes: Condvar,
    taken: Condvar,
}

#[derive(Default)]
struct State {
    /// Objects under way: their threads are here, or will be soon.
    objects: usize,
    /// Digests with the bytes to take in, by the number of their ticket.
    waiting: Vec<(u64, (Md5Pair, Vec<u8>))>,
    done: HashMap<u64, (Md5Pair, Vec<u8>)>,
    tickets: u64,
    /// Whether one of the threads works for others.
    is_led: bool,
}

/// The digests of an object whose bytes come one piece after another.
pub(super) struct Lane {
    lanes: Arc<Md5Lanes>,
    /// The digests so far.
    pub md5: Md5Pair,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.state().objects -= 1;
    }
}

impl Md5Lanes {
    /// Goes on with the digests of an object.
    pub fn lane(self: &Arc<Self>, md5: Md5Pair) -> Lane {
        self.state().objects += 1;
        Lane { lanes: self.clone(), md5 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, md5: Md5Pair, data: Vec<u8>) -> (Md5Pair, Vec<u8>) {
        let mut state = self.state();
        let ticket = state.tickets;
        state.tickets += 1;
        state.waiting.push((ticket, (md5, data)));
        self.comes.notify_one();
        loop {
            if let Some(done) = state.done.remove(&ticket) {
                return done;
            }
            if state.is_led {
                state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_led = true;
            let some_are_late = |state: &mut State| state.waiting.len() < state.objects.min(LANES);
            let waited = self.comes.wait_timeout_while(state, PATIENCE, some_are_late);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let count = state.waiting.len().min(LANES);
            let (tickets, mut works): (Vec<_>, Vec<_>) = state.waiting.drain(..count).unzip();
            drop(state);
            Md5Pair::update_all(&mut works);
            state = self.state();
            state.is_led = false;
            state.done.extend(tickets.into_iter().zip(works));
            self.taken.notify_all();
        }
    }
}

impl Lane {
    /// The next bytes; on a thread that may wait.
    pub fn update(&mut self, data: &mut Vec<u8>) {
        let (md5, given) = (std::mem::take(&mut self.md5), std::mem::take(data));
        (self.md5, *data) = self.lanes.update(md5, given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Digest;

    #[test]
    fn threads_that_meet_get_their_own_digests() {
        let lanes = Arc::<Md5Lanes>::default();
        std::thread::scope(|threads| {
            for n in 1..8_u8 {
                let lanes = lanes.clone();
                threads.spawn(move || {
                    let (mut lane, mut all) = (lanes.lane(Md5Pair::default()), Vec::new());
                    for piece in 0..50 * u16::from(n) {
                        let mut data = vec![n; usize::from(piece) % 300];
                        all.extend_from_slice(&data);
                        lane.update(&mut data);
                    }
                    assert_eq!(lane.md5.whole(), Digest::of(&all));
                });
            }
        });
        assert_eq!(lanes.state().objects, 0);
    }
}
