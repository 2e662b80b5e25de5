//! Checks names and attributes for netCDF-C before a file is written.
//!
//! An attribute that netCDF-C would reject is converted where the conversion is exact or dropped
//! where it is reserved; anything else is an error.

use std::sync::Once;

use crate::model::cf::CfError;
use crate::model::dataset::{Attribute, AttributeValue, DataType, Variable};

/// Attribute names that netCDF-C reserves in NetCDF-4 files (`NC_findreserved`). Classic files of
/// other tools contain some of them as ordinary attributes without a meaning.
const RESERVED: [&str; 21] = [
    "CLASS",
    "DIMENSION_LIST",
    "NAME",
    "REFERENCE_LIST",
    "_ARRAY_DIMENSIONS",
    "_Codecs",
    "_Format",
    "_IsNetcdf4",
    "_NCProperties",
    "_NCZARR_ARRAY",
    "_NCZARR_ATTR",
    "_NCZARR_GROUP",
    "_NCZARR_SUPERBLOCK",
    "_Netcdf4Coordinates",
    "_Netcdf4Dimid",
    "_SuperblockVersion",
    "_nc3_strict",
    "_nczarr_array",
    "_nczarr_attr",
    "_nczarr_group",
    "_nczarr_superblock",
];
/// Longest name in bytes (`NC_MAX_NAME`).
const LONGEST_NAME: usize = 256;

/// Checks the names of a variable and normalizes its attributes: `_FillValue` gets the type of the
/// variable, reserved attributes are dropped.
///
/// # Errors
/// A name is invalid, or the type of the variable cannot represent `_FillValue` exactly.
pub fn normalize_variable(variable: &mut Variable) -> Result<(), CfError> {
    check_name(&variable.name, &variable.name)?;
    for dimension in &variable.dims {
        check_name(&variable.name, &dimension.name)?;
    }
    normalize_attributes(&variable.name, &mut variable.attributes)?;
    let Some(fill) = variable.attribute("_FillValue") else { return Ok(()) };
    let expected =
        format!("one value that the variable's own type, {}, represents exactly", variable.dtype);
    let fill = cast(fill, variable.dtype);
    let fill = fill.ok_or_else(|| CfError::of(variable, "_FillValue", expected))?;
    for attribute in variable.attributes.iter_mut().filter(|a| a.name == "_FillValue") {
        attribute.value = fill.clone();
    }
    Ok(())
}

/// Drops reserved attributes of a variable or file, with a warning once per process, and checks the
/// names of the others. `of` is the name of the variable, or `file`.
///
/// # Errors
/// A name is invalid.
pub fn normalize_attributes(of: &str, attributes: &mut Vec<Attribute>) -> Result<(), CfError> {
    static WARNED: Once = Once::new();
    attributes.retain(|attribute| {
        let is_reserved = RESERVED.contains(&&*attribute.name);
        if is_reserved {
            WARNED.call_once(|| {
                tracing::warn!(
                    "`{of}:{}` is an attribute that only the NetCDF library may write; this and \
                     other such attributes are left out",
                    attribute.name
                );
            });
        }
        !is_reserved
    });
    attributes.iter().try_for_each(|attribute| check_name(of, &attribute.name))
}

/// Checks a name by the rules of netCDF-C (`NC_check_name`).
///
/// netCDF-C also normalizes names to Unicode NFC: a name that this changes could not be looked up.
fn check_name(of: &str, name: &str) -> Result<(), CfError> {
    let expected = match name.chars().next() {
        None => "a name that is not empty",
        Some(first) if !(first.is_alphanumeric() || first == '_' || !first.is_ascii()) => {
            "a name that begins with a letter, a digit or an underscore"
        }
        _ if name.len() > LONGEST_NAME => "a name of at most 256 bytes",
        _ if name.ends_with(char::is_whitespace) => "a name that does not end in a space",
        _ if name.contains(|c: char| c == '/' || c.is_control()) => "a name without `/`",
        _ if name.contains(|c| ('\u{300}'..='\u{36f}').contains(&c)) => {
            "a name of composed characters (Unicode NFC)"
        }
        _ => return Ok(()),
    };
    Err(CfError {
        variable: of.to_owned(),
        attribute: "name".to_owned(),
        found: format!("{name:?}"),
        expected: expected.to_owned(),
    })
}

/// Converts a value to the type of a variable; `None` when the type cannot represent it exactly.
fn cast(value: &AttributeValue, dtype: DataType) -> Option<AttributeValue> {
    if dtype == DataType::Char {
        return value.as_text().filter(|text| text.len() == 1).map(|_| value.clone());
    }
    if value.is_one_of(dtype) {
        return Some(value.clone());
    }
    let numbers = value.numbers()?;
    let &[number] = numbers.as_slice() else { return None };
    macro_rules! exactly {
        ($type:ty, $kind:ident) => {{
            let cast = number as $type;
            let is_exact = cast as f64 == number || (number.is_nan() && (cast as f64).is_nan());
            is_exact.then(|| AttributeValue::$kind(vec![cast]))
        }};
    }
    match dtype {
        DataType::Char => None,
        DataType::I8 => exactly!(i8, I8),
        DataType::I16 => exactly!(i16, I16),
        DataType::I32 => exactly!(i32, I32),
        DataType::I64 => exactly!(i64, I64),
        DataType::U8 => exactly!(u8, U8),
        DataType::U16 => exactly!(u16, U16),
        DataType::U32 => exactly!(u32, U32),
        DataType::U64 => exactly!(u64, U64),
        DataType::F32 => exactly!(f32, F32),
        DataType::F64 => exactly!(f64, F64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(dtype: DataType, name: &str, value: AttributeValue) -> Variable {
        let attributes = vec![Attribute { name: name.to_owned(), value }];
        Variable { name: "DIC".to_owned(), dtype, dims: Vec::new(), attributes }
    }

    #[test]
    fn fill_is_converted_when_the_type_represents_it_exactly() {
        use AttributeValue::{F32, F64, I8, I16, I32, Text, U8};
        for (dtype, found, expected) in [
            (DataType::F32, F64(vec![-999.0]), Some(F32(vec![-999.0]))),
            (DataType::F32, F64(vec![9.96921e36]), None),
            (DataType::I16, F32(vec![-5.0]), Some(I16(vec![-5]))),
            (DataType::I16, I32(vec![40_000]), None),
            (DataType::U8, I8(vec![-1]), None),
            (DataType::U8, I16(vec![255]), Some(U8(vec![255]))),
            (DataType::F32, F32(vec![1.0, 2.0]), None),
            (DataType::F64, Text("x".to_owned()), None),
            (DataType::Char, Text("x".to_owned()), Some(Text("x".to_owned()))),
            (DataType::Char, Text("xy".to_owned()), None),
        ] {
            let mut variable = variable(dtype, "_FillValue", found.clone());
            let result = normalize_variable(&mut variable);
            let value = result.ok().and_then(|()| variable.attribute("_FillValue").cloned());
            assert_eq!(value, expected, "{found:?} as {dtype}");
        }
        let mut nan = variable(DataType::F32, "_FillValue", F64(vec![f64::NAN]));
        normalize_variable(&mut nan).unwrap();
        assert!(matches!(nan.attribute("_FillValue"), Some(F32(v)) if v[0].is_nan()));
    }

    #[test]
    fn reserved_attributes_are_dropped_and_other_names_are_checked() {
        let text = || AttributeValue::Text("x".to_owned());
        for name in RESERVED {
            let mut reserved = variable(DataType::F32, name, text());
            normalize_variable(&mut reserved).unwrap();
            assert_eq!(reserved.attributes, [], "{name}");
        }
        for name in ["", "-x", "x ", "a/b", "e\u{301}", &"x".repeat(257)] {
            let mut invalid = variable(DataType::F32, name, text());
            assert!(normalize_variable(&mut invalid).is_err(), "{name}");
        }
        for name in ["a b", "x(1)", "2d", "_x", "é"] {
            normalize_variable(&mut variable(DataType::F32, name, text())).unwrap();
        }
    }
}
