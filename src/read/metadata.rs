//! Reads the header and the month of a NetCDF file without its data.

use super::range_reader::RangeReader;
use super::{ByteSource, ReadError};
use crate::model::dataset::Header;
use crate::model::time_units;

/// Header, month and T points of a NetCDF file.
pub struct FileMetadata {
    /// Dimensions, variables and attributes.
    pub header: Header,
    /// Start and end of the month, days since 0000-01-01; empty unless the file has exactly two
    /// time bounds.
    pub time_bound: Vec<f64>,
    /// Values of `TLAT` and `TLONG` in degrees, each empty when the file has another number of
    /// points; `None` when they were not requested.
    pub points: Option<[Vec<f64>; 2]>,
    /// Memory that the conversion of the file takes, bytes.
    pub memory: u64,
}

/// Reads the header of a NetCDF file.
///
/// # Errors
/// The file cannot be read, is not NetCDF, or is damaged.
pub fn header(source: Box<dyn ByteSource>) -> Result<Header, ReadError> {
    Ok(RangeReader::open(source)?.header().clone())
}

/// Reads the header and the month of a file, and checks that all data is present.
///
/// `points` is the number of T points of the grid: when it is given, `TLAT` and `TLONG` are read,
/// too. No other data is fetched.
///
/// # Errors
/// The file cannot be read, is not NetCDF, is damaged or incomplete, or has data in groups.
pub fn read_metadata(
    source: Box<dyn ByteSource>,
    points: Option<usize>,
) -> Result<FileMetadata, ReadError> {
    let file = RangeReader::open(source)?;
    file.check_all()?;
    let values = |name: &str, count: usize| match file.header().variable(name) {
        Some(variable) if variable.len() == count => file.values(name),
        _ => Ok(Vec::new()),
    };
    let time_bound = match time_units::time_bounds(file.header()) {
        Some(bounds) if bounds.len() == 2 => file.time_bounds(2)?.unwrap_or_default(),
        _ => Vec::new(),
    };
    let points = points.map(|n| Ok([values("TLAT", n)?, values("TLONG", n)?])).transpose()?;
    Ok(FileMetadata { header: file.header().clone(), time_bound, points, memory: file.memory() })
}
