//! How the program ends.

use std::process::ExitCode;

use crate::batch::{PlanFileError, ShardError, StageError};
use crate::config::ConfigError;
use crate::demo::DemoError;
use crate::ledger::LedgerError;
use crate::pipeline::{PoolError, Stopped};
use crate::publish::PublishError;
use crate::read::ReadError;
use crate::research::check::CheckError;
use crate::research::convert::ConvertError;
use crate::research::run::FileError;
use crate::research::{CaseError, PlanError};
use crate::store::{CredentialsProblem, StoreError};
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

impl Exit {
    /// The code for an error that ended a command.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::SomeFailed)
    }

    /// Whether an error is nothing but a stop, whoever tells of it.
    pub(super) fn stopped(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| {
            cause.is::<Stopped>() || matches!(cause.downcast_ref(), Some(StoreError::Stopped))
        })
    }

    /// The code that a single error stands for, if it stands for one by itself. Errors that
    /// speak through another are not seen in a chain: they are asked here.
    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if cause.is::<Stopped>() {
            return Some(Self::Interrupted);
        }
        if cause.is::<ConfigError>() {
            return Some(Self::Configuration);
        }
        if let Some(error) = cause.downcast_ref() {
            return Self::of_read(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return Self::of_case(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return Self::of_plan(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return Self::of_vis(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return Self::of_publish(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return Self::of_plan_file(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return match error {
                StageError::Research(error) => Self::of_case(error),
                StageError::Vis(error) => Self::of_vis(error),
                StageError::Gone { .. } => Some(Self::Configuration),
                StageError::Files { .. } => Some(Self::BadData),
            };
        }
        if cause.is::<ShardError>() {
            return Some(Self::Configuration);
        }
        match cause.downcast_ref() {
            Some(DemoError::Store(error)) => return Self::of_store(error),
            Some(
                DemoError::NotOurs { .. } | DemoError::Inside { .. } | DemoError::Altered { .. },
            ) => {
                return Some(Self::Configuration);
            }
            Some(DemoError::Write { source, .. }) => return Self::of_cause(&**source),
            Some(DemoError::Pool(_)) | None => {}
        }
        Self::of_store(cause.downcast_ref()?)
    }

    fn of_vis(error: &VisError) -> Option<Self> {
        match error {
            VisError::Store(error) => Self::of_store(error),
            VisError::Plan(error) => Self::of_plan(error),
            VisError::Check(error) => Self::of_check(error),
            VisError::Stopped(_) => Some(Self::Interrupted),
            VisError::NotEmpty { .. }
            | VisError::OtherKind { .. }
            | VisError::Inside { .. }
            | VisError::Uncovered { .. }
            | VisError::NoStore { .. }
            | VisError::Recipe { .. }
            | VisError::Needs(_) => Some(Self::Configuration),
            VisError::Pool(PoolError::Closed) => Some(Self::Interrupted),
            VisError::Pool(_) | VisError::Shard { .. } => None,
            VisError::Foreign { .. }
            | VisError::Mismatch { .. }
            | VisError::Record { .. }
            | VisError::NoCenter { .. }
            | VisError::NoResult { .. }
            | VisError::Size { .. }
            | VisError::Zarr { .. } => Some(Self::BadData),
        }
    }

    fn of_publish(error: &PublishError) -> Option<Self> {
        match error {
            PublishError::Store(error) => Self::of_store(error),
            PublishError::Stopped(_)
            | PublishError::Busy { .. }
            | PublishError::Overtaken { .. }
            | PublishError::ClaimLost { .. }
            | PublishError::NotMarked { .. }
            | PublishError::Disturbed { .. } => Some(Self::Interrupted),
            PublishError::Empty { .. }
            | PublishError::NoCase { .. }
            | PublishError::Unfinished { .. }
            | PublishError::Extended { .. }
            | PublishError::Loses { .. }
            | PublishError::OtherKind { .. }
            | PublishError::Among { .. }
            | PublishError::TooManyDeletes { .. }
            | PublishError::Unrelated { .. }
            | PublishError::InTheWay { .. }
            | PublishError::Obstacle { .. }
            | PublishError::Within { .. }
            | PublishError::Journal { .. }
            | PublishError::Pattern(_) => Some(Self::Configuration),
            PublishError::Record { .. } | PublishError::Published { .. } => Some(Self::BadData),
            PublishError::NotAsRecorded { .. }
            | PublishError::Damaged { .. }
            | PublishError::SomeFailed { .. }
            | PublishError::GivenUp { .. }
            | PublishError::NotVerified { .. }
            | PublishError::Pool(_) => Some(Self::SomeFailed),
        }
    }

    fn of_plan_file(error: &PlanFileError) -> Option<Self> {
        match error {
            PlanFileError::Store(StoreError::NotAFile { .. }) => Some(Self::Configuration),
            PlanFileError::Store(error) => Self::of_store(error),
            PlanFileError::Damaged { .. } => Some(Self::BadData),
            PlanFileError::Changed { .. }
            | PlanFileError::Exists { .. }
            | PlanFileError::Absent { .. }
            | PlanFileError::NoPlace { .. } => Some(Self::Configuration),
        }
    }

    fn of_check(error: &CheckError) -> Option<Self> {
        match error {
            CheckError::Read(error) => Self::of_read(error),
            _ => Some(Self::BadData),
        }
    }

    fn of_case(error: &CaseError) -> Option<Self> {
        match error {
            CaseError::Plan(error) => Self::of_plan(error),
            CaseError::Files { failures, .. } => {
                failures.iter().find_map(|(_, f)| Self::of_file(f))
            }
            CaseError::Stopped { .. } => Some(Self::Interrupted),
            CaseError::Ledger(error) => Self::of_ledger(error),
            CaseError::Store(error) => Self::of_store(error),
        }
    }

    fn of_plan(error: &PlanError) -> Option<Self> {
        match error {
            PlanError::Store(error) => Self::of_store(error),
            PlanError::Ledger(error) => Self::of_ledger(error),
            PlanError::Settings { .. } | PlanError::Taken { .. } | PlanError::NoRecord { .. } => {
                Some(Self::Configuration)
            }
            _ => Some(Self::BadData),
        }
    }

    fn of_ledger(error: &LedgerError) -> Option<Self> {
        match error {
            LedgerError::Store(error) => Self::of_store(error),
            LedgerError::Format { .. } => Some(Self::Configuration),
            LedgerError::Damaged { .. } => Some(Self::BadData),
        }
    }

    fn of_file(error: &FileError) -> Option<Self> {
        match error {
            FileError::Check(error) | FileError::Convert(ConvertError::Input(error)) => {
                Self::of_check(error)
            }
            FileError::Convert(ConvertError::Store { source, .. })
            | FileError::Store { source, .. } => Self::of_cause(&**source),
            FileError::Convert(ConvertError::Encode { .. }) | FileError::Pool(_) => None,
            FileError::Plan(error) => Self::of_plan(error),
        }
    }

    fn of_read(error: &ReadError) -> Option<Self> {
        match error {
            ReadError::Fetch { source, .. } => Self::of_cause(&**source),
            _ => Some(Self::BadData),
        }
    }

    fn of_store(error: &StoreError) -> Option<Self> {
        match error {
            StoreError::BadLocation(_)
            | StoreError::BadOption { .. }
            | StoreError::NoSuchBucket { .. }
            | StoreError::NoSuchProduct { .. }
            | StoreError::PermissionDenied { .. }
            | StoreError::WrongRegion { .. }
            | StoreError::Redirected { .. }
            | StoreError::ListingTooLong { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::Untrusted { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Unsupported { .. } => Some(Self::Configuration),
            StoreError::Credentials { problem: CredentialsProblem::Unanswered, .. } => None,
            StoreError::Credentials { .. } => Some(Self::Configuration),
            StoreError::NotAFile { .. }
            | StoreError::BadKey { .. }
            | StoreError::BadListing { .. }
            | StoreError::TooLarge { .. } => Some(Self::BadData),
            StoreError::Stopped => Some(Self::Interrupted),
            _ => None,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
