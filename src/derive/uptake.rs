//! Additional uptake of carbon within distances of the intervention.

use crate::model::{Grid, LatLon};

/// Radii around the center of the polygon, m.
pub const RADII: [f64; 3] = [500e3, 1000e3, 2000e3];
/// Radius of the Earth for distances, m (TEOS-10, `gsw_distance` at the surface).
const EARTH: f64 = 6_371_000.0;
/// Width of the distance bins of the reference program, m; it includes one bin too many.
const REFERENCE_BIN: f64 = 50e3;
/// Seconds in a day.
const DAY: f64 = 86_400.0;
/// cm^3 in a m^3.
const CM3: f64 = 1e6;

/// The distance bin of each cell: the index of the smallest radius that contains it, or 3 for none.
///
/// ```
/// use dor_atlas::derive::uptake::{DistanceBins, uptake};
/// use dor_atlas::model::{Grid, LatLon};
///
/// // Cells at 445 km and at 3336 km of the center, 1 m^2 each.
/// let grid = Grid { nlat: 1, nlon: 2, tlat: vec![0.0; 2], tlong: vec![4.0, 30.0] };
/// let bins = DistanceBins::new(&grid, LatLon { lat: 0.0, lon: 0.0 }, false);
/// let month = uptake(&bins, &[3.0, 2.0], &[1.0, 1.0], &[1e4, 1e4], 1.0);
/// assert_eq!(month.within, [1728.0; 3], "2 mmol/m^3 cm/s for a day");
/// assert_eq!(month.total, 2592.0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistanceBins(Vec<u8>);

impl DistanceBins {
    /// Computes the bins of the T cells of a grid around a center; a cell at the center itself is in
    /// none. `reference_compat` makes every radius 50 km larger, as in the reference program.
    pub fn new(grid: &Grid, center: LatLon, reference_compat: bool) -> Self {
        let extra = if reference_compat { REFERENCE_BIN } else { 0.0 };
        let bin = |(&lat, &lon): (&f64, &f64)| {
            let distance = EARTH * center.angle_to(LatLon { lat, lon });
            let within = |radius: &f64| distance > 0.0 && distance <= radius + extra;
            RADII.iter().position(within).unwrap_or(RADII.len()) as u8
        };
        Self(grid.tlat.iter().zip(&grid.tlong).map(bin).collect())
    }
}

/// Additional uptake of one month, mmol.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uptake {
    /// Uptake within each of [`RADII`].
    pub within: [f64; RADII.len()],
    /// Uptake over all cells.
    pub total: f64,
}

impl Uptake {
    /// Multiplies the uptake by a factor, to correct for another length of the month.
    pub fn times(self, factor: f64) -> Self {
        Self { within: self.within.map(|sum| sum * factor), total: self.total * factor }
    }
}

/// Integrates the additional uptake of one month: `experiment - control` (`FG_CO2` and `FG_ALT_CO2`,
/// mmol/m^3 cm/s) times `area` (`TAREA`, cm^2) times `days`.
pub fn uptake<T: Copy + Into<f64>>(
    bins: &DistanceBins,
    experiment: &[T],
    control: &[T],
    area: &[f64],
    days: f64,
) -> Uptake {
    let mut by_bin = [0.0; RADII.len() + 1];
    for (((&bin, &experiment), &control), area) in
        bins.0.iter().zip(experiment).zip(control).zip(area)
    {
        let flux = (experiment.into() - control.into()) * area;
        if !flux.is_nan() {
            by_bin[usize::from(bin)] += flux;
        }
    }
    let by_bin = by_bin.map(|sum| sum / CM3 * DAY * days);
    let mut within = [0.0; RADII.len()];
    let mut total = 0.0;
    for (sum, within) in by_bin.iter().zip(&mut within) {
        total += sum;
        *within = total;
    }
    Uptake { within, total: total + by_bin[RADII.len()] }
}

/// The additional uptake of all months is 0 or not finite, so that percentages of it are undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoUptake;

/// Computes the cumulative uptake within each radius at the end of each month, in percent of the
/// uptake of all cells and months. Percentages below 0 and above 100 are possible: cells and months
/// can have negative uptake.
///
/// # Errors
/// [`NoUptake`] when a percentage is not finite.
///
/// ```
/// use dor_atlas::derive::uptake::{Uptake, percent};
///
/// let month = Uptake { within: [1.0, 2.0, 3.0], total: 4.0 };
/// assert_eq!(percent(&[month, month]).unwrap(), [[12.5, 25.0, 37.5], [25.0, 50.0, 75.0]]);
/// ```
pub fn percent(months: &[Uptake]) -> Result<Vec<[f32; RADII.len()]>, NoUptake> {
    let total: f64 = months.iter().map(|month| month.total).sum();
    if !total.is_finite() {
        return Err(NoUptake);
    }
    let mut sums = [0.0; RADII.len()];
    let each = months.iter().map(|month| {
        for (sum, within) in sums.iter_mut().zip(month.within) {
            *sum += within;
        }
        let percent = sums.map(|sum| (100.0 * sum / total) as f32);
        if percent.iter().all(|p| p.is_finite()) { Ok(percent) } else { Err(NoUptake) }
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells on the equator at 0, 4, 4.6, 10 and 30 degrees east, which are 0, 445, 512, 1112 and
    /// 3336 km from the center.
    fn grid() -> Grid {
        let tlong = vec![0.0, 4.0, 4.6, 10.0, 30.0];
        Grid { nlat: 1, nlon: 5, tlat: vec![0.0; 5], tlong }
    }

    const CENTER: LatLon = LatLon { lat: 0.0, lon: 360.0 };

    #[test]
    fn a_cell_counts_within_every_radius_that_contains_it() {
        let bins = DistanceBins::new(&grid(), LatLon { lon: 0.0, ..CENTER }, false);
        assert_eq!(bins.0, [3, 0, 1, 2, 3]);
        assert_eq!(
            DistanceBins::new(&grid(), LatLon { lon: 0.0, ..CENTER }, true).0,
            [3, 0, 0, 2, 3]
        );
        let experiment = [1.0, 2.0, 3.0, f32::NAN, 4.0];
        let month = uptake(&bins, &experiment, &[0.0; 5], &[1e6; 5], 1.0);
        assert_eq!(month.within, [2.0, 5.0, 5.0].map(|v| v * 86_400.0));
        assert_eq!(month.total, 10.0 * 86_400.0);
        let percent = percent(&[month, Uptake { total: -month.total / 2.0, ..month }]).unwrap();
        assert_eq!(percent, [[40.0, 100.0, 100.0], [80.0, 200.0, 200.0]]);
    }

    #[test]
    fn a_quarter_of_the_earth_is_10_008_km() {
        let distance = EARTH * CENTER.angle_to(LatLon { lat: 90.0, lon: 12.0 });
        assert!((distance - 10_007_543.398).abs() < 1e-3, "{distance}");
    }

    #[test]
    fn without_uptake_a_percentage_is_an_error() {
        assert_eq!(percent(&[Uptake::default()]), Err(NoUptake));
        let infinite = Uptake { within: [1.0; 3], total: f64::INFINITY };
        assert_eq!(percent(&[infinite]), Err(NoUptake));
    }
}
