//! How far from the intervention the sea takes up carbon.

use crate::model::{Grid, LatLon};

/// Radii around the polygon's centre, m.
pub const RADII: [f64; 3] = [500e3, 1000e3, 2000e3];
/// Radius of the Earth that distances are taken with (TEOS-10 `gsw_distance` at the surface), m.
const EARTH: f64 = 6_371_000.0;
/// Width of the reference's distance bins, of which it takes one too many, m.
const REFERENCE_BIN: f64 = 50e3;
/// Seconds of a day.
const DAY: f64 = 86_400.0;
/// cm^3 of a m^3.
const CM3: f64 = 1e6;

/// For each cell the number of the smallest radius that it is within; 3 for none.
///
/// ```
/// use dor_atlas::derive::uptake::{DistanceBins, uptake};
/// use dor_atlas::model::{Grid, LatLon};
///
/// // Cells at 445 km and at 3336 km of the centre, 1 m^2 each.
/// let grid = Grid { nlat: 1, nlon: 2, tlat: vec![0.0; 2], tlong: vec![4.0, 30.0] };
/// let rings = DistanceBins::new(&grid, LatLon { lat: 0.0, lon: 0.0 }, false);
/// let month = uptake(&rings, &[3.0, 2.0], &[1.0, 1.0], &[1e4, 1e4], 1.0);
/// assert_eq!(month.within, [1728.0; 3], "2 mmol/m^3 cm/s for a day");
/// assert_eq!(month.total, 2592.0);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistanceBins(Vec<u8>);

impl DistanceBins {
    /// Of the T cells of a grid, around a centre; the centre itself is within none. With
    /// `reference_compat` the reference's radii, which are 50 km too large.
    pub fn new(grid: &Grid, center: LatLon, reference_compat: bool) -> Self {
        let wider = if reference_compat { REFERENCE_BIN } else { 0.0 };
        let ring = |(&lat, &lon): (&f64, &f64)| {
            let distance = EARTH * center.angle_to(LatLon { lat, lon });
            let within = |radius: &f64| distance > 0.0 && distance <= radius + wider;
            RADII.iter().position(within).unwrap_or(RADII.len()) as u8
        };
        Self(grid.tlat.iter().zip(&grid.tlong).map(ring).collect())
    }
}

/// A month's additional uptake, mmol, within each radius and in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uptake {
    /// Within each of [`RADII`].
    pub within: [f64; RADII.len()],
    /// Over all cells.
    pub total: f64,
}

impl Uptake {
    /// The same uptake at another length of the month.
    pub fn times(self, factor: f64) -> Self {
        Self { within: self.within.map(|sum| sum * factor), total: self.total * factor }
    }
}

/// Adds up a month's additional uptake: `FG_CO2 - FG_ALT_CO2` (mmol/m^3 cm/s) times `area`
/// (`TAREA`, cm^2) times `days`.
pub fn uptake<T: Copy + Into<f64>>(
    rings: &DistanceBins,
    with: &[T],
    without: &[T],
    area: &[f64],
    days: f64,
) -> Uptake {
    let mut by_ring = [0.0; RADII.len() + 1];
    for (((&ring, &with), &without), area) in rings.0.iter().zip(with).zip(without).zip(area) {
        let weight = (with.into() - without.into()) * area;
        if !weight.is_nan() {
            by_ring[usize::from(ring)] += weight;
        }
    }
    let by_ring = by_ring.map(|sum| sum / CM3 * DAY * days);
    let mut within = [0.0; RADII.len()];
    let mut total = 0.0;
    for (sum, within) in by_ring.iter().zip(&mut within) {
        total += sum;
        *within = total;
    }
    Uptake { within, total: total + by_ring[RADII.len()] }
}

/// The additional uptake adds up to nothing, so that no part of it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoUptake;

/// Cumulative uptake within each radius at the end of each month, in percent of the uptake of all
/// months. Percentages below 0 and above 100 occur and are right.
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

    /// Cells on the equator, 0, 4, 4.6, 10 and 30 degrees east: 0, 445, 512, 1112 and 3336 km.
    fn grid() -> Grid {
        let tlong = vec![0.0, 4.0, 4.6, 10.0, 30.0];
        Grid { nlat: 1, nlon: 5, tlat: vec![0.0; 5], tlong }
    }

    const CENTER: LatLon = LatLon { lat: 0.0, lon: 360.0 };

    #[test]
    fn cells_count_within_every_radius_that_reaches_them() {
        let rings = DistanceBins::new(&grid(), LatLon { lon: 0.0, ..CENTER }, false);
        assert_eq!(rings.0, [3, 0, 1, 2, 3]);
        assert_eq!(
            DistanceBins::new(&grid(), LatLon { lon: 0.0, ..CENTER }, true).0,
            [3, 0, 0, 2, 3]
        );
        let with = [1.0, 2.0, 3.0, f32::NAN, 4.0];
        let month = uptake(&rings, &with, &[0.0; 5], &[1e6; 5], 1.0);
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
    fn without_uptake_there_is_no_percentage() {
        assert_eq!(percent(&[Uptake::default()]), Err(NoUptake));
        let infinite = Uptake { within: [1.0; 3], total: f64::INFINITY };
        assert_eq!(percent(&[infinite]), Err(NoUptake));
    }
}
