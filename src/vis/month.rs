//! A month's file, opened by range and checked.

use super::VisError;
use crate::derive::column;
use crate::model::{Case, Grid, YearMonth};
use crate::read::grid::{MOST_POINTS, check_degrees};
use crate::read::{ByteSource, FieldValues, RangeReader, ReadError, history};
use crate::research::validate::{
    ValidationError, check_agreement, check_points, check_times, check_title,
};

/// Rows and columns of a grid.
pub type GridShape = (usize, usize);

/// Times of a monthly file, with room for a message that tells how many there are.
const MOST_TIMES: usize = 1 << 12;

/// Layers of the ocean: POP has 60 or 62.
pub const MOST_LAYERS: usize = 128;

/// A file of the month that its name says, on (nlat, nlon).
pub struct MonthFile {
    /// The file.
    pub file: RangeReader,
    /// Length of the month, days.
    pub days: f64,
}

impl MonthFile {
    /// Opens a raw or research-grade file of a case.
    pub fn open(
        source: Box<dyn ByteSource>,
        (case, named): (Case, YearMonth),
    ) -> Result<Self, ValidationError> {
        let file = RangeReader::open(source)?;
        let url = || file.url().to_owned();
        check_title(file.header(), file.url(), case)?;
        check_times(file.header(), file.url())?;
        check_agreement(file.header(), file.url())?;
        for name in ["time", "time_delta"] {
            file.at_most(name, MOST_TIMES)?;
        }
        let bounds = match file.time_bounds(MOST_TIMES)? {
            Some(bounds) => bounds,
            None if file.header().variable("time_delta").is_none() => {
                return Err(ReadError::NoVariable {
                    url: url(),
                    variable: "time_bound".to_owned(),
                }
                .into());
            }
            // Research-grade files have the middle and the length instead.
            None => {
                let (middle, days) = (file.times()?, file.values("time_delta")?);
                let (middle, days) = (middle.first(), days.first());
                middle.zip(days).map(|(m, d)| vec![m - d / 2.0, m + d / 2.0]).unwrap_or_default()
            }
        };
        let (found, [start, end]) = history::month_of(file.url(), &bounds)?;
        if found != named {
            return Err(ValidationError::Month { url: url(), named, found });
        }
        Ok(Self { file, days: end - start })
    }

    /// Points of its own in degrees, NaN where they are fill.
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
        self.file.at_most(lat, MOST_POINTS)?;
        self.file.at_most(lon, MOST_POINTS)?;
        let refuse = |problem| ReadError::Degrees { url: self.file.url().to_owned(), problem };
        if self.shape(lat) != self.shape(lon) {
            return Err(refuse(format!("`{lat}` and `{lon}` have different shapes")));
        }
        let grid = Grid { nlat, nlon, tlat: self.file.values(lat)?, tlong: self.file.values(lon)? };
        check_degrees((lat, &grid.tlat), (lon, &grid.tlong), nlon).map_err(refuse)?;
        Ok(grid)
    }

    /// The points of a grid, which is that of `other`, are where the file has its own, as far as
    /// those are not fill.
    pub fn check_points(&self, grid: &Grid, other: &str) -> Result<(), VisError> {
        if let Some(found) = self.shape("TLAT") {
            self.fits(found, (grid.nlat, grid.nlon), other)?;
        }
        let own = |name: &str| match self.file.header().variable(name) {
            None => Ok(Vec::new()),
            Some(_) => self.file.values(name),
        };
        Ok(check_points(&own("TLAT")?, &own("TLONG")?, self.file.url(), grid)?)
    }

    /// A field on the points of a grid, which is that of `other`.
    pub fn field(&self, name: &str, grid: GridShape, other: &str) -> Result<FieldValues, VisError> {
        if let Some(found) = self.shape(name) {
            self.fits(found, grid, other)?;
        }
        let points = grid.0 * grid.1;
        self.file.at_most(name, points.saturating_mul(MOST_LAYERS))?;
        let field = self.file.field(name)?;
        match field.len() {
            found if found < points => {
                let (variable, shape) = (name.to_owned(), "(..., nlat, nlon)".to_owned());
                Err(ReadError::Missing { url: self.file.url().to_owned(), variable, shape }.into())
            }
            _ => Ok(field),
        }
    }

    /// Rows and columns of a field.
    pub fn shape(&self, name: &str) -> Option<GridShape> {
        match self.file.header().variable(name)?.dims.as_slice() {
            [.., nlat, nlon] => Some((nlat.len, nlon.len)),
            _ => Some((0, 0)),
        }
    }

    /// A point that is infinite is damage, not a value.
    pub fn infinite(&self, what: &str) -> VisError {
        let problem = format!("has an infinite value in {what}");
        VisError::Mismatch { url: self.file.url().to_owned(), problem }
    }

    /// Refuses another grid than that of `other`.
    pub fn fits(&self, found: GridShape, grid: GridShape, other: &str) -> Result<(), VisError> {
        fits(self.file.url(), found, grid, other)
    }
}

/// Refuses a file on other points than those of `other`.
pub fn fits(url: &str, found: GridShape, grid: GridShape, other: &str) -> Result<(), VisError> {
    if found == grid && found.0 > 0 {
        return Ok(());
    }
    let text = |(rows, columns): GridShape| format!("{rows} x {columns}");
    Err(VisError::Size {
        url: url.to_owned(),
        found: text(found),
        other: other.to_owned(),
        expected: text(grid),
    })
}

/// The difference of the columns of two fields and the columns of the first.
pub fn columns(
    with: &FieldValues,
    without: &FieldValues,
    thickness: &[f64],
    height: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let columns = match (with, without) {
        (FieldValues::Single(with), FieldValues::Single(without)) => {
            column::columns(with, without, thickness, height)
        }
        _ => {
            let [with, without] = [with, without].map(|field| field.clone().into_doubles());
            column::columns(&with, &without, thickness, height)
        }
    };
    (columns.delta, columns.experimental)
}

/// The difference of two fields and the first itself, in f64: of as many points of each.
pub fn difference(
    with: &FieldValues,
    without: &FieldValues,
    points: usize,
) -> (Vec<f64>, Vec<f64>) {
    let [with, without] = [with, without].map(|field| match field {
        FieldValues::Single(values) => values.iter().take(points).map(|&v| f64::from(v)).collect(),
        FieldValues::Double(values) => values.iter().take(points).copied().collect::<Vec<f64>>(),
    });
    (with.iter().zip(&without).map(|(w, o)| w - o).collect(), with)
}
