//! Plans and shards: all products of cases in one pass, stopped, killed and repaired.

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

/// A workspace with the first months of cases.
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

/// What the program prints for these words.
fn says(work: &Workspace, words: &str) -> String {
    let output = dor(work.folder()).args(words.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Empty stores below `folder`, and a plan of all cases there are.
fn plan(work: &Workspace, folder: &str) {
    for store in ["1", "2", "3"] {
        says(work, &format!("vis create-template-store{store} -o {folder}/s{store}"));
    }
    let stores = format!("--store1 {folder}/s1 --store2 {folder}/s2 --store3 {folder}/s3");
    let points = "--grid grid.nc --ssh ssh.nc --centers centers.csv --allow-missing";
    let said = says(
        work,
        &format!("plan -o {folder}.json -d archive --output-dir {folder}/out {stores} {points}"),
    );
    assert!(said.contains("to read"), "{said}");
}

fn start(work: &Workspace, folder: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
    command.args(["run", "--plan", &format!("{folder}.json"), "--shards", "1", "--workers", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn one_pass_gives_the_bytes_of_the_separate_commands_and_reads_each_file_once() {
    let work = workspace(&["112-04"], 30);
    plan(&work, "one");
    let said = says(&work, "run --plan one.json --shards 1");
    let line = said.lines().find(|line| line.contains("4 of 4 products")).expect(&said);
    let amounts = line.split_once("products, ").unwrap().1.split_once(", ").unwrap().0;
    let (read, of) = amounts.split_once(" read of ").expect(line);
    assert_eq!(read, of, "bytes that were read are those of the files");

    plan(&work, "apart");
    let of = "-p 112 -m 4 --data-dir archive --grid grid.nc --allow-missing";
    says(
        &work,
        "research-data process-case 112-04 -d archive -o apart/out --grid grid.nc --allow-missing",
    );
    says(&work, &format!("vis populate-store2 -o apart/s2 {of} --ssh ssh.nc"));
    let curves = "vis populate-store3 -o apart/s3 --with-store1 apart/s1 --centers centers.csv";
    says(&work, &format!("{curves} {of}"));
    assert_same(&work.tree("apart"), &work.tree("one"));

    let said = says(&work, "run --plan one.json --shards 1");
    assert!(said.contains("done before") && said.contains("1 of 1 case done"), "{said}");
    assert_same(&work.tree("apart"), &work.tree("one"));
}

#[test]
fn products_can_be_made_one_after_another() {
    let work = workspace(&["112-04"], 3);
    for folder in ["once", "parts"] {
        plan(&work, folder);
    }
    says(&work, "run --plan once.json --shards 1");
    let said = says(&work, "run --plan parts.json --shards 1 --stages store3,store1");
    assert!(said.contains("2 of 2 products"), "{said}");
    let state = json(dor(work.folder()).args(["status", "--plan", "parts.json", "--json"]));
    assert_eq!(state["status"]["stages"]["store1"]["done"], 1);
    assert_eq!(state["status"]["stages"]["research"]["waiting"], 1);
    let said = says(&work, "run --plan parts.json --shards 1");
    assert!(said.contains("4 of 4 products"), "{said}");
    assert_same(&work.tree("once"), &work.tree("parts"));

    says(&work, "plan -o one.json -d archive --output-dir o --stages research --allow-missing");
    let other = ["run", "--plan", "one.json", "--shards", "1", "--stages", "store2"];
    let error = fails(dor(work.folder()).args(other), 78);
    assert!(error.contains("does not contain store2") && error.contains("dor plan"), "{error}");
}

#[test]
fn an_archive_that_is_not_as_planned_and_places_that_cannot_be_written_are_told() {
    let work = workspace(&["112-04"], 3);
    plan(&work, "all");
    let run = ["run", "--plan", "all.json", "--shards", "1"];
    // Root writes everywhere, but not into a file.
    fs::remove_dir(work.path("all/out")).unwrap();
    fs::write(work.path("all/out"), b"").unwrap();
    let error = fails(dor(work.folder()).args(run), 78);
    assert!(error.contains("all/out"), "{error}");
    let told = fs::read_to_string(work.path("all.state/shard-0000-of-0001.json")).unwrap();
    assert!(told.contains("all/out") && told.contains("a file is where"), "{told}");
    fs::remove_file(work.path("all/out")).unwrap();
    fs::create_dir(work.path("all/out")).unwrap();

    fs::remove_file(work.raw(1)).unwrap();
    let error = fails(dor(work.folder()).args(run), 65);
    assert!(error.contains("has 2 raw files, and had 3 when the plan was made"), "{error}");
    let slurm = ["slurm", "script", "--plan", "all.json", "--nodes", "3", "-o", "scripts"];
    let said = String::from_utf8(dor(work.folder()).args(slurm).output().unwrap().stderr).unwrap();
    assert!(said.contains("has 1 case: 2 of 3 nodes get no case"), "{said}");
    let at = ["plan", "-d", "archive", "--allow-missing", "-o", "deep/er/"];
    let error = fails(dor(work.folder()).args(at), 2);
    assert!(error.contains("name a file in it, such as deep/er/plan.json"), "{error}");
    let backwards = ["--polygon-range", "113", "112"];
    let error = fails(dor(work.folder()).args(run).args(backwards), 78);
    assert!(error.contains("give 112 113"), "{error}");
}

#[test]
fn memory_that_is_too_little_for_one_file_is_told_of() {
    let work = Workspace::empty(b"");
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--shape", "200x200x20", "--ssh", "--months", "1"]);
    raw.assert().success();
    plan(&work, "tight");
    let run = ["run", "--plan", "tight.json", "--shards", "1", "--memory", "10MB"];
    let error = String::from_utf8(dor(work.folder()).args(run).output().unwrap().stderr).unwrap();
    assert_eq!(error.matches("MiB of memory, more than the budget of 7 MiB").count(), 1, "{error}");
}

#[test]
fn cases_belong_to_their_shards_alone() {
    let work = workspace(&["112-04", "113-04", "114-04"], 2);
    plan(&work, "all");
    for (shard, cases) in [(1, vec!["113-04"]), (0, vec!["112-04", "114-04"])] {
        let mut run = dor(work.folder());
        run.env("SLURM_ARRAY_TASK_ID", shard.to_string());
        run.args(["run", "--plan", "all.json", "--shards", "2"]).assert().success();
        let there = |case: &str| work.path("all/out").join(case.replace('-', "/")).exists();
        assert!(cases.iter().all(|case| there(case)), "shard {shard}");
        assert_eq!(there("112-04"), shard == 0, "shard {shard}");
    }
    let error = fails(dor(work.folder()).args(["run", "--plan", "all.json", "--shards", "2"]), 78);
    assert!(error.contains("--shard"), "{error}");
}

#[test]
fn a_case_that_fails_does_not_stop_the_others_and_is_made_alone_when_repaired() {
    let work = workspace(&["112-04", "113-04"], 3);
    plan(&work, "good");
    says(&work, "run --plan good.json --shards 1");
    plan(&work, "bad");
    let raw = work.raw(1);
    let whole = fs::read(&raw).unwrap();
    fs::write(&raw, &whole[..whole.len() / 2]).unwrap();
    let run = dor(work.folder()).args(["run", "--plan", "bad.json", "--shards", "1"]).output();
    let run = run.unwrap();
    let (said, error) =
        (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert_eq!(run.status.code(), Some(65), "{said}{error}");
    assert!(said.contains("failed: 112-04") && error.contains("truncated"), "{said}{error}");
    assert!(work.path("bad/out/113/04/manifest.json").exists());
    assert!(!work.path("bad/out/112").exists(), "nothing of a case with a bad file");
    fs::write(&raw, &whole).unwrap();
    let said = says(&work, "run --plan bad.json --shards 1");
    assert!(said.contains("done before") && said.contains("2 of 2 cases done"), "{said}");
    for part in ["s1", "s2", "s3"] {
        // The files' times, which are not those of the first run, are in the records.
        let without_records = |folder: &str| {
            let mut tree = work.tree(&format!("{folder}/{part}"));
            tree.retain(|name, _| !name.starts_with(".cases"));
            tree
        };
        assert_same(&without_records("good"), &without_records("bad"));
    }
}

#[test]
fn twenty_kills_leave_what_an_undisturbed_run_leaves() {
    let seed = std::env::var("DOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("DOR_TEST_SEED={seed} gives these moments again");
    let mut random = StdRng::seed_from_u64(seed);
    let work = workspace(&["112-04", "113-07"], 12);
    plan(&work, "calm");
    let began = Instant::now();
    assert!(start(&work, "calm").wait().unwrap().success());
    let took = began.elapsed();
    plan(&work, "killed");
    // Two at a time, on the same cases.
    let both = || [start(&work, "killed"), start(&work, "killed")];
    for _ in 0..10 {
        for mut child in both() {
            std::thread::sleep(took.mul_f64(random.random_range(0.02..0.8)));
            let _ = child.kill();
            child.wait().unwrap();
        }
    }
    for mut child in both() {
        assert!(child.wait().unwrap().success());
    }
    for folder in ["calm", "killed"] {
        says(&work, &format!("finalize --plan {folder}.json"));
    }
    assert_same(&work.tree("calm"), &work.tree("killed"));
}

#[test]
fn a_stop_ends_soon_and_leaves_nothing_half_written() {
    let work = workspace(&["112-04"], 60);
    plan(&work, "calm");
    let began = Instant::now();
    assert!(start(&work, "calm").wait().unwrap().success());
    let took = began.elapsed();
    plan(&work, "stopped");
    for share in [0.1, 0.3, 0.6] {
        let mut child = start(&work, "stopped");
        std::thread::sleep(took.mul_f64(share));
        if child.try_wait().unwrap().is_some() {
            break;
        }
        let told = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 75)), "{code:?}");
        assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
        let left = work.tree("stopped");
        assert!(!left.keys().any(|name| name.ends_with(".staged")), "{:?}", left.keys());
    }
    assert!(start(&work, "stopped").wait().unwrap().success());
    assert_same(&work.tree("calm"), &work.tree("stopped"));
}

#[test]
fn a_stop_does_not_wait_for_an_archive_that_is_slow() {
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
    let mut planned = dor(work.folder());
    planned.envs(server.variables());
    let words = format!(
        "plan -o p.json -d s3://{BUCKET}/archive --output-dir out --stages research,store1 --store1 s1 --allow-missing"
    );
    planned.args(words.split(' ')).assert().success();
    says(&work, "vis create-template-store1 -o s1");
    let is_raw = |target: &str| target.contains("/archive/");
    let mut served = 0;
    server.fail_when(move |asked| {
        served += usize::from(asked.method == "GET" && is_raw(asked.target));
        // Some are read, and some of the rest are under way.
        (served > 3).then_some(Fault::Late(Duration::from_secs(90)))
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
    command.envs(server.variables()).args(["run", "--plan", "p.json", "--shards", "1"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(child.try_wait().unwrap().is_none(), "it waits for the archive");
    let told = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
    assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
}

#[test]
fn a_plan_never_changes() {
    let work = workspace(&["112-04"], 2);
    plan(&work, "one");
    let before = fs::read(work.path("one.json")).unwrap();
    let plan: Value = serde_json::from_slice(&before).unwrap();
    assert_eq!(plan["cases"][0]["case"], "112-04");
    assert_eq!(plan["places"]["data_dir"], "archive", "relative to the plan");
    let other =
        "plan -o one.json -d archive --output-dir elsewhere --stages research --allow-missing";
    let error = fails(dor(work.folder()).args(other.split(' ')), 78);
    assert!(error.contains("plans do not change"), "{error}");
    assert_eq!(fs::read(work.path("one.json")).unwrap(), before);
    fs::write(work.path("thesis.tex"), "mine").unwrap();
    let error =
        fails(dor(work.folder()).args(other.replace("one.json", "thesis.tex").split(' ')), 78);
    assert!(error.contains("is another plan") && !error.contains("remove"), "{error}");
    let altered = String::from_utf8(before).unwrap().replace("112-04", "112-07");
    fs::write(work.path("one.json"), altered).unwrap();
    let error = fails(dor(work.folder()).args(["run", "--plan", "one.json", "--shards", "1"]), 65);
    assert!(error.contains("hash"), "{error}");
}
