//! A month's file, opened by range and checked.

use super::VisError;
use crate::model::{Grid, YearMonth};
use crate::pipeline::ObjectSource;
use crate::read::{Ranged, ReadError, history};
use crate::research::check::CheckError;

/// A file of the month that its name says, on (nlat, nlon).
pub struct MonthFile {
    /// The file.
    pub file: Ranged,
    /// Length of the month, days.
    pub days: f64,
}

impl MonthFile {
    /// Opens a raw or research-grade file.
    pub fn open(source: ObjectSource, named: YearMonth) -> Result<Self, CheckError> {
        let file = Ranged::open(Box::new(source))?;
        let bounds = match file.stored("time_bound")? {
            Some(bounds) => bounds,
            // Research-grade files have the middle and the length instead.
            None => {
                let one = |name: &str| Ok::<_, ReadError>(file.values(name)?.first().copied());
                let (middle, days) = (one("time")?, one("time_delta")?);
                middle.zip(days).map(|(m, d)| vec![m - d / 2.0, m + d / 2.0]).unwrap_or_default()
            }
        };
        let (found, [start, end]) = history::month_of(file.url(), &bounds)?;
        if found != named {
            return Err(CheckError::Month { url: file.url().to_owned(), named, found });
        }
        Ok(Self { file, days: end - start })
    }

    /// Points of its own, NaN where they are fill.
    pub fn grid(&self, lat: &str, lon: &str) -> Result<Grid, ReadError> {
        let variable = |name: &str| {
            let missing = || ReadError::NoVariable {
                url: self.file.url().to_owned(),
                variable: name.to_owned(),
            };
            self.file.header().variable(name).ok_or_else(missing)
        };
        let dims = &variable(lat)?.dims;
        let [.., nlat, nlon] = dims.as_slice() else {
            return Err(ReadError::Missing {
                url: self.file.url().to_owned(),
                variable: lat.to_owned(),
                shape: "(nlat, nlon)".to_owned(),
            });
        };
        let (nlat, nlon) = (nlat.len, nlon.len);
        let grid = Grid { nlat, nlon, tlat: self.file.values(lat)?, tlong: self.file.values(lon)? };
        Ok(grid)
    }

    /// A field of 4-byte floats on the points of a grid, which is that of `other`.
    pub fn field(&self, name: &str, points: usize, other: &str) -> Result<Vec<f32>, VisError> {
        let dims = self.file.header().variable(name).map(|v| v.dims.as_slice());
        let found = match dims {
            Some([.., nlat, nlon]) => nlat.len * nlon.len,
            _ => 0,
        };
        if dims.is_some() {
            self.fits(found, points, other)?;
        }
        Ok(self.file.floats(name)?)
    }

    /// A point that is infinite is damage, not a value.
    pub fn infinite(&self, what: &str) -> VisError {
        let problem = format!("has an infinite value in {what}");
        VisError::Mismatch { url: self.file.url().to_owned(), problem }
    }

    /// Refuses another number of points than the grid's.
    pub fn fits(&self, found: usize, points: usize, other: &str) -> Result<(), VisError> {
        if found == points && points > 0 {
            return Ok(());
        }
        Err(VisError::Size {
            url: self.file.url().to_owned(),
            found,
            other: other.to_owned(),
            expected: points,
        })
    }
}
