//! What must not be published is not, and is named.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails};
use super::super::support::proxy::Fault;
use super::{Bench, CONFIGURATION, MAPS, on_all};

/// Input that is not what it should be.
const BAD_DATA: i32 = 65;

#[test]
fn what_cannot_be_published_is_refused_before_anything_is_sent() {
    on_all(|bench| {
        let refused = |words: &[&str], more: &str, code: i32| {
            let error = fails(&mut bench.publish(more), code);
            for word in words {
                assert!(error.contains(word), "`{word}` is missing in: {error}");
            }
            assert!(!bench.has_changed_something());
        };
        let link = bench.work.path("site/notes/link.txt");
        symlink("nowhere", &link).unwrap();
        refused(&["notes/link.txt", "nowhere"], "", BAD_DATA);
        fs::remove_file(&link).unwrap();
        symlink("ring", bench.work.path("site/ring")).unwrap();
        refused(&["site/ring: a link to ring"], "", BAD_DATA);
        fs::remove_file(bench.work.path("site/ring")).unwrap();
        // What no object can be named cannot have been published either.
        for name in [&b"two\nlines"[..], b"\xff"] {
            let name = bench.work.path("site").join(OsStr::from_bytes(name));
            for is_folder in [false, true] {
                match is_folder {
                    true => fs::create_dir(&name).unwrap(),
                    false => fs::write(&name, "").unwrap(),
                }
                let output = bench.publish("--dry-run").output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{error}");
                // Beside what a writer has left in the bench.
                assert_eq!(error.matches("skipped: 2 with a name").count(), 1, "{error}");
                assert!(
                    said.contains("not published: 2 with a name that cannot be an object key"),
                    "{said}"
                );
                if is_folder { fs::remove_dir(&name) } else { fs::remove_file(&name) }.unwrap();
            }
        }
        bench.write("site/.hidden/x", b"x");
        bench.write("site/left#12", b"x");
        let output = bench.publish("--dry-run").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for words in ["not published: 2 hidden", "not published: 2 with a name"] {
            assert!(said.contains(words), "`{words}` is missing in: {said}");
        }
        fs::remove_dir_all(bench.work.path("site/.hidden")).unwrap();
        fs::remove_file(bench.work.path("site/left#12")).unwrap();
        let asked = "has nothing to publish: nothing in it matches the selection";
        refused(&[asked], "--include *.nothing", CONFIGURATION);
        let missing = "site has no complete case 113-04; make it first, or check --case";
        refused(&[missing], "--case 112-04 --case 113-04", CONFIGURATION);
        let error = fails(&mut bench.publish("--include ["), 2);
        assert!(error.contains("'--include <GLOB>'") && error.contains("unclosed"), "{error}");
        // Results that nobody has put together.
        let shared = bench.work.path(&format!("{MAPS}/.cases/shared.json"));
        fs::rename(&shared, bench.work.path("aside.json")).unwrap();
        refused(&["maps.zarr", "dor vis finalize"], "", CONFIGURATION);
        fs::rename(bench.work.path("aside.json"), &shared).unwrap();
        // The source in the destination.
        let mut within = dor(bench.work.folder());
        let error = fails(within.args(["publish", "site", "site/notes"]), CONFIGURATION);
        assert!(error.contains("lies within the other"), "{error}");
        symlink(bench.work.path("site"), bench.work.path("link")).unwrap();
        let mut within = dor(bench.work.folder());
        let error = fails(within.args(["publish", "site", "link/deep/er"]), CONFIGURATION);
        assert!(error.contains("lies within the other"), "{error}");
        // What cannot be written to.
        let mut web = dor(bench.work.folder());
        let error = fails(web.args(["publish", "site", "https://localhost:1/x"]), CONFIGURATION);
        assert!(error.contains("https://localhost:1/x"), "{error}");
        // A link that leads nowhere, left out.
        symlink("nowhere", &link).unwrap();
        let mut without = bench.publish("--exclude notes/link.txt --dry-run");
        without.assert().success();
        fs::remove_file(&link).unwrap();
        // A case of which there is no record yet.
        let month = "112/04/smyle.cdr-atlas-v0.glb-dor.112-1999-04.pop.h.0347-04.nc";
        bench.write(&format!("begun/{month}"), b"x");
        let mut begun = dor(bench.work.folder());
        let error = fails(begun.args(["publish", "begun", "out"]), CONFIGURATION);
        assert!(error.contains("112/04 is not complete"), "{error}");
        let mut broken = bench.publish("");
        let error = fails(broken.args(["--cache-control", "a\nb"]), 2);
        assert!(error.contains("printable ASCII"), "{error}");
        // Nothing at all.
        fs::remove_dir_all(bench.work.path("site")).unwrap();
        refused(&["site has nothing to publish: it does not exist"], "", CONFIGURATION);
        fs::write(bench.work.path("site"), "").unwrap();
        refused(&["site has nothing to publish: it is a file"], "", CONFIGURATION);
        fs::remove_file(bench.work.path("site")).unwrap();
        fs::create_dir(bench.work.path("site")).unwrap();
        refused(&["site has nothing to publish; give the folder"], "", CONFIGURATION);
    });
}

#[test]
fn a_case_of_a_map_store_that_has_lost_its_record_is_named() {
    on_all(|bench| {
        bench.publish("").assert().success();
        let before = bench.published();
        let record = bench.work.path(&format!("{MAPS}/.cases/112-04.json"));
        let text = fs::read_to_string(&record).unwrap();
        fs::remove_file(&record).unwrap();
        let said = bench.publish("--delete").assert().success().get_output().stdout.clone();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("not complete, so not sent: maps.zarr/112-04"), "{said}");
        assert_same(&before, &bench.published());
        // Of a new destination nothing of it is sent.
        let elsewhere = format!("s3://{}/site/new", bench.server.bucket());
        let mut command = dor(bench.work.folder());
        command.envs(bench.server.variables()).args(["publish", "site", &elsewhere]);
        command.assert().success();
        let there = bench.published();
        assert!(there.contains_key("new/maps.zarr/.zmetadata"));
        assert!(!there.keys().any(|key| key.starts_with("new/maps.zarr/0/PH/112.")), "{there:?}");
        // One that names what is not below it.
        let (head, own) = text.rsplit_once("\"key\": \"").unwrap();
        fs::write(&record, format!("{head}\"key\": \"../{own}")).unwrap();
        let error = fails(&mut bench.publish(""), BAD_DATA);
        assert!(error.contains("112-04.json") && error.contains("\"../"), "{error}");
        fs::write(&record, text).unwrap();
        bench.publish("").assert().success();
    });
}

#[test]
fn a_file_that_may_not_be_read_is_named_before_anything_is_sent() {
    on_all(|bench| {
        // Root may read all: somebody else publishes.
        const NOBODY: u32 = 65534;
        let open = |name: &str, mode: u32| {
            fs::set_permissions(bench.work.path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let is_root = rustix::process::geteuid().is_root();
        fs::create_dir(bench.work.path("state")).unwrap();
        open("state", 0o777);
        open("", 0o755);
        open("site/notes/about.txt", 0o000);
        let mut command = bench.publishing("");
        // Where the program was built may be closed to others.
        let program = bench.work.path("dor");
        // By another process: what other tests start meanwhile must not have it open for writing.
        let mut copied = std::process::Command::new("cp");
        copied.arg(env!("CARGO_BIN_EXE_dor")).arg(&program);
        assert!(copied.status().unwrap().success());
        let mut other = std::process::Command::new(program);
        other.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        other.args(command.get_args()).current_dir(bench.work.folder());
        other.env("DOR_STATE_DIR", bench.work.path("state"));
        if is_root {
            other.uid(NOBODY).gid(NOBODY);
        }
        command = other;
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(error.contains("notes/about.txt") && error.contains("ermission"), "{error}");
        assert!(!bench.has_changed_something());
    });
}

#[test]
fn a_file_that_is_not_what_its_record_tells_is_not_published() {
    on_all(|bench| {
        let name = "maps.zarr/0/PH/112.0.1.0.0.0.0";
        let path = bench.work.path("site").join(name);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = fails(&mut bench.publish(""), 1);
        let said = error.contains(name) && error.contains("MD5") && error.contains("make it again");
        assert!(said, "{error}");
        let failed = bench.publish("--json").assert().code(1);
        let said = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
        let lines: Vec<serde_json::Value> =
            said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["failed"]["key"] == name), "{said}");
        assert_eq!(lines.last().unwrap()["summary"]["failed"], 1);
        // What names it was not sent either.
        let there = bench.published();
        assert!(!there.contains_key(name) && !there.contains_key("maps.zarr/.zmetadata"));
        assert!(there.contains_key("maps.zarr/0/PH/112.1.1.0.0.0.0"));
    });
}

/// What a publish says that fails because the server answers so to each of many objects.
fn refuse_many(bench: &Bench, number: usize, fault: Fault) -> (String, String) {
    bench.write_many(number, 100);
    bench.server.fail_when(move |asked| {
        (asked.method == "PUT" && asked.target.contains("/many/")).then_some(fault)
    });
    let mut publish = bench.publish("--json");
    let failed = publish.env("DOR_S3_MAX_RETRIES", "1").assert().code(1);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&failed.get_output().stdout), text(&failed.get_output().stderr))
}

#[test]
fn of_many_that_fail_the_first_are_named_and_all_as_json() {
    on_all(|bench| {
        let (told, shown) = refuse_many(bench, 30, Fault::Answer(400, "InvalidArgument"));
        let number =
            |text: &str, begin: &str| text.lines().filter(|l| l.starts_with(begin)).count();
        assert_eq!(number(&shown, "failed: many/"), 20, "{shown}");
        assert_eq!(
            number(&shown, "more objects have failed; they are not listed here"),
            1,
            "{shown}"
        );
        assert_eq!(number(&told, r#"{"failed":{"#), 30, "{told}");
    });
}

#[test]
fn a_server_that_takes_nothing_any_more_is_not_asked_for_every_object() {
    on_all(|bench| {
        let (told, shown) = refuse_many(bench, 300, Fault::Answer(503, "SlowDown"));
        let failed = told.lines().filter(|line| line.starts_with(r#"{"failed":{"#)).count();
        assert!((8..100).contains(&failed), "{failed} of 300 were tried");
        let last = shown.lines().last().unwrap();
        assert!(last.contains("SlowDown") && last.contains("accepts no object"), "{shown}");
        assert!(last.contains("objects were not sent") && last.contains("run again"), "{shown}");
        bench.server.recover();
        bench.publish("").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_published() {
    on_all(|bench| {
        bench.write_large("site/large.nc", 64 << 20);
        bench.publish("--dry-run").assert().success();
        let mut command = bench.publishing("--bwlimit 20M");
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let is_under_way =
            || bench.server.requests().iter().any(|request| request.contains("partNumber="));
        while !is_under_way() {
            assert!(began.elapsed() < Duration::from_secs(60), "no part is sent");
            std::thread::sleep(Duration::from_millis(5));
        }
        let path = bench.work.path("site/large.nc");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("large.nc: changed while it was read"), "{error}");
        assert!(!bench.published().contains_key("large.nc"));
        assert_eq!(bench.server.unfinished("site/large.nc"), [""; 0]);
        // As it is now, it is published.
        bench.publish("").assert().success();
        assert!(bench.published().contains_key("large.nc"));
    });
}
