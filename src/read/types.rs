//! Errors for data types that POP history does not use, with the type in words.

use hdf5_reader::Dataset;
use hdf5_reader::messages::datatype::{Datatype, ReferenceType};
use netcdf_reader::NcType;
use netcdf_reader::nc4::types::hdf5_to_nc_type;

use super::ReadError;

/// Rejects data types without a counterpart in NetCDF, such as references, with an error of their own:
/// the library would report damage.
pub(super) fn check(dataset: &Dataset, url: &str) -> Result<(), ReadError> {
    let name = leaf(dataset.name());
    if hdf5_to_nc_type(dataset.dtype()).is_err() {
        return Err(unsupported_hdf5_type(url, name, dataset.dtype()));
    }
    // netCDF-C stores references in these attributes.
    let is_internal = |name: &str| matches!(name, "DIMENSION_LIST" | "REFERENCE_LIST");
    for attribute in dataset.attributes().iter().filter(|a| !is_internal(&a.name)) {
        if hdf5_to_nc_type(&attribute.datatype).is_err() {
            let object = format!("{name}:{}", attribute.name);
            return Err(unsupported_hdf5_type(url, &object, &attribute.datatype));
        }
    }
    Ok(())
}

/// The error for a variable or attribute of an unsupported NetCDF type.
pub(super) fn unsupported_nc_type(url: &str, object: &str, dtype: &NcType) -> ReadError {
    let dtype = match dtype {
        NcType::Compound { fields, .. } => compound(fields.iter().map(|field| field.name.as_str())),
        NcType::Enum { .. } => ENUMERATION.to_owned(),
        NcType::Opaque { size, .. } => opaque(*size),
        NcType::Array { .. } => ARRAY.to_owned(),
        NcType::VLen { .. } => VARIABLE_LENGTH.to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    type_error(url, object, dtype)
}

/// The error for an HDF5 dataset or attribute whose type has no counterpart in NetCDF.
fn unsupported_hdf5_type(url: &str, object: &str, dtype: &Datatype) -> ReadError {
    let dtype = match dtype {
        Datatype::FixedPoint { size, .. } => format!("an integer of {size} bytes"),
        Datatype::FloatingPoint { size: 16, .. } => "long double, of 16 bytes".to_owned(),
        Datatype::FloatingPoint { size, .. } => format!("a floating-point number of {size} bytes"),
        Datatype::String { .. } => "text".to_owned(),
        Datatype::Compound { fields, .. } => {
            compound(fields.iter().map(|field| field.name.as_str()))
        }
        Datatype::Array { .. } => ARRAY.to_owned(),
        Datatype::Enum { .. } => ENUMERATION.to_owned(),
        Datatype::VarLen { .. } => VARIABLE_LENGTH.to_owned(),
        Datatype::Opaque { size, .. } => opaque(*size),
        Datatype::Reference { ref_type: ReferenceType::Object, .. } => {
            "a reference to an object".to_owned()
        }
        Datatype::Reference { .. } => "a reference to a region".to_owned(),
        Datatype::Bitfield { .. } => "a bit field".to_owned(),
    };
    type_error(url, object, dtype)
}

const ENUMERATION: &str = "an enumeration";
const ARRAY: &str = "an array";
const VARIABLE_LENGTH: &str = "of variable length";

fn compound<'a>(fields: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    format!("a compound of {}", fields.take(SHOWN).collect::<Vec<_>>().join(", "))
}

fn opaque(size: u32) -> String {
    format!("opaque, of {size} bytes")
}

fn type_error(url: &str, object: &str, dtype: String) -> ReadError {
    ReadError::Type { url: url.to_owned(), object: object.to_owned(), dtype }
}

/// The last component of an object's path, as NetCDF shows it.
pub(super) fn leaf(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    // netCDF-C adds the prefix to a variable with the name of a dimension that is not its first one.
    name.strip_prefix("_nc4_non_coord_").unwrap_or(name)
}
