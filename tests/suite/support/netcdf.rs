//! Files through netCDF-C: what is in them, and the same in another format.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::Path;

use netcdf::types::{FloatType, IntType, NcVariableType};
use netcdf::{AttributeValue, FileMut, NcTypeDescriptor, Options};

/// A variable with its bytes as netCDF-C has them in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub dtype: NcVariableType,
    pub dims: Vec<(String, usize)>,
    pub attributes: Vec<(String, AttributeValue)>,
    pub bytes: Vec<u8>,
    /// Lengths of a chunk; none when contiguous.
    pub chunk: Option<Vec<usize>>,
    /// Whether the bytes are shuffled, and the level of deflate.
    pub filters: (bool, Option<i32>),
}

impl Variable {
    pub fn attribute(&self, name: &str) -> Option<&AttributeValue> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    pub fn text(&self, name: &str) -> &str {
        match self.attribute(name) {
            Some(AttributeValue::Str(text)) => text,
            other => panic!("{name}: {other:?}"),
        }
    }

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

/// All of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// Name, length, and whether unlimited.
    pub dims: Vec<(String, usize, bool)>,
    pub attributes: Vec<(String, AttributeValue)>,
    /// In the order of the file.
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

/// Reads a file whole.
pub fn contents(path: &Path) -> Contents {
    be_quiet();
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

/// netCDF-C looks for attributes that are not there, and HDF5 prints that on each thread that was not told not to.
fn be_quiet() {
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: the lock is held; no handler is set.
    unsafe {
        hdf5_metno_sys::h5::H5open();
        hdf5_metno_sys::h5e::H5Eset_auto2(
            hdf5_metno_sys::h5e::H5E_DEFAULT,
            None,
            std::ptr::null_mut(),
        );
    }
}

/// Shuffle and the level of deflate of each variable, which the crate has no call for.
fn filters(path: &Path, variables: &[String]) -> Vec<(bool, Option<i32>)> {
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let mut file = 0;
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: the lock is held and the path ends in NUL.
    assert_eq!(unsafe { netcdf_sys::nc_open(path.as_ptr(), 0, &mut file) }, 0);
    let of_one = |variable: &String| {
        let variable = CString::new(variable.as_str()).unwrap();
        let (mut id, mut shuffle, mut deflate, mut level) = (0, 0, 0, 0);
        // SAFETY: the lock is held, the file is open, the results have the types of C.
        unsafe {
            assert_eq!(netcdf_sys::nc_inq_varid(file, variable.as_ptr(), &mut id), 0);
            // Fails, and leaves the zeros, where the format has no filters.
            netcdf_sys::nc_inq_var_deflate(file, id, &mut shuffle, &mut deflate, &mut level);
        }
        (shuffle != 0, (deflate != 0).then_some(level))
    };
    let found = variables.iter().map(of_one).collect();
    // SAFETY: the lock is held and the file is closed once.
    unsafe { netcdf_sys::nc_close(file) };
    found
}

/// How a copy is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Cdf1,
    Cdf2,
    Cdf5,
    /// NetCDF-4 without chunks, where no dimension is unlimited.
    Contiguous,
    /// NetCDF-4, several chunks a variable, shuffled, this level of deflate.
    Deflated(i32),
}

/// Copies a file through netCDF-C into another form and lets `more` add to it. `time` becomes a
/// dimension like any other when `record` is false.
pub fn copy(from: &Contents, to: &Path, form: Form, record: bool, more: impl FnOnce(&mut FileMut)) {
    let options = match form {
        Form::Cdf1 => Options::empty(),
        Form::Cdf2 => Options::_64BIT_OFFSET,
        Form::Cdf5 => Options::_64BIT_DATA,
        Form::Contiguous | Form::Deflated(_) => Options::NETCDF4,
    };
    // HDF5 locks the file that it makes, and a program started meanwhile by another test inherits
    // the lock: the file under the final name is one that HDF5 never had open.
    let making = to.with_extension("making");
    let mut file = netcdf::create_with(&making, options).unwrap();
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
    std::fs::copy(&making, to).unwrap();
    std::fs::remove_file(&making).unwrap();
}

/// A value made from its bytes in memory.
pub trait Native<const N: usize>: NcTypeDescriptor + Copy {
    fn of(bytes: [u8; N]) -> Self;
}

macro_rules! native {
    ($($type:ty, $n:literal;)*) => {$(
        impl Native<$n> for $type {
            fn of(bytes: [u8; $n]) -> Self {
                Self::from_ne_bytes(bytes)
            }
        }
    )*};
}
native! { f32, 4; f64, 8; }

fn put<T: Native<N>, const N: usize>(
    target: &mut netcdf::VariableMut<'_>,
    bytes: &[u8],
    shape: &[usize],
) {
    let values: Vec<T> = bytes.as_chunks::<N>().0.iter().map(|b| T::of(*b)).collect();
    put_all(target, &values, shape);
}

/// Writes all values of a variable, whose first dimension may be unlimited and still empty.
pub fn put_all<T: NcTypeDescriptor>(
    target: &mut netcdf::VariableMut<'_>,
    values: &[T],
    shape: &[usize],
) {
    let extents: Vec<netcdf::Extent> = shape.iter().map(|&len| (0..len).into()).collect();
    target.put_values(values, extents).unwrap();
}

/// A byte of text.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Char(pub u8);

// SAFETY: NC_CHAR is one byte in memory, as Char is.
unsafe impl NcTypeDescriptor for Char {
    fn type_descriptor() -> NcVariableType {
        NcVariableType::Char
    }
}

/// The types of integers that the classic formats have.
pub const SHORT: NcVariableType = NcVariableType::Int(IntType::I16);
pub const INT: NcVariableType = NcVariableType::Int(IntType::I32);
pub const BYTE: NcVariableType = NcVariableType::Int(IntType::I8);
