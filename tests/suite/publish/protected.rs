//! `dor publish` neither deletes nor replaces published objects by mistake.

use std::fs;

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails};
use super::super::support::s3::S3Server;
use super::{CONFIGURATION, Fixture, Server, for_each_server};

#[test]
fn overwrite_sends_objects_again_that_the_destination_has_lost() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        let lost = ["maps.zarr/0/PH/112.0.1.0.0.0.0", "notes/about.txt"];
        lost.iter().for_each(|key| fixture.delete_object(key));
        // Without `--overwrite`, `dor` trusts the manifest of the last publish.
        fixture.publish("").assert().success();
        assert!(!fixture.published().contains_key(lost[0]));
        fixture.publish("--overwrite").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn an_object_that_another_program_has_replaced_is_not_deleted() {
    for_each_server(|fixture| {
        fixture.write("site/notes/more.txt", b"more");
        fixture.publish("").assert().success();
        fixture.put_object("notes/about.txt", b"of another program");
        for name in ["site/notes/about.txt", "site/notes/more.txt"] {
            fs::remove_file(fixture.work.path(name)).unwrap();
        }
        let output = fixture.publish("--delete").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        let warning = "1 object(s), such as ";
        assert!(
            stderr.contains(warning) && stderr.contains("notes/about.txt, were replaced"),
            "{stderr}"
        );
        for more in ["--delete", "--delete --audit"] {
            fixture.publish(more).assert().success();
            let mut expected = fixture.expected();
            expected.insert("notes/about.txt".to_owned(), b"of another program".to_vec());
            assert_same(&expected, &fixture.published());
        }
    });
}

#[test]
fn objects_of_another_program_at_the_metadata_keys_of_a_store_are_kept() {
    for_each_server(|fixture| {
        for key in ["maps.zarr/.zattrs", "maps.zarr/.zmetadata", "maps.zarr/.cases/112-04.json"] {
            fixture.put_object(key, b"of another program");
            let error = fails(&mut fixture.publish(""), CONFIGURATION);
            assert!(error.contains(key) && error.contains("--overwrite"), "{error}");
            assert_eq!(fixture.published().len(), 1, "{key}");
            fixture.delete_object(key);
        }
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_changed_chunk_of_a_zarr_store_without_case_manifests_is_published() {
    for_each_server(|fixture| {
        let group = br#"{"zarr_format":3,"node_type":"group","attributes":{}}"#;
        let array = br#"{"zarr_format":3,"node_type":"array","shape":[2],"data_type":"uint8",
            "chunk_grid":{"name":"regular","configuration":{"chunk_shape":[1]}},
            "chunk_key_encoding":{"name":"default","configuration":{"separator":"/"}},
            "fill_value":0,"codecs":[{"name":"bytes"}],"attributes":{}}"#;
        fixture.write("site/plain.zarr/zarr.json", group);
        fixture.write("site/plain.zarr/a/zarr.json", array);
        for bytes in [b"1", b"2"] {
            fixture.write("site/plain.zarr/a/c/0", bytes);
            fixture.write("site/plain.zarr/a/c/1", b"0");
            fixture.publish("").assert().success();
            assert_same(&fixture.expected(), &fixture.published());
        }
        // A chunk that another program has replaced at the destination is not overwritten.
        fixture.put_object("plain.zarr/a/c/1", b"9");
        fixture.write("site/plain.zarr/a/c/0", b"3");
        let error = fails(&mut fixture.publish(""), CONFIGURATION);
        assert!(error.contains("values of cases without a case manifest"), "{error}");
    });
}

#[test]
fn delete_is_refused_if_the_source_has_none_of_the_published_objects() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        let before = fixture.published();
        fixture.write("other/a.txt", b"a");
        let publish = |more: &[&str]| {
            let mut command = dor(fixture.work.folder());
            command.envs(fixture.server.variables());
            command.args(["publish", "other", &fixture.destination()]).args(more);
            command
        };
        for more in [&["--delete"][..], &["--delete", "--dry-run"]] {
            let error = fails(&mut publish(more), CONFIGURATION);
            let reason = "other has none of the objects that are published at s3://";
            for part in [reason, &fixture.destination(), "--overwrite"] {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert_same(&before, &fixture.published());
        }
        publish(&["--delete", "--overwrite"]).assert().success();
        assert_same(&fixture.work.tree("other"), &fixture.published());
    });
}

#[test]
fn a_publish_over_a_store_finalized_at_the_destination_is_refused_and_names_the_loss() {
    let fixture = Fixture::new(Server::Embedded(S3Server::start()));
    let run = |words: &str| {
        let mut command = dor(fixture.work.folder());
        command.args(words.split(' ')).assert().success();
    };
    let publish = || {
        let mut command = dor(fixture.work.folder());
        command.args(["publish", "site", "there"]);
        command
    };
    publish().assert().success();
    run("vis remove there/maps.zarr -p 112 -m 4");
    run("vis finalize there/maps.zarr");
    fixture.write("site/notes/more.txt", b"more");
    // Changes the metadata of the source, so that the publish has an object of the store to send.
    run("vis finalize site/maps.zarr");
    fs::remove_file(fixture.work.path("site/maps.zarr/.zmetadata")).unwrap();
    run("vis finalize site/maps.zarr");
    let (manifest, intent) = ("there/.dor/manifest.jsonl.gz", "there/.dor/manifest.next.jsonl.gz");
    // Also with the intent of an interrupted publish, which has not written that metadata.
    for is_interrupted in [false, true] {
        if is_interrupted {
            fs::copy(fixture.work.path(manifest), fixture.work.path(intent)).unwrap();
        }
        let error = fails(publish().arg("--audit"), CONFIGURATION);
        let loss = "it lacks polygons 112 (month 4), which the source has";
        assert!(error.contains("was finalized there") && error.contains(loss), "{error}");
        assert!(!error.contains("added"), "{error}");
    }
}

#[test]
fn files_are_never_published_into_a_store_even_after_an_interrupted_publish() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        let before = fixture.published();
        fixture.write("other/maps.zarr/notes.txt", b"not of a store");
        let intent = fixture.get_object(".dor/manifest.jsonl.gz").unwrap();
        for is_interrupted in [false, true] {
            if is_interrupted {
                fixture.put_object(".dor/manifest.next.jsonl.gz", &intent);
            }
            let mut command = dor(fixture.work.folder());
            command.envs(fixture.server.variables());
            let error = fails(
                command.args(["publish", "other", &fixture.destination(), "--overwrite"]),
                CONFIGURATION,
            );
            assert!(error.contains("one never replaces the other"), "{error}");
            assert_same(&before, &fixture.published());
        }
    });
}

#[test]
fn a_store_1_that_lacks_the_case_manifest_of_a_case_is_not_published() {
    let fixture = Fixture::new(Server::Embedded(S3Server::start()));
    for command in [
        "vis create-template-store1 -o site/curves.zarr",
        "vis populate-store1 -o site/curves.zarr -p 112 -m 4 --data-dir archive --allow-missing",
        "vis finalize site/curves.zarr",
    ] {
        dor(fixture.work.folder()).args(command.split(' ')).assert().success();
    }
    let case_manifest = fixture.work.path("site/curves.zarr/.cases/112-04.json");
    fs::rename(&case_manifest, fixture.work.path("aside.json")).unwrap();
    let error = fails(&mut fixture.publish(""), CONFIGURATION);
    for part in ["curves.zarr", "112-04", "has no case manifest", "is not finished"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(fixture.published().is_empty());
    fs::rename(fixture.work.path("aside.json"), &case_manifest).unwrap();
    fixture.publish("").assert().success();
    assert_same(&fixture.expected(), &fixture.published());
    // A case that was made again, and whose new values are not in the chunks yet.
    let run = |words: &str| {
        dor(fixture.work.folder()).args(words.split(' ')).assert().success();
    };
    run("demo raw other --case 112-04 --shape 8x9x3 --months 1 --seed 2");
    let fill = "-o site/curves.zarr -p 112 -m 4 --data-dir other/archive --allow-missing";
    run(&format!("vis populate-store1 {fill}"));
    let before = fixture.published();
    let error = fails(&mut fixture.publish(""), CONFIGURATION);
    for part in ["112-04.json has been made again since", "is not finished"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_same(&before, &fixture.published());
    run("vis finalize site/curves.zarr");
    fixture.publish("").assert().success();
    assert_same(&fixture.expected(), &fixture.published());
    // A store without its case manifests, and with adopted ones, which lack the inputs.
    let before = fixture.published();
    let [cases, aside] = ["site/curves.zarr/.cases", "aside"].map(|name| fixture.work.path(name));
    fs::rename(&cases, &aside).unwrap();
    for more in ["", "--delete"] {
        let error = fails(&mut fixture.publish(more), CONFIGURATION);
        assert!(error.contains("the manifests of its cases"), "{error}");
    }
    run("vis finalize site/curves.zarr --adopt");
    let error = fails(&mut fixture.publish(""), CONFIGURATION);
    assert!(error.contains("the inputs of the case"), "{error}");
    assert_same(&before, &fixture.published());
}

#[test]
fn a_store_is_filled_and_published_case_by_case() {
    let fixture = Fixture::new(Server::Embedded(S3Server::start()));
    let mut raw = dor(fixture.work.folder());
    let words = "demo raw . --case 113-04 --shape 8x9x3 --months 1";
    raw.args(words.split(' ')).assert().success();
    let destination = fixture.destination();
    let run = |words: &str| {
        let mut command = dor(fixture.work.folder());
        command.envs(fixture.server.variables()).args(words.split(' ')).assert().success();
    };
    run("vis create-template-store2 -o maps --variables PH -l 1");
    for polygon in ["112", "113"] {
        let fill = format!("-p {polygon} -m 4 --data-dir archive --allow-missing --grid grid.nc");
        run(&format!("vis populate-store2 -o maps {fill} --publish-to {destination}"));
        run(&format!("vis finalize maps --publish-to {destination}"));
        assert_same(&fixture.work.tree("maps"), &fixture.published());
    }
}

#[test]
fn shared_chunks_with_other_values_of_a_case_that_is_left_out_are_not_published() {
    let fixture = Fixture::new(Server::Embedded(S3Server::start()));
    let run = |words: &str| {
        dor(fixture.work.folder()).args(words.split(' ')).assert().success();
    };
    run("demo raw . --case 113-04 --shape 8x9x3 --months 1");
    run("vis create-template-store1 -o site/curves.zarr");
    let fill = |polygon: &str, archive: &str| {
        let case = format!("-p {polygon} -m 4 --data-dir {archive} --allow-missing");
        run(&format!("vis populate-store1 -o site/curves.zarr {case}"));
        run("vis finalize site/curves.zarr");
    };
    fill("112", "archive");
    fill("113", "archive");
    fixture.publish("").assert().success();
    let before = fixture.published();
    run("demo raw other --case 112-04 --shape 8x9x3 --months 1 --seed 2");
    fill("112", "other/archive");
    let error = fails(&mut fixture.publish("--case 113-04"), CONFIGURATION);
    assert!(error.contains("other values of case 112-04, which --case leaves out"), "{error}");
    assert_same(&before, &fixture.published());
    fixture.publish("--case 112-04").assert().success();
    assert_same(&fixture.expected(), &fixture.published());
}

#[test]
fn a_case_in_a_renamed_folder_is_not_published() {
    let fixture = Fixture::new(Server::Embedded(S3Server::start()));
    let convert = "research-data process-case 112-04 -d archive --allow-missing -o site/research";
    dor(fixture.work.folder()).args(convert.split(' ')).assert().success();
    let folder = |name: &str| fixture.work.path(&format!("site/research/{name}"));
    fs::rename(folder("112"), folder("113")).unwrap();
    let error = fails(&mut fixture.publish(""), 65);
    for part in ["research/113/04", "the case manifest of another folder", "112/04/"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(fixture.published().is_empty());
    fs::rename(folder("113"), folder("112")).unwrap();
    // A month or polygon folder of another name is no product, and its files are not sent as others.
    for (from, to) in [("112/04", "112/april"), ("112", "p112"), ("112/04", "112/4")] {
        fs::rename(folder(from), folder(to)).unwrap();
        let error = fails(&mut fixture.publish(""), 65);
        assert!(error.contains(to) && error.contains("rename the folder as it was"), "{error}");
        assert!(fixture.published().is_empty());
        fs::rename(folder(to), folder(from)).unwrap();
    }
    let convert = convert.replace("112-04", "112-07");
    fs::rename(folder("112/04"), folder("112/april")).unwrap();
    dor(fixture.work.folder())
        .args(["demo", "raw", ".", "--case", "112-07", "--shape", "8x9x3", "--months", "1"])
        .assert()
        .success();
    dor(fixture.work.folder()).args(convert.split(' ')).assert().success();
    let error = fails(&mut fixture.publish(""), 65);
    assert!(error.contains("112/april has the case manifest of another folder"), "{error}");
    fs::rename(folder("112/april"), folder("112/04")).unwrap();
    // A backup copy beside the folder of the case is not published, and is no error.
    fixture.write("site/research/112/04.bak/manifest.json", b"");
    fs::copy(
        fixture.work.path("site/research/112/04/manifest.json"),
        fixture.work.path("site/research/112/04.bak/manifest.json"),
    )
    .unwrap();
    // Other programs have files of this name, and a whole dataset may lie in any folder.
    fixture.write("site/research/112/notes/manifest.json", b"{\"recipe\": 1}");
    fixture.write("site/notes/manifest.json", b"not JSON");
    fixture.publish("").assert().success();
    let mut expected = fixture.expected();
    expected.retain(|key, _| !key.contains("112/notes") && !key.contains("04.bak"));
    assert_same(&expected, &fixture.published());
}

#[test]
fn files_in_product_folders_that_no_case_manifest_lists_are_counted_and_not_published() {
    for_each_server(|fixture| {
        let mut convert = dor(fixture.work.folder());
        let words = "research-data process-case 112-04 -d archive --allow-missing -o site/research";
        convert.args(words.split(' ')).assert().success();
        let dry_run = |more: &str| {
            let output = fixture.publish(&format!("--dry-run {more}")).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let none = dry_run("");
        assert!(!none.contains("no case manifest lists"), "{none}");
        assert!(none.contains("not published: 1 hidden"), "{none}");
        for name in ["research/README", "research/112/04/notes.txt", "maps.zarr/0/PH/of-nobody"] {
            fixture.write(&format!("site/{name}"), b"mine");
        }
        fixture.write("site/research/112/.DS_Store", b"x");
        let stdout = dry_run("");
        let foreign =
            "not published: 3 that no case manifest lists (such as maps.zarr/0/PH/of-nobody)";
        assert!(stdout.contains(foreign) && stdout.contains("not published: 2 hidden"), "{stdout}");
        assert!(!stdout.contains("send research/README"), "{stdout}");
        let stdout = dry_run("--json");
        let plan: serde_json::Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
        let left_out = plan["plan"]["left_out"].as_array().unwrap();
        let foreign = left_out.iter().find(|left| left["reason"] == "foreign").unwrap();
        assert_eq!(foreign["number"], 3, "{stdout}");
        // Files that a pattern excludes are not counted.
        assert!(
            dry_run("--exclude research/**").contains("not published: 1 that no case manifest")
        );
    });
}
