//! The full horizontal grid: T points without the fill that history files have over land blocks.
//!
//! Either a NetCDF file with `TLAT` and `TLONG`, or the CESM grid file
//! `horiz_grid_20010402.ieeer8`: big-endian f8, seven fields of `nlat` x `nlon` (ULAT, ULONG in
//! radians, HTN, HTE, HUS, HUW, ANGLE), from whose U points POP makes the T points.

use netcdf_reader::NcFile;

use super::ReadError;
use crate::model::Grid;

/// Fields of the binary grid file.
const FIELDS: usize = 7;

/// The grid in the bytes of a grid file of either form.
///
/// The binary form does not say its shape: it must be that of gx1v7, 384 x 320.
pub fn parse(bytes: &[u8], url: &str) -> Result<Grid, ReadError> {
    let (nlat, nlon) = (384, 320);
    if bytes.len() == FIELDS * 8 * nlat * nlon {
        return Ok(from_u_points(bytes, nlat, nlon));
    }
    let is_netcdf = bytes.starts_with(b"CDF") || bytes.starts_with(b"\x89HDF");
    if !is_netcdf {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(16)]).into_owned();
        return Err(ReadError::NotNetcdf { url: url.to_owned(), start });
    }
    let damaged = |source| ReadError::Damaged { url: url.to_owned(), source };
    let file = NcFile::from_bytes(bytes).map_err(damaged)?;
    let field = |name: &str| {
        let missing = || ReadError::Missing {
            url: url.to_owned(),
            variable: name.to_owned(),
            shape: "(nlat, nlon)".to_owned(),
        };
        let values = file.read_variable_as_f64(name).map_err(|_| missing())?;
        let &[nlat, nlon] = values.shape() else { return Err(missing()) };
        Ok((nlat, nlon, values.into_iter().collect::<Vec<f64>>()))
    };
    let (nlat, nlon, tlat) = field("TLAT")?;
    let (nlat_again, nlon_again, tlong) = field("TLONG")?;
    if (nlat, nlon) != (nlat_again, nlon_again) {
        return Err(ReadError::Value {
            url: url.to_owned(),
            variable: "TLONG".to_owned(),
            value: format!("{nlat_again} x {nlon_again}"),
            why: "is not the shape of TLAT",
        });
    }
    Ok(Grid { nlat, nlon, tlat, tlong })
}

/// T points as POP makes them (`calc_tpoints` of POP2's grid.F90): the mean of the four
/// surrounding U points on the unit sphere; the first row, which has no U points south of it,
/// is extrapolated from the rows above.
fn from_u_points(bytes: &[u8], nlat: usize, nlon: usize) -> Grid {
    let value = |field: usize, j: usize, i: usize| {
        let at = 8 * ((field * nlat + j) * nlon + i);
        bytes[at..].first_chunk().map_or(f64::NAN, |b| f64::from_be_bytes(*b))
    };
    let unit = |j: usize, i: usize| {
        let (lat, lon) = (value(0, j, i), value(1, j, i));
        [lon.cos() * lat.cos(), lon.sin() * lat.cos(), lat.sin()]
    };
    let mut grid = Grid { nlat, nlon, tlat: vec![0.0; nlat * nlon], tlong: vec![0.0; nlat * nlon] };
    for j in 1..nlat {
        for i in 0..nlon {
            let west = (i + nlon - 1) % nlon;
            let corners = [unit(j, i), unit(j - 1, i), unit(j, west), unit(j - 1, west)];
            let [x, y, z] = [0, 1, 2].map(|c| corners.iter().map(|p| p[c]).sum::<f64>() / 4.0);
            let at = j * nlon + i;
            grid.tlat[at] = (z / (x * x + y * y + z * z).sqrt()).asin().to_degrees();
            grid.tlong[at] = y.atan2(x).to_degrees().rem_euclid(360.0);
        }
    }
    for i in 0..nlon {
        grid.tlat[i] = 2.0 * grid.tlat[nlon + i] - grid.tlat[2 * nlon + i];
        grid.tlong[i] = grid.tlong[nlon + i];
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A regular grid of U points, in the binary form.
    fn binary(lat: impl Fn(usize) -> f64, lon: impl Fn(usize) -> f64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIELDS * 8 * 384 * 320);
        for field in 0..FIELDS {
            for j in 0..384 {
                for i in 0..320 {
                    let value = match field {
                        0 => lat(j).to_radians(),
                        1 => lon(i).to_radians(),
                        _ => 0.0,
                    };
                    bytes.extend_from_slice(&value.to_be_bytes());
                }
            }
        }
        bytes
    }

    #[test]
    fn t_points_lie_half_a_cell_south_west_of_u_points() {
        let lon = |i: usize| (i as f64 + 1.0) * 1.125;
        let bytes = binary(|j| (j as f64 - 192.0) * 0.25, lon);
        let grid = parse(&bytes, "grid").unwrap();
        let at = 200 * 320 + 7;
        assert!((grid.tlong[at] - (lon(7) - 0.5625)).abs() < 1e-9);
        assert!((grid.tlat[at] - 1.875).abs() < 1e-4);
        // Across the periodic boundary, and in the extrapolated first row.
        assert!((grid.tlong[200 * 320] - 0.5625).abs() < 1e-9);
        assert!((grid.tlat[7] - (-48.125)).abs() < 1e-2);
    }

    #[test]
    fn other_bytes_are_refused_by_name() {
        let error = parse(b"hello", "s3://b/grid").unwrap_err();
        assert!(error.to_string().contains("s3://b/grid"));
    }
}
