//! Publishing: bringing a tree of outputs to a destination, so that only what changed is sent, its
//! readers never see metadata that names an absent chunk, and nothing is lost whatever stops it.
//!
//! ```text
//! [lease]      one publisher at a time
//!    |
//! [inventory]  what the source holds: from the records of conversions, else hashed once ([checksum_cache])
//!    |
//! [manifest]   what the destination was given; [destination] is listed where that is in doubt: there is an
//!    |         intent, the lease is dirty, a store was finalized there, or the user asks
//! [plan]       what is new, changed, gone; [guard] refuses to replace results by poorer ones
//!    |
//! [execute]        the intent -> [transfer]: data -> metadata, deepest first -> consolidated metadata
//!              -> the manifest -> deletes -> the intent and the lease are removed
//! ```

mod changes;
mod checksum_cache;
mod destination;
mod error;
mod execute;
mod guard;
mod incremental;
mod inventory;
mod lease;
mod lease_guard;
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

use crate::case_manifest::CASES;
use crate::model::{ETag, Md5Digest, Parts};
use crate::store::is_public;

/// An object with its place below the source and, the same, below the destination.
#[derive(Clone, Debug)]
pub struct ObjectEntry {
    /// Place.
    pub key: Box<str>,
    /// Size of the object in bytes.
    pub size: u64,
    /// What S3 calls an object of these bytes, sent as this program sends it.
    pub etag: ETag,
    /// MD5 of each part, where it goes in several and the source has told them.
    pub parts: Option<Arc<[Md5Digest]>>,
}

impl ObjectEntry {
    /// Of an object with these MD5s.
    pub fn new(key: &str, size: u64, md5: Parts) -> Self {
        let etag = md5.etag();
        let parts = match md5 {
            Parts::One(_) => None,
            Parts::Several(parts) => Some(parts),
        };
        Self { key: key.into(), size, etag, parts }
    }

    /// Of an object with these bytes, in parts that usually have so many.
    pub fn of(key: &str, bytes: &[u8], part_size: u64) -> Self {
        Self::new(key, bytes.len() as u64, Parts::of(bytes, part_size))
    }
}

/// Whether both are of the same bytes at the same place; manifests do not tell the MD5s of parts.
impl PartialEq for ObjectEntry {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, self.size, self.etag) == (&other.key, other.size, other.etag)
    }
}

impl Eq for ObjectEntry {}

/// Folder at the destination that holds what publishers know of it; never published from a source.
pub const FOLDER: &str = ".dor";

/// Whether a key is one that this program publishes: an object for readers, or the record of a map
/// store, by which a published copy is checked, extended and finalized.
pub fn is_publishable(key: &str) -> bool {
    is_public(key) || is_record(key)
}

/// Whether a key is that of a record in the hidden folder of a map store.
fn is_record(key: &str) -> bool {
    let Some((folder, name)) = key.rsplit_once('/') else { return false };
    let Some(root) = folder.strip_suffix(CASES) else { return false };
    let is_whole = root.is_empty() || root.ends_with('/');
    // A name that is public below the root of the store.
    is_whole && name.ends_with(".json") && is_public(&format!("{root}{name}"))
}

#[cfg(test)]
mod tests {
    use super::is_publishable;

    #[test]
    fn records_of_map_stores_are_published_and_no_other_hidden_file_is() {
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
