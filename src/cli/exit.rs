//! Exit codes of the program.

use std::error::Error;
use std::process::ExitCode;

use crate::campaign::finalize::FinalizeError;
use crate::campaign::slurm::SlurmError;
use crate::campaign::{PlanFileError, ProductError, ShardIndexError};
use crate::case_manifest::CaseManifestError;
use crate::config::ConfigError;
use crate::demo::DemoError;
use crate::executor::Stopped;
use crate::model::{ErrorKind, WithErrorKind};
use crate::publish::PublishError;
use crate::read::ReadError;
use crate::research::{CaseError, GridError, PlanError};
use crate::store::StoreError;
use crate::vis::VisError;

/// An exit code, for scripts and schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did all of its work.
    Done = 0,
    /// Some cases failed. The command lists them.
    SomeFailed = 1,
    /// The command line is not valid.
    Usage = 2,
    /// Products of a plan are missing. The command lists them and writes nothing.
    Incomplete = 3,
    /// The input is not valid. Running the command again does not help.
    BadData = 65,
    /// A signal stopped the command. It is safe to run it again.
    Interrupted = 75,
    /// The configuration is not valid. Running the command again does not help.
    Configuration = 78,
}

/// The arguments are valid one by one, but not together, or a choice among them is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub String);

impl WithErrorKind for UsageError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}

type Cause = dyn Error + 'static;

/// Functions that return the kind of an error, one for each error type of a command.
const KINDS: [fn(&Cause) -> Option<ErrorKind>; 17] = [
    of::<UsageError>,
    of::<Stopped>,
    of::<ConfigError>,
    of::<ReadError>,
    of::<CaseError>,
    of::<PlanError>,
    of::<GridError>,
    of::<CaseManifestError>,
    of::<VisError>,
    of::<PublishError>,
    of::<PlanFileError>,
    of::<ProductError>,
    of::<FinalizeError>,
    of::<ShardIndexError>,
    of::<DemoError>,
    of::<SlurmError>,
    of::<StoreError>,
];

fn of<E: WithErrorKind>(cause: &Cause) -> Option<ErrorKind> {
    cause.downcast_ref::<E>().map(WithErrorKind::kind)
}

impl Exit {
    /// All exit codes, in ascending order.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::SomeFailed,
        Self::Usage,
        Self::Incomplete,
        Self::BadData,
        Self::Interrupted,
        Self::Configuration,
    ];

    /// Meaning of the code, in the words of `dor --help` and of the table in `docs/command-line.md`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::SomeFailed => "some cases failed and are listed, or the command failed",
            Self::Usage => "the command line is wrong",
            Self::Incomplete => "`dor finalize`: the plan is not complete; nothing was written",
            Self::BadData => "input data is wrong; running again does not help",
            Self::Interrupted => "interrupted; safe to run again",
            Self::Configuration => "the configuration is wrong; correct it, then run again",
        }
    }

    /// Returns the exit code for the error of a command: that of the first cause whose kind is known.
    pub fn of(error: &Cause) -> Self {
        let kind_of = |cause| KINDS.iter().find_map(|kind| kind(cause));
        chain(error).find_map(kind_of).map_or(Self::SomeFailed, Self::from)
    }

    /// Whether the error, or one of its causes, says that a signal stopped the command.
    pub(super) fn stopped(error: &Cause) -> bool {
        chain(error).any(|cause| {
            cause.is::<Stopped>() || matches!(cause.downcast_ref(), Some(StoreError::Stopped))
        })
    }
}

/// Iterates over an error and its causes, the error first.
fn chain(error: &Cause) -> impl Iterator<Item = &Cause> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Config => Self::Configuration,
            ErrorKind::BadData => Self::BadData,
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::Transient | ErrorKind::Defect => Self::SomeFailed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
