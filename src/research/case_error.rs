//! Errors of converting a case.

use super::PlanError;
use super::convert::ConvertError;
use super::validate::ValidationError;
use crate::case_manifest::CaseManifestError;
use crate::encode::SinkError;
use crate::executor::{PoolError, Stopped};
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::store::{Location, StoreError};

/// A file of a case could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The raw file is not valid.
    #[error(transparent)]
    Check(#[from] ValidationError),
    /// The conversion failed.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The research-grade file could not be stored.
    #[error("cannot store {url}")]
    Store {
        /// URL of the research-grade file.
        url: String,
        /// Error of the upload.
        source: SinkError,
    },
    /// The worker failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The partial manifest could not be written, or is that of another process.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl WithErrorKind for FileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Check(error) => error.kind(),
            Self::Convert(error) => error.kind(),
            Self::Store { source, .. } => source.kind(),
            Self::Pool(error) => error.kind(),
            Self::Plan(error) => error.kind(),
        }
    }
}

/// A case was not completed.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The case could not be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Files of the case failed.
    #[error(
        "{} of the files of case {case} failed; {converted} converted, {not_tried} not tried", .failures.len()
    )]
    Files {
        /// Case that the error is about.
        case: Case,
        /// Number of files converted by this run.
        converted: usize,
        /// Number of files that were not started.
        not_tried: usize,
        /// Key of each failed file, and the cause.
        failures: Vec<(String, FileError)>,
    },
    /// The user stopped the run. Finished files stay.
    #[error("case {case}: files converted: {converted} of {files}; {Stopped}")]
    Stopped {
        /// Case that the error is about.
        case: Case,
        /// Number of files converted by this run.
        converted: usize,
        /// Number of files in the plan.
        files: usize,
    },
    /// The user stopped the run before the case began.
    #[error(transparent)]
    NotBegun(#[from] Stopped),
    /// There are no raw files because the archive does not exist.
    #[error("{url}: {reason}")]
    NoArchive {
        /// URL of the archive.
        url: String,
        /// What is absent.
        reason: &'static str,
    },
    /// The output location lies within other results.
    #[error("{other} holds results of its own; give the output another location")]
    Inside {
        /// Location of the other results.
        other: Location,
    },
    /// The case manifest could not be written.
    #[error(transparent)]
    Manifest(#[from] CaseManifestError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WithErrorKind for CaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Plan(error) => error.kind(),
            Self::Files { failures, .. } => {
                ErrorKind::combined(failures.iter().map(|(_, failure)| failure.kind()))
            }
            Self::Stopped { .. } | Self::NotBegun(_) => ErrorKind::Interrupted,
            Self::NoArchive { .. } | Self::Inside { .. } => ErrorKind::Config,
            Self::Manifest(error) => error.kind(),
            Self::Store(error) => error.kind(),
        }
    }
}
