//! Validation of raw files by their headers, before anything is written.

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
    /// The raw file cannot be read as history.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The month of the time bounds is not that of the file name.
    #[error("{url} is named after {named} but its time_bound is {found}; rename it or replace it")]
    Month {
        /// URL of the raw file.
        url: String,
        /// Month of the file name.
        named: YearMonth,
        /// Month of the time bounds.
        found: YearMonth,
    },
    /// A variable has another horizontal shape than the grid file.
    #[error(
        "{url} has `{variable}` on {found} points where the grid file has {expected}; \
         give the grid file of this model grid (--grid)"
    )]
    Grid {
        /// URL of the raw file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Shape in the raw file, `nlat x nlon`.
        found: String,
        /// Shape in the grid file, `nlat x nlon`.
        expected: String,
    },
    /// A T point of the raw file has other coordinates than in the grid file.
    #[error(
        "{url} has the T point nlat {}, nlon {} at {:.4} N {:.4} E where the grid file has {:.4} N {:.4} E; \
         give the grid file of this model grid (--grid)",
        .distance.index.0, .distance.index.1, .distance.file.lat, .distance.file.lon,
        .distance.grid.lat, .distance.grid.lon
    )]
    Elsewhere {
        /// URL of the raw file.
        url: String,
        /// The point with the largest distance.
        distance: PointMismatch,
    },
    /// The file has other variables than most files of the case.
    #[error(
        "{url} differs from the other months: {difference}; \
         replace it, or move it away (--allow-missing converts the others)"
    )]
    Differs {
        /// URL of the raw file.
        url: String,
        /// The variables that differ.
        difference: String,
    },
    /// The `time` dimension has length 0.
    #[error(
        "{url} has no record, its `time` has length 0: the run ended before it wrote one; \
         replace it, or move it away (--allow-missing converts the others)"
    )]
    NoRecord {
        /// URL of the raw file.
        url: String,
    },
    /// A variable has no values.
    #[error(
        "{url}: `{variable}` has no values, for `{dimension}` has length 0; \
         take it out of the file: ncks -x -v {variable} INPUT OUTPUT"
    )]
    Empty {
        /// URL of the raw file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Dimension of length 0.
        dimension: String,
    },
    /// A variable is larger than an HDF5 chunk can be.
    #[error(
        "{url}: `{variable}` takes {bytes} bytes, and a research-grade file keeps each variable \
         as one chunk, of less than 4 GiB; take it out of the file: ncks -x -v {variable} INPUT OUTPUT"
    )]
    TooLarge {
        /// URL of the raw file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Bytes of its data.
        bytes: usize,
    },
    /// The file has more than one time.
    #[error("{url} has {found} times where a monthly file has one")]
    Times {
        /// URL of the raw file.
        url: String,
        /// Number of times.
        found: usize,
    },
    /// `time` is not the first dimension of a variable.
    #[error(
        "{url} has `{variable}` on ({dims}) where `time` comes first in POP history; \
         put it there (ncpdq -a time INPUT OUTPUT)"
    )]
    Order {
        /// URL of the raw file.
        url: String,
        /// Name of the variable.
        variable: String,
        /// Dimensions of the variable, in their order.
        dims: String,
    },
    /// The title of the file names another case.
    #[error("{url} is in the folder of case {case} but its title names {found}; move it there")]
    Case {
        /// URL of the raw file.
        url: String,
        /// Case of the folder.
        case: Case,
        /// Name of the case in the title.
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

/// Bytes of the largest HDF5 chunk.
const MAX_CHUNK: usize = u32::MAX as usize;
/// Largest distance in degrees between a point of the grid file and the same point of the raw file. It is far
/// above the rounding of 4-byte coordinates and far below the size of a cell.
const MAX_POINT_DISTANCE: f64 = 0.01;

/// Checks a raw file without reading its data: format, length, grid shape and month. With `points`, reads the
/// coordinates as well (megabytes) and compares them with `grid`.
///
/// # Errors
/// The first check that fails, or an error of the source.
pub fn check(
    source: Box<dyn ByteSource>,
    (case, month): (Case, YearMonth),
    grid: Option<&Grid>,
    points: bool,
) -> Result<ValidatedFile, ValidationError> {
    let url = source.url().to_owned();
    let points = grid.filter(|_| points).map(|grid| grid.tlat.len());
    let FileMetadata { header, time_bound, points, memory } =
        metadata::read_metadata(source, points)?;
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

/// A raw file that passed all checks.
#[derive(Debug)]
pub struct ValidatedFile {
    /// Dimensions, variables and attributes.
    pub header: Header,
    /// Bytes of memory that the conversion takes.
    pub memory: u64,
}

/// Checks that the T points of the raw file lie at those of the grid file. Points with fill values are not
/// compared.
///
/// # Errors
/// [`ValidationError::Elsewhere`] when a point is more than 0.01 degrees away.
pub fn check_points(
    tlat: &[f64],
    tlong: &[f64],
    url: &str,
    grid: &Grid,
) -> Result<(), ValidationError> {
    match grid.farthest(tlat, tlong) {
        Some(distance) if distance.degrees > MAX_POINT_DISTANCE => {
            Err(ValidationError::Elsewhere { url: url.to_owned(), distance })
        }
        _ => Ok(()),
    }
}

/// The variables of a file with types and shapes. All files of a case must have equal sets, because a time
/// series needs its variable in every month.
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

/// Dimensions as `(nlat = 384, nlon = 320)`.
fn shape(dims: &[Dimension]) -> String {
    let dims: Vec<_> = dims.iter().map(|d| format!("{} = {}", d.name, d.len)).collect();
    format!("({})", dims.join(", "))
}

impl VariableSet {
    /// The variables of a header.
    pub fn of(header: &Header) -> Self {
        let kind = |v: &Variable| VariableType { dtype: v.dtype, dims: v.dims.clone() };
        Self(header.variables.iter().map(|v| (v.name.clone(), kind(v))).collect())
    }

    /// The set that most files have. Each item is a set with the number of files that it represents.
    pub fn commonest<'a>(sets: impl Iterator<Item = (&'a Self, usize)>) -> Option<&'a Self> {
        let mut files = HashMap::new();
        let mut order = Vec::new();
        for (set, count) in sets {
            let total = files.entry(set).or_insert_with(|| {
                order.push(set);
                0
            });
            *total += count;
        }
        // `max_by_key` returns the last of equal maxima. In reverse order that is the earliest month.
        order.into_iter().rev().max_by_key(|set| files.get(set).copied())
    }

    /// Number of points of the model grid, `[nlat, nlon]`.
    pub fn grid_shape(&self) -> Option<[usize; 2]> {
        self.0.values().find_map(|variable| {
            let len = |name: &str| Some(variable.dims.iter().find(|dim| dim.name == name)?.len);
            Some([len("nlat")?, len("nlon")?])
        })
    }

    /// Whether the file has this variable.
    pub fn has(&self, variable: &str) -> bool {
        self.0.contains_key(variable)
    }

    /// Text about the differences from the set `usual`; `None` when there are none.
    pub fn differs(&self, usual: &Self) -> Option<String> {
        let names = |set: &Self, other: &Self| {
            let names = set.0.keys().filter(|name| !other.0.contains_key(*name));
            names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        };
        let type_change = |(name, kind): (&String, &VariableType)| match usual.0.get(name) {
            Some(usual) if usual != kind => Some(format!("`{name}` is {kind}, not {usual}")),
            _ => None,
        };
        let mut differences = Vec::new();
        for (verb, names) in [("lacks", names(usual, self)), ("has also", names(self, usual))] {
            if !names.is_empty() {
                differences.push(format!("it {verb} {names}"));
            }
        }
        differences.extend(self.0.iter().filter_map(type_change));
        (!differences.is_empty()).then(|| differences.join("; "))
    }
}

/// Checks that the file has a field on `(time, ..., nlat, nlon)`, and that the grid fields are on
/// `(nlat, nlon)`.
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

/// Checks that variables agree: a field has the dimensions of its coordinates, a tracer has the dimensions of
/// its counterpart in the other experiment, and the layer variables are floating-point numbers as in POP.
///
/// # Errors
/// [`ReadError::Contradiction`] or [`ReadError::Type`] for the first variable that fails.
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
    for (experiment, control) in MapVariable::ALL.map(MapVariable::fields) {
        if let (Some(experiment), Some(control)) =
            (header.variable(experiment), header.variable(control))
            && experiment.dims != control.dims
        {
            return Err(differ(experiment, "its counterpart", control));
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

/// Start and end of the month in days since 0000-01-01. The month must be that of the file name.
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

/// Checks the title of a file, where the model writes the name of the case.
///
/// # Errors
/// [`ValidationError::Case`] when the title names another case.
pub fn check_title(header: &Header, url: &str, case: Case) -> Result<(), ValidationError> {
    let title = header.attributes.iter().find(|a| a.name == "title");
    let words = title.and_then(|a| a.value.as_text()).unwrap_or_default().split_whitespace();
    for word in words.filter(|word| word.starts_with(case::NAME_START)) {
        // A word can be a file name, which begins with the name of its case.
        let name = word.find(case::NAME_END).map_or(word, |at| &word[..at + case::NAME_END.len()]);
        if name.parse() != Ok(case) {
            let (url, found) = (url.to_owned(), format!("`{}`", name.escape_debug()));
            return Err(ValidationError::Case { url, case, found });
        }
    }
    Ok(())
}

/// Refuses names that the research-grade format adds: a file with one of them was converted before.
fn check_names(header: &Header, url: &str) -> Result<(), ReadError> {
    let added = ["polygon_id", "intervention_date", "elapsed_time", "time_delta", "area_m2"];
    let exists = |name: &str| {
        let mut dims = header.variables.iter().flat_map(|v| &v.dims);
        header.variable(name).is_some() || dims.any(|d| d.name == name)
    };
    match added.iter().find(|&name| exists(name)) {
        None => Ok(()),
        Some(name) => Err(ReadError::Value {
            url: url.to_owned(),
            variable: (*name).to_owned(),
            value: "there already".to_owned(),
            why: "raw history does not have: the file was converted before",
        }),
    }
}

/// Checks that the file has one time.
///
/// # Errors
/// [`ValidationError::NoRecord`] or [`ValidationError::Times`].
pub fn check_times(header: &Header, url: &str) -> Result<(), ValidationError> {
    let mut dims = header.variables.iter().flat_map(|v| &v.dims);
    let url = url.to_owned();
    match dims.find(|d| d.name == "time" && d.len != 1).map(|time| time.len) {
        None => Ok(()),
        Some(0) => Err(ValidationError::NoRecord { url }),
        Some(found) => Err(ValidationError::Times { url, found }),
    }
}

/// Checks dimensions: one time, as the first dimension; values in every variable, at most those of a chunk; the
/// horizontal shape of the grid file; and agreement among variables.
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
        if variable.bytes() > MAX_CHUNK {
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

    fn set(names: &[&str], nlat: usize) -> VariableSet {
        let dims = vec![Dimension { name: "nlat".to_owned(), len: nlat }];
        let kind = VariableType { dtype: DataType::F32, dims };
        VariableSet(names.iter().map(|name| ((*name).to_owned(), kind.clone())).collect())
    }

    #[test]
    fn a_difference_names_the_variables() {
        let usual = set(&["DIC", "ALK", "FG_CO2"], 8);
        assert_eq!(usual.differs(&usual), None);
        let other = set(&["DICX", "ALK", "FG_CO2"], 8);
        assert_eq!(other.differs(&usual).unwrap(), "it lacks `DIC`; it has also `DICX`");
        let other = set(&["DIC", "ALK", "FG_CO2"], 9).differs(&usual).unwrap();
        assert!(other.contains("`ALK` is f4 (nlat = 9), not f4 (nlat = 8)"), "{other}");
    }

    #[test]
    fn the_commonest_set_wins_and_the_earliest_of_equals() {
        let [a, b] = [set(&["A"], 1), set(&["B"], 1)];
        assert_eq!(VariableSet::commonest([(&a, 1), (&b, 1), (&b, 1)].into_iter()), Some(&b));
        assert_eq!(VariableSet::commonest([(&a, 1), (&b, 1)].into_iter()), Some(&a));
        assert_eq!(VariableSet::commonest([(&a, 3), (&b, 1), (&b, 1)].into_iter()), Some(&a));
    }
}
