//! The checksums of case manifests: `dor publish` compares every byte with them, does not hash a file
//! twice, and compares the ETags of a listing with them.

use std::fs;
use std::path::Path;

use dor_atlas::model::Checksums;
use dor_atlas::publish::Manifest;
use serde_json::{Value, json};

use super::super::support::case::assert_same;
use super::super::support::dor::fails;
use super::super::support::minio::Minio;
use super::super::support::proxy::Proxy;
use super::{Fixture, PART_SIZE, Server, for_each_direct_server, for_each_server, json_lines};

const FOLDER: &str = "site/research/112/04";
const FILE: &str = "research/112/04/a.nc";

/// Writes a file of `size` random bytes, and a case manifest with the MD5s of its parts of `part_size`
/// bytes.
fn write_case(fixture: &Fixture, size: usize, part_size: usize) {
    fixture.write_large(&format!("site/{FILE}"), size);
    let bytes = fs::read(fixture.work.path("site").join(FILE)).unwrap();
    let mut file = serde_json::to_value(Checksums::of(&bytes, part_size as u64)).unwrap();
    file["key"] = "112/04/a.nc".into();
    let recipe = json!({"product": "research-grade", "version": 1, "grid_sha256": null});
    let case_manifest =
        json!({"format": 2, "recipe": recipe, "part_size": part_size, "files": [file]});
    fixture.write(&format!("{FOLDER}/manifest.json"), case_manifest.to_string().as_bytes());
}

/// Flips one bit of the byte at offset `at`. The case manifest does not change.
fn flip_bit(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The manifest at the destination.
fn manifest(fixture: &Fixture) -> Manifest {
    fixture.runtime.block_on(Manifest::load(&fixture.store())).unwrap().unwrap()
}

#[test]
fn an_audit_compares_the_etags_of_a_listing_with_manifests_even_for_multipart_objects() {
    let Some(minio) = Minio::start() else { return };
    let proxy = Proxy::start(&minio.endpoint);
    let fixture = Fixture::new(Server::Minio { minio, proxy });
    write_case(&fixture, 12 << 20, PART_SIZE);
    fixture.write_large("site/large.nc", 12 << 20);
    fixture.publish("").assert().success();
    let listed = fixture.runtime.block_on(fixture.store().list("")).unwrap();
    for entry in &manifest(&fixture).entries {
        let found = listed.iter().find(|object| *object.key == *entry.key).unwrap();
        assert_eq!(found.etag.as_deref(), Some(&*entry.etag.to_string()), "{}", entry.key);
        assert_eq!(entry.etag.is_multipart(), entry.size > PART_SIZE as u64, "{}", entry.key);
    }
    let audit = |more: &str| json_lines(&mut fixture.publish(more))[0]["plan"]["audit"].clone();
    let audited = audit("--json --audit --dry-run");
    assert_eq!((&audited["by_size"], &audited["wrong"]), (&json!(0), &json!([])));
    // Other bytes of the same size: if another program has uploaded them in the same parts, the ETag
    // differs and the audit needs no GET. If it has sent them in one part, the audit reads them.
    for is_in_parts in [true, false] {
        let mut other = fixture.get_object(FILE).unwrap();
        other[7 << 20] ^= 1;
        match is_in_parts {
            false => fixture.put_object(FILE, &other),
            true => fixture.runtime.block_on(async {
                let upload = fixture.store().create(FILE).await.unwrap();
                for (index, part) in other.chunks(PART_SIZE).enumerate() {
                    upload.part(index, vec![part.to_vec().into()]).await.unwrap();
                }
                upload.complete().await.unwrap();
            }),
        }
        fixture.server.requests();
        assert_eq!(audit("--json --audit --dry-run")["wrong"], json!([FILE]));
        let is_get = |request: &String| request.starts_with("GET") && request.contains("a.nc");
        assert_eq!(fixture.server.requests().iter().any(is_get), !is_in_parts);
        fixture.publish("--audit").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    }
}

/// Waits until a process ends; returns how many bytes it has read (`rchar` of `/proc/PID/io`).
#[cfg(target_os = "linux")]
fn bytes_read(mut process: std::process::Child) -> u64 {
    let proc_folder = Path::new("/proc").join(process.id().to_string());
    let is_zombie = || {
        let stat = fs::read_to_string(proc_folder.join("stat")).unwrap();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    };
    // `/proc/PID/io` of a zombie has the final count, and remains until `wait`.
    while !is_zombie() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let io = fs::read_to_string(proc_folder.join("io")).unwrap();
    assert!(process.wait().unwrap().success());
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_with_a_case_manifest_is_read_only_once() {
    for_each_server(|fixture| {
        fixture.publish("").assert().success();
        let size = 40 << 20;
        write_case(fixture, size, PART_SIZE);
        let read = bytes_read(fixture.publish_process("").spawn().unwrap());
        assert!(read > size as u64 && read < size as u64 * 3 / 2, "{read} bytes of {size}");
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn a_part_that_differs_from_its_case_manifest_is_not_sent() {
    for_each_server(|fixture| {
        write_case(fixture, 12 << 20, PART_SIZE);
        flip_bit(&fixture.work.path("site").join(FILE), 7 << 20);
        fixture.write("site/other.txt", b"goes nevertheless");
        for destination in ["", "disk"] {
            let mut publish = fixture.publish("");
            if !destination.is_empty() {
                publish = super::super::support::dor::dor(fixture.work.folder());
                publish.args(["publish", "site", destination]);
                publish.env("DOR_S3_PART_SIZE", PART_SIZE.to_string());
            }
            let error = fails(&mut publish, 1);
            let message = format!("from byte {PART_SIZE} on");
            assert!(error.contains(FILE) && error.contains(&message), "{error}");
        }
        assert!(
            fixture.get_object(FILE).is_none() && !fixture.work.path("disk").join(FILE).exists()
        );
        assert!(
            fixture.get_object("other.txt").is_some()
                && fixture.work.path("disk/other.txt").exists()
        );
        assert!(fixture.get_object("research/112/04/manifest.json").is_none());
        assert_eq!(fixture.server.unfinished(FILE), [""; 0]);
    });
}

#[test]
fn a_destination_keeps_its_part_size_and_files_with_another_part_size_are_hashed() {
    for_each_server(|fixture| {
        write_case(fixture, 12 << 20, 6 << 20);
        fixture.write_large("site/large.nc", 12 << 20);
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
        for key in [FILE, "large.nc"] {
            assert!(manifest(fixture).entry(key).unwrap().etag.to_string().ends_with("-3"));
        }
        // Another `part_size` in the configuration does not make published objects count as changed.
        fixture.server.requests();
        let mut again = fixture.publish("");
        again.env("DOR_S3_PART_SIZE", (6 << 20).to_string()).assert().success();
        assert!(!fixture.has_changed_objects());
        // The hash for the part size of the destination is compared with the case manifest. If they
        // differ, the object stays as it is; other data are sent, metadata and manifest are not.
        let file = fixture.work.path("site").join(FILE);
        let (whole, version) = (fs::read(&file).unwrap(), manifest(fixture).header.version);
        let assert_refused = |name: &str, problem: &str| {
            fixture.write(&format!("site/{name}"), b"new");
            fixture.write("site/maps/.zattrs", name.as_bytes());
            let error = fails(&mut fixture.publish(""), 1);
            let why = format!("does not match its case manifest ({problem})");
            assert!(error.contains(FILE) && error.contains(&why), "{error}");
            assert_eq!(fixture.get_object(FILE).as_ref(), Some(&whole));
            assert!(
                fixture.get_object(name).is_some() && fixture.get_object("maps/.zattrs").is_none()
            );
            assert_eq!(manifest(fixture).header.version, version);
        };
        flip_bit(&file, 7 << 20);
        assert_refused("a.txt", "the MD5s of its parts differ");
        fs::write(&file, &whole[1..]).unwrap();
        assert_refused("b.txt", "12582911 bytes, not 12582912");
        fs::remove_file(&file).unwrap();
        assert_refused("c.txt", "it is missing");
        fs::write(&file, &whole).unwrap();
        fixture.publish("").assert().success();
        assert_same(&fixture.expected(), &fixture.published());
    });
}

#[test]
fn large_objects_of_a_server_are_copied_within_a_small_memory_limit() {
    // Not with Source Cooperative: the test proxy has one product, hence no second destination.
    for_each_direct_server(|fixture| {
        fixture.write_large("site/a.nc", 40 << 20);
        fixture.write_large("site/b.nc", 22 << 20);
        let destination = fixture.destination();
        let copy = format!("s3://{}/copy", fixture.server.bucket());
        for (from, to) in [("site", &*destination), (&*destination, &*copy), (&*copy, "back")] {
            let mut command = super::super::support::dor::dor(fixture.work.folder());
            command.envs(fixture.server.variables()).args(["publish", from, to]);
            // MiB.
            command.env("SLURM_MEM_PER_NODE", "8").assert().success();
        }
        let mut back = fixture.work.tree("back");
        back.retain(|name, _| !name.starts_with(".dor/"));
        assert_same(&fixture.expected(), &back);
    });
}

#[test]
fn an_invalid_case_manifest_is_refused_and_named() {
    for_each_server(|fixture| {
        write_case(fixture, 100, PART_SIZE);
        let path = fixture.work.path(&format!("{FOLDER}/manifest.json"));
        let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let error_with = |name: &str, value: Value| {
            let mut case_manifest = whole.clone();
            case_manifest[name] = value;
            fs::write(&path, case_manifest.to_string()).unwrap();
            fails(&mut fixture.publish(""), 65)
        };
        let error = error_with("format", json!(1));
        assert!(error.contains("manifest.json") && error.contains("format 1"), "{error}");
        assert!(error.contains("--force"), "{error}");
        // A part size and a number of MD5s that the file cannot have.
        let error = error_with("part_size", json!(0));
        assert!(error.contains("a.nc"), "{error}");
        let mut files = whole["files"].clone();
        files[0]["md5"] = json!([files[0]["md5"], files[0]["md5"]]);
        let error = error_with("files", files);
        assert!(error.contains("it has 2 MD5s"), "{error}");
    });
}
