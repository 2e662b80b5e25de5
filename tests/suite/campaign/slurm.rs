//! A plan on a real Slurm: elements that are stopped, cases that fail, and what is run again.

use std::fs;
use std::time::{Duration, Instant};

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::dor;
use super::super::support::slurm::Slurm;
use super::{add_months, plan, says, workspace};

const CASES: [&str; 8] =
    ["112-04", "113-04", "114-04", "115-04", "112-07", "113-07", "114-07", "115-07"];
/// The whole, with all that goes wrong.
const TIME: Duration = Duration::from_secs(90);

/// What the program prints with Slurm's commands at hand.
fn slurm_says(slurm: &Slurm, work: &Workspace, words: &str) -> String {
    let mut command = dor(work.folder());
    let output = command.envs(slurm.variables()).args(words.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The number of a job, of the line that begins with `job`.
fn job(said: &str, n: usize) -> String {
    let line = said.lines().filter_map(|line| line.strip_prefix("job ")).nth(n).expect(said);
    line.split(':').next().unwrap().to_owned()
}

#[test]
fn an_array_is_stopped_queued_again_and_repaired() {
    let Some(slurm) = Slurm::start() else { return };
    let began = Instant::now();
    let work = workspace(&CASES, 2);
    // Element 3 has the fourth and the eighth case, in order: enough to do to be caught at it.
    add_months(&work, &["113-07", "115-07"], 36);
    plan(&work, "atlas");
    // The case of the first file is broken once the plan is made.
    let raw = work.raw(1);
    let whole = fs::read(&raw).unwrap();
    fs::write(&raw, &whole[..whole.len() / 2]).unwrap();
    let submit = "slurm submit --plan atlas.json --nodes 4 --partition regular --time 00:10:00";
    let said = slurm_says(&slurm, &work, submit);
    let (array, last) = (job(&said, 0), job(&said, 1));

    // One element is told to stop while it works: the last, whose number is that of the array.
    let stopped = format!("{array}_3");
    let log = work.path(&format!("dor-run-{stopped}.log"));
    let is_running =
        || slurm.jobs().iter().any(|(id, state, _)| *id == stopped && state == "RUNNING");
    // The script alone is told, and hands it on.
    let stop = || slurm.try_ask("scancel", &["--signal=TERM", "--batch", &stopped]).is_some();
    while !(is_running() && work.path("atlas.state/shard-0003-of-0004.json").exists() && stop()) {
        assert!(began.elapsed() < TIME, "element 3 does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
    slurm.wait(TIME.saturating_sub(began.elapsed()));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("2 of 2 cases done"), "{said}");
    let runs = fs::read_dir(work.path("atlas.state/log")).unwrap();
    let of_stopped = |name: &str| name.starts_with("0003-of-0004");
    let runs = runs.filter(|run| of_stopped(run.as_ref().unwrap().file_name().to_str().unwrap()));
    assert_eq!(runs.count(), 2, "element 3 was queued again: {said}");

    let others =
        |n: u8| fs::read_to_string(work.path(&format!("dor-run-{array}_{n}.log"))).unwrap();
    let once = |said: String| said.matches("2 cases done").count() == 1;
    assert!((0..3).map(others).all(once), "the others were not");

    // The results are not put together.
    let refused = fs::read_to_string(work.path(&format!("dor-finalize-{last}.log"))).unwrap();
    assert!(refused.contains("112-04, research") && refused.contains("nothing was written"));
    assert!(slurm.ask("scontrol", &["show", "job", &last]).contains("ExitCode=3:0"));
    let state = says(&work, "status --plan atlas.json");
    assert!(state.contains("failed: 112-04") && state.contains("truncated"), "{state}");
    let left = state.lines().find_map(|line| line.split_once("--array=")).expect(&state).1;
    assert_eq!(left, "0", "{state}");

    // Repaired, only that case is made.
    fs::write(&raw, &whole).unwrap();
    let said = slurm_says(&slurm, &work, &format!("{submit} --array {left}"));
    slurm.wait(TIME.saturating_sub(began.elapsed()));
    let log = fs::read_to_string(work.path(&format!("dor-run-{}_0.log", job(&said, 0)))).unwrap();
    assert!(log.contains("done before") && log.contains("2 of 2 cases done"), "{log}");
    let log =
        fs::read_to_string(work.path(&format!("dor-finalize-{}.log", job(&said, 1)))).unwrap();
    assert!(log.contains("store1 with 8 of"), "{log}");
    assert!(slurm.ask("scontrol", &["show", "job", &job(&said, 1)]).contains("ExitCode=0:0"));
    assert!(!says(&work, "status --plan atlas.json").contains("--array="));
    assert!(began.elapsed() < TIME);

    // As it would have been on one machine, undisturbed.
    plan(&work, "calm");
    says(&work, "run --plan calm.json --shards 1");
    says(&work, "finalize --plan calm.json");
    assert_same(&work.tree("calm"), &work.tree("atlas"));
}
