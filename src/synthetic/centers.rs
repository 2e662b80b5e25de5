//! Synthetic centers of the 690 polygons, spread evenly over their basins.

use std::sync::LazyLock;

use super::grid::{pacific, wrap};
use super::land::Land;
use crate::model::case::POLYGONS;

/// Longitude (0 to 360) and latitude of the center of every polygon in degrees, by polygon id.
///
/// Candidates come from a low-discrepancy sequence on the sphere. Each basin takes its first candidates
/// that are at least 1.5 degrees off the coast.
pub static CENTERS: LazyLock<Vec<(f64, f64)>> = LazyLock::new(|| {
    let land = Land::new();
    let mut basins: [Vec<(f64, f64)>; 4] = Default::default();
    let counts = [150, 200, 300, 40];
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    // Steps of the R2 sequence of Martin Roberts, from the plastic number.
    let (a, b) = (0.754_877_666_246_693, 0.569_840_290_998_053);
    for n in 0..20_000 {
        let lon = (golden + a * f64::from(n)).fract() * 360.0;
        let lat = (2.0 * (golden + b * f64::from(n)).fract() - 1.0).asin().to_degrees();
        let Some(basin) = basin(wrap(lon), lat) else { continue };
        if basins[basin].len() < counts[basin] && land.inland(wrap(lon), lat) < -1.5 {
            basins[basin].push((lon, lat));
        }
        if basins.iter().zip(counts).all(|(b, count)| b.len() == count) {
            break;
        }
    }
    let centers = basins.concat();
    debug_assert_eq!(centers.len(), usize::from(POLYGONS));
    centers
});

/// Index of the basin in the catalogue; `None` outside the four basins.
fn basin(lon: f64, lat: f64) -> Option<usize> {
    let mediterranean = (-5.5..42.0).contains(&lon) && (30.0..48.0).contains(&lat);
    match lat {
        _ if mediterranean => None,
        -70.0..-50.0 => Some(3),
        -50.0..0.0 => Some(2),
        0.0..63.0 if pacific(lon, lat) => Some(1),
        0.0..74.0 if (-98.0..14.0).contains(&lon) => Some(0),
        // The northern Indian Ocean belongs to the basin `South`.
        0.0..25.0 if (40.0..100.0).contains(&lon) => Some(2),
        _ => None,
    }
}
