//! What `s5cmd sync` does to a destination in odd moments, and that we do not. The binary is
//! looked for in `.venv` (`make test-outside` fills it) and on PATH.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::super::support::case::Tree;
use super::super::support::dor::fails;
use super::super::support::proxy::Fault;
use super::super::support::skipped;
use super::{Bench, CONFIGURATION, Server, on_all};

/// `None`, loudly, when there is none; a failure when `DOR_REQUIRE_S5CMD` is `1`.
fn s5cmd() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(own).chain(std::env::split_paths(&path));
    let found = folders.find(|folder| folder.join("s5cmd").is_file());
    if found.is_none() {
        assert_ne!(std::env::var("DOR_REQUIRE_S5CMD").as_deref(), Ok("1"), "no s5cmd found");
        skipped("no s5cmd in .venv/bin or on PATH; only dor's side of the hazards was tested");
    }
    found.map(|folder| folder.join("s5cmd"))
}

/// That program, where it can write beside our place: not at Source Cooperative, which has one product.
fn peer_of<'a>(bench: &Bench, program: &'a Option<PathBuf>) -> Option<&'a Path> {
    program.as_deref().filter(|_| !matches!(bench.server, Server::SourceCoop { .. }))
}

/// `s5cmd sync` of `site` to a place beside ours.
fn sync(bench: &Bench, program: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.envs(bench.server.variables()).current_dir(bench.work.folder());
    command.env("S3_ENDPOINT_URL", &bench.server.endpoint);
    command.args(["--retry-count", "0", "sync"]).args(more);
    command.arg("site/").arg(format!("s3://{}/peer/", bench.server.bucket()));
    command.output().unwrap()
}

fn peer(bench: &Bench) -> Tree {
    let place = format!("s3://{}/peer", bench.server.bucket()).parse().unwrap();
    let store = bench.server.stores().open(&place).unwrap();
    let read = async {
        let mut tree = Tree::new();
        for object in store.list("").await.unwrap() {
            let (bytes, _) = store.get(&object.key).await.unwrap().unwrap();
            tree.insert(object.key, bytes.to_vec());
        }
        tree
    };
    bench.runtime.block_on(read)
}

/// Fifteen objects in three folders, published with both programs.
fn published(bench: &Bench, program: Option<&Path>) {
    fs::remove_dir_all(bench.work.path("site")).unwrap();
    for folder in ["a", "m", "z"] {
        for n in 0..5 {
            bench.write(&format!("site/{folder}/{n}"), format!("{folder}{n}").as_bytes());
        }
    }
    bench.publish("").assert().success();
    assert_eq!(bench.published().len(), 15);
    if let Some(program) = program {
        assert!(sync(bench, program, &[]).status.success());
        assert_eq!(peer(bench).len(), 15);
    }
    bench.server.requests();
}

#[test]
fn h1_a_dangling_link_deletes_nothing() {
    let program = s5cmd();
    on_all(|bench| {
        let program = peer_of(bench, &program);
        published(bench, program);
        symlink("nowhere", bench.work.path("site/b")).unwrap();
        if let Some(program) = program {
            assert!(sync(bench, program, &["--delete"]).status.success());
            assert!(peer(bench).len() < 15, "s5cmd has lost live objects");
        }
        bench.server.requests();
        let error = fails(&mut bench.publish("--delete"), 65);
        assert!(error.contains("site/b") && error.contains("nowhere"), "{error}");
        assert!(!bench.has_changed_something());
        assert_eq!(bench.published().len(), 15);
    });
}

#[test]
fn h2_a_listing_that_fails_changes_nothing() {
    let program = s5cmd();
    on_all(|bench| {
        let program = peer_of(bench, &program);
        published(bench, program);
        for n in 0..1_500 {
            bench.write(&format!("site/a/page-{n}"), b"page");
        }
        bench.publish("").assert().success();
        if let Some(program) = program {
            assert!(sync(bench, program, &[]).status.success());
        }
        bench.server.fail_when(|asked| {
            let second =
                asked.target.contains("list-type=2") && asked.target.contains("continuation-token");
            second.then_some(Fault::Answer(500, "InternalError"))
        });
        if let Some(program) = program {
            bench.server.requests();
            let output = sync(bench, program, &[]);
            let sent = bench.server.requests().iter().filter(|r| r.starts_with("PUT")).count();
            assert!(output.status.success() && sent > 400, "s5cmd has sent {sent} again");
        }
        bench.server.requests();
        let mut audit = bench.publish("--audit --delete");
        fails(audit.env("DOR_S3_MAX_RETRIES", "1"), 1);
        assert!(!bench.has_changed_something());
    });
}

#[test]
fn h3_other_bytes_of_the_same_size_and_age_are_sent() {
    let program = s5cmd();
    on_all(|bench| {
        let program = peer_of(bench, &program);
        published(bench, program);
        let path = bench.work.path("site/a/0");
        let time = fs::metadata(&path).unwrap().modified().unwrap() - Duration::from_secs(3600);
        fs::write(&path, b"A0").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        if let Some(program) = program {
            assert!(sync(bench, program, &[]).status.success());
            assert_eq!(peer(bench)["a/0"], b"a0", "s5cmd has not seen it");
        }
        bench.publish("").assert().success();
        assert_eq!(bench.published()["a/0"], b"A0");
    });
}

#[test]
fn h4_what_a_pattern_leaves_out_is_not_deleted() {
    let program = s5cmd();
    on_all(|bench| {
        let program = peer_of(bench, &program);
        published(bench, program);
        fs::remove_dir_all(bench.work.path("site/z")).unwrap();
        fs::remove_dir_all(bench.work.path("site/m")).unwrap();
        if let Some(program) = program {
            assert!(sync(bench, program, &["--delete", "--exclude", "z/*"]).status.success());
            assert!(!peer(bench).contains_key("z/0"), "s5cmd has deleted what was left out");
        }
        bench.publish("--delete --exclude z/*").assert().success();
        let there = bench.published();
        assert!(there.contains_key("z/0") && !there.contains_key("m/0"));
        assert_eq!(there.len(), 10);
    });
}

#[test]
fn h5_an_empty_source_deletes_nothing() {
    let program = s5cmd();
    on_all(|bench| {
        let program = peer_of(bench, &program);
        published(bench, program);
        fs::remove_dir_all(bench.work.path("site")).unwrap();
        fs::create_dir(bench.work.path("site")).unwrap();
        if let Some(program) = program {
            assert!(sync(bench, program, &["--delete"]).status.success());
            assert!(peer(bench).is_empty(), "s5cmd has deleted all");
        }
        bench.server.requests();
        let error = fails(&mut bench.publish("--delete"), CONFIGURATION);
        assert!(error.contains("nothing to publish"), "{error}");
        assert!(!bench.has_changed_something());
        assert_eq!(bench.published().len(), 15);
    });
}
