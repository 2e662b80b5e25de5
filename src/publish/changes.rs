//! How a source and a destination differ, and the order in which that is mended.

use std::collections::BTreeSet;

use super::{ObjectEntry, is_record};

/// Names of metadata objects of Zarr, and of the records of cases: readers find the rest by them.
const METADATA: [&str; 5] = [".zarray", ".zattrs", ".zgroup", "zarr.json", "manifest.json"];
/// What readers of a whole hierarchy read first.
const CONSOLIDATED: &str = ".zmetadata";

/// When an object is sent, counted from 0: data first, then metadata from the deepest on, then
/// consolidated metadata. What has the same number may be sent in any order.
pub fn upload_phase(key: &str) -> u32 {
    /// Deeper than any key that is published.
    const DEEPEST: u32 = 64;
    let depth = key.bytes().filter(|&byte| byte == b'/').count().min(DEEPEST as usize) as u32;
    match key.rsplit('/').next().unwrap_or(key) {
        CONSOLIDATED => 2 * (DEEPEST - depth) + 2,
        name if METADATA.contains(&name) || is_record(key) => 2 * (DEEPEST - depth) + 1,
        _ => 0,
    }
}

/// Why an object is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was never published.
    New,
    /// It was, with other bytes.
    Changed,
}

/// How a source and a destination differ.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Objects to send, by stage and then by key.
    pub send: Vec<(ObjectEntry, ChangeKind)>,
    /// Objects that are at the destination as they are in the source.
    pub same: usize,
    /// Their bytes.
    pub same_bytes: u64,
    /// Objects that an earlier publish has sent and that the source no longer has.
    pub gone: Vec<ObjectEntry>,
}

impl Changes {
    /// Compares a source with what lies at the destination, both ordered by key. `concerns` tells which of the
    /// keys there the source speaks for.
    pub fn new(
        source: &[ObjectEntry],
        there: &[ObjectEntry],
        concerns: impl Fn(&str) -> bool,
    ) -> Self {
        let mut changes = Self::default();
        let mut there = there.iter().peekable();
        let mut gone = |entry: &ObjectEntry| {
            if concerns(&entry.key) {
                changes.gone.push(entry.clone());
            }
        };
        for entry in source {
            while let Some(other) = there.next_if(|other| other.key < entry.key) {
                gone(other);
            }
            let why = match there.next_if(|other| other.key == entry.key) {
                None => Some(ChangeKind::New),
                Some(other) => (other != entry).then_some(ChangeKind::Changed),
            };
            match why {
                Some(why) => changes.send.push((entry.clone(), why)),
                None => {
                    changes.same += 1;
                    changes.same_bytes += entry.size;
                }
            }
        }
        there.for_each(gone);
        changes.send.sort_by_cached_key(|(entry, _)| upload_phase(&entry.key));
        changes
    }

    /// Objects that are gone because a folder has become a file, or a file a folder: not every
    /// destination can have both.
    pub fn in_the_way(&self) -> Vec<ObjectEntry> {
        if self.gone.is_empty() {
            return Vec::new();
        }
        let sent: BTreeSet<&str> = self.send.iter().map(|(entry, _)| &*entry.key).collect();
        let is_in_the_way = |key: &str| {
            let folder = format!("{key}/");
            let mut below = sent.range(folder.as_str()..);
            below.next().is_some_and(|sent| sent.starts_with(&folder))
                || key.match_indices('/').any(|(end, _)| sent.contains(&key[..end]))
        };
        self.gone.iter().filter(|entry| is_in_the_way(&entry.key)).cloned().collect()
    }

    /// Bytes to send.
    pub fn bytes(&self) -> u64 {
        self.send.iter().map(|(entry, _)| entry.size).sum()
    }

    /// Objects that are new, and their bytes; or those that have changed.
    pub fn count(&self, wanted: ChangeKind) -> (usize, u64) {
        let of = self.send.iter().filter(|(_, why)| *why == wanted);
        of.fold((0, 0), |(n, bytes), (entry, _)| (n + 1, bytes + entry.size))
    }

    /// Whether the destination is as the source is.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty() && self.gone.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: u64 = 16 << 20;

    fn entries(keys: &[(&str, &str)]) -> Vec<ObjectEntry> {
        let entry = |(key, text): &(&str, &str)| ObjectEntry::of(key, text.as_bytes(), PART);
        keys.iter().map(entry).collect()
    }

    #[test]
    fn metadata_comes_after_what_it_names() {
        let mut keys = [
            "s/.zmetadata",
            "s/.zgroup",
            "s/0/.zgroup",
            "s/0/x/.zarray",
            "s/0/x/0",
            "a/b/c.nc",
            "112/04/manifest.json",
            "s/zarr.json",
            "s/.cases/112-04.json",
        ];
        keys.sort_by_key(|key| upload_phase(key));
        assert_eq!(keys[..2], ["s/0/x/0", "a/b/c.nc"]);
        let after = |a: &str, b: &str| assert!(upload_phase(a) > upload_phase(b), "{a} after {b}");
        after("s/0/.zgroup", "s/0/x/.zarray");
        after("s/.zgroup", "s/0/.zgroup");
        after("s/.zmetadata", "s/.zgroup");
        after("s/zarr.json", "s/0/zarr.json");
        after("s/.cases/112-04.json", "s/0/x/0");
    }

    #[test]
    fn only_what_differs_is_sent_and_only_what_was_published_goes() {
        let source = entries(&[("a", "1"), ("b", "2"), ("d", "4"), ("e", "5")]);
        let before = entries(&[("a", "1"), ("b", "old"), ("c", "3"), ("z", "other")]);
        let changes = Changes::new(&source, &before, |key| key != "z");
        let sent: Vec<_> = changes.send.iter().map(|(e, why)| (&*e.key, *why)).collect();
        assert_eq!(
            sent,
            [("b", ChangeKind::Changed), ("d", ChangeKind::New), ("e", ChangeKind::New)]
        );
        assert!(changes.same == 1 && !changes.is_empty() && changes.bytes() == 3);
        assert_eq!(changes.gone.iter().map(|e| &*e.key).collect::<Vec<_>>(), ["c"]);
        let moved = entries(&[("a", "1"), ("b/y", "2"), ("f", "3"), ("fg", "4")]);
        let before = entries(&[("b", "1"), ("c", "2"), ("f/x", "3"), ("fg0", "4")]);
        let changes = Changes::new(&moved, &before, |_| true);
        let in_the_way = changes.in_the_way();
        assert_eq!(in_the_way.iter().map(|e| &*e.key).collect::<Vec<_>>(), ["b", "f/x"]);
    }
}
