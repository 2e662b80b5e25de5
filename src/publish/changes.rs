//! The differences between a source and a destination, and the order in which objects are sent.

use std::collections::BTreeSet;

use super::{ObjectEntry, is_record};

/// Names of Zarr metadata and of case records. Readers find the data through these objects.
const METADATA: [&str; 5] = [".zarray", ".zattrs", ".zgroup", "zarr.json", "manifest.json"];
/// Consolidated Zarr metadata, which readers of a whole hierarchy read first.
const CONSOLIDATED: &str = ".zmetadata";

/// Upload phase of an object, from 0: data first, then metadata from the deepest folder upwards,
/// with the consolidated metadata of a folder after its other metadata. Objects of one phase are
/// sent in any order.
pub fn upload_phase(key: &str) -> u32 {
    /// Keys with more slashes than this count as this deep.
    const DEEPEST: u32 = 64;
    let depth = key.bytes().filter(|&byte| byte == b'/').count().min(DEEPEST as usize) as u32;
    match key.rsplit('/').next().unwrap_or(key) {
        CONSOLIDATED => 2 * (DEEPEST - depth) + 2,
        name if METADATA.contains(&name) || is_record(key) => 2 * (DEEPEST - depth) + 1,
        _ => 0,
    }
}

/// The reason for which an object is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The destination does not have it.
    New,
    /// The destination has it with other bytes.
    Changed,
}

/// The differences between a source and a destination.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Objects to send, ordered by upload phase and then by key.
    pub send: Vec<(ObjectEntry, ChangeKind)>,
    /// Number of objects that are the same in the source and at the destination.
    pub same: usize,
    /// Total size in bytes of the objects that are the same.
    pub same_bytes: u64,
    /// Objects of an earlier publish that the source no longer has: the objects to delete.
    pub deletes: Vec<ObjectEntry>,
}

impl Changes {
    /// Compares the objects of a source with those at the destination, both ordered by key. An
    /// object that only the destination has is to be deleted if `is_in_scope` returns true for its
    /// key.
    pub fn new(
        source: &[ObjectEntry],
        destination: &[ObjectEntry],
        is_in_scope: impl Fn(&str) -> bool,
    ) -> Self {
        let mut changes = Self::default();
        let mut destination = destination.iter().peekable();
        let mut delete = |entry: &ObjectEntry| {
            if is_in_scope(&entry.key) {
                changes.deletes.push(entry.clone());
            }
        };
        for entry in source {
            while let Some(other) = destination.next_if(|other| other.key < entry.key) {
                delete(other);
            }
            let kind = match destination.next_if(|other| other.key == entry.key) {
                None => Some(ChangeKind::New),
                Some(other) => (other != entry).then_some(ChangeKind::Changed),
            };
            match kind {
                Some(kind) => changes.send.push((entry.clone(), kind)),
                None => {
                    changes.same += 1;
                    changes.same_bytes += entry.size;
                }
            }
        }
        destination.for_each(delete);
        changes.send.sort_by_cached_key(|(entry, _)| upload_phase(&entry.key));
        changes
    }

    /// Objects to delete that have the path of a folder that is sent, or lie in a folder with the
    /// path of an object that is sent. On a disk, a file and a folder cannot have the same path.
    pub fn path_conflicts(&self) -> Vec<ObjectEntry> {
        if self.deletes.is_empty() {
            return Vec::new();
        }
        let sent: BTreeSet<&str> = self.send.iter().map(|(entry, _)| &*entry.key).collect();
        let is_conflict = |key: &str| {
            let folder = format!("{key}/");
            let mut below = sent.range(folder.as_str()..);
            below.next().is_some_and(|sent| sent.starts_with(&folder))
                || key.match_indices('/').any(|(end, _)| sent.contains(&key[..end]))
        };
        self.deletes.iter().filter(|entry| is_conflict(&entry.key)).cloned().collect()
    }

    /// Total size in bytes of the objects to send.
    pub fn bytes(&self) -> u64 {
        self.send.iter().map(|(entry, _)| entry.size).sum()
    }

    /// Number and total size in bytes of the objects that are sent for this reason.
    pub fn count(&self, kind: ChangeKind) -> (usize, u64) {
        let selected = self.send.iter().filter(|(_, of_entry)| *of_entry == kind);
        selected.fold((0, 0), |(n, bytes), (entry, _)| (n + 1, bytes + entry.size))
    }

    /// Whether there is nothing to send and nothing to delete.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty() && self.deletes.is_empty()
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
    fn only_differences_are_sent_and_only_keys_in_scope_are_deleted() {
        let source = entries(&[("a", "1"), ("b", "2"), ("d", "4"), ("e", "5")]);
        let before = entries(&[("a", "1"), ("b", "old"), ("c", "3"), ("z", "other")]);
        let changes = Changes::new(&source, &before, |key| key != "z");
        let sent: Vec<_> = changes.send.iter().map(|(e, kind)| (&*e.key, *kind)).collect();
        assert_eq!(
            sent,
            [("b", ChangeKind::Changed), ("d", ChangeKind::New), ("e", ChangeKind::New)]
        );
        assert!(changes.same == 1 && !changes.is_empty() && changes.bytes() == 3);
        assert_eq!(changes.deletes.iter().map(|e| &*e.key).collect::<Vec<_>>(), ["c"]);
        let moved = entries(&[("a", "1"), ("b/y", "2"), ("f", "3"), ("fg", "4")]);
        let before = entries(&[("b", "1"), ("c", "2"), ("f/x", "3"), ("fg0", "4")]);
        let changes = Changes::new(&moved, &before, |_| true);
        let conflicts = changes.path_conflicts();
        assert_eq!(conflicts.iter().map(|e| &*e.key).collect::<Vec<_>>(), ["b", "f/x"]);
    }
}
