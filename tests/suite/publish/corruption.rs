//! `dor publish` detects objects that arrive damaged or are changed at the destination, and names them.

use serde_json::Value;

use super::super::support::case::assert_same;
use super::super::support::dor::fails;
use super::super::support::minio::Minio;
use super::super::support::proxy::{Fault, Proxy, RequestHead};
use super::{Fixture, Server, for_each_server, json_lines};

#[test]
fn an_object_with_a_wrong_etag_counts_as_damaged_and_is_sent_again() {
    for_each_server(|fixture| {
        fixture.write_large("site/large.nc", 12 << 20);
        let wrong_etag = |request: &RequestHead<'_>| {
            let is_put_of_about =
                request.method == "PUT" && request.target.ends_with("notes/about.txt");
            is_put_of_about.then_some(Fault::WrongEtag)
        };
        fixture.server.fail_when(wrong_etag);
        let error = fails(&mut fixture.publish(""), 1);
        assert!(error.contains("notes/about.txt arrived damaged"), "{error}");
        assert!(
            fixture.get_object("maps.zarr/.zmetadata").is_none()
                && fixture.get_object(".dor/manifest.jsonl.gz").is_none()
        );
        // With one wrong ETag only, the second attempt succeeds.
        fixture.server.recover();
        let mut is_first = true;
        fixture.server.fail_when(move |request| {
            wrong_etag(request).filter(|_| std::mem::take(&mut is_first))
        });
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_publish_to_a_bucket_whose_etags_are_no_md5s_verifies_and_repairs_objects() {
    let Some(minio) = Minio::start() else { return };
    minio.encrypt();
    let proxy = Proxy::start(&minio.endpoint);
    let fixture = Fixture::new(Server::Minio { minio, proxy });
    fixture.write_large("site/large.nc", 12 << 20);
    let lines = json_lines(&mut fixture.publish("--json --verify all"));
    let sent = lines.iter().find(|line| line["sent"]["key"] == "notes/about.txt").unwrap();
    assert_ne!(
        sent["sent"]["etag"], sent["sent"]["md5"],
        "the ETag is an MD5: the bucket does not encrypt"
    );
    assert_eq!(lines.last().unwrap()["summary"]["retried"], 0);
    assert_same(&fixture.expected(), &fixture.published());
    fixture.server.requests();
    let audited = json_lines(&mut fixture.publish("--json --audit"));
    assert_eq!(audited[0]["plan"]["audit"]["wrong"], Value::Array(Vec::new()));
    assert!(!fixture.has_changed_objects());
    // Other bytes of the same size are found only if the object is read.
    fixture.put_object("notes/about.txt", b"ABOUT");
    fixture.publish("--audit --verify all").assert().success();
    assert_same(&fixture.expected(), &fixture.published());
}

#[test]
fn verify_and_audit_find_objects_changed_at_the_destination_and_audit_repairs_them() {
    for_each_server(|fixture| {
        fixture.write_large("site/large.nc", 12 << 20);
        let lines = json_lines(&mut fixture.publish("--json --verify all"));
        let etag = |key: &str| {
            let sent = lines.iter().find(|line| line["sent"]["key"] == key).unwrap();
            (sent["sent"]["etag"].as_str().unwrap().to_owned(), sent["sent"]["md5"].clone())
        };
        let (about, md5) = etag("notes/about.txt");
        assert_eq!(about, md5.as_str().unwrap());
        assert!(!fixture.server.lists_md5() || etag("large.nc").0.ends_with("-3"));
        let verified = &lines.last().unwrap()["summary"]["verified"];
        assert_eq!(verified["read"], fixture.expected().len());
        assert_eq!(verified["wrong"], Value::Array(Vec::new()));

        let chunk = "maps.zarr/0/PH/112.0.1.3.0.0.0";
        let mut bytes = fixture.get_object(chunk).unwrap();
        bytes[20] ^= 1;
        fixture.put_object(chunk, &bytes);
        fixture.delete_object("notes/about.txt");
        let failed = fixture.publish("--verify all").assert().code(1);
        let stdout = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
        assert!(stdout.contains("wrong: maps.zarr/0/PH/112.0.1.3.0.0.0: its MD5 is"), "{stdout}");
        assert!(stdout.contains("wrong: notes/about.txt: it is missing"), "{stdout}");
        let audit = |more: &str| {
            let output = fixture.publish(&format!("--audit {more}")).assert().success();
            String::from_utf8_lossy(&output.get_output().stdout).into_owned()
        };
        // The listings of the embedded server have no MD5s: the audit has to read the objects.
        let stdout = audit(if fixture.server.lists_md5() { "" } else { "--verify all" });
        assert!(stdout.contains("1 missing, 1 wrong, 0 not managed by dor"), "{stdout}");
        assert_same(&fixture.expected(), &fixture.published());
        // An object that another program has sent in one part, not in parts, has no comparable ETag. The
        // audit reads it. On the embedded server it does so only with `--verify all`.
        let mut large = fixture.get_object("large.nc").unwrap();
        large[7 << 20] ^= 1;
        fixture.put_object("large.nc", &large[..]);
        let lists_md5 = fixture.server.lists_md5();
        let stdout = audit(if lists_md5 { "" } else { "--verify all" });
        assert!(stdout.contains("0 missing, 1 wrong"), "{stdout}");
        assert_same(&fixture.expected(), &fixture.published());
        let stdout = audit("");
        let is_by_size = stdout.contains(" by size only; --verify all reads them)");
        assert!(is_by_size != lists_md5 && stdout.contains(", 0 missing, 0 wrong"), "{stdout}");
    });
}

#[test]
fn verify_reports_an_unreadable_object_and_continues_and_audit_sends_it_again() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        fixture.put_object("notes/about.txt", b"About");
        let chunk = "maps.zarr/0/PH/112.0.1.3.0.0.0";
        fixture.server.fail_when(move |request| {
            let is_broken = request.method == "GET" && request.target.ends_with(chunk);
            is_broken.then_some(Fault::Answer(500, "InternalError"))
        });
        let mut verify = fixture.publish("--verify all");
        let failed = verify.env("DOR_S3_MAX_RETRIES", "1").assert().code(1);
        let stdout = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
        assert!(stdout.contains(&format!("wrong: {chunk}: it cannot be read: ")), "{stdout}");
        assert!(stdout.contains("wrong: notes/about.txt: its MD5 is"), "{stdout}");
        // An audit sends the unreadable chunk again, even though its ETag in the listing is right.
        fixture.server.recover();
        let mut failures_left = 2;
        fixture.server.fail_when(move |request| {
            let is_broken =
                failures_left > 0 && request.method == "GET" && request.target.ends_with(chunk);
            failures_left -= i32::from(is_broken);
            is_broken.then_some(Fault::Answer(500, "InternalError"))
        });
        fixture.server.requests();
        let mut audit = fixture.publish("--audit --verify all");
        audit.env("DOR_S3_MAX_RETRIES", "1").assert().success();
        assert!(
            fixture.server.requests().iter().any(|r| r.starts_with("PUT") && r.contains(chunk))
        );
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn an_audit_sends_files_that_changed_in_the_source_since_the_last_publish() {
    for_each_server(|fixture| {
        fixture.write_large("site/large.nc", 12 << 20);
        fixture.publish("").assert().success();
        fixture.write("site/notes/about.txt", b"ABOUT");
        fixture.write_large("site/large.nc", 12 << 20);
        fixture.publish("--audit").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn an_audit_replaces_a_damaged_manifest() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        fixture.put_object(".dor/manifest.jsonl.gz", b"no gzip");
        let error = fails(&mut fixture.publish(""), 65);
        assert!(error.contains("manifest.jsonl.gz is damaged") && error.contains("--audit"));
        fixture.publish("--audit").assert().success();
        fixture.server.requests();
        fixture.publish("").assert().success();
        assert!(!fixture.has_changed_objects());
    });
}

#[test]
fn an_audit_drops_objects_missing_in_source_and_destination_from_the_manifest() {
    for_each_server(|fixture| {
        fixture.write("site/notes/gone.txt", b"gone");
        fixture.publish("").assert().success();
        std::fs::remove_file(fixture.work.path("site/notes/gone.txt")).unwrap();
        fixture.delete_object("notes/gone.txt");
        fixture.publish("--audit").assert().success();
        let lines = json_lines(&mut fixture.publish("--json --audit --dry-run"));
        assert_eq!(lines[0]["plan"]["audit"]["missing"], Value::Array(Vec::new()));
    });
}
