//! What can go wrong with storage, by what the caller can do about it.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::file_kind::odd_above;
use super::location::LocationError;
use crate::model::{ErrorKind, Md5Digest, WithErrorKind};

/// Why credentials will not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsProblem {
    /// None were found, or their source failed.
    Missing,
    /// Their source did not answer, or was too busy: it may do so later.
    Unanswered,
    /// They were good once.
    Expired,
    /// The server does not know them, or the signature is wrong.
    Rejected,
}

impl std::fmt::Display for CredentialsProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "no credentials",
            Self::Unanswered => "the source of the credentials does not answer",
            Self::Expired => "the credentials have expired",
            Self::Rejected => "the credentials were rejected",
        })
    }
}

/// A failure to get credentials, passed through `object_store` and recognised on the way out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct CredentialsUnavailable {
    pub problem: CredentialsProblem,
    pub detail: String,
}

/// A failure of storage; every variant names the location or the object.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a location.
    #[error(transparent)]
    BadLocation(#[from] LocationError),
    /// An option of S3 that cannot be used.
    #[error("cannot use {option} `{value}`: {reason}")]
    BadOption {
        /// Which option.
        option: &'static str,
        /// What it was set to.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that no store should hold.
    #[error("{url}: not a usable name: {reason}; give it another")]
    BadKey {
        /// The object.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// On disk, something else than a file or a folder of files.
    #[error("{url}: {what}; remove it, or put there what belongs there")]
    UnsupportedFileType {
        /// Its path.
        url: String,
        /// What it is.
        what: String,
    },
    /// No such object.
    #[error("{url}: not found")]
    NotFound {
        /// The object.
        url: String,
    },
    /// No such bucket.
    #[error(
        "{url}: there is no bucket `{bucket}` at {endpoint}; create it, or correct the name or the endpoint"
    )]
    NoSuchBucket {
        /// The object or location asked for.
        url: String,
        /// Its bucket.
        bucket: String,
        /// Where it was looked for.
        endpoint: String,
    },
    /// No such product of Source Cooperative.
    #[error(
        "{url}: {endpoint} has no product `{product}`, or these credentials may not see it; correct the name, or make the product on https://source.coop"
    )]
    NoSuchProduct {
        /// The object or location asked for.
        url: String,
        /// Its account and its product.
        product: String,
        /// Where it was looked for.
        endpoint: String,
    },
    /// The credentials or the user may not do this.
    #[error("{url}: permission denied to {action}: {detail}")]
    PermissionDenied {
        /// The object or location.
        url: String,
        /// What was tried.
        action: &'static str,
        /// What the server or the system said.
        detail: String,
    },
    /// Credentials are missing, expired or wrong.
    #[error("{url}: {problem} ({detail}); {advice}")]
    Credentials {
        /// The location.
        url: String,
        /// What is wrong with them.
        problem: CredentialsProblem,
        /// What the source or the server said.
        detail: String,
        /// How to renew them.
        advice: String,
    },
    /// The request was signed for another region than the bucket's.
    #[error("{url}: the bucket is in another region ({detail}); set the region")]
    WrongRegion {
        /// The location.
        url: String,
        /// What the server said.
        detail: String,
    },
    /// A server sends its clients elsewhere, where nothing is sent that was meant for it.
    #[error(
        "{url}: the server redirects to {to}, and no redirect is followed to another host; {advice}"
    )]
    Redirected {
        /// The object or location.
        url: String,
        /// Where to, with the region if it was told.
        to: String,
        /// What to do.
        advice: &'static str,
    },
    /// A server that cannot do what is needed.
    #[error("{url}: the server does not support {request} ({detail}); use one that does")]
    NotImplemented {
        /// The object or location.
        url: String,
        /// Method and address of the request.
        request: String,
        /// What the server said.
        detail: String,
    },
    /// Nobody that is trusted vouches for the server.
    #[error(
        "{url}: the certificate of the server is not trusted ({detail}); if it is one of your own authority, name the file with its certificate in SSL_CERT_FILE or AWS_CA_BUNDLE"
    )]
    Untrusted {
        /// The object or location.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A listing that cannot be one.
    #[error("{url}: the listing of the server cannot be used: {detail}")]
    BadListing {
        /// The folder.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A listing that does not fit into memory.
    #[error(
        "{url}: the listing of the server has more than {names} names, for which there is no room: {most} bytes of memory, a quarter of what there is, are for them; give a folder with fewer, or more memory (`dor run --memory`, the job's limit)"
    )]
    ListingTooLong {
        /// The folder.
        url: String,
        /// Names that have come.
        names: usize,
        /// Bytes that they may take.
        most: u64,
    },
    /// An object that is read whole has more bytes than one of its kind.
    #[error(
        "{url}: {} bytes, and no more than {most} are read here; is it the right object?",
        size.map_or("too many".to_owned(), |size| size.to_string())
    )]
    TooLarge {
        /// The object.
        url: String,
        /// What it has, if that is known.
        size: Option<u64>,
        /// What it may have.
        most: u64,
    },
    /// Told to stop while something was read.
    #[error("stopped; run the same command again to continue")]
    Stopped,
    /// Nothing can be written here.
    #[error("{url}: read-only: {detail}")]
    ReadOnly {
        /// The location.
        url: String,
        /// Why.
        detail: String,
    },
    /// No space is left, or the quota is used up.
    #[error("{url}: no space left ({detail}); free some, then run again")]
    StorageFull {
        /// The object.
        url: String,
        /// What the system said.
        detail: String,
    },
    /// A file is larger than files can be here.
    #[error(
        "{url}: {detail}: a limit of this process (ulimit -f) or of the file system; raise it, or write elsewhere, then run again"
    )]
    FileLimit {
        /// The object.
        url: String,
        /// What the system said.
        detail: String,
    },
    /// The object was replaced while it was read.
    #[error("{url}: changed while it was read ({detail}); run again when its writer has finished")]
    Changed {
        /// The object.
        url: String,
        /// What differs.
        detail: String,
    },
    /// It was to be written on a condition that no longer holds: another writer was first.
    #[error(
        "{url}: somebody else wrote it meanwhile ({detail}), so it was not written over; run again"
    )]
    PreconditionFailed {
        /// The object.
        url: String,
        /// What is there.
        detail: String,
    },
    /// The bytes of a part are not those that are recorded.
    #[error("{url}: MD5 {found} of the part from byte {start} on, not {expected}; make it again")]
    Differs {
        /// The object.
        url: String,
        /// Where the part begins.
        start: u64,
        /// MD5 of what was read.
        found: Md5Digest,
        /// MD5 that is recorded.
        expected: Md5Digest,
    },
    /// Bytes beyond the end were asked for.
    #[error("{url}: bytes {start}..{end} were asked for, but it has {size}")]
    OutOfRange {
        /// The object.
        url: String,
        /// First byte asked for.
        start: u64,
        /// End of what was asked for.
        end: u64,
        /// What it has.
        size: u64,
    },
    /// An upload that was completed before all its parts had come, or got parts of a wrong size.
    #[error("{url}: the upload did not end well: {detail}; write it again")]
    Incomplete {
        /// The object.
        url: String,
        /// What is missing or too much.
        detail: String,
    },
    /// The server could not be reached or kept failing.
    #[error("{url}: {request} failed{}: {detail}; {advice}", tries(*.attempts, *.elapsed))]
    RetriesExhausted {
        /// The object or location.
        url: String,
        /// Method and address of the request.
        request: String,
        /// How often it was sent.
        attempts: u32,
        /// From the first attempt to the last answer.
        elapsed: Duration,
        /// What happened to the last.
        detail: String,
        /// What to do.
        advice: &'static str,
        /// Whether the server had already begun to answer that it went well.
        late: bool,
    },
    /// The server refused, for a reason of its own.
    #[error("{url}: {request} was refused with {status}: {detail}")]
    Refused {
        /// The object or location.
        url: String,
        /// Method and address of the request.
        request: String,
        /// HTTP status.
        status: u16,
        /// Code and message.
        detail: String,
    },
    /// This kind of location cannot do it.
    #[error("{url}: cannot {action} over https; use a path or s3://")]
    Unsupported {
        /// The location.
        url: String,
        /// What was tried.
        action: &'static str,
    },
    /// The system failed in a way of its own.
    #[error("{url}: cannot {action}: {source}")]
    Io {
        /// The object.
        url: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The storage library failed in a way of its own.
    #[error("{url}: cannot {action}: {source}")]
    Library {
        /// The object or location.
        url: String,
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: object_store::Error,
    },
}

impl WithErrorKind for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BadLocation(_)
            | Self::BadOption { .. }
            | Self::NoSuchBucket { .. }
            | Self::NoSuchProduct { .. }
            | Self::PermissionDenied { .. }
            | Self::WrongRegion { .. }
            | Self::Redirected { .. }
            | Self::ListingTooLong { .. }
            | Self::NotImplemented { .. }
            | Self::Untrusted { .. }
            | Self::ReadOnly { .. }
            | Self::Unsupported { .. } => ErrorKind::Config,
            Self::Credentials { problem: CredentialsProblem::Unanswered, .. } => {
                ErrorKind::Transient
            }
            Self::Credentials { .. } => ErrorKind::Config,
            Self::UnsupportedFileType { .. }
            | Self::BadKey { .. }
            | Self::BadListing { .. }
            | Self::TooLarge { .. }
            | Self::Differs { .. } => ErrorKind::BadData,
            Self::Stopped => ErrorKind::Interrupted,
            _ => ErrorKind::Transient,
        }
    }
}

/// How often a request was sent, when it was more than once.
fn tries(attempts: u32, elapsed: Duration) -> String {
    match attempts {
        0 | 1 => String::new(),
        _ => format!(" {attempts} times over {:.1} s, the last time with", elapsed.as_secs_f64()),
    }
}

impl StoreError {
    /// Whether the object (or its bucket's key) simply is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    pub(super) fn io(url: &str, action: &'static str, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let url = url.to_owned();
        let detail = source.to_string();
        match source.kind() {
            Kind::NotFound => Self::NotFound { url },
            Kind::NotADirectory => match odd_above(Path::new(&url)) {
                Some((url, what)) => Self::UnsupportedFileType { url, what },
                None => Self::BadLocation(LocationError {
                    text: url,
                    reason: "a file is where a folder must be".to_owned(),
                }),
            },
            Kind::IsADirectory => Self::UnsupportedFileType {
                url,
                what: "a folder where a file is expected".to_owned(),
            },
            Kind::PermissionDenied => Self::PermissionDenied { url, action, detail },
            Kind::ReadOnlyFilesystem => Self::ReadOnly { url, detail },
            Kind::StorageFull | Kind::QuotaExceeded => Self::StorageFull { url, detail },
            Kind::FileTooLarge => Self::FileLimit { url, detail },
            _ if [Some(libc::EMFILE), Some(libc::ENFILE)].contains(&source.raw_os_error()) => {
                let told = format!(
                    "{source}: raise the limit (ulimit -n 4096) or use fewer workers (--workers)"
                );
                Self::Io { url, action, source: io::Error::new(source.kind(), told) }
            }
            _ => Self::Io { url, action, source },
        }
    }
}
