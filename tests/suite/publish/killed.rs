//! A publish that is killed at any moment continues with the next run.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::support::case::{Tree, assert_same};
use super::super::support::dor::{dor, fails};
use super::super::support::minio::Minio;
use super::super::support::proxy::{Fault, Proxy};
use super::super::support::s3::S3Server;
use super::{CONFIGURATION, Fixture, PART_SIZE, for_each_server, seed};

const KILLS: usize = 20;
/// Concurrent requests (`--concurrency`).
const REQUESTS: usize = 8;
const OBJECTS: usize = 400;

#[test]
fn sigterm_ends_a_publish_although_the_server_is_unreachable_or_busy() {
    let fixture = Fixture::new(super::Server::Embedded(S3Server::start()));
    for is_unreachable in [true, false] {
        let mut command = fixture.publish_process("--concurrency 2 --bwlimit 100k");
        fixture.write_many(20, 20_000);
        if is_unreachable {
            command.env("DOR_S3_ENDPOINT_URL", "http://127.0.0.1:1");
        }
        let mut child = command.spawn().unwrap();
        let began = Instant::now();
        if is_unreachable {
            std::thread::sleep(Duration::from_secs(1));
        } else {
            while fixture.published().is_empty() {
                assert!(
                    began.elapsed() < Duration::from_secs(60),
                    "no object sent after 60 seconds"
                );
                std::thread::sleep(Duration::from_millis(10));
            }
            fixture.server.fail_always(Fault::Answer(503, "SlowDown"));
        }
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(super::INTERRUPTED));
        assert!(began.elapsed() < Duration::from_secs(50));
    }
}

/// A fixture after a publish that was killed while it uploaded `site/large.nc` in parts. The server is
/// MinIO, because the embedded server has no listing of unfinished uploads. `None` without MinIO.
fn fixture_with_killed_multipart_upload() -> Option<Fixture> {
    let minio = Minio::start()?;
    let proxy = Proxy::start(&minio.endpoint);
    let fixture = Fixture::new(super::Server::Minio { minio, proxy });
    fixture.write_large("site/large.nc", 40 << 20);
    fixture.publish("--dry-run").assert().success();
    let mut child = fixture.publish_process("--bwlimit 4M --concurrency 1").spawn().unwrap();
    let (began, mut sent) = (Instant::now(), 0);
    // With one request at a time, the second part has arrived when the third is sent.
    while sent < 3 {
        sent += count_sent_parts(&fixture);
        assert!(began.elapsed() < Duration::from_secs(60), "no object sent after 60 seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    Some(fixture)
}

/// Number of parts sent since the request log was last read.
fn count_sent_parts(fixture: &Fixture) -> usize {
    let requests = fixture.server.requests();
    let is_part = |line: &&String| line.starts_with("PUT") && line.contains("partNumber=");
    requests.iter().filter(is_part).count()
}

#[test]
fn a_killed_multipart_upload_continues_with_the_parts_that_have_arrived() {
    for more in ["", "--audit"] {
        let Some(fixture) = fixture_with_killed_multipart_upload() else { return };
        count_sent_parts(&fixture);
        publish_with_other_state(&fixture, more);
        let parts = (40 << 20) / PART_SIZE;
        let sent = count_sent_parts(&fixture);
        assert!((1..=parts - 2).contains(&sent), "{sent} of {parts} parts were sent again");
        assert_eq!(fixture.server.unfinished("site/large.nc"), [""; 0]);
        assert_same(&fixture.expected(), &fixture.published());
    }
}

#[test]
fn an_audit_from_another_source_aborts_unfinished_uploads() {
    let Some(fixture) = fixture_with_killed_multipart_upload() else { return };
    fixture.write("other/text.txt", b"text");
    let mut other = dor(fixture.work.folder());
    other.envs(fixture.server.variables());
    other.args(["publish", "other", &fixture.destination(), "--audit"]).assert().success();
    assert_eq!(fixture.server.unfinished("site/large.nc"), [""; 0]);
}

#[test]
fn a_publish_after_twenty_kills_completes_and_sends_few_objects_twice() {
    for_each_server(|fixture| {
        let mut random = StdRng::seed_from_u64(seed());
        fixture.write_many(OBJECTS, 20_000);
        fixture.write_large("site/large.nc", 12 << 20);
        let expected = fixture.expected();
        // Fills the checksum cache, so that kills hit the transfer and not the hashing.
        fixture.publish("--dry-run").assert().success();
        let mut interrupted = 0;
        for _ in 0..KILLS {
            let options = format!("--concurrency {REQUESTS} --bwlimit 8M");
            let mut child = fixture.publish_process(&options).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.random_range(20..500)));
            let _ = child.kill();
            child.wait().unwrap();
            let published = fixture.published();
            for (name, bytes) in &published {
                assert!(expected.get(name) == Some(bytes), "{name} differs from the source");
            }
            interrupted += usize::from(published.len() < expected.len());
        }
        assert!(
            interrupted > KILLS / 4,
            "only {interrupted} of {KILLS} kills came before the end of the publish"
        );
        fixture.publish("").assert().success();
        assert_same(&expected, &fixture.published());
        if fixture.server.is_minio() {
            assert_eq!(fixture.server.unfinished("site/large.nc"), [""; 0]);
        }
        let requests = fixture.server.requests();
        let sent = requests.iter().filter(|r| r.starts_with("PUT") && r.contains("/many/")).count();
        // Objects in flight at a kill, and those that had arrived but whose arrival was not yet recorded.
        let again = sent - OBJECTS;
        assert!(again <= interrupted * 2 * REQUESTS, "{again} objects were sent again");
    });
}

/// Publishes, and kills the publish when an object below `many` has arrived; returns its key.
fn interrupt_publish(fixture: &Fixture) -> String {
    interrupt_publish_with_state(fixture, None)
}

/// Like [`interrupt_publish`], with another state folder (checksum cache), as on another machine.
fn interrupt_publish_with_state(fixture: &Fixture, state: Option<&str>) -> String {
    // Listings are fast. If the test read all objects, the publish could end meanwhile.
    let many = || -> BTreeMap<String, _> {
        let listed = fixture.runtime.block_on(fixture.store().list("many")).unwrap().into_iter();
        listed.map(|found| (found.key, (found.etag, found.modified))).collect()
    };
    let (began, before) = (Instant::now(), many());
    let mut command = fixture.publish_process("--concurrency 4 --bwlimit 200k");
    command.envs(state.map(|state| ("DOR_STATE_DIR", fixture.work.path(state))));
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
    let (name, _) = arrived.expect("an object below `many` is sent within 60 seconds");
    let published = fixture.published();
    let is_pending = |(name, bytes): (&String, &_)| {
        name.starts_with("many/") && published.get(name) != Some(bytes)
    };
    assert!(fixture.expected().iter().any(is_pending), "the publish ended before the kill");
    name
}

/// Publishes with another state folder, as another machine does, which has no checksum cache of `site`.
fn publish_with_other_state(fixture: &Fixture, more: &str) {
    let state = fixture.work.path("elsewhere");
    fixture.publish(more).env("DOR_STATE_DIR", state).assert().success();
}

/// Writes all files of `tree` into `site`.
fn write_site(fixture: &Fixture, tree: &Tree) {
    tree.iter().for_each(|(name, bytes)| fixture.write(&format!("site/{name}"), bytes));
}

#[test]
fn objects_of_an_interrupted_publish_are_sent_again_after_another_publisher_replaced_them() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        let first = fixture.expected();
        interrupt_publish(fixture);
        // Other bytes of the same sizes.
        fixture.write_many(100, 20_000);
        publish_with_other_state(fixture, "");
        assert_same(&fixture.expected(), &fixture.published());
        write_site(fixture, &first);
        fixture.publish("").assert().success();
        assert_same(&first, &fixture.published());
    });
}

#[test]
fn objects_of_an_interrupted_publish_are_sent_again_after_the_destination_was_emptied() {
    let dor_objects = [".dor/manifest.next.jsonl.gz", ".dor/lease.json"];
    for removed in [&dor_objects[..], &[]] {
        for_each_server(|fixture| {
            fixture.write_many(100, 20_000);
            interrupt_publish(fixture);
            fixture.published().into_keys().for_each(|key| fixture.delete_object(&key));
            removed.iter().for_each(|key| fixture.delete_object(key));
            fixture.publish("").assert().success();
            assert_same(&fixture.expected(), &fixture.published());
        });
    }
}

#[test]
fn a_publish_after_two_interruptions_replaces_objects_of_both() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        let first = fixture.expected();
        publish_with_other_state(fixture, "");
        fixture.write_many(100, 20_000);
        interrupt_publish(fixture);
        interrupt_publish_with_state(fixture, Some("elsewhere"));
        write_site(fixture, &first);
        publish_with_other_state(fixture, "");
        assert_same(&first, &fixture.published());
    });
}

/// Writes objects of another program at two keys that an interrupted publish has not yet sent: one of the
/// size of the source file, and one of another size. Returns these objects.
fn put_foreign_at_pending_keys(fixture: &Fixture) -> Tree {
    let published = fixture.published();
    let is_pending = |name: &String| name.starts_with("many/") && !published.contains_key(name);
    let names = fixture.expected().into_keys().filter(is_pending).take(2);
    let foreign: Tree = names.zip([vec![b'f'; 20_000], b"foreign".to_vec()]).collect();
    assert_eq!(foreign.len(), 2, "the publish ended before the kill");
    foreign.iter().for_each(|(name, bytes)| fixture.put_object(name, bytes));
    foreign
}

#[test]
fn objects_of_another_program_at_keys_of_an_interrupted_publish_are_kept() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        interrupt_publish(fixture);
        let foreign = put_foreign_at_pending_keys(fixture);
        let error = fails(&mut fixture.publish(""), CONFIGURATION);
        for part in ["2 object(s) that no publish has sent", "many/", "--overwrite"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        for name in foreign.keys() {
            std::fs::remove_file(fixture.work.path(&format!("site/{name}"))).unwrap();
        }
        fixture.publish("--delete").assert().success();
        let mut expected = fixture.expected();
        expected.extend(foreign);
        assert_same(&expected, &fixture.published());
    });
}

#[test]
fn objects_of_another_program_at_published_keys_are_kept_after_an_interrupted_publish() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        fixture.publish("").assert().success();
        let before = fixture.published();
        fixture.write_many(100, 20_000);
        interrupt_publish(fixture);
        let published = fixture.published();
        let is_pending =
            |name: &String| name.starts_with("many/") && published.get(name) == before.get(name);
        let pending = before.keys().find(|name| is_pending(name)).expect("a pending object");
        fixture.put_object(pending, &[b'f'; 20_000]);
        let error = fails(&mut fixture.publish(""), CONFIGURATION);
        assert!(error.contains("1 object(s)") && error.contains(pending.as_str()), "{error}");
        assert_eq!(fixture.get_object(pending).unwrap(), [b'f'; 20_000]);
        // An audit repairs what differs from the manifest.
        fixture.publish("--audit").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn overwrite_replaces_objects_of_another_program_at_keys_of_an_interrupted_publish() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        interrupt_publish(fixture);
        put_foreign_at_pending_keys(fixture);
        fixture.publish("--overwrite").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_publish_whose_manifest_is_deleted_meanwhile_can_be_run_again() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        fixture.write_many(40, 20_000);
        let mut publishing = fixture.publish_process("--bwlimit 100k");
        let child = publishing.stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let many = || fixture.runtime.block_on(fixture.store().list("many")).unwrap();
        while many().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "no object sent after 60 seconds");
            std::thread::sleep(Duration::from_millis(20));
        }
        fixture.delete_object(".dor/manifest.jsonl.gz");
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // The embedded server ignores the condition of a write if the object does not exist.
        if fixture.server.is_minio() {
            assert_eq!(output.status.code(), Some(super::INTERRUPTED), "{stderr}");
            assert!(stderr.contains("run the command again"), "{stderr}");
        }
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_late_request_of_a_killed_publish_that_overwrites_newer_bytes_is_detected() {
    for_each_server(|fixture| {
        kill_with_a_held_put(fixture);
        fixture.write("site/late.bin", b"after!");
        let second = fixture.publish_process("").stderr(Stdio::piped()).spawn().unwrap();
        wait_for_put(fixture, "late.bin");
        // Time for the server to write the newer bytes.
        std::thread::sleep(Duration::from_secs(1));
        fixture.server.release();
        let output = second.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(super::INTERRUPTED), "{stderr}");
        assert_eq!(fixture.get_object("late.bin").as_deref(), Some(&b"before"[..]));
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_late_request_of_a_killed_publish_for_an_object_that_left_the_source_is_detected() {
    for_each_server(|fixture| {
        kill_with_a_held_put(fixture);
        fs::remove_file(fixture.work.path("site/late.bin")).unwrap();
        let second = fixture.publish_process("").stderr(Stdio::piped()).spawn().unwrap();
        wait_for_put(fixture, "manifest.jsonl.gz");
        fixture.server.release();
        let output = second.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(super::INTERRUPTED), "{stderr}");
        assert!(fixture.get_object("late.bin").is_some());
        fixture.publish("--delete").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn the_first_publish_of_a_whole_continues_those_of_its_parts_after_a_kill() {
    for_each_server(|fixture| {
        let run = |words: &str| {
            dor(fixture.work.folder()).args(words.split(' ')).assert().success();
        };
        let mut part = dor(fixture.work.folder());
        let destination = format!("{}/maps.zarr", fixture.destination());
        part.envs(fixture.server.variables()).args(["publish", super::MAPS, &destination]);
        part.assert().success();
        run("demo raw other --case 112-04 --shape 8x9x3 --months 1 --seed 2");
        let fill = "-o site/maps.zarr --data-dir other/archive --grid grid.nc --allow-missing";
        run(&format!("vis populate-store2 -p 112 -m 4 {fill}"));
        run("vis finalize site/maps.zarr");
        // The intent of the whole names the new maps; the destination has those of the part.
        fixture.write_many(100, 20_000);
        interrupt_publish(fixture);
        fixture.publish("").assert().success();
        let mut published = fixture.published();
        published.retain(|key, _| !key.contains(".dor/"));
        assert_same(&fixture.expected(), &published);
    });
}

/// Kills a publish while the server holds its PUT of `late.bin`, which `release` lets arrive.
fn kill_with_a_held_put(fixture: &Fixture) {
    fixture.write("site/late.bin", b"before");
    fixture.server.fail_when(|request| {
        let is_late = request.method == "PUT" && request.target.contains("late.bin");
        is_late.then_some(Fault::Held)
    });
    let mut child = fixture.publish_process("").spawn().unwrap();
    wait_for_put(fixture, "late.bin");
    // Time for the proxy to read the body of the request.
    std::thread::sleep(Duration::from_secs(1));
    child.kill().unwrap();
    child.wait().unwrap();
    fixture.server.recover();
}

/// Waits until the server receives a PUT of an object.
fn wait_for_put(fixture: &Fixture, key: &str) {
    let began = Instant::now();
    let is_put = |line: &String| line.starts_with("PUT") && line.contains(key);
    while !fixture.server.requests().iter().any(is_put) {
        assert!(began.elapsed() < Duration::from_secs(60), "no PUT of {key} after 60 seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn objects_of_an_interrupted_publish_do_not_count_as_sent_because_of_their_size() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        interrupt_publish(fixture);
        fixture.write_many(100, 20_000);
        // Later, so that modification times do not show which bytes an object has.
        std::thread::sleep(Duration::from_secs(3));
        publish_with_other_state(fixture, "--include notes/**");
        interrupt_publish(fixture);
        publish_with_other_state(fixture, "");
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn another_publisher_undoes_an_interrupted_change_even_after_a_partial_publish() {
    for parts in [&[""][..], &["--include notes/**", ""]] {
        for_each_server(|fixture| {
            fixture.write_many(100, 20_000);
            // Uploaded in parts: if its ETag is no MD5, a listing shows only its size.
            fixture.write_large("site/large.nc", 12 << 20);
            let first = fixture.expected();
            fixture.publish("").assert().success();
            fixture.write_many(100, 20_000);
            interrupt_publish(fixture);
            write_site(fixture, &first);
            parts.iter().for_each(|more| publish_with_other_state(fixture, more));
            assert_same(&first, &fixture.published());
            // No publisher finds anything to send.
            fixture.server.requests();
            publish_with_other_state(fixture, "");
            fixture.publish("").assert().success();
            assert!(!fixture.has_changed_objects());
        });
    }
}

#[test]
fn objects_sent_by_interrupted_publishes_are_deleted_once_the_source_lacks_them() {
    for with_publish_between in [false, true] {
        for_each_server(|fixture| {
            fixture.write_many(100, 20_000);
            let arrived = interrupt_publish(fixture);
            interrupt_publish_with_state(fixture, Some("elsewhere"));
            std::fs::remove_file(fixture.work.path(&format!("site/{arrived}"))).unwrap();
            fixture.put_object("foreign.txt", b"of nobody");
            // A publish without `--delete` keeps the object for a later `--delete`.
            if with_publish_between {
                fixture.publish("").assert().success();
                assert!(fixture.published().contains_key(&arrived));
            }
            publish_with_other_state(fixture, "--delete");
            let mut published = fixture.published();
            assert!(published.remove("foreign.txt").is_some());
            assert_same(&fixture.expected(), &published);
        });
    }
}

#[test]
fn deletes_that_failed_are_repeated_by_the_next_publish_with_delete() {
    for_each_server(|fixture| {
        fixture.write_many(40, 100);
        fixture.publish("").assert().success();
        std::fs::remove_dir_all(fixture.work.path("site/many")).unwrap();
        let mut left = 10;
        fixture.server.fail_when(move |request| {
            let is_delete = request.method == "DELETE" && request.target.contains("/many/");
            left -= usize::from(is_delete && left > 0);
            (is_delete && left == 0).then_some(Fault::Answer(403, "AccessDenied"))
        });
        fails(&mut fixture.publish("--delete"), CONFIGURATION);
        fixture.server.recover();
        assert_ne!(fixture.published().len(), fixture.expected().len());
        // A publish without `--delete` leaves the objects to a later one with it.
        publish_with_other_state(fixture, "");
        fixture.publish("--delete").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}
