//! Why a plan cannot be made, written or used.

use crate::model::{ErrorKind, WithErrorKind};
use crate::store::StoreError;
use crate::vis::VisError;

/// A plan cannot be made, written or used.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// Something with other contents is there.
    #[error("{url} is there and is not this plan; plans do not change: give another name")]
    Exists {
        /// The plan.
        url: String,
    },
    /// There is none.
    #[error("there is no plan {url}; make one with `dor plan -o {url}`")]
    Absent {
        /// The plan.
        url: String,
    },
    /// Not a plan.
    #[error("{url} is not a plan that can be used: {problem}; make it again with `dor plan`")]
    Damaged {
        /// The plan.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A file that results depend on has changed.
    #[error(
        "{url} is not what it was when the plan was made; put it back as it was, or make another plan"
    )]
    Changed {
        /// The file.
        url: String,
    },
    /// A place that the plan names is not there.
    #[error(
        "{what} of the plan, {url}, is not there; bring it back, or make another plan: nothing is made \
         anew in its place"
    )]
    NoPlace {
        /// Which one.
        what: &'static str,
        /// Where it should be.
        url: String,
    },
    /// It cannot be a plan.
    #[error("{url} is a folder: name the file of the plan")]
    Folder {
        /// The folder.
        url: String,
    },
    /// What the plan is of cannot be had as it should be.
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
            | Self::NoPlace { .. } => ErrorKind::Config,
        }
    }
}
