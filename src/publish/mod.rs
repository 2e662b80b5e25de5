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

pub use digest::Digest;
pub use error::PublishError;
pub use flow::{Concurrency, Flow};
pub use journal::{Journal, state_folder};
pub use plan::Plan;
pub use prepare::{Options, Prepared, look_at, prepare};
pub use queue::Queue;
pub use run::{Outcome, publish};
pub use transfer::{Progress, Sent};

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
