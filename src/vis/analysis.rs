//! Analysis stores: `CASE.analysis.zarr` with `DIC_ADD_TOTAL(time)` and `DIC_FLUX(time)`, both mol,
//! in either version of the Zarr format, as earlier runs of the reference left them.

use zarrs::array::Array;
use zarrs::storage::AsyncReadableStorage;

use super::VisError;
use crate::derive::efficiency::ratio;
use crate::model::Case;
use crate::model::case::MONTHS;
use crate::store::{ObjectInfo, Store};

/// The analysis store of a case.
pub struct Analysis {
    /// Its folder.
    folder: String,
    /// Its first metadata object, which stands for it in records.
    pub metadata: ObjectInfo,
}

/// Finds the analysis store of a case.
pub async fn find(analyses: &Store, case: Case) -> Result<Analysis, VisError> {
    let folder = format!("{case}.analysis.zarr");
    for name in ["DIC_FLUX/zarr.json", "DIC_FLUX/.zarray"] {
        if let Some(metadata) = analyses.find(&format!("{folder}/{name}")).await? {
            let metadata = ObjectInfo { etag: None, ..metadata };
            return Ok(Analysis { folder, metadata });
        }
    }
    Err(VisError::Zarr {
        url: analyses.location().join(&folder).to_string(),
        problem: "there is no array DIC_FLUX; check --analysis-zarr-stores-dir".to_owned(),
    })
}

impl Analysis {
    /// Efficiency month by month.
    pub async fn efficiency(&self, analyses: &Store, case: Case) -> Result<Vec<f32>, VisError> {
        let storage = analyses.zarr(&self.folder).await?;
        let url = |name: &str| analyses.location().join(&self.folder).join(name).to_string();
        let added = values(&storage, "/DIC_ADD_TOTAL", url("DIC_ADD_TOTAL")).await?;
        let flux = values(&storage, "/DIC_FLUX", url("DIC_FLUX")).await?;
        for (name, values) in [("DIC_ADD_TOTAL", &added), ("DIC_FLUX", &flux)] {
            if values.len() != MONTHS {
                let problem = format!("it has {} times, not {MONTHS}", values.len());
                return Err(VisError::Zarr { url: url(name), problem });
            }
        }
        let ratios = added.iter().zip(&flux).enumerate().map(|(month, (&added, &flux))| {
            ratio(added, flux).ok_or_else(|| VisError::NoResult {
                case,
                what: "efficiency",
                why: format!(
                    "in {} DIC_ADD_TOTAL is {added} and DIC_FLUX {flux} in month {month}",
                    self.folder
                ),
            })
        });
        ratios.collect()
    }
}

/// All values of an array as f64, whatever its type and codec.
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
    Ok(match name {
        "float64" => as_f64!(f64),
        "float32" => as_f64!(f32),
        "int64" => as_f64!(i64),
        "int32" => as_f64!(i32),
        _ => {
            let problem = format!("its values are {names}, not floats or integers");
            return Err(VisError::Zarr { url, problem });
        }
    })
}
