//! The grid file: where it is, who names it, and what is in it.

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::executor::{ObjectSource, Pool, PoolError};
use crate::model::{ErrorKind, Grid, WithErrorKind, hex};
use crate::read::{ReadError, grid};
use crate::store::{Location, StoreError, StoreRegistry};

/// Memory for the points of the finest grid, as they are stored and as they are used.
const MEMORY: u64 = 512 << 20;

/// The grid file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// It is no file, or not there.
    #[error("`grid` from {named_by}: `{location}` cannot be used: {reason}")]
    Unusable {
        /// Where it should be.
        location: Location,
        /// Who names it.
        named_by: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// It is not what it should be.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker was lost.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl WithErrorKind for GridError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unusable { .. } => ErrorKind::Config,
            Self::Read(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Pool(error) => error.kind(),
        }
    }
}

/// A grid file with the full `TLAT` and `TLONG`, and who names it: a setting's source, for messages.
#[derive(Clone, Debug)]
pub struct GridFile {
    /// Where it is.
    pub location: Location,
    /// Who names it, such as `--grid`.
    pub named_by: String,
}

impl GridFile {
    /// The grid, and the SHA-256 of its file in hexadecimal.
    ///
    /// # Errors
    /// [`GridError::Unusable`] when there is no such file; else those of the store and of the file's content.
    pub async fn load(&self, stores: &StoreRegistry) -> Result<(Grid, String), GridError> {
        let unusable = |reason| {
            let Self { location, named_by } = self.clone();
            GridError::Unusable { location, named_by, reason }
        };
        let (Some(folder), Some(name)) = (self.location.parent(), self.location.file_name()) else {
            return Err(unusable("name the grid file, not a folder"));
        };
        let object = match stores.open(&folder)?.open(name).await {
            Err(error) if error.is_not_found() => {
                let files = stores.open(&self.location)?.list("").await;
                let is_folder = files.is_ok_and(|found| !found.is_empty());
                let reason = if is_folder { "it is a folder" } else { "there is no such file" };
                return Err(unusable(reason));
            }
            object => object?,
        };
        let size = object.info().size;
        // First what it is: a large file of something else is not read to its end for that.
        let source = ObjectSource::new(object.clone(), CancellationToken::new(), |_| {});
        let place = Pool::new(1, MEMORY).place(MEMORY).await?;
        let grid = Pool::run(&place, move || grid::read(Box::new(source))).await??;
        let digest = object.fold(0..size, Sha256::new(), |digest, piece| digest.update(piece));
        Ok((grid, hex(&digest.await?.finalize())))
    }
}
