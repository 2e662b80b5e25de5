//! Publishes through the proxy of Source Cooperative.

use std::time::{Duration, Instant};

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails};
use super::super::support::proxy::Fault;
use super::{CONFIGURATION, Fixture, source_coop_fixture};

/// Names with characters that a signature encodes in another way than an HTML form does.
const FOLDERS: [&str; 4] = ["a b", "c~d", "e*f", "g+h (é) & i=j"];

/// Writes 15 files into each of the folders [`FOLDERS`].
fn write_odd_names(fixture: &Fixture) {
    for folder in FOLDERS {
        for n in 0..15 {
            fixture.write(&format!("site/{folder}/deep {folder}/{n} ~*.bin"), &[n; 20_000]);
        }
    }
}

#[test]
fn names_with_spaces_tildes_and_asterisks_are_listed_and_published() {
    let Some(fixture) = source_coop_fixture() else { return };
    write_odd_names(&fixture);
    fixture.write_large("site/a b/large ~*.nc", 12 << 20);
    fixture.publish("").assert().success();
    assert_same(&fixture.expected(), &fixture.published());
    // Without a manifest, the audit depends on listings of each folder.
    fixture.delete_object(".dor/manifest.jsonl.gz");
    fixture.publish("--audit").assert().success();
    std::fs::remove_dir_all(fixture.work.path("site/a b")).unwrap();
    fixture.publish("--delete --audit --verify all").assert().success();
    assert_same(&fixture.expected(), &fixture.published());
    fixture.server.requests();
    fixture.publish("").assert().success();
    assert!(!fixture.has_changed_objects());
}

#[test]
fn a_killed_publish_is_resumed_through_the_source_coop_proxy() {
    let Some(fixture) = source_coop_fixture() else { return };
    write_odd_names(&fixture);
    fixture.write_large("site/c~d/large.nc", 12 << 20);
    let expected = fixture.expected();
    for n in 0..4 {
        let mut child = fixture.publish_process("--concurrency 4 --bwlimit 2M").spawn().unwrap();
        let (began, before) = (Instant::now(), fixture.published().len());
        while fixture.published().len() == before && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50 + 100 * n));
        }
        let _ = child.kill();
        child.wait().unwrap();
        for (name, bytes) in fixture.published() {
            assert!(expected.get(&name) == Some(&bytes), "{name} differs from the source");
        }
    }
    // First with another state folder, as from another machine, then with that of the killed publishes.
    fixture.publish("").env("DOR_STATE_DIR", fixture.work.path("elsewhere")).assert().success();
    fixture.publish("").assert().success();
    assert_same(&expected, &fixture.published());
}

#[test]
fn an_unknown_product_is_reported_without_advice_to_create_a_bucket() {
    let Some(fixture) = source_coop_fixture() else { return };
    let mut command = dor(fixture.work.folder());
    command.envs(fixture.server.variables());
    let destination = format!("s3://{}/other/place", fixture.server.bucket());
    command.args(["publish", "site", &destination, "--profile", "source-coop"]);
    let error = fails(&mut command, CONFIGURATION);
    assert!(error.contains("no product") && error.contains("/other"), "{error}");
    assert!(!error.contains("create it"), "{error}");
}

#[test]
fn a_publish_warns_about_features_that_the_source_coop_proxy_lacks() {
    let Some(fixture) = source_coop_fixture() else { return };
    fixture.write_large("site/large.nc", 12 << 20);
    fixture.write("site/50%/x.txt", b"x");
    let mut command = fixture.publish("--cache-control max-age=60 --dry-run");
    let output = command.args(["--profile", "source-coop"]).assert().success();
    let stderr = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    for part in ["Cache-Control of 1 object", "50%/x.txt", "unfinished uploads"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn a_publish_succeeds_although_the_source_coop_proxy_sometimes_answers_520() {
    let Some(fixture) = source_coop_fixture() else { return };
    write_odd_names(&fixture);
    let mut served = 0;
    fixture.server.fail_when(move |_| {
        served += 1;
        (served % 20 == 0).then_some(Fault::Answer(520, "Unknown"))
    });
    fixture.publish("").assert().success();
    assert_same(&fixture.expected(), &fixture.published());
}
