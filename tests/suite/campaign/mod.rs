//! `dor plan`, `dor run` and their shards: all products in one pass, and runs that fail, are stopped or
//! killed.

mod plan_inputs;
mod script;
mod slurm;
mod status;
mod watch;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::case::{Workspace, assert_same};
use super::support::dor::{dor, fails, json};
use super::support::proxy::Fault;
use super::support::s3::{BUCKET, S3Server};

/// A workspace with the first months of these cases.
fn workspace(cases: &[&str], months: u16) -> Workspace {
    let work = Workspace::empty(b"");
    add_months(&work, cases, months);
    work
}

fn add_months(work: &Workspace, cases: &[&str], months: u16) {
    for case in cases {
        let mut raw = dor(work.folder());
        raw.args(["demo", "raw", ".", "--case", case, "--shape", "8x9x3", "--ssh"]);
        raw.args(["--months", &months.to_string()]).assert().success();
    }
}

/// Runs `dor`, which must succeed; returns standard output.
fn run_dor(work: &Workspace, words: &str) -> String {
    let output = dor(work.folder()).args(words.split(' ')).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Creates templates of all stores below `folder`, and the plan `FOLDER.json` of all cases.
fn make_plan(work: &Workspace, folder: &str) {
    for store in ["1", "2", "3"] {
        run_dor(work, &format!("vis create-template-store{store} -o {folder}/s{store}"));
    }
    let stores = format!("--store1 {folder}/s1 --store2 {folder}/s2 --store3 {folder}/s3");
    let points = "--grid grid.nc --ssh ssh.nc --centers centers.csv --allow-missing";
    let printed = run_dor(
        work,
        &format!("plan -o {folder}.json -d archive --output-dir {folder}/out {stores} {points}"),
    );
    assert!(printed.contains("to read"), "{printed}");
}

/// Starts `dor run` of the plan `FOLDER.json`.
fn start(work: &Workspace, folder: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
    command.args(["run", "--plan", &format!("{folder}.json"), "--shards", "1", "--workers", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn one_run_gives_the_bytes_of_separate_commands_and_reads_each_file_once() {
    let work = workspace(&["112-04"], 30);
    make_plan(&work, "one");
    let printed = run_dor(&work, "run --plan one.json --shards 1");
    let line = printed.lines().find(|line| line.contains("4 of 4 products")).expect(&printed);
    let amounts = line.split_once("products, ").unwrap().1.split_once(", ").unwrap().0;
    let (read, of) = amounts.split_once(" read of ").expect(line);
    assert_eq!(read, of, "every byte of the files is read once");

    make_plan(&work, "apart");
    let of = "-p 112 -m 4 --data-dir archive --grid grid.nc --allow-missing";
    run_dor(
        &work,
        "research-data process-case 112-04 -d archive -o apart/out --grid grid.nc --allow-missing",
    );
    run_dor(&work, &format!("vis populate-store2 -o apart/s2 {of} --ssh ssh.nc"));
    let curves = "vis populate-store3 -o apart/s3 --with-store1 apart/s1 --centers centers.csv";
    run_dor(&work, &format!("{curves} {of}"));
    assert_same(&work.tree("apart"), &work.tree("one"));

    let printed = run_dor(&work, "run --plan one.json --shards 1");
    assert!(printed.contains("done before") && printed.contains("1 of 1 case done"), "{printed}");
    assert_same(&work.tree("apart"), &work.tree("one"));
}

#[test]
fn products_can_be_made_in_separate_runs() {
    let work = workspace(&["112-04"], 3);
    for folder in ["once", "parts"] {
        make_plan(&work, folder);
    }
    run_dor(&work, "run --plan once.json --shards 1");
    let printed = run_dor(&work, "run --plan parts.json --shards 1 --stages store3,store1");
    assert!(printed.contains("2 of 2 products"), "{printed}");
    let state = json(dor(work.folder()).args(["status", "--plan", "parts.json", "--json"]));
    assert_eq!(state["status"]["products"]["store1"]["done"], 1);
    assert_eq!(state["status"]["products"]["research"]["waiting"], 1);
    let printed = run_dor(&work, "run --plan parts.json --shards 1");
    assert!(printed.contains("4 of 4 products"), "{printed}");
    assert_same(&work.tree("once"), &work.tree("parts"));

    run_dor(&work, "plan -o one.json -d archive --output-dir o --stages research --allow-missing");
    let other = ["run", "--plan", "one.json", "--shards", "1", "--stages", "store2"];
    let error = fails(dor(work.folder()).args(other), 78);
    assert!(error.contains("does not contain store2") && error.contains("dor plan"), "{error}");
}

#[test]
fn unwritable_outputs_changed_archives_and_bad_options_are_reported() {
    let work = workspace(&["112-04"], 3);
    make_plan(&work, "all");
    let run = ["run", "--plan", "all.json", "--shards", "1"];
    // A file in place of the folder: permissions would not stop root.
    fs::remove_dir(work.path("all/out")).unwrap();
    fs::write(work.path("all/out"), b"").unwrap();
    let error = fails(dor(work.folder()).args(run), 78);
    assert!(error.contains("all/out"), "{error}");
    let heartbeat = fs::read_to_string(work.path("all.state/shard-0000-of-0001.json")).unwrap();
    assert!(heartbeat.contains("all/out") && heartbeat.contains("a file is where"), "{heartbeat}");
    fs::remove_file(work.path("all/out")).unwrap();
    fs::create_dir(work.path("all/out")).unwrap();

    fs::remove_file(work.raw(1)).unwrap();
    let error = fails(dor(work.folder()).args(run), 65);
    assert!(error.contains("has 2 raw files, and had 3 when the plan was made"), "{error}");
    let slurm = ["slurm", "script", "--plan", "all.json", "--nodes", "3", "-o", "scripts"];
    let stderr =
        String::from_utf8(dor(work.folder()).args(slurm).output().unwrap().stderr).unwrap();
    assert!(stderr.contains("has 1 case: 2 of 3 nodes get no case"), "{stderr}");
    let folder_as_plan = ["plan", "-d", "archive", "--allow-missing", "-o", "deep/er/"];
    let error = fails(dor(work.folder()).args(folder_as_plan), 2);
    assert!(error.contains("name a file in it, such as deep/er/plan.json"), "{error}");
    let backwards = ["--polygon-range", "113", "112"];
    let error = fails(dor(work.folder()).args(run).args(backwards), 2);
    assert!(error.contains("give 112 113"), "{error}");
}

#[test]
fn a_memory_budget_below_one_file_is_reported_once() {
    let work = Workspace::empty(b"");
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--shape", "200x200x20", "--ssh", "--months", "1"]);
    raw.assert().success();
    make_plan(&work, "tight");
    let run = ["run", "--plan", "tight.json", "--shards", "1", "--memory", "10MB"];
    let error = String::from_utf8(dor(work.folder()).args(run).output().unwrap().stderr).unwrap();
    assert_eq!(error.matches("MiB of memory, more than the budget of 7 MiB").count(), 1, "{error}");
}

#[test]
fn each_case_belongs_to_one_shard() {
    let work = workspace(&["112-04", "113-04", "114-04"], 2);
    make_plan(&work, "all");
    for (shard, cases) in [(1, vec!["113-04"]), (0, vec!["112-04", "114-04"])] {
        let mut run = dor(work.folder());
        run.env("SLURM_ARRAY_TASK_ID", shard.to_string());
        run.args(["run", "--plan", "all.json", "--shards", "2"]).assert().success();
        let is_converted = |case: &str| work.path("all/out").join(case.replace('-', "/")).exists();
        assert!(cases.iter().all(|case| is_converted(case)), "shard {shard}");
        assert_eq!(is_converted("112-04"), shard == 0, "shard {shard}");
    }
    let error = fails(dor(work.folder()).args(["run", "--plan", "all.json", "--shards", "2"]), 2);
    assert!(error.contains("--shard"), "{error}");
}

#[test]
fn a_failed_case_does_not_stop_the_others_and_is_made_after_its_repair() {
    let work = workspace(&["112-04", "113-04"], 3);
    make_plan(&work, "good");
    run_dor(&work, "run --plan good.json --shards 1");
    make_plan(&work, "bad");
    let raw = work.raw(1);
    let original = fs::read(&raw).unwrap();
    fs::write(&raw, &original[..original.len() / 2]).unwrap();
    let run = dor(work.folder()).args(["run", "--plan", "bad.json", "--shards", "1"]).output();
    let run = run.unwrap();
    let (printed, error) =
        (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert_eq!(run.status.code(), Some(65), "{printed}{error}");
    assert!(printed.contains("failed: 112-04") && error.contains("truncated"), "{printed}{error}");
    assert!(work.path("bad/out/113/04/manifest.json").exists());
    assert!(!work.path("bad/out/112").exists(), "a file of the failed case was written");
    fs::write(&raw, &original).unwrap();
    let printed = run_dor(&work, "run --plan bad.json --shards 1");
    assert!(printed.contains("done before") && printed.contains("2 of 2 cases done"), "{printed}");
    for part in ["s1", "s2", "s3"] {
        // Case manifests have the times of the raw files, which differ between the runs.
        let without_records = |folder: &str| {
            let mut tree = work.tree(&format!("{folder}/{part}"));
            tree.retain(|name, _| !name.starts_with(".cases"));
            tree
        };
        assert_same(&without_records("good"), &without_records("bad"));
    }
}

#[test]
fn a_run_killed_twenty_times_ends_with_the_results_of_an_uninterrupted_run() {
    let seed = std::env::var("DOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("DOR_TEST_SEED={seed} repeats these kills");
    let mut random = StdRng::seed_from_u64(seed);
    let work = workspace(&["112-04", "113-07"], 12);
    make_plan(&work, "calm");
    let began = Instant::now();
    assert!(start(&work, "calm").wait().unwrap().success());
    let duration = began.elapsed();
    make_plan(&work, "killed");
    // Two processes at a time on the same cases.
    let both = || [start(&work, "killed"), start(&work, "killed")];
    for _ in 0..10 {
        for mut child in both() {
            std::thread::sleep(duration.mul_f64(random.random_range(0.02..0.8)));
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
    for mut child in both() {
        assert!(child.wait().unwrap().success());
    }
    for folder in ["calm", "killed"] {
        run_dor(&work, &format!("finalize --plan {folder}.json"));
    }
    assert_same(&work.tree("calm"), &work.tree("killed"));
}

#[test]
fn sigterm_stops_a_run_within_seconds_and_leaves_no_temporary_files() {
    let work = workspace(&["112-04"], 60);
    make_plan(&work, "calm");
    let began = Instant::now();
    assert!(start(&work, "calm").wait().unwrap().success());
    let duration = began.elapsed();
    make_plan(&work, "stopped");
    for share in [0.1, 0.3, 0.6] {
        let mut child = start(&work, "stopped");
        std::thread::sleep(duration.mul_f64(share));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        let signalled = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 75)), "{code:?}");
        assert!(signalled.elapsed() < Duration::from_secs(5), "{:?}", signalled.elapsed());
        let left = work.tree("stopped");
        assert!(!left.keys().any(|name| name.ends_with(".staged")), "{:?}", left.keys());
    }
    assert!(start(&work, "stopped").wait().unwrap().success());
    assert_same(&work.tree("calm"), &work.tree("stopped"));
}

#[test]
fn sigterm_does_not_wait_for_a_slow_archive() {
    let work = workspace(&["112-04"], 12);
    let server = S3Server::start();
    let bucket = server.bucket_folder();
    assert!(
        Command::new("cp")
            .arg("-r")
            .arg(work.path("archive"))
            .arg(&bucket)
            .status()
            .unwrap()
            .success()
    );
    let mut plan = dor(work.folder());
    plan.envs(server.variables());
    let words = format!(
        "plan -o p.json -d s3://{BUCKET}/archive --output-dir out --stages research,store1 --store1 s1 \
         --allow-missing"
    );
    plan.args(words.split(' ')).assert().success();
    run_dor(&work, "vis create-template-store1 -o s1");
    let is_raw = |target: &str| target.contains("/archive/");
    let mut served = 0;
    server.fail_when(move |asked| {
        served += usize::from(asked.method == "GET" && is_raw(asked.target));
        // Some raw files are read, and requests for others are in flight.
        (served > 3).then_some(Fault::Late(Duration::from_secs(90)))
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
    command.envs(server.variables()).args(["run", "--plan", "p.json", "--shards", "1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(child.try_wait().unwrap().is_none(), "the run did not wait for the archive");
    let signalled = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(signalled.elapsed() < Duration::from_secs(20), "{:?}", signalled.elapsed());
}

#[test]
fn a_plan_never_changes() {
    let work = workspace(&["112-04"], 2);
    make_plan(&work, "one");
    let before = fs::read(work.path("one.json")).unwrap();
    let plan: Value = serde_json::from_slice(&before).unwrap();
    assert_eq!(plan["cases"][0]["case"], "112-04");
    assert_eq!(plan["locations"]["data_dir"], "archive", "relative to the plan");
    let other =
        "plan -o one.json -d archive --output-dir elsewhere --stages research --allow-missing";
    let error = fails(dor(work.folder()).args(other.split(' ')), 78);
    assert!(error.contains("plans do not change"), "{error}");
    assert_eq!(fs::read(work.path("one.json")).unwrap(), before);
    fs::write(work.path("thesis.tex"), "mine").unwrap();
    let error =
        fails(dor(work.folder()).args(other.replace("one.json", "thesis.tex").split(' ')), 78);
    assert!(error.contains("is not this plan") && !error.contains("remove"), "{error}");
    let altered = String::from_utf8(before).unwrap().replace("112-04", "112-07");
    fs::write(work.path("one.json"), altered).unwrap();
    let error = fails(dor(work.folder()).args(["run", "--plan", "one.json", "--shards", "1"]), 65);
    assert!(error.contains("hash"), "{error}");
}
