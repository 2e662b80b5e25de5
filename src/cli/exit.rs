//! How the program ends.

use std::error::Error;
use std::process::ExitCode;

use crate::campaign::finalize::FinalizeError;
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

/// The exit codes, for scripts and schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Done = 0,
    /// Some cases failed, and are listed.
    SomeFailed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Something is not done yet, and is listed; nothing was written.
    Incomplete = 3,
    /// The input is not what it should be; running again does not help.
    BadData = 65,
    /// Told to stop; safe to run again.
    Interrupted = 75,
    /// The configuration must be corrected; running again does not help.
    Configuration = 78,
}

type Cause = dyn Error + 'static;

/// The errors that a command may end with, each asked for its kind.
const KINDS: [fn(&Cause) -> Option<ErrorKind>; 15] = [
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
    of::<StoreError>,
];

fn of<E: WithErrorKind>(cause: &Cause) -> Option<ErrorKind> {
    cause.downcast_ref::<E>().map(WithErrorKind::kind)
}

impl Exit {
    /// The code for an error that ended a command: that of the first cause that tells its kind.
    pub fn of(error: &Cause) -> Self {
        let kind_of = |cause| KINDS.iter().find_map(|kind| kind(cause));
        chain(error).find_map(kind_of).map_or(Self::SomeFailed, Self::from)
    }

    /// Whether an error is nothing but a stop, whoever tells of it.
    pub(super) fn stopped(error: &Cause) -> bool {
        chain(error).any(|cause| {
            cause.is::<Stopped>() || matches!(cause.downcast_ref(), Some(StoreError::Stopped))
        })
    }
}

/// An error and its causes.
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
