//! Conversions that are killed, told to stop, or run twice at once: at the end the tree is that of
//! an undisturbed run.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use super::support::case::{Tree, Workspace, assert_same, output_key};

/// Starts a conversion into `output`, to be killed.
fn start(work: &Workspace, output: &str) -> Child {
    start_with(work, output, &["--grid", "grid.nc"])
}

fn start_with(work: &Workspace, output: &str, settings: &[&str]) -> Child {
    // Tests may themselves run under nohup, which would have hangups ignored.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_dor")]);
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
    command.args(["research-data", "process-case", "112-04", "-d", "archive", "-o", output]);
    command.args(settings).args(["--allow-missing", "-w", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the first file has its final name; looks at names only, so that it is not late.
fn wait_for_first(work: &Workspace, output: &str) {
    let folder = work.path(output).join("112/04");
    let began = Instant::now();
    let is_whole = |entry: fs::DirEntry| entry.path().extension().is_some_and(|e| e == "nc");
    while !fs::read_dir(&folder).is_ok_and(|mut all| all.any(|entry| entry.is_ok_and(is_whole))) {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Files under their final names.
fn whole(tree: &Tree) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    tree.iter().filter(|(name, _)| name.ends_with(".nc"))
}

#[track_caller]
fn assert_part_of(left: &Tree, undisturbed: &Tree) {
    for (name, bytes) in whole(left) {
        assert!(undisturbed.get(name) == Some(bytes), "{name} is not what it should be");
    }
}

#[test]
fn twenty_kills_leave_the_tree_of_an_undisturbed_run() {
    let seed = std::env::var("DOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("DOR_TEST_SEED={seed} gives these moments again");
    let mut random = StdRng::seed_from_u64(seed);
    let work = Workspace::new(100);
    let began = Instant::now();
    work.convert();
    let took = began.elapsed();
    let undisturbed = work.tree("out");
    assert_eq!(undisturbed.len(), 101);

    let mut seen = [0; 3];
    for _ in 0..20 {
        // Reading the headers takes a while before the first file; later runs have less to do.
        let moment = took.mul_f64(random.random_range(0.02..0.35));
        let mut child = start(&work, "killed");
        std::thread::sleep(moment);
        let _ = child.kill();
        child.wait().unwrap();
        let left = work.tree("killed");
        assert_part_of(&left, &undisturbed);
        if left.contains_key("112/04/manifest.json") {
            // Begun anew, so that the other kills hit work as well.
            assert!(start(&work, "killed").wait().unwrap().success());
            assert_same(&undisturbed, &work.tree("killed"));
            fs::remove_dir_all(work.path("killed")).unwrap();
        }
        seen[0] += usize::from(whole(&left).next().is_some());
        seen[1] += usize::from(left.keys().any(|name| name.ends_with(".staged")));
        seen[2] += usize::from(left.contains_key("112/04/manifest.partial.json"));
    }
    println!(
        "after a kill: outputs {}, unfinished files {}, records {} times",
        seen[0], seen[1], seen[2]
    );
    assert!(seen[0] > 0 && seen[2] > 0, "no kill hit the work: {seen:?} in {took:?}");
    let mut last = start(&work, "killed");
    assert!(last.wait().unwrap().success());
    assert_same(&undisturbed, &work.tree("killed"));
}

#[test]
fn a_termination_ends_soon_and_a_later_run_completes() {
    let work = Workspace::new(100);
    work.convert();
    let undisturbed = work.tree("out");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let output = format!("{signal:?}");
        let child = start(&work, &output);
        wait_for_first(&work, &output);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let told = Instant::now();
        let ended = child.wait_with_output().unwrap();
        // The grace that schedulers give; how soon it is on a quiet machine is no matter for a test.
        assert!(told.elapsed() < Duration::from_secs(60), "{:?}", told.elapsed());
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(75), "{said}");
        assert!(said.contains("run the same command again"), "{said}");
        assert!(said.contains("files converted: ") && said.contains(" of 100"), "{said}");
        let left = work.tree(&output);
        assert_part_of(&left, &undisturbed);
        assert!(left.keys().all(|name| !name.ends_with(".staged")), "{:?}", left.keys());
        assert!(left.contains_key("112/04/manifest.partial.json"));
        assert!(!left.contains_key("112/04/manifest.json"));
        assert!(start(&work, &output).wait().unwrap().success());
        assert_same(&undisturbed, &work.tree(&output));
    }
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let work = Workspace::new(20);
    let line = "trap '' HUP; exec \"$0\" research-data process-case 112-04 -d archive -o out \
                --grid grid.nc --allow-missing";
    let mut child = Command::new("sh")
        .args(["-c", line, env!("CARGO_BIN_EXE_dor")])
        .current_dir(work.folder())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_first(&work, "out");
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_run_over_all_cases_that_is_stopped_tells_what_it_finished() {
    let work = Workspace::new(60);
    let child = Command::new(env!("CARGO_BIN_EXE_dor"))
        .env_clear()
        .env("HOME", work.folder())
        .current_dir(work.folder())
        .args(["research-data", "process-all-cases", "-d", "archive", "-o", "out"])
        .args(["--grid", "grid.nc", "--allow-missing", "-w", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_first(&work, "out");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    let (out, error) =
        (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
    assert_eq!(ended.status.code(), Some(75), "{out}{error}");
    assert!(out.contains("0 cases done, 0 failed, 0 not tried, 1 interrupted"), "{out}");
    assert!(out.contains("interrupted: case ") && out.contains(" of 60"), "{out}");
    assert!(error.contains("run the same command again"), "{error}");
}

#[test]
fn two_processes_at_once_end_in_the_same_bytes() {
    let work = Workspace::new(30);
    work.convert();
    let mut children = [start(&work, "both"), start(&work, "both"), start(&work, "both")];
    for child in &mut children {
        let ended = child.wait().unwrap();
        assert!(ended.success(), "{ended}");
    }
    assert_same(&work.tree("out"), &work.tree("both"));
    assert!(work.tree("both").contains_key(&output_key(29)));
}

#[test]
fn of_two_processes_at_once_with_other_settings_one_is_refused() {
    with_other_settings(60, &[0, 20, 60, 120, 200, 300]);
    with_other_settings(5, &[0, 30, 60, 90, 120]);
}

/// Two processes that convert so many months with and without the grid file, the second begun so many
/// milliseconds after the first.
fn with_other_settings(months: usize, delays: &[u64]) {
    let work = Workspace::new(months);
    work.convert();
    let with_grid = work.tree("out");
    let bare = start_with(&work, "bare", &[]).wait().unwrap();
    assert!(bare.success());
    let without = work.tree("bare");
    let settings: [&[&str]; 2] = [&["--grid", "grid.nc"], &[]];
    for turn in 0..2 * delays.len() {
        let output = format!("turn{turn}");
        let first = start_with(&work, &output, settings[turn % 2]);
        std::thread::sleep(Duration::from_millis(delays[turn / 2]));
        let second = start_with(&work, &output, settings[1 - turn % 2]);
        let ended = [first, second].map(|child| child.wait_with_output().unwrap());
        let codes = ended.each_ref().map(|ended| ended.status.code());
        let said = ended.each_ref().map(|ended| String::from_utf8_lossy(&ended.stderr));
        assert!(codes.contains(&Some(0)), "{codes:?} {said:?}");
        assert!(codes.iter().all(|code| [Some(0), Some(78)].contains(code)), "{codes:?} {said:?}");
        let tree = work.tree(&output);
        // A grid file given after a run without one has ended makes all files better.
        match tree == with_grid || (codes != [Some(0); 2] && tree == without) {
            true => {}
            false => {
                panic!("turn {turn}: files of both, or the worse ones stay; {codes:?} {said:?}")
            }
        }
        let mut check = Command::new(env!("CARGO_BIN_EXE_dor"));
        check.args(["research-data", "check", "-o"]).arg(work.path(&output));
        assert!(check.stdout(Stdio::null()).status().unwrap().success(), "turn {turn}");
    }
}
