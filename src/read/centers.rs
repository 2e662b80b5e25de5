//! Reader of the centers of the ocean polygons.
//!
//! They come from a table with the columns `polygon_id,lon,lat`, or from one NumPy array for each
//! basin: in four files, or in the public archive `data.zip`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use ndarray::Array2;
use ndarray_npy::{ReadNpyError, ReadNpyExt};

use super::ReadError;
use crate::model::LatLon;
use crate::model::case::{BASINS, POLYGONS};

/// Names of the array files, in the order of [`BASINS`]; shape `(polygons of the basin, 2)`, columns
/// longitude and latitude.
pub const BASIN_FILES: [&str; 4] = [
    "Atlantic_final_cluster_centers.npy",
    "Pacific_final_cluster_centers.npy",
    "South_final_cluster_centers_120EEZ_180openocean.npy",
    "Southern_Ocean_final_cluster_centers.npy",
];

/// Largest file of centers that is read, bytes: a hundred times the size of the public archive.
pub const LONGEST_FILE: u64 = 64 << 20;
/// Largest array of a basin in the archive, bytes.
const LONGEST_ARRAY: usize = 1 << 20;
/// Characters of a line that a message quotes.
const QUOTED: usize = 80;

/// The centers of the polygons, by polygon id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Centers(BTreeMap<u16, LatLon>);

impl FromIterator<(u16, LatLon)> for Centers {
    fn from_iter<T: IntoIterator<Item = (u16, LatLon)>>(centers: T) -> Self {
        Self(centers.into_iter().collect())
    }
}

impl Centers {
    /// The center of a polygon; `None` when the file does not contain it.
    pub fn of(&self, polygon: u16) -> Option<LatLon> {
        self.0.get(&polygon).copied()
    }

    /// Parses a table, or a zip archive with the arrays of the basins.
    ///
    /// # Errors
    /// [`ReadError::Centers`].
    pub fn parse(bytes: &[u8], url: &str) -> Result<Self, ReadError> {
        if bytes.starts_with(b"PK") {
            return Self::from_zip(bytes, url);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| refuse(url, "it is not text"))?;
        let mut lines = text.lines().enumerate();
        let header: Vec<_> = lines
            .next()
            .map(|(_, line)| line.trim_start_matches('\u{feff}').split(',').map(str::trim))
            .into_iter()
            .flatten()
            .collect();
        let index_of = |name: &str| {
            let index = header.iter().position(|column| *column == name);
            index.ok_or_else(|| refuse(url, &format!("its first line has no column `{name}`")))
        };
        let (id, lon, lat) = (index_of("polygon_id")?, index_of("lon")?, index_of("lat")?);
        let mut centers = BTreeMap::new();
        for (n, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let number =
                |column: usize| cells.get(column).and_then(|cell| cell.parse::<f64>().ok());
            let polygon = cells.get(id).and_then(|cell| cell.parse().ok());
            let (Some(polygon), Some(lon), Some(lat)) = (polygon, number(lon), number(lat)) else {
                let start: String = line.chars().take(QUOTED).collect();
                let problem = format!("line {} is {start:?}, not an id and two numbers", n + 1);
                return Err(refuse(url, &problem));
            };
            let center = checked_center(polygon, lon, lat, url)?;
            if centers.insert(polygon, center).is_some() {
                return Err(refuse(url, &format!("polygon {polygon} is in it twice")));
            }
        }
        Ok(Self(centers))
    }

    /// Parses the arrays of the four basins, in the order of [`BASIN_FILES`].
    ///
    /// # Errors
    /// [`ReadError::Centers`].
    pub fn from_arrays(arrays: [&[u8]; 4], url: &str) -> Result<Self, ReadError> {
        let mut centers = BTreeMap::new();
        let mut first = 0;
        for ((bytes, file), (_, count)) in arrays.into_iter().zip(BASIN_FILES).zip(BASINS) {
            // The array library allocates memory for the shape in the header without a check.
            let shape = shape_of(bytes).unwrap_or_default();
            if shape != [u64::from(count), 2] {
                let problem = format!("{file} has shape {shape:?}, not ({count}, 2)");
                return Err(refuse(url, &problem));
            }
            let array = read_array(bytes).map_err(|e| refuse(url, &format!("{file}: {e}")))?;
            for (polygon, row) in (first..).zip(array.rows()) {
                centers.insert(polygon, checked_center(polygon, row[0], row[1], url)?);
            }
            first += count;
        }
        Ok(Self(centers))
    }

    fn from_zip(bytes: &[u8], url: &str) -> Result<Self, ReadError> {
        let broken = |e: &dyn std::error::Error| {
            refuse(url, &format!("it is a damaged or truncated zip archive: {e}"))
        };
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| broken(&e))?;
        let names: Vec<String> =
            archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let mut arrays: [Vec<u8>; 4] = Default::default();
        for (array, file) in arrays.iter_mut().zip(BASIN_FILES) {
            let name = names.iter().find(|name| name.rsplit('/').next() == Some(file));
            let name = name.ok_or_else(|| refuse(url, &format!("it does not contain {file}")))?;
            let mut entry = archive.by_name(name).map_err(|e| broken(&e))?;
            let limit = LONGEST_ARRAY as u64 + 1;
            entry.by_ref().take(limit).read_to_end(array).map_err(|e| broken(&e))?;
        }
        Self::from_arrays(arrays.each_ref().map(Vec::as_slice), url)
    }
}

/// The shape in the header of a NumPy array ("NPY format", versions 1 to 3: a length and a Python
/// literal).
fn shape_of(bytes: &[u8]) -> Option<Vec<u64>> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (len, header) = match rest {
        [1, _, a, b, header @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), header),
        [2 | 3, _, a, b, c, d, header @ ..] => {
            (usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).ok()?, header)
        }
        _ => return None,
    };
    let header = std::str::from_utf8(header.get(..len)?).ok()?;
    let (_, shape) = header.split_once("'shape':")?;
    let (shape, _) = shape.trim_start().strip_prefix('(')?.split_once(')')?;
    let lens = shape.split(',').map(str::trim).filter(|len| !len.is_empty());
    lens.map(|len| len.parse().ok()).collect()
}

fn read_array(bytes: &[u8]) -> Result<Array2<f64>, ndarray_npy::ReadNpyError> {
    match Array2::<f64>::read_npy(Cursor::new(bytes)) {
        Err(ReadNpyError::WrongDescriptor(_)) => {
            Ok(Array2::<f32>::read_npy(Cursor::new(bytes))?.mapv(f64::from))
        }
        result => result,
    }
}

fn checked_center(polygon: u16, lon: f64, lat: f64, url: &str) -> Result<LatLon, ReadError> {
    if polygon >= POLYGONS {
        return Err(refuse(url, &format!("polygon {polygon} is not one of 0 to {}", POLYGONS - 1)));
    }
    let is_place = lat.abs() <= 90.0 && lon.abs() <= 720.0;
    is_place.then_some(LatLon { lat, lon }).ok_or_else(|| {
        refuse(url, &format!("the center of polygon {polygon} is {lon}, {lat}: not degrees"))
    })
}

fn refuse(url: &str, problem: &str) -> ReadError {
    ReadError::Centers { url: url.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use ndarray_npy::WriteNpyExt;

    use super::*;

    #[test]
    fn a_table_is_read_by_the_names_of_its_columns() {
        let centers =
            Centers::parse(b"lon,lat,polygon_id\n 349.5,74.25,7\n\n1,-2,9\n", "c").unwrap();
        assert_eq!(centers.of(7), Some(LatLon { lat: 74.25, lon: 349.5 }));
        assert_eq!(centers.of(8), None);
    }

    #[test]
    fn a_file_that_is_no_table_is_rejected_with_its_name() {
        for (text, problem) in [
            ("", "no column `polygon_id`"),
            ("polygon_id,lon,lat\n1,2", "line 2"),
            ("polygon_id,lon,lat\n690,2,3", "polygon 690"),
            ("polygon_id,lon,lat\n1,2,93", "not degrees"),
            ("polygon_id,lon,lat\n1,NaN,3", "not degrees"),
            ("polygon_id,lon,lat\n1,2,3\n1,2,3", "twice"),
            ("PK, but no zip", "truncated zip"),
        ] {
            let error = Centers::parse(text.as_bytes(), "centers.csv").unwrap_err().to_string();
            assert!(error.contains("centers.csv") && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn polygons_are_counted_across_the_arrays_of_the_basins() {
        let arrays = BASINS.map(|(_, count)| {
            let mut bytes = Vec::new();
            let value = |(row, column)| row as f64 / 10.0 + column as f64;
            let array = Array2::from_shape_fn((count.into(), 2), value);
            array.mapv(|v| v as f32).write_npy(&mut bytes).unwrap();
            bytes
        });
        let slices = arrays.each_ref().map(Vec::as_slice);
        let centers = Centers::from_arrays(slices, "folder").unwrap();
        assert_eq!(centers.0.len(), usize::from(POLYGONS));
        assert_eq!(centers.of(155), Some(LatLon { lat: 1.5, lon: 0.5 }));
        let swapped = [slices[1], slices[0], slices[2], slices[3]];
        let error = Centers::from_arrays(swapped, "folder").unwrap_err().to_string();
        assert!(error.contains("Atlantic") && error.contains("not (150, 2)"), "{error}");
        // The header claims 2^40 rows; the file has none.
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 2), }\n";
        let mut huge = b"\x93NUMPY\x01\x00".to_vec();
        huge.extend((header.len() as u16).to_le_bytes());
        huge.extend(header.as_bytes());
        let claims = [&huge, slices[1], slices[2], slices[3]];
        let error = Centers::from_arrays(claims, "folder").unwrap_err().to_string();
        assert!(error.contains("1099511627776"), "{error}");
    }
}
