//! Loading the grid file.

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::config::{ConfigError, Setting};
use crate::model::{Grid, hex};
use crate::pipeline::{ObjectSource, Pool};
use crate::read::grid;
use crate::store::{Location, Stores};

/// Memory for the points of the finest grid, as they are stored and as they are used.
const MEMORY: u64 = 512 << 20;

/// The grid, and the SHA-256 of its file in hexadecimal.
pub(super) async fn load_grid(
    stores: &Stores,
    Setting { value: location, source }: &Setting<Location>,
) -> anyhow::Result<(Grid, String)> {
    let unusable = |reason: &str| ConfigError::BadValue {
        key: "grid".to_owned(),
        origin: source.clone(),
        value: location.to_string(),
        reason: reason.to_owned(),
    };
    let (Some(folder), Some(name)) = (location.parent(), location.file_name()) else {
        return Err(unusable("name the grid file, not a folder").into());
    };
    let object = match stores.open(&folder)?.object(name).await {
        Err(error) if error.is_not_found() => {
            let files = stores.open(location)?.list("").await;
            let is_folder = files.is_ok_and(|found| !found.is_empty());
            let reason = if is_folder { "it is a folder" } else { "there is no such file" };
            return Err(unusable(reason).into());
        }
        object => object?,
    };
    let size = object.info().size;
    // First what it is: a large file of something else is not read to its end for that.
    let source = ObjectSource::new(object.clone(), CancellationToken::new(), |_| {});
    let place = Pool::new(1, MEMORY).place(MEMORY).await?;
    let grid = Pool::run(&place, move || grid::read(Box::new(source))).await??;
    let digest = object.fold(0..size, Sha256::new(), |digest, piece| digest.update(piece)).await?;
    Ok((grid, hex(&digest.finalize())))
}
