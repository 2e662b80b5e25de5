//! The errors of publishing.

use tokio::task::JoinError;

use crate::executor::{PoolError, Stopped};
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::store::StoreError;

/// An error of publishing.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The published result is better than that of the source, or differs from it.
    #[error("{url} has {what}; check the source, or {advice}")]
    WouldLose {
        /// The published result.
        url: String,
        /// What would be lost, with `, which the source lacks` where that is so.
        what: String,
        /// How to publish nevertheless.
        advice: &'static str,
    },
    /// The destination holds a store of another kind.
    #[error(
        "{url} holds {found}, the source has {wanted}: one never replaces the other; give another destination"
    )]
    OtherKind {
        /// The store at the destination, which stays as it is.
        url: String,
        /// Kind of the store at the destination.
        found: String,
        /// Kind of the store in the source.
        wanted: String,
    },
    /// The files of a case would not lie in the folder of the case.
    #[error(
        "{url} is of case {own}, and {folder} is not the folder of this case; give the destination that ends in {own}, or its parent for the folder of a polygon"
    )]
    OtherCase {
        /// The case manifest in the source.
        url: String,
        /// Folder of the case, `PPP/MM`.
        own: String,
        /// Folder at the destination.
        folder: String,
    },
    /// The store would lie among unrelated objects, or inside another store.
    #[error(
        "{url} holds or lies in {other}, which is no part of what would be published there; give another destination"
    )]
    UnrelatedObjects {
        /// Location of the store at the destination.
        url: String,
        /// An unrelated object or folder there.
        other: String,
    },
    /// A map store was finalized at the destination, so that the source no longer has all of it.
    #[error(
        "the map store at {url} was finalized there since it was published: {difference}; bring the source to the same cases and results, or replace the published store with --overwrite"
    )]
    FinalizedAtDestination {
        /// URL or path of what the error is about.
        url: String,
        /// The difference to the source.
        difference: String,
    },
    /// A request to a store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source has nothing to publish; probably the location is wrong.
    #[error("{url} has nothing to publish{why}; give the folder of a tree of outputs")]
    Empty {
        /// URL or path of what the error is about.
        url: String,
        /// The reason, starting with a colon; may be empty.
        why: String,
    },
    /// A selected case is not complete in the source.
    #[error("{url} has no complete case {}; make it first, or check --case", .case.short())]
    NoCase {
        /// URL or path of what the error is about.
        url: String,
        /// Case that the error is about.
        case: Case,
    },
    /// A case record of the source cannot be parsed.
    #[error(
        "{url} is not a valid case manifest of dor ({source}); make its case again with --force"
    )]
    Record {
        /// The record.
        url: String,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// A map store of the source is not finalized, or was changed since.
    #[error("{url} is not finished: {problem}; run `dor vis finalize {url}`")]
    NotFinalized {
        /// URL or path of what the error is about.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An object of the source differs from its record.
    #[error(
        "{url} does not match its case manifest ({problem}): it was modified; run again, or, if dor made it, make it again"
    )]
    NotAsRecorded {
        /// URL or path of what the error is about.
        url: String,
        /// The difference.
        problem: String,
    },
    /// The ETag that the server returned is not that of the bytes that were sent.
    #[error(
        "{url} arrived damaged: its ETag at the server is {found}, that of the source {sent}; run again"
    )]
    Damaged {
        /// The object at the destination.
        url: String,
        /// ETag that the server returned.
        found: String,
        /// ETag of the bytes that were sent.
        sent: String,
    },
    /// Another publisher holds the lease.
    #[error(
        "{url} is being published to by {who}; wait until that publish has ended, or stop it (the lease of a process that died on another machine expires after {minutes} min)"
    )]
    Busy {
        /// The destination.
        url: String,
        /// Process, host and start time of the other publisher.
        who: String,
        /// Minutes without renewal after which a lease expires.
        minutes: u64,
    },
    /// The manifest or the intent of the destination cannot be read.
    #[error(
        "{url} is damaged: {problem}; publish with --audit, which lists the destination and writes a new one"
    )]
    Manifest {
        /// The manifest or the intent.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder of the source has the record of another case.
    #[error(
        "{url} has the case manifest of another folder (it names {key}): rename the folder as it was, or convert its case again"
    )]
    Misplaced {
        /// URL or path of what the error is about.
        url: String,
        /// A file that the record names.
        key: String,
    },
    /// The source has folders of cases beside another product.
    #[error(
        "{url} holds folders of cases (PPP/MM) beside {other}: move the cases into a folder of research-grade \
         files, or publish each folder by itself"
    )]
    MixedSource {
        /// The folder of the source that has both.
        url: String,
        /// The other product.
        other: String,
    },
    /// The destination is a part of another published folder.
    #[error(
        "{url} is a part of {folder}, which was published as a whole: publish the whole again, or give another \
         destination"
    )]
    PartOfAnother {
        /// The destination.
        url: String,
        /// The published folder around it.
        folder: String,
    },
    /// Somebody wrote or removed the manifest or the intent while this publish ran.
    #[error(
        "the manifest of {url} was changed or removed while this publish ran; run the command again"
    )]
    ManifestConflict {
        /// The destination.
        url: String,
    },
    /// The lease was taken over or removed, or could not be renewed.
    #[error(
        "the lease on {url} is lost: another publisher took it over, it was removed, or it could not be renewed; {}",
        after_loss(*is_marked)
    )]
    LeaseLost {
        /// The destination.
        url: String,
        /// Whether the current lease is marked dirty, or nothing was changed.
        is_marked: bool,
    },
    /// A publisher that had lost its lease changed objects during this publish.
    #[error(
        "another publisher, which had lost its lease on {url}, changed {objects} object(s) during this publish; run again to send these objects again"
    )]
    ConcurrentWrite {
        /// The destination.
        url: String,
        /// Number of changed objects.
        objects: usize,
    },
    /// The plan has more deletes than `--max-delete` allows.
    #[error(
        "{count} object(s) at {url} would be deleted, more than --max-delete {allowed}; the first are {}; nothing was changed; check the source, or raise --max-delete", .keys.join(", ")
    )]
    TooManyDeletes {
        /// The destination.
        url: String,
        /// Number of objects that would be deleted.
        count: usize,
        /// The first of these objects.
        keys: Vec<String>,
        /// The value of `--max-delete`.
        allowed: usize,
    },
    /// `--delete` would remove everything that is published; probably a location is wrong.
    #[error(
        "{source_url} has none of the objects that are published at {url}, last from {before}: --delete would remove {count} of them, such as {first}; nothing was changed; check both locations, or add --overwrite to replace everything"
    )]
    Unrelated {
        /// URL or path of the source of the publish.
        source_url: String,
        /// The destination.
        url: String,
        /// Source of the last publish.
        before: String,
        /// Number of objects that would be deleted.
        count: usize,
        /// The first of these objects.
        first: String,
    },
    /// In the source, a folder has become a file, or a file has become a folder.
    #[error(
        "{url} is in the way: in the source, a folder has become a file or a file a folder; publish with --delete"
    )]
    SourcePathConflict {
        /// The object at the destination.
        url: String,
    },
    /// A file on the disk of the destination has the path of a folder, or lies in a folder that has
    /// the path of an object.
    #[error(
        "{url} is in the way of {key}: publish with --delete if an interrupted publish has sent it, otherwise move it away"
    )]
    DestinationPathConflict {
        /// URL or path of what the error is about.
        url: String,
        /// Key of the object that cannot be written.
        key: String,
    },
    /// Source and destination overlap.
    #[error(
        "{source_url} and {destination} are the same location, or one lies within the other; give another destination"
    )]
    OverlappingLocations {
        /// URL or path of the source of the publish.
        source_url: String,
        /// The destination.
        destination: String,
    },
    /// Some objects were not sent, nor the metadata that names them.
    #[error(
        "{failed} of {total} objects were not sent, nor any metadata that names them; see the errors above, then run again"
    )]
    SomeFailed {
        /// Objects that failed.
        failed: usize,
        /// Objects that were to be sent.
        total: usize,
    },
    /// Several objects in a row failed after all attempts.
    #[error(
        "{failed} objects were not sent, nor any metadata that names them; the rest was not tried, because the server accepts no object: {source}; check the server, and run again"
    )]
    ServerUnavailable {
        /// Objects that failed.
        failed: usize,
        /// The last error.
        source: Box<StoreError>,
    },
    /// Objects that were read back differ from the source.
    #[error(
        "{count} of the {looked_at} objects that were read back from {url} are wrong; publish with --audit --verify all to send them again"
    )]
    NotVerified {
        /// The destination.
        url: String,
        /// Objects that differ.
        count: usize,
        /// Objects that were read.
        looked_at: usize,
    },
    /// The local cache of checksums cannot be read or written.
    #[error(
        "cannot use the checksum cache {path}: {source}; set DOR_STATE_DIR to a writable folder"
    )]
    Cache {
        /// Path on the local disk.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The patterns are too large together.
    #[error("--include or --exclude cannot be used: {0}; give fewer or simpler patterns")]
    Pattern(#[from] globset::Error),
    /// A worker panicked, or the pool was closed.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The user stopped the program.
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
            | Self::NotFinalized { .. }
            | Self::FinalizedAtDestination { .. }
            | Self::WouldLose { .. }
            | Self::OtherKind { .. }
            | Self::OtherCase { .. }
            | Self::UnrelatedObjects { .. }
            | Self::TooManyDeletes { .. }
            | Self::Unrelated { .. }
            | Self::SourcePathConflict { .. }
            | Self::DestinationPathConflict { .. }
            | Self::OverlappingLocations { .. }
            | Self::PartOfAnother { .. }
            | Self::MixedSource { .. }
            | Self::Cache { .. }
            | Self::Pattern(_) => ErrorKind::Config,
            Self::Record { .. } | Self::Misplaced { .. } | Self::Manifest { .. } => {
                ErrorKind::BadData
            }
            Self::Pool(error) => error.kind(),
            Self::NotAsRecorded { .. }
            | Self::Damaged { .. }
            | Self::SomeFailed { .. }
            | Self::ServerUnavailable { .. }
            | Self::NotVerified { .. } => ErrorKind::Transient,
        }
    }
}

/// The advice after a lost lease.
fn after_loss(is_marked: bool) -> &'static str {
    match is_marked {
        true => "when the other publish has ended, run again",
        false => {
            "the changes of this publish could not be marked there: when the other publish has ended, publish with --audit --verify all"
        }
    }
}

/// Whether the same request may succeed next time.
pub(super) fn is_transient(error: &PublishError) -> bool {
    match error {
        PublishError::Damaged { .. } => true,
        PublishError::Store(error) => match error {
            // `late`: a success response to the last request of an upload had begun, and the client
            // has already sent that request as often as it may.
            StoreError::RetriesExhausted { late, .. } => !late,
            StoreError::Incomplete { .. } | StoreError::Library { .. } => true,
            StoreError::Refused { status, detail, .. } => {
                let codes = ["BadDigest", "InvalidDigest", "RequestTimeout", "IncompleteBody"];
                *status >= 500 || codes.iter().any(|code| detail.contains(code))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether every other request will fail too, so that the publish stops.
pub(super) fn is_fatal(error: &PublishError) -> bool {
    let concerns_all = matches!(error.kind(), ErrorKind::Config | ErrorKind::Interrupted);
    let is_full_or_denied = matches!(
        error,
        PublishError::Store(
            StoreError::StorageFull { .. }
                | StoreError::FileLimit { .. }
                | StoreError::Credentials { .. }
        )
    );
    concerns_all || is_full_or_denied
}
