//! Which objects `dor publish` sends and deletes, and in which order.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails, json};
use super::super::support::s3::S3Server;
use super::{
    CONFIGURATION, Fixture, INTERRUPTED, MAPS, Server, for_each_direct_server, for_each_server,
    json_lines,
};

#[test]
fn data_is_sent_before_the_metadata_that_names_it_and_unchanged_objects_are_not_sent_again() {
    for_each_server(|fixture| {
        let lines = json_lines(&mut fixture.publish("--json --dry-run"));
        let planned = lines[0]["plan"]["send"].as_array().unwrap().clone();
        assert!(!fixture.has_changed_objects());
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
        let requests = fixture.server.requests();
        let folder = format!("PUT /{}/site/", fixture.server.bucket());
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

        // A second publish needs a few requests, none of them for an object.
        fixture.publish("").assert().success();
        let requests = fixture.server.requests();
        assert!(requests.len() <= 8, "{requests:?}");
        fixture.write("site/notes/about.txt", b"ABOUT");
        let lines = json_lines(&mut fixture.publish("--json"));
        assert_eq!(lines[0]["plan"]["changed"]["objects"], 1);
        assert_eq!(lines[1]["sent"]["key"], "notes/about.txt");
        assert_eq!(lines[1]["sent"]["attempts"], 1);
        assert_same(&fixture.expected(), &fixture.published());
        let mut status = dor(fixture.work.folder());
        status.envs(fixture.server.variables());
        let status = json(status.args(["publish", "status", &fixture.destination(), "--json"]));
        assert_eq!(status["published"]["version"], 2);
        assert_eq!(status["published"]["objects"], planned.len());
        assert!(status["published"]["recipes"]["maps.zarr"].is_object());
    });
}

#[test]
fn json_output_has_a_line_for_each_object_as_soon_as_it_is_sent() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        let mut command = fixture.publish_process("--json --concurrency 2 --bwlimit 100k");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().starts_with(r#"{"plan":"#));
        assert!(lines.next().unwrap().unwrap().starts_with(r#"{"sent":{"#));
        assert!(child.try_wait().unwrap().is_none() && fixture.published().len() < 100);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn delete_keeps_foreign_objects_and_cases_that_are_being_converted_again() {
    for_each_server(|fixture| {
        let mut convert = dor(fixture.work.folder());
        convert.args(["research-data", "process-case", "112-04", "-d", "archive"]);
        convert.args(["-o", "site/files", "--allow-missing"]).assert().success();
        fixture.publish("").assert().success();
        fixture.put_object("foreign.txt", b"not ours");
        fs::remove_dir_all(fixture.work.path("site/notes")).unwrap();
        // While a case is converted again, it has no case manifest.
        let case_manifest = fixture.work.path(&format!("{MAPS}/.cases/112-04.json"));
        let aside = fixture.work.path("aside.json");
        fs::rename(&case_manifest, &aside).unwrap();
        let case = fixture.work.path("site/files/112/04");
        fs::rename(case.join("manifest.json"), case.join("manifest.partial.json")).unwrap();
        let before = fixture.published();
        assert!(before.contains_key("files/112/04/manifest.json"));
        fixture.publish("").assert().success();
        assert_same(&before, &fixture.published());
        fixture.server.requests();
        let error = fails(&mut fixture.publish("--delete --max-delete 0"), CONFIGURATION);
        assert!(error.contains("1 object(s)") && error.contains("--max-delete 0"), "{error}");
        assert!(!fixture.has_changed_objects());
        let lines = json_lines(&mut fixture.publish("--delete --json"));
        assert!(lines.iter().any(|line| line["deleted"]["key"].is_string()), "{lines:?}");
        let after = fixture.published();
        assert_eq!(before.len() - 1, after.len());
        assert!(after.contains_key("foreign.txt") && !after.contains_key("notes/about.txt"));
        fs::rename(&aside, &case_manifest).unwrap();
        fs::rename(case.join("manifest.partial.json"), case.join("manifest.json")).unwrap();
        fixture.publish("--delete").assert().success();
        assert_same(&after, &fixture.published());
        // `--delete` cannot be combined with a selection of products.
        fails(&mut fixture.publish("--delete --only store2"), 2);
    });
}

#[test]
fn delete_removes_a_case_whose_folder_was_removed_from_the_source() {
    for_each_server(|fixture| {
        let mut convert = dor(fixture.work.folder());
        convert.args(["research-data", "process-case", "112-04", "-d", "archive"]);
        convert.args(["-o", "site/files", "--allow-missing"]).assert().success();
        fixture.publish("").assert().success();
        let before = fixture.published();
        let of_case = before.keys().filter(|name| name.starts_with("files/112/04/")).count();
        assert!(of_case > 1);
        fs::remove_dir_all(fixture.work.path("site/files/112")).unwrap();
        // Without `--delete` the case stays and is counted as orphaned.
        let lines = json_lines(&mut fixture.publish("--json"));
        assert_eq!(lines[0]["plan"]["orphaned"]["objects"], of_case, "{lines:?}");
        assert_same(&before, &fixture.published());
        fixture.publish("--delete").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn metadata_is_deleted_before_the_data_that_it_names() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        fs::remove_dir_all(fixture.work.path(MAPS)).unwrap();
        fixture.server.requests();
        fixture.publish("--delete").assert().success();
        let requests = fixture.server.requests();
        let folder = format!("DELETE /{}/site/maps.zarr/", fixture.server.bucket());
        let deleted: Vec<&str> = requests.iter().filter_map(|r| r.strip_prefix(&folder)).collect();
        let at = |name: &str| deleted.iter().position(|key| *key == name).unwrap();
        let first_chunk = deleted.iter().position(|key| key.contains("/PH/112.")).unwrap();
        let order =
            [at(".zmetadata"), at(".zgroup"), at("0/.zgroup"), at("0/PH/.zarray"), first_chunk];
        assert!(order.is_sorted(), "{deleted:?}");
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_publish_of_selected_objects_leaves_the_others_as_they_are() {
    for_each_server(|fixture| {
        fixture.publish("--only store2 --cache-control max-age=60").assert().success();
        let maps = fixture.published();
        assert!(maps.keys().all(|key| key.starts_with("maps.zarr/")) && maps.len() > 4);
        fixture.publish("--include notes/** --content-type text/html").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
        let about = format!("PUT /{}/site/notes/about.txt", fixture.server.bucket());
        assert_eq!(fixture.server.content_type(&about).unwrap(), "text/html");
        let zarray = format!("PUT /{}/site/maps.zarr/0/PH/.zarray", fixture.server.bucket());
        assert_eq!(fixture.server.content_type(&zarray).unwrap(), "application/json");
        let lines = json_lines(&mut fixture.publish("--case 112-04 --json"));
        assert_eq!(lines[0]["plan"]["new"]["objects"], 0);
        assert!(lines[0]["plan"]["same"]["objects"].as_u64().unwrap() > 0);
    });
}

#[test]
fn a_valid_lease_of_another_publisher_is_respected_and_an_expired_one_replaced() {
    for_each_server(|fixture| {
        let now = chrono::Utc::now().to_rfc3339();
        let lease = |renewed: &str| {
            let text =
                r#"{"token":"1","host":"elsewhere","process":1,"since":"NOW","renewed":"THEN"}"#;
            text.replace("NOW", &now).replace("THEN", renewed)
        };
        fixture.put_object(".dor/lease.json", lease(&now).as_bytes());
        let error = fails(&mut fixture.publish(""), INTERRUPTED);
        assert!(error.contains("process 1 on elsewhere"), "{error}");
        assert!(fixture.published().is_empty() && !fixture.has_changed_objects());
        fixture.put_object(".dor/lease.json", lease("2020-01-01T00:00:00Z").as_bytes());
        fixture.publish("").assert().success();
        assert!(fixture.get_object(".dor/lease.json").is_none());
        fixture.write("site/notes/new.txt", b"new");
        fixture.put_object(".dor/lease.json", b"{");
        let error = String::from_utf8(fixture.publish("").output().unwrap().stderr).unwrap();
        assert!(error.contains("lease.json is not a valid lease"), "{error}");
        assert!(fixture.get_object(".dor/lease.json").is_none());
    });
}

#[test]
fn of_two_publishers_one_succeeds_and_the_other_changes_nothing() {
    for_each_server(|fixture| {
        fixture.write_many(100, 20_000);
        let mut children = [(); 2].map(|()| {
            // A state folder, and so a checksum cache, for each.
            let state = fixture.work.path(&format!("state-{}", rand::random::<u32>()));
            let mut command = fixture.publish_process("--bwlimit 1M");
            command.env("DOR_STATE_DIR", state).stderr(Stdio::piped()).spawn().unwrap()
        });
        let codes: Vec<_> = children.iter_mut().map(|child| child.wait().unwrap().code()).collect();
        assert!(codes.contains(&Some(0)), "{codes:?}");
        assert!(codes.contains(&Some(INTERRUPTED)), "{codes:?}");
        let sent = fixture.server.requests();
        let chunk = sent.iter().filter(|request| request.contains("/many/00/0.bin"));
        assert_eq!(chunk.count(), 1);
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_stopped_publish_continues_with_the_next_run() {
    for_each_server(|fixture| {
        fixture.write_many(300, 20_000);
        let mut child = fixture.publish_process("--bwlimit 1M").spawn().unwrap();
        let began = Instant::now();
        while fixture.published().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(60), "no object sent after 60 seconds");
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED));
        let sent = fixture.published().len();
        assert!(sent < 300, "the publish ended before the signal");
        let lease = fixture.get_object(".dor/lease.json").unwrap();
        assert!(String::from_utf8_lossy(&lease).contains(r#""released":true"#));
        let status = || {
            let mut status = dor(fixture.work.folder());
            status.envs(fixture.server.variables());
            let from = ["publish", "status", &fixture.destination(), "--source", "site", "--json"];
            json(status.args(from))
        };
        let left = fixture.expected().len() - sent;
        assert_eq!(status()["pending"]["objects"], left);
        assert_eq!(status()["pending"]["arrived_since"], sent);
        let lines = json_lines(&mut fixture.publish("--json"));
        assert_eq!(lines[0]["plan"]["same"]["objects"], sent);
        assert_eq!(status()["pending"]["objects"], 0);
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn sources_and_destinations_can_be_on_servers_and_on_disk() {
    // Not with Source Cooperative: the test proxy has one product, hence no second destination.
    for_each_direct_server(|fixture| {
        let publish = |from: &str, to: &str| {
            let mut command = dor(fixture.work.folder());
            command.envs(fixture.server.variables()).args(["publish", from, to]);
            command.assert().success();
        };
        let destination = fixture.destination();
        publish("site", &destination);
        let copy = format!("s3://{}/copy", fixture.server.bucket());
        publish(&destination, &copy);
        publish(&copy, "back");
        let mut back = fixture.work.tree("back");
        back.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&fixture.expected(), &back);
    });
}

#[test]
fn a_folder_that_became_a_file_and_the_reverse_are_published_with_delete() {
    for_each_server(|fixture| {
        let publish = |to: &str, more: &str| {
            let mut command = dor(fixture.work.folder());
            command.envs(fixture.server.variables()).args(["publish", "site", to]);
            command.args(more.split_whitespace());
            command
        };
        fixture.write("site/notes/f/deep/x", b"in a folder");
        fixture.write("site/notes/g", b"a file");
        // Not on the embedded server, which keeps the folders of deleted objects.
        let mut destinations = vec!["disk".to_owned()];
        let keeps_folders = matches!(fixture.server, Server::Embedded(_));
        destinations.extend((!keeps_folders).then(|| fixture.destination()));
        destinations.iter().for_each(|to| drop(publish(to, "").assert().success()));
        fs::remove_dir_all(fixture.work.path("site/notes/f")).unwrap();
        fs::remove_file(fixture.work.path("site/notes/g")).unwrap();
        fixture.write("site/notes/f", b"a file now");
        fixture.write("site/notes/g/x", b"in a folder now");
        for to in &destinations {
            let error = fails(&mut publish(to, ""), CONFIGURATION);
            assert!(error.contains("/notes/") && error.contains("with --delete"), "{error}");
            let lines = json_lines(&mut publish(to, "--delete --verify all --json"));
            let deleted = lines.iter().filter_map(|line| line["deleted"]["key"].as_str());
            let deleted: Vec<&str> = deleted.collect();
            assert!(deleted.len() == 2 && deleted.contains(&"notes/g"), "{deleted:?}");
            assert_eq!(lines.last().unwrap()["summary"]["deleted"], 2);
        }
        if !keeps_folders {
            assert_same(&fixture.expected(), &fixture.published());
        }
        let mut disk = fixture.work.tree("disk");
        disk.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&fixture.expected(), &disk);
    });
}

#[test]
fn on_disk_empty_folders_are_replaced_and_foreign_files_are_kept() {
    let fixture = Fixture::new(Server::Embedded(S3Server::start()));
    let publish = |more: &str| {
        let mut command = dor(fixture.work.folder());
        command.args(["publish", "site", "disk"]).args(more.split_whitespace());
        command
    };
    fixture.write("site/x", b"a file");
    fixture.write("site/z", b"another");
    fs::create_dir_all(fixture.work.path("disk/x/a/b")).unwrap();
    publish("").assert().success();

    // A folder with a published file and a foreign file must become a file.
    fs::remove_file(fixture.work.path("site/x")).unwrap();
    fixture.write("site/x/1", b"in a folder");
    publish("--delete").assert().success();
    fs::remove_dir_all(fixture.work.path("site/x")).unwrap();
    fixture.write("site/x", b"a file again");
    fixture.write("disk/x/foreign", b"of somebody else");
    let before = fixture.work.tree("disk");
    for more in ["--delete --dry-run", "--delete", "--delete --audit"] {
        let error = fails(&mut publish(more), CONFIGURATION);
        assert!(error.contains("disk/x/foreign is in the way of x: "), "{error}");
        assert_same(&before, &fixture.work.tree("disk"));
    }
    fs::remove_file(fixture.work.path("disk/x/foreign")).unwrap();
    publish("--delete --verify all").assert().success();

    // A foreign file must become a folder.
    fixture.write("site/y/1", b"in a folder");
    fixture.write("disk/y", b"of somebody else");
    let error = fails(&mut publish("--delete"), CONFIGURATION);
    assert!(error.contains("disk/y is in the way of y/1: "), "{error}");
    fs::remove_file(fixture.work.path("disk/y")).unwrap();
    publish("--delete").assert().success();
    let mut disk = fixture.work.tree("disk");
    disk.retain(|name, _| !name.starts_with(".dor/"));
    assert_same(&fixture.expected(), &disk);
}
