//! Monthly files, read by range and validated.

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

/// Largest number of time bounds that is read. A valid file has one time; the bound is higher so that an
/// error message can state the number.
const MAX_TIMES: usize = 1 << 12;

/// Largest accepted number of ocean layers; POP grids have 60 or 62.
pub const MAX_LAYERS: usize = 128;

/// An open file whose time is the month in its name, with fields on (nlat, nlon).
pub struct MonthFile {
    /// Reader of the file.
    pub file: RangeReader,
    /// Length of the month, days.
    pub days: f64,
}

impl MonthFile {
    /// Opens a raw or research-grade file and checks that it is the file of this case and month.
    ///
    /// # Errors
    /// The file cannot be read, or has another case, month or number of times.
    pub fn open(
        source: Box<dyn ByteSource>,
        (case, expected): (Case, YearMonth),
    ) -> Result<Self, ValidationError> {
        let file = RangeReader::open(source)?;
        let url = || file.url().to_owned();
        check_title(file.header(), file.url(), case)?;
        check_times(file.header(), file.url())?;
        check_agreement(file.header(), file.url())?;
        for name in ["time", "time_delta"] {
            file.check_value_count(name, MAX_TIMES)?;
        }
        let bounds = match file.time_bounds(MAX_TIMES)? {
            Some(bounds) => bounds,
            None if file.header().variable("time_delta").is_none() => {
                return Err(ReadError::NoVariable {
                    url: url(),
                    variable: "time_bound".to_owned(),
                }
                .into());
            }
            // Research-grade files have the middle and the length of the month instead of bounds.
            None => {
                let (middle, days) = (file.times()?, file.values("time_delta")?);
                let (middle, days) = (middle.first(), days.first());
                middle.zip(days).map(|(m, d)| vec![m - d / 2.0, m + d / 2.0]).unwrap_or_default()
            }
        };
        let (found, [start, end]) = history::month_of(file.url(), &bounds)?;
        if found != expected {
            return Err(ValidationError::Month { url: url(), named: expected, found });
        }
        Ok(Self { file, days: end - start })
    }

    /// Reads the grid points of the file from the variables `lat` and `lon`, in degrees; NaN where they
    /// are fill.
    ///
    /// # Errors
    /// A variable is missing, has another shape, or has values that are not degrees.
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
        self.file.check_value_count(lat, MOST_POINTS)?;
        self.file.check_value_count(lon, MOST_POINTS)?;
        let invalid = |problem| ReadError::Degrees { url: self.file.url().to_owned(), problem };
        if self.shape(lat) != self.shape(lon) {
            return Err(invalid(format!("`{lat}` and `{lon}` have different shapes")));
        }
        let grid = Grid { nlat, nlon, tlat: self.file.values(lat)?, tlong: self.file.values(lon)? };
        check_degrees((lat, &grid.tlat), (lon, &grid.tlong), nlon).map_err(invalid)?;
        Ok(grid)
    }

    /// Checks that the T points of the file, where they are not fill, are those of `grid`. `grid_name` is
    /// the name of the grid for messages.
    pub fn check_points(&self, grid: &Grid, grid_name: &str) -> Result<(), VisError> {
        if let Some(found) = self.shape("TLAT") {
            self.fits(found, (grid.nlat, grid.nlon), grid_name)?;
        }
        let points = |name: &str| match self.file.header().variable(name) {
            None => Ok(Vec::new()),
            Some(_) => self.file.values(name),
        };
        Ok(check_points(&points("TLAT")?, &points("TLONG")?, self.file.url(), grid)?)
    }

    /// Reads a field of the shape of a grid. `grid_name` is the name of the grid for messages.
    ///
    /// # Errors
    /// The variable is missing or has another shape.
    pub fn field(
        &self,
        name: &str,
        grid: GridShape,
        grid_name: &str,
    ) -> Result<FieldValues, VisError> {
        self.check_field(name, grid, grid_name)?;
        let points = grid.0 * grid.1;
        let field = self.file.field(name)?;
        match field.len() {
            found if found < points => {
                let (variable, shape) = (name.to_owned(), "(..., nlat, nlon)".to_owned());
                Err(ReadError::Missing { url: self.file.url().to_owned(), variable, shape }.into())
            }
            _ => Ok(field),
        }
    }

    /// Checks the shape and the attributes of a field, without reading its values. `grid_name` is the name of the
    /// grid for messages.
    ///
    /// # Errors
    /// As for [`Self::field`].
    pub fn check_field(
        &self,
        name: &str,
        grid: GridShape,
        grid_name: &str,
    ) -> Result<(), VisError> {
        if let Some(found) = self.shape(name) {
            self.fits(found, grid, grid_name)?;
        }
        let points = grid.0 * grid.1;
        self.file.check_value_count(name, points.saturating_mul(MAX_LAYERS))?;
        self.file.decoding(name)?;
        Ok(())
    }

    /// Rows and columns of a variable: (0, 0) for one of fewer than two dimensions, `None` without it.
    pub fn shape(&self, name: &str) -> Option<GridShape> {
        match self.file.header().variable(name)?.dims.as_slice() {
            [.., nlat, nlon] => Some((nlat.len, nlon.len)),
            _ => Some((0, 0)),
        }
    }

    /// The error for a field with an infinite value, which only a damaged file has.
    pub fn infinite(&self, what: &str) -> VisError {
        let problem = format!("has an infinite value in {what}");
        VisError::Mismatch { url: self.file.url().to_owned(), problem }
    }

    /// Checks that a field of the file has the shape of a grid.
    pub fn fits(&self, found: GridShape, grid: GridShape, grid_name: &str) -> Result<(), VisError> {
        fits(self.file.url(), found, grid, grid_name)
    }
}

/// Checks that a field of the shape `found` in the file `url` has the shape of a grid. `grid_name` is the
/// name of the grid for messages.
///
/// # Errors
/// [`VisError::Size`] when the shapes differ.
pub fn fits(url: &str, found: GridShape, grid: GridShape, grid_name: &str) -> Result<(), VisError> {
    if found == grid && found.0 > 0 {
        return Ok(());
    }
    let text = |(rows, columns): GridShape| format!("{rows} x {columns}");
    Err(VisError::Size {
        url: url.to_owned(),
        found: text(found),
        other: grid_name.to_owned(),
        expected: text(grid),
    })
}

/// Computes column inventories. Returns the difference between `experiment` and `control`, and the
/// inventories of `experiment`.
pub fn columns(
    experiment: &FieldValues,
    control: &FieldValues,
    thickness: &[f64],
    height: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let columns = match (experiment, control) {
        (FieldValues::Single(experiment), FieldValues::Single(control)) => {
            column::columns(experiment, control, thickness, height)
        }
        _ => {
            let [experiment, control] =
                [experiment, control].map(|field| field.clone().into_doubles());
            column::columns(&experiment, &control, thickness, height)
        }
    };
    (columns.delta, columns.experimental)
}

/// Subtracts the first `points` values of `control` from those of `experiment`. Returns the difference
/// and the values of `experiment`, in f64.
pub fn difference(
    experiment: &FieldValues,
    control: &FieldValues,
    points: usize,
) -> (Vec<f64>, Vec<f64>) {
    let [experiment, control] = [experiment, control].map(|field| match field {
        FieldValues::Single(values) => values.iter().take(points).map(|&v| f64::from(v)).collect(),
        FieldValues::Double(values) => values.iter().take(points).copied().collect::<Vec<f64>>(),
    });
    (experiment.iter().zip(&control).map(|(e, c)| e - c).collect(), experiment)
}
