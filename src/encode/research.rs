//! The layout and definition of a research-grade file.
//!
//! The file is NetCDF-4 with the classic data model. Every data variable gains the dimensions
//! `polygon_id` and `intervention_date`; `elapsed_time` replaces `time`. Each float variable is one
//! chunk, shuffled and deflated.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::hdf5::{EncodeError, InMemoryHdf5};
use super::netcdf as types;
use super::writable;
use crate::model::case::Case;
use crate::model::cf::{self, CfError, Decoding};
use crate::model::dataset::{
    Attribute, AttributeValue, ByteOrder, DataType, Dimension, Header, Variable,
};
use crate::model::time_units::{self, TimeUnits};
use crate::model::{Grid, YearMonth};

/// Version of the conversion: a change of the output increments it, and `dor` then converts cases of
/// other versions again.
pub const RECIPE: u32 = 1;

/// Name of the time variable, whose values are replaced.
const TIME: &str = "time";
/// Units of the time in the output when the input has other units.
const TIME_UNITS: &str = "days since 0000-01-01 00:00:00";

/// Size of the index of a chunk in bytes: a version 1 B-tree node of HDF5 with 64 children, each an
/// address and a key of a size, a filter mask and `rank + 1` offsets.
fn index_bytes(rank: usize) -> u64 {
    24 + 64 * 8 + 65 * (8 + 8 * (rank as u64 + 1))
}

/// The origin of a research-grade file: case, month, grid and raw file.
pub struct FileProvenance<'a> {
    /// Case of the raw file.
    pub case: Case,
    /// Month of the raw file.
    pub month: YearMonth,
    /// Start and end of the month, days since 0000-01-01.
    pub bounds: [f64; 2],
    /// Full grid that replaces `TLAT` and `TLONG`; `None` keeps those of the raw file.
    pub grid: Option<&'a Grid>,
    /// Name of the raw file.
    pub source_file: &'a str,
    /// New line of the `history` attribute.
    pub history: String,
}

/// The values of an output variable.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// The unchanged values of the raw variable with this index.
    Raw(usize),
    /// Computed values, little-endian bytes.
    Computed(Vec<u8>),
}

/// A variable of the research-grade file.
#[derive(Clone, Debug)]
pub struct OutputVariable {
    /// Name, type, dimensions and attributes.
    pub variable: Variable,
    /// Raw or computed values.
    pub values: Values,
}

impl OutputVariable {
    /// Whether the variable is stored as a shuffled and deflated chunk.
    pub fn is_chunked(&self) -> bool {
        self.variable.dtype.is_float() && !self.variable.dims.is_empty()
    }
}

/// The variables and attributes of a research-grade file.
#[derive(Clone, Debug)]
pub struct FileLayout {
    /// Variables, in the order of the file.
    pub outputs: Vec<OutputVariable>,
    /// Global attributes.
    pub attributes: Vec<Attribute>,
}

impl FileLayout {
    /// The HDF5 dataset of a variable. netCDF-C adds a prefix to the name of a variable that equals
    /// the name of a dimension other than its first one.
    pub fn dataset(&self, variable: &Variable) -> String {
        let mut dims = self.outputs.iter().flat_map(|o| &o.variable.dims);
        match dims.any(|d| d.name == variable.name) && !variable.has_leading_dim(&variable.name) {
            true => format!("_nc4_non_coord_{}", variable.name),
            false => variable.name.clone(),
        }
    }
}

/// Name of the attribute with the SHA-256 of the raw file; zeros until the raw file is read completely.
pub const SOURCE_SHA256: &str = "source_sha256";
/// Length of a SHA-256 in hexadecimal.
const SHA256_DIGITS: usize = 64;

/// Path of a research-grade file below the output location.
pub fn key(case: Case, month: YearMonth) -> String {
    let (polygon, start) = (case.polygon(), case.month().number());
    format!(
        "{}/smyle.cdr-atlas-v0.glb-dor.{polygon:03}-1999-{start:02}.pop.h.{month}.nc",
        folder(case)
    )
}

/// Folder of a case below the output location.
pub fn folder(case: Case) -> String {
    format!("{:03}/{:02}", case.polygon(), case.month().number())
}

/// Checks that a raw header can be converted: attributes are valid, and netCDF-C accepts all names.
pub fn check(header: &Header, with_grid: bool) -> Result<(), CfError> {
    let bounds = time_units::time_bounds(header).map(|bounds| bounds.name.as_str());
    for variable in &header.variables {
        match variable.name.as_str() {
            TIME => {
                TimeUnits::of(header, variable)?;
                Decoding::without_units(variable)?;
            }
            "TAREA" => drop(Decoding::to_units(variable, "m^2")?),
            "KMT" => drop(Decoding::of(variable)?),
            "TLAT" | "TLONG" => drop(Decoding::of(variable)?),
            // The grid file has no U points, which are copied.
            "ULAT" | "ULONG" if !with_grid => drop(Decoding::of(variable)?),
            _ => {}
        }
        let mut written = variable.clone();
        match &*variable.name {
            name if Some(name) == bounds => {}
            // The output has another type, so `_FillValue` is not checked.
            TIME => writable::normalize_attributes(TIME, &mut written.attributes)?,
            _ => writable::normalize_variable(&mut written)?,
        }
    }
    writable::normalize_attributes("file", &mut header.attributes.clone())
}

/// Computes the layout of the output. `stored` returns the stored numbers of a raw variable.
pub fn layout(
    header: &Header,
    origin: &FileProvenance<'_>,
    stored: impl Fn(&str) -> Option<Vec<f64>>,
) -> Result<FileLayout, CfError> {
    let bounds = time_units::time_bounds(header).map(|bounds| bounds.name.as_str());
    let mut outputs = Vec::new();
    for (index, raw) in header.variables.iter().enumerate() {
        if Some(raw.name.as_str()) == bounds {
            continue;
        }
        let mut variable = raw.clone();
        let mut values = Values::Raw(index);
        match (raw.name.as_str(), origin.grid) {
            (TIME, _) => values = time(&mut variable, header, origin)?,
            ("TLAT", Some(grid)) => values = replaced(&mut variable, &grid.tlat)?,
            ("TLONG", Some(grid)) => values = replaced(&mut variable, &grid.tlong)?,
            ("KMT", _) => {
                if let Some(kmt) = stored("KMT") {
                    let mut kmt = Decoding::of(raw)?.values(kmt);
                    kmt.iter_mut().filter(|k| k.is_nan()).for_each(|k| *k = 0.0);
                    values = replaced(&mut variable, &kmt)?;
                }
            }
            _ if raw.has_leading_dim(TIME) => {
                variable.dims.splice(..1, case_dimensions());
            }
            _ => {}
        }
        outputs.push(OutputVariable { variable, values });
    }
    outputs.extend(added(header, origin, stored)?);
    outputs.iter_mut().try_for_each(|output| writable::normalize_variable(&mut output.variable))?;
    let mut attributes = global_attributes(header, &outputs, origin);
    writable::normalize_attributes("file", &mut attributes)?;
    Ok(FileLayout { outputs, attributes })
}

/// Replaces the time by the middle of the month; converts its units if they are not the model's.
fn time(
    variable: &mut Variable,
    header: &Header,
    origin: &FileProvenance<'_>,
) -> Result<Values, CfError> {
    let time_units = TimeUnits::of(header, variable)?;
    let is_plain = variable.dtype == DataType::F64 && Decoding::without_units(variable)?.is_plain();
    variable.dtype = DataType::F64;
    variable.dims = vec![dimension("elapsed_time", 1)];
    let drops = |name: &str| name == "bounds" || !is_plain && is_storage(name);
    variable.attributes.retain(|a| !drops(&a.name) && !is_range(&a.name));
    if !time_units.is_plain() || variable.text("units").is_empty() {
        set_text(&mut variable.attributes, "units", TIME_UNITS);
    }
    if variable.text("calendar").is_empty() {
        set_text(&mut variable.attributes, "calendar", "noleap");
    }
    let middle = f64::midpoint(origin.bounds[0], origin.bounds[1]);
    Ok(Values::Computed(bytes_of(&[middle], DataType::F64)))
}

/// Replaces the values of a variable, which keeps its type unless it is packed or cannot hold them.
fn replaced(variable: &mut Variable, values: &[f64]) -> Result<Values, CfError> {
    let decoding = Decoding::of(variable)?;
    if !decoding.is_plain() || decoding.excludes_any(values) {
        variable.attributes.retain(|a| !is_storage(&a.name));
    }
    let is_exact = variable.dtype.is_float() || values.iter().all(|v| v.fract() == 0.0);
    if !decoding.is_plain() || !is_exact {
        variable.dtype = DataType::F64;
        variable.attributes.retain(|a| !is_storage(&a.name));
    }
    Ok(Values::Computed(bytes_of(values, variable.dtype)))
}

/// Whether an attribute describes stored numbers.
fn is_storage(name: &str) -> bool {
    cf::STORAGE_ATTRIBUTES.contains(&name)
}

/// Whether an attribute is a valid range of stored numbers.
fn is_range(name: &str) -> bool {
    name.starts_with("valid_")
}

fn set_text(attributes: &mut Vec<Attribute>, name: &str, text: &str) {
    match attributes.iter_mut().find(|a| a.name == name) {
        Some(attribute) => attribute.value = AttributeValue::Text(text.to_owned()),
        None => attributes.push(Attribute::text(name, text)),
    }
}

/// The variables that the raw file does not contain.
fn added(
    header: &Header,
    origin: &FileProvenance<'_>,
    stored: impl Fn(&str) -> Option<Vec<f64>>,
) -> Result<Vec<OutputVariable>, CfError> {
    let start = origin.case.first_month();
    let elapsed = origin.month.first_day() - start.first_day();
    let length = origin.bounds[1] - origin.bounds[0];
    let computed = |name: &str, dtype, dims, attributes, values| OutputVariable {
        variable: Variable { name: name.to_owned(), dtype, dims, attributes },
        values: Values::Computed(values),
    };
    let mut outputs = vec![computed(
        "time_delta",
        DataType::F64,
        vec![dimension("elapsed_time", 1)],
        vec![Attribute::text("long_name", "length of the month"), Attribute::text("units", "days")],
        bytes_of(&[length], DataType::F64),
    )];
    if let (Some(area), Some(raw)) = (stored("TAREA"), header.variable("TAREA")) {
        outputs.push(square_meters(raw, area)?);
    }
    let date = format!("days since 1999-{:02}-01 00:00:00.000000", start.month);
    let [polygon_id, intervention_date, elapsed_time] = case_dimensions();
    outputs.push(computed(
        "polygon_id",
        DataType::I32,
        vec![polygon_id],
        vec![Attribute::text("long_name", "polygon ID")],
        i32::from(origin.case.polygon()).to_le_bytes().to_vec(),
    ));
    outputs.push(computed(
        "intervention_date",
        DataType::I64,
        vec![intervention_date],
        vec![
            Attribute::text("long_name", "intervention date"),
            Attribute::text("units", date),
            Attribute::text("calendar", "noleap"),
        ],
        0i64.to_le_bytes().to_vec(),
    ));
    outputs.push(computed(
        "elapsed_time",
        DataType::I64,
        vec![elapsed_time],
        vec![
            Attribute::text("long_name", "time from the intervention to the start of the month"),
            Attribute::text("units", "days"),
        ],
        elapsed.to_le_bytes().to_vec(),
    ));
    Ok(outputs)
}

/// The area of the cells in m^2, from the stored numbers of `TAREA`.
fn square_meters(raw: &Variable, stored: Vec<f64>) -> Result<OutputVariable, CfError> {
    let decoding = Decoding::to_units(raw, "m^2")?;
    let is_stored = raw.dtype.is_float() && !decoding.is_packed();
    let fill = if is_stored { decoding.fill() } else { None };
    let dtype = if is_stored { raw.dtype } else { DataType::F64 };
    let area = |stored: f64| match decoding.value(stored) {
        // Fill values are kept.
        value if value.is_nan() => match decoding.is_missing(stored) && is_stored {
            true => stored,
            false => fill.unwrap_or(f64::NAN),
        },
        value => value,
    };
    let area: Vec<f64> = stored.into_iter().map(area).collect();
    let mut attributes = raw.attributes.clone();
    attributes
        .retain(|a| a.name != "units" && !is_range(&a.name) && (is_stored || !is_storage(&a.name)));
    attributes.push(Attribute::text("units", "m^2"));
    let (name, dims) = ("area_m2".to_owned(), raw.dims.clone());
    let values = Values::Computed(bytes_of(&area, dtype));
    Ok(OutputVariable { variable: Variable { name, dtype, dims, attributes }, values })
}

fn global_attributes(
    header: &Header,
    outputs: &[OutputVariable],
    origin: &FileProvenance<'_>,
) -> Vec<Attribute> {
    let mut attributes = header.attributes.clone();
    let mut set = |name: &str, text: String| set_text(&mut attributes, name, &text);
    let earlier = header.attributes.iter().find(|a| a.name == "history");
    let earlier = earlier.and_then(|a| a.value.as_text()).filter(|text| *text != "none");
    let history = earlier.map_or(origin.history.clone(), |e| format!("{}\n{e}", origin.history));
    set("history", history);
    set("coordinates", unnamed_coordinates(outputs).join(" "));
    set("source_file", origin.source_file.to_owned());
    set(SOURCE_SHA256, "0".repeat(SHA256_DIGITS));
    set("converted_by", format!("dor {} (research-grade recipe {RECIPE})", crate::VERSION));
    attributes
}

/// Coordinates in no variable's `coordinates` attribute: xarray finds them by the global attribute.
/// A coordinate is a variable without the dimensions of the case that is not a dimension variable,
/// such as the time.
fn unnamed_coordinates(outputs: &[OutputVariable]) -> Vec<&str> {
    let named: Vec<&str> =
        outputs.iter().flat_map(|o| o.variable.text("coordinates").split_whitespace()).collect();
    let mut names: Vec<&str> = outputs
        .iter()
        .map(|o| &o.variable)
        .filter(|v| !v.has_leading_dim("polygon_id"))
        .filter(|v| v.dims.len() != 1 || v.dims[0].name != v.name)
        .map(|v| v.name.as_str())
        .filter(|name| !named.contains(name))
        .collect();
    names.sort_unstable();
    names
}

fn dimension(name: &str, len: usize) -> Dimension {
    Dimension { name: name.to_owned(), len }
}

fn case_dimensions() -> [Dimension; 3] {
    ["polygon_id", "intervention_date", "elapsed_time"].map(|name| dimension(name, 1))
}

/// Converts values to little-endian bytes of a type.
fn bytes_of(values: &[f64], dtype: DataType) -> Vec<u8> {
    match dtype {
        DataType::F32 => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
        DataType::I32 => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        DataType::I64 => values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
        DataType::I16 => values.iter().flat_map(|&v| (v as i16).to_le_bytes()).collect(),
        DataType::I8 => values.iter().map(|&v| v as i8 as u8).collect(),
        DataType::U8 | DataType::Char => values.iter().map(|&v| v as u8).collect(),
        DataType::U16 => values.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect(),
        DataType::U32 => values.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        DataType::U64 => values.iter().flat_map(|&v| (v as u64).to_le_bytes()).collect(),
        DataType::F64 => values.iter().flat_map(|&v| v.to_le_bytes()).collect(),
    }
}

/// Defines the file and writes the variables without chunks; the caller writes the chunks. `raw`
/// returns the bytes of such a raw variable in byte order `order`.
pub fn define(
    layout: &FileLayout,
    order: ByteOrder,
    raw: impl Fn(usize) -> Option<Vec<u8>>,
) -> Result<InMemoryHdf5, EncodeError> {
    super::hdf5::disable_exit_handler();
    let scratch = ScratchFile::new()?;
    let probe = scratch.file.try_clone();
    // netCDF-C reports that a write failed without the cause: another write returns the cause.
    let cause = |error| probe.ok().as_ref().and_then(super::hdf5::scratch_error).unwrap_or(error);
    define_in(scratch, layout, order, raw).map_err(cause)
}

fn define_in(
    scratch: ScratchFile,
    layout: &FileLayout,
    order: ByteOrder,
    raw: impl Fn(usize) -> Option<Vec<u8>>,
) -> Result<InMemoryHdf5, EncodeError> {
    let (mut file, scratch) = scratch.create()?;
    let failed = |object: &str| {
        let object = object.to_owned();
        move |source| EncodeError::Define { object, source }
    };
    let mut defined: Vec<&Dimension> = Vec::new();
    let mut indexes = 0;
    for dim in layout.outputs.iter().flat_map(|o| &o.variable.dims) {
        if !defined.iter().any(|d| d.name == dim.name) {
            file.add_dimension(&dim.name, dim.len).map_err(failed(&dim.name))?;
            defined.push(dim);
        }
    }
    for output in &layout.outputs {
        let variable = &output.variable;
        let failed = || failed(&variable.name);
        let dims: Vec<&str> = variable.dims.iter().map(|d| d.name.as_str()).collect();
        let mut defined = file
            .add_variable_with_type(&variable.name, &dims, &types::type_of(variable.dtype))
            .map_err(failed())?;
        if output.is_chunked() {
            let shape: Vec<usize> = variable.dims.iter().map(|d| d.len).collect();
            defined.set_chunking(&shape).map_err(failed())?;
            defined.set_compression(super::deflate::LEVEL, true).map_err(failed())?;
            indexes += index_bytes(shape.len());
        }
        for attribute in &variable.attributes {
            defined
                .put_attribute(&attribute.name, types::value_of(&attribute.value))
                .map_err(failed())?;
        }
    }
    for attribute in &layout.attributes {
        file.add_attribute(&attribute.name, types::value_of(&attribute.value))
            .map_err(failed(&attribute.name))?;
    }
    file.enddef().map_err(failed("research-grade file"))?;
    for output in layout.outputs.iter().filter(|o| !o.is_chunked()) {
        let variable = &output.variable;
        let (bytes, order) = match &output.values {
            Values::Computed(bytes) => (bytes.clone(), ByteOrder::Little),
            Values::Raw(index) => (raw(*index).unwrap_or_default(), order),
        };
        if bytes.len() != variable.bytes() {
            return Err(EncodeError::Length {
                variable: variable.name.clone(),
                found: bytes.len(),
                expected: variable.bytes(),
            });
        }
        let mut target = file.variable_mut(&variable.name).ok_or_else(|| EncodeError::Hdf5 {
            call: "nc_inq_varid",
            object: variable.name.clone(),
        })?;
        types::put_values(&mut target, &bytes, variable.dtype, order)
            .map_err(failed(&variable.name))?;
    }
    file.close().map_err(failed("research-grade file"))?;
    let mut definition = contents(scratch)?;
    let total: usize = layout.outputs.iter().map(|o| o.variable.bytes()).sum();
    // Small steps waste little memory; growing moves pages without a copy.
    let growth = (total / 64).clamp(1 << 20, 8 << 20);
    InMemoryHdf5::open(&mut definition, growth, indexes)
}

/// A temporary file for the definition, in memory (`/dev/shm`) where possible.
///
/// netCDF-C opens it by its path; then the path is removed, so that a killed process leaves no file.
struct ScratchFile {
    file: File,
    path: tempfile::TempPath,
}

impl ScratchFile {
    fn new() -> Result<Self, EncodeError> {
        let folder = std::env::temp_dir();
        let place = || folder.display().to_string();
        let (file, path) = tempfile::NamedTempFile::new_in("/dev/shm")
            .or_else(|_| tempfile::NamedTempFile::new_in(&folder))
            .map_err(|source| EncodeError::Scratch { place: place(), source })?
            .into_parts();
        Ok(Self { file, path })
    }

    fn create(self) -> Result<(netcdf::FileMut, File), EncodeError> {
        let object = "research-grade file".to_owned();
        let created = netcdf::create(&self.path);
        let created = created.map_err(|source| EncodeError::Define { object, source })?;
        Ok((created, self.file))
    }
}

/// All bytes of a scratch file.
fn contents(mut file: File) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .map_err(|source| EncodeError::Scratch { place: "memory".to_owned(), source })?;
    Ok(bytes)
}
