//! Manifests and intents at a destination that are damaged or hostile: what `dor publish` does with them.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::super::support::case::Workspace;
use super::super::support::dor::{dor, fails};

/// A workspace with the folder `site`, which has one file.
fn workspace() -> Workspace {
    let work = Workspace::empty(b"");
    fs::create_dir(work.path("site")).unwrap();
    fs::write(work.path("site/a"), "x").unwrap();
    work
}

/// The command `dor publish site published` with the additional arguments `more`.
fn publish(work: &Workspace, more: &str) -> assert_cmd::Command {
    let mut command = dor(work.folder());
    command.args(["publish", "site", "published"]).args(more.split_whitespace());
    command
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A compressed manifest with this header and an entry of 8 bytes for each key.
fn gzipped_manifest(header: &serde_json::Value, keys: &[&str]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    writeln!(out, "{header}").unwrap();
    for key in keys {
        writeln!(out, "{}", json!([key, 8, "0".repeat(32)])).unwrap();
    }
    out.finish().unwrap()
}

/// Writes a manifest with these keys to the destination.
fn write_manifest(work: &Workspace, keys: &[&str]) {
    write(
        &work.path("published/.dor/manifest.jsonl.gz"),
        &gzipped_manifest(&header(keys.len()), keys),
    );
}

/// The header of a manifest with this number of objects of 8 bytes.
fn header(objects: usize) -> serde_json::Value {
    json!({
        "format": 3, "part_size": 16 << 20, "version": 1, "published": "2026-01-01T00:00:00Z",
        "program": "dor",
        "source": "x", "recipes": {}, "objects": objects, "bytes": 8 * objects,
    })
}

#[test]
fn delete_keeps_objects_that_dor_never_publishes_even_if_a_manifest_lists_them() {
    let work = workspace();
    let hidden = [".dor/precious", ".git/config", ".profile", "b/.ssh/key", "b/x#1"];
    for name in hidden.into_iter().chain(["b/old"]) {
        write(&work.path(&format!("published/{name}")), b"precious");
    }
    write_manifest(
        &work,
        &[".dor/precious", ".git/config", ".profile", "a", "b/.ssh/key", "b/old"],
    );
    publish(&work, "--delete").assert().success();
    // The same with the intent of an interrupted publish.
    let intent = gzipped_manifest(&header(2), &[".git/config", "b/.ssh/key"]);
    write(&work.path("published/.dor/manifest.next.jsonl.gz"), &intent);
    publish(&work, "--delete").assert().success();
    publish(&work, "--delete --audit").assert().success();
    for name in hidden {
        assert!(work.path(&format!("published/{name}")).exists(), "{name}");
    }
    assert!(!work.path("published/b/old").exists() && work.path("published/a").exists());
}

#[test]
fn an_audit_ignores_invalid_keys_of_a_manifest() {
    let work = workspace();
    write(&work.path("outside"), b"precious");
    let absolute = work.path("outside").display().to_string();
    for odd in ["../outside", &absolute, "b//c", "b/./c", "two\nlines", "b/x#1", ""] {
        let mut keys = [odd, "a", "b/old"];
        keys.sort_unstable();
        write_manifest(&work, &keys);
        write(&work.path("published/b/old"), b"precious");
        let error = fails(&mut publish(&work, "--delete"), 65);
        assert!(error.contains("manifest.jsonl.gz") && error.contains("--audit"), "{error}");
        let output = publish(&work, "--delete --audit").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{odd:?}: {stderr}");
        assert!(stderr.contains("invalid key(s)"), "{odd:?}: {stderr}");
        assert!(!work.path("published/b/old").exists(), "{odd:?}: the valid key is not deleted");
        publish(&work, "--delete").assert().success();
    }
    assert!(work.path("outside").exists());
}

#[test]
fn manifests_and_inputs_of_excessive_size_are_refused_and_named() {
    let work = workspace();
    // 256 MiB of spaces, a few hundred KiB compressed.
    let bomb = {
        let mut out = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..256 {
            out.write_all(&[b' '; 1 << 20]).unwrap();
        }
        out.finish().unwrap()
    };
    for name in ["manifest.jsonl.gz", "manifest.next.jsonl.gz"] {
        let path = work.path("published/.dor").join(name);
        write(&path, &bomb);
        let output = publish(&work, "").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        assert!(code == Some(65) || code == Some(0), "{name}: {code:?} {stderr}");
        if name == "manifest.jsonl.gz" {
            assert!(stderr.contains(name) && stderr.contains("more than"), "{stderr}");
        }
        // A sparse file of 1 TiB.
        write(&path, b"");
        fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let error = fails(&mut publish(&work, ""), 65);
        assert!(error.contains(name) && error.contains("1099511627776"), "{error}");
        fs::remove_dir_all(work.path("published")).unwrap();
    }
    for (name, words) in [("dor.toml", "config show"), ("plan.json", "status --plan plan.json")] {
        fs::File::create(work.path(name)).unwrap().set_len(1 << 40).unwrap();
        let output = dor(work.folder()).args(words.split(' ')).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains(name), "{stderr}");
        fs::remove_file(work.path(name)).unwrap();
    }
}
