//! Checksums that records have: what goes out is compared with them, hashed once, and found again in a
//! listing.

use std::fs;
use std::path::Path;

use dor_atlas::model::Checksums;
use dor_atlas::publish::Manifest;
use serde_json::{Value, json};

use super::super::support::case::assert_same;
use super::super::support::dor::fails;
use super::super::support::minio::Minio;
use super::super::support::proxy::Proxy;
use super::{Bench, PART, Server, lines, on_all, on_servers};

const FOLDER: &str = "site/research/112/04";
const FILE: &str = "research/112/04/a.nc";

/// A file of `size` bytes with the record of its case, which has the MD5s of parts of `part_size`.
fn write_case(bench: &Bench, size: usize, part_size: usize) {
    bench.write_large(&format!("site/{FILE}"), size);
    let bytes = fs::read(bench.work.path("site").join(FILE)).unwrap();
    let mut file = serde_json::to_value(Checksums::of(&bytes, part_size as u64)).unwrap();
    file["key"] = "112/04/a.nc".into();
    let recipe = json!({"product": "research-grade", "version": 1, "grid_sha256": null});
    let record = json!({"format": 2, "recipe": recipe, "part_size": part_size, "files": [file]});
    bench.write(&format!("{FOLDER}/manifest.json"), record.to_string().as_bytes());
}

/// Changes a byte of a file, and leaves its record as it is.
fn damage(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn manifest(bench: &Bench) -> Manifest {
    bench.runtime.block_on(Manifest::load(&bench.store())).unwrap().unwrap()
}

#[test]
fn a_listing_tells_what_a_record_tells_of_objects_in_parts_too() {
    let Some(minio) = Minio::start() else { return };
    let proxy = Proxy::before(&minio.endpoint);
    let bench = Bench::new(Server::Minio { minio, proxy });
    write_case(&bench, 12 << 20, PART);
    bench.write_large("site/large.nc", 12 << 20);
    bench.publish("").assert().success();
    let listed = bench.runtime.block_on(bench.store().list("")).unwrap();
    for entry in &manifest(&bench).entries {
        let found = listed.iter().find(|object| *object.key == *entry.key).unwrap();
        assert_eq!(found.etag.as_deref(), Some(&*entry.etag.to_string()), "{}", entry.key);
        assert_eq!(entry.etag.is_of_parts(), entry.size > PART as u64, "{}", entry.key);
    }
    let audit = |more: &str| lines(&mut bench.publish(more))[0]["plan"]["audit"].clone();
    let audited = audit("--json --audit --dry-run");
    assert_eq!((&audited["by_size"], &audited["wrong"]), (&json!(0), &json!([])));
    // Of the same size and in as many parts, other bytes are seen without a look at them; sent otherwise,
    // they are read.
    for is_in_parts in [true, false] {
        let mut other = bench.read(FILE).unwrap();
        other[7 << 20] ^= 1;
        match is_in_parts {
            false => bench.alter(FILE, &other),
            true => bench.runtime.block_on(async {
                let upload = bench.store().create(FILE).await.unwrap();
                for (index, part) in other.chunks(PART).enumerate() {
                    upload.part(index, vec![part.to_vec().into()]).await.unwrap();
                }
                upload.complete().await.unwrap();
            }),
        }
        bench.server.requests();
        assert_eq!(audit("--json --audit --dry-run")["wrong"], json!([FILE]));
        let is_get = |request: &String| request.starts_with("GET") && request.contains("a.nc");
        assert_eq!(bench.server.requests().iter().any(is_get), !is_in_parts);
        bench.publish("--audit").assert().success();
        assert_same(&bench.expected(), &bench.published());
    }
}

/// Bytes that a process has read from files when it ends.
#[cfg(target_os = "linux")]
fn bytes_read(mut process: std::process::Child) -> u64 {
    let own = Path::new("/proc").join(process.id().to_string());
    let is_over = || {
        let stat = fs::read_to_string(own.join("stat")).unwrap();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    };
    while !is_over() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let io = fs::read_to_string(own.join("io")).unwrap();
    assert!(process.wait().unwrap().success());
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_a_record_is_read_once() {
    on_all(|bench| {
        bench.publish("").assert().success();
        let size = 40 << 20;
        write_case(bench, size, PART);
        let read = bytes_read(bench.publishing("").spawn().unwrap());
        assert!(read > size as u64 && read < size as u64 * 3 / 2, "{read} bytes of {size}");
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn a_part_that_is_not_what_its_record_tells_does_not_go_out() {
    on_all(|bench| {
        write_case(bench, 12 << 20, PART);
        damage(&bench.work.path("site").join(FILE), 7 << 20);
        bench.write("site/other.txt", b"goes nevertheless");
        for destination in ["", "disk"] {
            let mut publish = bench.publish("");
            if !destination.is_empty() {
                publish = super::super::support::dor::dor(bench.work.folder());
                publish.args(["publish", "site", destination]);
                publish.env("DOR_S3_PART_SIZE", PART.to_string());
            }
            let error = fails(&mut publish, 1);
            let said = format!("from byte {PART} on");
            assert!(error.contains(FILE) && error.contains(&said), "{error}");
        }
        assert!(bench.read(FILE).is_none() && !bench.work.path("disk").join(FILE).exists());
        assert!(bench.read("other.txt").is_some() && bench.work.path("disk/other.txt").exists());
        assert!(bench.read("research/112/04/manifest.json").is_none());
        assert_eq!(bench.server.unfinished(FILE), [""; 0]);
    });
}

#[test]
fn another_size_of_parts_is_hashed_and_a_destination_keeps_its_own() {
    on_all(|bench| {
        write_case(bench, 12 << 20, 6 << 20);
        bench.write_large("site/large.nc", 12 << 20);
        bench.publish("").assert().success();
        assert_same(&bench.expected(), &bench.published());
        for key in [FILE, "large.nc"] {
            assert!(manifest(bench).entry(key).unwrap().etag.to_string().ends_with("-3"));
        }
        // By another configuration nothing that is there becomes something else.
        bench.server.requests();
        let mut again = bench.publish("");
        again.env("DOR_S3_PART_SIZE", (6 << 20).to_string()).assert().success();
        assert!(!bench.has_changed_something());
        // What is hashed for that is compared with its record: one that differs stays as it is, and the rest
        // goes on, up to metadata.
        let file = bench.work.path("site").join(FILE);
        let (whole, version) = (fs::read(&file).unwrap(), manifest(bench).header.version);
        let fails_for_it = |name: &str, problem: &str| {
            bench.write(&format!("site/{name}"), b"new");
            bench.write("site/maps/.zattrs", name.as_bytes());
            let error = fails(&mut bench.publish(""), 1);
            let why = format!("does not match its record ({problem})");
            assert!(error.contains(FILE) && error.contains(&why), "{error}");
            assert_eq!(bench.read(FILE).as_ref(), Some(&whole));
            assert!(bench.read(name).is_some() && bench.read("maps/.zattrs").is_none());
            assert_eq!(manifest(bench).header.version, version);
        };
        damage(&file, 7 << 20);
        fails_for_it("a.txt", "the MD5s of its parts differ");
        fs::write(&file, &whole[1..]).unwrap();
        fails_for_it("b.txt", "12582911 bytes, not 12582912");
        fs::remove_file(&file).unwrap();
        fails_for_it("c.txt", "it is missing");
        fs::write(&file, &whole).unwrap();
        bench.publish("").assert().success();
        assert_same(&bench.expected(), &bench.published());
    });
}

#[test]
fn large_objects_elsewhere_pass_in_little_memory() {
    // Source Cooperative has one product here: no second place.
    on_servers(|bench| {
        bench.write_large("site/a.nc", 40 << 20);
        bench.write_large("site/b.nc", 22 << 20);
        let there = bench.destination();
        let copy = format!("s3://{}/copy", bench.server.bucket());
        for (from, to) in [("site", &*there), (&*there, &*copy), (&*copy, "back")] {
            let mut command = super::super::support::dor::dor(bench.work.folder());
            command.envs(bench.server.variables()).args(["publish", from, to]);
            command.env("SLURM_MEM_PER_NODE", "8").assert().success();
        }
        let mut back = bench.work.tree("back");
        back.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&bench.expected(), &back);
    });
}

#[test]
fn records_of_another_form_are_refused_by_name() {
    on_all(|bench| {
        write_case(bench, 100, PART);
        let path = bench.work.path(&format!("{FOLDER}/manifest.json"));
        let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let with = |name: &str, value: Value| {
            let mut record = whole.clone();
            record[name] = value;
            fs::write(&path, record.to_string()).unwrap();
            fails(&mut bench.publish(""), 65)
        };
        let error = with("format", json!(1));
        assert!(error.contains("manifest.json") && error.contains("format 1"), "{error}");
        assert!(error.contains("--force"), "{error}");
        // Parts that the file cannot have.
        let error = with("part_size", json!(0));
        assert!(error.contains("a.nc"), "{error}");
        let mut files = whole["files"].clone();
        files[0]["md5"] = json!([files[0]["md5"], files[0]["md5"]]);
        let error = with("files", files);
        assert!(error.contains("it has 2 MD5s"), "{error}");
    });
}
