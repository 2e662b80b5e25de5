//! What a file says of itself and of its month, read without its data.

use super::range_reader::RangeReader;
use super::{ByteSource, ReadError};
use crate::model::dataset::Header;
use crate::model::time_units;

/// What a file says of itself and of its month, read without its data.
pub struct FileMetadata {
    /// The header.
    pub header: Header,
    /// The bounds of its time, days since 0000-01-01, where it has the two of one month.
    pub time_bound: Vec<f64>,
    /// Values of `TLAT` and `TLONG`, where they were asked for.
    pub points: Option<[Vec<f64>; 2]>,
    /// Bytes of memory that its conversion takes.
    pub memory: u64,
}

/// Reads the header of any NetCDF file.
pub fn header(source: Box<dyn ByteSource>) -> Result<Header, ReadError> {
    Ok(RangeReader::open(source)?.header().clone())
}

/// Reads the header and the month, and checks that the data is all there; fetches little more
/// than that, except for the T points of a grid with as many as `points`.
pub fn glance(
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
