//! Zarr stores that others made: arrays of any codec, in either version of the format.

use zarrs::array::Array;
use zarrs::storage::AsyncReadableStorage;

use super::VisError;
use crate::model::Case;
use crate::store::{ObjectInfo, Store};

/// The metadata object of an array of the store in `folder`, which `flag` names the parent of.
pub async fn find(
    store: &Store,
    folder: &str,
    array: &str,
    flag: &str,
) -> Result<ObjectInfo, VisError> {
    for name in ["zarr.json", ".zarray"] {
        if let Some(metadata) = store.find(&format!("{folder}/{array}/{name}")).await? {
            return Ok(ObjectInfo { etag: None, ..metadata });
        }
    }
    Err(VisError::Zarr {
        url: store.location().join(folder).to_string(),
        problem: format!("there is no array {array}; check {flag}"),
    })
}

/// The cases that there are stores of, named `CASE` and `suffix`.
pub async fn cases(store: &Store, suffix: &str) -> Result<Vec<Case>, VisError> {
    let folders = store.list_dirs("").await?;
    let case = |folder: &String| folder.strip_suffix(suffix)?.parse().ok();
    let mut cases: Vec<Case> = folders.iter().filter_map(case).collect();
    cases.sort_unstable();
    Ok(cases)
}

/// All values of an array as f64, whatever its type and codec; an infinite one is damage.
pub async fn values(
    storage: &AsyncReadableStorage,
    path: &str,
    url: String,
) -> Result<Vec<f64>, VisError> {
    let failed = |error: &dyn std::error::Error| VisError::Zarr {
        url: url.clone(),
        problem: crate::store::with_causes(error),
    };
    let array = Array::async_open(storage.clone(), path).await.map_err(|e| failed(&e))?;
    let all = array.subset_all();
    macro_rules! as_f64 {
        ($type:ty) => {{
            let read = array.async_retrieve_array_subset::<Vec<$type>>(&all).await;
            read.map_err(|e| failed(&e))?.into_iter().map(|v| v as f64).collect()
        }};
    }
    // The names of both versions of the format.
    let names = array.data_type().to_string();
    let name = names.split(' ').next().unwrap_or_default();
    let values: Vec<f64> = match name {
        "float64" => as_f64!(f64),
        "float32" => as_f64!(f32),
        "int64" => as_f64!(i64),
        "int32" => as_f64!(i32),
        _ => {
            let problem = format!("its values are {names}, not floats or integers");
            return Err(VisError::Zarr { url, problem });
        }
    };
    if let Some(at) = values.iter().position(|value| value.is_infinite()) {
        return Err(VisError::Zarr { url, problem: format!("value {at} is infinite") });
    }
    Ok(values)
}
