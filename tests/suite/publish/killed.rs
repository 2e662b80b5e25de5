//! Killed at any moment, a publish goes on where it was.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::support::case::assert_same;
use super::{on_each, seed};

const KILLS: usize = 20;
/// Requests at a time.
const REQUESTS: usize = 8;
const OBJECTS: usize = 400;

#[test]
fn twenty_kills_leave_what_an_undisturbed_publish_leaves() {
    on_each(|bench| {
        let mut random = StdRng::seed_from_u64(seed());
        bench.write_many(OBJECTS, 20_000);
        bench.write_large("site/large.nc", 12 << 20);
        let expected = bench.expected();
        // Hashing once takes the time of it from the runs.
        bench.publish("--dry-run").assert().success();
        let mut interrupted = 0;
        for _ in 0..KILLS {
            let words = format!("--concurrency {REQUESTS} --bwlimit 8M");
            let mut child = bench.publishing(&words).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(20..500)));
            let _ = child.kill();
            child.wait().unwrap();
            let there = bench.published();
            for (name, bytes) in &there {
                assert!(expected.get(name) == Some(bytes), "{name} is not what it should be");
            }
            interrupted += usize::from(there.len() < expected.len());
        }
        assert!(interrupted > KILLS / 4, "{interrupted} kills came in time");
        bench.publish("").assert().success();
        assert_same(&expected, &bench.published());
        if bench.server.is_minio() {
            assert_eq!(bench.server.unfinished("site/large.nc"), [""; 0]);
        }
        let requests = bench.server.requests();
        let sent = requests.iter().filter(|r| r.starts_with("PUT") && r.contains("/many/")).count();
        // Those in flight at a kill, and those whose arrival was just about to be written down.
        let again = sent - OBJECTS;
        assert!(again <= interrupted * 2 * REQUESTS, "{again} objects were sent again");
    });
}
