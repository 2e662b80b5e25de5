//! The lease. A publisher that loses it stops, and the next publisher repairs what it has changed.

use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::super::support::case::{Tree, assert_same};
use super::super::support::dor::{dor, fails};
use super::super::support::s3::S3Server;
use super::{Fixture, INTERRUPTED, Server, for_each_direct_server, source_coop_fixture};

const OBJECTS: usize = 200;
const LEASE: &str = ".dor/lease.json";
/// The longest time that a publisher may take to notice that it has lost its lease.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(20);

/// Two publishers, which send different files of the same names and sizes to one destination. The first
/// sends the folder `one`, the second `two`.
struct TwoPublishers<'a> {
    fixture: &'a Fixture,
    destination: String,
    /// The process of the first publisher.
    first: Child,
}

impl<'a> TwoPublishers<'a> {
    /// Starts the first publisher and waits until it has sent an object.
    fn new(fixture: &'a Fixture, destination: String) -> Self {
        for name in ["one", "two"] {
            fixture.write_many(OBJECTS, 20_000);
            std::fs::rename(fixture.work.path("site/many"), fixture.work.path(name)).unwrap();
        }
        let mut first = Process::new(env!("CARGO_BIN_EXE_dor"));
        first.env_clear().env("HOME", fixture.work.folder()).current_dir(fixture.work.folder());
        first.envs(fixture.server.variables());
        first.args(["publish", "one", &destination, "--bwlimit", "400k", "--concurrency", "4"]);
        let first = first.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let publishers = Self { fixture, destination, first };
        let began = Instant::now();
        while publishers.published().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "no object sent after 60 seconds");
            std::thread::sleep(Duration::from_millis(10));
        }
        publishers
    }

    fn is_on_disk(&self) -> bool {
        !self.destination.starts_with("s3://")
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        match self.is_on_disk() {
            true => {
                std::fs::write(self.fixture.work.path(&self.destination).join(key), bytes).unwrap();
            }
            false => self.fixture.put_object(key, bytes),
        }
    }

    /// Deletes the lease of the first publisher.
    fn remove_lease(&self) {
        match self.is_on_disk() {
            true => {
                std::fs::remove_file(self.fixture.work.path(&self.destination).join(LEASE))
                    .unwrap();
            }
            false => self.fixture.delete_object(LEASE),
        }
    }

    /// All objects at the destination, except for hidden ones.
    fn published(&self) -> Tree {
        let mut published = match self.is_on_disk() {
            false => self.fixture.published(),
            true if !self.fixture.work.path(&self.destination).exists() => Tree::new(),
            true => self.fixture.work.tree(&self.destination),
        };
        published.retain(|name, _| !name.starts_with('.') && !name.contains("/."));
        published
    }

    /// The command `dor publish WORDS` of the second publisher, which has a state folder of its own, as on
    /// another machine. `THERE` stands for the destination.
    fn second_publish(&self, words: &str) -> assert_cmd::Command {
        let mut command = dor(self.fixture.work.folder());
        command.envs(self.fixture.server.variables());
        command.env("DOR_STATE_DIR", self.fixture.work.path("elsewhere"));
        let words = words.replace("THERE", &self.destination);
        command.args(["publish"]).args(words.split(' '));
        command
    }

    fn signal_first(&self, signal: Signal) {
        let pid = Pid::from_raw(self.first.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until the first publisher ends; it must end soon, because of its lost lease.
    fn assert_first_loses_lease(&mut self) {
        let began = Instant::now();
        let code = self.first.wait().unwrap().code();
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut self.first.stderr.take().unwrap(), &mut stderr).unwrap();
        assert_eq!(code, Some(INTERRUPTED), "{stderr}");
        assert!(began.elapsed() < NOTICE_TIMEOUT, "it took {:?}", began.elapsed());
        assert!(stderr.contains("the lease on") && stderr.contains("is lost"), "{stderr}");
    }

    /// Number of files of the second publisher that are not at the destination, or differ there.
    fn count_differing(&self) -> usize {
        let (published, wanted) = (self.published(), self.fixture.work.tree("two"));
        wanted.iter().filter(|(name, bytes)| published.get(*name) != Some(bytes)).count()
    }

    /// Whether the lease at the destination is marked `dirty`.
    fn is_dirty(&self) -> bool {
        let output = self.second_publish("status THERE --json").output().unwrap().stdout;
        serde_json::from_slice::<Value>(&output).unwrap()["dirty"].as_bool().unwrap()
    }

    /// Runs a command of the second publisher. Then the destination must have exactly its files, the lease
    /// must not be dirty, and another publish must have nothing to send.
    fn assert_repaired_by(&self, words: &str) {
        self.second_publish(words).assert().success();
        assert_same(&self.fixture.work.tree("two"), &self.published());
        assert!(!self.is_dirty());
        let stdout =
            self.second_publish("two THERE").assert().success().get_output().stdout.clone();
        assert!(String::from_utf8_lossy(&stdout).contains("nothing to send"));
    }
}

/// Runs a test with each server and with a folder on disk as destination, in parallel.
fn for_each_destination(test: impl Fn(TwoPublishers) + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for_each_direct_server(|fixture| {
                test(TwoPublishers::new(fixture, fixture.destination()))
            })
        });
        scope.spawn(|| {
            let fixture = source_coop_fixture();
            fixture
                .iter()
                .for_each(|fixture| test(TwoPublishers::new(fixture, fixture.destination())));
        });
        scope.spawn(|| {
            let fixture = Fixture::new(Server::Embedded(S3Server::start()));
            test(TwoPublishers::new(&fixture, "public".to_owned()));
        });
    });
}

#[test]
fn a_publisher_without_its_lease_stops_while_the_next_one_waits_15_seconds() {
    for_each_destination(|mut publishers| {
        // Up to three times: the first publisher may renew the lease at the moment of its removal.
        let take_over = |_| {
            publishers.remove_lease();
            let output = publishers.second_publish("two THERE").output().unwrap();
            output.status.success().then_some(output.stderr)
        };
        let stderr = (0..3).find_map(take_over).expect("the second publisher takes the lease");
        assert!(String::from_utf8_lossy(&stderr).contains("waiting 15 s"));
        publishers.assert_first_loses_lease();
        publishers.assert_repaired_by("two THERE");
    });
}

#[test]
fn a_paused_publisher_that_lost_its_lease_sends_nothing_more() {
    for_each_destination(|mut publishers| {
        publishers.signal_first(Signal::STOP);
        publishers.remove_lease();
        // This takes longer than the first publisher trusts its lease without a new check.
        publishers.second_publish("two THERE").assert().success();
        assert!(!publishers.is_dirty());
        publishers.signal_first(Signal::CONT);
        publishers.assert_first_loses_lease();
        // The four requests that were in flight may still overwrite objects.
        assert!(
            publishers.count_differing() <= 4,
            "{} objects were overwritten",
            publishers.count_differing()
        );
        assert!(publishers.is_dirty());
        let status =
            publishers.second_publish("status THERE --source two").output().unwrap().stdout;
        let status = String::from_utf8(status).unwrap();
        assert!(status.contains("in doubt: "), "{status}");
        publishers.assert_repaired_by("two THERE");
    });
}

#[test]
fn a_publisher_killed_before_it_notices_its_lost_lease_leaves_no_wrong_objects() {
    for_each_destination(|mut publishers| {
        publishers.remove_lease();
        std::thread::scope(|scope| {
            let second = scope
                .spawn(|| publishers.second_publish("two THERE").output().unwrap().status.code());
            std::thread::sleep(Duration::from_secs(2));
            publishers.signal_first(Signal::KILL);
            if second.join().unwrap() != Some(0) {
                publishers.second_publish("two THERE").assert().success();
            }
        });
        publishers.first.wait().unwrap();
        assert_eq!(publishers.count_differing(), 0);
        publishers.assert_repaired_by("two THERE");
    });
}

#[test]
fn objects_in_doubt_are_sent_again_even_if_another_machine_took_the_lease() {
    for_each_destination(|mut publishers| {
        let lease = json!({
            "token": "1", "host": "elsewhere", "process": 1, "since": "2026-01-01T00:00:00Z",
            "renewed": chrono::Utc::now(),
        });
        let lease = lease.to_string();
        publishers.write(LEASE, lease.as_bytes());
        publishers.assert_first_loses_lease();
        let busy = fails(&mut publishers.second_publish("two THERE"), INTERRUPTED);
        assert!(busy.contains("elsewhere"), "{busy}");
        publishers.remove_lease();
        publishers.assert_repaired_by("two THERE --verify all");
    });
}
