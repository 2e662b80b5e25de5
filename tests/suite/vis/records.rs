//! Case manifests of map stores, and results that commands must not drop: values without a case
//! manifest, published copies, templates over stores, plots, and concurrent recipes.

use std::fs;
use std::process::Stdio;

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::{dor, fails, json};
use super::super::support::s3::{BUCKET, S3Server};
use super::support::{FILL, add_polygon_113, floats, run_vis, vis_command, workspace};

const CONFIGURATION: i32 = 78;
pub(super) const CASE: &str = "-p 112 -m 4 --data-dir archive --allow-missing";
const MAPS: &str = "--variables PH -l 1";

/// For each store, the commands that create and fill it.
pub(super) const STORES: [(&str, &str); 3] = [
    ("create-template-store1 -o s1", "populate-store1 -o s1"),
    ("create-template-store2 -o s2 --variables PH -l 1", "populate-store2 -o s2 --grid grid.nc"),
    ("create-template-store3 -o s3", "populate-store3 -o s3 --grid grid.nc --centers centers.csv"),
];

/// All three stores, filled with one case and finalized.
pub(super) fn filled(months: u16) -> Workspace {
    let work = workspace(months);
    for (n, (create, populate)) in STORES.into_iter().enumerate() {
        run_vis(work.folder(), create);
        run_vis(work.folder(), &format!("{populate} {CASE}"));
        run_vis(work.folder(), &format!("finalize s{}", n + 1));
    }
    work
}

/// Runs `dor publish`, which must succeed; returns standard output.
fn publish(work: &Workspace, arguments: &str) -> String {
    let mut command = dor(work.folder());
    let output = command.arg("publish").args(arguments.split_whitespace()).assert().success();
    String::from_utf8_lossy(&output.get_output().stdout).into_owned()
}

#[test]
fn a_published_copy_can_be_checked_extended_and_finalized() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        publish(&work, &format!("{store} copy/{store}"));
        let copy = format!("copy/{store}");
        let mut published = work.tree(&copy);
        published.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&work.tree(&store), &published);
        run_vis(work.folder(), &format!("check {copy}"));
        // Filling another case in the copy gives the store that is filled first and published then.
        let case = "-p 113 -m 4 --data-dir archive --allow-missing";
        run_vis(work.folder(), &format!("{} {case}", populate.replace(&store, &copy)));
        run_vis(work.folder(), &format!("finalize {copy}"));
        let printed = run_vis(work.folder(), &format!("check {copy}"));
        assert!(printed.contains("2 of 2760 cases"), "{printed}");
        // A source without the added case is not published over the copy.
        let before = work.tree(&copy);
        run_vis(work.folder(), &format!("remove {store} -p 112 -m 4"));
        let mut again = dor(work.folder());
        let error = fails(again.args(["publish", &store, &copy]), CONFIGURATION);
        assert!(error.contains(&copy) && error.contains("--overwrite"), "{error}");
        assert_same(&before, &work.tree(&copy));
        run_vis(work.folder(), &format!("{populate} {CASE}"));
        run_vis(work.folder(), &format!("{populate} {case}"));
        run_vis(work.folder(), &format!("finalize {store}"));
        let mut extended = work.tree(&copy);
        extended.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&work.tree(&store), &extended);
    }
}

#[test]
fn a_published_copy_in_a_bucket_can_be_finalized() {
    let work = filled(180);
    let server = S3Server::start();
    let copy = format!("s3://{BUCKET}/s1");
    let mut command = dor(work.folder());
    command.args(["publish", "s1", &copy]).envs(server.variables()).assert().success();
    for verb in ["check", "finalize", "check"] {
        vis_command(work.folder(), &format!("{verb} {copy}"))
            .envs(server.variables())
            .assert()
            .success();
    }
    let curves = floats(&server.bucket_folder().join("s1/DOR_efficiency/0.0.1"));
    assert_eq!(curves, floats(&work.path("s1/DOR_efficiency/0.0.1")));
    assert!(curves.iter().any(|value| *value != FILL));
}

#[test]
fn values_without_a_case_manifest_are_neither_dropped_nor_overwritten() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (create, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        fs::remove_dir_all(work.path(&store).join(".cases")).unwrap();
        let before = work.tree(&store);
        let mut refused = vec![format!("finalize {store}"), create.to_owned()];
        refused.push(format!("{populate} {CASE}"));
        if n != 1 {
            // Chunks of stores 1 and 3 are shared by all cases.
            refused.push(format!("{populate} -p 113 -m 4 --data-dir archive --allow-missing"));
        }
        for command in refused {
            let error = fails(&mut vis_command(work.folder(), &command), CONFIGURATION);
            let is_named = error.contains("112 (month 4)") || error.contains("--overwrite");
            assert!(is_named && error.contains(&store), "{command}: {error}");
            assert_same(&before, &work.tree(&store));
        }
        let printed = run_vis(work.folder(), &format!("check {store}"));
        assert!(
            printed.contains("no case manifests") && printed.contains("112 (month 4)"),
            "{printed}"
        );
        let report = json(&mut vis_command(work.folder(), &format!("check {store} --json")));
        assert_eq!(report["has_records"], false, "{report}");
        assert_eq!(report["without_record"][0], "112-04", "{report}");
        // A damaged chunk is found without case manifests too.
        let chunk = work.path(&store).join(match n {
            0 => "DOR_efficiency/0.0.1",
            1 => "0/PH/112.1.1.3.0.0.0",
            _ => "FG_CO2_percent_cumulative/0.0.1.0",
        });
        if n == 1 {
            let original = fs::read(&chunk).unwrap();
            fs::write(&chunk, &original[..original.len() / 2]).unwrap();
            vis_command(work.folder(), &format!("check {store}")).assert().code(65);
            fs::write(&chunk, original).unwrap();
        }
        // --adopt writes case manifests and keeps the values.
        let values = fs::read(&chunk).unwrap();
        let printed = run_vis(work.folder(), &format!("finalize {store} --adopt"));
        assert!(printed.contains("made case manifests of polygons 112 (month 4)"), "{printed}");
        assert_eq!(fs::read(&chunk).unwrap(), values);
        run_vis(work.folder(), &format!("check {store}"));
        let printed = run_vis(work.folder(), &format!("finalize {store} --adopt"));
        assert!(printed.contains("every case with values has a case manifest"), "{printed}");
        // The inputs of an adopted case are not known, so it is filled again only with --force.
        let adopted = work.tree(&store);
        vis_command(work.folder(), &format!("{populate} {CASE}")).assert().code(CONFIGURATION);
        assert_same(&adopted, &work.tree(&store));
        run_vis(work.folder(), &format!("{populate} {CASE} --force"));
    }
}

#[test]
fn a_store_without_case_manifests_accepts_no_other_case() {
    let work = filled(3);
    add_polygon_113(&work);
    fs::remove_dir_all(work.path("s2/.cases")).unwrap();
    let other = STORES[1].1;
    let before = work.tree("s2");
    let words = format!("{other} -p 113 -m 4 --data-dir archive --allow-missing");
    let error = fails(&mut vis_command(work.folder(), &words), 78);
    assert!(
        error.contains("values of cases without a case manifest") && error.contains("112"),
        "{error}"
    );
    assert_same(&before, &work.tree("s2"));
}

#[test]
fn a_store_without_a_recipe_is_adopted_when_the_recipe_is_given() {
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
    let error = fails(&mut vis_command(work.folder(), "finalize s1 --adopt"), CONFIGURATION);
    assert!(error.contains("--reference-compat"), "{error}");
    assert_same(&before, &work.tree("s1"));
    run_vis(work.folder(), "finalize s1 --adopt --reference-compat");
    run_vis(work.folder(), "check s1");
}

#[test]
fn a_template_replaces_neither_results_nor_another_kind_of_store() {
    let work = filled(180);
    for (n, (create, _)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        let before = work.tree(&store);
        let error = fails(&mut vis_command(work.folder(), create), CONFIGURATION);
        assert!(error.contains("results of 1 case") && error.contains("--overwrite"), "{error}");
        for (other, _) in STORES.into_iter().filter(|(other, _)| *other != create) {
            let own = other.split_whitespace().nth(2).unwrap();
            let onto = other.replacen(&format!("-o {own}"), &format!("-o {store}"), 1);
            let error = fails(&mut vis_command(work.folder(), &format!("{onto} --overwrite")), 78);
            assert!(error.contains("another kind"), "{error}");
        }
        assert_same(&before, &work.tree(&store));
        // With --overwrite, a template replaces a store of its own kind.
        run_vis(work.folder(), &format!("{create} --overwrite"));
        run_vis(work.folder(), &create.replace(&format!("-o {store}"), &format!("-o new{store}")));
        assert_same(&work.tree(&format!("new{store}")), &work.tree(&store));
    }
    // An incomplete template, as a killed process leaves it, is completed.
    fs::remove_file(work.path("news1/.zmetadata")).unwrap();
    fs::remove_file(work.path("news1/.zgroup")).unwrap();
    fs::remove_file(work.path("news1/DOR_efficiency/0.0.3")).unwrap();
    run_vis(work.folder(), "create-template-store1 -o news1");
    assert_same(&work.tree("s1"), &work.tree("news1"));
}

#[test]
fn a_removed_case_is_deleted_from_the_published_copy_only_with_delete() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        let before = work.tree(&store);
        let other = "-p 113 -m 4 --data-dir archive --allow-missing";
        run_vis(work.folder(), &format!("{populate} {other}"));
        run_vis(work.folder(), &format!("finalize {store}"));
        publish(&work, &format!("{store} copy/{store}"));
        let full = work.tree(&store);
        let printed = run_vis(work.folder(), &format!("remove {store} -p 113 -m 4 --dry-run"));
        assert!(printed.contains("would remove polygons 113 (month 4)"), "{printed}");
        assert_same(&full, &work.tree(&store));
        let absent = format!("remove {store} -p 5");
        assert!(fails(&mut vis_command(work.folder(), &absent), 78).contains("holds nothing of"));
        let printed = run_vis(work.folder(), &format!("remove {store} -p 113 -m 4"));
        assert!(printed.contains("removed polygons 113 (month 4)"), "{printed}");
        assert_same(&before, &work.tree(&store));
        run_vis(work.folder(), &format!("check {store}"));
        // Without --delete, objects that the source no longer has are counted.
        let orphaned = full.keys().filter(|name| !before.contains_key(*name)).count();
        let status = publish(&work, &format!("status copy/{store} --source {store}"));
        assert!(status.contains(&format!("orphaned: {orphaned} object")), "{status}");
        // Shared chunks without the case are not published while its case manifest stays.
        let copy = work.tree(&format!("copy/{store}"));
        let mut again = dor(work.folder());
        again.args(["publish", &store, &format!("copy/{store}")]);
        if n != 1 {
            let error = fails(&mut again, CONFIGURATION);
            assert!(error.contains("113 (month 4)") && error.contains("--delete"), "{error}");
            assert_same(&copy, &work.tree(&format!("copy/{store}")));
        }
        // Objects of the case are not deleted while its case manifest is excluded.
        let mut half = dor(work.folder());
        half.args(["publish", &store, &format!("copy/{store}"), "--delete"]);
        let error = fails(half.args(["--exclude", ".cases/**"]), CONFIGURATION);
        assert!(error.contains("case manifest") && error.contains("--exclude"), "{error}");
        assert_same(&copy, &work.tree(&format!("copy/{store}")));
        let printed = publish(&work, &format!("{store} copy/{store} --delete"));
        assert!(printed.contains("deleted"), "{printed}");
        let mut published = work.tree(&format!("copy/{store}"));
        published.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&before, &published);
    }
}

#[test]
fn publish_refuses_to_restore_a_case_that_was_removed_from_the_copy() {
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
        run_vis(work.folder(), &format!("{populate} {other}"));
        run_vis(work.folder(), &format!("finalize {store}"));
        publish(&work, &format!("{store} copy/{store}"));
        run_vis(work.folder(), &format!("remove copy/{store} -p 113 -m 4"));
        // The source still has the case that was removed from the copy.
        let mut again = dor(work.folder());
        again.args(["publish", store, &format!("copy/{store}")]);
        let error = fails(&mut again, CONFIGURATION);
        assert!(error.contains("was finalized there since"), "{error}");
        publish(&work, &format!("{less} copy/{store}"));
        publish(&work, &format!("{store} copy/{store}"));
        run_vis(work.folder(), &format!("check copy/{store}"));
        let mut published = work.tree(&format!("copy/{store}"));
        published.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&work.tree(store), &published);
    }
}

#[test]
fn a_case_can_be_removed_beside_a_case_without_a_manifest() {
    let work = filled(180);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        let alone = work.tree(&store);
        run_vis(
            work.folder(),
            &format!("{populate} -p 113 -m 4 --data-dir archive --allow-missing"),
        );
        run_vis(work.folder(), &format!("finalize {store}"));
        fs::remove_file(work.path(&store).join(".cases/112-04.json")).unwrap();
        let printed = run_vis(work.folder(), &format!("remove {store} -p 113 -m 4"));
        assert!(printed.contains("removed polygons 113 (month 4)"), "{printed}");
        // Polygon 112 keeps its values and can be adopted.
        let mut rest = work.tree(&store);
        let mut expected = alone.clone();
        for tree in [&mut rest, &mut expected] {
            tree.retain(|name, _| !name.starts_with(".cases/"));
        }
        assert_same(&expected, &rest);
        run_vis(work.folder(), &format!("finalize {store} --adopt"));
        run_vis(work.folder(), &format!("check {store}"));
    }
}

#[test]
fn maps_with_missing_chunks_are_not_finalized() {
    let work = filled(3);
    let chunk = work.path("s2/0/PH/112.1.1.3.0.0.0");
    let bytes = fs::read(&chunk).unwrap();
    fs::remove_file(&chunk).unwrap();
    let error = fails(&mut vis_command(work.folder(), "finalize s2"), 65);
    assert!(error.contains("lacks chunks") && error.contains("112 (month 4)"), "{error}");
    assert!(error.contains("--force"), "{error}");
    fs::write(&chunk, bytes).unwrap();
    run_vis(work.folder(), "finalize s2");
    // A foreign file in the store is reported as such.
    fs::write(work.path("s2/figure.png"), b"picture").unwrap();
    let output = vis_command(work.folder(), "check s2").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(65), "{printed}");
    assert!(printed.contains("figure.png is no part of the store: move it away"), "{printed}");
}

#[test]
fn an_interrupted_case_does_not_count_as_a_case_without_a_manifest() {
    let work = filled(14);
    // A partial case manifest and a missing chunk, as a killed process leaves them.
    let manifest = work.path("s2/.cases/112-04.json");
    fs::rename(&manifest, work.path("s2/.cases/112-04.partial.json")).unwrap();
    fs::remove_file(work.path("s2/0/PH/112.1.1.11.0.0.0")).unwrap();
    run_vis(work.folder(), "finalize s2");
    run_vis(work.folder(), &format!("populate-store2 -o s2 --grid grid.nc {CASE}"));
    assert!(manifest.exists() && !work.path("s2/.cases/112-04.partial.json").exists());
    run_vis(work.folder(), "finalize s2");
    run_vis(work.folder(), "check s2");
}

#[test]
fn of_two_concurrent_recipes_one_is_kept() {
    let work = workspace(2);
    for round in 0..6 {
        let store = format!("s{round}");
        run_vis(work.folder(), &format!("create-template-store2 -o {store} {MAPS}"));
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
        let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(manifest["recipe"]["reference_compat"], compat, "{codes:?}");
        run_vis(work.folder(), &format!("check {store}"));
    }
}

#[test]
fn a_plot_replaces_only_plots_of_dor() {
    let work = filled(180);
    let plot = "plot s1 --series -p 112 -m 4 -o out.png";
    run_vis(work.folder(), plot);
    let own = fs::read(work.path("out.png")).unwrap();
    run_vis(work.folder(), plot);
    for other in [b"\x89PNG\r\n\x1a\nphoto of a ship".to_vec(), b"notes".to_vec()] {
        fs::write(work.path("out.png"), &other).unwrap();
        let error = fails(&mut vis_command(work.folder(), plot), CONFIGURATION);
        assert!(error.contains("out.png") && error.contains("--overwrite"), "{error}");
        assert_eq!(fs::read(work.path("out.png")).unwrap(), other);
    }
    run_vis(work.folder(), &format!("{plot} --overwrite"));
    assert_eq!(fs::read(work.path("out.png")).unwrap(), own);
}

#[test]
fn publish_does_not_replace_a_store_by_an_empty_one() {
    let work = filled(180);
    for (n, (create, _)) in STORES.into_iter().enumerate() {
        let (store, copy) = (format!("s{}", n + 1), format!("copy/s{}", n + 1));
        publish(&work, &format!("{store} {copy}"));
        let before = work.tree(&copy);
        run_vis(work.folder(), &create.replace(&format!("-o {store}"), "-o empty --overwrite"));
        run_vis(work.folder(), "finalize empty");
        let publish = |more: &[&str]| {
            let mut command = dor(work.folder());
            command.args(["publish", "empty", &copy]).args(more);
            command
        };
        let error = fails(&mut publish(&[]), CONFIGURATION);
        assert!(error.contains("112 (month 4)") && error.contains("--delete"), "{error}");
        // A store without case manifests is refused too.
        fs::remove_dir_all(work.path("empty/.cases")).unwrap();
        let error = fails(&mut publish(&["--audit"]), CONFIGURATION);
        assert!(error.contains("manifests of its cases"), "{error}");
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
fn values_are_found_in_every_level_and_damaged_chunks_are_not_adopted() {
    let work = filled(180);
    fs::remove_dir_all(work.path("s1/.cases")).unwrap();
    let chunk = work.path("s1/DOR_efficiency/0.0.1");
    let original = fs::read(&chunk).unwrap();
    fs::write(&chunk, &original[..original.len() / 2]).unwrap();
    let before = work.tree("s1");
    for command in ["finalize s1", "finalize s1 --adopt"] {
        let error = fails(&mut vis_command(work.folder(), command), 65);
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
    let error = fails(&mut vis_command(work.folder(), "finalize s2"), CONFIGURATION);
    assert!(error.contains("112 (month 4)"), "{error}");
    let error = fails(&mut vis_command(work.folder(), "finalize s2 --adopt"), 65);
    assert!(error.contains("lacks chunks") && error.contains("112 (month 4)"), "{error}");
    run_vis(work.folder(), "remove s2 -p 112 -m 4");
    run_vis(work.folder(), "check s2");
}
