//! Reads NetCDF files with netCDF-C, and copies them into other NetCDF formats.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use netcdf::types::{FloatType, IntType, NcVariableType};
use netcdf::{AttributeValue, FileMut, NcTypeDescriptor, Options};

/// A variable of a file, with its values as netCDF-C has them in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub dtype: NcVariableType,
    pub dims: Vec<(String, usize)>,
    pub attributes: Vec<(String, AttributeValue)>,
    /// Values in native byte order.
    pub bytes: Vec<u8>,
    /// The shape of a chunk; `None` if the variable is contiguous.
    pub chunk: Option<Vec<usize>>,
    /// Whether the shuffle filter is on, and the deflate level; `None` without deflate.
    pub filters: (bool, Option<i32>),
}

impl Variable {
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The value of a text attribute; panics if it is absent or no text.
    pub fn text(&self, name: &str) -> &str {
        match self.attribute(name) {
            Some(AttributeValue::Str(text)) => text,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// The values of an `f64` variable.
    pub fn doubles(&self) -> Vec<f64> {
        assert_eq!(self.dtype, NcVariableType::Float(FloatType::F64));
        self.bytes.as_chunks::<8>().0.iter().map(|b| f64::from_ne_bytes(*b)).collect()
    }

    pub fn dim_names(&self) -> Vec<&str> {
        self.dims.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|(_, len)| *len).collect()
    }

    pub fn is_float(&self) -> bool {
        matches!(self.dtype, NcVariableType::Float(_))
    }
}

/// Everything in a file: dimensions, attributes and variables.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// Name, length, and whether the dimension is unlimited.
    pub dims: Vec<(String, usize, bool)>,
    pub attributes: Vec<(String, AttributeValue)>,
    /// Names of the variables, in the order of the file.
    pub order: Vec<String>,
    pub variables: BTreeMap<String, Variable>,
}

impl Contents {
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }
}

fn attributes<'a>(
    found: impl Iterator<Item = netcdf::Attribute<'a>>,
) -> Vec<(String, AttributeValue)> {
    found.map(|a| (a.name().to_owned(), a.value().unwrap())).collect()
}

/// Reads all of a file.
pub fn contents(path: &Path) -> Contents {
    silence_hdf5_errors();
    let file = netcdf::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let dims = file.dimensions().map(|d| (d.name(), d.len(), d.is_unlimited())).collect();
    let order: Vec<String> = file.variables().map(|v| v.name()).collect();
    let variables = file.variables().zip(filters(path, &order)).map(|(v, filters)| {
        let variable = Variable {
            dtype: v.vartype(),
            dims: v.dimensions().iter().map(|d| (d.name(), d.len())).collect(),
            attributes: attributes(v.attributes()),
            bytes: v.get_raw_values(..).unwrap(),
            chunk: v.chunking().unwrap(),
            filters,
        };
        (v.name(), variable)
    });
    let variables = variables.collect();
    Contents { dims, attributes: attributes(file.attributes()), order, variables }
}

/// Turns off the error messages of HDF5 for this thread: netCDF-C looks for attributes that may be
/// absent, and HDF5 would print an error for each.
fn silence_hdf5_errors() {
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: the lock is held, and there is no handler to call.
    unsafe {
        hdf5_metno_sys::h5::H5open();
        hdf5_metno_sys::h5e::H5Eset_auto2(
            hdf5_metno_sys::h5e::H5E_DEFAULT,
            None,
            std::ptr::null_mut(),
        );
    }
}

/// Shuffle and deflate level of each variable. The `netcdf` crate has no function for this.
fn filters(path: &Path, variables: &[String]) -> Vec<(bool, Option<i32>)> {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut file = 0;
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: the lock is held and the path ends in NUL.
    assert_eq!(unsafe { netcdf_sys::nc_open(path.as_ptr(), 0, &mut file) }, 0);
    let filters_of = |variable: &String| {
        let variable = CString::new(variable.as_str()).unwrap();
        let (mut id, mut shuffle, mut deflate, mut level) = (0, 0, 0, 0);
        // SAFETY: the lock is held, the file is open, the results have the types of C.
        unsafe {
            assert_eq!(netcdf_sys::nc_inq_varid(file, variable.as_ptr(), &mut id), 0);
            // In formats without filters, this call fails and leaves the zeros.
            netcdf_sys::nc_inq_var_deflate(file, id, &mut shuffle, &mut deflate, &mut level);
        }
        (shuffle != 0, (deflate != 0).then_some(level))
    };
    let found = variables.iter().map(filters_of).collect();
    // SAFETY: the lock is held and the file is closed once.
    unsafe { netcdf_sys::nc_close(file) };
    found
}

/// The NetCDF format of a copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Cdf1,
    Cdf2,
    Cdf5,
    /// NetCDF-4; variables without an unlimited dimension are contiguous.
    Contiguous,
    /// NetCDF-4 with several chunks per variable, shuffle and this deflate level.
    Deflated(i32),
}

/// Writes `from` with netCDF-C to `to`, in the format `form`; `more` may add to the open file. If
/// `record` is false, unlimited dimensions (`time`) become fixed.
pub fn copy(from: &Contents, to: &Path, form: Form, record: bool, more: impl FnOnce(&mut FileMut)) {
    let options = match form {
        Form::Cdf1 => Options::empty(),
        Form::Cdf2 => Options::_64BIT_OFFSET,
        Form::Cdf5 => Options::_64BIT_DATA,
        Form::Contiguous | Form::Deflated(_) => Options::NETCDF4,
    };
    // HDF5 locks the file that it writes, and a process that another test starts meanwhile inherits
    // the lock. A copy, which HDF5 never had open, is not locked.
    let temporary = to.with_extension("making");
    let mut file = netcdf::create_with(&temporary, options).unwrap();
    for (name, len, unlimited) in &from.dims {
        if *unlimited && record {
            file.add_unlimited_dimension(name).unwrap();
        } else {
            file.add_dimension(name, *len).unwrap();
        }
    }
    for (name, value) in &from.attributes {
        file.add_attribute(name, value.clone()).unwrap();
    }
    for name in &from.order {
        let variable = &from.variables[name];
        let mut target =
            file.add_variable_with_type(name, &variable.dim_names(), &variable.dtype).unwrap();
        if let (Form::Deflated(level), false) = (form, variable.dims.is_empty()) {
            let halves: Vec<_> = variable.shape().iter().map(|len| len.div_ceil(2)).collect();
            target.set_chunking(&halves).unwrap();
            target.set_compression(level, true).unwrap();
        }
        for (name, value) in &variable.attributes {
            target.put_attribute(name, value.clone()).unwrap();
        }
    }
    file.enddef().unwrap();
    for name in &from.order {
        let variable = &from.variables[name];
        let (bytes, shape) = (&variable.bytes, variable.shape());
        let mut target = file.variable_mut(name).unwrap();
        match variable.dtype {
            NcVariableType::Float(FloatType::F32) => put::<f32, 4>(&mut target, bytes, &shape),
            NcVariableType::Float(FloatType::F64) => put::<f64, 8>(&mut target, bytes, &shape),
            ref other => panic!("{other:?}"),
        }
    }
    more(&mut file);
    file.close().unwrap();
    std::fs::copy(&temporary, to).unwrap();
    std::fs::remove_file(&temporary).unwrap();
}

/// A number that can be read from its bytes in native byte order.
pub trait FromNativeBytes<const N: usize>: NcTypeDescriptor + Copy {
    fn from_native_bytes(bytes: [u8; N]) -> Self;
}

macro_rules! impl_from_native_bytes {
    ($($type:ty, $n:literal;)*) => {$(
        impl FromNativeBytes<$n> for $type {
            fn from_native_bytes(bytes: [u8; $n]) -> Self {
                Self::from_ne_bytes(bytes)
            }
        }
    )*};
}
impl_from_native_bytes! { f32, 4; f64, 8; }

fn put<T: FromNativeBytes<N>, const N: usize>(
    target: &mut netcdf::VariableMut<'_>,
    bytes: &[u8],
    shape: &[usize],
) {
    let values: Vec<T> =
        bytes.as_chunks::<N>().0.iter().map(|b| T::from_native_bytes(*b)).collect();
    put_all(target, &values, shape);
}

/// Writes all values of a variable; an unlimited first dimension grows as needed.
pub fn put_all<T: NcTypeDescriptor>(
    target: &mut netcdf::VariableMut<'_>,
    values: &[T],
    shape: &[usize],
) {
    let extents: Vec<netcdf::Extent> = shape.iter().map(|&len| (0..len).into()).collect();
    target.put_values(values, extents).unwrap();
}

/// A value of type `NC_CHAR`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Char(pub u8);

// SAFETY: NC_CHAR is one byte in memory, as Char is.
unsafe impl NcTypeDescriptor for Char {
    fn type_descriptor() -> NcVariableType {
        NcVariableType::Char
    }
}

/// The type `NC_SHORT`.
pub const SHORT: NcVariableType = NcVariableType::Int(IntType::I16);
/// The type `NC_INT`.
pub const INT: NcVariableType = NcVariableType::Int(IntType::I32);
/// The type `NC_BYTE`.
pub const BYTE: NcVariableType = NcVariableType::Int(IntType::I8);
