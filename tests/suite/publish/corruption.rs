//! What arrives damaged, or is damaged later, is found and named.

use serde_json::Value;

use super::super::support::case::assert_same;
use super::super::support::dor::fails;
use super::super::support::minio::Minio;
use super::super::support::proxy::{Fault, Proxy};
use super::{Bench, Server, lines, on_all};

#[test]
fn an_etag_of_something_else_is_no_arrival() {
    on_all(|bench| {
        bench.write_large("site/large.nc", 12 << 20);
        let named = |asked: &super::super::support::proxy::Asked<'_>| {
            let about = asked.method == "PUT" && asked.target.ends_with("notes/about.txt");
            about.then_some(Fault::WrongEtag)
        };
        bench.server.fail_when(named);
        let error = fails(&mut bench.publish(""), 1);
        assert!(error.contains("notes/about.txt arrived damaged"), "{error}");
        assert!(
            bench.read("maps.zarr/.zmetadata").is_none()
                && bench.read(".dor/manifest.jsonl.gz").is_none()
        );
        // Once only: it is sent again.
        bench.server.recover();
        let mut wrong = true;
        bench.server.fail_when(move |asked| named(asked).filter(|_| std::mem::take(&mut wrong)));
        bench.publish("").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_bucket_whose_etags_are_no_md5_is_published_to() {
    let Some(minio) = Minio::start() else { return };
    minio.encrypt();
    let proxy = Proxy::before(&minio.endpoint);
    let bench = Bench::new(Server::Minio { minio, proxy });
    bench.write_large("site/large.nc", 12 << 20);
    let said = lines(&mut bench.publish("--json --verify all"));
    let sent = said.iter().find(|line| line["sent"]["key"] == "notes/about.txt").unwrap();
    assert_ne!(sent["sent"]["etag"], sent["sent"]["md5"], "the bucket does not encrypt");
    assert_eq!(said.last().unwrap()["summary"]["retried"], 0);
    assert_same(&bench.expected(), &bench.published());
    bench.server.requests();
    let audited = lines(&mut bench.publish("--json --audit"));
    assert_eq!(audited[0]["plan"]["audit"]["wrong"], Value::Array(Vec::new()));
    assert!(!bench.has_changed_something());
    // Of the same size: only reading tells.
    bench.alter("notes/about.txt", b"ABOUT");
    bench.publish("--audit --verify all").assert().success();
    assert_same(&bench.expected(), &bench.published());
}

#[test]
fn what_was_altered_at_the_destination_is_found_and_mended() {
    on_all(|bench| {
        bench.write_large("site/large.nc", 12 << 20);
        let said = lines(&mut bench.publish("--json --verify all"));
        let etag = |key: &str| {
            let sent = said.iter().find(|line| line["sent"]["key"] == key).unwrap();
            (sent["sent"]["etag"].as_str().unwrap().to_owned(), sent["sent"]["md5"].clone())
        };
        let (about, md5) = etag("notes/about.txt");
        assert_eq!(about, md5.as_str().unwrap());
        assert!(!bench.server.lists_md5() || etag("large.nc").0.ends_with("-3"));
        let verified = &said.last().unwrap()["summary"]["verified"];
        assert_eq!(verified["read"], bench.expected().len());
        assert_eq!(verified["wrong"], Value::Array(Vec::new()));

        let chunk = "maps.zarr/0/PH/112.0.1.3.0.0.0";
        let mut bytes = bench.read(chunk).unwrap();
        bytes[20] ^= 1;
        bench.alter(chunk, &bytes);
        bench.remove("notes/about.txt");
        let failed = bench.publish("--verify all").assert().code(1);
        let said = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
        assert!(said.contains("wrong: maps.zarr/0/PH/112.0.1.3.0.0.0: its MD5 is"), "{said}");
        assert!(said.contains("wrong: notes/about.txt: it is missing"), "{said}");
        let audit = |more: &str| {
            let said = bench.publish(&format!("--audit {more}")).assert().success();
            String::from_utf8_lossy(&said.get_output().stdout).into_owned()
        };
        // The embedded server lists no MD5s.
        let said = audit(if bench.server.lists_md5() { "" } else { "--verify all" });
        assert!(said.contains("1 missing, 1 wrong, 0 not managed by dor"), "{said}");
        assert_same(&bench.expected(), &bench.published());
        // What others have sent otherwise is read; the embedded server tells nothing of it.
        let mut large = bench.read("large.nc").unwrap();
        large[7 << 20] ^= 1;
        bench.alter("large.nc", &large[..]);
        let is_whole = bench.server.lists_md5();
        let said = audit(if is_whole { "" } else { "--verify all" });
        assert!(said.contains("0 missing, 1 wrong"), "{said}");
        assert_same(&bench.expected(), &bench.published());
        let said = audit("");
        let is_by_size = said.contains(" by size only; --verify all reads them)");
        assert!(is_by_size != is_whole && said.contains(", 0 missing, 0 wrong"), "{said}");
    });
}

#[test]
fn an_object_that_cannot_be_read_keeps_nobody_from_the_others() {
    on_all(|bench| {
        bench.publish("").assert().success();
        bench.alter("notes/about.txt", b"About");
        let chunk = "maps.zarr/0/PH/112.0.1.3.0.0.0";
        bench.server.fail_when(move |asked| {
            let is_broken = asked.method == "GET" && asked.target.ends_with(chunk);
            is_broken.then_some(Fault::Answer(500, "InternalError"))
        });
        let mut verify = bench.publish("--verify all");
        let failed = verify.env("DOR_S3_MAX_RETRIES", "1").assert().code(1);
        let said = String::from_utf8_lossy(&failed.get_output().stdout).into_owned();
        assert!(said.contains(&format!("wrong: {chunk}: it cannot be read: ")), "{said}");
        assert!(said.contains("wrong: notes/about.txt: its MD5 is"), "{said}");
        // Whatever a listing tells of it, it is sent again.
        bench.server.recover();
        let mut broken = 2;
        bench.server.fail_when(move |asked| {
            let is_broken = broken > 0 && asked.method == "GET" && asked.target.ends_with(chunk);
            broken -= i32::from(is_broken);
            is_broken.then_some(Fault::Answer(500, "InternalError"))
        });
        bench.server.requests();
        let mut audit = bench.publish("--audit --verify all");
        audit.env("DOR_S3_MAX_RETRIES", "1").assert().success();
        assert!(bench.server.requests().iter().any(|r| r.starts_with("PUT") && r.contains(chunk)));
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn an_audit_sends_what_has_changed_here_whatever_a_listing_tells() {
    on_all(|bench| {
        bench.write_large("site/large.nc", 12 << 20);
        bench.publish("").assert().success();
        bench.write("site/notes/about.txt", b"ABOUT");
        bench.write_large("site/large.nc", 12 << 20);
        bench.publish("--audit").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_damaged_manifest_is_written_anew_by_an_audit() {
    on_all(|bench| {
        bench.publish("").assert().success();
        bench.alter(".dor/manifest.jsonl.gz", b"no gzip");
        let error = fails(&mut bench.publish(""), 65);
        assert!(error.contains("manifest.jsonl.gz is damaged") && error.contains("--audit"));
        bench.publish("--audit").assert().success();
        bench.server.requests();
        bench.publish("").assert().success();
        assert!(!bench.has_changed_something());
    });
}

#[test]
fn what_is_missing_here_and_there_is_no_longer_published() {
    on_all(|bench| {
        bench.write("site/notes/gone.txt", b"gone");
        bench.publish("").assert().success();
        std::fs::remove_file(bench.work.path("site/notes/gone.txt")).unwrap();
        bench.remove("notes/gone.txt");
        bench.publish("--audit").assert().success();
        let said = lines(&mut bench.publish("--json --audit --dry-run"));
        assert_eq!(said[0]["plan"]["audit"]["missing"], Value::Array(Vec::new()));
    });
}
