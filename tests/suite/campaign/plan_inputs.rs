//! What a plan's results depend on besides the archive: another grid, series or centre makes them others.

use std::fs;

use super::super::support::case::{Workspace, assert_same, set_age};
use super::super::support::dor::{dor, fails, json};
use super::{plan, says, workspace};

/// Another plan for the places of `one`, with what lies there now.
fn plan_again(work: &Workspace, name: &str) {
    let stores = "--store1 one/s1 --store2 one/s2 --store3 one/s3 --output-dir one/out";
    let points = "--grid grid.nc --ssh ssh.nc --centers centers.csv --allow-missing";
    says(work, &format!("plan -o {name}.json -d archive {stores} {points}"));
}

/// Which products `dor status` calls done, and what `dor finalize` names.
fn state(work: &Workspace, name: &str) -> (Vec<String>, String) {
    let plan = format!("{name}.json");
    let state = json(dor(work.folder()).args(["status", "--plan", &plan, "--json"]));
    let stages = state["status"]["stages"].as_object().unwrap();
    let done = stages.iter().filter(|(_, counts)| counts["done"] == 1);
    let done = done.map(|(stage, _)| stage.clone()).collect();
    let finalized = dor(work.folder()).args(["finalize", "--plan", &plan]).output().unwrap();
    let expected = if state["status"]["done"] == 1 { 0 } else { 3 };
    assert_eq!(finalized.status.code(), Some(expected));
    (done, String::from_utf8(finalized.stdout).unwrap())
}

/// A run of a plan must end with 78, say each of `words`, and change nothing that was made.
fn stops(work: &Workspace, name: &str, words: &[&str]) {
    let before = work.tree("one");
    let plan = format!("{name}.json");
    let error = fails(dor(work.folder()).args(["run", "--plan", &plan, "--shards", "1"]), 78);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert_same(&before, &work.tree("one"));
}

#[test]
fn files_that_were_touched_are_the_same() {
    let work = workspace(&["112-04"], 2);
    plan(&work, "one");
    says(&work, "run --plan one.json --shards 1");
    let chunks = || {
        let mut tree = work.tree("one");
        tree.retain(|name, _| !name.contains(".cases") && !name.ends_with("manifest.json"));
        tree
    };
    let before = chunks();
    for path in [work.raw(0), work.raw(1), work.path("ssh.nc"), work.path("grid.nc")] {
        set_age(&path, 7);
    }
    let said = says(&work, "run --plan one.json --shards 1");
    assert!(said.contains("done before"), "{said}");
    assert_same(&before, &chunks());
    assert_eq!(state(&work, "one").0.len(), 4);
}

#[test]
fn what_was_made_with_others_is_not_done_and_is_made_again_only_by_force() {
    let work = workspace(&["112-04"], 2);
    plan(&work, "one");
    says(&work, "run --plan one.json --shards 1");
    let all = ["research", "store1", "store2", "store3"];
    assert_eq!(state(&work, "one").0, all);

    // The same line of the table, half a degree away.
    let centers = fs::read_to_string(work.path("centers.csv")).unwrap();
    let line = centers.lines().find(|line| line.starts_with("112,")).unwrap();
    let cells: Vec<&str> = line.split(',').collect();
    let moved = format!("112,{},{}", cells[1].parse::<f64>().unwrap() + 0.5, cells[2]);
    fs::write(work.path("centers.csv"), centers.replace(line, &moved)).unwrap();
    plan_again(&work, "centers");
    let (done, named) = state(&work, "centers");
    assert_eq!(done, &all[..3]);
    assert!(named.contains("112-04, store3: it was made with another centre"), "{named}");
    let told = says(&work, "status --plan centers.json");
    assert!(told.contains("not as planned: 112-04, store3"), "{told}");
    // Every node goes by the plan, not by what the table has by now.
    fs::write(work.path("centers.csv"), &centers).unwrap();
    stops(&work, "centers", &["centre: the record has ", "--force"]);
    says(&work, "run --plan centers.json --shards 1 --force");
    assert_eq!(state(&work, "centers").0, all);
    assert_eq!(state(&work, "one").0, &all[..3]);

    // A file with other bytes, of the same points.
    let (grid, ssh) = (work.path("grid.nc"), work.path("ssh.nc"));
    let whole = fs::read(&grid).unwrap();
    fs::write(&grid, [&whole[..], b"\0"].concat()).unwrap();
    let run = ["run", "--plan", "one.json", "--shards", "1"];
    let error = fails(dor(work.folder()).args(run), 78);
    assert!(error.contains("grid.nc is not what it was when the plan was made"), "{error}");
    plan_again(&work, "grid");
    let (done, named) = state(&work, "grid");
    assert_eq!(done, ["store1"]);
    for stage in ["research", "store2", "store3"] {
        let expected = format!("112-04, {stage}: it was made with another grid");
        assert!(named.contains(&expected), "{named}");
    }
    stops(&work, "grid", &["grid: the record has another grid file (SHA-256 ", "--force"]);
    assert_eq!(state(&work, "grid").0, ["store1"]);
    says(&work, "run --plan grid.json --shards 1 --force");
    assert_eq!(state(&work, "grid").0, all);

    let bytes = fs::read(&ssh).unwrap();
    fs::write(&ssh, [&bytes[..], b"\0"].concat()).unwrap();
    let error = fails(dor(work.folder()).args(["run", "--plan", "grid.json", "--shards", "1"]), 78);
    assert!(error.contains("ssh.nc is not what it was when the plan was made"), "{error}");
    plan_again(&work, "ssh");
    let (done, named) = state(&work, "ssh");
    assert_eq!(done, ["research", "store1", "store3"]);
    assert!(named.contains("store2: it was made with another series of sea surface"), "{named}");
    stops(&work, "ssh", &["sea surface height: the record has ssh.nc (SHA-256 ", "--force"]);
    says(&work, "run --plan ssh.json --shards 1 --force");
    assert_eq!(state(&work, "ssh").0, all);

    // As many raw files, of other sizes.
    let whole = fs::read(work.raw(0)).unwrap();
    fs::write(work.raw(0), [&whole[..], b"\0"].concat()).unwrap();
    plan_again(&work, "raw");
    let (done, named) = state(&work, "raw");
    assert!(done.is_empty() && named.contains("it was made of 2 files of"), "{named}");
    says(&work, "run --plan raw.json --shards 1");
    assert_eq!(state(&work, "raw").0, all);

    // A record that cannot be read is one product's affair.
    for (store, of) in [("s1", "store1"), ("s2", "store2"), ("s3", "store3")] {
        fs::write(work.path(&format!("one/{store}/.cases/112-04.json")), b"junk").unwrap();
        let (done, named) = state(&work, "raw");
        assert!(done.len() == all.len() - 1 && !done.contains(&of.to_owned()), "{done:?}");
        let told = format!("112-04, {of}: ");
        assert!(named.contains(&told) && named.contains("dor run --force"), "{named}");
        says(&work, "run --plan raw.json --shards 1 --force");
        assert_eq!(state(&work, "raw").0, all);
    }
}

#[test]
fn files_that_were_moved_away_are_named() {
    let work = workspace(&["112-04"], 2);
    plan(&work, "one");
    says(&work, "run --plan one.json --shards 1");
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
    says(&work, "finalize --plan one.json");
}

#[test]
fn a_plan_of_what_cannot_be_used_is_not_made() {
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
    says(&work, "vis create-template-store2 -o s2");
    refused("--stages store2 --store2 s2", 78, "--ssh");
}

#[test]
fn without_a_grid_file_points_are_those_of_the_first_case_that_can_be_read() {
    let work = workspace(&["112-04", "113-04"], 2);
    says(&work, "vis create-template-store2 -o s2 --variables PH -l 1");
    let stage = "--stages store2 --store2 s2 --allow-missing";
    says(&work, &format!("plan -o p.json -d archive {stage}"));
    let said = says(&work, "run --plan p.json --shards 3 --shard 2");
    assert!(said.contains("this shard has no cases"), "{said}");
    let whole = fs::read(work.raw(0)).unwrap();
    fs::write(work.raw(0), b"no NetCDF").unwrap();
    let run = ["run", "--plan", "p.json", "--shards", "1"];
    let error = fails(dor(work.folder()).args(run), 65);
    assert!(error.contains("112_1999-04-01"), "{error}");
    assert!(work.path("s2/.cases/113-04.json").exists(), "{error}");
    fs::write(work.raw(0), whole).unwrap();
    says(&work, "run --plan p.json --shards 1");
    says(&work, "finalize --plan p.json");
}
