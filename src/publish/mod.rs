//! Publishing: bringing a tree of outputs to a destination, so that only what changed is sent, its
//! readers never see metadata that names an absent chunk, and nothing is lost whatever stops it.
//!
//! ```text
//! [inventory]  what the source holds: from the records of conversions, else hashed once
//!      |                    [published]  what the destination was given last, [journal] and since
//!      +---------> [plan] <---------+
//!                    |
//!       [claim]  one publisher at a time
//!                    |
//!     [transfer]  chunks and files -> metadata, deepest first -> consolidated metadata
//!                    |           [doubt]  what was written by one whose claim was lost
//!     [published]  the new state, if nobody else wrote one -> deletes
//! ```

mod arrays;
pub mod audit;
mod claim;
mod cleanup;
mod digest;
pub mod doubt;
mod error;
mod flow;
mod hashes;
pub mod inventory;
mod journal;
mod losses;
mod md5_lanes;
mod md5_pair;
pub mod plan;
mod prepare;
pub mod published;
mod queue;
mod run;
pub mod sign;
mod transfer;
pub mod unfinished;
mod worse;

pub use digest::Digest;
pub use error::PublishError;
pub use flow::{Concurrency, Flow};
pub use journal::{Journal, state_folder};
pub use plan::Plan;
pub use prepare::{Options, Prepared, look_at, prepare};
pub use queue::Queue;
pub use run::{Outcome, publish};
pub use transfer::{Progress, Sent};

use crate::ledger::CASES;
use crate::store::is_public;

/// An object with its place below the source and, the same, below the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Place.
    pub key: Box<str>,
    /// Bytes.
    pub size: u64,
    /// MD5 of its bytes.
    pub md5: Digest,
}

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
