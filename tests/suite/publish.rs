//! Publishing: what is sent and in which order, what is left alone, and what survives failures.
//! On the embedded server, and the most of it on MinIO.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::support::case::{Tree, Workspace, assert_same};
use super::support::dor::{dor, fails};
use super::support::minio::Minio;
use super::support::s3::{Fault, S3Server};

const CONFIGURATION: i32 = 78;
const INTERRUPTED: i32 = 75;

/// A folder to publish, and a server to publish to.
struct Bench {
    work: Workspace,
    server: S3Server,
}

impl Bench {
    /// A map store with its records, and files of nobody.
    fn new() -> Self {
        let bench = Self { work: Workspace::empty(b""), server: S3Server::start() };
        let mut raw = dor(bench.work.folder());
        raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "8x9x3", "--months", "1"]);
        raw.assert().success();
        for command in [
            "vis create-template-store2 -o site/maps.zarr -v PH -l 1",
            "vis populate-store2 -o site/maps.zarr -p 112 -m 4 --data-dir archive --allow-missing --grid grid.nc",
            "vis finalize site/maps.zarr",
        ] {
            dor(bench.work.folder()).args(command.split(' ')).assert().success();
        }
        bench.write("site/notes/about.txt", b"about");
        bench.write("site/notes/.hidden/x", b"hidden");
        bench.write("site/notes/half.nc#1", b"half");
        bench
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.work.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// `dor publish site s3://bucket/site` with more words.
    fn publish(&self, more: &str) -> Command {
        let mut command = dor(self.work.folder());
        command.envs(self.server.variables());
        command.args(["publish", "site", "s3://bucket/site"]).args(more.split_whitespace());
        command
    }

    /// What lies at the destination, without what publishers keep there.
    fn published(&self) -> Tree {
        published_in(&self.server.bucket().join("site"))
    }

    /// What should.
    fn expected(&self) -> Tree {
        let mut tree = self.work.tree("site");
        tree.retain(|name, _| {
            !name.contains(".cases/") && !name.contains(".hidden") && !name.ends_with("#1")
        });
        tree
    }
}

fn published_in(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            // The embedded server keeps what it knows of an object beside it.
            if name.starts_with(".dor") || name.contains(".s3s-") {
                continue;
            }
            match path.is_dir() {
                true => folders.push(path),
                false => drop(tree.insert(name, fs::read(path).unwrap())),
            }
        }
    }
    tree
}

/// The lines of JSON that a command prints.
fn lines(command: &mut Command) -> Vec<Value> {
    let output = command.assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn data_goes_before_the_metadata_that_names_it_and_only_once() {
    let bench = Bench::new();
    let said = lines(&mut bench.publish("--json --dry-run"));
    let planned = said[0]["plan"]["send"].as_array().unwrap().clone();
    assert!(bench.server.requests().iter().all(|request| !request.starts_with("PUT")));
    bench.publish("").assert().success();
    assert_same(&bench.expected(), &bench.published());
    let requests = bench.server.requests();
    let sent: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.strip_prefix("PUT /bucket/site/"))
        .map(|request| request.split('?').next().unwrap())
        .collect();
    assert_eq!(sent.first(), Some(&".dor/publishing.json"));
    assert_eq!(sent.last(), Some(&".dor/published.jsonl.gz"));
    assert_eq!(sent.len(), planned.len() + 2);
    let at = |name: &str| sent.iter().position(|key| *key == name).unwrap();
    let last_chunk = sent.iter().rposition(|key| key.contains("/PH/112.")).unwrap();
    assert!(last_chunk < at("maps.zarr/0/PH/.zarray"));
    assert!(at("maps.zarr/0/PH/.zarray") < at("maps.zarr/0/.zgroup"));
    assert!(at("maps.zarr/0/.zgroup") < at("maps.zarr/.zgroup"));
    assert!(at("maps.zarr/.zgroup") < at("maps.zarr/.zmetadata"));

    // Again: a few requests, and none for an object.
    bench.publish("").assert().success();
    let requests = bench.server.requests();
    assert!(requests.len() <= 2, "{requests:?}");
    // Other bytes of the same length and time (H3).
    let path = bench.work.path("site/notes/about.txt");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, b"ABOUT").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let said = lines(&mut bench.publish("--json"));
    assert_eq!(said[0]["plan"]["changed"]["objects"], 1);
    assert_eq!(said[1]["sent"]["key"], "notes/about.txt");
    assert_eq!(said[1]["sent"]["attempts"], 1);
    assert_same(&bench.expected(), &bench.published());
    let mut status = dor(bench.work.folder());
    status.envs(bench.server.variables()).args(["publish", "status", "s3://bucket/site", "--json"]);
    let status = super::support::dor::json(&mut status);
    assert_eq!(status["published"]["version"], 2);
    assert_eq!(status["published"]["objects"], planned.len());
    assert!(status["published"]["recipes"]["maps.zarr"].is_object());
}

#[test]
fn nothing_is_deleted_that_was_not_published_or_is_still_there() {
    let bench = Bench::new();
    bench.publish("").assert().success();
    let foreign = bench.server.bucket().join("site/foreign.txt");
    fs::write(&foreign, "not ours").unwrap();
    fs::remove_dir_all(bench.work.path("site/notes")).unwrap();
    // A case that is being made again has no record for the moment.
    let record = bench.work.path("site/maps.zarr/.cases/112-04.json");
    let aside = bench.work.path("aside.json");
    fs::rename(&record, &aside).unwrap();
    let before = bench.published();
    bench.publish("").assert().success();
    assert_same(&before, &bench.published());
    bench.server.requests();
    let error = fails(&mut bench.publish("--delete --max-delete 0"), CONFIGURATION);
    assert!(error.contains("1 objects") && error.contains("--max-delete 0"), "{error}");
    assert!(!bench.server.requests().iter().any(|request| request.starts_with("DELETE")));
    bench.publish("--delete").assert().success();
    let after = bench.published();
    assert_eq!(before.len() - 1, after.len());
    assert!(foreign.exists() && !after.contains_key("notes/about.txt"));
    fs::rename(&aside, &record).unwrap();
    bench.publish("--delete").assert().success();
    assert_same(&after, &bench.published());
    // Deleting does not go together with a part of the source (H4).
    fails(&mut bench.publish("--delete --exclude maps.zarr/**"), 2);
}

#[test]
fn what_cannot_be_published_is_refused_before_anything_is_sent() {
    let bench = Bench::new();
    let refused = |words: &[&str], more: &str, code: i32| {
        let error = fails(&mut bench.publish(more), code);
        for word in words {
            assert!(error.contains(word), "`{word}` is missing in: {error}");
        }
        assert!(!bench.server.requests().iter().any(|request| request.starts_with("PUT")));
    };
    // H1.
    let link = bench.work.path("site/notes/link.txt");
    symlink("nowhere", &link).unwrap();
    refused(&["notes/link.txt", "nowhere"], "", 65);
    fs::remove_file(&link).unwrap();
    // H5.
    let mut empty = bench.publish("");
    fs::create_dir(bench.work.path("empty")).unwrap();
    fs::rename(bench.work.path("site"), bench.work.path("kept")).unwrap();
    fs::rename(bench.work.path("empty"), bench.work.path("site")).unwrap();
    let error = fails(&mut empty, CONFIGURATION);
    assert!(error.contains("site has nothing to publish"), "{error}");
    fs::remove_dir(bench.work.path("site")).unwrap();
    fs::rename(bench.work.path("kept"), bench.work.path("site")).unwrap();
    refused(
        &["has nothing to publish of what was asked for"],
        "--include *.nothing",
        CONFIGURATION,
    );
    // Results that nobody has put together.
    let shared = bench.work.path("site/maps.zarr/.cases/shared.json");
    fs::rename(&shared, bench.work.path("aside.json")).unwrap();
    refused(&["maps.zarr", "dor vis finalize"], "", CONFIGURATION);
    fs::rename(bench.work.path("aside.json"), &shared).unwrap();
    // The source in the destination.
    let mut within = dor(bench.work.folder());
    let error = fails(within.args(["publish", "site", "site/notes"]), CONFIGURATION);
    assert!(error.contains("hold each other"), "{error}");
}

#[test]
fn a_file_that_is_not_what_its_record_tells_is_not_published() {
    let bench = Bench::new();
    let name = "maps.zarr/0/PH/112.0.1.0.0.0.0";
    let path = bench.work.path("site").join(name);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = fails(&mut bench.publish(""), 1);
    assert!(error.contains(name) && error.contains("MD5") && error.contains("--force"), "{error}");
    // What names it was not sent either.
    let there = bench.published();
    assert!(!there.contains_key(name) && !there.contains_key("maps.zarr/.zmetadata"));
    assert!(there.contains_key("maps.zarr/0/PH/112.1.1.0.0.0.0"));
}

#[test]
fn a_busy_server_and_lost_answers_are_survived() {
    let bench = Bench::new();
    for n in 0..300 {
        bench.write(&format!("site/many/{n}.bin"), &vec![n as u8; 5_000]);
    }
    for (of, status) in [(10, 503), (49, 0), (101, 520)] {
        bench.server.fail_now_and_then(of, Fault { status, code: "SlowDown" });
    }
    let said = lines(bench.publish("--json").env("DOR_S3_MAX_RETRIES", "10"));
    let summary = &said.last().unwrap()["summary"];
    assert!(summary["retried"].as_u64().unwrap() > 0, "{summary}");
    assert_same(&bench.expected(), &bench.published());
}

#[test]
fn one_publishes_at_a_time() {
    let bench = Bench::new();
    let claim = bench.server.bucket().join("site/.dor/publishing.json");
    fs::create_dir_all(claim.parent().unwrap()).unwrap();
    let now = chrono::Utc::now().to_rfc3339();
    let sign = |host: &str, renewed: &str| {
        format!(r#"{{"host":"{host}","process":1,"since":"{now}","renewed":"{renewed}"}}"#)
    };
    fs::write(&claim, sign("elsewhere", &now)).unwrap();
    let error = fails(&mut bench.publish(""), INTERRUPTED);
    assert!(error.contains("process 1 on elsewhere"), "{error}");
    assert!(bench.published().is_empty());
    fs::write(&claim, sign("elsewhere", "2020-01-01T00:00:00Z")).unwrap();
    bench.publish("").assert().success();
    assert!(!claim.exists());
}

#[test]
fn a_reader_of_the_destination_finds_what_was_altered_there() {
    let bench = Bench::new();
    bench.publish("--verify all").assert().success();
    let chunk = bench.server.bucket().join("site/maps.zarr/0/PH/112.0.1.3.0.0.0");
    let mut bytes = fs::read(&chunk).unwrap();
    bytes[20] ^= 1;
    fs::write(&chunk, &bytes).unwrap();
    fs::remove_file(bench.server.bucket().join("site/notes/about.txt")).unwrap();
    let failed = bench.publish("--verify all").assert().code(1);
    let said = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
    assert!(said.contains("wrong: maps.zarr/0/PH/112.0.1.3.0.0.0: its MD5 is"), "{said}");
    assert!(said.contains("wrong: notes/about.txt: it is missing"), "{said}");
    // The embedded server lists no MD5s: an audit finds what is missing or of another size.
    fs::write(&chunk, &bytes[1..]).unwrap();
    bench.publish("--audit").assert().success();
    assert_same(&bench.expected(), &bench.published());
}

#[test]
fn twenty_kills_leave_what_an_undisturbed_publish_leaves() {
    let seed = std::env::var("DOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("DOR_TEST_SEED={seed} gives these moments again");
    let mut random = StdRng::seed_from_u64(seed);
    let bench = Bench::new();
    for n in 0..400 {
        bench.write(&format!("site/many/{n}.bin"), &vec![n as u8; 20_000]);
    }
    let mut large = vec![0; 12 << 20];
    random.fill(&mut large[..]);
    bench.write("site/large.nc", &large);
    let expected = bench.expected();
    for _ in 0..20 {
        let mut command = Process::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().env("HOME", bench.work.folder()).current_dir(bench.work.folder());
        command.envs(bench.server.variables()).env("DOR_S3_PART_SIZE", (5 << 20).to_string());
        command.args(["publish", "site", "s3://bucket/site"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(20..600)));
        let _ = child.kill();
        child.wait().unwrap();
        for (name, bytes) in bench.published() {
            assert!(expected.get(&name) == Some(&bytes), "{name} is not what it should be");
        }
    }
    bench.publish("").env("DOR_S3_PART_SIZE", (5 << 20).to_string()).assert().success();
    assert_same(&expected, &bench.published());
    assert_eq!(bench.server.unfinished(), Vec::<String>::new());
}

#[test]
fn a_stop_leaves_what_the_next_run_goes_on_with() {
    let bench = Bench::new();
    for n in 0..300 {
        bench.write(&format!("site/many/{n}.bin"), &vec![n as u8; 20_000]);
    }
    let mut command = Process::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", bench.work.folder()).current_dir(bench.work.folder());
    command.envs(bench.server.variables());
    command.args(["publish", "site", "s3://bucket/site", "--bwlimit", "1M"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while bench.published().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED));
    let sent = bench.published().len();
    assert!(sent < 300, "it was not stopped");
    assert!(!bench.server.bucket().join("site/.dor/publishing.json").exists());
    let said = lines(&mut bench.publish("--json"));
    assert_eq!(said[0]["plan"]["same"]["objects"], sent);
    assert_same(&bench.expected(), &bench.published());
}

#[test]
fn minio_gets_the_same_with_checked_etags() {
    let Some(minio) = Minio::start() else { return };
    let bench = Bench::new();
    let mut large = vec![7; 12 << 20];
    large[99] = 1;
    bench.write("site/large.nc", &large);
    let publish = |more: &str| {
        let mut command = dor(bench.work.folder());
        command.envs(minio.variables()).env("DOR_S3_PART_SIZE", (5 << 20).to_string());
        let destination = format!("s3://{}/publish-{}", minio.bucket, std::process::id());
        command.args(["publish", "site", &destination]).args(more.split_whitespace());
        command
    };
    let said = lines(&mut publish("--json --cache-control max-age=60"));
    let etag = |key: &str| {
        let sent = said.iter().find(|line| line["sent"]["key"] == key).unwrap();
        (sent["sent"]["etag"].as_str().unwrap().to_owned(), sent["sent"]["md5"].clone())
    };
    let (about, md5) = etag("notes/about.txt");
    assert_eq!(about, md5.as_str().unwrap());
    assert!(etag("large.nc").0.ends_with("-3"));
    let said = lines(&mut publish("--json --audit --verify all"));
    assert_eq!(said[0]["plan"]["send"], Value::Null);
    assert_eq!(said[0]["plan"]["new"]["objects"], 0);
    assert_eq!(said[0]["plan"]["changed"]["objects"], 0);
    let verified = &said.last().unwrap()["summary"]["verified"];
    assert_eq!(verified["read"], bench.expected().len());
    assert_eq!(verified["wrong"], Value::Array(Vec::new()));
}
