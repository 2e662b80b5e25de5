//! Excess stores: `CASE.excess.zarr` with the additional air-sea flux of a case, so that the files of
//! its months need not be read again. Arrays, in either version of the Zarr format:
//! `FG_CO2_excess(time, nlat, nlon)`, which is `FG_CO2 - FG_ALT_CO2` in mmol/m^3 cm/s for all 180
//! months, and `TAREA(nlat, nlon)` in cm^2; NaN where there is no water.

use super::series::CaseSeries;
use super::zarr::{self, values};
use super::{StoreRecipe, VisError};
use crate::derive::uptake::{DistanceBins, uptake};
use crate::model::case::MONTHS;
use crate::model::{Case, Grid, LatLon};
use crate::store::{ObjectMeta, Store};

/// Array of the flux.
const EXCESS: &str = "FG_CO2_excess";
/// Ending of the stores' names.
pub const SUFFIX: &str = ".excess.zarr";

/// The excess store of a case.
pub struct Excess {
    folder: String,
    /// Its first metadata object, which stands for it in records.
    pub metadata: ObjectMeta,
}

/// Bytes of memory that reading one on this grid takes: the flux, and with it the area.
pub fn memory(grid: &Grid) -> u64 {
    zarr::memory((MONTHS + 1).saturating_mul(grid.tlat.len()))
}

/// Finds the excess store of a case.
pub async fn find(excesses: &Store, case: Case) -> Result<Excess, VisError> {
    let folder = format!("{case}{SUFFIX}");
    let metadata = zarr::find(excesses, &folder, EXCESS, "--excess-dir").await?;
    Ok(Excess { folder, metadata })
}

impl Excess {
    /// The uptake of each month around a centre, on a grid.
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
        let rings = DistanceBins::new(grid, center, recipe.reference_compat);
        let none = vec![0.0; points];
        let months = excess.chunks(points).zip(case.months());
        let uptakes = months.map(|(month, name)| {
            let month: Vec<f32> = month.iter().map(|&v| v as f32).collect();
            Some(uptake(&rings, &month, &none, &area, f64::from(name.days())))
        });
        Ok(CaseSeries { uptakes: uptakes.collect(), ..CaseSeries::default() })
    }
}
