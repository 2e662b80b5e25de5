//! File systems of computing centers and limits of a process: missing features are worked around, and
//! errors are reported and leave no incomplete file.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

use super::support::case::{Workspace, assert_same};
use super::support::dor::dor;
use super::support::shim::Shim;

/// User and group id of `nobody`.
const NOBODY: u32 = 65534;

/// Standard error as text.
fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Temporary files in the workspace.
fn temporary_files(work: &Workspace) -> Vec<String> {
    let names = work.tree("").into_keys();
    names.filter(|name| name.ends_with(".staged")).collect()
}

/// `dor plan` of the case in the workspace. It writes `plan.json` and never replaces another plan.
fn plan_command(work: &Workspace, output: &str) -> assert_cmd::Command {
    let mut plan = dor(work.folder());
    plan.args(["plan", "-o", "plan.json", "-d", "archive", "--output-dir", output, "-p", "112"]);
    plan.args(["--allow-missing", "--grid", "grid.nc", "--stages", "research"]);
    plan
}

#[test]
fn results_are_complete_where_fsync_link_or_flock_fail() {
    let Some(shim) = Shim::build() else { return };
    let work = Workspace::new(2);
    work.convert();
    let expected = work.tree("out");
    let errors = [Errno::INVAL, Errno::NOTSUP, Errno::NOSYS, Errno::PERM, Errno::ACCESS];
    for error in errors {
        fs::remove_dir_all(work.path("out")).unwrap();
        let failing = shim.failing("SYNC_FOLDER", error.raw_os_error());
        work.process(&[]).envs(failing).assert().success();
        assert_same(&expected, &work.tree("out"));
    }
    for error in [Errno::PERM, Errno::NOTSUP, Errno::NOSYS, Errno::MLINK] {
        let failing = || shim.failing("LINK", error.raw_os_error());
        plan_command(&work, "out").envs(failing()).assert().success();
        let before = fs::read(work.path("plan.json")).unwrap();
        let again = plan_command(&work, "other").envs(failing()).output().unwrap();
        assert!(!again.status.success());
        assert_eq!(fs::read(work.path("plan.json")).unwrap(), before);
        fs::remove_file(work.path("plan.json")).unwrap();
        let mut publish = dor(work.folder());
        publish.args(["publish", "out", &format!("published-{}", error.raw_os_error())]);
        publish.envs(failing()).assert().success();
    }
    for error in [Errno::NOLCK, Errno::NOTSUP] {
        fs::remove_dir_all(work.path("out")).unwrap();
        work.process(&[]).envs(shim.failing("LOCK", error.raw_os_error())).assert().success();
        assert_same(&expected, &work.tree("out"));
    }
    assert_eq!(temporary_files(&work), Vec::<String>::new());
}

#[test]
fn interrupted_system_calls_are_repeated() {
    let Some(shim) = Shim::build() else { return };
    let work = Workspace::new(2);
    work.convert();
    let expected = work.tree("out");
    fs::remove_dir_all(work.path("out")).unwrap();
    work.process(&[]).envs(shim.failing("EINTR", 1)).assert().success();
    assert_same(&expected, &work.tree("out"));
    let mut publish = dor(work.folder());
    publish.args(["publish", "out", "published"]).envs(shim.failing("EINTR", 1));
    publish.assert().success();
}

#[test]
fn write_errors_are_reported_and_leave_no_files() {
    let Some(shim) = Shim::build() else { return };
    let work = Workspace::new(1);
    for (call, error, expected) in [
        ("WRITE", Errno::DQUOT, "uota exceeded"),
        ("WRITE", Errno::NOSPC, "No space left"),
        ("WRITE", Errno::FBIG, "File too large"),
        ("CLOSE", Errno::NOSPC, "No space left"),
        ("CLOSE", Errno::DQUOT, "uota exceeded"),
    ] {
        let failing = shim.failing(call, error.raw_os_error());
        let output = work.process(&[]).envs(failing).output().unwrap();
        assert!(
            !output.status.success() && stderr_of(&output).contains(expected),
            "{}",
            stderr_of(&output)
        );
        let left: Vec<_> = work.tree("out").into_keys().collect();
        assert_eq!(left, Vec::<String>::new(), "{call} {error}");
    }
    let failing = shim.failing("OPEN", Errno::MFILE.raw_os_error());
    let output = work.process(&[]).envs(failing).output().unwrap();
    assert!(stderr_of(&output).contains("ulimit -n"), "{}", stderr_of(&output));
}

/// Runs the program with a resource limit.
fn run_with_limit(
    work: &Workspace,
    resource: fn() -> Resource,
    most: u64,
    words: &[&str],
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder()).args(words);
    let limit = move || {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        Ok(setrlimit(resource(), limit)?)
    };
    // SAFETY: `setrlimit` is one system call and allocates nothing.
    unsafe { command.pre_exec(limit) };
    command.output().unwrap()
}

const PROCESS_CASE: [&str; 9] = [
    "research-data",
    "process-case",
    "112-04",
    "-d",
    "archive",
    "-o",
    "out",
    "--allow-missing",
    "--grid",
];

#[test]
fn exceeded_process_limits_are_reported() {
    let work = Workspace::new(1);
    let words = [&PROCESS_CASE[..], &["grid.nc"]].concat();
    let output = run_with_limit(&work, || Resource::Fsize, 3_000, &words);
    assert!(output.status.code().is_some_and(|code| code > 0), "{:?}", output.status);
    let stderr = stderr_of(&output);
    assert!(stderr.contains("File too large") && stderr.contains("ulimit -f"), "{stderr}");
    assert_eq!(work.tree("out").into_keys().collect::<Vec<_>>(), Vec::<String>::new());
    let output = run_with_limit(&work, || Resource::Nofile, 10, &words);
    let stderr = stderr_of(&output);
    assert!(!output.status.success() && stderr.contains("ulimit -n"), "{stderr}");
}

#[test]
fn files_with_future_times_and_long_names_are_published() {
    let work = Workspace::new(1);
    let future = SystemTime::now() + Duration::from_secs(400 * 24 * 3600);
    let set_future_time = |name: &Path| {
        fs::File::options().write(true).open(name).unwrap().set_modified(future).unwrap();
    };
    set_future_time(&work.raw(0));
    work.convert();
    let before = work.tree("out");
    work.convert();
    assert_same(&before, &work.tree("out"));
    fs::create_dir(work.path("site")).unwrap();
    let long = "n".repeat(255);
    fs::write(work.path("site").join(&long), "x").unwrap();
    set_future_time(&work.path("site").join(&long));
    for _ in 0..2 {
        let mut publish = dor(work.folder());
        publish.args(["publish", "site", "published", "--audit"]).assert().success();
    }
    assert_eq!(fs::read(work.path("published").join(&long)).unwrap(), b"x");
}

/// Runs a copy of the program as `nobody`, with `state` as its home.
fn run_as_nobody(work: &Workspace, words: &[&str]) -> Output {
    let program = work.path("dor");
    if !program.exists() {
        // `nobody` may have no access to the build folder. `cp` writes the copy: if this process did, the
        // children of other tests could inherit the open file, and it could not be executed.
        let mut copy = Command::new("cp");
        assert!(copy.arg(env!("CARGO_BIN_EXE_dor")).arg(&program).status().unwrap().success());
        fs::create_dir(work.path("state")).unwrap();
        set_mode(&work.path("state"), 0o777);
        set_mode(work.folder(), 0o755);
    }
    let mut command = Command::new(program);
    command.env_clear().env("HOME", work.path("state")).current_dir(work.folder()).args(words);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn closed_folders_are_skipped_except_in_the_source_of_a_publish() {
    let work = Workspace::new(1);
    for name in ["archive/private", "out", "site", "published/lost+found", "dropbox"] {
        fs::create_dir_all(work.path(name)).unwrap();
    }
    fs::write(work.path("site/a"), "a").unwrap();
    set_mode(&work.path("out"), 0o777);
    set_mode(&work.path("published"), 0o777);
    set_mode(&work.path("archive/private"), 0o700);
    set_mode(&work.path("published/lost+found"), 0o700);
    // It can be written to, and not be listed.
    set_mode(&work.path("dropbox"), 0o333);
    if !rustix::process::geteuid().is_root() {
        set_mode(&work.path("archive/private"), 0);
        set_mode(&work.path("published/lost+found"), 0);
    }
    let all = "research-data process-all-cases -d archive -o out --allow-missing --grid grid.nc";
    let output = run_as_nobody(&work, &all.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", stderr_of(&output));
    let output = run_as_nobody(&work, &["publish", "site", "published", "--audit"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    assert_eq!(stderr_of(&output).matches("skipped: 1 ").count(), 1, "{}", stderr_of(&output));
    let output = run_as_nobody(&work, &["publish", "site", "dropbox"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    fs::create_dir_all(work.path("dropbox/112/04")).unwrap();
    set_mode(&work.path("dropbox/112"), 0o333);
    set_mode(&work.path("dropbox/112/04"), 0o333);
    let one =
        all.replace("process-all-cases", "process-case 112-04").replace("-o out", "-o dropbox");
    for done in ["1 file converted, 0 kept", "done before, 1 file"] {
        let output = run_as_nobody(&work, &one.split(' ').collect::<Vec<_>>());
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && stdout.contains(done), "{stdout}{}", stderr_of(&output));
    }
    // A closed folder of the source may have been published: it is an error, unless it is excluded.
    fs::create_dir(work.path("site/closed")).unwrap();
    set_mode(
        &work.path("site/closed"),
        if rustix::process::geteuid().is_root() { 0o700 } else { 0 },
    );
    let output = run_as_nobody(&work, &["publish", "site", "published"]);
    assert_eq!(output.status.code(), Some(78), "{}", stderr_of(&output));
    assert!(stderr_of(&output).contains("site/closed"), "{}", stderr_of(&output));
    let output = run_as_nobody(&work, &["publish", "site", "published", "--exclude", "closed/**"]);
    assert!(output.status.success(), "{}", stderr_of(&output));
    for name in [
        "archive/private",
        "published/lost+found",
        "dropbox",
        "dropbox/112",
        "dropbox/112/04",
        "site/closed",
    ] {
        set_mode(&work.path(name), 0o755);
    }
}

#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let work = Workspace::new(1);
    let pipe = |name: &str| {
        let path = work.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    };
    let publish = "publish site published";
    fs::create_dir(work.path("site")).unwrap();
    fs::write(work.path("site/a"), "a").unwrap();
    let convert =
        "research-data process-case 112-04 -d archive -o out --allow-missing --grid grid.nc";
    for (name, words) in [
        ("dor.toml", "config show"),
        ("other.toml", "--config other.toml config show"),
        ("plan.json", "status --plan plan.json"),
        ("g.nc", &convert.replace("grid.nc", "g.nc")),
        ("out/112/04/manifest.json", convert),
        ("published/.dor/manifest.jsonl.gz", publish),
        ("published/.dor/manifest.next.jsonl.gz", publish),
        ("published/.dor/lease.json", publish),
        ("published/a", publish),
        ("site/b", publish),
    ] {
        pipe(name);
        let mut command = dor(work.folder());
        command.args(words.split(' ')).timeout(Duration::from_secs(20));
        let output = command.output().unwrap();
        assert!(output.status.code().is_some_and(|code| code > 0), "{name}: {:?}", output.status);
        let (stderr, last) = (stderr_of(&output), name.rsplit('/').next().unwrap());
        assert!(stderr.contains("pipe") && stderr.contains(last), "{name}: {stderr}");
        fs::remove_file(work.path(name)).unwrap();
    }
    symlink("/dev/zero", work.path("site/b")).unwrap();
    let output = dor(work.folder()).args(publish.split(' ')).output().unwrap();
    assert!(stderr_of(&output).contains("site/b: a device"), "{}", stderr_of(&output));
}
