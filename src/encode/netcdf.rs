//! Converts types and values of the model to those of netCDF-C.

use netcdf::types::{FloatType, IntType, NcVariableType};

use crate::model::dataset::{AttributeValue, ByteOrder, DataType};

/// Writes all values of a variable from bytes in byte order `order`.
pub fn put_values(
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
        DataType::U8 => put!(u8, 1),
        DataType::U16 => put!(u16, 2),
        DataType::U32 => put!(u32, 4),
        DataType::U64 => put!(u64, 8),
        DataType::F32 => put!(f32, 4),
        DataType::F64 => put!(f64, 8),
    }
}

/// A character of netCDF-C (NC_CHAR).
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Char(#[allow(dead_code, reason = "read by netCDF-C")] u8);

// SAFETY: NC_CHAR is one byte in memory, as Char is.
unsafe impl netcdf::NcTypeDescriptor for Char {
    fn type_descriptor() -> NcVariableType {
        NcVariableType::Char
    }
}

/// The netCDF-C type of a data type.
pub fn type_of(dtype: DataType) -> NcVariableType {
    match dtype {
        DataType::Char => NcVariableType::Char,
        DataType::I8 => NcVariableType::Int(IntType::I8),
        DataType::I16 => NcVariableType::Int(IntType::I16),
        DataType::I32 => NcVariableType::Int(IntType::I32),
        DataType::I64 => NcVariableType::Int(IntType::I64),
        DataType::U8 => NcVariableType::Int(IntType::U8),
        DataType::U16 => NcVariableType::Int(IntType::U16),
        DataType::U32 => NcVariableType::Int(IntType::U32),
        DataType::U64 => NcVariableType::Int(IntType::U64),
        DataType::F32 => NcVariableType::Float(FloatType::F32),
        DataType::F64 => NcVariableType::Float(FloatType::F64),
    }
}

/// The netCDF-C value of an attribute.
pub fn value_of(value: &AttributeValue) -> netcdf::AttributeValue {
    match value.clone() {
        AttributeValue::Text(text) => text.into(),
        AttributeValue::Texts(texts) => netcdf::AttributeValue::Strs(texts),
        AttributeValue::I8(v) => v.into(),
        AttributeValue::I16(v) => v.into(),
        AttributeValue::I32(v) => v.into(),
        AttributeValue::I64(v) => v.into(),
        AttributeValue::U8(v) => v.into(),
        AttributeValue::U16(v) => v.into(),
        AttributeValue::U32(v) => v.into(),
        AttributeValue::U64(v) => v.into(),
        AttributeValue::F32(v) => v.into(),
        AttributeValue::F64(v) => v.into(),
    }
}
