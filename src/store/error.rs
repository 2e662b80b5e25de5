//! Errors of storage, distinguished by what the caller can do about them.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::file_kind::special_file_above;
use super::location::LocationError;
use crate::model::{ErrorKind, Md5Digest, WithErrorKind};

/// The reason why credentials cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsProblem {
    /// No credentials were found, or their source failed.
    Missing,
    /// The source did not respond or was too busy. A later attempt may succeed.
    Unanswered,
    /// The credentials have expired.
    Expired,
    /// The server does not know the access key, or the signature is wrong.
    Rejected,
}

impl std::fmt::Display for CredentialsProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "no credentials",
            Self::Unanswered => "the source of the credentials does not respond",
            Self::Expired => "the credentials have expired",
            Self::Rejected => "the credentials were rejected",
        })
    }
}

/// A failure to get credentials. It passes through `object_store`, and `translate` finds it in the chain
/// of causes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub(super) struct CredentialsUnavailable {
    pub problem: CredentialsProblem,
    pub detail: String,
}

/// An error of storage. Every variant but [`StoreError::Stopped`] names the location, object or option.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A text is not a valid location, or a path has a file where a folder is required.
    #[error(transparent)]
    BadLocation(#[from] LocationError),
    /// An S3 option has an invalid value.
    #[error("cannot use {option} `{value}`: {reason}")]
    BadOption {
        /// Name of the option, variable or setting.
        option: &'static str,
        /// Its value.
        value: String,
        /// Why the value is invalid.
        reason: String,
    },
    /// A key is invalid for this store.
    #[error("{url}: invalid key: {reason}; choose another name")]
    BadKey {
        /// URL or path of what the error is about.
        url: String,
        /// Why the key is invalid.
        reason: String,
    },
    /// A path on disk is a special file, or a folder where a file is expected, or a dangling link.
    #[error("{url}: {what}; give another location, or move it away")]
    UnsupportedFileType {
        /// Path of the entry.
        url: String,
        /// Description of the entry.
        what: String,
    },
    /// The object does not exist.
    #[error("{url}: not found")]
    NotFound {
        /// URL or path of what the error is about.
        url: String,
    },
    /// The bucket does not exist at the endpoint.
    #[error(
        "{url}: there is no bucket `{bucket}` at {endpoint}; create it, or correct the name or the endpoint"
    )]
    NoSuchBucket {
        /// The requested object or location.
        url: String,
        /// Name of the bucket.
        bucket: String,
        /// Endpoint that received the request.
        endpoint: String,
    },
    /// The product does not exist at Source Cooperative, or is hidden from these credentials.
    #[error(
        "{url}: {endpoint} has no product `{product}`, or these credentials may not see it; correct the name, or create the product on https://source.coop"
    )]
    NoSuchProduct {
        /// The requested object or location.
        url: String,
        /// `ACCOUNT/PRODUCT`.
        product: String,
        /// Endpoint that received the request.
        endpoint: String,
    },
    /// The server or the system denies the action.
    #[error("{url}: permission denied to {action}: {detail}")]
    PermissionDenied {
        /// The object or location.
        url: String,
        /// The action, as a verb phrase.
        action: &'static str,
        /// Message of the server or the system.
        detail: String,
    },
    /// Credentials are missing, expired or rejected.
    #[error("{url}: {problem} ({detail}); {advice}")]
    Credentials {
        /// URL or path of what the error is about.
        url: String,
        /// The problem.
        problem: CredentialsProblem,
        /// Message of the source or the server.
        detail: String,
        /// How to renew the credentials.
        advice: String,
    },
    /// The request was signed for a region other than that of the bucket.
    #[error("{url}: the bucket is in another region ({detail}); set --region")]
    WrongRegion {
        /// URL or path of what the error is about.
        url: String,
        /// Message of the server.
        detail: String,
    },
    /// The server redirects to another host. Requests are signed for one host and do not follow.
    #[error(
        "{url}: the server redirects to {to}; redirects to another host are not followed; {advice}"
    )]
    Redirected {
        /// The object or location.
        url: String,
        /// Target of the redirect.
        to: String,
        /// What the user can do.
        advice: &'static str,
    },
    /// The server does not implement a request.
    #[error("{url}: the server does not support {request} ({detail}); use a server that does")]
    NotImplemented {
        /// The object or location.
        url: String,
        /// Method and URL of the request.
        request: String,
        /// Message of the server.
        detail: String,
    },
    /// No trusted authority has signed the certificate of the server.
    #[error(
        "{url}: the certificate of the server is not trusted ({detail}); if your own authority has signed it, set SSL_CERT_FILE or AWS_CA_BUNDLE to a file with the certificate of the authority"
    )]
    Untrusted {
        /// The object or location.
        url: String,
        /// Error of the TLS library.
        detail: String,
    },
    /// The listing of a server is invalid.
    #[error("{url}: the listing of the server cannot be used: {detail}")]
    BadListing {
        /// URL or path of what the error is about.
        url: String,
        /// Why it is invalid.
        detail: String,
    },
    /// A listing does not fit into memory.
    #[error(
        "{url}: the listing has more than {names} names and does not fit into {most} bytes, a quarter of the available memory; choose a folder with fewer files, or allow more memory (`dor run --memory`, the limit of the job)"
    )]
    ListingTooLong {
        /// URL or path of what the error is about.
        url: String,
        /// Names received so far.
        names: usize,
        /// Memory limit, in bytes.
        most: u64,
    },
    /// An object that is read whole exceeds the size limit of its kind.
    #[error(
        "{url}: the object has {} bytes, the limit is {most}; check that it is the right object",
        size.map_or("too many".to_owned(), |size| size.to_string())
    )]
    TooLarge {
        /// URL or path of what the error is about.
        url: String,
        /// Size in bytes; `None` if the server did not state it.
        size: Option<u64>,
        /// Limit in bytes.
        most: u64,
    },
    /// A stop was requested during a read.
    #[error("stopped; run the same command again to continue")]
    Stopped,
    /// The location is read-only.
    #[error("{url}: read-only: {detail}")]
    ReadOnly {
        /// URL or path of what the error is about.
        url: String,
        /// Why it is read-only.
        detail: String,
    },
    /// No space is left, or the quota is exhausted.
    #[error("{url}: no space left ({detail}); free some space, then run again")]
    StorageFull {
        /// URL or path of what the error is about.
        url: String,
        /// Message of the system.
        detail: String,
    },
    /// A file exceeds a size limit.
    #[error(
        "{url}: {detail}: the file exceeds a limit of this process (ulimit -f) or of the file system; raise the limit or write elsewhere, then run again"
    )]
    FileLimit {
        /// URL or path of what the error is about.
        url: String,
        /// Message of the system.
        detail: String,
    },
    /// The object was replaced while it was read.
    #[error("{url}: changed while it was read ({detail}); run again when its writer has finished")]
    Changed {
        /// URL or path of what the error is about.
        url: String,
        /// What differs.
        detail: String,
    },
    /// The condition of a write does not hold: another writer was first.
    #[error(
        "{url}: another writer changed it first ({detail}), so it was not overwritten; run again"
    )]
    PreconditionFailed {
        /// URL or path of what the error is about.
        url: String,
        /// How the existing object differs from the condition.
        detail: String,
    },
    /// The MD5 of a part differs from the recorded one.
    #[error(
        "{url}: the part at byte {start} has MD5 {found}, recorded is {expected}; make it again"
    )]
    Differs {
        /// URL or path of what the error is about.
        url: String,
        /// First byte of the part.
        start: u64,
        /// MD5 of the bytes that were read.
        found: Md5Digest,
        /// Recorded MD5.
        expected: Md5Digest,
    },
    /// The requested range is beyond the end of the object.
    #[error("{url}: bytes {start}..{end} were requested, but the object has {size} bytes")]
    OutOfRange {
        /// URL or path of what the error is about.
        url: String,
        /// First requested byte.
        start: u64,
        /// End of the requested range, exclusive.
        end: u64,
        /// Size of the object in bytes.
        size: u64,
    },
    /// An upload was completed without all of its parts, or with parts of a wrong size.
    #[error("{url}: upload failed: {detail}; run again")]
    Incomplete {
        /// URL or path of what the error is about.
        url: String,
        /// Which part is missing or wrong.
        detail: String,
    },
    /// All attempts failed: the server could not be reached, or responded with errors.
    #[error("{url}: {request} failed{}: {detail}; {advice}", tries(*.attempts, *.elapsed))]
    RetriesExhausted {
        /// The object or location.
        url: String,
        /// Method and URL of the request.
        request: String,
        /// Number of attempts.
        attempts: u32,
        /// Time from the first attempt to the last response.
        elapsed: Duration,
        /// Error of the last attempt.
        detail: String,
        /// What the user can do.
        advice: &'static str,
        /// Whether the error came after a status of success.
        late: bool,
    },
    /// The server refused a request with another status.
    #[error("{url}: {request} was refused with {status}: {detail}")]
    Refused {
        /// The object or location.
        url: String,
        /// Method and URL of the request.
        request: String,
        /// HTTP status.
        status: u16,
        /// Error code and message of the server.
        detail: String,
    },
    /// The kind of location does not support the action.
    #[error("{url}: cannot {action} over https; use a path or s3://")]
    Unsupported {
        /// URL or path of what the error is about.
        url: String,
        /// The action, as a verb phrase.
        action: &'static str,
    },
    /// Another error of the operating system.
    #[error("{url}: cannot {action}: {source}")]
    Io {
        /// URL or path of what the error is about.
        url: String,
        /// The action, as a verb phrase.
        action: &'static str,
        /// Error of the system.
        source: io::Error,
    },
    /// Another error of `object_store`.
    #[error("{url}: cannot {action}: {source}")]
    Library {
        /// The object or location.
        url: String,
        /// The action, as a verb phrase.
        action: &'static str,
        /// Error of the library.
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

/// Number and duration of the attempts, if there was more than one.
fn tries(attempts: u32, elapsed: Duration) -> String {
    match attempts {
        0 | 1 => String::new(),
        _ => format!(" {attempts} times over {:.1} s, last error", elapsed.as_secs_f64()),
    }
}

impl StoreError {
    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Converts an error of the operating system.
    pub(super) fn io(url: &str, action: &'static str, source: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let url = url.to_owned();
        let detail = source.to_string();
        match source.kind() {
            Kind::NotFound => Self::NotFound { url },
            Kind::NotADirectory => match special_file_above(Path::new(&url)) {
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
                let text = format!(
                    "{source}: raise the limit (ulimit -n 4096) or use fewer workers (--workers)"
                );
                Self::Io { url, action, source: io::Error::new(source.kind(), text) }
            }
            _ => Self::Io { url, action, source },
        }
    }
}
