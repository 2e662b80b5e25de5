//! Errors of plan files.

use crate::model::{ErrorKind, WithErrorKind};
use crate::store::StoreError;
use crate::vis::VisError;

/// A plan cannot be created, written or used.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// The file exists with other contents.
    #[error("{url} exists and is not this plan; plans do not change: give another name")]
    Exists {
        /// URL of the plan.
        url: String,
    },
    /// The file does not exist.
    #[error("there is no plan {url}; make one with `dor plan -o {url}`")]
    Absent {
        /// URL of the plan.
        url: String,
    },
    /// The contents are not a valid plan.
    #[error("{url} is not a plan that can be used: {problem}; make it again with `dor plan`")]
    Damaged {
        /// URL of the plan.
        url: String,
        /// Why the plan is not valid.
        problem: String,
    },
    /// An input other than the archive has changed since the plan was made.
    #[error("{url} is not what it was when the plan was made; restore it, or make another plan")]
    Changed {
        /// URL of the input.
        url: String,
    },
    /// A location of the plan does not exist, or the archive is an empty folder.
    #[error(
        "{what} of the plan, {url}, is not there or is empty; restore it, or make another plan: dor does not create it \
         again"
    )]
    NoLocation {
        /// Key of the location, such as `data_dir`.
        what: &'static str,
        /// URL of the location.
        url: String,
    },
    /// The location is a folder.
    #[error("{url} is a folder: name the file of the plan")]
    Folder {
        /// URL of the folder.
        url: String,
    },
    /// An input or an output of the plan cannot be used.
    #[error(transparent)]
    Vis(#[from] VisError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WithErrorKind for PlanFileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(StoreError::UnsupportedFileType { .. }) => ErrorKind::Config,
            Self::Store(error) => error.kind(),
            Self::Vis(error) => error.kind(),
            Self::Damaged { .. } => ErrorKind::BadData,
            Self::Changed { .. }
            | Self::Exists { .. }
            | Self::Absent { .. }
            | Self::Folder { .. }
            | Self::NoLocation { .. } => ErrorKind::Config,
        }
    }
}
