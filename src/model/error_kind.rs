//! Kinds of errors, which determine the exit code of the program and whether it retries a request.

use std::error::Error;
use std::fmt;

/// The kind of an error, by what its receiver can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The command line is invalid.
    Usage,
    /// A setting, a location or a permission must be corrected; running again does not help.
    Config,
    /// The input is damaged or invalid; running again does not help.
    BadData,
    /// A disk, a server or another resource outside the program failed; running again can help.
    Transient,
    /// A signal stopped the program, or another process holds the lease; running again is safe.
    Interrupted,
    /// The program has a defect.
    Defect,
}

impl ErrorKind {
    /// The kind of several errors together: the first kind that is neither [`Self::Transient`] nor
    /// [`Self::Defect`], else [`Self::Transient`].
    pub fn combined(kinds: impl IntoIterator<Item = Self>) -> Self {
        let can_pass = |kind: &Self| matches!(kind, Self::Transient | Self::Defect);
        kinds.into_iter().find(|kind| !can_pass(kind)).unwrap_or(Self::Transient)
    }
}

/// An error with an [`ErrorKind`].
pub trait WithErrorKind: Error + Send + Sync + 'static {
    /// The kind of the error.
    fn kind(&self) -> ErrorKind;
}

impl WithErrorKind for std::io::Error {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Transient
    }
}

impl WithErrorKind for std::collections::TryReserveError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Transient
    }
}

/// An I/O error of any type: readers and encoders pass it on without a dependency on the store.
#[derive(Debug)]
pub struct IoCause(Box<dyn WithErrorKind>);

impl IoCause {
    /// The kind of the wrapped error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }
}

impl<E: WithErrorKind> From<E> for IoCause {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for IoCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for IoCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
