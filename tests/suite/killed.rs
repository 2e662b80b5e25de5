//! Conversions that are killed, stopped by a signal, or run at the same time end with the files of an
//! uninterrupted run.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use super::support::case::{Tree, Workspace, assert_same, output_key};

/// Starts a conversion into `output` with the grid file.
fn start(work: &Workspace, output: &str) -> Child {
    start_with(work, output, &["--grid", "grid.nc"])
}

/// Starts a conversion into `output` with these options.
fn start_with(work: &Workspace, output: &str, settings: &[&str]) -> Child {
    // `env` restores the default action of SIGHUP, which is ignored when tests run under nohup.
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_dor")]);
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
    command.args(["research-data", "process-case", "112-04", "-d", "archive", "-o", output]);
    command.args(settings).args(["--allow-missing", "-w", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the first file has its final name. It reads only names, to return early.
fn wait_for_first(work: &Workspace, output: &str) {
    let folder = work.path(output).join("112/04");
    let began = Instant::now();
    let is_whole = |entry: fs::DirEntry| entry.path().extension().is_some_and(|e| e == "nc");
    while !fs::read_dir(&folder).is_ok_and(|mut all| all.any(|entry| entry.is_ok_and(is_whole))) {
        assert!(began.elapsed() < Duration::from_secs(60), "no file is written");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Research-grade files under their final names.
fn finished_files(tree: &Tree) -> impl Iterator<Item = (&String, &Vec<u8>)> {
    tree.iter().filter(|(name, _)| name.ends_with(".nc"))
}

/// Asserts that all finished files in `left` are those of the uninterrupted run.
#[track_caller]
fn assert_finished_files(left: &Tree, expected: &Tree) {
    for (name, bytes) in finished_files(left) {
        assert!(expected.get(name) == Some(bytes), "{name} differs");
    }
}

#[test]
fn a_conversion_killed_twenty_times_ends_with_the_files_of_an_uninterrupted_run() {
    let seed = std::env::var("DOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("DOR_TEST_SEED={seed} repeats these kills");
    let mut random = StdRng::seed_from_u64(seed);
    let work = Workspace::new(100);
    let began = Instant::now();
    work.convert();
    let duration = began.elapsed();
    let expected = work.tree("out");
    assert_eq!(expected.len(), 101);

    let mut counts = [0; 3];
    for _ in 0..20 {
        // Reading the headers takes a while before the first file; later runs have less to do.
        let delay = duration.mul_f64(random.random_range(0.02..0.35));
        let mut child = start(&work, "killed");
        std::thread::sleep(delay);
        let _ = child.kill();
        child.wait().unwrap();
        let left = work.tree("killed");
        assert_finished_files(&left, &expected);
        if left.contains_key("112/04/manifest.json") {
            // Starts from nothing again, so that the other kills interrupt work too.
            assert!(start(&work, "killed").wait().unwrap().success());
            assert_same(&expected, &work.tree("killed"));
            fs::remove_dir_all(work.path("killed")).unwrap();
        }
        counts[0] += usize::from(finished_files(&left).next().is_some());
        counts[1] += usize::from(left.keys().any(|name| name.ends_with(".staged")));
        counts[2] += usize::from(left.contains_key("112/04/manifest.partial.json"));
    }
    println!(
        "after a kill: outputs {}, temporary files {}, partial case manifests {} times",
        counts[0], counts[1], counts[2]
    );
    assert!(
        counts[0] > 0 && counts[2] > 0,
        "no kill interrupted the work: {counts:?} in {duration:?}"
    );
    let mut last = start(&work, "killed");
    assert!(last.wait().unwrap().success());
    assert_same(&expected, &work.tree("killed"));
}

#[test]
fn a_signal_stops_a_conversion_and_a_later_run_completes_it() {
    let work = Workspace::new(100);
    work.convert();
    let expected = work.tree("out");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let output = format!("{signal:?}");
        let child = start(&work, &output);
        wait_for_first(&work, &output);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let signalled = Instant::now();
        let ended = child.wait_with_output().unwrap();
        // The grace period that schedulers give.
        assert!(signalled.elapsed() < Duration::from_secs(60), "{:?}", signalled.elapsed());
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(75), "{stderr}");
        assert!(stderr.contains("run the same command again"), "{stderr}");
        assert!(stderr.contains("files converted: ") && stderr.contains(" of 100"), "{stderr}");
        let left = work.tree(&output);
        assert_finished_files(&left, &expected);
        assert!(left.keys().all(|name| !name.ends_with(".staged")), "{:?}", left.keys());
        assert!(left.contains_key("112/04/manifest.partial.json"));
        assert!(!left.contains_key("112/04/manifest.json"));
        assert!(start(&work, &output).wait().unwrap().success());
        assert_same(&expected, &work.tree(&output));
    }
}

#[test]
fn an_ignored_sighup_stays_ignored() {
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
fn a_stopped_process_all_cases_reports_what_it_finished() {
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
fn concurrent_conversions_of_a_case_write_the_same_bytes() {
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
fn of_two_concurrent_conversions_with_different_settings_one_is_refused() {
    run_different_settings(60, &[0, 20, 60, 120, 200, 300]);
    run_different_settings(5, &[0, 30, 60, 90, 120]);
}

#[test]
fn of_two_concurrent_conversions_of_different_archives_one_is_made() {
    let work = Workspace::new(60);
    let mut demo = super::support::dor::dor(work.folder());
    demo.args("demo raw other --case 112-04 --shape 8x9x3 --months 60 --seed 2".split(' '));
    demo.assert().success();
    let convert = |archive: &str, output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
        command.args(["research-data", "process-case", "112-04", "--allow-missing"]);
        command.args(["-d", archive, "-o", output]).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let archives = ["archive", "other/archive"];
    let whole = archives.map(|archive| {
        let output = format!("whole-{}", archive.len());
        assert!(convert(archive, &output).wait().unwrap().success());
        work.tree(&output)
    });
    for (turn, delay) in [0, 0, 40, 100, 200, 400].into_iter().enumerate() {
        let output = format!("turn{turn}");
        let (one, two) = (turn % 2, 1 - turn % 2);
        let first = convert(archives[one], &output);
        std::thread::sleep(Duration::from_millis(delay));
        let second = convert(archives[two], &output);
        let ended = [first, second].map(|child| child.wait_with_output().unwrap());
        let codes = ended.each_ref().map(|ended| ended.status.code());
        let stderr = ended.each_ref().map(|ended| String::from_utf8_lossy(&ended.stderr));
        assert!(codes.contains(&Some(0)), "{codes:?} {stderr:?}");
        assert!(codes.iter().all(|c| [Some(0), Some(78)].contains(c)), "{codes:?} {stderr:?}");
        let tree = work.tree(&output);
        assert!(whole.contains(&tree), "turn {turn}: files of both archives: {codes:?} {stderr:?}");
    }
}

/// Runs two processes that convert `months` months, one with and one without the grid file. The second
/// starts after each of `delays`, in milliseconds.
fn run_different_settings(months: usize, delays: &[u64]) {
    let work = Workspace::new(months);
    work.convert();
    let with_grid = work.tree("out");
    let ended = start_with(&work, "bare", &[]).wait().unwrap();
    assert!(ended.success());
    let without_grid = work.tree("bare");
    let settings: [&[&str]; 2] = [&["--grid", "grid.nc"], &[]];
    for turn in 0..2 * delays.len() {
        let output = format!("turn{turn}");
        let first = start_with(&work, &output, settings[turn % 2]);
        std::thread::sleep(Duration::from_millis(delays[turn / 2]));
        let second = start_with(&work, &output, settings[1 - turn % 2]);
        let ended = [first, second].map(|child| child.wait_with_output().unwrap());
        let codes = ended.each_ref().map(|ended| ended.status.code());
        let stderr = ended.each_ref().map(|ended| String::from_utf8_lossy(&ended.stderr));
        assert!(codes.contains(&Some(0)), "{codes:?} {stderr:?}");
        assert!(
            codes.iter().all(|code| [Some(0), Some(78)].contains(code)),
            "{codes:?} {stderr:?}"
        );
        let tree = work.tree(&output);
        // When the run without the grid file has ended first, the other converts all files again.
        match tree == with_grid || (codes != [Some(0); 2] && tree == without_grid) {
            true => {}
            false => {
                panic!(
                    "turn {turn}: files of both settings, or none with the grid: {codes:?} {stderr:?}"
                )
            }
        }
        let mut check = Command::new(env!("CARGO_BIN_EXE_dor"));
        check.args(["research-data", "check", "-o"]).arg(work.path(&output));
        assert!(check.stdout(Stdio::null()).status().unwrap().success(), "turn {turn}");
    }
}
