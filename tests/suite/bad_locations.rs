//! Locations that cannot be read or written: the message, the exit code, and what is left on the disk.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command as System;
use std::time::{Duration, Instant};

use assert_cmd::Command;

use super::support::case::{Workspace, assert_same, case, tree};
use super::support::dor::{dor, fails};
use super::support::s3::{BUCKET, Fault, S3Server};
use super::support::skipped;

const USAGE: i32 = 2;
const BAD_DATA: i32 = 65;
const CONFIGURATION: i32 = 78;

/// A conversion from `data` to `output` with the variables of `server` and then those of `more`.
fn convert_command(
    work: &Workspace,
    server: &S3Server,
    (data, output): (&str, &str),
    more: &[(&str, &str)],
) -> Command {
    let mut command = work.process_case(&["112-04", "-d", data, "-o", output, "--allow-missing"]);
    command.args(["--grid", "grid.nc"]).envs(server.variables()).envs(more.iter().copied());
    command
}

/// Asserts that a message contains all `words`.
#[track_caller]
fn assert_contains(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
}

#[test]
fn an_archive_that_is_a_file_or_below_one_is_refused() {
    let work = Workspace::new(1);
    for data in ["grid.nc", "grid.nc/archive"] {
        let mut command = work.process_case(&["112-04", "-d", data, "-o", "out"]);
        assert_contains(&fails(&mut command, CONFIGURATION), &["grid.nc"]);
        assert!(!work.path("out").exists());
    }
}

#[test]
fn links_pipes_sockets_and_folders_in_place_of_a_raw_file_are_refused() {
    let work = Workspace::new(3);
    let month = work.raw(1);
    let replacements: [(&str, &dyn Fn()); 5] = [
        ("a link to ../gone.nc, which does not exist", &|| symlink("../gone.nc", &month).unwrap()),
        ("a circular link", &|| symlink(&month, &month).unwrap()),
        ("a named pipe", &|| {
            assert!(System::new("mkfifo").arg(&month).status().unwrap().success());
        }),
        ("a socket", &|| {
            // The path that a socket is bound to has a length limit: bind a short one and move it.
            drop(UnixListener::bind(work.path("s")).unwrap());
            fs::rename(work.path("s"), &month).unwrap();
        }),
        ("a folder where a file is expected", &|| fs::create_dir(&month).unwrap()),
    ];
    for (description, create) in replacements {
        let _ = fs::remove_file(&month);
        create();
        let error = fails(&mut work.process(&[]), BAD_DATA);
        assert_contains(
            &error,
            &[month.file_name().unwrap().to_str().unwrap(), description, "move it away"],
        );
        assert!(!work.path("out").exists());
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused() {
    let work = Workspace::new(1);
    let before = tree(work.folder());
    for output in ["grid.nc/out", "https://example.invalid/out"] {
        let mut command = work.process_case(&["112-04", "-d", "archive", "-o", output]);
        command.args(["--allow-missing", "--grid", "grid.nc"]);
        assert_contains(&fails(&mut command, CONFIGURATION), &[output]);
        assert_same(&before, &tree(work.folder()));
    }
}

#[test]
fn the_root_folder_as_output_is_refused() {
    let work = Workspace::new(1);
    for output in ["file://", "file:///", "/"] {
        let error =
            fails(&mut work.process_case(&["112-04", "-d", "archive", "-o", output]), USAGE);
        assert_contains(&error, &[&format!("`{output}` is not a location"), "root of the disk"]);
    }
}

#[test]
fn an_output_that_overlaps_the_archive_is_refused() {
    let work = Workspace::new(1);
    std::os::unix::fs::symlink("archive", work.path("link")).unwrap();
    let absolute = format!("file://{}/", work.path("archive").display());
    let of_case = format!("archive/{}", case());
    let before = tree(work.folder());
    let pairs = [
        ("archive", "archive"),
        ("archive/", "new/../archive"),
        ("archive", &absolute),
        ("archive", "link"),
        ("link", &of_case),
        ("archive", &format!("{of_case}/out")),
        ("out/112/04/raw", "out"),
        ("s3://bucket/raw", "s3://bucket/raw/"),
        ("s3://bucket", &format!("s3://bucket/{}", case())),
    ];
    for (data, output) in pairs {
        let error =
            fails(&mut work.process_case(&["112-04", "-d", data, "-o", output]), CONFIGURATION);
        let data = format!("flag --data-dir: `{data}`");
        assert_contains(&error, &["`output_dir` from flag --output-dir", &data, "mixed"]);
    }
    assert_same(&before, &tree(work.folder()));
    let inside = ["112-04", "-d", "archive", "-o", "archive/new", "--dry-run", "--allow-missing"];
    work.process_case(&inside).assert().success();
}

#[test]
fn an_https_archive_cannot_be_listed() {
    let work = Workspace::new(1);
    let web = "https://example.invalid/archive";
    for verb in ["list-cases", "process-all-cases"] {
        let mut command = dor(work.folder());
        command.args(["research-data", verb, "-d", web]).env("DOR_OUTPUT_DIR", "out");
        assert_contains(&fails(&mut command, CONFIGURATION), &[web, "list", "s3://"]);
    }
}

#[test]
fn missing_buckets_and_rejected_credentials_are_reported() {
    let (work, server) = (Workspace::new(1), S3Server::start());
    let (output, absent_bucket) = (format!("s3://{BUCKET}/out"), "s3://nowhere/out");
    let from_disk = |output| ("archive", output);
    let absent = ["no bucket `nowhere`", "create it", &server.endpoint];
    assert_contains(
        &fails(&mut convert_command(&work, &server, from_disk(absent_bucket), &[]), CONFIGURATION),
        &absent,
    );
    let from = ("s3://nowhere/archive", output.as_str());
    assert_contains(
        &fails(&mut convert_command(&work, &server, from, &[]), CONFIGURATION),
        &absent,
    );

    let wrong_secret = [("AWS_SECRET_ACCESS_KEY", "wrong-secret")];
    let error = fails(
        &mut convert_command(&work, &server, from_disk(&output), &wrong_secret),
        CONFIGURATION,
    );
    assert_contains(&error, &["credentials were rejected", &output, "SignatureDoesNotMatch"]);
    assert!(!error.contains("wrong-secret"), "{error}");
    let unknown_key = [("AWS_ACCESS_KEY_ID", "nobody")];
    let error = fails(
        &mut convert_command(&work, &server, from_disk(&output), &unknown_key),
        CONFIGURATION,
    );
    assert_contains(&error, &["credentials were rejected"]);

    for (code, words) in [
        ("ExpiredToken", ["credentials have expired", "AWS_SESSION_TOKEN"]),
        ("InvalidToken", ["credentials were rejected", "unset AWS_SESSION_TOKEN"]),
        ("RequestTimeTooSkewed", ["RequestTimeTooSkewed", "set the clock"]),
    ] {
        server.fail_always(Fault::Answer(400, code));
        let error =
            fails(&mut convert_command(&work, &server, from_disk(&output), &[]), CONFIGURATION);
        assert_contains(&error, &words);
        assert_contains(&error, &[&output]);
    }
    assert!(tree(&server.bucket_folder()).is_empty());
}

#[test]
fn missing_and_failing_profiles_are_reported() {
    let (work, server) = (Workspace::new(1), S3Server::start());
    fs::create_dir(work.path(".aws")).unwrap();
    let files = "[profile mine]\ncredential_process = sh -c 'echo oops >&2; exit 3'\n";
    fs::write(work.path(".aws/config"), files).unwrap();
    let target = format!("s3://{BUCKET}/out");
    let to = ("archive", target.as_str());
    let absent = ["`nosuch`", "~/.aws/config", "~/.aws/credentials", "mine, minio, source-coop"];
    let flag = [("DOR_S3_PROFILE", "nosuch")];
    assert_contains(
        &fails(&mut convert_command(&work, &server, to, &flag), CONFIGURATION),
        &absent,
    );
    let variable = [("AWS_PROFILE", "nosuch")];
    let mut command = convert_command(&work, &server, to, &variable);
    command.env_remove("AWS_ACCESS_KEY_ID");
    assert_contains(&fails(&mut command, CONFIGURATION), &absent);
    let failing = [("DOR_S3_PROFILE", "mine")];
    let error = fails(&mut convert_command(&work, &server, to, &failing), CONFIGURATION);
    assert_contains(&error, &["no credentials", "profile mine"]);
    assert_eq!(error.matches("oops").count(), 1, "{error}");
}

#[test]
fn a_server_that_refuses_connections_is_reported_with_one_warning() {
    let (work, server) = (Workspace::new(1), S3Server::start());
    let closed_port = [("DOR_S3_ENDPOINT_URL", "http://127.0.0.1:9")];
    let target = format!("s3://{BUCKET}/out");
    let error = fails(&mut convert_command(&work, &server, ("archive", &target), &closed_port), 1);
    assert_contains(&error, &["WARN", "127.0.0.1:9 fails", "trying again", "check the endpoint"]);
    assert_eq!(error.matches("WARN").count(), 1, "{error}");
    assert_eq!(error.matches("Connection refused").count(), 2, "{error}");
}

#[test]
fn a_conversion_stopped_by_expired_credentials_is_completed_later() {
    let (work, server) = (Workspace::new(4), S3Server::start());
    let target = format!("s3://{BUCKET}/out");
    // The listing of the output and some writes still succeed.
    server.fail_after(4, Fault::Answer(400, "ExpiredToken"));
    let error =
        fails(&mut convert_command(&work, &server, ("archive", &target), &[]), CONFIGURATION);
    assert_contains(&error, &["credentials have expired", &target]);
    server.recover();
    assert!(!server.bucket_folder().join("out/112/04/manifest.json").exists());
    convert_command(&work, &server, ("archive", &target), &[]).assert().success();
    work.convert();
    assert_same(&work.tree("out"), &tree(&server.bucket_folder().join("out")));
    assert!(server.unfinished().is_empty());
}

#[test]
fn a_conversion_stopped_by_a_server_failure_is_completed_later() {
    let (work, server) = (Workspace::new(4), S3Server::start());
    let target = format!("s3://{BUCKET}/out");
    server.fail_after(4, Fault::Cut);
    let began = Instant::now();
    let error = fails(&mut convert_command(&work, &server, ("archive", &target), &[]), 1);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_contains(&error, &[&target, " failed", "try again later"]);
    server.recover();
    assert!(!server.bucket_folder().join("out/112/04/manifest.json").exists());
    convert_command(&work, &server, ("archive", &target), &[]).assert().success();
    work.convert();
    assert_same(&work.tree("out"), &tree(&server.bucket_folder().join("out")));
}

/// A mounted tmpfs; dropping the value unmounts it.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    /// `None`, with a message that the test is skipped, where mounting is not allowed.
    fn mount(folder: &'a Path, size: &str) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let options = format!("size={size}");
        let mount = System::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                skipped(&format!("a full disk needs `mount`, which is not allowed: {other:?}"));
                None
            }
        }
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let done = System::new("mount").args(["-o", &option]).arg(self.0).status();
        assert!(done.unwrap().success(), "{option}");
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = System::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_conversion_stopped_by_a_full_disk_is_completed_later() {
    let work = Workspace::new(20);
    let folder = work.path("full");
    let Some(disk) = Tmpfs::mount(&folder, "512k") else { return };
    let arguments =
        ["112-04", "-d", "archive", "-o", "full", "--allow-missing", "--grid", "grid.nc"];
    let error = fails(&mut work.process_case(&arguments), 1);
    assert_contains(
        &error,
        &["no space left", "full/112/04/", "free some", " converted, ", " not tried"],
    );
    let reported = error.lines().filter(|line| line.starts_with("failed: ")).count();
    assert!(reported <= 4, "{error}");
    let left = tree(&folder);
    assert!(!left.contains_key("112/04/manifest.json"));
    assert!(left.keys().all(|name| !name.ends_with(".staged")), "{:?}", left.keys());
    work.convert();
    let expected = work.tree("out");
    for (name, bytes) in left.iter().filter(|(name, _)| name.ends_with(".nc")) {
        assert!(&expected[name] == bytes, "{name} is incomplete");
    }
    disk.remount("size=64m");
    work.process_case(&arguments).assert().success();
    assert_same(&expected, &tree(&folder));
}

#[test]
fn a_read_only_disk_is_refused() {
    let work = Workspace::new(2);
    let folder = work.path("fixed");
    let Some(disk) = Tmpfs::mount(&folder, "1m") else { return };
    disk.remount("ro");
    let arguments =
        ["112-04", "-d", "archive", "-o", "fixed", "--allow-missing", "--grid", "grid.nc"];
    let error = fails(&mut work.process_case(&arguments), CONFIGURATION);
    assert_contains(&error, &["read-only", "fixed"]);
    assert!(tree(&folder).is_empty());
}
