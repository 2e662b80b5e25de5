//! Publishing: copies a tree of outputs to a destination.
//!
//! A publish sends only objects that are new or have changed. New metadata never names a chunk that has
//! not arrived; a changed chunk replaces the old one at its key. A publish that is stopped or killed can
//! be run again, and loses nothing: docs/publishing.md has what is left by a kill at each step.
//!
//! ```text
//! [lease]      one publisher at a time
//!    |
//! [inventory]  objects of the source: from the records of conversions, else hashed once and kept in
//!    |         [checksum_cache]
//! [manifest]   objects of the last publish. The [destination] is listed where the manifest may be
//!    |         out of date: there is an intent, the lease is dirty, a map store was finalized at
//!    |         the destination, or the user gives --audit or --overwrite
//! [plan]       objects to send and to delete; [guard] refuses to replace a result by a poorer one
//!    |
//! [execute]    intent -> [transfer]: data -> metadata, deepest first -> consolidated metadata
//!              -> manifest -> deletes -> the intent and the lease are removed
//! ```

mod changes;
mod checksum_cache;
mod destination;
mod destination_state;
mod enclosing;
mod error;
mod execute;
mod guard;
mod held_lease;
mod incremental;
mod inventory;
mod lease;
mod limiter;
mod manifest;
mod options;
mod plan;
mod service_limits;
mod transfer;

pub use changes::{ChangeKind, Changes};
pub use destination::{Audit, Mismatch, VerifyScope};
pub use error::PublishError;
pub use execute::{PublishReport, publish};
pub use incremental::IncrementalPublisher;
pub use inventory::Inventory;
pub use lease::Lease;
pub use limiter::Concurrency;
pub use manifest::{Manifest, ManifestHeader};
pub use options::{PublishOptions, Selection, pattern, patterns};
pub use plan::{LeasedPlan, PublishPlan, plan_without_lease, preflight, prepare};
pub use transfer::{SentObject, TransferProgress};

use std::sync::Arc;

use crate::case_manifest::{CASE_MANIFEST, CASES_FOLDER};
use crate::model::{Case, ETag, Md5Digest, Parts};
use crate::store::is_public;

/// An object of a source or a destination: its key, size and checksum.
#[derive(Clone, Debug)]
pub struct ObjectEntry {
    /// Key relative to the source and to the destination; it is the same in both.
    pub key: Box<str>,
    /// Size of the object in bytes.
    pub size: u64,
    /// ETag that S3 computes for these bytes when they are sent in parts of the usual size.
    pub etag: ETag,
    /// MD5 of each part. `None` for an object that is sent in one request, and where the MD5s of
    /// the parts are unknown (entries of a manifest or a listing).
    pub parts: Option<Arc<[Md5Digest]>>,
}

impl ObjectEntry {
    /// The entry of an object with these MD5s.
    pub fn new(key: &str, size: u64, md5: Parts) -> Self {
        let etag = md5.etag();
        let parts = match md5 {
            Parts::One(_) => None,
            Parts::Several(parts) => Some(parts),
        };
        Self { key: key.into(), size, etag, parts }
    }

    /// The entry of an object with these bytes, sent in parts of `part_size` bytes.
    pub fn of(key: &str, bytes: &[u8], part_size: u64) -> Self {
        Self::new(key, bytes.len() as u64, Parts::of(bytes, part_size))
    }
}

/// Compares key, size and ETag. The MD5s of parts are left out: a manifest does not have them.
impl PartialEq for ObjectEntry {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, self.size, self.etag) == (&other.key, other.size, other.etag)
    }
}

impl Eq for ObjectEntry {}

/// Folder at the destination for the lease, the manifest and the intent; never published from a source.
pub const FOLDER: &str = ".dor";

/// Whether `dor publish` sends objects with this key: objects for readers, and the records in the
/// `.cases` folder of a map store, with which a published store is checked, extended and finalized.
pub fn is_publishable(key: &str) -> bool {
    is_public(key) || is_record(key)
}

/// Whether a key is that of the manifest of a case, of research-grade files or in a map store.
fn is_case_manifest(key: &str) -> bool {
    let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
    let is_of_store = folder == CASES_FOLDER || folder.ends_with(&format!("/{CASES_FOLDER}"));
    let case = name.strip_suffix(".json").filter(|_| is_of_store);
    name == CASE_MANIFEST || case.is_some_and(|case| case.parse::<Case>().is_ok())
}

/// Whether a key is that of a record in the `.cases` folder of a map store.
fn is_record(key: &str) -> bool {
    let Some((folder, name)) = key.rsplit_once('/') else { return false };
    let Some(root) = folder.strip_suffix(CASES_FOLDER) else { return false };
    let is_folder_name = root.is_empty() || root.ends_with('/');
    // The folder `.cases` is hidden, so the rest of the key is checked without it.
    is_folder_name && name.ends_with(".json") && is_public(&format!("{root}{name}"))
}

#[cfg(test)]
mod tests {
    use super::is_publishable;

    #[test]
    fn records_of_map_stores_are_the_only_hidden_files_that_are_published() {
        for key in ["a/b.nc", "s/.zattrs", ".cases/112-04.json", "a/s.zarr/.cases/shared.json"] {
            assert!(is_publishable(key), "{key}");
        }
        for key in [
            ".git/config",
            ".cases/x",
            ".cases/.hidden.json",
            ".cases/a/b.json",
            "my.cases/.x/b.json",
            ".git/.cases/b.json",
            ".dor/lease.json",
        ] {
            assert!(!is_publishable(key), "{key}");
        }
    }
}
