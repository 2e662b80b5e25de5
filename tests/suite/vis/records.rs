//! Results in map stores outlive commands that would drop them: values without a record, templates,
//! stores of another kind, pictures, rules that two processes begin with at once.

use std::fs;
use std::process::Stdio;

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::{dor, fails, json};
use super::super::support::s3::{BUCKET, S3Server};
use super::support::{FILL, add_polygon_113, floats, runs, vis, workspace};

const CONFIGURATION: i32 = 78;
pub(super) const CASE: &str = "-p 112 -m 4 --data-dir archive --allow-missing";
const MAPS: &str = "--variables PH -l 1";

/// What fills each store with the case of a workspace.
pub(super) const STORES: [(&str, &str); 3] = [
    ("create-template-store1 -o s1", "populate-store1 -o s1"),
    ("create-template-store2 -o s2 --variables PH -l 1", "populate-store2 -o s2 --grid grid.nc"),
    ("create-template-store3 -o s3", "populate-store3 -o s3 --grid grid.nc --centers centers.csv"),
];

/// All three stores, filled with one case and finalized.
pub(super) fn filled(months: u16) -> Workspace {
    let work = workspace(months);
    for (n, (create, populate)) in STORES.into_iter().enumerate() {
        runs(work.folder(), create);
        runs(work.folder(), &format!("{populate} {CASE}"));
        runs(work.folder(), &format!("finalize s{}", n + 1));
    }
    work
}

/// Runs `dor publish`, which must go well.
fn publish(work: &Workspace, arguments: &str) -> String {
    let mut command = dor(work.folder());
    let output = command.arg("publish").args(arguments.split_whitespace()).assert().success();
    String::from_utf8_lossy(&output.get_output().stdout).into_owned()
}

#[test]
fn a_published_copy_is_checked_extended_and_finalized() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        publish(&work, &format!("{store} copy/{store}"));
        let copy = format!("copy/{store}");
        let mut published = work.tree(&copy);
        published.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&work.tree(&store), &published);
        runs(work.folder(), &format!("check {copy}"));
        // Extended in place, it is the store that would have been extended and published.
        let case = "-p 113 -m 4 --data-dir archive --allow-missing";
        runs(work.folder(), &format!("{} {case}", populate.replace(&store, &copy)));
        runs(work.folder(), &format!("finalize {copy}"));
        let said = runs(work.folder(), &format!("check {copy}"));
        assert!(said.contains("2 of 2760 cases"), "{said}");
        // The source does not have what was added there: publishing it again is no repair.
        let before = work.tree(&copy);
        runs(work.folder(), &format!("remove {store} -p 112 -m 4"));
        let mut again = dor(work.folder());
        let error = fails(again.args(["publish", &store, &copy]), CONFIGURATION);
        assert!(error.contains(&copy) && error.contains("--overwrite"), "{error}");
        assert_same(&before, &work.tree(&copy));
        runs(work.folder(), &format!("{populate} {CASE}"));
        runs(work.folder(), &format!("{populate} {case}"));
        runs(work.folder(), &format!("finalize {store}"));
        let mut extended = work.tree(&copy);
        extended.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&work.tree(&store), &extended);
    }
}

#[test]
fn a_published_copy_in_a_bucket_is_finalized_there() {
    let work = filled(180);
    let server = S3Server::start();
    let copy = format!("s3://{BUCKET}/s1");
    let mut command = dor(work.folder());
    command.args(["publish", "s1", &copy]).envs(server.variables()).assert().success();
    for verb in ["check", "finalize", "check"] {
        vis(work.folder(), &format!("{verb} {copy}")).envs(server.variables()).assert().success();
    }
    let curves = floats(&server.bucket_folder().join("s1/DOR_efficiency/0.0.1"));
    assert_eq!(curves, floats(&work.path("s1/DOR_efficiency/0.0.1")));
    assert!(curves.iter().any(|value| *value != FILL));
}

#[test]
fn values_without_a_record_are_neither_dropped_nor_written_over() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (create, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        fs::remove_dir_all(work.path(&store).join(".cases")).unwrap();
        let before = work.tree(&store);
        let mut refused = vec![format!("finalize {store}"), create.to_owned()];
        refused.push(format!("{populate} {CASE}"));
        if n != 1 {
            // The chunks of stores 1 and 3 are everybody's.
            refused.push(format!("{populate} -p 113 -m 4 --data-dir archive --allow-missing"));
        }
        for command in refused {
            let error = fails(&mut vis(work.folder(), &command), CONFIGURATION);
            let names_it = error.contains("112 (month 4)") || error.contains("--overwrite");
            assert!(names_it && error.contains(&store), "{command}: {error}");
            assert_same(&before, &work.tree(&store));
        }
        let said = runs(work.folder(), &format!("check {store}"));
        assert!(said.contains("no records") && said.contains("112 (month 4)"), "{said}");
        let report = json(&mut vis(work.folder(), &format!("check {store} --json")));
        assert_eq!(report["has_records"], false, "{report}");
        assert_eq!(report["without_record"][0], "112-04", "{report}");
        // A damaged chunk is found all the same.
        let chunk = work.path(&store).join(match n {
            0 => "DOR_efficiency/0.0.1",
            1 => "0/PH/112.1.1.3.0.0.0",
            _ => "FG_CO2_percent_cumulative/0.0.1.0",
        });
        if n == 1 {
            let whole = fs::read(&chunk).unwrap();
            fs::write(&chunk, &whole[..whole.len() / 2]).unwrap();
            vis(work.folder(), &format!("check {store}")).assert().code(65);
            fs::write(&chunk, whole).unwrap();
        }
        // Adopted, it is a store as others are, with the same values.
        let values = fs::read(&chunk).unwrap();
        let said = runs(work.folder(), &format!("finalize {store} --adopt"));
        assert!(said.contains("made records of polygons 112 (month 4)"), "{said}");
        assert_eq!(fs::read(&chunk).unwrap(), values);
        runs(work.folder(), &format!("check {store}"));
        let said = runs(work.folder(), &format!("finalize {store} --adopt"));
        assert!(said.contains("every case with values has a record"), "{said}");
        // What it was made from is not known: it is not made again without being asked to.
        let adopted = work.tree(&store);
        vis(work.folder(), &format!("{populate} {CASE}")).assert().code(CONFIGURATION);
        assert_same(&adopted, &work.tree(&store));
        runs(work.folder(), &format!("{populate} {CASE} --force"));
    }
}

#[test]
fn a_store_without_records_is_filled_with_no_other_case() {
    let work = filled(3);
    add_polygon_113(&work);
    fs::remove_dir_all(work.path("s2/.cases")).unwrap();
    let other = STORES[1].1;
    let before = work.tree("s2");
    let words = format!("{other} -p 113 -m 4 --data-dir archive --allow-missing");
    let error = fails(&mut vis(work.folder(), &words), 78);
    assert!(error.contains("values of cases without a record") && error.contains("112"), "{error}");
    assert_same(&before, &work.tree("s2"));
}

#[test]
fn a_store_that_states_no_rules_is_adopted_when_they_are_named() {
    let work = filled(180);
    fs::remove_dir_all(work.path("s1/.cases")).unwrap();
    for name in [".zattrs", ".zmetadata"] {
        let path = work.path("s1").join(name);
        let mut document: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let attributes = match name {
            ".zattrs" => &mut document,
            _ => &mut document["metadata"][".zattrs"],
        };
        assert!(attributes.as_object_mut().unwrap().remove("recipe").is_some());
        fs::write(&path, document.to_string()).unwrap();
    }
    let before = work.tree("s1");
    let error = fails(&mut vis(work.folder(), "finalize s1 --adopt"), CONFIGURATION);
    assert!(error.contains("--reference-compat"), "{error}");
    assert_same(&before, &work.tree("s1"));
    runs(work.folder(), "finalize s1 --adopt --reference-compat");
    runs(work.folder(), "check s1");
}

#[test]
fn a_template_replaces_no_results_and_no_other_kind() {
    let work = filled(180);
    for (n, (create, _)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        let before = work.tree(&store);
        let error = fails(&mut vis(work.folder(), create), CONFIGURATION);
        assert!(error.contains("results of 1 case") && error.contains("--overwrite"), "{error}");
        for (other, _) in STORES.into_iter().filter(|(other, _)| *other != create) {
            let own = other.split_whitespace().nth(2).unwrap();
            let onto = other.replacen(&format!("-o {own}"), &format!("-o {store}"), 1);
            let error = fails(&mut vis(work.folder(), &format!("{onto} --overwrite")), 78);
            assert!(error.contains("another kind"), "{error}");
        }
        assert_same(&before, &work.tree(&store));
        // Asked for by name, the own kind goes.
        runs(work.folder(), &format!("{create} --overwrite"));
        runs(work.folder(), &create.replace(&format!("-o {store}"), &format!("-o new{store}")));
        assert_same(&work.tree(&format!("new{store}")), &work.tree(&store));
    }
    // What a killed process left of a template is completed.
    fs::remove_file(work.path("news1/.zmetadata")).unwrap();
    fs::remove_file(work.path("news1/.zgroup")).unwrap();
    fs::remove_file(work.path("news1/DOR_efficiency/0.0.3")).unwrap();
    runs(work.folder(), "create-template-store1 -o news1");
    assert_same(&work.tree("s1"), &work.tree("news1"));
}

#[test]
fn a_case_is_taken_out_of_a_store_and_of_its_published_copy() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        let before = work.tree(&store);
        let other = "-p 113 -m 4 --data-dir archive --allow-missing";
        runs(work.folder(), &format!("{populate} {other}"));
        runs(work.folder(), &format!("finalize {store}"));
        publish(&work, &format!("{store} copy/{store}"));
        let full = work.tree(&store);
        let said = runs(work.folder(), &format!("remove {store} -p 113 -m 4 --dry-run"));
        assert!(said.contains("would remove polygons 113 (month 4)"), "{said}");
        assert_same(&full, &work.tree(&store));
        let absent = format!("remove {store} -p 5");
        assert!(fails(&mut vis(work.folder(), &absent), 78).contains("holds nothing of"));
        let said = runs(work.folder(), &format!("remove {store} -p 113 -m 4"));
        assert!(said.contains("removed polygons 113 (month 4)"), "{said}");
        assert_same(&before, &work.tree(&store));
        runs(work.folder(), &format!("check {store}"));
        // Without --delete, what is no longer in the source is counted.
        let orphaned = full.keys().filter(|name| !before.contains_key(*name)).count();
        let status = publish(&work, &format!("status copy/{store} --source {store}"));
        assert!(status.contains(&format!("orphaned: {orphaned} object")), "{status}");
        // Nor is the case taken out of the chunks that it shares, while its record stays.
        let copy = work.tree(&format!("copy/{store}"));
        let mut again = dor(work.folder());
        again.args(["publish", &store, &format!("copy/{store}")]);
        if n != 1 {
            let error = fails(&mut again, CONFIGURATION);
            assert!(error.contains("113 (month 4)") && error.contains("--delete"), "{error}");
            assert_same(&copy, &work.tree(&format!("copy/{store}")));
        }
        // Nor is a part of it deleted, while its record stays.
        let mut half = dor(work.folder());
        half.args(["publish", &store, &format!("copy/{store}"), "--delete"]);
        let error = fails(half.args(["--exclude", ".cases/**"]), CONFIGURATION);
        assert!(error.contains("record") && error.contains("--exclude"), "{error}");
        assert_same(&copy, &work.tree(&format!("copy/{store}")));
        let said = publish(&work, &format!("{store} copy/{store} --delete"));
        assert!(said.contains("deleted"), "{said}");
        let mut published = work.tree(&format!("copy/{store}"));
        published.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&before, &published);
    }
}

#[test]
fn what_was_taken_out_of_a_published_copy_is_known_to_the_next_publish() {
    let work = filled(180);
    add_polygon_113(&work);
    let other = "-p 113 -m 4 --data-dir archive --allow-missing";
    for (store, populate) in [("s1", STORES[0].1), ("s2", STORES[1].1)] {
        let less = format!("less_{store}");
        fs::rename(work.path(store), work.path(&less)).unwrap();
        let mut copied = std::process::Command::new("cp");
        assert!(
            copied
                .arg("-a")
                .arg(work.path(&less))
                .arg(work.path(store))
                .status()
                .unwrap()
                .success()
        );
        runs(work.folder(), &format!("{populate} {other}"));
        runs(work.folder(), &format!("finalize {store}"));
        publish(&work, &format!("{store} copy/{store}"));
        runs(work.folder(), &format!("remove copy/{store} -p 113 -m 4"));
        // The source has what was taken out there: who publishes it must know that.
        let mut again = dor(work.folder());
        again.args(["publish", store, &format!("copy/{store}")]);
        let error = fails(&mut again, CONFIGURATION);
        assert!(error.contains("was finalized there since"), "{error}");
        publish(&work, &format!("{less} copy/{store}"));
        publish(&work, &format!("{store} copy/{store}"));
        runs(work.folder(), &format!("check copy/{store}"));
        let mut there = work.tree(&format!("copy/{store}"));
        there.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&work.tree(store), &there);
    }
}

#[test]
fn a_case_is_taken_out_beside_others_without_a_record() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        let alone = work.tree(&store);
        runs(work.folder(), &format!("{populate} -p 113 -m 4 --data-dir archive --allow-missing"));
        runs(work.folder(), &format!("finalize {store}"));
        fs::remove_file(work.path(&store).join(".cases/112-04.json")).unwrap();
        let said = runs(work.folder(), &format!("remove {store} -p 113 -m 4"));
        assert!(said.contains("removed polygons 113 (month 4)"), "{said}");
        // Polygon 112 keeps its values, and can be adopted.
        let mut rest = work.tree(&store);
        let mut expected = alone.clone();
        for tree in [&mut rest, &mut expected] {
            tree.retain(|name, _| !name.starts_with(".cases/"));
        }
        assert_same(&expected, &rest);
        runs(work.folder(), &format!("finalize {store} --adopt"));
        runs(work.folder(), &format!("check {store}"));
    }
}

#[test]
fn maps_that_lack_chunks_are_not_finalized() {
    let work = filled(3);
    let chunk = work.path("s2/0/PH/112.1.1.3.0.0.0");
    let bytes = fs::read(&chunk).unwrap();
    fs::remove_file(&chunk).unwrap();
    let error = fails(&mut vis(work.folder(), "finalize s2"), 65);
    assert!(error.contains("lacks chunks") && error.contains("112 (month 4)"), "{error}");
    assert!(error.contains("--force"), "{error}");
    fs::write(&chunk, bytes).unwrap();
    runs(work.folder(), "finalize s2");
    // What is no part of a store is not told as a result.
    fs::write(work.path("s2/figure.png"), b"picture").unwrap();
    let error = vis(work.folder(), "check s2").output().unwrap();
    let said = String::from_utf8_lossy(&error.stdout).into_owned();
    assert_eq!(error.status.code(), Some(65), "{said}");
    assert!(said.contains("figure.png is no part of the store: move it away"), "{said}");
}

#[test]
fn a_case_that_is_being_written_is_no_case_without_a_record() {
    let work = filled(14);
    // As a process that was killed leaves it.
    let record = work.path("s2/.cases/112-04.json");
    fs::rename(&record, work.path("s2/.cases/112-04.partial.json")).unwrap();
    fs::remove_file(work.path("s2/0/PH/112.1.1.11.0.0.0")).unwrap();
    runs(work.folder(), "finalize s2");
    runs(work.folder(), &format!("populate-store2 -o s2 --grid grid.nc {CASE}"));
    assert!(record.exists() && !work.path("s2/.cases/112-04.partial.json").exists());
    runs(work.folder(), "finalize s2");
    runs(work.folder(), "check s2");
}

#[test]
fn of_two_rules_that_begin_at_once_one_is_kept() {
    let work = workspace(2);
    for round in 0..6 {
        let store = format!("s{round}");
        runs(work.folder(), &format!("create-template-store2 -o {store} {MAPS}"));
        let populate = format!("populate-store2 -o {store} --grid grid.nc {CASE}");
        let start = |more: &[&str]| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dor"));
            command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
            command.arg("vis").args(populate.split_whitespace()).args(more);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let both = [start(&[]), start(&["--reference-compat"])];
        let codes = both.map(|mut process| process.wait().unwrap().code().unwrap());
        assert!(codes.contains(&0) && codes.iter().all(|code| [0, 78].contains(code)), "{codes:?}");
        let compat = codes[1] == 0;
        let text = fs::read_to_string(work.path(&format!("{store}/.cases/112-04.json"))).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["recipe"]["reference_compat"], compat, "{codes:?}");
        runs(work.folder(), &format!("check {store}"));
    }
}

#[test]
fn a_picture_replaces_only_pictures_of_dor() {
    let work = filled(180);
    let plot = "plot s1 --series -p 112 -m 4 -o out.png";
    runs(work.folder(), plot);
    let own = fs::read(work.path("out.png")).unwrap();
    runs(work.folder(), plot);
    for other in [b"\x89PNG\r\n\x1a\nphoto of a ship".to_vec(), b"notes".to_vec()] {
        fs::write(work.path("out.png"), &other).unwrap();
        let error = fails(&mut vis(work.folder(), plot), CONFIGURATION);
        assert!(error.contains("out.png") && error.contains("--overwrite"), "{error}");
        assert_eq!(fs::read(work.path("out.png")).unwrap(), other);
    }
    runs(work.folder(), &format!("{plot} --overwrite"));
    assert_eq!(fs::read(work.path("out.png")).unwrap(), own);
}

#[test]
fn a_poorer_source_replaces_nothing_that_is_published() {
    let work = filled(180);
    for (n, (create, _)) in STORES.into_iter().enumerate() {
        let (store, copy) = (format!("s{}", n + 1), format!("copy/s{}", n + 1));
        publish(&work, &format!("{store} {copy}"));
        let before = work.tree(&copy);
        runs(work.folder(), &create.replace(&format!("-o {store}"), "-o empty --overwrite"));
        runs(work.folder(), "finalize empty");
        let publish = |more: &[&str]| {
            let mut command = dor(work.folder());
            command.args(["publish", "empty", &copy]).args(more);
            command
        };
        let error = fails(&mut publish(&[]), CONFIGURATION);
        assert!(error.contains("112 (month 4)") && error.contains("--delete"), "{error}");
        // A copy of the store without its records is worse, too.
        fs::remove_dir_all(work.path("empty/.cases")).unwrap();
        let error = fails(&mut publish(&["--audit"]), CONFIGURATION);
        assert!(error.contains("records of its cases"), "{error}");
        assert_same(&before, &work.tree(&copy));
        publish(&["--overwrite"]).assert().success();
        fs::remove_dir_all(work.path("empty")).unwrap();
    }
}

#[test]
fn published_research_grade_files_are_not_replaced_by_worse_ones() {
    let work = workspace(3);
    let convert = |output: &str, more: &[&str]| {
        let mut command = dor(work.folder());
        command.args(["research-data", "process-case", "112-04", "-d", "archive", "-o", output]);
        command.arg("--allow-missing").args(more).assert().success();
    };
    convert("good", &["--grid", "grid.nc"]);
    convert("gridless", &[]);
    fs::remove_file(work.raw(2)).unwrap();
    convert("fewer", &["--grid", "grid.nc"]);
    publish(&work, "good copy");
    let before = work.tree("copy");
    for (source, words) in [("gridless", "grid"), ("fewer", "1 more months")] {
        let mut again = dor(work.folder());
        let error = fails(again.args(["publish", source, "copy"]), CONFIGURATION);
        assert!(error.contains(words) && error.contains("112/04/manifest.json"), "{error}");
        assert_same(&before, &work.tree("copy"));
    }
    publish(&work, "gridless copy --overwrite");
}

#[test]
fn values_are_noticed_in_any_level_and_damage_is_not_adopted() {
    let work = filled(180);
    fs::remove_dir_all(work.path("s1/.cases")).unwrap();
    let chunk = work.path("s1/DOR_efficiency/0.0.1");
    let whole = fs::read(&chunk).unwrap();
    fs::write(&chunk, &whole[..whole.len() / 2]).unwrap();
    let before = work.tree("s1");
    for command in ["finalize s1", "finalize s1 --adopt"] {
        let error = fails(&mut vis(work.folder(), command), 65);
        assert!(error.contains("DOR_efficiency/0.0.1") && error.contains("damaged"), "{error}");
        assert_same(&before, &work.tree("s1"));
    }
    fs::remove_dir_all(work.path("s2/.cases")).unwrap();
    for entry in fs::read_dir(work.path("s2/0/PH")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("112.0") || name.ends_with(".5.0.0.0") {
            fs::remove_file(path).unwrap();
        }
    }
    let error = fails(&mut vis(work.folder(), "finalize s2"), CONFIGURATION);
    assert!(error.contains("112 (month 4)"), "{error}");
    let error = fails(&mut vis(work.folder(), "finalize s2 --adopt"), 65);
    assert!(error.contains("lacks chunks") && error.contains("112 (month 4)"), "{error}");
    runs(work.folder(), "remove s2 -p 112 -m 4");
    runs(work.folder(), "check s2");
}
