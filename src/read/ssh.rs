//! Reader of the sea surface height of the reference run: `SSH(time, nlat, nlon)`, with time bounds
//! that are months of the noleap calendar.

use std::collections::BTreeMap;

use super::history::month_of;
use super::range_reader::RangeReader;
use super::{ByteSource, ReadError};
use crate::model::YearMonth;

/// Largest number of time bounds: more than any run has.
const MOST_TIMES: usize = 1 << 20;

/// An open series of sea surface height, of which single months are read on request.
pub struct SeaSurfaceHeight {
    file: RangeReader,
    /// Index of each month along `time`.
    months: BTreeMap<YearMonth, usize>,
    shape: (usize, usize),
}

impl SeaSurfaceHeight {
    /// Opens a series and reads its months.
    ///
    /// # Errors
    /// The file cannot be read, has no `SSH` or time bounds of the expected shape, or has a month
    /// twice.
    pub fn open(source: Box<dyn ByteSource>) -> Result<Self, ReadError> {
        let file = RangeReader::open(source)?;
        let missing = |variable: &str, shape: &str| ReadError::Missing {
            url: file.url().to_owned(),
            variable: variable.to_owned(),
            shape: shape.to_owned(),
        };
        let ssh = file.header().variable("SSH").map(|v| v.dims.as_slice());
        let Some([_, nlat, nlon]) = ssh else {
            return Err(missing("SSH", "(time, nlat, nlon)"));
        };
        let shape = (nlat.len, nlon.len);
        file.decoding("SSH")?;
        let bounds = file.time_bounds(MOST_TIMES)?;
        let bounds = bounds.ok_or_else(|| missing("time_bound", "(time, 2)"))?;
        let mut months = BTreeMap::new();
        for (n, bounds) in bounds.chunks(2).enumerate() {
            let (month, _) = month_of(file.url(), bounds)?;
            if let Some(first) = months.insert(month, n) {
                let problem = format!(
                    "its records {first} and {n}, counted from 0, are both {month}; correct their \
                     times, or remove one of them"
                );
                return Err(ReadError::Series { url: file.url().to_owned(), problem });
            }
        }
        Ok(Self { file, months, shape })
    }

    /// Rows and columns of the field of a month.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// Path or URL of the file, for messages.
    pub fn url(&self) -> &str {
        self.file.url()
    }

    /// Checks that the series contains a month.
    ///
    /// # Errors
    /// [`ReadError::NoMonth`].
    pub fn check_month(&self, month: YearMonth) -> Result<(), ReadError> {
        self.index(month).map(drop)
    }

    fn index(&self, month: YearMonth) -> Result<usize, ReadError> {
        self.months.get(&month).copied().ok_or_else(|| ReadError::NoMonth {
            url: self.file.url().to_owned(),
            variable: "SSH".to_owned(),
            month,
        })
    }

    /// The sea surface height of a month, cm, `(nlat, nlon)` row by row; NaN over land.
    ///
    /// # Errors
    /// The series does not contain the month, cannot be read, or has no finite heights.
    pub fn month(&self, month: YearMonth) -> Result<Vec<f64>, ReadError> {
        let map = self.file.slice("SSH", self.index(month)?)?;
        let problem = match () {
            () if map.iter().any(|height| height.is_infinite()) => "an infinite height",
            () if map.iter().all(|height| height.is_nan()) => "no heights at all",
            () => return Ok(map),
        };
        let (url, problem) = (self.file.url().to_owned(), format!("{problem} in {month}"));
        Err(ReadError::Series { url, problem })
    }
}
