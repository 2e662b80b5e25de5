//! What a file says of itself and of its month, read without its data.

use super::ranged::Ranged;
use super::{ReadError, Source};
use crate::model::clock;
use crate::model::dataset::Header;

/// What a file says of itself and of its month, read without its data.
pub struct Glance {
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
pub fn header(source: Box<dyn Source>) -> Result<Header, ReadError> {
    Ok(Ranged::open(source)?.header().clone())
}

/// Reads the header and the month, and checks that the data is all there; fetches little more
/// than that, except for the T points of a grid with as many as `points`.
pub fn glance(source: Box<dyn Source>, points: Option<usize>) -> Result<Glance, ReadError> {
    let file = Ranged::open(source)?;
    file.check_all()?;
    let values = |name: &str, count: usize| match file.header().variable(name) {
        Some(variable) if variable.len() == count => file.values(name),
        _ => Ok(Vec::new()),
    };
    let time_bound = match clock::time_bounds(file.header()) {
        Some(bounds) if bounds.len() == 2 => file.time_bounds(2)?.unwrap_or_default(),
        _ => Vec::new(),
    };
    let points = points.map(|n| Ok([values("TLAT", n)?, values("TLONG", n)?])).transpose()?;
    Ok(Glance { header: file.header().clone(), time_bound, points, memory: file.memory() })
}
