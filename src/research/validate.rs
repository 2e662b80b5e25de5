//! What is wrong with raw files, found out from their headers before anything is written.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::encode::research;
use crate::model::atlas::MapVariable;
use crate::model::dataset::{DataType, Dimension, Header, Variable};
use crate::model::grid::PointMismatch;
use crate::model::{Case, Grid, YearMonth};
use crate::model::{ErrorKind, WithErrorKind, case};
use crate::read::metadata::{self, FileMetadata};
use crate::read::{ByteSource, ReadError, history};

/// A raw file cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    /// The raw file cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file stands for another month than its name says.
    #[error("{url} is named after {named} but its time_bound is {found}; rename it or replace it")]
    Month {
        /// Raw file.
        url: String,
        /// Month of the name.
        named: YearMonth,
        /// Month of the data.
        found: YearMonth,
    },
    /// The horizontal grid is not that of the grid file.
    #[error(
        "{url} has `{variable}` on {found} points where the grid file has {expected}; \
         give the grid file of this model grid (--grid)"
    )]
    Grid {
        /// Raw file.
        url: String,
        /// Variable.
        variable: String,
        /// Shape in the raw file, nlat x nlon.
        found: String,
        /// Shape of the grid, nlat x nlon.
        expected: String,
    },
    /// The points of the grid file are not those of the data.
    #[error(
        "{url} has the T point nlat {}, nlon {} at {:.4} N {:.4} E where the grid file has {:.4} N {:.4} E; \
         give the grid file of this model grid (--grid)",
        .distance.index.0, .distance.index.1, .distance.file.lat, .distance.file.lon,
        .distance.grid.lat, .distance.grid.lon
    )]
    Elsewhere {
        /// Raw file.
        url: String,
        /// The point that is farthest off.
        distance: PointMismatch,
    },
    /// The variables are not those of the other files.
    #[error(
        "{url} differs from the other months: {difference}; \
         replace it, or move it away (--allow-missing converts the others)"
    )]
    Differs {
        /// Raw file.
        url: String,
        /// In what.
        difference: String,
    },
    /// No record in a file.
    #[error(
        "{url} has no record, its `time` has length 0: the run ended before it wrote one; \
         replace it, or move it away (--allow-missing converts the others)"
    )]
    NoRecord {
        /// Raw file.
        url: String,
    },
    /// A variable without a value.
    #[error(
        "{url}: `{variable}` has no values, for `{dimension}` has length 0; \
         take it out of the file: ncks -x -v {variable} INPUT OUTPUT"
    )]
    Empty {
        /// Raw file.
        url: String,
        /// Variable.
        variable: String,
        /// Its dimension of length 0.
        dimension: String,
    },
    /// A variable that does not fit into a chunk.
    #[error(
        "{url}: `{variable}` takes {bytes} bytes, and a research-grade file keeps each variable \
         as one chunk, of less than 4 GiB; take it out of the file: ncks -x -v {variable} INPUT OUTPUT"
    )]
    TooLarge {
        /// Raw file.
        url: String,
        /// Variable.
        variable: String,
        /// Bytes of its data.
        bytes: usize,
    },
    /// More than one time in a file.
    #[error("{url} has {found} times where a monthly file has one")]
    Times {
        /// Raw file.
        url: String,
        /// Number of times.
        found: usize,
    },
    /// A dimension order that the research-grade form does not have.
    #[error(
        "{url} has `{variable}` on ({dims}) where `time` comes first in POP history; \
         put it there (ncpdq -a time INPUT OUTPUT)"
    )]
    Order {
        /// Raw file.
        url: String,
        /// Variable.
        variable: String,
        /// Its dimensions.
        dims: String,
    },
    /// The file says that it is of another case.
    #[error("{url} is in the folder of case {case} but its title names {found}; move it there")]
    Case {
        /// Raw file.
        url: String,
        /// Case of the folder.
        case: Case,
        /// Case of the title.
        found: String,
    },
}

impl WithErrorKind for ValidationError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(error) => error.kind(),
            _ => ErrorKind::BadData,
        }
    }
}

/// Bytes of the largest chunk that HDF5 can hold.
const LARGEST: usize = u32::MAX as usize;
/// The largest distance between a point of the grid file and of the data, degrees: well above
/// the rounding of 4-byte coordinates, well below a cell.
const SAME_PLACE: f64 = 0.01;

/// Checks what can be checked without reading the data: the form, the length, the grid and the
/// month of a file; with `points` also where its points are, which are megabytes.
pub fn check(
    source: Box<dyn ByteSource>,
    (case, month): (Case, YearMonth),
    grid: Option<&Grid>,
    points: bool,
) -> Result<ValidatedFile, ValidationError> {
    let url = source.url().to_owned();
    let points = grid.filter(|_| points).map(|grid| grid.tlat.len());
    let FileMetadata { header, time_bound, points, memory } = metadata::glance(source, points)?;
    check_title(&header, &url, case)?;
    check_names(&header, &url)?;
    check_fields(&header, &url)?;
    check_shapes(&header, &url, grid)?;
    let meaning = |source| ReadError::Meaning { url: url.clone(), source };
    research::check(&header, grid.is_some()).map_err(meaning)?;
    check_month(&time_bound, &url, month)?;
    if let (Some(grid), Some([tlat, tlong])) = (grid, points) {
        check_points(&tlat, &tlong, &url, grid)?;
    }
    Ok(ValidatedFile { header, memory })
}

/// A file that may be converted.
#[derive(Debug)]
pub struct ValidatedFile {
    /// What the file says of itself.
    pub header: Header,
    /// Bytes of memory that its conversion takes.
    pub memory: u64,
}

/// The points of the grid file are where the data's own are, as far as those are not fill.
pub fn check_points(
    tlat: &[f64],
    tlong: &[f64],
    url: &str,
    grid: &Grid,
) -> Result<(), ValidationError> {
    match grid.farthest(tlat, tlong) {
        Some(distance) if distance.degrees > SAME_PLACE => {
            Err(ValidationError::Elsewhere { url: url.to_owned(), distance })
        }
        _ => Ok(()),
    }
}

/// The variables of a file, in which the files of a case must not differ: a series that lacks a
/// field in one month is no series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VariableSet(BTreeMap<String, VariableType>);

/// Type and shape of a variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct VariableType {
    dtype: DataType,
    dims: Vec<Dimension>,
}

impl fmt::Display for VariableType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dtype, shape(&self.dims))
    }
}

/// Dimensions in words.
fn shape(dims: &[Dimension]) -> String {
    let dims: Vec<_> = dims.iter().map(|d| format!("{} = {}", d.name, d.len)).collect();
    format!("({})", dims.join(", "))
}

impl VariableSet {
    /// Of the file with this header.
    pub fn of(header: &Header) -> Self {
        let kind = |v: &Variable| VariableType { dtype: v.dtype, dims: v.dims.clone() };
        Self(header.variables.iter().map(|v| (v.name.clone(), kind(v))).collect())
    }

    /// The one that most files have; each comes with the number of files that it stands for.
    pub fn commonest<'a>(of: impl Iterator<Item = (&'a Self, usize)>) -> Option<&'a Self> {
        let mut files = HashMap::new();
        let mut order = Vec::new();
        for (inventory, count) in of {
            let so_far = files.entry(inventory).or_insert_with(|| {
                order.push(inventory);
                0
            });
            *so_far += count;
        }
        // Of equals the last is the maximum: the earliest month is to decide.
        order.into_iter().rev().max_by_key(|inventory| files.get(inventory).copied())
    }

    /// Whether there is a variable of this name.
    pub fn has(&self, variable: &str) -> bool {
        self.0.contains_key(variable)
    }

    /// In words, how a file with this inventory differs from one with `usual`; `None` when it
    /// does not.
    pub fn differs(&self, usual: &Self) -> Option<String> {
        let names = |of: &Self, without: &Self| {
            let names = of.0.keys().filter(|name| !without.0.contains_key(*name));
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let other = |(name, kind): (&String, &VariableType)| match usual.0.get(name) {
            Some(there) if there != kind => Some(format!("`{name}` is {kind}, not {there}")),
            _ => None,
        };
        let mut words = Vec::new();
        for (verb, names) in [("lacks", names(usual, self)), ("has also", names(self, usual))] {
            if !names.is_empty() {
                words.push(format!("it {verb} {names}"));
            }
        }
        words.extend(self.0.iter().filter_map(other));
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// Something to convert, and grid fields on the points that it is on.
fn check_fields(header: &Header, url: &str) -> Result<(), ReadError> {
    let ends_on_grid = |v: &Variable| matches!(v.dims.as_slice(), [.., a, b] if a.name == "nlat" && b.name == "nlon");
    if !header.variables.iter().any(|v| v.has_leading_dim("time") && ends_on_grid(v)) {
        return Err(ReadError::NoField { url: url.to_owned() });
    }
    for name in ["TLAT", "TLONG", "TAREA", "KMT"] {
        if header.variable(name).is_some_and(|v| v.dims.len() != 2 || !ends_on_grid(v)) {
            return Err(ReadError::Missing {
                url: url.to_owned(),
                variable: name.to_owned(),
                shape: "(nlat, nlon)".to_owned(),
            });
        }
    }
    Ok(())
}

/// Dimensions that belong together: of a field and its coordinates, of a field with and without the
/// intervention; and what describes the layers as the floating-point numbers that POP writes.
pub fn check_agreement(header: &Header, url: &str) -> Result<(), ReadError> {
    let differ = |variable: &Variable, what: &str, other: &Variable| ReadError::Contradiction {
        url: url.to_owned(),
        variable: variable.name.clone(),
        problem: format!(
            "is on {} but {what} `{}` on {}",
            shape(&variable.dims),
            other.name,
            shape(&other.dims)
        ),
    };
    for variable in &header.variables {
        let names = variable.attribute("coordinates").and_then(|value| value.as_text());
        let names = names.unwrap_or_default().split_whitespace();
        let horizontal = names.filter(|name| ["TLAT", "TLONG", "ULAT", "ULONG"].contains(name));
        for coordinate in horizontal.filter_map(|name| header.variable(name)) {
            if !coordinate.dims.iter().all(|dim| variable.dims.contains(dim)) {
                return Err(differ(variable, "its coordinate", coordinate));
            }
        }
    }
    for (with, without) in MapVariable::ALL.map(MapVariable::fields) {
        if let (Some(with), Some(without)) = (header.variable(with), header.variable(without))
            && with.dims != without.dims
        {
            return Err(differ(with, "its counterpart", without));
        }
    }
    for name in ["dz", "dzw", "z_t", "z_t_150m", "z_w", "z_w_top", "z_w_bot"] {
        let Some(variable) = header.variable(name) else { continue };
        if !variable.dtype.is_float() && variable.attribute("scale_factor").is_none() {
            let (url, object, dtype) = (url.to_owned(), name.to_owned(), variable.dtype);
            return Err(ReadError::Type { url, object, dtype: dtype.to_string() });
        }
    }
    Ok(())
}

/// The bounds of the month, which must be the one in the file's name.
pub(super) fn check_month(
    bounds: &[f64],
    url: &str,
    named: YearMonth,
) -> Result<[f64; 2], ValidationError> {
    let (found, bounds) = history::month_of(url, bounds)?;
    if found != named {
        return Err(ValidationError::Month { url: url.to_owned(), named, found });
    }
    Ok(bounds)
}

/// The model writes the name of the case as the title of its files.
pub fn check_title(header: &Header, url: &str, case: Case) -> Result<(), ValidationError> {
    let title = header.attributes.iter().find(|a| a.name == "title");
    let words = title.and_then(|a| a.value.as_text()).unwrap_or_default().split_whitespace();
    for word in words.filter(|word| word.starts_with(case::NAME_START)) {
        // The name of a file begins with that of its case.
        let name = word.find(case::NAME_END).map_or(word, |at| &word[..at + case::NAME_END.len()]);
        if name.parse() != Ok(case) {
            let (url, found) = (url.to_owned(), format!("`{}`", name.escape_debug()));
            return Err(ValidationError::Case { url, case, found });
        }
    }
    Ok(())
}

/// No name that the research-grade form adds: such a file was converted before.
fn check_names(header: &Header, url: &str) -> Result<(), ReadError> {
    let added = ["polygon_id", "intervention_date", "elapsed_time", "time_delta", "area_m2"];
    let is_there = |name: &str| {
        let mut dims = header.variables.iter().flat_map(|v| &v.dims);
        header.variable(name).is_some() || dims.any(|d| d.name == name)
    };
    match added.iter().find(|&name| is_there(name)) {
        None => Ok(()),
        Some(name) => Err(ReadError::Value {
            url: url.to_owned(),
            variable: (*name).to_owned(),
            value: "there already".to_owned(),
            why: "raw history does not have: the file was converted before",
        }),
    }
}

/// One time.
pub fn check_times(header: &Header, url: &str) -> Result<(), ValidationError> {
    let mut dims = header.variables.iter().flat_map(|v| &v.dims);
    let url = url.to_owned();
    match dims.find(|d| d.name == "time" && d.len != 1).map(|time| time.len) {
        None => Ok(()),
        Some(0) => Err(ValidationError::NoRecord { url }),
        Some(found) => Err(ValidationError::Times { url, found }),
    }
}

/// One time, which comes first, values in every variable and no more than a chunk can hold, the
/// horizontal grid that the grid file has, and dimensions that agree.
pub(super) fn check_shapes(
    header: &Header,
    url: &str,
    grid: Option<&Grid>,
) -> Result<(), ValidationError> {
    check_times(header, url)?;
    let url = || url.to_owned();
    for variable in &header.variables {
        let name = || variable.name.clone();
        if let Some(empty) = variable.dims.iter().find(|d| d.len == 0) {
            let dimension = empty.name.clone();
            return Err(ValidationError::Empty { url: url(), variable: name(), dimension });
        }
        if variable.bytes() > LARGEST {
            let bytes = variable.bytes();
            return Err(ValidationError::TooLarge { url: url(), variable: name(), bytes });
        }
        if variable.dims.iter().skip(1).any(|d| d.name == "time") {
            let dims: Vec<_> = variable.dims.iter().map(|d| d.name.as_str()).collect();
            return Err(ValidationError::Order {
                url: url(),
                variable: name(),
                dims: dims.join(", "),
            });
        }
        let len = |name: &str| variable.dims.iter().find(|d| d.name == name).map(|d| d.len);
        let (Some(nlat), Some(nlon), Some(grid)) = (len("nlat"), len("nlon"), grid) else {
            continue;
        };
        if (nlat, nlon) != (grid.nlat, grid.nlon) {
            return Err(ValidationError::Grid {
                url: url(),
                variable: variable.name.clone(),
                found: format!("{nlat} x {nlon}"),
                expected: format!("{} x {}", grid.nlat, grid.nlon),
            });
        }
    }
    Ok(check_agreement(header, &url())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(names: &[&str], nlat: usize) -> VariableSet {
        let dims = vec![Dimension { name: "nlat".to_owned(), len: nlat }];
        let kind = VariableType { dtype: DataType::F32, dims };
        VariableSet(names.iter().map(|name| ((*name).to_owned(), kind.clone())).collect())
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let usual = inventory(&["DIC", "ALK", "FG_CO2"], 8);
        assert_eq!(usual.differs(&usual), None);
        let other = inventory(&["DICX", "ALK", "FG_CO2"], 8);
        assert_eq!(other.differs(&usual).unwrap(), "it lacks `DIC`; it has also `DICX`");
        let other = inventory(&["DIC", "ALK", "FG_CO2"], 9).differs(&usual).unwrap();
        assert!(other.contains("`ALK` is f4 (nlat = 9), not f4 (nlat = 8)"), "{other}");
    }

    #[test]
    fn the_commonest_decides_and_the_earliest_of_equals() {
        let [a, b] = [inventory(&["A"], 1), inventory(&["B"], 1)];
        assert_eq!(VariableSet::commonest([(&a, 1), (&b, 1), (&b, 1)].into_iter()), Some(&b));
        assert_eq!(VariableSet::commonest([(&a, 1), (&b, 1)].into_iter()), Some(&a));
        assert_eq!(VariableSet::commonest([(&a, 3), (&b, 1), (&b, 1)].into_iter()), Some(&a));
    }
}
