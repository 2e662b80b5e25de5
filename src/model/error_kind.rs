//! What an error asks of whoever gets it. The exit code of the program and whether a request is tried
//! again follow from it.

use std::error::Error;
use std::fmt;

/// What kind of trouble an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The command line is wrong.
    Usage,
    /// A setting, a place or a right must be corrected; running again does not help.
    Config,
    /// The input is not what it should be; running again does not help.
    BadData,
    /// Something outside the program failed, such as a disk or a server; running again may help.
    Transient,
    /// Told to stop, or somebody else is at work; safe to run again.
    Interrupted,
    /// The program has a defect.
    Defect,
}

impl ErrorKind {
    /// The kind of several errors together: the first that running again does not mend decides.
    pub fn of_all(kinds: impl IntoIterator<Item = Self>) -> Self {
        let passes = |kind: &Self| matches!(kind, Self::Transient | Self::Defect);
        kinds.into_iter().find(|kind| !passes(kind)).unwrap_or(Self::Transient)
    }
}

/// An error that tells its kind.
pub trait WithErrorKind: Error + Send + Sync + 'static {
    /// What kind of trouble it is.
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

/// The error of whoever fetches or stores bytes on behalf of code that knows neither.
#[derive(Debug)]
pub struct IoCause(Box<dyn WithErrorKind>);

impl IoCause {
    /// What kind of trouble it is.
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
