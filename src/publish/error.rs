//! What can go wrong with publishing.

use tokio::task::JoinError;

use crate::executor::{PoolError, Stopped};
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::store::StoreError;

/// Publishing failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// What is published has more than the source.
    #[error("{url} has {what}, which the source lacks; check the source, or {advice}")]
    Loses {
        /// What is published.
        url: String,
        /// What would be lost.
        what: String,
        /// How to lose it all the same.
        advice: &'static str,
    },
    /// A store of another kind is published there.
    #[error(
        "{url} holds {found}, the source {wanted}: one never replaces the other; give another place"
    )]
    OtherKind {
        /// The store at the destination, which stays as it is.
        url: String,
        /// What is there.
        found: String,
        /// What would replace it.
        wanted: String,
    },
    /// A store would lie among other things, or in another store.
    #[error(
        "{url} holds {other}, which is no part of what would be published there; give another place"
    )]
    Among {
        /// The place in the destination that the store would take.
        url: String,
        /// What is there.
        other: String,
    },
    /// A map store was changed where it is published.
    #[error(
        "the map store at {url} was finalized there since it was published: {difference}; do the same to the source, or replace the store with --overwrite"
    )]
    Extended {
        /// The store.
        url: String,
        /// How it differs from the source.
        difference: String,
    },
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing to publish: more likely a wrong location than what was meant.
    #[error("{url} has nothing to publish{why}; give the folder of a tree of outputs")]
    Empty {
        /// The source.
        url: String,
        /// What is there, and why it does not count.
        why: String,
    },
    /// A case that was asked for is not there.
    #[error("{url} has no complete case {}; make it first, or check --case", .case.short())]
    NoCase {
        /// The source.
        url: String,
        /// The case.
        case: Case,
    },
    /// A record of a conversion is none.
    #[error(
        "{url} is not a record of this program ({source}); make what it belongs to again with --force"
    )]
    Record {
        /// Object.
        url: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// A map store whose shared parts are not up to date.
    #[error("{url} is not finished: {problem}; run `dor vis finalize {url}`")]
    Unfinished {
        /// Store.
        url: String,
        /// What is missing.
        problem: String,
    },
    /// A file is another than the one that is recorded.
    #[error(
        "{url} is not what its record tells ({problem}): it was changed since; run again, or, where dor made it, make it again"
    )]
    NotAsRecorded {
        /// Object.
        url: String,
        /// How it differs.
        problem: String,
    },
    /// What arrived is not what was sent.
    #[error("{url} arrived damaged: the server has {found}, it was sent {sent}")]
    Damaged {
        /// Object at the destination.
        url: String,
        /// ETag that the server told.
        found: String,
        /// MD5 or ETag of what was sent.
        sent: String,
    },
    /// Somebody else publishes.
    #[error(
        "{url} is being published to by {who}; wait until that has ended, or end it (what dies on another machine is taken over after {minutes} min)"
    )]
    Busy {
        /// The destination.
        url: String,
        /// Process and host, since when.
        who: String,
        /// Minutes without a sign of life.
        minutes: u64,
    },
    /// What publishers keep at the destination cannot be read.
    #[error(
        "{url} is damaged: {problem}; publish with --audit, which compares with what is there and writes it anew"
    )]
    Manifest {
        /// Object.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Somebody else has published meanwhile.
    #[error("{url} was published to by somebody else meanwhile; run again")]
    ManifestConflict {
        /// The destination.
        url: String,
    },
    /// The lease was taken over, or removed, while this publisher worked.
    #[error(
        "the lease on {url} is lost: another publisher took it over, it was removed, or it could not be renewed; {}",
        after_loss(*is_marked)
    )]
    LeaseLost {
        /// The destination.
        url: String,
        /// Whether the next publisher hears of it, where anything was changed.
        is_marked: bool,
    },
    /// A publisher that had lost its lease has changed objects meanwhile.
    #[error(
        "another publisher, which had lost its lease on {url}, changed {objects} object(s) while this one published; run again: they are sent again"
    )]
    ConcurrentWrite {
        /// The destination.
        url: String,
        /// How many objects.
        objects: usize,
    },
    /// More deletes than are allowed.
    #[error(
        "{count} of the objects at {url} would be deleted, more than --max-delete {allowed}, the first of them: {}; nothing was changed", .keys.join(", ")
    )]
    TooManyDeletes {
        /// The destination.
        url: String,
        /// How many.
        count: usize,
        /// The first of them.
        keys: Vec<String>,
        /// How many are allowed.
        allowed: usize,
    },
    /// Deletes at a destination that has nothing of the source: more likely a wrong location.
    #[error(
        "{source_url} has none of the objects that are published at {url}, the last time from {before}: --delete would remove {count} of them, the first of them {first}; check both places, or add --overwrite if all of that is to be replaced; nothing was changed"
    )]
    Unrelated {
        /// What was to be published.
        source_url: String,
        /// The destination.
        url: String,
        /// Source of the last publish.
        before: String,
        /// How many objects would go.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// A folder has become a file, or a file a folder.
    #[error(
        "{url} is in the way: in the source, a folder has become a file or a file a folder; publish with --delete"
    )]
    InTheWay {
        /// Object at the destination.
        url: String,
    },
    /// A file at the destination, on disk, of which a folder has to be made or that is in one of the
    /// object's name.
    #[error(
        "{url} is in the way of {key}: where an interrupted publish has sent it, publish with --delete; else move it away"
    )]
    Obstacle {
        /// The file.
        url: String,
        /// Key of the object that cannot be written.
        key: String,
    },
    /// Source and destination are the same or within each other.
    #[error(
        "{source_url} and {destination} are the same place, or one lies within the other; give another destination"
    )]
    OverlappingLocations {
        /// The source.
        source_url: String,
        /// The destination.
        destination: String,
    },
    /// Some objects could not be sent: what depends on them was not sent either.
    #[error(
        "{failed} of {total} objects were not sent, nor any metadata that names them; run again when what failed is mended"
    )]
    SomeFailed {
        /// Objects that failed.
        failed: usize,
        /// Objects that were to be sent.
        total: usize,
    },
    /// One object after another could not be sent, for as long as each was tried.
    #[error(
        "{failed} objects were not sent, nor any metadata that names them, and no more are tried, for the server takes none: {source}; see that it is up, and run again"
    )]
    ServerUnavailable {
        /// Objects that failed.
        failed: usize,
        /// What the last one came to.
        source: Box<StoreError>,
    },
    /// Objects at the destination are not what was published.
    #[error(
        "{count} of the {looked_at} objects that were read again are wrong at {url}; publish with --audit --verify all to mend them"
    )]
    NotVerified {
        /// The destination.
        url: String,
        /// How many are wrong.
        count: usize,
        /// How many were read.
        looked_at: usize,
    },
    /// The local cache of checksums cannot be kept.
    #[error("cannot keep {path}: {source}; set DOR_STATE_DIR to a folder that can be written")]
    Cache {
        /// File.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// Patterns are too many, or too large together.
    #[error("--include or --exclude cannot be used: {0}; give fewer or simpler patterns")]
    Pattern(#[from] globset::Error),
    /// Work was not done.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Told to stop.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<JoinError> for PublishError {
    fn from(error: JoinError) -> Self {
        PoolError::from(error).into()
    }
}

impl WithErrorKind for PublishError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Stopped(_)
            | Self::Busy { .. }
            | Self::ManifestConflict { .. }
            | Self::LeaseLost { .. }
            | Self::ConcurrentWrite { .. } => ErrorKind::Interrupted,
            Self::Empty { .. }
            | Self::NoCase { .. }
            | Self::Unfinished { .. }
            | Self::Extended { .. }
            | Self::Loses { .. }
            | Self::OtherKind { .. }
            | Self::Among { .. }
            | Self::TooManyDeletes { .. }
            | Self::Unrelated { .. }
            | Self::InTheWay { .. }
            | Self::Obstacle { .. }
            | Self::OverlappingLocations { .. }
            | Self::Cache { .. }
            | Self::Pattern(_) => ErrorKind::Config,
            Self::Record { .. } | Self::Manifest { .. } => ErrorKind::BadData,
            Self::Pool(error) => error.kind(),
            Self::NotAsRecorded { .. }
            | Self::Damaged { .. }
            | Self::SomeFailed { .. }
            | Self::ServerUnavailable { .. }
            | Self::NotVerified { .. } => ErrorKind::Transient,
        }
    }
}

/// What to do when a lease is lost.
fn after_loss(is_marked: bool) -> &'static str {
    match is_marked {
        true => "when the other has ended, run again to publish from here",
        false => {
            "what this one may have changed could not be marked there: when the other has ended, publish with --audit --verify all"
        }
    }
}

/// Whether the same request may go better next time.
pub(super) fn is_transient(error: &PublishError) -> bool {
    match error {
        PublishError::Damaged { .. } => true,
        PublishError::Store(error) => match error {
            // The client below has tried the end of the upload as often as it may.
            StoreError::RetriesExhausted { late, .. } => !late,
            StoreError::Incomplete { .. } | StoreError::Library { .. } => true,
            StoreError::Refused { status, detail, .. } => {
                let damaged = ["BadDigest", "InvalidDigest", "RequestTimeout", "IncompleteBody"];
                *status >= 500 || damaged.iter().any(|code| detail.contains(code))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether no other request will go better either.
pub(super) fn is_fatal(error: &PublishError) -> bool {
    let is_for_all = matches!(error.kind(), ErrorKind::Config | ErrorKind::Interrupted);
    let no_room_or_right = matches!(
        error,
        PublishError::Store(
            StoreError::StorageFull { .. }
                | StoreError::FileLimit { .. }
                | StoreError::Credentials { .. }
        )
    );
    is_for_all || no_room_or_right
}
