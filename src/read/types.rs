//! Types that POP history does not use, as the user knows them.

use hdf5_reader::messages::datatype::{Datatype, ReferenceType};
use netcdf_reader::NcType;

use super::ReadError;

/// The refusal of a variable or attribute for its type.
pub(super) fn unknown(url: &str, object: &str, dtype: &NcType) -> ReadError {
    let dtype = match dtype {
        NcType::Compound { fields, .. } => compound(fields.iter().map(|field| field.name.as_str())),
        NcType::Enum { .. } => ENUMERATION.to_owned(),
        NcType::Opaque { size, .. } => opaque(*size),
        NcType::Array { .. } => ARRAY.to_owned(),
        NcType::VLen { .. } => VARIABLE_LENGTH.to_owned(),
        other => format!("{other:?}").to_lowercase(),
    };
    refusal(url, object, dtype)
}

/// The refusal of a dataset or attribute of HDF5 that has no counterpart in NetCDF.
pub(super) fn without_counterpart(url: &str, object: &str, dtype: &Datatype) -> ReadError {
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
    refusal(url, object, dtype)
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

fn refusal(url: &str, object: &str, dtype: String) -> ReadError {
    ReadError::Type { url: url.to_owned(), object: object.to_owned(), dtype }
}
