//! Points of the map: the centers of square cells in Web Mercator (EPSG:3857).

use std::f64::consts::PI;

use crate::model::LatLon;

/// Number of cells along each side of a tile.
pub const TILE: usize = 128;
/// Half the width of the map, m: half the equator of a sphere of [`RADIUS`].
const HALF_WIDTH: f64 = 20_037_508.342_789_244;
/// Radius of the sphere of the projection, m.
const RADIUS: f64 = 6_378_137.0;

/// Number of cells along each side of a level: 128 at level 0, 256 at level 1, 512 at level 2.
pub fn size(level: u8) -> usize {
    TILE << level
}

/// x coordinates of the columns of a level, m, from west to east.
pub fn x(level: u8) -> Vec<f64> {
    let n = size(level) as f64;
    (0..size(level)).map(|i| -HALF_WIDTH + (i as f64 + 0.5) * 2.0 * HALF_WIDTH / n).collect()
}

/// y coordinates of the rows of a level, m, from north to south.
pub fn y(level: u8) -> Vec<f64> {
    let n = size(level) as f64;
    (0..size(level)).map(|j| HALF_WIDTH - (j as f64 + 0.5) * 2.0 * HALF_WIDTH / n).collect()
}

/// Latitude and longitude of the point with these coordinates in m: the inverse projection.
///
/// ```
/// use dor_atlas::regrid::mercator::{self, TILE};
///
/// let (x, y) = (mercator::x(0), mercator::y(0));
/// assert_eq!((x.len(), y.len()), (TILE, TILE));
/// let first = mercator::inverse(x[0], y[0]);
/// assert!(first.lat > 84.0 && first.lon < -178.0, "rows go north to south, columns west to east");
/// ```
pub fn inverse(x: f64, y: f64) -> LatLon {
    let lat = PI / 2.0 - 2.0 * (-y / RADIUS).exp().atan();
    LatLon { lat: lat.to_degrees(), lon: (x / RADIUS).to_degrees() }
}

/// Fractional row index of a latitude; 0 is the center of the northernmost row.
pub(super) fn row_at(lat: f64, level: u8) -> f64 {
    let y = RADIUS * (PI / 4.0 + lat.to_radians() / 2.0).tan().ln();
    (HALF_WIDTH - y) / (2.0 * HALF_WIDTH) * size(level) as f64 - 0.5
}

/// Fractional column index of a longitude; it is not wrapped at the edge of the map.
pub(super) fn column_at(lon: f64, level: u8) -> f64 {
    (lon + 180.0) / 360.0 * size(level) as f64 - 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_and_column_indices_invert_the_projection() {
        for level in [0, 1, 3] {
            for (n, (x, y)) in x(level).into_iter().zip(y(level)).enumerate() {
                let point = inverse(x, y);
                assert!((row_at(point.lat, level) - n as f64).abs() < 1e-6);
                assert!((column_at(point.lon, level) - n as f64).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn the_map_ends_at_85_degrees() {
        let corner = inverse(-HALF_WIDTH, HALF_WIDTH);
        assert!((corner.lat - 85.051_128_779_806_59).abs() < 1e-9);
        assert!((corner.lon + 180.0).abs() < 1e-9);
    }
}
