//! Killed at any moment, a publish goes on where it was.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::support::case::{Tree, assert_same};
use super::super::support::dor::{dor, fails};
use super::super::support::minio::Minio;
use super::super::support::proxy::{Fault, Proxy};
use super::super::support::s3::S3Server;
use super::{Bench, CONFIGURATION, PART, on_all, seed};

const KILLS: usize = 20;
/// Requests at a time.
const REQUESTS: usize = 8;
const OBJECTS: usize = 400;

#[test]
fn a_stop_does_not_wait_for_a_server_that_is_gone() {
    let bench = Bench::new(super::Server::Embedded(S3Server::start()));
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

/// A publish that was killed while it sent `site/large.nc` in parts. On MinIO: the embedded server
/// cannot be asked for unfinished uploads.
fn killed_within_a_large_object() -> Option<Bench> {
    let minio = Minio::start()?;
    let proxy = Proxy::before(&minio.endpoint);
    let bench = Bench::new(super::Server::Minio { minio, proxy });
    bench.write_large("site/large.nc", 40 << 20);
    bench.publish("--dry-run").assert().success();
    let mut child = bench.publishing("--bwlimit 4M --concurrency 1").spawn().unwrap();
    let (began, mut sent) = (Instant::now(), 0);
    // The second has arrived before the third is sent.
    while sent < 3 {
        sent += parts_sent(&bench);
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    Some(bench)
}

/// How many parts of the large object were sent since this was asked last.
fn parts_sent(bench: &Bench) -> usize {
    let requests = bench.server.requests();
    let is_part = |asked: &&String| asked.starts_with("PUT") && asked.contains("partNumber=");
    requests.iter().filter(is_part).count()
}

#[test]
fn a_large_object_goes_on_with_the_parts_that_have_arrived() {
    for more in ["", "--audit"] {
        let Some(bench) = killed_within_a_large_object() else { return };
        parts_sent(&bench);
        let mut elsewhere = bench.publish(more);
        elsewhere.env("DOR_STATE_DIR", bench.work.path("elsewhere")).assert().success();
        let parts = (40 << 20) / PART;
        let again = parts_sent(&bench);
        assert!((1..=parts - 2).contains(&again), "{again} of {parts} parts were sent again");
        assert_eq!(bench.server.unfinished("site/large.nc"), [""; 0]);
        assert_same(&bench.expected(), &bench.published());
    }
}

#[test]
fn the_uploads_of_another_source_are_ended_too() {
    let Some(bench) = killed_within_a_large_object() else { return };
    bench.write("other/text.txt", b"text");
    let mut other = dor(bench.work.folder());
    other.envs(bench.server.variables());
    other.args(["publish", "other", &bench.destination(), "--audit"]).assert().success();
    assert_eq!(bench.server.unfinished("site/large.nc"), [""; 0]);
}

#[test]
fn twenty_kills_leave_what_an_undisturbed_publish_leaves() {
    on_all(|bench| {
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

/// Publishes until some of many objects have arrived, then kills it; gives the name of one of them.
fn interrupt(bench: &Bench) -> String {
    interrupt_as(bench, None)
}

/// The same, of another machine, which keeps what it knows in this folder.
fn interrupt_as(bench: &Bench, state: Option<&str>) -> String {
    // A listing is quick; reading it all would let the publish end meanwhile on a busy machine.
    let many = || -> BTreeMap<String, _> {
        let listed = bench.runtime.block_on(bench.store().list("many")).unwrap().into_iter();
        listed.map(|found| (found.key, (found.etag, found.modified))).collect()
    };
    let (began, before) = (Instant::now(), many());
    let mut command = bench.publishing("--concurrency 4 --bwlimit 200k");
    command.envs(state.map(|state| ("DOR_STATE_DIR", bench.work.path(state))));
    let mut child = command.spawn().unwrap();
    let arrived = loop {
        let arrived = many().into_iter().find(|(name, found)| before.get(name) != Some(found));
        if arrived.is_some() || began.elapsed() > Duration::from_secs(60) {
            break arrived;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let (name, _) = arrived.expect("something is sent");
    let there = bench.published();
    let is_waiting =
        |(name, bytes): (&String, &_)| name.starts_with("many/") && there.get(name) != Some(bytes);
    assert!(bench.expected().iter().any(is_waiting), "the kill came too late");
    name
}

/// Publishes as another machine does, which knows nothing of this one.
fn publish_elsewhere(bench: &Bench, more: &str) {
    let state = bench.work.path("elsewhere");
    bench.publish(more).env("DOR_STATE_DIR", state).assert().success();
}

fn write_all(bench: &Bench, tree: &Tree) {
    tree.iter().for_each(|(name, bytes)| bench.write(&format!("site/{name}"), bytes));
}

#[test]
fn an_interrupted_publish_is_not_believed_after_others_have_published() {
    on_all(|bench| {
        bench.write_many(100, 20_000);
        let first = bench.expected();
        interrupt(bench);
        // Other bytes of the same sizes.
        bench.write_many(100, 20_000);
        publish_elsewhere(bench, "");
        assert_same(&bench.expected(), &bench.published());
        write_all(bench, &first);
        bench.publish("").assert().success();
        assert_same(&first, &bench.published());
    });
}

#[test]
fn an_interrupted_publish_is_not_believed_after_the_destination_was_emptied() {
    let own = [".dor/manifest.next.jsonl.gz", ".dor/lease.json"];
    for removed in [&own[..], &[]] {
        on_all(|bench| {
            bench.write_many(100, 20_000);
            interrupt(bench);
            bench.published().into_keys().for_each(|key| bench.remove(&key));
            removed.iter().for_each(|key| bench.remove(key));
            bench.publish("").assert().success();
            assert_same(&bench.expected(), &bench.published());
        });
    }
}

#[test]
fn what_others_have_sent_is_known_after_a_second_interruption_too() {
    on_all(|bench| {
        bench.write_many(100, 20_000);
        let first = bench.expected();
        publish_elsewhere(bench, "");
        bench.write_many(100, 20_000);
        interrupt(bench);
        interrupt_as(bench, Some("elsewhere"));
        write_all(bench, &first);
        publish_elsewhere(bench, "");
        assert_same(&first, &bench.published());
    });
}

/// Two objects of an interrupted publish that have not arrived, and what another program puts there.
fn foreign_at_keys_of(bench: &Bench) -> Tree {
    let there = bench.published();
    let waits = |name: &String| name.starts_with("many/") && !there.contains_key(name);
    let names = bench.expected().into_keys().filter(waits).take(2);
    let foreign: Tree = names.zip([vec![b'f'; 20_000], b"foreign".to_vec()]).collect();
    assert_eq!(foreign.len(), 2, "the kill came too late");
    foreign.iter().for_each(|(name, bytes)| bench.alter(name, bytes));
    foreign
}

#[test]
fn what_another_program_puts_at_the_keys_of_an_interrupted_publish_is_kept() {
    on_all(|bench| {
        bench.write_many(100, 20_000);
        interrupt(bench);
        let foreign = foreign_at_keys_of(bench);
        let error = fails(&mut bench.publish(""), CONFIGURATION);
        for part in ["2 object(s) that no publish has sent", "many/", "--overwrite"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        for name in foreign.keys() {
            std::fs::remove_file(bench.work.path(&format!("site/{name}"))).unwrap();
        }
        bench.publish("--delete").assert().success();
        let mut expected = bench.expected();
        expected.extend(foreign);
        assert_same(&expected, &bench.published());
    });
}

#[test]
fn to_overwrite_replaces_what_another_program_has_put_there() {
    on_all(|bench| {
        bench.write_many(100, 20_000);
        interrupt(bench);
        foreign_at_keys_of(bench);
        bench.publish("--overwrite").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_publish_whose_manifest_somebody_removes_meanwhile_can_be_run_again() {
    on_all(|bench| {
        bench.publish("").assert().success();
        bench.write_many(40, 20_000);
        let mut publishing = bench.publishing("--bwlimit 400k");
        let child = publishing.stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while !bench.published().keys().any(|name| name.starts_with("many/")) {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
            std::thread::sleep(Duration::from_millis(20));
        }
        bench.remove(".dor/manifest.jsonl.gz");
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // The embedded server has no condition for an object that is gone.
        if bench.server.lists_md5() {
            assert_eq!(output.status.code(), Some(super::INTERRUPTED), "{said}");
            assert!(said.contains("run the command again"), "{said}");
        }
        bench.publish("").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_request_of_a_killed_publish_that_arrives_late_is_noticed() {
    on_all(|bench| {
        bench.write("site/late.bin", b"before");
        bench.server.fail_when(|asked| {
            let is_late = asked.method == "PUT" && asked.target.contains("late.bin");
            is_late.then_some(Fault::Late(Duration::from_secs(8)))
        });
        let mut child = bench.publishing("").spawn().unwrap();
        let (began, mut seen) = (Instant::now(), Vec::new());
        while !seen.iter().any(|asked: &String| asked.contains("late.bin")) {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
            seen = bench.server.requests();
            std::thread::sleep(Duration::from_millis(20));
        }
        // Its body has been read.
        std::thread::sleep(Duration::from_millis(500));
        child.kill().unwrap();
        child.wait().unwrap();
        bench.server.recover();
        bench.write("site/late.bin", b"after!");
        let output = bench.publish("").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("requests of an interrupted publish may still arrive"), "{said}");
        assert_eq!(output.status.code(), Some(super::INTERRUPTED), "{said}");
        assert_eq!(bench.read("late.bin").as_deref(), Some(&b"before"[..]));
        bench.publish("").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn what_was_never_published_is_not_taken_for_right_by_its_size() {
    on_all(|bench| {
        bench.write_many(100, 20_000);
        interrupt(bench);
        bench.write_many(100, 20_000);
        // So much later that the time of writing does not tell.
        std::thread::sleep(Duration::from_secs(3));
        publish_elsewhere(bench, "--include notes/**");
        interrupt(bench);
        publish_elsewhere(bench, "");
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_change_that_was_interrupted_is_undone_whoever_goes_on_and_with_whatever_part() {
    for parts in [&[""][..], &["--include notes/**", ""]] {
        on_all(|bench| {
            bench.write_many(100, 20_000);
            // Where ETags are no MD5s, of it a listing tells the size only.
            bench.write_large("site/large.nc", 12 << 20);
            let first = bench.expected();
            bench.publish("").assert().success();
            bench.write_many(100, 20_000);
            interrupt(bench);
            write_all(bench, &first);
            parts.iter().for_each(|more| publish_elsewhere(bench, more));
            assert_same(&first, &bench.published());
            // Nothing is left to be done by anybody.
            bench.server.requests();
            publish_elsewhere(bench, "");
            bench.publish("").assert().success();
            assert!(!bench.has_changed_something());
        });
    }
}

#[test]
fn what_an_interrupted_run_has_sent_is_deleted_when_it_is_gone() {
    for between in [false, true] {
        on_all(|bench| {
            bench.write_many(100, 20_000);
            let arrived = interrupt(bench);
            interrupt_as(bench, Some("elsewhere"));
            std::fs::remove_file(bench.work.path(&format!("site/{arrived}"))).unwrap();
            bench.alter("foreign.txt", b"of nobody");
            // It stays to be deleted while nobody asks for that.
            if between {
                bench.publish("").assert().success();
                assert!(bench.published().contains_key(&arrived));
            }
            publish_elsewhere(bench, "--delete");
            let mut there = bench.published();
            assert!(there.remove("foreign.txt").is_some());
            assert_same(&bench.expected(), &there);
        });
    }
}

#[test]
fn deletes_that_failed_are_made_up_for() {
    on_all(|bench| {
        bench.write_many(40, 100);
        bench.publish("").assert().success();
        std::fs::remove_dir_all(bench.work.path("site/many")).unwrap();
        let mut left = 10;
        bench.server.fail_when(move |asked| {
            let is_delete = asked.method == "DELETE" && asked.target.contains("/many/");
            left -= usize::from(is_delete && left > 0);
            (is_delete && left == 0).then_some(Fault::Answer(403, "AccessDenied"))
        });
        fails(&mut bench.publish("--delete"), CONFIGURATION);
        bench.server.recover();
        assert_ne!(bench.published().len(), bench.expected().len());
        // A publish that may not delete leaves them to the next.
        publish_elsewhere(bench, "");
        bench.publish("--delete").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}
