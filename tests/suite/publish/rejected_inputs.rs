//! Sources, options and files that `dor publish` must refuse and name.

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
use super::{CONFIGURATION, Fixture, MAPS, for_each_server};

/// Exit code of invalid input.
const BAD_DATA: i32 = 65;

#[test]
fn invalid_sources_destinations_and_options_are_refused_before_anything_is_sent() {
    for_each_server(|fixture| {
        let assert_refused = |words: &[&str], more: &str, code: i32| {
            let error = fails(&mut fixture.publish(more), code);
            for word in words {
                assert!(error.contains(word), "`{word}` is missing in: {error}");
            }
            assert!(!fixture.has_changed_objects());
        };
        let link = fixture.work.path("site/notes/link.txt");
        symlink("nowhere", &link).unwrap();
        assert_refused(&["notes/link.txt", "nowhere"], "", BAD_DATA);
        fs::remove_file(&link).unwrap();
        symlink("ring", fixture.work.path("site/ring")).unwrap();
        assert_refused(&["site/ring: a link to ring"], "", BAD_DATA);
        fs::remove_file(fixture.work.path("site/ring")).unwrap();
        // A name that cannot be an object key is skipped: it cannot have been published before.
        for name in [&b"two\nlines"[..], b"\xff"] {
            let name = fixture.work.path("site").join(OsStr::from_bytes(name));
            for is_folder in [false, true] {
                match is_folder {
                    true => fs::create_dir(&name).unwrap(),
                    false => fs::write(&name, "").unwrap(),
                }
                let output = fixture.publish("--dry-run").output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr).into_owned();
                let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{error}");
                // Two: this one and the unfinished file `half.nc#1` of the fixture.
                assert_eq!(error.matches("skipped: 2 with a name").count(), 1, "{error}");
                assert!(
                    stdout.contains("not published: 2 with a name that cannot be an object key"),
                    "{stdout}"
                );
                if is_folder { fs::remove_dir(&name) } else { fs::remove_file(&name) }.unwrap();
            }
        }
        fixture.write("site/.hidden/x", b"x");
        fixture.write("site/left#12", b"x");
        let output = fixture.publish("--dry-run").output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        for words in ["not published: 2 hidden", "not published: 2 with a name"] {
            assert!(stdout.contains(words), "`{words}` is missing in: {stdout}");
        }
        fs::remove_dir_all(fixture.work.path("site/.hidden")).unwrap();
        fs::remove_file(fixture.work.path("site/left#12")).unwrap();
        let no_match = "has nothing to publish: nothing in it matches the selection";
        assert_refused(&[no_match], "--include *.nothing", CONFIGURATION);
        let missing = "site has no complete case 113-04; make it first, or check --case";
        assert_refused(&[missing], "--case 112-04 --case 113-04", CONFIGURATION);
        let error = fails(&mut fixture.publish("--include ["), 2);
        assert!(error.contains("'--include <GLOB>'") && error.contains("unclosed"), "{error}");
        // A map store that is not finalized.
        let shared = fixture.work.path(&format!("{MAPS}/.cases/shared.json"));
        fs::rename(&shared, fixture.work.path("aside.json")).unwrap();
        assert_refused(&["maps.zarr", "dor vis finalize"], "", CONFIGURATION);
        fs::rename(fixture.work.path("aside.json"), &shared).unwrap();
        // A destination within the source.
        let mut within = dor(fixture.work.folder());
        let error = fails(within.args(["publish", "site", "site/notes"]), CONFIGURATION);
        assert!(error.contains("lies within the other"), "{error}");
        symlink(fixture.work.path("site"), fixture.work.path("link")).unwrap();
        let mut within = dor(fixture.work.folder());
        let error = fails(within.args(["publish", "site", "link/deep/er"]), CONFIGURATION);
        assert!(error.contains("lies within the other"), "{error}");
        // A destination that is read-only.
        let mut web = dor(fixture.work.folder());
        let error = fails(web.args(["publish", "site", "https://localhost:1/x"]), CONFIGURATION);
        assert!(error.contains("https://localhost:1/x"), "{error}");
        // A dangling link that a pattern excludes is accepted.
        symlink("nowhere", &link).unwrap();
        let mut without = fixture.publish("--exclude notes/link.txt --dry-run");
        without.assert().success();
        fs::remove_file(&link).unwrap();
        // A case without a case manifest.
        let month = "112/04/smyle.cdr-atlas-v0.glb-dor.112-1999-04.pop.h.0347-04.nc";
        fixture.write(&format!("begun/{month}"), b"x");
        let mut begun = dor(fixture.work.folder());
        let error = fails(begun.args(["publish", "begun", "out"]), CONFIGURATION);
        assert!(error.contains("112/04 is not complete"), "{error}");
        let mut broken = fixture.publish("");
        let error = fails(broken.args(["--cache-control", "a\nb"]), 2);
        assert!(error.contains("printable ASCII"), "{error}");
        // A source that is absent, a file, or empty.
        fs::remove_dir_all(fixture.work.path("site")).unwrap();
        assert_refused(&["site has nothing to publish: it does not exist"], "", CONFIGURATION);
        fs::write(fixture.work.path("site"), "").unwrap();
        assert_refused(&["site has nothing to publish: it is a file"], "", CONFIGURATION);
        fs::remove_file(fixture.work.path("site")).unwrap();
        fs::create_dir(fixture.work.path("site")).unwrap();
        assert_refused(&["site has nothing to publish; give the folder"], "", CONFIGURATION);
    });
}

#[test]
fn a_case_of_a_map_store_without_its_case_manifest_is_named_and_not_sent() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        let before = fixture.published();
        let case_manifest = fixture.work.path(&format!("{MAPS}/.cases/112-04.json"));
        let text = fs::read_to_string(&case_manifest).unwrap();
        fs::remove_file(&case_manifest).unwrap();
        let output = fixture.publish("--delete").output().unwrap();
        assert!(output.status.success());
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("not complete, so not sent: maps.zarr/112-04"), "{stdout}");
        assert_same(&before, &fixture.published());
        // At a new destination, the rest of the store is published without this case.
        let new_destination = format!("s3://{}/site/new", fixture.server.bucket());
        let mut command = dor(fixture.work.folder());
        command.envs(fixture.server.variables()).args(["publish", "site", &new_destination]);
        command.assert().success();
        let published = fixture.published();
        assert!(published.contains_key("new/maps.zarr/.zmetadata"));
        let is_of_case = |key: &String| key.starts_with("new/maps.zarr/0/PH/112.");
        assert!(!published.keys().any(is_of_case), "{published:?}");
        // A case manifest with a key outside of its store.
        let (head, tail) = text.rsplit_once("\"key\": \"").unwrap();
        fs::write(&case_manifest, format!("{head}\"key\": \"../{tail}")).unwrap();
        let error = fails(&mut fixture.publish(""), BAD_DATA);
        assert!(error.contains("112-04.json") && error.contains("\"../"), "{error}");
        fs::write(&case_manifest, text).unwrap();
        fixture.publish("").assert().success();
    });
}

#[test]
fn a_file_without_read_permission_is_named_before_anything_is_sent() {
    for_each_server(|fixture| {
        // Root may read every file: as root, the test publishes as another user.
        const NOBODY: u32 = 65534;
        let set_mode = |name: &str, mode: u32| {
            fs::set_permissions(fixture.work.path(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        let is_root = rustix::process::geteuid().is_root();
        fs::create_dir(fixture.work.path("state")).unwrap();
        set_mode("state", 0o777);
        set_mode("", 0o755);
        set_mode("site/notes/about.txt", 0o000);
        let mut command = fixture.publish_process("");
        // The other user may not have access to the build folder.
        let program = fixture.work.path("dor");
        // Copied by another process: a process that another test starts meanwhile would inherit the
        // open file, and a file that is open for writing cannot be executed.
        let mut copy = std::process::Command::new("cp");
        copy.arg(env!("CARGO_BIN_EXE_dor")).arg(&program);
        assert!(copy.status().unwrap().success());
        let mut other = std::process::Command::new(program);
        other.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        other.args(command.get_args()).current_dir(fixture.work.folder());
        other.env("DOR_STATE_DIR", fixture.work.path("state"));
        if is_root {
            other.uid(NOBODY).gid(NOBODY);
        }
        command = other;
        let output = command.stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(error.contains("notes/about.txt") && error.contains("ermission"), "{error}");
        assert!(!fixture.has_changed_objects());
    });
}

#[test]
fn a_file_that_differs_from_its_case_manifest_is_not_published() {
    for_each_server(|fixture| {
        let name = "maps.zarr/0/PH/112.0.1.0.0.0.0";
        let path = fixture.work.path("site").join(name);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = fails(&mut fixture.publish(""), 1);
        for part in [name, "MD5", "make it again"] {
            assert!(error.contains(part), "`{part}` is missing in: {error}");
        }
        let failed = fixture.publish("--json").assert().code(1);
        let stdout = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
        let lines: Vec<serde_json::Value> =
            stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(lines.iter().any(|line| line["failed"]["key"] == name), "{stdout}");
        assert_eq!(lines.last().unwrap()["summary"]["failed"], 1);
        // The metadata that names the chunk is not sent either; other chunks are.
        let published = fixture.published();
        assert!(!published.contains_key(name) && !published.contains_key("maps.zarr/.zmetadata"));
        assert!(published.contains_key("maps.zarr/0/PH/112.1.1.0.0.0.0"));
    });
}

/// Publishes `number` objects that the server answers with `fault`. Returns standard output and standard
/// error.
fn publish_with_failing_objects(
    fixture: &Fixture,
    number: usize,
    fault: Fault,
) -> (String, String) {
    fixture.write_many(number, 100);
    fixture.server.fail_when(move |request| {
        (request.method == "PUT" && request.target.contains("/many/")).then_some(fault)
    });
    let mut publish = fixture.publish("--json");
    let failed = publish.env("DOR_S3_MAX_RETRIES", "1").assert().code(1);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&failed.get_output().stdout), text(&failed.get_output().stderr))
}

#[test]
fn text_output_names_twenty_failed_objects_and_json_output_names_all() {
    for_each_server(|fixture| {
        let (stdout, stderr) =
            publish_with_failing_objects(fixture, 30, Fault::Answer(400, "InvalidArgument"));
        let count = |text: &str, begin: &str| text.lines().filter(|l| l.starts_with(begin)).count();
        assert_eq!(count(&stderr, "failed: many/"), 20, "{stderr}");
        assert_eq!(
            count(&stderr, "more objects have failed; they are not listed here"),
            1,
            "{stderr}"
        );
        assert_eq!(count(&stdout, r#"{"failed":{"#), 30, "{stdout}");
    });
}

#[test]
fn a_publish_gives_up_when_the_server_accepts_no_object_any_more() {
    for_each_server(|fixture| {
        let (stdout, stderr) =
            publish_with_failing_objects(fixture, 300, Fault::Answer(503, "SlowDown"));
        let failed = stdout.lines().filter(|line| line.starts_with(r#"{"failed":{"#)).count();
        assert!((8..100).contains(&failed), "{failed} of 300 were tried");
        let last = stderr.lines().last().unwrap();
        assert!(last.contains("SlowDown") && last.contains("accepts no object"), "{stderr}");
        assert!(last.contains("objects were not sent") && last.contains("run again"), "{stderr}");
        fixture.server.recover();
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_published() {
    for_each_server(|fixture| {
        fixture.write_large("site/large.nc", 64 << 20);
        fixture.publish("--dry-run").assert().success();
        let mut command = fixture.publish_process("--bwlimit 20M");
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let has_sent_part =
            || fixture.server.requests().iter().any(|request| request.contains("partNumber="));
        while !has_sent_part() {
            assert!(began.elapsed() < Duration::from_secs(60), "no part sent after 60 seconds");
            std::thread::sleep(Duration::from_millis(5));
        }
        let path = fixture.work.path("site/large.nc");
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("large.nc: changed while it was read"), "{error}");
        assert!(!fixture.published().contains_key("large.nc"));
        assert_eq!(fixture.server.unfinished("site/large.nc"), [""; 0]);
        // The next publish sends the new version of the file.
        fixture.publish("").assert().success();
        assert!(fixture.published().contains_key("large.nc"));
    });
}
