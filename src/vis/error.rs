//! Errors of the visualization stores.

use tokio::task::JoinError;

use crate::encode::zarr::v3::ShardEncodeError;
use crate::executor::{PoolError, Stopped};
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::read::ReadError;
use crate::research::validate::ValidationError;
use crate::research::{GridError, PlanError};
use crate::store::StoreError;

/// An error of creating, filling, verifying or reading a visualization store.
#[derive(Debug, thiserror::Error)]
pub enum VisError {
    /// An error of the object store or file system.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// An error of planning a case, such as missing input files or a result of other settings.
    #[error(transparent)]
    Plan(Box<PlanError>),
    /// An input file is not valid.
    #[error(transparent)]
    Check(Box<ValidationError>),
    /// The grid file is not valid.
    #[error(transparent)]
    Grid(Box<GridError>),
    /// A worker thread or its memory is not available.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The run was interrupted.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A shard could not be encoded.
    #[error("cannot encode {key}")]
    Shard {
        /// Key of the array or object.
        key: String,
        /// Error that caused this one.
        source: ShardEncodeError,
    },
    /// The location of a new store has results.
    #[error("{url} holds {what}; give another location, or replace it with --overwrite")]
    NotEmpty {
        /// URL or path of what the error is about.
        url: String,
        /// The results, such as `results of 2 cases`.
        what: String,
    },
    /// The location of a new store has a store of another kind.
    #[error(
        "{url} holds {found}, and a store of another kind never replaces it; give {wanted} another location"
    )]
    OtherKind {
        /// URL or path of what the error is about.
        url: String,
        /// Kind of the existing store.
        found: &'static str,
        /// Kind of the new store.
        wanted: &'static str,
    },
    /// The location of a new store is inside other results.
    #[error(
        "{url} is inside {other}, which holds results of its own; give the store another location"
    )]
    Inside {
        /// URL or path of what the error is about.
        url: String,
        /// URL of the other results.
        other: String,
    },
    /// A store has values of cases without a record.
    #[error(
        "{url} holds values of cases without a case manifest (.cases): {cases}; keep them with \
         `dor vis finalize --adopt`, or remove them with `dor vis remove`"
    )]
    Uncovered {
        /// URL or path of what the error is about.
        url: String,
        /// Short list of the cases.
        cases: String,
    },
    /// The location has no store.
    #[error("there is no store at {url}; create one with `dor vis create-template-{store}`")]
    NoStore {
        /// Location of the store.
        url: String,
        /// Kind of the store.
        store: &'static str,
    },
    /// The location has another store or other files than the command needs.
    #[error("{url} {problem}")]
    WrongLocation {
        /// URL or path of what the error is about.
        url: String,
        /// What it has, and what to do.
        problem: String,
    },
    /// An input has no files of a chosen case.
    #[error("{url} has no files of {what}; check the location and the chosen cases")]
    NoFiles {
        /// URL or path of the input.
        url: String,
        /// The chosen cases.
        what: String,
    },
    /// The location has files that are not a store of this schema.
    #[error("{url} is not a store of this program: {problem}")]
    Foreign {
        /// URL or path of what the error is about.
        url: String,
        /// Difference from the schema.
        problem: String,
    },
    /// A store or file does not have the requested or expected content.
    #[error("{url} {problem}")]
    Mismatch {
        /// Store or file.
        url: String,
        /// Difference and advice, as the rest of a sentence that begins with the URL.
        problem: String,
    },
    /// The store has results of another recipe.
    #[error(
        "{url} has results of recipe {has}, and this run uses recipe {wanted}; a store must not mix \
         recipes: give another store, or create this one again"
    )]
    Recipe {
        /// URL or path of what the error is about.
        url: String,
        /// Recipe of the store.
        has: String,
        /// Recipe of this run.
        wanted: String,
    },
    /// A record is not valid JSON or lacks fields.
    #[error(
        "{url} is not a case manifest of this program; populate its case again with --force, or remove the \
         case manifest and keep the values with `dor vis finalize --adopt`"
    )]
    Record {
        /// URL or path of what the error is about.
        url: String,
        /// Error that caused this one.
        source: serde_json::Error,
    },
    /// A record has a format version that this program does not know.
    #[error("{}", crate::case_manifest::other_format(url, *found))]
    Format {
        /// URL or path of what the error is about.
        url: String,
        /// Format version of the record.
        found: u32,
    },
    /// An option is missing or wrong. The value is the message.
    #[error("{0}")]
    Settings(String),
    /// The file of polygon centers has no center of the polygon.
    #[error("{url} has no center of polygon {polygon}; give a file that has it (--centers)")]
    NoCenter {
        /// URL or path of what the error is about.
        url: String,
        /// Polygon.
        polygon: u16,
    },
    /// A result of the case is not finite.
    #[error("case {case} has no {what}: {why}")]
    NoResult {
        /// Case.
        case: Case,
        /// Quantity without a finite value.
        what: &'static str,
        /// Reason, as a clause of the message.
        why: String,
    },
    /// A field does not have the shape of the grid.
    #[error("{url} has {found} points where {other} has {expected}; give files of one grid")]
    Size {
        /// URL or path of what the error is about.
        url: String,
        /// Rows and columns of the field, such as `384 x 320`.
        found: String,
        /// Name of the grid.
        other: String,
        /// Rows and columns of the grid.
        expected: String,
    },
    /// A Zarr store of another program cannot be read.
    #[error("cannot read {url}: {problem}")]
    Zarr {
        /// Array or store.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl From<JoinError> for VisError {
    fn from(error: JoinError) -> Self {
        PoolError::from(error).into()
    }
}

impl WithErrorKind for VisError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Plan(error) => error.kind(),
            Self::Check(error) => error.kind(),
            Self::Grid(error) => error.kind(),
            Self::Pool(error) => error.kind(),
            Self::Stopped(_) => ErrorKind::Interrupted,
            Self::NotEmpty { .. }
            | Self::OtherKind { .. }
            | Self::Inside { .. }
            | Self::Uncovered { .. }
            | Self::NoStore { .. }
            | Self::Recipe { .. }
            | Self::Format { .. }
            | Self::WrongLocation { .. }
            | Self::Settings(_) => ErrorKind::Config,
            Self::Shard { .. } => ErrorKind::Defect,
            Self::Foreign { .. }
            | Self::Mismatch { .. }
            | Self::NoFiles { .. }
            | Self::Record { .. }
            | Self::NoCenter { .. }
            | Self::NoResult { .. }
            | Self::Size { .. }
            | Self::Zarr { .. } => ErrorKind::BadData,
        }
    }
}

impl From<StoreError> for VisError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<PlanError> for VisError {
    fn from(error: PlanError) -> Self {
        Self::Plan(Box::new(error))
    }
}

impl From<GridError> for VisError {
    fn from(error: GridError) -> Self {
        Self::Grid(Box::new(error))
    }
}

impl From<ValidationError> for VisError {
    fn from(error: ValidationError) -> Self {
        Self::Check(Box::new(error))
    }
}

impl From<ReadError> for VisError {
    fn from(error: ReadError) -> Self {
        ValidationError::from(error).into()
    }
}
