//! File systems of computing centres, and limits of a process: what they cannot do is done without, and
//! what they refuse is told, and leaves nothing half written.

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

/// Nobody's user and group.
const NOBODY: u32 = 65534;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Names below a folder of files that a writer has not finished.
fn unfinished(work: &Workspace) -> Vec<String> {
    let names = work.tree("").into_keys();
    names.filter(|name| name.ends_with(".staged")).collect()
}

/// A plan of the case that lies there: written where there is none, never over another.
fn plan(work: &Workspace, output: &str) -> assert_cmd::Command {
    let mut plan = dor(work.folder());
    plan.args(["plan", "-o", "plan.json", "-d", "archive", "--output-dir", output, "-p", "112"]);
    plan.args(["--allow-missing", "--grid", "grid.nc", "--stages", "research"]);
    plan
}

#[test]
fn folders_that_cannot_be_synced_links_and_locks_are_done_without() {
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
        plan(&work, "out").envs(failing()).assert().success();
        let before = fs::read(work.path("plan.json")).unwrap();
        let again = plan(&work, "other").envs(failing()).output().unwrap();
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
    assert_eq!(unfinished(&work), Vec::<String>::new());
}

#[test]
fn a_call_that_a_signal_cuts_short_is_made_again() {
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
fn what_has_no_room_is_told_and_leaves_nothing() {
    let Some(shim) = Shim::build() else { return };
    let work = Workspace::new(1);
    for (call, error, said) in [
        ("WRITE", Errno::DQUOT, "uota exceeded"),
        ("WRITE", Errno::NOSPC, "No space left"),
        ("WRITE", Errno::FBIG, "File too large"),
        ("CLOSE", Errno::NOSPC, "No space left"),
        ("CLOSE", Errno::DQUOT, "uota exceeded"),
    ] {
        let failing = shim.failing(call, error.raw_os_error());
        let output = work.process(&[]).envs(failing).output().unwrap();
        assert!(!output.status.success() && told(&output).contains(said), "{}", told(&output));
        let left: Vec<_> = work.tree("out").into_keys().collect();
        assert_eq!(left, Vec::<String>::new(), "{call} {error}");
    }
    let failing = shim.failing("OPEN", Errno::MFILE.raw_os_error());
    let output = work.process(&[]).envs(failing).output().unwrap();
    assert!(told(&output).contains("ulimit -n"), "{}", told(&output));
}

/// Runs the program under a limit of the system.
fn limited(work: &Workspace, resource: fn() -> Resource, most: u64, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder()).args(words);
    let limit = move || {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        Ok(setrlimit(resource(), limit)?)
    };
    // SAFETY: setting a limit is one call of the system, which allocates nothing.
    unsafe { command.pre_exec(limit) };
    command.output().unwrap()
}

const PROCESS: [&str; 9] = [
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
fn limits_of_the_process_are_told() {
    let work = Workspace::new(1);
    let words = [&PROCESS[..], &["grid.nc"]].concat();
    let output = limited(&work, || Resource::Fsize, 3_000, &words);
    assert!(output.status.code().is_some_and(|code| code > 0), "{:?}", output.status);
    let said = told(&output);
    assert!(said.contains("File too large") && said.contains("ulimit -f"), "{said}");
    assert_eq!(work.tree("out").into_keys().collect::<Vec<_>>(), Vec::<String>::new());
    let output = limited(&work, || Resource::Nofile, 10, &words);
    let said = told(&output);
    assert!(!output.status.success() && said.contains("ulimit -n"), "{said}");
}

#[test]
fn files_of_the_future_and_long_names_are_published() {
    let work = Workspace::new(1);
    let later = SystemTime::now() + Duration::from_secs(400 * 24 * 3600);
    let dated = |name: &Path| {
        fs::File::options().write(true).open(name).unwrap().set_modified(later).unwrap();
    };
    dated(&work.raw(0));
    work.convert();
    let before = work.tree("out");
    work.convert();
    assert_same(&before, &work.tree("out"));
    fs::create_dir(work.path("site")).unwrap();
    let long = "n".repeat(255);
    fs::write(work.path("site").join(&long), "x").unwrap();
    dated(&work.path("site").join(&long));
    for _ in 0..2 {
        let mut publish = dor(work.folder());
        publish.args(["publish", "site", "published", "--audit"]).assert().success();
    }
    assert_eq!(fs::read(work.path("published").join(&long)).unwrap(), b"x");
}

/// The program as nobody, who may write to `out` and to `state`.
fn nobody(work: &Workspace, words: &[&str]) -> Output {
    let program = work.path("dor");
    if !program.exists() {
        // Where the program was built may be closed to others.
        // By another process: what other tests start meanwhile must not have it open for writing.
        let mut copy = Command::new("cp");
        assert!(copy.arg(env!("CARGO_BIN_EXE_dor")).arg(&program).status().unwrap().success());
        fs::create_dir(work.path("state")).unwrap();
        open(&work.path("state"), 0o777);
        open(work.folder(), 0o755);
    }
    let mut command = Command::new(program);
    command.env_clear().env("HOME", work.path("state")).current_dir(work.folder()).args(words);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_closed_to_us_is_passed_over_where_it_is_none_of_ours() {
    let work = Workspace::new(1);
    for name in ["archive/private", "out", "site", "published/lost+found", "dropbox"] {
        fs::create_dir_all(work.path(name)).unwrap();
    }
    fs::write(work.path("site/a"), "a").unwrap();
    open(&work.path("out"), 0o777);
    open(&work.path("published"), 0o777);
    open(&work.path("archive/private"), 0o700);
    open(&work.path("published/lost+found"), 0o700);
    // It takes files, and shows none.
    open(&work.path("dropbox"), 0o333);
    if !rustix::process::geteuid().is_root() {
        open(&work.path("archive/private"), 0);
        open(&work.path("published/lost+found"), 0);
    }
    let all = "research-data process-all-cases -d archive -o out --allow-missing --grid grid.nc";
    let output = nobody(&work, &all.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", told(&output));
    let output = nobody(&work, &["publish", "site", "published", "--audit"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(told(&output).matches("skipped: 1 ").count(), 1, "{}", told(&output));
    let output = nobody(&work, &["publish", "site", "dropbox"]);
    assert!(output.status.success(), "{}", told(&output));
    fs::create_dir_all(work.path("dropbox/112/04")).unwrap();
    open(&work.path("dropbox/112"), 0o333);
    open(&work.path("dropbox/112/04"), 0o333);
    let one =
        all.replace("process-all-cases", "process-case 112-04").replace("-o out", "-o dropbox");
    for done in ["1 file converted, 0 kept", "done before, 1 file"] {
        let output = nobody(&work, &one.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(done), "{said}{}", told(&output));
    }
    // In a source it may have been published: it is named, unless a pattern leaves it out.
    fs::create_dir(work.path("site/closed")).unwrap();
    open(&work.path("site/closed"), if rustix::process::geteuid().is_root() { 0o700 } else { 0 });
    let output = nobody(&work, &["publish", "site", "published"]);
    assert_eq!(output.status.code(), Some(78), "{}", told(&output));
    assert!(told(&output).contains("site/closed"), "{}", told(&output));
    let output = nobody(&work, &["publish", "site", "published", "--exclude", "closed/**"]);
    assert!(output.status.success(), "{}", told(&output));
    for name in [
        "archive/private",
        "published/lost+found",
        "dropbox",
        "dropbox/112",
        "dropbox/112/04",
        "site/closed",
    ] {
        open(&work.path(name), 0o755);
    }
}

#[test]
fn what_is_no_file_is_named_and_never_waited_on() {
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
        let (said, last) = (told(&output), name.rsplit('/').next().unwrap());
        assert!(said.contains("pipe") && said.contains(last), "{name}: {said}");
        fs::remove_file(work.path(name)).unwrap();
    }
    symlink("/dev/zero", work.path("site/b")).unwrap();
    let output = dor(work.folder()).args(publish.split(' ')).output().unwrap();
    assert!(told(&output).contains("site/b: a device"), "{}", told(&output));
}
