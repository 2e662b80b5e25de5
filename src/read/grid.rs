//! Reader of grid files: T points of the full grid, without the fill of history files over land blocks.
//!
//! A grid file is a NetCDF file with `TLAT` and `TLONG`, or the CESM grid file
//! `horiz_grid_20010402.ieeer8`: seven fields of big-endian f8, `(nlat, nlon)` each (ULAT and ULONG in
//! radians, HTN, HTE, HUS, HUW, ANGLE). POP computes the T points from the U points.

use std::f64::consts::{FRAC_PI_2, PI, TAU};

use super::{ByteSource, RangeReader, ReadError};
use crate::model::Grid;
use crate::model::cf::Decoding;
use crate::model::dataset::Dimension;

/// Rows and columns of gx1v7.
const GX1: [usize; 2] = [384, 320];
/// Largest number of points of a grid: the finest ocean models have 8.6 million.
pub const MOST_POINTS: usize = 1 << 24;
/// Fields of the binary grid file with their smallest and largest valid value: angles in radians,
/// lengths in cm up to a quarter of the Earth's circumference.
const FIELDS: [(&str, f64, f64); 7] = [
    ("ULAT", -FRAC_PI_2, FRAC_PI_2),
    ("ULONG", -TAU, TAU),
    ("HTN", 0.0, 1e9),
    ("HTE", 0.0, 1e9),
    ("HUS", 0.0, 1e9),
    ("HUW", 0.0, 1e9),
    ("ANGLE", -PI, PI),
];

/// Reads a grid file, NetCDF or binary; longitudes are normalized to 0 to 360 degrees.
///
/// The binary format does not contain its shape, which must be that of gx1v7, (384, 320).
///
/// # Errors
/// The file cannot be read, or does not contain a latitude and longitude in degrees for each point.
pub fn read(mut source: Box<dyn ByteSource>) -> Result<Grid, ReadError> {
    const BINARY: u64 = (FIELDS.len() * 8 * GX1[0] * GX1[1]) as u64;
    let (url, len) = (source.url().to_owned(), source.len());
    let refuse = |problem: String| ReadError::Grid { url: url.clone(), problem };
    let fetch = |source: &mut dyn ByteSource, len| {
        source.range(0..len).map_err(|source| ReadError::Fetch { url: url.clone(), source })
    };
    let start = fetch(&mut *source, len.min(4))?;
    let is_netcdf = start.starts_with(b"CDF") || start.starts_with(b"\x89HDF");
    let mut grid = if len == BINARY && !is_netcdf {
        from_u_points(&fetch(&mut *source, len)?).map_err(refuse)?
    } else {
        let file = RangeReader::open(source).map_err(|error| match error {
            ReadError::Empty { .. } => refuse("it is empty".to_owned()),
            ReadError::NotNetcdf { start, .. } => refuse(format!(
                "it is neither NetCDF nor the binary grid of gx1v7: {len} bytes that begin with \
                 {start:?}"
            )),
            error => error,
        })?;
        from_netcdf(&file)?
    };
    check(&grid).map_err(refuse)?;
    grid.tlong.iter_mut().for_each(|lon| *lon = within_360(*lon));
    Ok(grid)
}

/// Normalizes a longitude to the range from 0 to less than 360 degrees.
fn within_360(lon: f64) -> f64 {
    // `rem_euclid` rounds a tiny negative number to 360.
    Some(lon.rem_euclid(360.0)).filter(|&lon| lon < 360.0).unwrap_or(0.0)
}

fn from_netcdf(file: &RangeReader) -> Result<Grid, ReadError> {
    let refuse = |problem: String| ReadError::Grid { url: file.url().to_owned(), problem };
    let field = |name: &str| {
        let missing = || refuse(format!("it has no variable `{name}` of shape (nlat, nlon)"));
        let variable = file.header().variable(name).ok_or_else(missing)?;
        let &[Dimension { len: nlat @ 1.., .. }, Dimension { len: nlon @ 1.., .. }] =
            variable.dims.as_slice()
        else {
            return Err(missing());
        };
        // Some grid files have no units; `check_degrees` rejects values that look like radians.
        let units = variable.attribute("units").map(|units| units.as_text().map(str::trim));
        let decoding = match units {
            None | Some(Some("")) => Decoding::without_units(variable),
            _ => Decoding::of(variable),
        };
        let decoding = decoding.map_err(|e| refuse(e.to_string()))?;
        file.check_value_count(name, MOST_POINTS)?;
        Ok(([nlat, nlon], decoding.values(file.stored(variable)?)))
    };
    let (shape, tlat) = field("TLAT")?;
    let (tlong_shape, tlong) = field("TLONG")?;
    if shape != tlong_shape {
        let problem = format!("`TLAT` has shape {shape:?} and `TLONG` has shape {tlong_shape:?}");
        return Err(refuse(problem));
    }
    Ok(Grid { nlat: shape[0], nlon: shape[1], tlat, tlong })
}

/// Checks that each point has a latitude and a longitude in degrees.
fn check(grid: &Grid) -> Result<(), String> {
    for (name, values) in [("TLAT", &grid.tlat), ("TLONG", &grid.tlong)] {
        let is_fill = |v: &f64| v.is_nan() || v.abs() >= 1e30;
        if let Some(n) = values.iter().position(is_fill) {
            return Err(format!(
                "{}, a fill value, as in history files over land blocks; name a file with the full \
                 grid of the model",
                describe_point(name, values, n, grid.nlon)
            ));
        }
    }
    check_degrees(("TLAT", &grid.tlat), ("TLONG", &grid.tlong), grid.nlon)
}

/// Checks that the latitudes and longitudes of a grid or history file are in degrees.
///
/// Each argument is the name of a variable and its values in rows of `nlon`; NaN is a missing value
/// and is skipped.
///
/// # Errors
/// The problem, in words.
pub fn check_degrees(
    (lat, lats): (&str, &[f64]),
    (lon, lons): (&str, &[f64]),
    nlon: usize,
) -> Result<(), String> {
    for (name, values, limit) in [(lat, lats, 90.0), (lon, lons, 720.0)] {
        if let Some(n) = values.iter().position(|v| v.abs() > limit) {
            let point = describe_point(name, values, n, nlon);
            return Err(format!("{point}, outside -{limit} to {limit} degrees"));
        }
        if values.iter().all(|v| v.is_nan()) {
            return Err(format!("`{name}` has only fill values"));
        }
    }
    // The tolerance allows for the rounding of 4-byte values.
    let below = |values: &[f64], limit: f64| !values.iter().any(|v| v.abs() > limit + 1e-6);
    if below(lats, FRAC_PI_2) && below(lons, TAU) {
        return Err(format!("`{lat}` and `{lon}` look like radians; give degrees"));
    }
    Ok(())
}

/// A value with its name and its indexes, in words.
fn describe_point(name: &str, values: &[f64], n: usize, nlon: usize) -> String {
    let (row, column) = (n / nlon.max(1), n % nlon.max(1));
    let value = values.get(n).copied().unwrap_or(f64::NAN);
    format!("`{name}` is {value:e} at nlat {row}, nlon {column}")
}

/// Computes the T points as POP does (`calc_tpoints` in grid.F90 of POP2).
///
/// A T point is the mean of the four surrounding U points on the unit sphere. The first row, which has
/// no U points to the south, is extrapolated from the two rows to the north.
fn from_u_points(bytes: &[u8]) -> Result<Grid, String> {
    let [nlat, nlon] = GX1;
    let value = |field: usize, j: usize, i: usize| {
        let at = 8 * ((field * nlat + j) * nlon + i);
        bytes[at..].first_chunk().map_or(f64::NAN, |b| f64::from_be_bytes(*b))
    };
    for (field, (name, least, largest)) in FIELDS.into_iter().enumerate() {
        for (j, i) in (0..nlat).flat_map(|j| (0..nlon).map(move |i| (j, i))) {
            let value = value(field, j, i);
            if !(least..=largest).contains(&value) {
                return Err(format!(
                    "read as the binary grid of gx1v7, {name} is {value:e} at nlat {j}, nlon {i}, \
                     outside {least} to {largest}"
                ));
            }
        }
    }
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
    Ok(grid)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use bytes::Bytes;

    use super::*;
    use crate::read::SourceError;

    struct InMemorySource(Vec<u8>, &'static str);

    impl ByteSource for InMemorySource {
        fn url(&self) -> &str {
            self.1
        }

        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
            Ok(None)
        }

        fn range(&mut self, range: Range<u64>) -> Result<Bytes, SourceError> {
            Ok(Bytes::copy_from_slice(&self.0[range.start as usize..range.end as usize]))
        }
    }

    fn parse(bytes: &[u8], url: &'static str) -> Result<Grid, ReadError> {
        read(Box::new(InMemorySource(bytes.to_vec(), url)))
    }

    /// A regular grid of U points in the binary format.
    fn binary(lat: impl Fn(usize) -> f64, lon: impl Fn(usize) -> f64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIELDS.len() * 8 * 384 * 320);
        for field in 0..FIELDS.len() {
            for j in 0..384 {
                for i in 0..320 {
                    let value = match field {
                        0 => lat(j).to_radians(),
                        1 => lon(i).to_radians(),
                        6 => 0.0,
                        _ => 1.1e7,
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
        // A point at the periodic boundary, and a point of the extrapolated first row.
        assert!((grid.tlong[200 * 320] - 0.5625).abs() < 1e-9);
        assert!((grid.tlat[7] - (-48.125)).abs() < 1e-2);
    }

    #[test]
    fn other_files_are_rejected_with_their_name() {
        for (bytes, problem) in
            [(&b"hello"[..], "neither NetCDF nor the binary grid"), (b"", "it is empty")]
        {
            let error = parse(bytes, "s3://b/grid").unwrap_err().to_string();
            assert!(error.contains("s3://b/grid") && error.contains(problem), "{error}");
        }
        let mut noise = binary(|j| (j as f64 - 192.0) * 0.25, |i| i as f64);
        noise[8 * 2 * 384 * 320] = 0x80;
        let error = parse(&noise, "grid").unwrap_err().to_string();
        assert!(error.contains("HTN is -"), "{error}");
    }
}
