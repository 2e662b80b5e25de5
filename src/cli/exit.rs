//! How the program ends.

use std::process::ExitCode;

use crate::config::ConfigError;
use crate::model::CaseNameError;
use crate::pipeline::Stopped;
use crate::read::ReadError;
use crate::research::convert::ConvertError;
use crate::research::{CaseError, PlanError};
use crate::store::StoreError;

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
    /// The input is not what it should be; running again does not help.
    BadData = 65,
    /// Told to stop; safe to run again.
    Interrupted = 75,
    /// The configuration must be corrected; running again does not help.
    Configuration = 78,
}

impl Exit {
    /// The code for an error that ended a command.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::SomeFailed)
    }

    /// The code that a single error stands for, if it stands for one by itself.
    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if cause.is::<Stopped>() {
            return Some(Self::Interrupted);
        }
        if cause.is::<ConfigError>() || cause.is::<CaseNameError>() {
            return Some(Self::Configuration);
        }
        if let Some(CaseError::Files { failures, .. }) = cause.downcast_ref() {
            let (_, first) = failures.first()?;
            return chain(first).find_map(Self::of_cause);
        }
        if cause.is::<ReadError>() || cause.is::<ConvertError>() {
            return Some(Self::BadData);
        }
        if let Some(error) = cause.downcast_ref::<PlanError>() {
            return (!matches!(error, PlanError::Store(_) | PlanError::Ledger(_)))
                .then_some(Self::BadData);
        }
        match cause.downcast_ref::<StoreError>()? {
            StoreError::BadLocation(_)
            | StoreError::BadOption { .. }
            | StoreError::NoSuchBucket { .. }
            | StoreError::PermissionDenied { .. }
            | StoreError::Credentials { .. }
            | StoreError::WrongRegion { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Unsupported { .. } => Some(Self::Configuration),
            _ => None,
        }
    }
}

/// An error and its causes.
pub(super) fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
