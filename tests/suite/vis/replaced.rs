//! Results at a destination are not replaced by worse ones or by another kind, whoever wrote them.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::support::case::{Workspace, assert_same};
use super::super::support::dor::{dor, fails};
use super::records::{CASE, STORES, filled};
use super::support::{add_polygon_113, run_vis, vis_command};

const CONFIGURATION: i32 = 78;

/// Replaces `to` by a copy of `from`.
fn copy(work: &Workspace, from: &str, to: &str) {
    let to = work.path(to);
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))).unwrap();
    let copied = Command::new("cp").arg("-a").arg(work.path(from)).arg(&to).status().unwrap();
    assert!(copied.success());
}

/// Publishes `source` to `below` in a copy of `destination`: it must be refused with `word` in the
/// message and change nothing.
#[track_caller]
fn assert_refused(
    work: &Workspace,
    source: &str,
    (destination, below): (&str, &str),
    more: &[&str],
    word: &str,
) {
    copy(work, destination, "place/copy");
    let before = work.tree("place");
    let place = format!("place/copy{below}");
    for dry in [&["--dry-run"][..], &[]] {
        let mut publish = dor(work.folder());
        publish.args(["publish", source, &place]).args(more).args(dry);
        let error = fails(&mut publish, CONFIGURATION);
        assert!(error.contains(word), "{source} -> {destination}{below} {more:?}: {error}");
        assert_same(&before, &work.tree("place"));
    }
}

/// Publishes `source` to a copy of `destination`, which must succeed.
#[track_caller]
fn assert_published(work: &Workspace, source: &str, destination: &str, more: &[&str]) {
    copy(work, destination, "place/copy");
    dor(work.folder()).args(["publish", source, "place/copy"]).args(more).assert().success();
}

#[test]
fn publish_never_replaces_a_store_of_another_kind() {
    let work = filled(3);
    run_vis(work.folder(), "create-template-store2 -o v3 --variables PH -l 1 --zarr-format 3");
    let never = "one never replaces the other";
    for (source, destination) in
        [("s1", "s2"), ("s1", "s3"), ("s3", "s1"), ("s2", "s1"), ("v3", "s2")]
    {
        for more in [&[][..], &["--delete"], &["--overwrite"]] {
            assert_refused(&work, source, (destination, ""), more, never);
        }
    }
    // In a tree of several stores too.
    copy(&work, "s3", "tree/s1");
    copy(&work, "s1", "trees/s1");
    assert_refused(&work, "tree", ("trees", ""), &[], never);
    // Other files are not published into a store, and no store is published among other files.
    work.convert();
    assert_refused(&work, "out", ("s1", ""), &[], never);
    assert_refused(&work, "archive", ("s2", ""), &[], never);
    assert_refused(
        &work,
        "s1",
        ("out", ""),
        &[],
        "112, which is no part of what would be published",
    );
    assert_refused(&work, "s1", ("out", "/112/04"), &[], "manifest.json, which is no part of");
    assert_refused(&work, "out/112/04", ("out", ""), &[], "112, which is no part of");
    for source in ["s1", "out"] {
        assert_refused(
            &work,
            source,
            ("s2", "/inner"),
            &["--overwrite"],
            "give another destination",
        );
        assert_refused(&work, source, ("out", "/112/04/inner"), &[], "give another destination");
    }
    // A store without metadata, as an interrupted publish leaves it, is completed.
    fs::create_dir_all(work.path("part/DOR_efficiency")).unwrap();
    fs::copy(work.path("s1/DOR_efficiency/0.0.1"), work.path("part/DOR_efficiency/0.0.1")).unwrap();
    assert_published(&work, "s1", "part", &[]);
    run_vis(work.folder(), "check place/copy");
}

#[test]
fn publish_never_replaces_a_store_by_a_worse_one() {
    let work = filled(4);
    for (n, (create, _)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        run_vis(work.folder(), &create.replace(&format!("-o {store}"), &format!("-o empty{n}")));
        assert_refused(
            &work,
            &format!("empty{n}"),
            (&store, ""),
            &[],
            "the manifests of its cases",
        );
        // A store that was filled and never finalized.
        copy(&work, &store, "open");
        fs::remove_file(work.path("open/.cases/shared.json")).unwrap();
        assert_refused(&work, &format!("empty{n}"), ("open", ""), &[], "polygons 112 (month 4)");
        assert_published(&work, &store, &store, &[]);
        assert_published(&work, &store, &format!("empty{n}"), &[]);
        // A store without case manifests, as older versions and other programs write it.
        copy(&work, &store, "bare");
        fs::remove_dir_all(work.path("bare/.cases")).unwrap();
        assert_published(&work, &store, "bare", &[]);
        // Also when case manifests are excluded, or missing at the destination.
        let empty = format!("empty{n}");
        let left_out = ["--exclude", ".cases/**"];
        assert_refused(&work, &empty, (&store, ""), &left_out, "the manifests of its cases");
        // Store 3 has no values for so few months.
        if n < 2 {
            let uncovered = "values of cases without a case manifest";
            assert_refused(&work, &empty, ("bare", ""), &[], uncovered);
            fs::remove_file(work.path("bare/.zmetadata")).unwrap();
            assert_refused(&work, &empty, ("bare", ""), &[], uncovered);
        }
        assert_published(&work, &store, "bare", &[]);
    }
    // A text file with the name of a chunk.
    fs::create_dir_all(work.path("other/DOR_efficiency")).unwrap();
    fs::write(work.path("other/DOR_efficiency/0.0.1"), "text").unwrap();
    copy(&work, "s1", "torn");
    fs::remove_file(work.path("torn/.zmetadata")).unwrap();
    assert_refused(&work, "other", ("torn", ""), &[], "one never replaces the other");
    fs::remove_dir_all(work.path("torn/.cases")).unwrap();
    assert_refused(
        &work,
        "other",
        ("torn", ""),
        &[],
        "other bytes in 1 object(s) that no publish has sent",
    );
    let [_, (maps, fill_maps), (shares, fill_shares)] = STORES;
    let make_store = |create: &str, fill: &str, (from, to): (&str, &str), other: [&str; 2]| {
        let with_output =
            |command: &str| command.replace(&format!("-o {from}"), &format!("-o {to}"));
        run_vis(work.folder(), &with_output(create));
        run_vis(
            work.folder(),
            &format!("{} {CASE}", with_output(&fill.replace(other[0], other[1]))),
        );
        run_vis(work.folder(), &format!("finalize {to}"));
    };
    // A store without the grid file, with another recipe, or with fewer variables.
    make_store(maps, fill_maps, ("s2", "bare2"), [" --grid grid.nc", ""]);
    make_store(shares, fill_shares, ("s3", "bare3"), [" --grid grid.nc", ""]);
    make_store(shares, fill_shares, ("s3", "rules3"), ["--grid", "--reference-compat --grid"]);
    assert_refused(&work, "bare2", ("s2", ""), &[], "the full grid");
    assert_refused(&work, "bare3", ("s3", ""), &[], "the full grid");
    assert_refused(&work, "rules3", ("s3", ""), &[], "other rules");
    let more = maps.replace("--variables PH", "--variables PH,FG");
    make_store(&more, fill_maps, ("s2", "more2"), ["-o", "-o"]);
    assert_refused(&work, "s2", ("more2", ""), &[], "more arrays than the source, such as 0/FG");
    copy(&work, "s2", "unknown2");
    fs::remove_dir_all(work.path("unknown2/.cases")).unwrap();
    assert_published(&work, "s2", "unknown2", &[]);
    let chunk = |index: &str| work.path(&format!("unknown2/0/PH/112.{index}.0.0.0"));
    fs::copy(chunk("1.1.3"), chunk("0.1.0")).unwrap();
    assert_refused(
        &work,
        "bare2",
        ("unknown2", ""),
        &[],
        "values of cases without a case manifest",
    );
    // With fewer months.
    fs::rename(work.raw(3), work.path("away.nc")).unwrap();
    make_store(shares, fill_shares, ("s3", "less3"), ["-o", "-o"]);
    assert_refused(&work, "less3", ("s3", ""), &[], "1 more months");
    assert_published(&work, "less3", "s3", &["--overwrite"]);
    assert_published(&work, "s3", "less3", &[]);
}

#[test]
fn publish_never_replaces_research_grade_files_by_worse_ones() {
    let work = Workspace::new(3);
    work.convert();
    let bare = ["112-04", "-d", "archive", "-o", "bare", "--allow-missing"];
    work.process_case(&bare).assert().success();
    assert_refused(&work, "bare", ("out", ""), &[], "the full grid");
    assert_refused(&work, "bare/112", ("out", "/112"), &[], "the full grid");
    assert_refused(&work, "bare/112/04", ("out", "/112/04"), &[], "the full grid");
    for left_out in [["--include", "**/*.nc"], ["--exclude", "**/manifest.json"]] {
        assert_refused(&work, "bare", ("out", ""), &left_out, "the full grid");
    }
    copy(&work, "bare", "plain");
    fs::remove_file(work.path("plain/112/04/manifest.json")).unwrap();
    assert_refused(
        &work,
        "plain/112/04",
        ("out", "/112/04"),
        &[],
        "a case manifest, which the source lacks",
    );
    assert_refused(
        &work,
        "plain/112",
        ("out", "/112"),
        &[],
        "a case manifest, which the source lacks",
    );
    copy(&work, "out", "plain_too");
    fs::remove_file(work.path("plain_too/112/04/manifest.json")).unwrap();
    let unknown = "other bytes in 3 object(s) that no publish has sent";
    assert_refused(&work, "plain/112/04", ("plain_too", "/112/04"), &[], unknown);
    fs::rename(work.raw(2), work.path("away.nc")).unwrap();
    let less = ["112-04", "-d", "archive", "-o", "less", "--allow-missing", "--grid", "grid.nc"];
    work.process_case(&less).assert().success();
    assert_refused(&work, "less", ("out", ""), &[], "1 more");
    assert_published(&work, "less", "out", &["--overwrite"]);
    assert_published(&work, "out", "less", &[]);
    copy(&work, "out", "unknown");
    fs::remove_file(work.path("unknown/112/04/manifest.json")).unwrap();
    assert_refused(
        &work,
        "bare",
        ("unknown", ""),
        &[],
        "other bytes in 3 object(s) that no publish has sent",
    );
    assert_published(&work, "out", "unknown", &[]);
    assert_published(&work, "out", "bare", &[]);
    // A conversion with --publish-to is refused too.
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
fn results_are_never_made_inside_other_results() {
    let work = filled(3);
    work.convert();
    let raw = work.raw(0).parent().unwrap().display().to_string();
    std::os::unix::fs::symlink(&raw, work.path("link")).unwrap();
    copy(&work, "archive", "second");
    run_vis(work.folder(), "finalize s1");
    let plan = |at: &str| {
        let words = "plan -d archive --products store1 --store1 s1 --allow-missing -o";
        let mut plan = dor(work.folder());
        plan.args(words.split(' ')).arg(format!("{at}/plan.json"));
        plan
    };
    plan(".").assert().success();
    let before = work.tree("");
    let refused = |command: &mut assert_cmd::Command, words: &str| {
        let error = fails(command, 78);
        assert!(error.contains(words), "{command:?}: {error}");
    };
    for place in ["s2/inner", "s2/0/s1", "out/112/04/s1"] {
        let create = format!("create-template-store1 -o {place}");
        refused(&mut vis_command(work.folder(), &create), "holds results of its own");
    }
    for place in ["s1/inner", "out/112/04/inner"] {
        for verb in [&["demo"][..], &["demo", "raw"]] {
            refused(dor(work.folder()).args(verb).arg(place), "holds results of its own");
        }
    }
    for place in ["s1", "out/112/04", &raw, "link", "archive"] {
        let plot = format!("plot s1 --series -p 112 -m 4 -o {place}/curve.png");
        refused(&mut vis_command(work.folder(), &plot), "which holds data");
        refused(&mut plan(place), "which holds data");
        let script = ["slurm", "script", "--plan", "plan.json", "--nodes", "1", "-o", place];
        refused(dor(work.folder()).args(script), "which holds data");
    }
    for place in ["s2", "s1/inner", "out/112/04", "out/112", "second", &raw] {
        for dry in [&["--dry-run"][..], &[]] {
            let mut process = work.process_case(&["112-04", "-d", "archive", "--allow-missing"]);
            refused(process.args(["-o", place]).args(dry), "");
        }
    }
    assert_same(&before, &work.tree(""));
}

#[test]
fn a_failed_remove_leaves_the_store_unchanged() {
    let work = filled(3);
    add_polygon_113(&work);
    for (n, (_, populate)) in STORES.into_iter().enumerate() {
        let store = format!("s{}", n + 1);
        run_vis(
            work.folder(),
            &format!("{populate} -p 113 -m 4 --data-dir archive --allow-missing"),
        );
        run_vis(work.folder(), &format!("finalize {store}"));
        let manifest = work.path(&format!("{store}/.cases/113-04.json"));
        let original = fs::read(&manifest).unwrap();
        fs::write(&manifest, b"damaged").unwrap();
        let before = work.tree(&store);
        let error = fails(&mut vis_command(work.folder(), &format!("remove {store} -p 112")), 65);
        assert!(error.contains("113-04.json"), "{error}");
        assert_same(&before, &work.tree(&store));
        // The case with the damaged manifest itself can be removed.
        run_vis(work.folder(), &format!("remove {store} -p 113"));
        run_vis(work.folder(), &format!("check {store}"));
        fs::write(&manifest, original).unwrap();
    }
}

#[test]
fn the_demo_refuses_a_store_with_a_case_that_it_did_not_make() {
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
    run_vis(work.folder(), &format!("{fill} --allow-missing"));
    let before = work.tree("w");
    let error = fails(&mut demo(), CONFIGURATION);
    assert!(error.contains(".cases/113-04.json"), "{error}");
    assert_same(&before, &work.tree("w"));
    run_vis(work.folder(), "remove w/store1b.zarr -p 113");
    demo().assert().success();
}
