//! Inputs of a plan besides the archive: results of another grid file, sea surface height or center do
//! not count as done.

use std::fs;

use super::super::support::case::{Workspace, assert_same, set_age};
use super::super::support::dor::{dor, fails, json};
use super::{make_plan, run_dor, workspace};

/// Another plan for the locations of `one`, with the current inputs.
fn make_second_plan(work: &Workspace, name: &str) {
    let stores = "--store1 one/s1 --store2 one/s2 --store3 one/s3 --output-dir one/out";
    let points = "--grid grid.nc --ssh ssh.nc --centers centers.csv --allow-missing";
    run_dor(work, &format!("plan -o {name}.json -d archive {stores} {points}"));
}

/// The products that `dor status` counts as done, and the output of `dor finalize`.
fn done_and_finalize_output(work: &Workspace, name: &str) -> (Vec<String>, String) {
    let plan = format!("{name}.json");
    let state = json(dor(work.folder()).args(["status", "--plan", &plan, "--json"]));
    let stages = state["status"]["products"].as_object().unwrap();
    let done = stages.iter().filter(|(_, counts)| counts["done"] == 1);
    let done = done.map(|(stage, _)| stage.clone()).collect();
    let finalized = dor(work.folder()).args(["finalize", "--plan", &plan]).output().unwrap();
    let expected = if state["status"]["done"] == 1 { 0 } else { 3 };
    assert_eq!(finalized.status.code(), Some(expected));
    (done, String::from_utf8(finalized.stdout).unwrap())
}

/// Asserts that a run of the plan exits with 78, prints all `words`, and changes no result.
fn assert_run_refused(work: &Workspace, name: &str, words: &[&str]) {
    let before = work.tree("one");
    let plan = format!("{name}.json");
    let error = fails(dor(work.folder()).args(["run", "--plan", &plan, "--shards", "1"]), 78);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    let dry = dor(work.folder()).args(["run", "--plan", &plan, "--dry-run"]).output().unwrap();
    let printed = String::from_utf8(dry.stdout).unwrap();
    assert_eq!(dry.status.code(), Some(78), "{printed}");
    assert!(printed.contains("cannot make store") && printed.contains("--force"), "{printed}");
    assert_same(&before, &work.tree("one"));
}

#[test]
fn touched_inputs_count_as_unchanged() {
    let work = workspace(&["112-04"], 2);
    make_plan(&work, "one");
    run_dor(&work, "run --plan one.json --shards 1");
    let chunks = || {
        let mut tree = work.tree("one");
        tree.retain(|name, _| !name.contains(".cases") && !name.ends_with("manifest.json"));
        tree
    };
    let before = chunks();
    for path in [work.raw(0), work.raw(1), work.path("ssh.nc"), work.path("grid.nc")] {
        set_age(&path, 7);
    }
    let printed = run_dor(&work, "run --plan one.json --shards 1");
    assert!(printed.contains("done before"), "{printed}");
    assert_same(&before, &chunks());
    assert_eq!(done_and_finalize_output(&work, "one").0.len(), 4);
}

#[test]
fn a_product_of_changed_raw_files_without_recorded_checksums_is_not_done() {
    let work = workspace(&["112-04"], 2);
    run_dor(&work, "vis create-template-store1 -o one/s1");
    let plan = "plan -o one.json -d archive --products store1 --store1 one/s1 --allow-missing";
    run_dor(&work, plan);
    run_dor(&work, "run --plan one.json --shards 1");
    assert_eq!(done_and_finalize_output(&work, "one").0, ["store1"]);
    // Raw files of the same size with other values.
    run_dor(&work, "demo raw other --case 112-04 --shape 8x9x3 --months 2 --seed 2");
    let other = work.raw(0);
    let other = work.path("other/archive").join(other.strip_prefix(work.path("archive")).unwrap());
    fs::copy(other, work.raw(0)).unwrap();
    let (done, finalized) = done_and_finalize_output(&work, "one");
    assert!(done.is_empty(), "{done:?} {finalized}");
    run_dor(&work, "run --plan one.json --shards 1");
    assert_eq!(done_and_finalize_output(&work, "one").0, ["store1"]);
}

#[test]
fn products_of_other_inputs_are_not_done_and_replaced_only_with_force() {
    let work = workspace(&["112-04"], 2);
    make_plan(&work, "one");
    run_dor(&work, "run --plan one.json --shards 1");
    let all = ["research", "store1", "store2", "store3"];
    assert_eq!(done_and_finalize_output(&work, "one").0, all);

    // Moves the center of polygon 112 by half a degree.
    let centers = fs::read_to_string(work.path("centers.csv")).unwrap();
    let line = centers.lines().find(|line| line.starts_with("112,")).unwrap();
    let cells: Vec<&str> = line.split(',').collect();
    let moved = format!("112,{},{}", cells[1].parse::<f64>().unwrap() + 0.5, cells[2]);
    fs::write(work.path("centers.csv"), centers.replace(line, &moved)).unwrap();
    make_second_plan(&work, "centers");
    let (done, finalize_output) = done_and_finalize_output(&work, "centers");
    assert_eq!(done, &all[..3]);
    assert!(
        finalize_output.contains("112-04, store3: it was made with another center"),
        "{finalize_output}"
    );
    let message = run_dor(&work, "status --plan centers.json");
    assert!(message.contains("not as planned: 112-04, store3"), "{message}");
    // Every node uses the centers of the plan, not the current table.
    fs::write(work.path("centers.csv"), &centers).unwrap();
    assert_run_refused(&work, "centers", &["center: the case manifest has ", "--force"]);
    run_dor(&work, "run --plan centers.json --shards 1 --force");
    assert_eq!(done_and_finalize_output(&work, "centers").0, all);
    assert_eq!(done_and_finalize_output(&work, "one").0, &all[..3]);

    // A grid file with other bytes and the same points.
    let (grid, ssh) = (work.path("grid.nc"), work.path("ssh.nc"));
    let original = fs::read(&grid).unwrap();
    fs::write(&grid, [&original[..], b"\0"].concat()).unwrap();
    let run = ["run", "--plan", "one.json", "--shards", "1"];
    let error = fails(dor(work.folder()).args(run), 78);
    assert!(error.contains("grid.nc is not what it was when the plan was made"), "{error}");
    make_second_plan(&work, "grid");
    let (done, finalize_output) = done_and_finalize_output(&work, "grid");
    assert_eq!(done, ["store1"]);
    for stage in ["research", "store2", "store3"] {
        let expected = format!("112-04, {stage}: it was made with another grid");
        assert!(finalize_output.contains(&expected), "{finalize_output}");
    }
    assert_run_refused(
        &work,
        "grid",
        &["grid: the case manifest has another grid file (SHA-256 ", "--force"],
    );
    assert_eq!(done_and_finalize_output(&work, "grid").0, ["store1"]);
    run_dor(&work, "run --plan grid.json --shards 1 --force");
    assert_eq!(done_and_finalize_output(&work, "grid").0, all);

    let bytes = fs::read(&ssh).unwrap();
    fs::write(&ssh, [&bytes[..], b"\0"].concat()).unwrap();
    let error = fails(dor(work.folder()).args(["run", "--plan", "grid.json", "--shards", "1"]), 78);
    assert!(error.contains("ssh.nc is not what it was when the plan was made"), "{error}");
    make_second_plan(&work, "ssh");
    let (done, finalize_output) = done_and_finalize_output(&work, "ssh");
    assert_eq!(done, ["research", "store1", "store3"]);
    assert!(
        finalize_output.contains("store2: it was made with another series of sea surface"),
        "{finalize_output}"
    );
    assert_run_refused(
        &work,
        "ssh",
        &["sea surface height: the case manifest has ssh.nc (SHA-256 ", "--force"],
    );
    run_dor(&work, "run --plan ssh.json --shards 1 --force");
    assert_eq!(done_and_finalize_output(&work, "ssh").0, all);

    // The same number of raw files, one with another size.
    let original = fs::read(work.raw(0)).unwrap();
    fs::write(work.raw(0), [&original[..], b"\0"].concat()).unwrap();
    make_second_plan(&work, "raw");
    let (done, finalize_output) = done_and_finalize_output(&work, "raw");
    assert!(
        done.is_empty() && finalize_output.contains("it was made of 2 files of"),
        "{finalize_output}"
    );
    let dry = run_dor(&work, "run --plan raw.json --dry-run");
    assert!(dry.contains("1 of 1 case to make\n  4 products: made of other raw files"), "{dry}");
    run_dor(&work, "run --plan raw.json --shards 1");
    assert_eq!(done_and_finalize_output(&work, "raw").0, all);

    // A case manifest that cannot be read affects only its product.
    for (store, of) in [("s1", "store1"), ("s2", "store2"), ("s3", "store3")] {
        fs::write(work.path(&format!("one/{store}/.cases/112-04.json")), b"junk").unwrap();
        let (done, finalize_output) = done_and_finalize_output(&work, "raw");
        assert!(done.len() == all.len() - 1 && !done.contains(&of.to_owned()), "{done:?}");
        let message = format!("112-04, {of}: ");
        assert!(
            finalize_output.contains(&message) && finalize_output.contains("dor run --force"),
            "{finalize_output}"
        );
        run_dor(&work, "run --plan raw.json --shards 1 --force");
        assert_eq!(done_and_finalize_output(&work, "raw").0, all);
    }
}

#[test]
fn missing_inputs_of_a_plan_are_reported() {
    let work = workspace(&["112-04"], 2);
    make_plan(&work, "one");
    run_dor(&work, "run --plan one.json --shards 1");
    for (what, name) in [("grid", "grid.nc"), ("ssh", "ssh.nc"), ("centers", "centers.csv")] {
        fs::rename(work.path(name), work.path("away")).unwrap();
        for command in [&["status"][..], &["finalize"], &["run", "--shards", "1"]] {
            let words = [command, &["--plan", "one.json"]].concat();
            let error = fails(dor(work.folder()).args(words), 78);
            assert!(error.contains(&format!("{what} of the plan")), "{error}");
            assert!(error.contains(name) && error.contains("is not there"), "{error}");
        }
        fs::rename(work.path("away"), work.path(name)).unwrap();
    }
    run_dor(&work, "finalize --plan one.json");
}

#[test]
fn a_plan_with_unusable_inputs_is_refused() {
    let work = workspace(&["112-04"], 2);
    let refused = |words: &str, code: i32, named: &str| {
        let all = format!("plan -o p.json -d archive --allow-missing {words}");
        let error = fails(dor(work.folder()).args(all.split(' ')), code);
        assert!(error.contains(named), "{error}");
        assert!(!work.path("p.json").exists());
    };
    let research = "--stages research --output-dir out";
    refused(&format!("{research} --grid centers.csv"), 65, "centers.csv");
    refused(&format!("{research} --grid none.nc"), 78, "none.nc");
    refused("--stages research --output-dir archive", 78, "mixed");
    let store3 = "--stages store3 --store3 s3";
    refused(&format!("{store3} --centers absent.csv"), 78, "absent.csv");
    refused(&format!("{store3} --centers grid.nc"), 65, "grid.nc");
    fs::write(work.path("few.csv"), "polygon_id,lon,lat\n5,10,20\n").unwrap();
    refused(&format!("{store3} --centers few.csv"), 65, "112");
    refused("--stages store2 --store2 s2 --ssh grid.nc", 65, "grid.nc");
    refused("--stages store2 --store2 s2 --ssh none.nc", 78, "none.nc");
    refused("--stages store1,store2 --store1 s --store2 s/2", 78, "a separate location");
    run_dor(&work, "vis create-template-store2 -o s2");
    refused("--stages store2 --store2 s2", 78, "--ssh");
}

#[test]
fn without_a_grid_file_points_come_from_the_first_readable_case() {
    let work = workspace(&["112-04", "113-04"], 2);
    run_dor(&work, "vis create-template-store2 -o s2 --variables PH -l 1");
    let stage = "--stages store2 --store2 s2 --allow-missing";
    run_dor(&work, &format!("plan -o p.json -d archive {stage}"));
    let printed = run_dor(&work, "run --plan p.json --shards 3 --shard 2");
    assert!(printed.contains("this shard has no cases"), "{printed}");
    let original = fs::read(work.raw(0)).unwrap();
    fs::write(work.raw(0), b"no NetCDF").unwrap();
    let run = ["run", "--plan", "p.json", "--shards", "1"];
    let error = fails(dor(work.folder()).args(run), 65);
    assert!(error.contains("112_1999-04-01"), "{error}");
    assert!(work.path("s2/.cases/113-04.json").exists(), "{error}");
    fs::write(work.raw(0), original).unwrap();
    run_dor(&work, "run --plan p.json --shards 1");
    run_dor(&work, "finalize --plan p.json");
}
