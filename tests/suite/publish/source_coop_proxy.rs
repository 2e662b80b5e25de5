//! Through the proxy that Source Cooperative is made of.

use std::time::{Duration, Instant};

use super::super::support::case::assert_same;
use super::super::support::dor::{dor, fails};
use super::super::support::proxy::Fault;
use super::{Bench, CONFIGURATION, through_source_coop};

/// Names that a signature covers in another way than a form would send them.
const FOLDERS: [&str; 4] = ["a b", "c~d", "e*f", "g+h (é) & i=j"];

/// Files in folders of such names.
fn write_odd_names(bench: &Bench) {
    for folder in FOLDERS {
        for n in 0..15 {
            bench.write(&format!("site/{folder}/deep {folder}/{n} ~*.bin"), &[n; 20_000]);
        }
    }
}

#[test]
fn names_with_spaces_tildes_and_asterisks_are_listed_and_published() {
    let Some(bench) = through_source_coop() else { return };
    write_odd_names(&bench);
    bench.write_large("site/a b/large ~*.nc", 12 << 20);
    bench.publish("").assert().success();
    assert_same(&bench.expected(), &bench.published());
    // A listing of each folder, and no manifest to go by.
    bench.remove(".dor/manifest.jsonl.gz");
    bench.publish("--audit").assert().success();
    std::fs::remove_dir_all(bench.work.path("site/a b")).unwrap();
    bench.publish("--delete --audit --verify all").assert().success();
    assert_same(&bench.expected(), &bench.published());
    bench.server.requests();
    bench.publish("").assert().success();
    assert!(!bench.has_changed_something());
}

#[test]
fn a_publish_that_was_killed_is_resumed_through_it() {
    let Some(bench) = through_source_coop() else { return };
    write_odd_names(&bench);
    bench.write_large("site/c~d/large.nc", 12 << 20);
    let expected = bench.expected();
    for n in 0..4 {
        let mut child = bench.publishing("--concurrency 4 --bwlimit 2M").spawn().unwrap();
        let (began, before) = (Instant::now(), bench.published().len());
        while bench.published().len() == before && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50 + 100 * n));
        }
        let _ = child.kill();
        child.wait().unwrap();
        for (name, bytes) in bench.published() {
            assert!(expected.get(&name) == Some(&bytes), "{name} is not what it should be");
        }
    }
    // From here, and from a machine that knows nothing of it.
    bench.publish("").env("DOR_STATE_DIR", bench.work.path("elsewhere")).assert().success();
    bench.publish("").assert().success();
    assert_same(&expected, &bench.published());
}

#[test]
fn an_unknown_product_is_not_a_bucket_to_be_created() {
    let Some(bench) = through_source_coop() else { return };
    let mut command = dor(bench.work.folder());
    command.envs(bench.server.variables());
    let destination = format!("s3://{}/other/place", bench.server.bucket());
    command.args(["publish", "site", &destination, "--profile", "source-coop"]);
    let said = fails(&mut command, CONFIGURATION);
    assert!(said.contains("no product") && said.contains("/other"), "{said}");
    assert!(!said.contains("create it"), "{said}");
}

#[test]
fn what_it_loses_is_told() {
    let Some(bench) = through_source_coop() else { return };
    bench.write_large("site/large.nc", 12 << 20);
    bench.write("site/50%/x.txt", b"x");
    let mut command = bench.publish("--cache-control max-age=60 --dry-run");
    let done = command.args(["--profile", "source-coop"]).assert().success();
    let said = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    for part in ["Cache-Control of 1 object", "50%/x.txt", "unfinished uploads"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn errors_on_the_way_through_it_are_survived() {
    let Some(bench) = through_source_coop() else { return };
    write_odd_names(&bench);
    let mut served = 0;
    bench.server.fail_when(move |_| {
        served += 1;
        (served % 20 == 0).then_some(Fault::Answer(520, "Unknown"))
    });
    bench.publish("").assert().success();
    assert_same(&bench.expected(), &bench.published());
}
