//! What a file says of itself and of its month, read without its data.

use super::ranged::Ranged;
use super::{ReadError, Source};
use crate::model::dataset::Header;

/// What a file says of itself and of its month, read without its data.
pub struct Glance {
    /// The header.
    pub header: Header,
    /// Values of `time_bound`.
    pub time_bound: Vec<f64>,
    /// Values of `TLAT` and `TLONG`, where they were asked for.
    pub points: Option<[Vec<f64>; 2]>,
}

/// Reads the header of any NetCDF file.
pub fn header(source: Box<dyn Source>) -> Result<Header, ReadError> {
    Ok(Ranged::open(source)?.header().clone())
}

/// Reads the header and the month, and checks that the data is all there; fetches little more
/// than that, except for the T points.
pub fn glance(source: Box<dyn Source>, with_points: bool) -> Result<Glance, ReadError> {
    let file = Ranged::open(source)?;
    let values = |name: &str| Ok(file.stored(name)?.unwrap_or_default());
    let time_bound = values("time_bound")?;
    let points = with_points.then(|| Ok([values("TLAT")?, values("TLONG")?])).transpose()?;
    Ok(Glance { header: file.header().clone(), time_bound, points })
}
