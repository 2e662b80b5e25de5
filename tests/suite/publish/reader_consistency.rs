//! A reader of the destination always finds a complete store during a publish: the old or the new one.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::super::support::case::Tree;
use super::{Fixture, MAPS, for_each_server};

const METADATA: &str = "maps.zarr/.zmetadata";

/// Reads the consolidated metadata repeatedly until `stop` is set, and panics if a chunk of an array that
/// it names is absent. Returns the different versions of the metadata that it has read.
fn read_until(fixture: &Fixture, versions: &[&Tree], stop: &AtomicBool) -> BTreeSet<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = fixture.store();
    while !stop.load(Ordering::Relaxed) {
        let Some((bytes, _)) = runtime.block_on(store.get(METADATA)).unwrap() else {
            continue;
        };
        let version = versions.iter().find(|version| version[METADATA] == bytes);
        let version = version.expect("the metadata is neither the old nor the new version");
        let metadata: Value = serde_json::from_slice(&bytes).unwrap();
        let names = metadata["metadata"].as_object().unwrap().keys();
        let arrays: Vec<_> = names.filter_map(|name| name.strip_suffix(".zarray")).collect();
        assert!(!arrays.is_empty());
        // If the metadata is still the same after the listing, all of its chunks must be in the listing.
        let found = runtime.block_on(store.list("maps.zarr")).unwrap();
        let found: BTreeSet<_> = found.into_iter().map(|object| object.key).collect();
        let again = runtime.block_on(store.get(METADATA)).unwrap().unwrap().0;
        if again == bytes {
            for key in version.keys() {
                let of_array = |array: &&str| key.starts_with(&format!("maps.zarr/{array}"));
                let is_named = arrays.iter().any(of_array);
                assert!(
                    !is_named || found.contains(key),
                    "the metadata names {key}, which is absent"
                );
            }
        }
        seen.insert(bytes.to_vec());
    }
    seen
}

/// Sets the flag when dropped, also in a panic: the scope waits for the reader thread.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_never_finds_metadata_that_names_an_absent_chunk() {
    for_each_server(|fixture| {
        let first = fixture.expected();
        fixture.create_map_store("next.zarr", "PH FG");
        let next = fixture.work.path("next.zarr");
        let (site, aside) = (fixture.work.path(MAPS), fixture.work.path("aside.zarr"));
        fs::rename(&site, &aside).unwrap();
        fs::rename(&next, &site).unwrap();
        let second = fixture.expected();
        fs::rename(&site, &next).unwrap();
        fs::rename(&aside, &site).unwrap();
        assert!(first[METADATA] != second[METADATA] && first.len() < second.len());

        let stop = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(fixture, &[&first, &second], &stop));
            let stop_on_drop = StopOnDrop(&stop);
            let publish = || {
                // Every second publish goes back to an earlier result.
                let more = "--delete --overwrite --concurrency 2 --bwlimit 10k";
                let mut command = fixture.publish(more);
                command.assert().success();
                std::thread::sleep(Duration::from_millis(300));
            };
            publish();
            // A store with more variables, then the first one again: new chunks must arrive before the
            // metadata that names them, and old ones must be deleted after it.
            for _ in 0..2 {
                fs::rename(&site, &aside).unwrap();
                fs::rename(&next, &site).unwrap();
                publish();
                fs::rename(&site, &next).unwrap();
                fs::rename(&aside, &site).unwrap();
                publish();
            }
            drop(stop_on_drop);
            reader.join().unwrap()
        });
        assert_eq!(seen.len(), 2, "the reader must see both versions");
    });
}
