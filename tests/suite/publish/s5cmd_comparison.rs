//! Situations in which `s5cmd sync` damages a destination and `dor publish` does not. The `s5cmd` binary is
//! looked for in `.venv/bin` (`make test-outside` installs it published) and on PATH.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use super::super::support::case::Tree;
use super::super::support::dor::fails;
use super::super::support::proxy::Fault;
use super::super::support::skipped;
use super::{CONFIGURATION, Fixture, Server, for_each_server};

/// The path of `s5cmd`. Without it, prints `SKIPPED` and returns `None`, or panics if `DOR_REQUIRE_S5CMD`
/// is `1`.
fn s5cmd() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::iter::once(venv).chain(std::env::split_paths(&path));
    let found = folders.find(|folder| folder.join("s5cmd").is_file());
    if found.is_none() {
        assert_ne!(std::env::var("DOR_REQUIRE_S5CMD").as_deref(), Ok("1"), "no s5cmd found");
        skipped("no s5cmd in .venv/bin or on PATH; only dor was tested");
    }
    found.map(|folder| folder.join("s5cmd"))
}

/// `s5cmd`, if the server of the fixture has room for a second destination. Source Cooperative, with its one
/// product, has not.
fn s5cmd_for<'a>(fixture: &Fixture, program: &'a Option<PathBuf>) -> Option<&'a Path> {
    program.as_deref().filter(|_| !matches!(fixture.server, Server::SourceCoop { .. }))
}

/// Runs `s5cmd sync` of `site` to the destination `peer`, beside that of `dor`.
fn s5cmd_sync(fixture: &Fixture, program: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.envs(fixture.server.variables()).current_dir(fixture.work.folder());
    command.env("S3_ENDPOINT_URL", &fixture.server.endpoint);
    command.args(["--retry-count", "0", "sync"]).args(more);
    command.arg("site/").arg(format!("s3://{}/peer/", fixture.server.bucket()));
    command.output().unwrap()
}

/// All objects at the destination of `s5cmd`.
fn s5cmd_tree(fixture: &Fixture) -> Tree {
    let location = format!("s3://{}/peer", fixture.server.bucket()).parse().unwrap();
    let store = fixture.server.stores().open(&location).unwrap();
    let read = async {
        let mut tree = Tree::new();
        for object in store.list("").await.unwrap() {
            let (bytes, _) = store.get(&object.key).await.unwrap().unwrap();
            tree.insert(object.key, bytes.to_vec());
        }
        tree
    };
    fixture.runtime.block_on(read)
}

/// Publishes fifteen objects in three folders with both programs.
fn publish_with_both(fixture: &Fixture, program: Option<&Path>) {
    fs::remove_dir_all(fixture.work.path("site")).unwrap();
    for folder in ["a", "m", "z"] {
        for n in 0..5 {
            fixture.write(&format!("site/{folder}/{n}"), format!("{folder}{n}").as_bytes());
        }
    }
    fixture.publish("").assert().success();
    assert_eq!(fixture.published().len(), 15);
    if let Some(program) = program {
        assert!(s5cmd_sync(fixture, program, &[]).status.success());
        assert_eq!(s5cmd_tree(fixture).len(), 15);
    }
    fixture.server.requests();
}

#[test]
fn a_dangling_link_in_the_source_deletes_nothing() {
    let program = s5cmd();
    for_each_server(|fixture| {
        let program = s5cmd_for(fixture, &program);
        publish_with_both(fixture, program);
        symlink("nowhere", fixture.work.path("site/b")).unwrap();
        if let Some(program) = program {
            assert!(s5cmd_sync(fixture, program, &["--delete"]).status.success());
            assert!(
                s5cmd_tree(fixture).len() < 15,
                "s5cmd is expected to delete objects that the source has"
            );
        }
        fixture.server.requests();
        let error = fails(&mut fixture.publish("--delete"), 65);
        assert!(error.contains("site/b") && error.contains("nowhere"), "{error}");
        assert!(!fixture.has_changed_objects());
        assert_eq!(fixture.published().len(), 15);
    });
}

#[test]
fn a_failed_listing_page_changes_nothing() {
    let program = s5cmd();
    for_each_server(|fixture| {
        let program = s5cmd_for(fixture, &program);
        publish_with_both(fixture, program);
        for n in 0..1_500 {
            fixture.write(&format!("site/a/page-{n}"), b"page");
        }
        fixture.publish("").assert().success();
        if let Some(program) = program {
            assert!(s5cmd_sync(fixture, program, &[]).status.success());
        }
        fixture.server.fail_when(|request| {
            let is_second_page = request.target.contains("list-type=2")
                && request.target.contains("continuation-token");
            is_second_page.then_some(Fault::Answer(500, "InternalError"))
        });
        if let Some(program) = program {
            fixture.server.requests();
            let output = s5cmd_sync(fixture, program, &[]);
            let sent = fixture.server.requests().iter().filter(|r| r.starts_with("PUT")).count();
            assert!(
                output.status.success() && sent > 400,
                "s5cmd is expected to send objects again, and sent {sent}"
            );
        }
        fixture.server.requests();
        let mut audit = fixture.publish("--audit --delete");
        fails(audit.env("DOR_S3_MAX_RETRIES", "1"), 1);
        assert!(!fixture.has_changed_objects());
    });
}

#[test]
fn changed_bytes_are_sent_although_size_and_modification_time_suggest_no_change() {
    let program = s5cmd();
    for_each_server(|fixture| {
        let program = s5cmd_for(fixture, &program);
        publish_with_both(fixture, program);
        let path = fixture.work.path("site/a/0");
        let time = fs::metadata(&path).unwrap().modified().unwrap() - Duration::from_secs(3600);
        fs::write(&path, b"A0").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        if let Some(program) = program {
            assert!(s5cmd_sync(fixture, program, &[]).status.success());
            assert_eq!(s5cmd_tree(fixture)["a/0"], b"a0", "s5cmd is expected to miss the change");
        }
        fixture.publish("").assert().success();
        assert_eq!(fixture.published()["a/0"], b"A0");
    });
}

#[test]
fn delete_keeps_objects_that_a_pattern_excludes() {
    let program = s5cmd();
    for_each_server(|fixture| {
        let program = s5cmd_for(fixture, &program);
        publish_with_both(fixture, program);
        fs::remove_dir_all(fixture.work.path("site/z")).unwrap();
        fs::remove_dir_all(fixture.work.path("site/m")).unwrap();
        if let Some(program) = program {
            assert!(
                s5cmd_sync(fixture, program, &["--delete", "--exclude", "z/*"]).status.success()
            );
            assert!(
                !s5cmd_tree(fixture).contains_key("z/0"),
                "s5cmd is expected to delete excluded objects"
            );
        }
        fixture.publish("--delete --exclude z/*").assert().success();
        let published = fixture.published();
        assert!(published.contains_key("z/0") && !published.contains_key("m/0"));
        assert_eq!(published.len(), 10);
    });
}

#[test]
fn an_empty_source_deletes_nothing() {
    let program = s5cmd();
    for_each_server(|fixture| {
        let program = s5cmd_for(fixture, &program);
        publish_with_both(fixture, program);
        fs::remove_dir_all(fixture.work.path("site")).unwrap();
        fs::create_dir(fixture.work.path("site")).unwrap();
        if let Some(program) = program {
            assert!(s5cmd_sync(fixture, program, &["--delete"]).status.success());
            assert!(s5cmd_tree(fixture).is_empty(), "s5cmd is expected to delete all objects");
        }
        fixture.server.requests();
        let error = fails(&mut fixture.publish("--delete"), CONFIGURATION);
        assert!(error.contains("nothing to publish"), "{error}");
        assert!(!fixture.has_changed_objects());
        assert_eq!(fixture.published().len(), 15);
    });
}
