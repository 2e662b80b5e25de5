//! What can go wrong with the visualization stores.

use tokio::task::JoinError;

use crate::encode::zarr::v3::ShardEncodeError;
use crate::executor::{PoolError, Stopped};
use crate::model::{Case, ErrorKind, WithErrorKind};
use crate::read::ReadError;
use crate::research::validate::ValidationError;
use crate::research::{GridError, PlanError};
use crate::store::StoreError;

/// A visualization store could not be made, filled or read.
#[derive(Debug, thiserror::Error)]
pub enum VisError {
    /// The storage failed.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// The case's files are not complete.
    #[error(transparent)]
    Plan(Box<PlanError>),
    /// A file is not what it should be.
    #[error(transparent)]
    Check(Box<ValidationError>),
    /// The grid file cannot be used.
    #[error(transparent)]
    Grid(Box<GridError>),
    /// The worker was lost.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Told to stop.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A shard could not be encoded.
    #[error("cannot encode {key}")]
    Shard {
        /// Array or object.
        key: String,
        /// Cause.
        source: ShardEncodeError,
    },
    /// Something is there already.
    #[error("{url} holds {what}; give another place, or replace it with --overwrite")]
    NotEmpty {
        /// Store.
        url: String,
        /// What is there.
        what: String,
    },
    /// A store of another kind is there.
    #[error(
        "{url} holds {found}, not {wanted}; a store never replaces one of another kind: give another place"
    )]
    OtherKind {
        /// Store.
        url: String,
        /// Which one is there.
        found: &'static str,
        /// Which one was to be made.
        wanted: &'static str,
    },
    /// The place is part of other results.
    #[error("{url} lies in {other}, which holds results of its own; give the store another place")]
    Inside {
        /// Store.
        url: String,
        /// What it would lie in.
        other: String,
    },
    /// Chunks hold values that no record covers.
    #[error(
        "{url} holds values of cases without a record (.cases): {cases}; keep them with \
         `dor vis finalize --adopt`, or take them out with `dor vis remove`"
    )]
    Uncovered {
        /// Store.
        url: String,
        /// The cases, in short.
        cases: String,
    },
    /// Nothing is there.
    #[error("there is no store at {url}; make one with `dor vis create-template-{store}`")]
    NoStore {
        /// Where it should be.
        url: String,
        /// Which one.
        store: &'static str,
    },
    /// It is not a store of this form.
    #[error("{url} is not a store of this program: {problem}")]
    Foreign {
        /// Store.
        url: String,
        /// What differs.
        problem: String,
    },
    /// The store does not have what is asked for.
    #[error("{url} {problem}")]
    Mismatch {
        /// Store.
        url: String,
        /// What differs, with advice.
        problem: String,
    },
    /// The store is filled under other rules.
    #[error(
        "{url} is filled under the rules of {has}; this run would use {wanted}. \
         One store must not mix them: give another store, or make it anew"
    )]
    Recipe {
        /// Store.
        url: String,
        /// Its rules.
        has: String,
        /// Those of this run.
        wanted: String,
    },
    /// A record is damaged.
    #[error(
        "{url} is not a record of this program; populate its case again with --force, or remove the \
         record and keep the values with dor vis finalize --adopt"
    )]
    Record {
        /// Object.
        url: String,
        /// Cause.
        source: serde_json::Error,
    },
    /// A record is of a form that this program does not know.
    #[error("{}", crate::case_manifest::other_format(url, *found))]
    Format {
        /// Object.
        url: String,
        /// Its format.
        found: u32,
    },
    /// A setting that the work needs is missing.
    #[error("{0}")]
    Needs(String),
    /// The polygon has no centre.
    #[error("{url} has no centre of polygon {polygon}; give a file that has it (--centers)")]
    NoCenter {
        /// File.
        url: String,
        /// Polygon.
        polygon: u16,
    },
    /// The case's results are no numbers.
    #[error("case {case} has no {what}: {why}")]
    NoResult {
        /// Case.
        case: Case,
        /// What could not be computed.
        what: &'static str,
        /// Cause.
        why: String,
    },
    /// A field does not have the size of the grid.
    #[error("{url} has {found} points where {other} has {expected}; give files of one grid")]
    Size {
        /// File.
        url: String,
        /// Its points, such as `384 x 320`.
        found: String,
        /// What it should fit.
        other: String,
        /// Its points.
        expected: String,
    },
    /// A Zarr store made elsewhere cannot be read.
    #[error("cannot read {url}: {problem}")]
    Zarr {
        /// Array or store.
        url: String,
        /// Cause.
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
            | Self::Needs(_) => ErrorKind::Config,
            Self::Shard { .. } => ErrorKind::Defect,
            Self::Foreign { .. }
            | Self::Mismatch { .. }
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
