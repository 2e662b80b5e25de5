//! From bytes to the model: POP history, research-grade files, grid files, sea surface height, centres. Bytes come through [`ByteSource`].

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

/// What can go wrong while bytes are fetched, whoever fetches them.
pub type SourceError = IoCause;

/// The bytes of one file: mostly in order, here and there by range.
pub trait ByteSource: Send {
    /// Name for messages.
    fn url(&self) -> &str;
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The next bytes in order; `None` after the last.
    fn next(&mut self) -> Result<Option<Bytes>, SourceError>;
    /// Bytes out of order; does not move the place in the order.
    fn range(&mut self, range: Range<u64>) -> Result<Bytes, SourceError>;
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The bytes could not be fetched.
    #[error("cannot read {url}")]
    Fetch {
        /// File.
        url: String,
        /// Cause.
        source: SourceError,
    },
    /// No NetCDF signature.
    #[error(
        "{url} is not a NetCDF file (it begins with {start:?}); copy it again, or give another"
    )]
    NotNetcdf {
        /// File.
        url: String,
        /// First bytes, as text.
        start: String,
    },
    /// No byte.
    #[error("{url} is empty; copy it again")]
    Empty {
        /// File.
        url: String,
    },
    /// Not a grid that fields could be placed with.
    #[error("{url} cannot be the grid file (--grid): {problem}")]
    Grid {
        /// File.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Latitudes and longitudes that are none.
    #[error(
        "{url} has latitudes and longitudes that cannot be used: {problem}; correct them, or replace \
         the file"
    )]
    Degrees {
        /// File.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The file ends before its data does.
    #[error(
        "{url} is truncated: `{variable}` needs bytes up to {needs}, the file has {has}; copy it again"
    )]
    Truncated {
        /// File.
        url: String,
        /// First variable that is cut.
        variable: String,
        /// Length that the header promises.
        needs: u64,
        /// Length of the file.
        has: u64,
    },
    /// The header or the data contradict the format.
    #[error("{url} is damaged or truncated; copy it again")]
    Damaged {
        /// File.
        url: String,
        /// Cause.
        source: netcdf_reader::Error,
    },
    /// Two variables share bytes.
    #[error(
        "{url} is damaged: its header places `{}` over each other; copy it again",
        .between.join("` and `")
    )]
    Overlap {
        /// File.
        url: String,
        /// The variables.
        between: Vec<String>,
    },
    /// What the header says of a variable is not so.
    #[error("{url} is damaged: `{variable}` {problem}; copy it again")]
    Contradiction {
        /// File.
        url: String,
        /// Variable.
        variable: String,
        /// What is wrong.
        problem: String,
    },
    /// Data that was never written, or whose place is lost: what is read would be fill.
    #[error(
        "{url}: `{variable}` has {found} of its {expected} {what}: it was not written to its end, \
         or the file is damaged; copy it again, or write it anew"
    )]
    Unwritten {
        /// File.
        url: String,
        /// Variable.
        variable: String,
        /// Chunks that are there.
        found: u64,
        /// Chunks that its shape needs.
        expected: u64,
        /// What is counted.
        what: String,
    },
    /// Something of HDF5 that NetCDF has no counterpart of.
    #[error("{url}: `{object}` {what}, which NetCDF does not know; take it out of the file")]
    Foreign {
        /// File.
        url: String,
        /// Dataset.
        object: String,
        /// What it is.
        what: String,
    },
    /// A dataset that is put together from others.
    #[error(
        "{url}: `{object}` is a virtual dataset, whose data lies in other files and is not read from \
         there; put it into one file with: nccopy INPUT OUTPUT"
    )]
    Virtual {
        /// File.
        url: String,
        /// Path of the dataset.
        object: String,
    },
    /// A structure beyond what is followed.
    #[error("{url} has {what}, where at most {most} are followed; take them out of the file")]
    Beyond {
        /// File.
        url: String,
        /// What it has too many of.
        what: String,
        /// The most.
        most: usize,
    },
    /// Data in groups, of which nothing would be converted.
    #[error(
        "{url} has variables or attributes in groups, which would be lost: {}; \
         move them into the root group, or take them out", listed(.paths)
    )]
    Groups {
        /// File.
        url: String,
        /// Paths of the variables, and of groups with nothing but attributes.
        paths: Vec<String>,
    },
    /// More than can be meant.
    #[error("{url}: `{variable}` has {found} values, where at most {most} are expected")]
    TooMany {
        /// File.
        url: String,
        /// Variable.
        variable: String,
        /// Number of values.
        found: usize,
        /// The most.
        most: usize,
    },
    /// A name that NetCDF does not allow.
    #[error(
        "{url} has the name {name:?}, which NetCDF does not allow; rename it, or copy the file \
         again if this is damage"
    )]
    Name {
        /// File.
        url: String,
        /// The name.
        name: String,
    },
    /// A name or a text of a NetCDF-4 file that is not UTF-8.
    #[error(
        "{url} has a name or a text that is not UTF-8; rename it, or copy the file again if this \
         is damage"
    )]
    NotUtf8 {
        /// File.
        url: String,
        /// What the reader found.
        source: netcdf_reader::Error,
    },
    /// A type that history files do not have.
    #[error("{url}: `{object}` has a type that POP history does not use ({dtype})")]
    Type {
        /// File.
        url: String,
        /// Variable or attribute.
        object: String,
        /// The type.
        dtype: String,
    },
    /// Something that must be there is not.
    #[error("{url} has no variable `{variable}` of shape {shape}: it is not POP history")]
    Missing {
        /// File.
        url: String,
        /// Variable.
        variable: String,
        /// Shape it should have.
        shape: String,
    },
    /// A variable that is needed is not there.
    #[error("{url} has no variable `{variable}`")]
    NoVariable {
        /// File.
        url: String,
        /// Variable.
        variable: String,
    },
    /// A month that a series does not have.
    #[error("{url} has no `{variable}` of {month}")]
    NoMonth {
        /// File.
        url: String,
        /// Variable.
        variable: String,
        /// Month.
        month: YearMonth,
    },
    /// Not a series of sea surface height.
    #[error("{url} cannot be the series of sea surface height (--ssh): {problem}")]
    Series {
        /// File.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Not the centres of polygons.
    #[error("{url} cannot be the centres of the polygons (--centers): {problem}")]
    Centers {
        /// File.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing to convert.
    #[error("{url} has no field on (time, ..., nlat, nlon): it is not POP history")]
    NoField {
        /// File.
        url: String,
    },
    /// Compressed in a way that cannot be undone here.
    #[error(
        "{url}: `{variable}` is compressed with {filter}, which cannot be read; \
         rewrite the file with: nccopy -d 4 -s INPUT OUTPUT"
    )]
    Filter {
        /// File.
        url: String,
        /// Variable.
        variable: String,
        /// The HDF5 filter.
        filter: String,
    },
    /// An attribute that leaves open what the numbers of a variable mean.
    #[error("{url}: {source}")]
    Meaning {
        /// File.
        url: String,
        /// The attribute.
        source: CfError,
    },
    /// A value that makes no sense.
    #[error("{url}: `{variable}` is {value}, which {why}")]
    Value {
        /// File.
        url: String,
        /// Variable.
        variable: String,
        /// Value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl ReadError {
    /// What the reading library refuses.
    fn damaged(url: &str, source: netcdf_reader::Error) -> Self {
        let url = url.to_owned();
        // The reader has no kind of its own for it.
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

/// The first names of a list, and how many more there are.
fn listed(names: &[String]) -> String {
    some_of(names.iter().map(|name| format!("`{name}`")).collect())
}

/// The first of a list, and how many more there are.
fn some_of(mut all: Vec<String>) -> String {
    const SHOWN: usize = 5;
    let more = all.len().saturating_sub(SHOWN);
    all.truncate(SHOWN);
    match more {
        0 => all.join(", "),
        more => format!("{} and {more} more", all.join(", ")),
    }
}
