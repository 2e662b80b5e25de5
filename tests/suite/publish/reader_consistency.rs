//! Whoever reads the destination meanwhile finds a whole store: the old one or the new one.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::super::support::case::Tree;
use super::{Bench, MAPS, on_all};

const METADATA: &str = "maps.zarr/.zmetadata";

/// Reads consolidated metadata and looks for all chunks of the arrays that it names, again and
/// again until told to stop; the different metadata it has seen.
fn read_until(bench: &Bench, versions: &[&Tree], stop: &AtomicBool) -> BTreeSet<Vec<u8>> {
    let mut seen = BTreeSet::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = bench.store();
    while !stop.load(Ordering::Relaxed) {
        let Some((bytes, _)) = runtime.block_on(store.get(METADATA)).unwrap() else {
            continue;
        };
        let version = versions.iter().find(|version| version[METADATA] == bytes);
        let version = version.expect("metadata that is neither the old nor the new");
        let metadata: Value = serde_json::from_slice(&bytes).unwrap();
        let names = metadata["metadata"].as_object().unwrap().keys();
        let arrays: Vec<_> = names.filter_map(|name| name.strip_suffix(".zarray")).collect();
        assert!(!arrays.is_empty());
        // Before the metadata is replaced, its chunks must all be there; afterwards others count.
        let found = runtime.block_on(store.list("maps.zarr")).unwrap();
        let found: BTreeSet<_> = found.into_iter().map(|object| object.key).collect();
        let again = runtime.block_on(store.get(METADATA)).unwrap().unwrap().0;
        if again == bytes {
            for key in version.keys() {
                let of_array = |array: &&str| key.starts_with(&format!("maps.zarr/{array}"));
                let is_named = arrays.iter().any(of_array);
                assert!(!is_named || found.contains(key), "{key} is named and absent");
            }
        }
        seen.insert(bytes.to_vec());
    }
    seen
}

/// Ends the reader however the test ends: a scope waits for its threads.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_never_sees_metadata_that_names_an_absent_chunk() {
    on_all(|bench| {
        let first = bench.expected();
        bench.make_maps("next.zarr", "PH FG");
        let next = bench.work.path("next.zarr");
        let (site, aside) = (bench.work.path(MAPS), bench.work.path("aside.zarr"));
        fs::rename(&site, &aside).unwrap();
        fs::rename(&next, &site).unwrap();
        let second = bench.expected();
        fs::rename(&site, &next).unwrap();
        fs::rename(&aside, &site).unwrap();
        assert!(first[METADATA] != second[METADATA] && first.len() < second.len());

        let stop = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_until(bench, &[&first, &second], &stop));
            let ends = Ends(&stop);
            let publish = || {
                let mut command = bench.publish("--delete --concurrency 2 --bwlimit 10k");
                command.assert().success();
                std::thread::sleep(Duration::from_millis(300));
            };
            publish();
            // Other variables, and back again: chunks come before they are named and go after.
            for _ in 0..2 {
                fs::rename(&site, &aside).unwrap();
                fs::rename(&next, &site).unwrap();
                publish();
                fs::rename(&site, &next).unwrap();
                fs::rename(&aside, &site).unwrap();
                publish();
            }
            drop(ends);
            reader.join().unwrap()
        });
        assert_eq!(seen.len(), 2, "the reader has seen both");
    });
}
