//! Killed at any moment, a publish goes on where it was.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::support::case::assert_same;
use super::super::support::minio::Minio;
use super::super::support::proxy::{Fault, Proxy};
use super::super::support::s3::S3Server;
use super::{on_each, seed};

const KILLS: usize = 20;
/// Requests at a time.
const REQUESTS: usize = 8;
const OBJECTS: usize = 400;

#[test]
fn a_stop_does_not_wait_for_a_server_that_is_gone() {
    let bench = super::Bench::new(super::Server::Embedded(S3Server::start()));
    for never_there in [true, false] {
        let mut command = bench.publishing("--concurrency 2 --bwlimit 100k");
        bench.write_many(20, 20_000);
        if never_there {
            command.env("DOR_S3_ENDPOINT_URL", "http://127.0.0.1:1");
        }
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        if never_there {
            std::thread::sleep(Duration::from_secs(1));
        } else {
            while bench.published().is_empty() {
                assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
                std::thread::sleep(Duration::from_millis(10));
            }
            bench.server.fail_always(Fault::Answer(503, "SlowDown"));
        }
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(super::INTERRUPTED));
        assert!(began.elapsed() < Duration::from_secs(50));
    }
}

#[test]
fn without_a_journal_an_audit_ends_the_uploads_that_were_left() {
    // The embedded server cannot be asked for them.
    let Some(minio) = Minio::start() else { return };
    let proxy = Proxy::before(&minio.endpoint);
    let bench = super::Bench::new(super::Server::Minio { minio, proxy });
    bench.write_large("site/large.nc", 40 << 20);
    bench.publish("--dry-run").assert().success();
    let mut child = bench.publishing("--bwlimit 4M").spawn().unwrap();
    let began = Instant::now();
    while bench.server.unfinished("site/large.nc").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut elsewhere = bench.publish("--audit");
    elsewhere.env("DOR_STATE_DIR", bench.work.path("elsewhere")).assert().success();
    assert_eq!(bench.server.unfinished("site/large.nc"), [""; 0]);
    assert_same(&bench.expected(), &bench.published());
}

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
