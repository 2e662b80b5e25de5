//! Analysis stores: `CASE.analysis.zarr` with `DIC_ADD_TOTAL(time)` and `DIC_FLUX(time)`, both mol,
//! in either version of the Zarr format, as earlier runs of the reference left them.

use super::VisError;
use super::zarr::{self, values};
use crate::derive::efficiency::ratio;
use crate::model::Case;
use crate::model::case::MONTHS;
use crate::store::{ObjectMeta, Store};

/// Ending of the stores' names.
pub const SUFFIX: &str = ".analysis.zarr";

/// The analysis store of a case.
pub struct Analysis {
    /// Its folder.
    folder: String,
    /// Its first metadata object, which stands for it in records.
    pub metadata: ObjectMeta,
}

/// Bytes of memory that reading one takes.
pub fn memory() -> u64 {
    zarr::memory(MONTHS)
}

/// Finds the analysis store of a case.
pub async fn find(analyses: &Store, case: Case) -> Result<Analysis, VisError> {
    let folder = format!("{case}{SUFFIX}");
    let metadata = zarr::find(analyses, &folder, "DIC_FLUX", "--analysis-zarr-stores-dir").await?;
    Ok(Analysis { folder, metadata })
}

impl Analysis {
    /// Efficiency month by month.
    pub async fn efficiency(&self, analyses: &Store, case: Case) -> Result<Vec<f32>, VisError> {
        let storage = analyses.zarr(&self.folder, zarr::longest(MONTHS)).await?;
        let url = |name: &str| analyses.location().join(&self.folder).join(name).to_string();
        let read = async |name: &str| {
            values(&storage, &format!("/{name}"), url(name), MONTHS..=MONTHS, "mol").await
        };
        let added = read("DIC_ADD_TOTAL").await?;
        let flux = read("DIC_FLUX").await?;
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
