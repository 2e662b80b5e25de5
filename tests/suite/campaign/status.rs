//! `dor status` and `dor finalize` of a plan.

use std::fs;

use serde_json::Value;

use super::super::support::case::set_age;
use super::super::support::dor::{dor, fails, json};
use super::{make_plan, run_dor, start, workspace};

#[test]
fn finalize_refuses_until_every_case_is_as_planned() {
    let work = workspace(&["112-04", "113-04", "114-07"], 2);
    make_plan(&work, "all");
    let before = work.tree("all");
    let mut finalize = dor(work.folder());
    finalize.args(["finalize", "--plan", "all.json"]);
    let output = finalize.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        printed.contains("12 products missing or not as planned")
            && printed.contains("114-07, store3"),
        "{printed}"
    );
    assert_eq!(work.tree("all"), before);

    run_dor(&work, "run --plan all.json --shards 3 --shard 1");
    let state = run_dor(&work, "status --plan all.json");
    assert!(state.contains("1 of 3 cases"), "{state}");
    assert!(state.contains("still to run, of 3 shards: --array=0,2"), "{state}");
    let state = run_dor(&work, "status --plan all.json --shards 2");
    assert!(state.contains("still to run, of 2 shards: --array=0\n"), "{state}");
    run_dor(&work, "run --plan all.json --shards 3 --shard 0");
    run_dor(&work, "run --plan all.json --shards 3 --shard 2 --polygon-range 0 113");
    assert_eq!(finalize.output().unwrap().status.code(), Some(3), "polygon 114 was left out");
    run_dor(&work, "run --plan all.json --shards 3 --shard 2");

    // A product that was made under another recipe is not as planned.
    let manifest = work.path("all/s2/.cases/113-04.json");
    let original = fs::read_to_string(&manifest).unwrap();
    let other = original.replace("\"reference_compat\": false", "\"reference_compat\": true");
    assert_ne!(original, other);
    fs::write(&manifest, other).unwrap();
    let printed = String::from_utf8(finalize.output().unwrap().stdout).unwrap();
    assert!(printed.contains("113-04, store2: it was made under other rules"), "{printed}");
    fs::write(&manifest, original).unwrap();

    // A product of fewer files than the plan has is not as planned.
    let manifest = work.path("all/s1/.cases/113-04.json");
    let original = fs::read_to_string(&manifest).unwrap();
    let mut fewer: Value = serde_json::from_str(&original).unwrap();
    fewer["inputs"].as_array_mut().unwrap().pop();
    fs::write(&manifest, fewer.to_string()).unwrap();
    let printed = String::from_utf8(finalize.output().unwrap().stdout).unwrap();
    assert!(printed.contains("113-04, store1: it was made of 1 files of "), "{printed}");

    // A product of research-grade files is not as planned.
    fs::write(&manifest, original.replace("/ocn/hist/", "/")).unwrap();
    let printed = String::from_utf8(finalize.output().unwrap().stdout).unwrap();
    let expected =
        "113-04, store1: it was made of research-grade files, the plan makes it of raw history";
    assert!(printed.contains(expected), "{printed}");
    fs::write(&manifest, original).unwrap();

    let printed = run_dor(&work, "finalize --plan all.json --publish-to published");
    assert!(printed.contains("store3 with 3 of 2760 cases"), "{printed}");
    for name in ["out/112/04/manifest.json", "s1/.zmetadata", "s2/.zmetadata", "s3/.zmetadata"] {
        assert!(work.path("published").join(name).exists(), "{name}");
    }
    let state = json(dor(work.folder()).args(["status", "--plan", "all.json", "--json"]));
    assert_eq!(state["status"]["done"], 3);
    assert_eq!(state["status"]["to_run"], Value::Array(Vec::new()));
}

#[test]
fn status_reports_running_and_failed_cases() {
    let work = workspace(&["112-04", "113-04"], 24);
    let raw = work.raw(0);
    make_plan(&work, "all");
    let original = fs::read(&raw).unwrap();
    fs::write(&raw, b"no NetCDF").unwrap();
    let run = dor(work.folder()).args(["run", "--plan", "all.json", "--shards", "1"]).output();
    assert_eq!(run.unwrap().status.code(), Some(65), "every failure is a failure of the input");
    let state = json(dor(work.folder()).args(["status", "--plan", "all.json", "--json"]));
    assert_eq!(state["status"]["products"]["research"]["failed"], 1);
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

    fs::write(&raw, original).unwrap();
    let mut child = start(&work, "all");
    let began = std::time::Instant::now();
    let running = || {
        let state = json(dor(work.folder()).args(["status", "--plan", "all.json", "--json"]));
        state["status"]["products"]["research"]["running"] == 1
    };
    while !running() {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(60),
            "status shows nothing that runs"
        );
        assert!(child.try_wait().unwrap().is_none(), "the run ended before status showed it");
    }
    assert!(child.wait().unwrap().success());
    assert!(run_dor(&work, "status --plan all.json --watch").contains("2 of 2 cases"));
    let configured = dor(work.folder()).env("DOR_PLAN", "all.json").arg("status").output();
    assert!(String::from_utf8(configured.unwrap().stdout).unwrap().contains("2 of 2 cases"));
    let error = fails(dor(work.folder()).arg("status"), 78);
    assert!(error.contains("--plan") && error.contains("DOR_PLAN"), "{error}");
    let error = fails(dor(work.folder()).args(["status", "--plan", "none.json"]), 78);
    assert!(error.contains("no plan") && error.contains("dor plan"), "{error}");
}

#[test]
fn a_moved_plan_works_and_missing_locations_are_reported() {
    let work = workspace(&["112-04"], 2);
    make_plan(&work, "all");
    run_dor(&work, "run --plan all.json --shards 1");
    fs::create_dir(work.path("moved")).unwrap();
    for name in ["all", "all.json", "all.state", "archive", "grid.nc", "ssh.nc", "centers.csv"] {
        fs::rename(work.path(name), work.path("moved").join(name)).unwrap();
    }
    let state = run_dor(&work, "status --plan moved/all.json");
    assert!(state.contains("1 of 1 case"), "{state}");
    let printed = run_dor(&work, "run --plan moved/all.json --shards 1");
    assert!(printed.contains("done before"), "{printed}");
    run_dor(&work, "finalize --plan moved/all.json");

    for (key, location) in [
        ("data_dir", "moved/archive"),
        ("output_dir", "moved/all/out"),
        ("store1", "moved/all/s1"),
        ("store2", "moved/all/s2"),
    ] {
        fs::rename(work.path(location), work.path("away")).unwrap();
        for words in [&["status"][..], &["finalize"], &["run", "--shards", "1"]] {
            let mut command = dor(work.folder());
            let error = fails(command.args(words).args(["--plan", "moved/all.json"]), 78);
            assert!(error.contains(key) && error.contains(location), "{error}");
            assert!(error.contains("is not there"), "{error}");
        }
        assert!(!work.path(location).exists(), "{location} was created again");
        fs::rename(work.path("away"), work.path(location)).unwrap();
    }
    // An empty archive counts as missing: its file system may not be mounted.
    fs::rename(work.path("moved/archive"), work.path("away")).unwrap();
    fs::create_dir(work.path("moved/archive")).unwrap();
    let mut status = dor(work.folder());
    let error = fails(status.args(["status", "--plan", "moved/all.json"]), 78);
    assert!(error.contains("data_dir") && error.contains("is empty"), "{error}");
    // The archive exists, without the files of the case.
    fs::create_dir(work.path("moved/archive/other")).unwrap();
    let mut run = dor(work.folder());
    let error = fails(run.args(["run", "--plan", "moved/all.json", "--shards", "1"]), 78);
    assert!(error.contains("has no raw files in") && error.contains("had 2"), "{error}");
}

#[test]
fn truncated_research_grade_files_are_not_done() {
    let work = workspace(&["112-04"], 2);
    make_plan(&work, "all");
    run_dor(&work, "run --plan all.json --shards 1");
    let folder = work.path("all/out/112/04");
    let file = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "nc"))
        .unwrap();
    let original = fs::read(&file).unwrap();
    fs::write(&file, &original[..50]).unwrap();
    let state = run_dor(&work, "status --plan all.json");
    assert!(state.contains("not as planned: 112-04, research: ") && state.contains("50 bytes"));
    let mut finalize = dor(work.folder());
    let output = finalize.args(["finalize", "--plan", "all.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    run_dor(&work, "run --plan all.json --shards 1");
    assert_eq!(fs::read(&file).unwrap(), original);
    run_dor(&work, "finalize --plan all.json");
}

#[test]
fn a_raw_file_with_changed_bytes_of_the_same_size_is_reported() {
    let work = workspace(&["112-04"], 2);
    make_plan(&work, "all");
    run_dor(&work, "run --plan all.json --shards 1");
    set_age(&work.raw(0), 9);
    assert!(
        run_dor(&work, "status --plan all.json").contains("1 of 1 case"),
        "a touched file counts as unchanged"
    );
    let mut bytes = fs::read(work.raw(1)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(work.raw(1), bytes).unwrap();
    let state = run_dor(&work, "status --plan all.json");
    assert!(state.contains("not as planned: 112-04, research: "), "{state}");
    assert!(state.contains("0347-05.nc has other bytes than recorded"), "{state}");
    let mut finalize = dor(work.folder());
    let output = finalize.args(["finalize", "--plan", "all.json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let printed = run_dor(&work, "run --plan all.json --shards 1");
    assert!(printed.contains("4 of 4 products"), "{printed}");
    run_dor(&work, "finalize --plan all.json");
}
