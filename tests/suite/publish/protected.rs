//! What is published is neither lost nor replaced by mistake.

use std::fs;

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails};
use super::super::support::s3::S3Server;
use super::{Bench, CONFIGURATION, Server, on_all};

#[test]
fn to_overwrite_sends_again_what_the_destination_has_lost() {
    on_all(|bench| {
        bench.publish("").assert().success();
        let lost = ["maps.zarr/0/PH/112.0.1.0.0.0.0", "notes/about.txt"];
        lost.iter().for_each(|key| bench.remove(key));
        // What was published last is believed.
        bench.publish("").assert().success();
        assert!(!bench.published().contains_key(lost[0]));
        bench.publish("--overwrite").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn what_another_program_has_replaced_is_not_deleted() {
    on_all(|bench| {
        bench.write("site/notes/more.txt", b"more");
        bench.publish("").assert().success();
        bench.alter("notes/about.txt", b"of another program");
        for name in ["site/notes/about.txt", "site/notes/more.txt"] {
            fs::remove_file(bench.work.path(name)).unwrap();
        }
        let output = bench.publish("--delete").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let warned = "1 object(s), such as ";
        assert!(said.contains(warned) && said.contains("notes/about.txt, were replaced"), "{said}");
        for more in ["--delete", "--delete --audit"] {
            bench.publish(more).assert().success();
            let mut expected = bench.expected();
            expected.insert("notes/about.txt".to_owned(), b"of another program".to_vec());
            assert_same(&expected, &bench.published());
        }
    });
}

#[test]
fn a_changed_chunk_of_a_store_without_records_is_published() {
    on_all(|bench| {
        let group = br#"{"zarr_format":3,"node_type":"group","attributes":{}}"#;
        let array = br#"{"zarr_format":3,"node_type":"array","shape":[2],"data_type":"uint8",
            "chunk_grid":{"name":"regular","configuration":{"chunk_shape":[1]}},
            "chunk_key_encoding":{"name":"default","configuration":{"separator":"/"}},
            "fill_value":0,"codecs":[{"name":"bytes"}],"attributes":{}}"#;
        bench.write("site/plain.zarr/zarr.json", group);
        bench.write("site/plain.zarr/a/zarr.json", array);
        for bytes in [b"1", b"2"] {
            bench.write("site/plain.zarr/a/c/0", bytes);
            bench.write("site/plain.zarr/a/c/1", b"0");
            bench.publish("").assert().success();
            assert_same(&bench.expected(), &bench.published());
        }
        // Another program has put a value there.
        bench.alter("plain.zarr/a/c/1", b"9");
        bench.write("site/plain.zarr/a/c/0", b"3");
        let error = fails(&mut bench.publish(""), CONFIGURATION);
        assert!(error.contains("values of cases without a record"), "{error}");
    });
}

#[test]
fn a_source_that_shares_nothing_with_what_is_published_deletes_nothing() {
    on_all(|bench| {
        bench.publish("").assert().success();
        let before = bench.published();
        bench.write("other/a.txt", b"a");
        let publish = |more: &[&str]| {
            let mut command = dor(bench.work.folder());
            command.envs(bench.server.variables());
            command.args(["publish", "other", &bench.destination()]).args(more);
            command
        };
        for more in [&["--delete"][..], &["--delete", "--dry-run"]] {
            let error = fails(&mut publish(more), CONFIGURATION);
            let named = "other has none of the objects that are published at s3://";
            for part in [named, &bench.destination(), "--overwrite"] {
                assert!(error.contains(part), "{part}: {error}");
            }
            assert_same(&before, &bench.published());
        }
        publish(&["--delete", "--overwrite"]).assert().success();
        assert_same(&bench.work.tree("other"), &bench.published());
    });
}

#[test]
fn what_differs_in_a_store_that_was_finalized_where_it_is_published_is_told() {
    let bench = Bench::new(Server::Embedded(S3Server::start()));
    let run = |words: &str| {
        let mut command = dor(bench.work.folder());
        command.args(words.split(' ')).assert().success();
    };
    let publish = || {
        let mut command = dor(bench.work.folder());
        command.args(["publish", "site", "there"]);
        command
    };
    publish().assert().success();
    run("vis remove there/maps.zarr -p 112 -m 4");
    run("vis finalize there/maps.zarr");
    bench.write("site/notes/more.txt", b"more");
    // Something of the store is to be sent.
    run("vis finalize site/maps.zarr");
    fs::remove_file(bench.work.path("site/maps.zarr/.zmetadata")).unwrap();
    run("vis finalize site/maps.zarr");
    let (manifest, intent) = ("there/.dor/manifest.jsonl.gz", "there/.dor/manifest.next.jsonl.gz");
    // With an interrupted publish too, which did not write that.
    for is_interrupted in [false, true] {
        if is_interrupted {
            fs::copy(bench.work.path(manifest), bench.work.path(intent)).unwrap();
        }
        let error = fails(publish().arg("--audit"), CONFIGURATION);
        let said = "it lacks polygons 112 (month 4), which the source has";
        assert!(error.contains("was finalized there") && error.contains(said), "{error}");
        assert!(!error.contains("added"), "{error}");
    }
}

#[test]
fn nothing_is_put_into_a_store_after_an_interrupted_publish_either() {
    on_all(|bench| {
        bench.publish("").assert().success();
        let before = bench.published();
        bench.write("other/maps.zarr/notes.txt", b"not of a store");
        let intent = bench.read(".dor/manifest.jsonl.gz").unwrap();
        for is_interrupted in [false, true] {
            if is_interrupted {
                bench.alter(".dor/manifest.next.jsonl.gz", &intent);
            }
            let mut command = dor(bench.work.folder());
            command.envs(bench.server.variables());
            let error = fails(
                command.args(["publish", "other", &bench.destination(), "--overwrite"]),
                CONFIGURATION,
            );
            assert!(error.contains("one never replaces the other"), "{error}");
            assert_same(&before, &bench.published());
        }
    });
}

#[test]
fn a_store_whose_cases_share_chunks_is_not_sent_without_the_record_of_one() {
    let bench = Bench::new(Server::Embedded(S3Server::start()));
    for command in [
        "vis create-template-store1 -o site/curves.zarr",
        "vis populate-store1 -o site/curves.zarr -p 112 -m 4 --data-dir archive --allow-missing",
        "vis finalize site/curves.zarr",
    ] {
        dor(bench.work.folder()).args(command.split(' ')).assert().success();
    }
    let record = bench.work.path("site/curves.zarr/.cases/112-04.json");
    fs::rename(&record, bench.work.path("aside.json")).unwrap();
    let error = fails(&mut bench.publish(""), CONFIGURATION);
    for part in ["curves.zarr", "112-04", "has no record", "is not finished"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(bench.published().is_empty());
    fs::rename(bench.work.path("aside.json"), &record).unwrap();
    bench.publish("").assert().success();
    assert_same(&bench.expected(), &bench.published());
}

#[test]
fn a_case_in_a_folder_that_was_renamed_is_not_published() {
    let bench = Bench::new(Server::Embedded(S3Server::start()));
    let convert = "research-data process-case 112-04 -d archive --allow-missing -o site/research";
    dor(bench.work.folder()).args(convert.split(' ')).assert().success();
    let folder = |name: &str| bench.work.path(&format!("site/research/{name}"));
    fs::rename(folder("112"), folder("113")).unwrap();
    let error = fails(&mut bench.publish(""), 65);
    for part in ["research/113/04", "that of another folder", "112/04/"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(bench.published().is_empty());
    fs::rename(folder("113"), folder("112")).unwrap();
    bench.publish("").assert().success();
    assert_same(&bench.expected(), &bench.published());
}

#[test]
fn foreign_files_in_folders_of_products_are_counted() {
    on_all(|bench| {
        let mut convert = dor(bench.work.folder());
        let words = "research-data process-case 112-04 -d archive --allow-missing -o site/research";
        convert.args(words.split(' ')).assert().success();
        let dry_run = |more: &str| {
            let output = bench.publish(&format!("--dry-run {more}")).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let none = dry_run("");
        assert!(!none.contains("no record of a product lists"), "{none}");
        assert!(none.contains("not published: 1 hidden"), "{none}");
        for name in ["research/README", "research/112/04/notes.txt", "maps.zarr/0/PH/of-nobody"] {
            bench.write(&format!("site/{name}"), b"mine");
        }
        bench.write("site/research/112/.DS_Store", b"x");
        let said = dry_run("");
        let first =
            "not published: 3 that no record of a product lists (such as maps.zarr/0/PH/of-nobody)";
        assert!(said.contains(first) && said.contains("not published: 2 hidden"), "{said}");
        assert!(!said.contains("send research/README"), "{said}");
        let said = dry_run("--json");
        let plan: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        let left_out = plan["plan"]["left_out"].as_array().unwrap();
        let foreign = left_out.iter().find(|left| left["reason"] == "foreign").unwrap();
        assert_eq!(foreign["number"], 3, "{said}");
        // What a pattern leaves out is so on purpose.
        assert!(dry_run("--exclude research/**").contains("not published: 1 that no record"));
    });
}
