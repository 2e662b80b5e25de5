//! Readers of POP history, research-grade files, grid files, sea surface height and polygon centers.
//!
//! All readers take their bytes from a [`ByteSource`].

pub(crate) mod bounds;
pub mod centers;
mod classic;
mod filters;
pub mod grid;
mod header;
pub mod history;
mod links;
pub(crate) mod metadata;
mod netcdf_format;
pub mod range_reader;
pub(crate) mod ssh;
mod text;
mod types;
mod validate;

use std::ops::Range;

use bytes::Bytes;

use crate::model::cf::CfError;
use crate::model::{ErrorKind, IoCause, WithErrorKind, YearMonth};

pub use history::History;
pub use range_reader::{FieldValues, RangeReader};

/// The error of a [`ByteSource`] that cannot fetch its bytes.
pub type SourceError = IoCause;

/// The bytes of one file: a sequential stream with random access beside it.
pub trait ByteSource: Send {
    /// Path or URL of the file, for messages.
    fn url(&self) -> &str;
    /// Length of the file in bytes.
    fn len(&self) -> u64;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The next piece of the sequential stream; `None` at the end of the file.
    ///
    /// # Errors
    /// The bytes cannot be fetched.
    fn next(&mut self) -> Result<Option<Bytes>, SourceError>;
    /// The bytes of a range; does not change the position of [`Self::next`].
    ///
    /// # Errors
    /// The bytes cannot be fetched, or the range is outside the file.
    fn range(&mut self, range: Range<u64>) -> Result<Bytes, SourceError>;
}

/// The error of a file that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes could not be fetched.
    #[error("cannot read {url}")]
    Fetch {
        /// Path or URL of the file.
        url: String,
        /// Error that caused this one.
        source: SourceError,
    },
    /// The file has no NetCDF signature.
    #[error(
        "{url} is not a NetCDF file (it begins with {start:?}); copy it again, or name another file"
    )]
    NotNetcdf {
        /// Path or URL of the file.
        url: String,
        /// The first bytes of the file, at most 16, as text.
        start: String,
    },
    /// The file has no bytes.
    #[error("{url} is empty; copy it again")]
    Empty {
        /// Path or URL of the file.
        url: String,
    },
    /// The file does not contain a usable grid.
    #[error("{url} cannot be the grid file (--grid): {problem}")]
    Grid {
        /// Path or URL of the file.
        url: String,
        /// Problem, in words.
        problem: String,
    },
    /// The latitudes and longitudes are outside their range or not in degrees.
    #[error(
        "{url} has latitudes and longitudes that cannot be used: {problem}; correct them, or replace \
         the file"
    )]
    Degrees {
        /// Path or URL of the file.
        url: String,
        /// Problem, in words.
        problem: String,
    },
    /// The file ends before its data does.
    #[error(
        "{url} is truncated: `{variable}` needs bytes up to {needs}, the file has {has}; copy it again"
    )]
    Truncated {
        /// Path or URL of the file.
        url: String,
        /// Name of the first variable whose data is incomplete.
        variable: String,
        /// End of the data of this variable by the header, bytes.
        needs: u64,
        /// Length of the file in bytes.
        has: u64,
    },
    /// The header or the data violates the format.
    #[error("{url} is damaged or truncated; copy it again")]
    Damaged {
        /// Path or URL of the file.
        url: String,
        /// Error that caused this one.
        source: netcdf_reader::Error,
    },
    /// The data of two variables overlaps.
    #[error(
        "{url} is damaged: by its header, the data of `{}` overlaps; copy it again",
        .between.join("` and `")
    )]
    Overlap {
        /// Path or URL of the file.
        url: String,
        /// Names of the two variables.
        between: Vec<String>,
    },
    /// The header contradicts itself or the data about a variable.
    #[error("{url} is damaged: `{variable}` {problem}; copy it again")]
    Contradiction {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Problem, in words.
        problem: String,
    },
    /// Data that was never written, or whose address is lost: reading it would give fill values.
    #[error(
        "{url}: `{variable}` has {found} of its {expected} {what}: it was not written to its end, \
         or the file is damaged; copy it again, or create it again"
    )]
    Unwritten {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Number of chunks, records or blocks in the file.
        found: u64,
        /// Number of chunks, records or blocks that the shape of the variable needs.
        expected: u64,
        /// Unit of the two numbers, such as `chunks`.
        what: String,
    },
    /// An HDF5 object without a counterpart in NetCDF.
    #[error("{url}: `{object}` {what}, which NetCDF cannot represent; remove it from the file")]
    Foreign {
        /// Path or URL of the file.
        url: String,
        /// Path of the dataset or group.
        object: String,
        /// Predicate of the message, such as `is a dataset without dimensions`.
        what: String,
    },
    /// A virtual dataset of HDF5, which refers to data in other files.
    #[error(
        "{url}: `{object}` is a virtual dataset, whose data is in other files, which are not read; \
         copy the data into one file with: nccopy INPUT OUTPUT"
    )]
    Virtual {
        /// Path or URL of the file.
        url: String,
        /// Path of the dataset.
        object: String,
    },
    /// A number or depth of groups above the limit.
    #[error("{url} has {what}; at most {most} are supported; remove groups from the file")]
    Beyond {
        /// Path or URL of the file.
        url: String,
        /// Structure above the limit, in words.
        what: String,
        /// Limit.
        most: usize,
    },
    /// Variables or attributes in groups, which a conversion would drop.
    #[error(
        "{url} has variables or attributes in groups, which a conversion would lose: {}; \
         move them into the root group, or remove them", quoted_list(.paths)
    )]
    Groups {
        /// Path or URL of the file.
        url: String,
        /// Paths of the variables, and of the groups that have attributes only.
        paths: Vec<String>,
    },
    /// A variable with more values than the limit.
    #[error("{url}: `{variable}` has {found} values; at most {most} are expected")]
    TooMany {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Number of values.
        found: usize,
        /// Largest number of values that is read.
        most: usize,
    },
    /// A name that NetCDF does not allow.
    #[error(
        "{url} has the name {name:?}, which NetCDF does not allow; rename it, or copy the file \
         again if this is damage"
    )]
    Name {
        /// Path or URL of the file.
        url: String,
        /// Rejected name.
        name: String,
    },
    /// A name or a text of a NetCDF-4 file that is not UTF-8.
    #[error(
        "{url} has a name or a text that is not UTF-8; rename it, or copy the file again if this \
         is damage"
    )]
    NotUtf8 {
        /// Path or URL of the file.
        url: String,
        /// Error of the reading library.
        source: netcdf_reader::Error,
    },
    /// A data type that history files do not use.
    #[error("{url}: `{object}` has a type that POP history does not use ({dtype})")]
    Type {
        /// Path or URL of the file.
        url: String,
        /// Variable or attribute.
        object: String,
        /// Data type, in words.
        dtype: String,
    },
    /// A history file lacks a variable of the expected shape.
    #[error("{url} has no variable `{variable}` of shape {shape}: it is not POP history")]
    Missing {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Expected shape, in words.
        shape: String,
    },
    /// A required variable is missing.
    #[error("{url} has no variable `{variable}`")]
    NoVariable {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
    },
    /// A month is missing in a time series.
    #[error("{url} has no `{variable}` of {month}")]
    NoMonth {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Missing month.
        month: YearMonth,
    },
    /// The file does not contain a usable series of sea surface height.
    #[error("{url} cannot be the series of sea surface height (--ssh): {problem}")]
    Series {
        /// Path or URL of the file.
        url: String,
        /// Problem, in words.
        problem: String,
    },
    /// The file does not contain usable polygon centers.
    #[error("{url} cannot be the file of polygon centers (--centers): {problem}")]
    Centers {
        /// Path or URL of the file.
        url: String,
        /// Problem, in words.
        problem: String,
    },
    /// The file has no field to convert.
    #[error("{url} has no field on (time, ..., nlat, nlon): it is not POP history")]
    NoField {
        /// Path or URL of the file.
        url: String,
    },
    /// The data is compressed with an unsupported filter.
    #[error(
        "{url}: `{variable}` is compressed with {filter}, which cannot be read; \
         rewrite the file with: nccopy -d 4 -s INPUT OUTPUT"
    )]
    Filter {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Name and number of the HDF5 filter.
        filter: String,
    },
    /// An attribute that is needed to decode a variable is missing or invalid.
    #[error("{url}: {source}")]
    Meaning {
        /// Path or URL of the file.
        url: String,
        /// Error that names the attribute.
        source: CfError,
    },
    /// An invalid value of a variable.
    #[error("{url}: `{variable}` is {value}, which {why}")]
    Value {
        /// Path or URL of the file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Invalid value.
        value: String,
        /// Predicate of the message that says why the value is invalid.
        why: &'static str,
    },
}

impl ReadError {
    /// The error for a file that the reading library rejects.
    fn damaged(url: &str, source: netcdf_reader::Error) -> Self {
        let url = url.to_owned();
        // The library has no error variant for text that is not UTF-8.
        match source.to_string().contains("invalid UTF-8") {
            true => Self::NotUtf8 { url, source },
            false => Self::Damaged { url, source },
        }
    }
}

impl WithErrorKind for ReadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Fetch { source, .. } => source.kind(),
            _ => ErrorKind::BadData,
        }
    }
}

/// A list of names in backticks, abbreviated as in [`abbreviated`].
fn quoted_list(names: &[String]) -> String {
    abbreviated(names.iter().map(|name| format!("`{name}`")).collect())
}

/// The first 5 items of a list, and the number of the remaining ones.
fn abbreviated(mut items: Vec<String>) -> String {
    const SHOWN: usize = 5;
    let hidden = items.len().saturating_sub(SHOWN);
    items.truncate(SHOWN);
    match hidden {
        0 => items.join(", "),
        hidden => format!("{} and {hidden} more", items.join(", ")),
    }
}
