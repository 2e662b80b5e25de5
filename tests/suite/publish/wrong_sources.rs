//! `dor publish` tells which result of a case is the later one, and where a product belongs.

use std::fs;

use super::super::support::case::{assert_same, set_age};
use super::super::support::dor::{dor, fails};
use super::{CONFIGURATION, Fixture, MAPS, for_each_server, json_lines};

/// Runs `dor`, which must succeed.
fn run(fixture: &Fixture, words: &str) {
    dor(fixture.work.folder()).args(words.split(' ')).assert().success();
}

/// Gives all raw files of an archive the same time.
fn set_age_of_archive(fixture: &Fixture, archive: &str, seconds: u64) {
    let raw = "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001/ocn/hist";
    for file in fs::read_dir(fixture.work.path(&format!("{archive}/{raw}"))).unwrap() {
        set_age(&file.unwrap().path(), seconds);
    }
}

#[test]
fn a_result_that_no_publish_has_sent_is_replaced_only_by_a_better_one() {
    for_each_server(|fixture| {
        let run = |words: &str| run(fixture, words);
        run("demo raw other --case 112-04 --shape 8x9x3 --months 1 --seed 2");
        for (archive, output) in [("archive", "site"), ("other/archive", "newer")] {
            let to = format!("-d {archive} -o {output}/research --allow-missing");
            run(&format!("research-data process-case 112-04 {to}"));
        }
        run("vis create-template-store2 -o newer/maps.zarr --variables PH -l 1");
        let fill = "-o newer/maps.zarr --data-dir other/archive --grid grid.nc --allow-missing";
        run(&format!("vis populate-store2 -p 112 -m 4 {fill}"));
        run("vis finalize newer/maps.zarr");
        fixture.publish("").assert().success();
        let newer = fixture.work.tree("newer");
        // The arguments in the wrong order: the older result is published onto the newer one.
        let publish = |from: &str, to: &str, more: &str| {
            let mut publish = dor(fixture.work.folder());
            publish.envs(fixture.server.variables());
            publish.args(["publish", from, to]).args(more.split_whitespace());
            publish
        };
        for part in ["research", "maps.zarr"] {
            let from = format!("{}/{part}", fixture.destination());
            for more in ["--dry-run", "", "--delete"] {
                let error =
                    fails(&mut publish(&from, &format!("newer/{part}"), more), CONFIGURATION);
                let reason = "a result of a newer version of smyle";
                assert!(error.contains(reason) && error.contains("--overwrite"), "{error}");
                assert_same(&newer, &fixture.work.tree("newer"));
            }
        }
        // A result that a publish has sent is replaced by a later one, but not by an earlier one again.
        publish("newer", &fixture.destination(), "").assert().success();
        let published = fixture.published();
        assert!(newer.iter().all(|(key, bytes)| published[key] == *bytes));
        for more in ["--dry-run", "", "--products store2", "--audit"] {
            let error = fails(&mut fixture.publish(more), CONFIGURATION);
            let reason = "a later result of this case: a publish has replaced that of the source";
            assert!(error.contains(reason) && error.contains("--overwrite"), "{error}");
        }
        assert_same(&published, &fixture.published());
        fixture.publish("--overwrite").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
        fixture.publish("").assert().success();
    });
}

#[test]
fn an_earlier_result_of_a_deleted_case_or_of_another_grid_is_not_published() {
    for_each_server(|fixture| {
        let run = |words: &str| run(fixture, words);
        let research = |name: &str| fixture.work.path(&format!("{name}/research"));
        run("demo raw later --case 112-04 --shape 8x9x3 --months 1 --seed 2");
        run("demo raw larger --case 112-04 --shape 10x12x3 --months 1");
        for (archive, output) in
            [("archive", "first"), ("later/archive", "second"), ("larger/archive", "third")]
        {
            let to = format!("-d {archive} -o {output}/research --allow-missing");
            run(&format!("research-data process-case 112-04 {to}"));
        }
        let place = |name: &str| fs::rename(research(name), research("site")).unwrap();
        let take_back = |name: &str| fs::rename(research("site"), research(name)).unwrap();
        for name in ["first", "second"] {
            place(name);
            fixture.publish("").assert().success();
            take_back(name);
        }
        place("third");
        let error = fails(&mut fixture.publish(""), CONFIGURATION);
        for part in ["another model grid", "8 x 9 points", "10 x 12 points", "--overwrite"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        take_back("third");
        fixture.publish("--delete").assert().success();
        assert!(!fixture.published().keys().any(|key| key.starts_with("research/")));
        place("first");
        let before = fixture.published();
        for more in ["", "--delete", "--audit"] {
            let error = fails(&mut fixture.publish(more), CONFIGURATION);
            let reason = "a later result of this case in its history, which a publish has deleted";
            assert!(error.contains(reason) && error.contains("--overwrite"), "{error}");
        }
        assert_same(&before, &fixture.published());
        // Nor is it published as a part of the whole, or by the side of the other products.
        let mut part = dor(fixture.work.folder());
        let destination = format!("{}/research/112/04", fixture.destination());
        part.envs(fixture.server.variables());
        part.args(["publish", "site/research/112/04", &destination]);
        assert!(fails(&mut part, CONFIGURATION).contains("is a part of"));
        take_back("first");
        place("second");
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_result_with_other_times_of_its_inputs_is_the_same_result() {
    for_each_server(|fixture| {
        let convert = || {
            let words =
                "research-data process-case 112-04 -d archive --allow-missing -o site/research";
            dor(fixture.work.folder()).args(words.split(' ')).assert().success();
        };
        let manifest = "research/112/04/manifest.json";
        convert();
        let copies = ["first", "second"].map(|name| fixture.work.path(name));
        let keep = |copy: &std::path::Path| {
            fs::copy(fixture.work.path(&format!("site/{manifest}")), copy).unwrap();
        };
        keep(&copies[0]);
        fixture.publish("").assert().success();
        set_age_of_archive(fixture, "archive", 90_000);
        convert();
        keep(&copies[1]);
        assert_ne!(fs::read(&copies[0]).unwrap(), fs::read(&copies[1]).unwrap());
        fixture.publish("").assert().success();
        // Back and forth, as two machines with copies of one archive would.
        for copy in [&copies[0], &copies[1]] {
            fs::copy(copy, fixture.work.path(&format!("site/{manifest}"))).unwrap();
            fixture.publish("").assert().success();
            assert_same(&fixture.expected(), &fixture.published());
        }
        // At the destination too.
        fixture.put_object(manifest, &fs::read(&copies[0]).unwrap());
        fixture.write("site/notes/about.txt", b"new");
        fixture.publish("").assert().success();
    });
}

#[test]
fn metadata_is_not_published_without_its_data() {
    for_each_server(|fixture| {
        let convert =
            "research-data process-case 112-04 -d archive --allow-missing -o site/research";
        dor(fixture.work.folder()).args(convert.split(' ')).assert().success();
        for (more, data) in [
            ("--exclude **/*.nc", "research/112/04/"),
            ("--exclude maps.zarr/0", "maps.zarr/0/PH/"),
            ("--include **/manifest.json", "research/112/04/"),
        ] {
            let error = fails(&mut fixture.publish(more), CONFIGURATION);
            let what = "data that patterns leave out, such as ";
            assert!(error.contains(what) && error.contains(data), "{more}: {error}");
            assert!(fixture.published().is_empty());
        }
        fixture.publish("--exclude research").assert().success();
        fixture.publish("").assert().success();
        // What is published already may be left out.
        fixture.write("site/notes/about.txt", b"new");
        fixture.publish("--exclude **/*.nc --exclude maps.zarr/0").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn the_first_publish_of_a_whole_continues_those_of_its_parts() {
    for_each_server(|fixture| {
        let run = |words: &str| run(fixture, words);
        run("demo raw other --case 112-04 --shape 8x9x3 --months 1 --seed 2");
        let convert = "research-data process-case 112-04 --allow-missing";
        for archive in ["archive", "other/archive"] {
            set_age_of_archive(fixture, archive, 0);
        }
        run(&format!("{convert} -d other/archive -o older"));
        run(&format!("{convert} -d archive -o site/research"));
        let part = |source: &str, folder: &str| {
            let mut publish = dor(fixture.work.folder());
            publish.envs(fixture.server.variables());
            let destination = format!("{}/{folder}", fixture.destination());
            publish.args(["publish", source, &destination]).assert().success();
        };
        part("older", "research");
        part("site/research", "research");
        part(MAPS, "maps.zarr");
        // The result of a part that was replaced does not come back with the whole.
        let [newer, aside] = ["site/research", "aside"].map(|name| fixture.work.path(name));
        fs::rename(&newer, &aside).unwrap();
        fs::rename(fixture.work.path("older"), &newer).unwrap();
        let error = fails(&mut fixture.publish(""), CONFIGURATION);
        assert!(error.contains("a later result of this case"), "{error}");
        fs::remove_dir_all(&newer).unwrap();
        fs::rename(&aside, &newer).unwrap();
        let lines = json_lines(&mut fixture.publish("--json"));
        assert_eq!(lines[0]["plan"]["new"]["objects"], 1, "only the note is new");
        let mut published = fixture.published();
        published.retain(|key, _| !key.contains(".dor/"));
        assert_same(&fixture.expected(), &published);
    });
}

#[test]
fn a_result_of_older_versions_of_the_same_raw_files_is_not_published() {
    for_each_server(|fixture| {
        let run = |words: &str| run(fixture, words);
        let convert = |archive: &str, output: &str| {
            let to = format!("-d {archive} -o {output}/research --allow-missing");
            run(&format!("research-data process-case 112-04 {to}"));
        };
        run("demo raw later --case 112-04 --shape 8x9x3 --months 1 --seed 2");
        run("demo raw same --case 112-04 --shape 8x9x3 --months 1 --seed 2");
        for (archive, output, seconds) in [
            ("archive", "site", 0),
            ("later/archive", "later", 90_000),
            ("same/archive", "same", 80_000),
        ] {
            set_age_of_archive(fixture, archive, seconds);
            convert(archive, output);
        }
        let publish = |source: &str, more: &str| {
            let mut publish = dor(fixture.work.folder());
            let destination = format!("{}/research", fixture.destination());
            publish.envs(fixture.server.variables());
            publish.args(["publish", &format!("{source}/research"), &destination]);
            publish.args(more.split_whitespace());
            publish
        };
        let publish_to = |source: &std::path::Path, folder: &str| {
            let mut publish = dor(fixture.work.folder());
            publish.arg("publish").arg(source).arg(format!("{folder}/research"));
            publish
        };
        publish("later", "").assert().success();
        // No publish has sent the result of the older files.
        let error = fails(&mut publish("site", ""), CONFIGURATION);
        for part in
            ["a result of a newer version of smyle", "that of the source is of 20", "--overwrite"]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
        // Nor has one sent this result, of files of the same time.
        set_age_of_archive(fixture, "archive", 90_000);
        convert("archive", "equal");
        let error =
            fails(&mut publish_to(&fixture.work.path("equal/research"), "later"), CONFIGURATION);
        assert!(
            error.contains("another result of this case, which no publish has sent"),
            "{error}"
        );
        // Files of the same content and another time give the same result.
        publish("same", "").assert().success();
        publish("later", "").assert().success();
        publish("site", "--overwrite").assert().success();
    });
}

#[test]
fn a_case_is_not_published_into_the_folder_of_another_case() {
    for_each_server(|fixture| {
        let convert = "research-data process-case 112-04 -d archive -o research --allow-missing";
        dor(fixture.work.folder()).args(convert.split(' ')).assert().success();
        for (source, folder) in [
            ("research/112/04", "112/07"),
            ("research/112/04", "113/04"),
            ("research/112", "113"),
            ("research/112/04", "112"),
            ("research/112/04", "112/04/04"),
            ("research/112", "112/04"),
            ("research/112", "more"),
        ] {
            for more in [&[][..], &["--overwrite"]] {
                let mut publish = dor(fixture.work.folder());
                let destination = format!("{}/{folder}", fixture.destination());
                publish.envs(fixture.server.variables());
                let error = fails(
                    publish.args(["publish", source, &destination]).args(more),
                    CONFIGURATION,
                );
                assert!(error.contains("is of case 112/04"), "{error}");
            }
        }
        let mut publish = dor(fixture.work.folder());
        publish.envs(fixture.server.variables());
        let destination = format!("{}/112/04", fixture.destination());
        publish.args(["publish", "research/112/04", &destination]).assert().success();
    });
}

#[test]
fn a_newer_result_of_a_published_part_is_published_with_the_whole() {
    for_each_server(|fixture| {
        let run = |words: &str| run(fixture, words);
        run("demo raw other --case 112-04 --shape 8x9x3 --months 1 --seed 2");
        for (archive, output, time) in [("archive", "research", 0), ("other/archive", "newer", 60)]
        {
            set_age_of_archive(fixture, archive, time);
            let to = format!("-d {archive} -o {output} --allow-missing");
            run(&format!("research-data process-case 112-04 {to}"));
        }
        let publish = |from: &str, to: &str| {
            let mut publish = dor(fixture.work.folder());
            publish.envs(fixture.server.variables()).args(["publish", from, to]);
            publish
        };
        let root = fixture.destination();
        publish("research/112/04", &format!("{root}/112/04")).assert().success();
        publish("newer", &root).assert().success();
        let published = fixture.published();
        assert!(fixture.work.tree("newer").iter().all(|(key, bytes)| published[key] == *bytes));
    });
}

#[test]
fn a_store_is_not_published_among_cases_while_it_is_filled() {
    for_each_server(|fixture| {
        let run = |words: &str| run(fixture, words);
        run("research-data process-case 112-04 -d archive -o research --allow-missing");
        let mut publish = dor(fixture.work.folder());
        publish.envs(fixture.server.variables());
        publish.args(["publish", "research", &fixture.destination()]).assert().success();
        let before = fixture.published();
        run("vis create-template-store2 -o new.zarr --variables PH -l 1");
        let mut fill = dor(fixture.work.folder());
        fill.envs(fixture.server.variables());
        let words =
            "vis populate-store2 -o new.zarr -p 112 -m 4 --data-dir archive --allow-missing";
        fill.args(words.split(' ')).args(["--grid", "grid.nc", "--publish-to"]);
        let error = fails(fill.arg(fixture.destination()), CONFIGURATION);
        assert!(error.contains("112, which is no part of"), "{error}");
        assert_same(&before, &fixture.published());
    });
}

#[test]
fn a_whole_of_published_parts_alone_has_a_manifest_of_its_own() {
    for_each_server(|fixture| {
        fs::remove_dir_all(fixture.work.path("site/notes")).unwrap();
        let part = || {
            let mut publish = dor(fixture.work.folder());
            publish.envs(fixture.server.variables());
            publish.args(["publish", MAPS, &format!("{}/maps.zarr", fixture.destination())]);
            publish
        };
        part().assert().success();
        fixture.publish("").assert().success();
        assert!(fixture.get_object(".dor/manifest.jsonl.gz").is_some());
        fixture.delete_object("maps.zarr/.zattrs");
        let before = fixture.published();
        assert!(fails(part().arg("--audit"), CONFIGURATION).contains("is a part of"));
        assert_same(&before, &fixture.published());
    });
}

#[test]
fn a_part_of_a_published_folder_is_not_published_alone() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        let before = fixture.published();
        for (source, part) in [(MAPS, "maps.zarr"), ("site/notes", "notes")] {
            for more in [&[][..], &["--delete"], &["--overwrite"], &["--dry-run"]] {
                let mut publish = dor(fixture.work.folder());
                publish.envs(fixture.server.variables());
                let destination = format!("{}/{part}", fixture.destination());
                publish.args(["publish", source, &destination]).args(more);
                let error = fails(&mut publish, CONFIGURATION);
                let reason = format!("{destination} is a part of {}", fixture.destination());
                assert!(error.contains(&reason) && error.contains("as a whole"), "{error}");
            }
        }
        assert_same(&before, &fixture.published());
        // A folder beside the published objects is a destination of its own.
        let mut publish = dor(fixture.work.folder());
        publish.envs(fixture.server.variables());
        publish.args(["publish", "site/notes", &format!("{}/more", fixture.destination())]);
        publish.assert().success();
    });
}

#[test]
fn cases_beside_other_products_are_refused_in_the_source_and_at_the_destination() {
    for_each_server(|fixture| {
        let convert = "research-data process-case 112-04 -d archive --allow-missing -o";
        for output in ["site", "research"] {
            let words = convert.split(' ').chain([output]);
            dor(fixture.work.folder()).args(words).assert().success();
        }
        let error = fails(&mut fixture.publish(""), CONFIGURATION);
        for part in ["site holds folders of cases", "maps.zarr", "research-grade files"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(fixture.published().is_empty());
        fs::remove_dir_all(fixture.work.path("site/112")).unwrap();
        fixture.publish("").assert().success();
        let before = fixture.published();
        for source in ["research", "research/112", "research/112/04"] {
            for more in [&[][..], &["--overwrite"], &["--dry-run"]] {
                let mut publish = dor(fixture.work.folder());
                publish.envs(fixture.server.variables());
                publish.args(["publish", source, &fixture.destination()]).args(more);
                let error = fails(&mut publish, CONFIGURATION);
                assert!(error.contains("maps.zarr, which is no part of"), "{error}");
            }
        }
        assert_same(&before, &fixture.published());
        // A folder of cases that was published by itself.
        let publish = |to: &str| {
            let mut publish = dor(fixture.work.folder());
            publish.envs(fixture.server.variables()).args(["publish", "research", to]);
            publish
        };
        let root = format!("{}/other", fixture.destination());
        publish(&format!("{root}/research")).assert().success();
        let error = fails(&mut publish(&root), CONFIGURATION);
        assert!(error.contains("research, which is no part of"), "{error}");
    });
}
