//! Loader of the polygon centers from a table, a zip archive or a folder of arrays.

use bytes::Bytes;

use super::VisError;
use crate::read::ReadError;
use crate::read::centers::{BASIN_FILES, Centers, LONGEST_FILE};
use crate::store::{Location, Store, StoreError, StoreRegistry};

/// Loads the centers from a file or a folder.
///
/// # Errors
/// Nothing exists at the location, the data is not valid, or the store fails.
pub async fn load(stores: &StoreRegistry, location: &Location) -> Result<Centers, VisError> {
    let url = location.to_string();
    if let (Some(folder), Some(name)) = (location.parent(), location.file_name())
        && let Ok(Some(bytes)) = read(&stores.open(&folder)?, name).await?
    {
        return Ok(Centers::parse(&bytes, &url)?);
    }
    let folder = stores.open(location)?;
    let mut arrays = Vec::new();
    for file in BASIN_FILES {
        match read(&folder, file).await?? {
            Some(bytes) => arrays.push(bytes),
            None => {
                // A missing first file means a wrong location, a missing later file means damaged data.
                return Err(match arrays.is_empty() {
                    true => VisError::Settings(format!(
                        "cannot load the centers of the polygons (--centers) from {url}: it is not a \
                         file, and not a folder with {file}"
                    )),
                    false => {
                        let problem = format!("it is a folder without {file}");
                        ReadError::Centers { url, problem }.into()
                    }
                });
            }
        }
    }
    let slices: Vec<&[u8]> = arrays.iter().map(|bytes| bytes.as_ref()).collect();
    let slices = <[&[u8]; 4]>::try_from(slices).unwrap_or_default();
    Ok(Centers::from_arrays(slices, &url)?)
}

/// Reads a file whole; an error when it is longer than any file of centers can be. The inner error is
/// that of the store.
async fn read(folder: &Store, name: &str) -> Result<Result<Option<Bytes>, StoreError>, VisError> {
    match folder.head(name).await {
        Ok(Some(info)) if info.size > LONGEST_FILE => {
            let url = folder.location().join(name).to_string();
            let problem = format!("it has {} bytes, more than {LONGEST_FILE}", info.size);
            Err(ReadError::Centers { url, problem }.into())
        }
        Ok(Some(_)) => Ok(folder.get_within(name, LONGEST_FILE).await.map(|found| Some(found?.0))),
        Ok(None) => Ok(Ok(None)),
        Err(error) => Ok(Err(error)),
    }
}
