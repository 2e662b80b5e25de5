//! Analysis stores: Zarr stores `CASE.analysis.zarr` of the reference program, Zarr v2 or v3, with
//! `DIC_ADD_TOTAL(time)` and `DIC_FLUX(time)` in mol.

use super::VisError;
use super::zarr::{self, values};
use crate::derive::efficiency::ratio;
use crate::model::Case;
use crate::model::case::MONTHS;
use crate::store::{ObjectMeta, Store};

/// Suffix of the names of the stores.
pub const SUFFIX: &str = ".analysis.zarr";

/// The analysis store of a case.
pub struct Analysis {
    /// Key of the store below the location of all analysis stores.
    folder: String,
    /// Metadata object that identifies the store in case records.
    pub metadata: ObjectMeta,
}

/// Memory to read an analysis store, bytes.
pub fn memory() -> u64 {
    zarr::memory(MONTHS)
}

/// Finds the analysis store of a case.
///
/// # Errors
/// [`VisError::Zarr`] when it does not exist.
pub async fn find(analyses: &Store, case: Case) -> Result<Analysis, VisError> {
    let folder = format!("{case}{SUFFIX}");
    let metadata = zarr::find(analyses, &folder, "DIC_FLUX", "--analysis-zarr-stores-dir").await?;
    Ok(Analysis { folder, metadata })
}

impl Analysis {
    /// Computes the efficiency of each month.
    ///
    /// # Errors
    /// An array cannot be read, or a ratio is not finite.
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
