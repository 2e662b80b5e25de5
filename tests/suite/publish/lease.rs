//! A publisher that loses its lease leaves nothing behind that the next one does not hear of.

use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::super::support::case::{Tree, assert_same};
use super::super::support::dor::{dor, fails};
use super::super::support::s3::S3Server;
use super::{Bench, INTERRUPTED, Server, on_servers, through_source_coop};

const OBJECTS: usize = 200;
const LEASE: &str = ".dor/lease.json";
/// In which a publisher notices that it has lost its lease.
const NOTICED: Duration = Duration::from_secs(20);

/// Two that publish other bytes of the same sizes and names to the same place.
struct Rivals<'a> {
    bench: &'a Bench,
    destination: String,
    first: Child,
}

impl<'a> Rivals<'a> {
    /// The first one is at work, and has sent something.
    fn new(bench: &'a Bench, destination: String) -> Self {
        for name in ["one", "two"] {
            bench.write_many(OBJECTS, 20_000);
            std::fs::rename(bench.work.path("site/many"), bench.work.path(name)).unwrap();
        }
        let mut first = Process::new(env!("CARGO_BIN_EXE_dor"));
        first.env_clear().env("HOME", bench.work.folder()).current_dir(bench.work.folder());
        first.envs(bench.server.variables());
        first.args(["publish", "one", &destination, "--bwlimit", "400k", "--concurrency", "4"]);
        let first = first.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let rivals = Self { bench, destination, first };
        let began = Instant::now();
        while rivals.published().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
            std::thread::sleep(Duration::from_millis(10));
        }
        rivals
    }

    fn is_on_disk(&self) -> bool {
        !self.destination.starts_with("s3://")
    }

    fn write(&self, key: &str, bytes: &[u8]) {
        match self.is_on_disk() {
            true => {
                std::fs::write(self.bench.work.path(&self.destination).join(key), bytes).unwrap();
            }
            false => self.bench.alter(key, bytes),
        }
    }

    fn remove_lease(&self) {
        match self.is_on_disk() {
            true => {
                std::fs::remove_file(self.bench.work.path(&self.destination).join(LEASE)).unwrap();
            }
            false => self.bench.remove(LEASE),
        }
    }

    fn published(&self) -> Tree {
        let mut there = match self.is_on_disk() {
            false => self.bench.published(),
            true if !self.bench.work.path(&self.destination).exists() => Tree::new(),
            true => self.bench.work.tree(&self.destination),
        };
        there.retain(|name, _| !name.starts_with('.') && !name.contains("/."));
        there
    }

    /// What the second one does, elsewhere.
    fn second(&self, words: &str) -> assert_cmd::Command {
        let mut command = dor(self.bench.work.folder());
        command.envs(self.bench.server.variables());
        command.env("DOR_STATE_DIR", self.bench.work.path("elsewhere"));
        let words = words.replace("THERE", &self.destination);
        command.args(["publish"]).args(words.split(' '));
        command
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.first.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// The first one stops, and soon; what it said.
    fn lost(&mut self) -> String {
        let began = Instant::now();
        let code = self.first.wait().unwrap().code();
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.first.stderr.take().unwrap(), &mut said).unwrap();
        assert_eq!(code, Some(INTERRUPTED), "{said}");
        assert!(began.elapsed() < NOTICED, "it took {:?}", began.elapsed());
        assert!(said.contains("the lease on") && said.contains("is lost"), "{said}");
        said
    }

    fn differing(&self) -> usize {
        let (there, wanted) = (self.published(), self.bench.work.tree("two"));
        wanted.iter().filter(|(name, bytes)| there.get(*name) != Some(bytes)).count()
    }

    /// Whether the next publisher hears that objects may have been changed.
    fn is_dirty(&self) -> bool {
        let output = self.second("status THERE --json").output().unwrap().stdout;
        serde_json::from_slice::<Value>(&output).unwrap()["dirty"].as_bool().unwrap()
    }

    fn is_mended_by(&self, words: &str) {
        self.second(words).assert().success();
        assert_same(&self.bench.work.tree("two"), &self.published());
        assert!(!self.is_dirty());
        let again = self.second("two THERE").assert().success().get_output().stdout.clone();
        assert!(String::from_utf8_lossy(&again).contains("nothing to send"));
    }
}

/// With servers, through Source Cooperative's proxy and with a folder, at the same time.
fn on_all(test: impl Fn(Rivals) + Sync) {
    std::thread::scope(|scope| {
        scope.spawn(|| on_servers(|bench| test(Rivals::new(bench, bench.destination()))));
        scope.spawn(|| {
            let bench = through_source_coop();
            bench.iter().for_each(|bench| test(Rivals::new(bench, bench.destination())));
        });
        scope.spawn(|| {
            let bench = Bench::new(Server::Embedded(S3Server::start()));
            test(Rivals::new(&bench, "public".to_owned()));
        });
    });
}

#[test]
fn one_that_is_at_work_is_outlasted() {
    on_all(|mut rivals| {
        // A renewal at the same moment writes it again.
        let take_over = |_| {
            rivals.remove_lease();
            let second = rivals.second("two THERE").output().unwrap();
            second.status.success().then_some(second.stderr)
        };
        let second = (0..3).find_map(take_over).expect("the lease is taken");
        assert!(String::from_utf8_lossy(&second).contains("waiting 15 s"));
        rivals.lost();
        rivals.is_mended_by("two THERE");
    });
}

#[test]
fn one_that_was_paused_sends_nothing_more() {
    on_all(|mut rivals| {
        rivals.signal(Signal::STOP);
        rivals.remove_lease();
        // Longer than a lease counts as held without a look at it.
        rivals.second("two THERE").assert().success();
        assert!(!rivals.is_dirty());
        rivals.signal(Signal::CONT);
        rivals.lost();
        // What was under way.
        assert!(rivals.differing() <= 4, "{} were written over", rivals.differing());
        assert!(rivals.is_dirty());
        let status = rivals.second("status THERE --source two").output().unwrap().stdout;
        let status = String::from_utf8(status).unwrap();
        assert!(status.contains("in doubt: "), "{status}");
        rivals.is_mended_by("two THERE");
    });
}

#[test]
fn one_that_is_killed_before_it_has_noticed_leaves_nothing_either() {
    on_all(|mut rivals| {
        rivals.remove_lease();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| rivals.second("two THERE").output().unwrap().status.code());
            std::thread::sleep(Duration::from_secs(2));
            rivals.signal(Signal::KILL);
            if second.join().unwrap() != Some(0) {
                rivals.second("two THERE").assert().success();
            }
        });
        rivals.first.wait().unwrap();
        assert_eq!(rivals.differing(), 0);
        rivals.is_mended_by("two THERE");
    });
}

#[test]
fn objects_that_are_in_doubt_are_sent_again_whoever_took_the_lease() {
    on_all(|mut rivals| {
        let lease = json!({
            "token": "1", "host": "elsewhere", "process": 1, "since": "2026-01-01T00:00:00Z",
            "renewed": chrono::Utc::now(),
        });
        let lease = lease.to_string();
        rivals.write(LEASE, lease.as_bytes());
        rivals.lost();
        let busy = fails(&mut rivals.second("two THERE"), INTERRUPTED);
        assert!(busy.contains("elsewhere"), "{busy}");
        rivals.remove_lease();
        rivals.is_mended_by("two THERE --verify all");
    });
}
