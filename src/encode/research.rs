//! The research-grade form of a history file: what its header becomes, and the file itself.
//!
//! NetCDF-4 classic-compatible data model, read by netCDF-C, xarray, NCO and everything on top of
//! them. Every data variable gains the dimensions `polygon_id` and `intervention_date`, `time`
//! becomes `elapsed_time`; each float variable is one chunk, shuffled and deflated.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use netcdf::types::{FloatType, IntType, NcVariableType};

use super::hdf5::{EncodeError, ImageWriter};
use crate::model::case::Case;
use crate::model::dataset::{
    Attribute, AttributeValue, ByteOrder, DataType, Dimension, Header, Variable,
};
use crate::model::{Grid, YearMonth};

/// Version of the rules in this module: a change of output raises it, and cases made under another
/// version are made again.
pub const RECIPE: u32 = 1;

/// Variables that describe time; their values are replaced.
const TIME: &str = "time";
const TIME_BOUND: &str = "time_bound";

/// Bytes that the index of a chunk takes in the file: a version 1 B-tree node of the HDF5 format
/// with 64 children, each an address and a key of a size, a filter mask and `rank + 1` offsets.
fn index_bytes(rank: usize) -> u64 {
    24 + 64 * 8 + 65 * (8 + 8 * (rank as u64 + 1))
}

/// What a research-grade file is made from, apart from its data variables.
pub struct Origin<'a> {
    /// The case.
    pub case: Case,
    /// Month of the file.
    pub month: YearMonth,
    /// Bounds of the month, in days since 0000-01-01.
    pub bounds: [f64; 2],
    /// The full grid, when there is one.
    pub grid: Option<&'a Grid>,
    /// Name of the raw file.
    pub source_file: &'a str,
    /// Line for the `history` attribute.
    pub history: String,
}

/// Where the values of an output variable come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// The raw variable with this index, byte for byte.
    Raw(usize),
    /// Values made here, little-endian.
    Made(Vec<u8>),
}

/// A variable of the research-grade file.
#[derive(Clone, Debug)]
pub struct Output {
    /// Name, type, dimensions and attributes.
    pub variable: Variable,
    /// Its values.
    pub values: Values,
}

impl Output {
    /// Whether the variable is stored as a shuffled and deflated chunk.
    pub fn is_chunked(&self) -> bool {
        self.variable.dtype.is_float() && !self.variable.dims.is_empty()
    }
}

/// All of a research-grade file but the numbers of its raw variables.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Variables, in the order of the file.
    pub outputs: Vec<Output>,
    /// Attributes of the file.
    pub attributes: Vec<Attribute>,
}

/// Name of the attribute with the digest of the raw file, and the text that holds its place until
/// the raw file has been read to its end.
pub const SOURCE_SHA256: &str = "source_sha256";
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

/// Raw variables whose values [`layout`] needs: those that it changes.
pub fn needed(header: &Header) -> impl Iterator<Item = usize> + '_ {
    let needed = |v: &Variable| matches!(v.name.as_str(), TIME_BOUND | "TAREA" | "KMT");
    header.variables.iter().enumerate().filter(move |(_, v)| needed(v)).map(|(i, _)| i)
}

/// What becomes of a header. `values` gives the numbers of a raw variable that [`needed`] names.
pub fn layout(
    header: &Header,
    origin: &Origin<'_>,
    values: impl Fn(&str) -> Option<Vec<f64>>,
) -> Layout {
    let mut outputs = Vec::new();
    for (index, raw) in header.variables.iter().enumerate() {
        if raw.name == TIME_BOUND {
            continue;
        }
        let mut variable = raw.clone();
        let mut made = Values::Raw(index);
        match (raw.name.as_str(), origin.grid) {
            (TIME, _) => {
                variable.dtype = DataType::F64;
                variable.dims = vec![dimension("elapsed_time", 1)];
                variable.attributes.retain(|a| a.name != "bounds");
                let middle = f64::midpoint(origin.bounds[0], origin.bounds[1]);
                made = Values::Made(bytes_of(&[middle], DataType::F64));
            }
            ("TLAT", Some(grid)) => made = Values::Made(bytes_of(&grid.tlat, raw.dtype)),
            ("TLONG", Some(grid)) => made = Values::Made(bytes_of(&grid.tlong, raw.dtype)),
            ("KMT", _) => {
                if let Some(mut kmt) = values("KMT") {
                    let fill = raw.fill_values();
                    kmt.iter_mut().filter(|k| fill.contains(*k)).for_each(|k| *k = 0.0);
                    made = Values::Made(bytes_of(&kmt, raw.dtype));
                }
            }
            _ if raw.leads_with(TIME) => {
                variable.dims.splice(..1, case_dimensions());
            }
            _ => {}
        }
        outputs.push(Output { variable, values: made });
    }
    outputs.extend(added(header, origin, values));
    let attributes = global_attributes(header, &outputs, origin);
    Layout { outputs, attributes }
}

/// The variables that the raw file does not have.
fn added(
    header: &Header,
    origin: &Origin<'_>,
    values: impl Fn(&str) -> Option<Vec<f64>>,
) -> Vec<Output> {
    let start = origin.case.first_month();
    let elapsed = origin.month.first_day() - start.first_day();
    let length = origin.bounds[1] - origin.bounds[0];
    let made = |name: &str, dtype, dims, attributes, values| Output {
        variable: Variable { name: name.to_owned(), dtype, dims, attributes },
        values: Values::Made(values),
    };
    let mut outputs = vec![made(
        "time_delta",
        DataType::F64,
        vec![dimension("elapsed_time", 1)],
        vec![Attribute::text("long_name", "length of the month"), Attribute::text("units", "days")],
        bytes_of(&[length], DataType::F64),
    )];
    if let (Some(area), Some(raw)) = (values("TAREA"), header.variable("TAREA")) {
        let fill = raw.fill_values();
        let area: Vec<f64> =
            area.into_iter().map(|a| if fill.contains(&a) { a } else { a * 1e-4 }).collect();
        let mut attributes = raw.attributes.clone();
        attributes.retain(|a| a.name != "units");
        attributes.push(Attribute::text("units", "m^2"));
        outputs.push(made(
            "area_m2",
            raw.dtype,
            raw.dims.clone(),
            attributes,
            bytes_of(&area, raw.dtype),
        ));
    }
    let date = format!("days since 1999-{:02}-01 00:00:00.000000", start.month);
    let [polygon_id, intervention_date, elapsed_time] = case_dimensions();
    outputs.push(made(
        "polygon_id",
        DataType::I32,
        vec![polygon_id],
        vec![Attribute::text("long_name", "polygon ID")],
        i32::from(origin.case.polygon()).to_le_bytes().to_vec(),
    ));
    outputs.push(made(
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
    outputs.push(made(
        "elapsed_time",
        DataType::I64,
        vec![elapsed_time],
        vec![
            Attribute::text("long_name", "time from the intervention to the start of the month"),
            Attribute::text("units", "days"),
        ],
        elapsed.to_le_bytes().to_vec(),
    ));
    outputs
}

fn global_attributes(header: &Header, outputs: &[Output], origin: &Origin<'_>) -> Vec<Attribute> {
    let mut attributes = header.attributes.clone();
    let mut set = |name: &str, text: String| match attributes.iter_mut().find(|a| a.name == name) {
        Some(attribute) => attribute.value = AttributeValue::Text(text),
        None => attributes.push(Attribute::text(name, text)),
    };
    let before = header.attributes.iter().find_map(|a| match &a.value {
        AttributeValue::Text(text) if a.name == "history" && text != "none" => Some(text.as_str()),
        _ => None,
    });
    let history = before.map_or(origin.history.clone(), |b| format!("{}\n{b}", origin.history));
    set("history", history);
    set("coordinates", unnamed_coordinates(outputs).join(" "));
    set("source_file", origin.source_file.to_owned());
    set(SOURCE_SHA256, "0".repeat(SHA256_DIGITS));
    set("converted_by", format!("dor {} (research-grade recipe {RECIPE})", crate::VERSION));
    attributes
}

/// Coordinates that no variable's `coordinates` attribute names: xarray finds them through the
/// attribute of the file. A coordinate is what does not vary along the case's dimensions, and the
/// two times.
fn unnamed_coordinates(outputs: &[Output]) -> Vec<&str> {
    let named: Vec<&str> = outputs
        .iter()
        .filter_map(|o| match o.variable.attribute("coordinates") {
            Some(AttributeValue::Text(text)) => Some(text.split_whitespace()),
            _ => None,
        })
        .flatten()
        .collect();
    let mut names: Vec<&str> = outputs
        .iter()
        .map(|o| &o.variable)
        .filter(|v| !v.leads_with("polygon_id"))
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

/// Little-endian bytes of values in the type of a variable.
fn bytes_of(values: &[f64], dtype: DataType) -> Vec<u8> {
    match dtype {
        DataType::F32 => values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect(),
        DataType::I32 => values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect(),
        DataType::I64 => values.iter().flat_map(|&v| (v as i64).to_le_bytes()).collect(),
        DataType::I16 => values.iter().flat_map(|&v| (v as i16).to_le_bytes()).collect(),
        DataType::I8 | DataType::Char => values.iter().map(|&v| v as u8).collect(),
        DataType::F64 => values.iter().flat_map(|&v| v.to_le_bytes()).collect(),
    }
}

/// Defines the file and writes what is not chunked. `raw` gives the bytes of a raw variable in
/// `order`; it is asked for small ones only. The chunks are then put in place through the writer.
pub fn define(
    layout: &Layout,
    order: ByteOrder,
    raw: impl Fn(usize) -> Option<Vec<u8>>,
) -> Result<ImageWriter, EncodeError> {
    super::hdf5::leave_at_exit();
    let scratch = Scratch::new()?;
    let probe = scratch.file.try_clone();
    // netCDF-C tells only that a write has failed: why, another write tells.
    define_in(scratch, layout, order, raw)
        .map_err(|error| probe.ok().as_ref().and_then(no_room).unwrap_or(error))
}

/// Why nothing more can be written to the scratch file, if that is so.
fn no_room(scratch: &File) -> Option<EncodeError> {
    let room = [0; 64 << 10];
    let written = scratch.metadata().and_then(|found| scratch.write_all_at(&room, found.len()));
    let source = written.err()?;
    Some(EncodeError::Scratch { place: "memory (/dev/shm) or TMPDIR".to_owned(), source })
}

fn define_in(
    scratch: Scratch,
    layout: &Layout,
    order: ByteOrder,
    raw: impl Fn(usize) -> Option<Vec<u8>>,
) -> Result<ImageWriter, EncodeError> {
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
            .add_variable_with_type(&variable.name, &dims, &netcdf_type(variable.dtype))
            .map_err(failed())?;
        if output.is_chunked() {
            let shape: Vec<usize> = variable.dims.iter().map(|d| d.len).collect();
            defined.set_chunking(&shape).map_err(failed())?;
            defined.set_compression(super::deflate::LEVEL, true).map_err(failed())?;
            indexes += index_bytes(shape.len());
        }
        for attribute in &variable.attributes {
            defined
                .put_attribute(&attribute.name, netcdf_value(&attribute.value))
                .map_err(failed())?;
        }
    }
    for attribute in &layout.attributes {
        file.add_attribute(&attribute.name, netcdf_value(&attribute.value))
            .map_err(failed(&attribute.name))?;
    }
    file.enddef().map_err(failed("research-grade file"))?;
    for output in layout.outputs.iter().filter(|o| !o.is_chunked()) {
        let variable = &output.variable;
        let (bytes, order) = match &output.values {
            Values::Made(bytes) => (bytes.clone(), ByteOrder::Little),
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
        put_values(&mut target, &bytes, variable.dtype, order).map_err(failed(&variable.name))?;
    }
    file.close().map_err(failed("research-grade file"))?;
    let mut definition = contents(scratch)?;
    let total: usize = layout.outputs.iter().map(|o| o.variable.bytes()).sum();
    // Small steps keep the excess small; growing costs no copy, for pages are moved.
    let growth = (total / 64).clamp(1 << 20, 8 << 20);
    ImageWriter::open(&mut definition, growth, indexes)
}

fn put_values(
    target: &mut netcdf::VariableMut<'_>,
    bytes: &[u8],
    dtype: DataType,
    order: ByteOrder,
) -> Result<(), netcdf::Error> {
    macro_rules! put {
        ($type:ty, $n:literal) => {{
            let read = match order {
                ByteOrder::Big => <$type>::from_be_bytes,
                ByteOrder::Little => <$type>::from_le_bytes,
            };
            let values: Vec<$type> = bytes.as_chunks::<$n>().0.iter().map(|&b| read(b)).collect();
            target.put_values(&values, ..)
        }};
    }
    match dtype {
        DataType::Char => {
            let text: Vec<Char> = bytes.iter().map(|&b| Char(b)).collect();
            target.put_values(&text, ..)
        }
        DataType::I8 => put!(i8, 1),
        DataType::I16 => put!(i16, 2),
        DataType::I32 => put!(i32, 4),
        DataType::I64 => put!(i64, 8),
        DataType::F32 => put!(f32, 4),
        DataType::F64 => put!(f64, 8),
    }
}

/// A byte of text, for netCDF-C.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Char(#[allow(dead_code, reason = "read by netCDF-C")] u8);

// SAFETY: NC_CHAR is one byte in memory, as Char is.
unsafe impl netcdf::NcTypeDescriptor for Char {
    fn type_descriptor() -> NcVariableType {
        NcVariableType::Char
    }
}

fn netcdf_type(dtype: DataType) -> NcVariableType {
    match dtype {
        DataType::Char => NcVariableType::Char,
        DataType::I8 => NcVariableType::Int(IntType::I8),
        DataType::I16 => NcVariableType::Int(IntType::I16),
        DataType::I32 => NcVariableType::Int(IntType::I32),
        DataType::I64 => NcVariableType::Int(IntType::I64),
        DataType::F32 => NcVariableType::Float(FloatType::F32),
        DataType::F64 => NcVariableType::Float(FloatType::F64),
    }
}

fn netcdf_value(value: &AttributeValue) -> netcdf::AttributeValue {
    match value.clone() {
        AttributeValue::Text(text) => text.into(),
        AttributeValue::I8(v) => v.into(),
        AttributeValue::I16(v) => v.into(),
        AttributeValue::I32(v) => v.into(),
        AttributeValue::I64(v) => v.into(),
        AttributeValue::F32(v) => v.into(),
        AttributeValue::F64(v) => v.into(),
    }
}

/// A file that netCDF-C can open by path and that is gone when nobody holds it any more.
///
/// In memory where the system has a folder for that, so that no disk is needed. Its name is taken
/// away as soon as netCDF-C has opened it: a killed process leaves nothing behind.
struct Scratch {
    file: File,
    path: tempfile::TempPath,
}

impl Scratch {
    fn new() -> Result<Self, EncodeError> {
        let place = std::env::temp_dir();
        let (file, path) = tempfile::NamedTempFile::new_in("/dev/shm")
            .or_else(|_| tempfile::NamedTempFile::new_in(&place))
            .map_err(|source| EncodeError::Scratch { place: place.display().to_string(), source })?
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
