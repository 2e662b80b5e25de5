//! Loading the grid file.

use sha2::{Digest, Sha256};

use crate::config::{ConfigError, Setting};
use crate::model::{Grid, hex};
use crate::read::grid;
use crate::store::{Location, Stores};

/// Bytes of a grid file: those of POP have tens of megabytes.
const LARGEST: u64 = 2 << 30;

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
    let Some((data, _)) = stores.open(&folder)?.read_within(name, LARGEST).await? else {
        let is_folder = stores.open(location)?.list("").await.is_ok_and(|found| !found.is_empty());
        let reason = if is_folder { "it is a folder" } else { "there is no such file" };
        return Err(unusable(reason).into());
    };
    Ok((grid::parse(&data, &location.to_string())?, hex(&Sha256::digest(&data))))
}
