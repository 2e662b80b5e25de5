//! The grid file, with the full `TLAT` and `TLONG` of the model grid.

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::executor::{ObjectSource, Pool, PoolError};
use crate::model::{ErrorKind, Grid, WithErrorKind, hex};
use crate::read::{ReadError, grid};
use crate::store::{Location, StoreError, StoreRegistry};

/// Bytes of memory for the points of the finest grid, as stored and as decoded.
const MEMORY: u64 = 512 << 20;

/// The grid file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// The location is not a file, or does not exist.
    #[error("`grid` from {named_by}: `{location}` cannot be used: {reason}")]
    Unusable {
        /// Location of the grid file.
        location: Location,
        /// Source of the setting, such as `--grid`.
        named_by: String,
        /// Why it cannot be used.
        reason: &'static str,
    },
    /// The file is not a valid grid file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The worker failed.
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

/// Location of a grid file, and the source of the setting, for messages.
#[derive(Clone, Debug)]
pub struct GridFile {
    /// Location of the file.
    pub location: Location,
    /// Source of the setting, such as `--grid`.
    pub named_by: String,
}

impl GridFile {
    /// Reads the grid and the SHA-256 of its file, in hexadecimal.
    ///
    /// # Errors
    /// [`GridError::Unusable`] when there is no file; otherwise errors of the store or of the file's content.
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
                let is_folder = files.is_ok_and(|files| !files.is_empty());
                let reason = if is_folder { "it is a folder" } else { "there is no such file" };
                return Err(unusable(reason));
            }
            object => object?,
        };
        let size = object.info().size;
        // The grid comes before the checksum, so that a large file of another kind is not read to its end.
        let source = ObjectSource::new(object.clone(), CancellationToken::new(), |_| {});
        let worker = Pool::new(1, MEMORY).acquire(MEMORY).await?;
        let grid = Pool::run(&worker, move || grid::read(Box::new(source))).await??;
        let digest = object.fold(0..size, Sha256::new(), |digest, piece| digest.update(piece));
        Ok((grid, hex(&digest.await?.finalize())))
    }
}
