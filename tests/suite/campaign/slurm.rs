//! A plan on a real Slurm: an array element that is stopped, a case that fails, and their repetition.

use std::fs;
use std::time::{Duration, Instant};

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::dor;
use super::super::support::slurm::Slurm;
use super::{add_months, make_plan, run_dor, workspace};

const CASES: [&str; 8] =
    ["112-04", "113-04", "114-04", "115-04", "112-07", "113-07", "114-07", "115-07"];
/// The longest time that the whole test may take.
const TIME_LIMIT: Duration = Duration::from_secs(90);

/// Runs `dor` with Slurm's commands on PATH; returns standard output.
fn run_dor_with_slurm(slurm: &Slurm, work: &Workspace, words: &str) -> String {
    let mut command = dor(work.folder());
    let output = command.envs(slurm.variables()).args(words.split(' ')).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The job number in the n-th line that begins with `job`.
fn job_number(printed: &str, n: usize) -> String {
    let line = printed.lines().filter_map(|line| line.strip_prefix("job ")).nth(n).expect(printed);
    line.split(':').next().unwrap().to_owned()
}

#[test]
fn a_stopped_array_element_is_queued_again_and_a_failed_case_is_repaired() {
    let Some(slurm) = Slurm::start() else { return };
    let began = Instant::now();
    let work = workspace(&CASES, 2);
    // Element 3 has the fourth and the eighth case. With more months it still runs when it is stopped.
    add_months(&work, &["113-07", "115-07"], 36);
    make_plan(&work, "atlas");
    // A raw file is truncated after the plan is made.
    let raw = work.raw(1);
    let original = fs::read(&raw).unwrap();
    fs::write(&raw, &original[..original.len() / 2]).unwrap();
    let submit = "slurm submit --plan atlas.json --nodes 4 --partition regular --time 00:10:00";
    let printed = run_dor_with_slurm(&slurm, &work, submit);
    let (array, last) = (job_number(&printed, 0), job_number(&printed, 1));

    // The last element is stopped while it works.
    let stopped = format!("{array}_3");
    let log = work.path(&format!("dor-run-{stopped}.log"));
    let is_running =
        || slurm.jobs().iter().any(|(id, state, _)| *id == stopped && state == "RUNNING");
    // Only the batch script gets the signal; it forwards it.
    let stop = || slurm.try_ask("scancel", &["--signal=TERM", "--batch", &stopped]).is_some();
    while !(is_running() && work.path("atlas.state/shard-0003-of-0004.json").exists() && stop()) {
        assert!(began.elapsed() < TIME_LIMIT, "element 3 does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
    slurm.wait(TIME_LIMIT.saturating_sub(began.elapsed()));
    let printed = fs::read_to_string(&log).unwrap();
    assert!(printed.contains("2 of 2 cases done"), "{printed}");
    let runs = fs::read_dir(work.path("atlas.state/log")).unwrap();
    let of_stopped = |name: &str| name.starts_with("0003-of-0004");
    let runs = runs.filter(|run| of_stopped(run.as_ref().unwrap().file_name().to_str().unwrap()));
    assert_eq!(runs.count(), 2, "element 3 was queued again: {printed}");

    let others =
        |n: u8| fs::read_to_string(work.path(&format!("dor-run-{array}_{n}.log"))).unwrap();
    let once = |printed: String| printed.matches("2 cases done").count() == 1;
    assert!((0..3).map(others).all(once), "another element was queued again");

    // `dor finalize` refuses incomplete results.
    let refused = fs::read_to_string(work.path(&format!("dor-finalize-{last}.log"))).unwrap();
    assert!(refused.contains("112-04, research") && refused.contains("nothing was written"));
    assert!(slurm.ask("scontrol", &["show", "job", &last]).contains("ExitCode=3:0"));
    let state = run_dor(&work, "status --plan atlas.json");
    assert!(state.contains("failed: 112-04") && state.contains("truncated"), "{state}");
    let left = state.lines().find_map(|line| line.split_once("--array=")).expect(&state).1;
    assert_eq!(left, "0", "{state}");

    // After the repair, only that case is made.
    fs::write(&raw, &original).unwrap();
    let printed = run_dor_with_slurm(&slurm, &work, &format!("{submit} --array {left}"));
    slurm.wait(TIME_LIMIT.saturating_sub(began.elapsed()));
    let log = fs::read_to_string(work.path(&format!("dor-run-{}_0.log", job_number(&printed, 0))))
        .unwrap();
    assert!(log.contains("done before") && log.contains("2 of 2 cases done"), "{log}");
    let log =
        fs::read_to_string(work.path(&format!("dor-finalize-{}.log", job_number(&printed, 1))))
            .unwrap();
    assert!(log.contains("store1 with 8 of"), "{log}");
    assert!(
        slurm.ask("scontrol", &["show", "job", &job_number(&printed, 1)]).contains("ExitCode=0:0")
    );
    assert!(!run_dor(&work, "status --plan atlas.json").contains("--array="));
    assert!(began.elapsed() < TIME_LIMIT);

    // The results are those of one uninterrupted run without Slurm.
    make_plan(&work, "calm");
    run_dor(&work, "run --plan calm.json --shards 1");
    run_dor(&work, "finalize --plan calm.json");
    assert_same(&work.tree("calm"), &work.tree("atlas"));
}
