//! Excess stores: Zarr stores `CASE.excess.zarr`, v2 or v3, with the additional air-sea flux of a case.
//! They replace the monthly files as input of store 3.
//!
//! The arrays are `FG_CO2_excess(time, nlat, nlon)`, which is `FG_CO2 - FG_ALT_CO2` in mmol/m^3 cm/s for
//! all 180 months, and `TAREA(nlat, nlon)` in cm^2. Both are NaN on land.

use super::series::CaseSeries;
use super::zarr::{self, values};
use super::{StoreRecipe, VisError};
use crate::derive::uptake::{DistanceBins, uptake};
use crate::model::case::MONTHS;
use crate::model::{Case, Grid, LatLon};
use crate::store::{ObjectMeta, Store};

/// Name of the array with the flux.
const EXCESS: &str = "FG_CO2_excess";
/// Suffix of the names of the stores.
pub const SUFFIX: &str = ".excess.zarr";

/// The excess store of a case.
pub struct Excess {
    /// Key of the store below the location of all excess stores.
    folder: String,
    /// Metadata object that identifies the store in case records.
    pub metadata: ObjectMeta,
}

/// Memory to read an excess store on this grid, bytes: the flux of all months and the area.
pub fn memory(grid: &Grid) -> u64 {
    zarr::memory((MONTHS + 1).saturating_mul(grid.tlat.len()))
}

/// Finds the excess store of a case.
///
/// # Errors
/// [`VisError::Zarr`] when it does not exist.
pub async fn find(excesses: &Store, case: Case) -> Result<Excess, VisError> {
    let folder = format!("{case}{SUFFIX}");
    let metadata = zarr::find(excesses, &folder, EXCESS, "--excess-dir").await?;
    Ok(Excess { folder, metadata })
}

impl Excess {
    /// Computes the uptake of each month by distance from `center`, on the T points of `grid`.
    ///
    /// # Errors
    /// An array cannot be read or has another size than the grid.
    pub async fn series(
        &self,
        excesses: &Store,
        case: Case,
        (grid, center): (&Grid, LatLon),
        recipe: &StoreRecipe,
    ) -> Result<CaseSeries, VisError> {
        let url = |name: &str| excesses.location().join(&self.folder).join(name).to_string();
        let points = grid.tlat.len();
        let storage = excesses.zarr(&self.folder, zarr::longest(points * MONTHS)).await?;
        let read = async |name: &str, count: usize, units: &str| {
            values(&storage, &format!("/{name}"), url(name), count..=count, units).await
        };
        let excess = read(EXCESS, points * MONTHS, "mmol/m^3 cm/s").await?;
        let area = read("TAREA", points, "cm^2").await?;
        let bins = DistanceBins::new(grid, center, recipe.reference_compat);
        let zero = vec![0.0; points];
        let months = excess.chunks(points).zip(case.months());
        let uptakes = months.map(|(flux, month)| {
            let flux: Vec<f32> = flux.iter().map(|&v| v as f32).collect();
            Some(uptake(&bins, &flux, &zero, &area, f64::from(month.days())))
        });
        Ok(CaseSeries { uptakes: uptakes.collect(), ..CaseSeries::default() })
    }
}
