//! The T points of the horizontal grid, and distances on the sphere.

use serde::{Deserialize, Serialize};

/// The T points of a full grid, without fill values.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Number of rows.
    pub nlat: usize,
    /// Number of columns.
    pub nlon: usize,
    /// Latitude of each T point, degrees north, `(nlat, nlon)` row by row.
    pub tlat: Vec<f64>,
    /// Longitude of each T point, degrees east, 0 to 360, `(nlat, nlon)` row by row.
    pub tlong: Vec<f64>,
}

/// A T point whose position differs between a grid and a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PointMismatch {
    /// Row and column, counted from 0.
    pub index: (usize, usize),
    /// Position in the grid.
    pub grid: LatLon,
    /// Position in the file.
    pub file: LatLon,
    /// Central angle between the two positions, degrees.
    pub degrees: f64,
}

impl Grid {
    /// The T point with the largest distance between this grid and a file.
    ///
    /// `tlat` and `tlong` are the positions in the file, degrees, row by row; points with fill values
    /// or NaN are skipped. `None` when all points are skipped.
    pub fn farthest(&self, tlat: &[f64], tlong: &[f64]) -> Option<PointMismatch> {
        let grid = self.tlat.iter().zip(&self.tlong);
        let file = tlat.iter().zip(tlong);
        let distances = grid.zip(file).enumerate().filter_map(|(n, ((&a, &b), (&c, &d)))| {
            let (grid, file) = (LatLon { lat: a, lon: b }, LatLon { lat: c, lon: d });
            let is_position = c.abs() <= 90.0 && d.abs() <= 720.0;
            is_position.then(|| PointMismatch {
                index: (n / self.nlon, n % self.nlon),
                grid,
                file,
                degrees: grid.angle_to(file).to_degrees(),
            })
        });
        distances.max_by(|a, b| a.degrees.total_cmp(&b.degrees))
    }
}

/// A position on the Earth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatLon {
    /// Latitude, degrees north.
    pub lat: f64,
    /// Longitude, degrees east.
    pub lon: f64,
}

impl LatLon {
    /// Central angle to another position, radians, by the haversine formula, which is accurate for
    /// small distances.
    ///
    /// ```
    /// use dor_atlas::model::LatLon;
    ///
    /// let pole = LatLon { lat: 90.0, lon: 12.0 };
    /// let equator = LatLon { lat: 0.0, lon: 200.0 };
    /// assert!((pole.angle_to(equator).to_degrees() - 90.0).abs() < 1e-12);
    /// ```
    pub fn angle_to(self, other: Self) -> f64 {
        let half_chord = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
        let (across, along) = (half_chord(self.lon - other.lon), half_chord(self.lat - other.lat));
        let square = along + self.lat.to_radians().cos() * other.lat.to_radians().cos() * across;
        2.0 * square.clamp(0.0, 1.0).sqrt().asin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn farthest_handles_the_date_line_the_pole_and_fill() {
        let tlat = vec![0.0, 89.999, 40.0, 50.0];
        let grid = Grid { nlat: 2, nlon: 2, tlat, tlong: vec![359.999, 0.0, 10.0, 20.0] };
        let fill = 9.969_209_968_386_869e36;
        let same = grid.farthest(&[0.0, 89.999, fill, f64::NAN], &[0.001, 180.0, fill, 20.0]);
        assert!((same.unwrap().degrees - 0.002).abs() < 1e-9, "{same:?}");
        let other = grid.farthest(&[0.0, 89.999, 40.0, 49.0], &[-0.001, 0.0, 10.0, 20.0]).unwrap();
        assert_eq!((other.index, other.file), ((1, 1), LatLon { lat: 49.0, lon: 20.0 }));
        assert!((other.degrees - 1.0).abs() < 1e-9);
        assert_eq!(grid.farthest(&[fill; 4], &[fill; 4]), None);
    }
}
