//! What lies at a place is not replaced by something worse or of another kind, whoever put it there.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::{dor, fails};
use super::records::{CASE, STORES, filled};
use super::support::{add_polygon_113, runs, vis};

const CONFIGURATION: i32 = 78;

/// Copies a tree as `cp -a` does, over what is there.
fn copy(work: &Workspace, from: &str, to: &str) {
    let to = work.path(to);
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).unwrap();
    let copied = Command::new("cp").arg("-a").arg(work.path(from)).arg(&to).status().unwrap();
    assert!(copied.success());
}

/// Publishes `source` to a copy of `there`, below which it is refused and changes nothing.
#[track_caller]
fn refused(
    work: &Workspace,
    source: &str,
    (there, below): (&str, &str),
    more: &[&str],
    word: &str,
) {
    copy(work, there, "place/copy");
    let before = work.tree("place");
    let place = format!("place/copy{below}");
    for dry in [&["--dry-run"][..], &[]] {
        let mut publish = dor(work.folder());
        publish.args(["publish", source, &place]).args(more).args(dry);
        let error = fails(&mut publish, CONFIGURATION);
        assert!(error.contains(word), "{source} -> {there}{below} {more:?}: {error}");
        assert_same(&before, &work.tree("place"));
    }
}

/// Publishes `source` to a copy of `there`, which must go well.
#[track_caller]
fn goes_on(work: &Workspace, source: &str, there: &str, more: &[&str]) {
    copy(work, there, "place/copy");
    dor(work.folder()).args(["publish", source, "place/copy"]).args(more).assert().success();
}

#[test]
fn nothing_is_published_over_a_store_of_another_kind() {
    let work = filled(3);
    runs(work.folder(), "create-template-store2 -o v3 --variables PH -l 1 --zarr-format 3");
    let never = "one never replaces the other";
    for (source, there) in [("s1", "s2"), ("s1", "s3"), ("s3", "s1"), ("s2", "s1"), ("v3", "s2")] {
        for more in [&[][..], &["--delete"], &["--overwrite"]] {
            refused(&work, source, (there, ""), more, never);
        }
    }
    // In a tree of several stores, too.
    copy(&work, "s3", "tree/s1");
    copy(&work, "s1", "trees/s1");
    refused(&work, "tree", ("trees", ""), &[], never);
    // What is no store is not put into one, nor a store among other things.
    work.convert();
    refused(&work, "out", ("s1", ""), &[], never);
    refused(&work, "archive", ("s2", ""), &[], never);
    refused(&work, "s1", ("out", ""), &[], "112, which is no part of what would be published");
    refused(&work, "s1", ("out", "/112/04"), &[], "manifest.json, which is no part of");
    refused(&work, "out/112/04", ("out", ""), &[], "112, which is no part of");
    for source in ["s1", "out"] {
        refused(&work, source, ("s2", "/inner"), &["--overwrite"], "give another destination");
        refused(&work, source, ("out", "/112/04/inner"), &[], "give another destination");
    }
    // A publish that was interrupted left no metadata.
    fs::create_dir_all(work.path("part/DOR_efficiency")).unwrap();
    fs::copy(work.path("s1/DOR_efficiency/0.0.1"), work.path("part/DOR_efficiency/0.0.1")).unwrap();
    goes_on(&work, "s1", "part", &[]);
    runs(work.folder(), "check place/copy");
}

#[test]
fn a_poorer_store_replaces_none_though_nobody_published_it() {
    let work = filled(4);
    for (n, (create, _)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        runs(work.folder(), &create.replace(&format!("-o {store}"), &format!("-o empty{n}")));
        refused(&work, &format!("empty{n}"), (&store, ""), &[], "the records of its cases");
        // Filled in place, and never put together.
        copy(&work, &store, "open");
        fs::remove_file(work.path("open/.cases/shared.json")).unwrap();
        refused(&work, &format!("empty{n}"), ("open", ""), &[], "polygons 112 (month 4)");
        goes_on(&work, &store, &store, &[]);
        goes_on(&work, &store, &format!("empty{n}"), &[]);
        // As older versions and other programs leave them.
        copy(&work, &store, "bare");
        fs::remove_dir_all(work.path("bare/.cases")).unwrap();
        goes_on(&work, &store, "bare", &[]);
        // Whatever is left out of the source, and whatever was lost there.
        let empty = format!("empty{n}");
        let left_out = ["--exclude", ".cases/**"];
        refused(&work, &empty, (&store, ""), &left_out, "the records of its cases");
        // Of so few months the third store has no values.
        if n < 2 {
            refused(&work, &empty, ("bare", ""), &[], "values of cases without a record");
            fs::remove_file(work.path("bare/.zmetadata")).unwrap();
            refused(&work, &empty, ("bare", ""), &[], "values of cases without a record");
        }
        goes_on(&work, &store, "bare", &[]);
    }
    // A file of something else, in the place of a chunk.
    fs::create_dir_all(work.path("other/DOR_efficiency")).unwrap();
    fs::write(work.path("other/DOR_efficiency/0.0.1"), "text").unwrap();
    copy(&work, "s1", "torn");
    fs::remove_file(work.path("torn/.zmetadata")).unwrap();
    refused(&work, "other", ("torn", ""), &[], "one never replaces the other");
    fs::remove_dir_all(work.path("torn/.cases")).unwrap();
    refused(
        &work,
        "other",
        ("torn", ""),
        &[],
        "other bytes in 1 object(s) that no publish has sent",
    );
    let [_, (maps, fill_maps), (shares, fill_shares)] = STORES;
    let made = |create: &str, fill: &str, (from, to): (&str, &str), other: [&str; 2]| {
        let place = |command: &str| command.replace(&format!("-o {from}"), &format!("-o {to}"));
        runs(work.folder(), &place(create));
        runs(work.folder(), &format!("{} {CASE}", place(&fill.replace(other[0], other[1]))));
        runs(work.folder(), &format!("finalize {to}"));
    };
    // Without the grid, under other rules, with fewer variables.
    made(maps, fill_maps, ("s2", "bare2"), [" --grid grid.nc", ""]);
    made(shares, fill_shares, ("s3", "bare3"), [" --grid grid.nc", ""]);
    made(shares, fill_shares, ("s3", "rules3"), ["--grid", "--reference-compat --grid"]);
    refused(&work, "bare2", ("s2", ""), &[], "the full grid");
    refused(&work, "bare3", ("s3", ""), &[], "the full grid");
    refused(&work, "rules3", ("s3", ""), &[], "other rules");
    let more = maps.replace("--variables PH", "--variables PH,FG");
    made(&more, fill_maps, ("s2", "more2"), ["-o", "-o"]);
    refused(&work, "s2", ("more2", ""), &[], "more arrays, such as 0/FG");
    copy(&work, "s2", "unknown2");
    fs::remove_dir_all(work.path("unknown2/.cases")).unwrap();
    goes_on(&work, "s2", "unknown2", &[]);
    let chunk = |index: &str| work.path(&format!("unknown2/0/PH/112.{index}.0.0.0"));
    fs::copy(chunk("1.1.3"), chunk("0.1.0")).unwrap();
    refused(&work, "bare2", ("unknown2", ""), &[], "values of cases without a record");
    // With fewer months.
    fs::rename(work.raw(3), work.path("away.nc")).unwrap();
    made(shares, fill_shares, ("s3", "less3"), ["-o", "-o"]);
    refused(&work, "less3", ("s3", ""), &[], "1 more months");
    goes_on(&work, "less3", "s3", &["--overwrite"]);
    goes_on(&work, "s3", "less3", &[]);
}

#[test]
fn poorer_research_grade_files_replace_none_though_nobody_published_them() {
    let work = Workspace::new(3);
    work.convert();
    let bare = ["112-04", "-d", "archive", "-o", "bare", "--allow-missing"];
    work.process_case(&bare).assert().success();
    refused(&work, "bare", ("out", ""), &[], "the full grid");
    refused(&work, "bare/112", ("out/112", ""), &[], "the full grid");
    refused(&work, "bare/112/04", ("out/112/04", ""), &[], "the full grid");
    for left_out in [["--include", "**/*.nc"], ["--exclude", "**/manifest.json"]] {
        refused(&work, "bare", ("out", ""), &left_out, "the full grid");
    }
    copy(&work, "bare", "plain");
    fs::remove_file(work.path("plain/112/04/manifest.json")).unwrap();
    refused(&work, "plain/112/04", ("out/112/04", ""), &[], "a record of its files");
    refused(&work, "plain/112", ("out/112", ""), &[], "a record of its files");
    copy(&work, "out", "plain_too");
    fs::remove_file(work.path("plain_too/112/04/manifest.json")).unwrap();
    let unknown = "other bytes in 3 object(s) that no publish has sent";
    refused(&work, "plain/112/04", ("plain_too/112/04", ""), &[], unknown);
    fs::rename(work.raw(2), work.path("away.nc")).unwrap();
    let less = ["112-04", "-d", "archive", "-o", "less", "--allow-missing", "--grid", "grid.nc"];
    work.process_case(&less).assert().success();
    refused(&work, "less", ("out", ""), &[], "1 more");
    goes_on(&work, "less", "out", &["--overwrite"]);
    goes_on(&work, "out", "less", &[]);
    copy(&work, "out", "unknown");
    fs::remove_file(work.path("unknown/112/04/manifest.json")).unwrap();
    refused(
        &work,
        "bare",
        ("unknown", ""),
        &[],
        "other bytes in 3 object(s) that no publish has sent",
    );
    goes_on(&work, "out", "unknown", &[]);
    goes_on(&work, "out", "bare", &[]);
    // Nor does a conversion that publishes as it goes.
    copy(&work, "out", "place/copy");
    let before = work.tree("place");
    fs::rename(work.path("away.nc"), work.raw(2)).unwrap();
    let along = ["112-04", "-d", "archive", "-o", "again", "--allow-missing"];
    let mut process = work.process_case(&along);
    let error = fails(process.args(["--publish-to", "place/copy"]), CONFIGURATION);
    assert!(error.contains("the full grid"), "{error}");
    assert_same(&before, &work.tree("place"));
}

#[test]
fn results_are_not_made_among_others() {
    let work = filled(3);
    work.convert();
    let before = work.tree("");
    for place in ["s2/inner", "s2/0/s1", "out/112/04/s1"] {
        let error =
            fails(&mut vis(work.folder(), &format!("create-template-store1 -o {place}")), 78);
        assert!(error.contains("holds results of its own"), "{place}: {error}");
    }
    for place in ["s1/inner", "out/112/04/inner"] {
        for verb in [&["demo"][..], &["demo", "raw"]] {
            let error = fails(dor(work.folder()).args(verb).arg(place), 78);
            assert!(error.contains("holds results of its own"), "{place}: {error}");
        }
    }
    for place in ["s2", "s1/inner", "out/112/04", "out/112"] {
        for dry in [&["--dry-run"][..], &[]] {
            let mut process = work.process_case(&["112-04", "-d", "archive", "--allow-missing"]);
            let error = fails(process.args(["-o", place]).args(dry), 78);
            assert!(error.contains("holds results of its own"), "{place}: {error}");
        }
    }
    assert_same(&before, &work.tree(""));
}

#[test]
fn a_removal_that_cannot_be_carried_out_removes_nothing() {
    let work = filled(3);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        runs(work.folder(), &format!("{populate} -p 113 -m 4 --data-dir archive --allow-missing"));
        runs(work.folder(), &format!("finalize {store}"));
        let record = work.path(&format!("{store}/.cases/113-04.json"));
        let whole = fs::read(&record).unwrap();
        fs::write(&record, b"damaged").unwrap();
        let before = work.tree(&store);
        let error = fails(&mut vis(work.folder(), &format!("remove {store} -p 112")), 65);
        assert!(error.contains("113-04.json"), "{error}");
        assert_same(&before, &work.tree(&store));
        // The damaged one itself can be taken out.
        runs(work.folder(), &format!("remove {store} -p 113"));
        runs(work.folder(), &format!("check {store}"));
        fs::write(&record, whole).unwrap();
    }
}

#[test]
fn a_demo_deletes_no_case_of_somebody_else() {
    let work = Workspace::empty(b"");
    let demo = || {
        let mut demo = dor(work.folder());
        demo.args(["demo", "w", "--shape", "8x9x3", "--months", "2"]);
        demo
    };
    demo().assert().success();
    demo().assert().success();
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", "more", "--case", "113-04", "--shape", "8x9x3", "--months", "2"]);
    raw.assert().success();
    let fill = "populate-store1 -o w/store1b.zarr -p 113 -m 4 --data-dir more/archive";
    runs(work.folder(), &format!("{fill} --allow-missing"));
    let before = work.tree("w");
    let error = fails(&mut demo(), CONFIGURATION);
    assert!(error.contains(".cases/113-04.json"), "{error}");
    assert_same(&before, &work.tree("w"));
    runs(work.folder(), "remove w/store1b.zarr -p 113");
    demo().assert().success();
}
