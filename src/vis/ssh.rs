//! Loading the series of sea surface height.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::VisError;
use crate::case_manifest::{InputRecord, sha256};
use crate::executor::{ObjectSource, Pool, unless_stopped};
use crate::read::ssh::SeaSurfaceHeight;
use crate::store::{Location, StoreRegistry};

/// The series, and the file that it is in.
///
/// # Errors
/// There is no such file, or it is no such series; those of the store, and a stop.
pub async fn load(
    stores: &StoreRegistry,
    location: &Location,
    (pool, stop): (&Pool, &CancellationToken),
) -> Result<(Arc<SeaSurfaceHeight>, InputRecord), VisError> {
    let (Some(folder), Some(name)) = (location.parent(), location.file_name()) else {
        let needed = format!("--ssh {location}: name the file, not a folder");
        return Err(VisError::Needs(needed));
    };
    let folder = stores.open(&folder)?;
    let object = match folder.open(name).await {
        Err(error) if error.is_not_found() => {
            let needed = format!("--ssh {location}: there is no such file");
            return Err(VisError::Needs(needed));
        }
        object => object?,
    };
    let info = object.info().clone();
    // First what it is: a large file of something else is not read to its end for that.
    let source = ObjectSource::new(object, stop.clone(), |_| {});
    let place = pool.place(0).await?;
    let ssh = Pool::run(&place, move || SeaSurfaceHeight::open(Box::new(source))).await??;
    let sha256 = unless_stopped(stop, sha256(&folder, &info)).await??;
    let mut record = InputRecord::new(&info, Some(sha256));
    if location.is_local() {
        record.etag = None;
    }
    Ok((Arc::new(ssh), record))
}
