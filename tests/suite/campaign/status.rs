//! How far a plan is, and its end.

use std::fs;

use serde_json::Value;

use super::super::support::case::set_age;
use super::super::support::dor::{dor, fails, json};
use super::{plan, says, start, workspace};

#[test]
fn nothing_is_put_together_before_every_case_is_there() {
    let work = workspace(&["112-04", "113-04", "114-07"], 2);
    plan(&work, "all");
    let before = work.tree("all");
    let mut finalize = dor(work.folder());
    finalize.args(["finalize", "--plan", "all.json"]);
    let said = finalize.output().unwrap();
    assert_eq!(said.status.code(), Some(3));
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.contains("12 products missing or not as planned") && said.contains("114-07, store3"),
        "{said}"
    );
    assert_eq!(work.tree("all"), before);

    says(&work, "run --plan all.json --shards 3 --shard 1");
    let state = says(&work, "status --plan all.json");
    assert!(state.contains("1 of 3 cases"), "{state}");
    assert!(state.contains("still to run, of 3 shards: --array=0,2"), "{state}");
    let state = says(&work, "status --plan all.json --shards 2");
    assert!(state.contains("still to run, of 2 shards: --array=0\n"), "{state}");
    says(&work, "run --plan all.json --shards 3 --shard 0");
    says(&work, "run --plan all.json --shards 3 --shard 2 --polygon-range 0 113");
    assert_eq!(finalize.output().unwrap().status.code(), Some(3), "polygon 114 was left out");
    says(&work, "run --plan all.json --shards 3 --shard 2");

    // Nor is one that was made under other rules, although its store may be for another plan.
    let record = work.path("all/s2/.cases/113-04.json");
    let whole = fs::read_to_string(&record).unwrap();
    let other = whole.replace("\"reference_compat\": false", "\"reference_compat\": true");
    assert_ne!(whole, other);
    fs::write(&record, other).unwrap();
    let said = String::from_utf8(finalize.output().unwrap().stdout).unwrap();
    assert!(said.contains("113-04, store2: it was made under other rules"), "{said}");
    fs::write(&record, whole).unwrap();

    // A case whose files are fewer than the plan has is not done.
    let record = work.path("all/s1/.cases/113-04.json");
    let whole = fs::read_to_string(&record).unwrap();
    let mut fewer: Value = serde_json::from_str(&whole).unwrap();
    fewer["inputs"].as_array_mut().unwrap().pop();
    fs::write(&record, fewer.to_string()).unwrap();
    let said = String::from_utf8(finalize.output().unwrap().stdout).unwrap();
    assert!(said.contains("113-04, store1: it was made of 1 files of "), "{said}");

    // Nor is one that was made of research-grade files.
    fs::write(&record, whole.replace("/ocn/hist/", "/")).unwrap();
    let said = String::from_utf8(finalize.output().unwrap().stdout).unwrap();
    let expected =
        "113-04, store1: it was made of research-grade files, the plan makes it of raw history";
    assert!(said.contains(expected), "{said}");
    fs::write(&record, whole).unwrap();

    let said = says(&work, "finalize --plan all.json --publish-to published");
    assert!(said.contains("store3 with 3 of 2760 cases"), "{said}");
    for name in ["out/112/04/manifest.json", "s1/.zmetadata", "s2/.zmetadata", "s3/.zmetadata"] {
        assert!(work.path("published").join(name).exists(), "{name}");
    }
    let state = json(dor(work.folder()).args(["status", "--plan", "all.json", "--json"]));
    assert_eq!(state["status"]["done"], 3);
    assert_eq!(state["status"]["to_run"], Value::Array(Vec::new()));
}

#[test]
fn what_runs_and_what_failed_is_told() {
    let work = workspace(&["112-04", "113-04"], 24);
    let raw = work.raw(0);
    plan(&work, "all");
    let whole = fs::read(&raw).unwrap();
    fs::write(&raw, b"no NetCDF").unwrap();
    let run = dor(work.folder()).args(["run", "--plan", "all.json", "--shards", "1"]).output();
    assert_eq!(run.unwrap().status.code(), Some(65), "only the input is to blame");
    let state = json(dor(work.folder()).args(["status", "--plan", "all.json", "--json"]));
    assert_eq!(state["status"]["stages"]["research"]["failed"], 1);
    let failed = &state["status"]["failed"]["112-04"];
    assert_eq!(failed[0]["permanent"], true);
    let name = raw.file_name().unwrap().to_str().unwrap();
    for failure in failed.as_array().unwrap() {
        assert!(failure["error"].as_str().unwrap().contains(name), "{failed}");
    }
    let log = fs::read_dir(work.path("all.state/log")).unwrap().next().unwrap().unwrap().path();
    let lines: Vec<Value> = fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.first().unwrap()["event"], "begun");
    assert_eq!(lines.last().unwrap()["exit"], 65);
    let failed = lines.iter().find(|line| line["failures"][0]["permanent"] == true).unwrap();
    assert_eq!(failed["case"], "112-04");

    fs::write(&raw, whole).unwrap();
    let mut child = start(&work, "all");
    let began = std::time::Instant::now();
    let running = || {
        let state = json(dor(work.folder()).args(["status", "--plan", "all.json", "--json"]));
        state["status"]["stages"]["research"]["running"] == 1
    };
    while !running() {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "nothing runs");
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was seen");
    }
    assert!(child.wait().unwrap().success());
    assert!(says(&work, "status --plan all.json --watch").contains("2 of 2 cases"));
    let configured = dor(work.folder()).env("DOR_PLAN", "all.json").arg("status").output();
    assert!(String::from_utf8(configured.unwrap().stdout).unwrap().contains("2 of 2 cases"));
    let error = fails(dor(work.folder()).arg("status"), 78);
    assert!(error.contains("--plan") && error.contains("DOR_PLAN"), "{error}");
    let error = fails(dor(work.folder()).args(["status", "--plan", "none.json"]), 78);
    assert!(error.contains("no plan") && error.contains("dor plan"), "{error}");
}

#[test]
fn a_tree_that_was_moved_works_and_a_place_that_is_gone_is_named() {
    let work = workspace(&["112-04"], 2);
    plan(&work, "all");
    says(&work, "run --plan all.json --shards 1");
    fs::create_dir(work.path("moved")).unwrap();
    for name in ["all", "all.json", "all.state", "archive", "grid.nc", "ssh.nc", "centers.csv"] {
        fs::rename(work.path(name), work.path("moved").join(name)).unwrap();
    }
    let state = says(&work, "status --plan moved/all.json");
    assert!(state.contains("1 of 1 case"), "{state}");
    let said = says(&work, "run --plan moved/all.json --shards 1");
    assert!(said.contains("done before"), "{said}");
    says(&work, "finalize --plan moved/all.json");

    for (what, place) in [
        ("data_dir", "moved/archive"),
        ("output_dir", "moved/all/out"),
        ("store1", "moved/all/s1"),
        ("store2", "moved/all/s2"),
    ] {
        fs::rename(work.path(place), work.path("away")).unwrap();
        for words in [&["status"][..], &["finalize"], &["run", "--shards", "1"]] {
            let mut command = dor(work.folder());
            let error = fails(command.args(words).args(["--plan", "moved/all.json"]), 78);
            assert!(error.contains(what) && error.contains(place), "{error}");
            assert!(error.contains("is not there"), "{error}");
        }
        assert!(!work.path(place).exists(), "{place} is made anew");
        fs::rename(work.path("away"), work.path(place)).unwrap();
    }
    // An empty folder is the place of a file system that is not mounted.
    fs::rename(work.path("moved/archive"), work.path("away")).unwrap();
    fs::create_dir(work.path("moved/archive")).unwrap();
    let mut status = dor(work.folder());
    let error = fails(status.args(["status", "--plan", "moved/all.json"]), 78);
    assert!(error.contains("data_dir") && error.contains("is empty"), "{error}");
    // The folder is there, and the case's files are not.
    fs::create_dir(work.path("moved/archive/other")).unwrap();
    let mut run = dor(work.folder());
    let error = fails(run.args(["run", "--plan", "moved/all.json", "--shards", "1"]), 78);
    assert!(error.contains("has no raw files in") && error.contains("had 2"), "{error}");
}

#[test]
fn research_grade_files_that_are_cut_or_gone_are_not_done() {
    let work = workspace(&["112-04"], 2);
    plan(&work, "all");
    says(&work, "run --plan all.json --shards 1");
    let folder = work.path("all/out/112/04");
    let file = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "nc"))
        .unwrap();
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..50]).unwrap();
    let state = says(&work, "status --plan all.json");
    assert!(state.contains("not as planned: 112-04, research: ") && state.contains("50 bytes"));
    let mut finalize = dor(work.folder());
    let output = finalize.args(["finalize", "--plan", "all.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    says(&work, "run --plan all.json --shards 1");
    assert_eq!(fs::read(&file).unwrap(), whole);
    says(&work, "finalize --plan all.json");
}

#[test]
fn a_raw_file_with_other_bytes_of_the_same_size_is_told() {
    let work = workspace(&["112-04"], 2);
    plan(&work, "all");
    says(&work, "run --plan all.json --shards 1");
    set_age(&work.raw(0), 9);
    assert!(says(&work, "status --plan all.json").contains("1 of 1 case"), "it was touched");
    let mut bytes = fs::read(work.raw(1)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(work.raw(1), bytes).unwrap();
    let state = says(&work, "status --plan all.json");
    assert!(state.contains("not as planned: 112-04, research: "), "{state}");
    assert!(state.contains("0347-05.nc has other bytes than recorded"), "{state}");
    let mut finalize = dor(work.folder());
    let output = finalize.args(["finalize", "--plan", "all.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = says(&work, "run --plan all.json --shards 1");
    assert!(said.contains("4 of 4 products"), "{said}");
    says(&work, "finalize --plan all.json");
}
