//! Loader of the series of sea surface height.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::VisError;
use crate::case_manifest::{InputRecord, sha256};
use crate::executor::{ObjectSource, Pool, unless_stopped};
use crate::read::ssh::SeaSurfaceHeight;
use crate::store::{Location, StoreRegistry};

/// Loads the series from a NetCDF file. Returns it with the record of the file.
///
/// # Errors
/// The file does not exist or has no valid series; the store fails, or the run is stopped.
pub async fn load(
    stores: &StoreRegistry,
    location: &Location,
    (pool, stop): (&Pool, &CancellationToken),
) -> Result<(Arc<SeaSurfaceHeight>, InputRecord), VisError> {
    let (Some(folder), Some(name)) = (location.parent(), location.file_name()) else {
        let problem = format!("--ssh {location} is not a file; give a NetCDF file");
        return Err(VisError::Settings(problem));
    };
    let folder = stores.open(&folder)?;
    let object = match folder.open(name).await {
        Err(error) if error.is_not_found() => {
            let problem = format!("--ssh {location}: there is no such file; check the path");
            return Err(VisError::Settings(problem));
        }
        object => object?,
    };
    let info = object.info().clone();
    // Reads the series before the checksum: a large file of another kind fails without being read to its
    // end.
    let source = ObjectSource::new(object, stop.clone(), |_| {});
    let permit = pool.acquire(0).await?;
    let ssh = Pool::run(&permit, move || SeaSurfaceHeight::open(Box::new(source))).await??;
    let sha256 = unless_stopped(stop, sha256(&folder, &info)).await??;
    let mut record = InputRecord::new(&info, Some(sha256));
    if location.is_local() {
        record.etag = None;
    }
    Ok((Arc::new(ssh), record))
}
