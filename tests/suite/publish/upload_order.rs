//! What is sent, and when.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails, json};
use super::super::support::s3::S3Server;
use super::{Bench, CONFIGURATION, INTERRUPTED, MAPS, Server, lines, on_all, on_servers};

#[test]
fn data_goes_before_the_metadata_that_names_it_and_only_once() {
    on_all(|bench| {
        let said = lines(&mut bench.publish("--json --dry-run"));
        let planned = said[0]["plan"]["send"].as_array().unwrap().clone();
        assert!(!bench.has_changed_something());
        bench.publish("").assert().success();
        assert_same(&bench.expected(), &bench.published());
        let requests = bench.server.requests();
        let folder = format!("PUT /{}/site/", bench.server.bucket());
        let sent: Vec<&str> = requests
            .iter()
            .filter_map(|request| request.strip_prefix(&folder))
            .map(|request| request.split('?').next().unwrap())
            .collect();
        assert_eq!(sent.first(), Some(&".dor/lease.json"));
        assert_eq!(sent.last(), Some(&".dor/manifest.jsonl.gz"));
        assert_eq!(sent[1], ".dor/manifest.next.jsonl.gz");
        assert_eq!(sent.len(), planned.len() + 3);
        let at = |name: &str| sent.iter().position(|key| *key == name).unwrap();
        let last_chunk = sent.iter().rposition(|key| key.contains("/PH/112.")).unwrap();
        assert!(last_chunk < at("maps.zarr/0/PH/.zarray"));
        assert!(at("maps.zarr/0/PH/.zarray") < at("maps.zarr/0/.zgroup"));
        assert!(at("maps.zarr/0/.zgroup") < at("maps.zarr/.zgroup"));
        assert!(at("maps.zarr/.zgroup") < at("maps.zarr/.zmetadata"));

        // Again: a few requests, and none for an object.
        bench.publish("").assert().success();
        let requests = bench.server.requests();
        assert!(requests.len() <= 8, "{requests:?}");
        bench.write("site/notes/about.txt", b"ABOUT");
        let said = lines(&mut bench.publish("--json"));
        assert_eq!(said[0]["plan"]["changed"]["objects"], 1);
        assert_eq!(said[1]["sent"]["key"], "notes/about.txt");
        assert_eq!(said[1]["sent"]["attempts"], 1);
        assert_same(&bench.expected(), &bench.published());
        let mut status = dor(bench.work.folder());
        status.envs(bench.server.variables());
        let status = json(status.args(["publish", "status", &bench.destination(), "--json"]));
        assert_eq!(status["published"]["version"], 2);
        assert_eq!(status["published"]["objects"], planned.len());
        assert!(status["published"]["recipes"]["maps.zarr"].is_object());
    });
}

#[test]
fn each_object_is_told_of_as_soon_as_it_is_sent() {
    on_all(|bench| {
        bench.write_many(100, 20_000);
        let mut command = bench.publishing("--json --concurrency 2 --bwlimit 100k");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(said.next().unwrap().unwrap().starts_with(r#"{"plan":"#));
        assert!(said.next().unwrap().unwrap().starts_with(r#"{"sent":{"#));
        assert!(child.try_wait().unwrap().is_none() && bench.published().len() < 100);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn nothing_is_deleted_that_was_not_published_or_is_still_there() {
    on_all(|bench| {
        let mut convert = dor(bench.work.folder());
        convert.args(["research-data", "process-case", "112-04", "-d", "archive"]);
        convert.args(["-o", "site/files", "--allow-missing"]).assert().success();
        bench.publish("").assert().success();
        bench.alter("foreign.txt", b"not ours");
        fs::remove_dir_all(bench.work.path("site/notes")).unwrap();
        // A case that is being made again has no record for the moment.
        let record = bench.work.path(&format!("{MAPS}/.cases/112-04.json"));
        let aside = bench.work.path("aside.json");
        fs::rename(&record, &aside).unwrap();
        let case = bench.work.path("site/files/112/04");
        fs::rename(case.join("manifest.json"), case.join("manifest.partial.json")).unwrap();
        let before = bench.published();
        assert!(before.contains_key("files/112/04/manifest.json"));
        bench.publish("").assert().success();
        assert_same(&before, &bench.published());
        bench.server.requests();
        let error = fails(&mut bench.publish("--delete --max-delete 0"), CONFIGURATION);
        assert!(error.contains("1 object(s)") && error.contains("--max-delete 0"), "{error}");
        assert!(!bench.has_changed_something());
        let said = lines(&mut bench.publish("--delete --json"));
        assert!(said.iter().any(|line| line["deleted"]["key"].is_string()), "{said:?}");
        let after = bench.published();
        assert_eq!(before.len() - 1, after.len());
        assert!(after.contains_key("foreign.txt") && !after.contains_key("notes/about.txt"));
        fs::rename(&aside, &record).unwrap();
        fs::rename(case.join("manifest.partial.json"), case.join("manifest.json")).unwrap();
        bench.publish("--delete").assert().success();
        assert_same(&after, &bench.published());
        // Deleting does not go together with some of the products.
        fails(&mut bench.publish("--delete --only store2"), 2);
    });
}

#[test]
fn a_whole_case_is_taken_out_by_its_folder() {
    on_all(|bench| {
        let mut convert = dor(bench.work.folder());
        convert.args(["research-data", "process-case", "112-04", "-d", "archive"]);
        convert.args(["-o", "site/files", "--allow-missing"]).assert().success();
        bench.publish("").assert().success();
        let before = bench.published();
        let of_case = before.keys().filter(|name| name.starts_with("files/112/04/")).count();
        assert!(of_case > 1);
        fs::remove_dir_all(bench.work.path("site/files/112")).unwrap();
        // Without --delete the case stays, and is counted.
        let said = lines(&mut bench.publish("--json"));
        assert_eq!(said[0]["plan"]["orphaned"]["objects"], of_case, "{said:?}");
        assert_same(&before, &bench.published());
        bench.publish("--delete").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn what_names_others_is_deleted_before_them() {
    on_all(|bench| {
        bench.publish("").assert().success();
        fs::remove_dir_all(bench.work.path(MAPS)).unwrap();
        bench.server.requests();
        bench.publish("--delete").assert().success();
        let requests = bench.server.requests();
        let folder = format!("DELETE /{}/site/maps.zarr/", bench.server.bucket());
        let gone: Vec<&str> = requests.iter().filter_map(|r| r.strip_prefix(&folder)).collect();
        let at = |name: &str| gone.iter().position(|key| *key == name).unwrap();
        let first_chunk = gone.iter().position(|key| key.contains("/PH/112.")).unwrap();
        let order =
            [at(".zmetadata"), at(".zgroup"), at("0/.zgroup"), at("0/PH/.zarray"), first_chunk];
        assert!(order.is_sorted(), "{gone:?}");
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn parts_of_a_source_leave_the_rest_as_it_is_published() {
    on_all(|bench| {
        bench.publish("--only store2 --cache-control max-age=60").assert().success();
        let maps = bench.published();
        assert!(maps.keys().all(|key| key.starts_with("maps.zarr/")) && maps.len() > 4);
        bench.publish("--include notes/** --content-type text/html").assert().success();
        assert_same(&bench.expected(), &bench.published());
        let about = format!("PUT /{}/site/notes/about.txt", bench.server.bucket());
        assert_eq!(bench.server.content_type(&about).unwrap(), "text/html");
        let zarray = format!("PUT /{}/site/maps.zarr/0/PH/.zarray", bench.server.bucket());
        assert_eq!(bench.server.content_type(&zarray).unwrap(), "application/json");
        let said = lines(&mut bench.publish("--case 112-04 --json"));
        assert_eq!(said[0]["plan"]["new"]["objects"], 0);
        assert!(said[0]["plan"]["same"]["objects"].as_u64().unwrap() > 0);
    });
}

#[test]
fn one_publishes_at_a_time() {
    on_all(|bench| {
        let now = chrono::Utc::now().to_rfc3339();
        let sign = |renewed: &str| {
            let text =
                r#"{"token":"1","host":"elsewhere","process":1,"since":"NOW","renewed":"THEN"}"#;
            text.replace("NOW", &now).replace("THEN", renewed)
        };
        bench.alter(".dor/lease.json", sign(&now).as_bytes());
        let error = fails(&mut bench.publish(""), INTERRUPTED);
        assert!(error.contains("process 1 on elsewhere"), "{error}");
        assert!(bench.published().is_empty() && !bench.has_changed_something());
        bench.alter(".dor/lease.json", sign("2020-01-01T00:00:00Z").as_bytes());
        bench.publish("").assert().success();
        assert!(bench.read(".dor/lease.json").is_none());
        bench.write("site/notes/new.txt", b"new");
        bench.alter(".dor/lease.json", b"{");
        let error = String::from_utf8(bench.publish("").output().unwrap().stderr).unwrap();
        assert!(error.contains("lease.json is not a valid lease"), "{error}");
        assert!(bench.read(".dor/lease.json").is_none());
    });
}

#[test]
fn of_two_publishers_one_wins_and_the_other_changes_nothing() {
    on_all(|bench| {
        bench.write_many(100, 20_000);
        let mut two = [(); 2].map(|()| {
            // Each with checksums of its own.
            let state = bench.work.path(&format!("state-{}", rand::random::<u32>()));
            let mut command = bench.publishing("--bwlimit 1M");
            command.env("DOR_STATE_DIR", state).stderr(Stdio::piped()).spawn().unwrap()
        });
        let codes: Vec<_> = two.iter_mut().map(|child| child.wait().unwrap().code()).collect();
        assert!(codes.contains(&Some(0)), "{codes:?}");
        assert!(codes.contains(&Some(INTERRUPTED)), "{codes:?}");
        let sent = bench.server.requests();
        let chunk = sent.iter().filter(|request| request.contains("/many/00/0.bin"));
        assert_eq!(chunk.count(), 1);
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_stop_leaves_what_the_next_run_goes_on_with() {
    on_all(|bench| {
        bench.write_many(300, 20_000);
        let mut child = bench.publishing("--bwlimit 1M").spawn().unwrap();
        let began = Instant::now();
        while bench.published().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is sent");
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED));
        let sent = bench.published().len();
        assert!(sent < 300, "it was not stopped");
        let lease = bench.read(".dor/lease.json").unwrap();
        assert!(String::from_utf8_lossy(&lease).contains(r#""released":true"#));
        let status = || {
            let mut status = dor(bench.work.folder());
            status.envs(bench.server.variables());
            let from = ["publish", "status", &bench.destination(), "--source", "site", "--json"];
            json(status.args(from))
        };
        let left = bench.expected().len() - sent;
        assert_eq!(status()["pending"]["objects"], left);
        assert_eq!(status()["pending"]["arrived_since"], sent);
        let said = lines(&mut bench.publish("--json"));
        assert_eq!(said[0]["plan"]["same"]["objects"], sent);
        assert_eq!(status()["pending"]["objects"], 0);
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn servers_and_disks_are_sources_and_destinations() {
    // Source Cooperative has one product here: no second place.
    on_servers(|bench| {
        let publish = |from: &str, to: &str| {
            let mut command = dor(bench.work.folder());
            command.envs(bench.server.variables()).args(["publish", from, to]);
            command.assert().success();
        };
        let there = bench.destination();
        publish("site", &there);
        let copy = format!("s3://{}/copy", bench.server.bucket());
        publish(&there, &copy);
        publish(&copy, "back");
        let mut back = bench.work.tree("back");
        back.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&bench.expected(), &back);
    });
}

#[test]
fn a_folder_that_became_a_file_is_published_as_one_and_the_other_way_round() {
    on_all(|bench| {
        let publish = |to: &str, more: &str| {
            let mut command = dor(bench.work.folder());
            command.envs(bench.server.variables()).args(["publish", "site", to]);
            command.args(more.split_whitespace());
            command
        };
        bench.write("site/notes/f/deep/x", b"in a folder");
        bench.write("site/notes/g", b"a file");
        // The embedded server keeps the folder of what is deleted.
        let mut to = vec!["disk".to_owned()];
        let keeps_folders = matches!(bench.server, Server::Embedded(_));
        to.extend((!keeps_folders).then(|| bench.destination()));
        to.iter().for_each(|to| drop(publish(to, "").assert().success()));
        fs::remove_dir_all(bench.work.path("site/notes/f")).unwrap();
        fs::remove_file(bench.work.path("site/notes/g")).unwrap();
        bench.write("site/notes/f", b"a file now");
        bench.write("site/notes/g/x", b"in a folder now");
        for to in &to {
            let error = fails(&mut publish(to, ""), CONFIGURATION);
            assert!(error.contains("/notes/") && error.contains("with --delete"), "{error}");
            let said = lines(&mut publish(to, "--delete --verify all --json"));
            let deleted = said.iter().filter_map(|line| line["deleted"]["key"].as_str());
            let deleted: Vec<&str> = deleted.collect();
            assert!(deleted.len() == 2 && deleted.contains(&"notes/g"), "{deleted:?}");
            assert_eq!(said.last().unwrap()["summary"]["deleted"], 2);
        }
        if !keeps_folders {
            assert_same(&bench.expected(), &bench.published());
        }
        let mut disk = bench.work.tree("disk");
        disk.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&bench.expected(), &disk);
    });
}

#[test]
fn on_disk_empty_folders_give_way_and_files_of_others_do_not() {
    let bench = Bench::new(Server::Embedded(S3Server::start()));
    let publish = |more: &str| {
        let mut command = dor(bench.work.folder());
        command.args(["publish", "site", "disk"]).args(more.split_whitespace());
        command
    };
    bench.write("site/x", b"a file");
    bench.write("site/z", b"another");
    fs::create_dir_all(bench.work.path("disk/x/a/b")).unwrap();
    publish("").assert().success();

    // A folder of what was published and of something else.
    fs::remove_file(bench.work.path("site/x")).unwrap();
    bench.write("site/x/1", b"in a folder");
    publish("--delete").assert().success();
    fs::remove_dir_all(bench.work.path("site/x")).unwrap();
    bench.write("site/x", b"a file again");
    bench.write("disk/x/foreign", b"of somebody else");
    let before = bench.work.tree("disk");
    for more in ["--delete --dry-run", "--delete", "--delete --audit"] {
        let error = fails(&mut publish(more), CONFIGURATION);
        assert!(error.contains("disk/x/foreign is in the way of x: "), "{error}");
        assert_same(&before, &bench.work.tree("disk"));
    }
    fs::remove_file(bench.work.path("disk/x/foreign")).unwrap();
    publish("--delete --verify all").assert().success();

    // A file of somebody else where a folder has to be.
    bench.write("site/y/1", b"in a folder");
    bench.write("disk/y", b"of somebody else");
    let error = fails(&mut publish("--delete"), CONFIGURATION);
    assert!(error.contains("disk/y is in the way of y/1: "), "{error}");
    fs::remove_file(bench.work.path("disk/y")).unwrap();
    publish("--delete").assert().success();
    let mut disk = bench.work.tree("disk");
    disk.retain(|name, _| !name.starts_with(".dor/"));
    assert_same(&bench.expected(), &disk);
}
