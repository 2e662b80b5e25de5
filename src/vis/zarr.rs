//! Reader of Zarr stores of other programs: arrays of any codec in Zarr v2 or v3.

use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zarrs::array::{Array, ArrayMetadata, CodecOptions};
use zarrs::storage::AsyncReadableStorage;

use super::{VisError, bounded};
use crate::model::Case;
use crate::model::cf::{CfError, Decoding};
use crate::model::dataset::{Attribute, AttributeValue, DataType, Variable};
use crate::store::{ObjectMeta, Store};

/// Finds the metadata object of an array of the store in `folder`. `flag` is the option that gives the
/// location of the store, for messages.
///
/// # Errors
/// [`VisError::Zarr`] when there is no such array.
pub async fn find(
    store: &Store,
    folder: &str,
    array: &str,
    flag: &str,
) -> Result<ObjectMeta, VisError> {
    for name in ["zarr.json", ".zarray"] {
        if let Some(metadata) = store.head(&format!("{folder}/{array}/{name}")).await? {
            return Ok(ObjectMeta { etag: None, ..metadata });
        }
    }
    Err(VisError::Zarr {
        url: store.location().join(folder).to_string(),
        problem: format!("there is no array {array}; check {flag}"),
    })
}

/// Lists the cases that have a store with the name `CASE` and `suffix`.
pub async fn cases(store: &Store, suffix: &str) -> Result<Vec<Case>, VisError> {
    let folders = store.list_folders("").await?;
    let case = |folder: &String| folder.strip_suffix(suffix)?.parse().ok();
    let mut cases: Vec<Case> = folders.iter().filter_map(case).collect();
    cases.sort_unstable();
    Ok(cases)
}

/// Size that is accepted for the chunk of any array, bytes. A small array can have larger chunks than its
/// shape.
const MIN_CHUNK_BOUND: u64 = 16 << 20;

/// Upper bound of the size of a chunk of an array of `count` values, bytes, before compression.
pub fn longest(count: usize) -> u64 {
    MIN_CHUNK_BOUND.max(8 * count as u64)
}

/// Memory of [`values`] for an array of `count` values, bytes: the values in their stored type and as f64,
/// and a chunk before and after decompression.
pub fn memory(count: usize) -> u64 {
    let values = 8 * count as u64;
    2 * values + 2 * longest(count)
}

/// Reads an array without missing values, such as regridding weights. Ignores the fill value of the array;
/// otherwise like [`values`].
pub async fn numbers(
    storage: &AsyncReadableStorage,
    path: &str,
    url: String,
    counts: RangeInclusive<usize>,
) -> Result<Vec<f64>, VisError> {
    read(storage, path, url, counts, ("1", false)).await
}

/// Reads an array of any numeric type and codec as f64; NaN for fill.
///
/// The number of values must be in `counts`. The values are converted to `units`; an array without units
/// is taken to be in `units`.
///
/// # Errors
/// [`VisError::Zarr`] when the array cannot be read, has another size or other units, or has an infinite
/// value.
pub async fn values(
    storage: &AsyncReadableStorage,
    path: &str,
    url: String,
    counts: RangeInclusive<usize>,
    units: &str,
) -> Result<Vec<f64>, VisError> {
    read(storage, path, url, counts, (units, true)).await
}

/// Reads an array; `has_fill` says whether the fill value of the array stands for missing values.
async fn read(
    storage: &AsyncReadableStorage,
    path: &str,
    url: String,
    counts: RangeInclusive<usize>,
    (units, has_fill): (&str, bool),
) -> Result<Vec<f64>, VisError> {
    bounded::register();
    let failed = |error: &dyn std::error::Error| VisError::Zarr {
        url: url.clone(),
        problem: crate::store::with_causes(error),
    };
    let array = Array::async_open(storage.clone(), path).await.map_err(|e| failed(&e))?;
    check_size(&array, &counts).map_err(|problem| VisError::Zarr { url: url.clone(), problem })?;
    // The text has the names of the type in Zarr v3 and Zarr v2, in this order.
    let names = array.data_type().to_string();
    let name = names.split(' ').next().unwrap_or_default();
    let mut attributes = array.attributes().clone();
    if let (true, ArrayMetadata::V2(metadata)) = (has_fill, array.metadata()) {
        add_fill_value(
            &mut attributes,
            serde_json::to_value(&metadata.fill_value).unwrap_or_default(),
        );
    }
    let decoding = type_of(name).map(|dtype| decoding(path, dtype, &attributes, units));
    let Some(decoding) = decoding else {
        let problem = format!("its values are {names}, not floats or integers");
        return Err(VisError::Zarr { url, problem });
    };
    let decoding = decoding.map_err(|e| failed(&e))?;
    let all = array.subset_all();
    // By default the library decodes one chunk for each core, which would exceed the bound of [`memory`].
    let options = CodecOptions::default().with_concurrent_target(1);
    macro_rules! as_f64 {
        ($type:ty) => {{
            let stored = array.async_retrieve_array_subset_opt::<Vec<$type>>(&all, &options).await;
            stored.map_err(|e| failed(&e))?.into_iter().map(|v| v as f64).collect()
        }};
    }
    let values: Vec<f64> = match name {
        "float64" => as_f64!(f64),
        "float32" => as_f64!(f32),
        "int64" => as_f64!(i64),
        "int32" => as_f64!(i32),
        "int16" => as_f64!(i16),
        "int8" => as_f64!(i8),
        "uint64" => as_f64!(u64),
        "uint32" => as_f64!(u32),
        "uint16" => as_f64!(u16),
        _ => as_f64!(u8),
    };
    if let Some(at) = values.iter().position(|value| value.is_infinite()) {
        return Err(VisError::Zarr { url, problem: format!("value {at} is infinite") });
    }
    Ok(decoding.values(values))
}

/// Parses the Zarr name of a numeric type; `None` for other types.
fn type_of(name: &str) -> Option<DataType> {
    Some(match name {
        "float64" => DataType::F64,
        "float32" => DataType::F32,
        "int64" => DataType::I64,
        "int32" => DataType::I32,
        "int16" => DataType::I16,
        "int8" => DataType::I8,
        "uint64" => DataType::U64,
        "uint32" => DataType::U32,
        "uint16" => DataType::U16,
        "uint8" => DataType::U8,
        _ => return None,
    })
}

/// Adds the fill value of a Zarr v2 array as the attribute `_FillValue`, unless there is one: xarray stores
/// that attribute as the fill value of the array.
fn add_fill_value(attributes: &mut Map<String, Value>, fill: Value) {
    if fill.is_number() && !attributes.contains_key("_FillValue") {
        attributes.insert("_FillValue".to_owned(), fill);
    }
}

/// Creates the decoder of an array from its CF attributes, in the form that xarray writes them.
fn decoding(
    path: &str,
    dtype: DataType,
    attributes: &Map<String, Value>,
    units: &str,
) -> Result<Decoding, CfError> {
    let attributes = attributes.iter().filter_map(|(name, value)| {
        let value = match value {
            // In Zarr v3 xarray writes the fill value of floats in base64.
            Value::String(text) if name == "_FillValue" => parse_base64_float(text),
            value => attribute(value),
        };
        let value = value?;
        Some(Attribute { name: name.clone(), value })
    });
    let name = path.trim_start_matches('/').to_owned();
    let array = Variable { name, dtype, dims: Vec::new(), attributes: attributes.collect() };
    match array.text("units").trim() {
        "" => Decoding::without_units(&array),
        _ => Decoding::to_units(&array, units),
    }
}

/// Decodes a float from base64; any other text is returned as text.
fn parse_base64_float(text: &str) -> Option<AttributeValue> {
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let number = match *bytes.as_slice() {
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => return Some(AttributeValue::Text(text.to_owned())),
    };
    Some(AttributeValue::F64(vec![number]))
}

/// Converts a JSON attribute to a NetCDF attribute; `None` for values that NetCDF does not have.
fn attribute(value: &Value) -> Option<AttributeValue> {
    let numbers = match value {
        Value::String(text) => return Some(AttributeValue::Text(text.clone())),
        Value::Array(values) => values.iter().collect(),
        value => vec![value],
    };
    let whole = |value: &&Value| value.as_i64();
    let whole: Option<Vec<i64>> = numbers.iter().map(whole).collect();
    let double = |value: &&Value| value.as_f64();
    whole.map(AttributeValue::I64).or_else(|| {
        numbers.iter().map(double).collect::<Option<Vec<f64>>>().map(AttributeValue::F64)
    })
}

/// Checks the shape and chunk size in the metadata of an array before anything is allocated. The number of
/// values must be in `counts`, and a chunk must not exceed [`longest`]. The error is the text of a message.
fn check_size<T: ?Sized>(array: &Array<T>, counts: &RangeInclusive<usize>) -> Result<(), String> {
    let product = |shape: &[u64]| shape.iter().copied().try_fold(1, u64::checked_mul);
    let found = product(array.shape()).and_then(|found| usize::try_from(found).ok());
    let shape = array.shape();
    let Some(found) = found.filter(|found| counts.contains(found)) else {
        return Err(match counts.start() == counts.end() {
            true => format!("its shape is {shape:?}, not one of {} values", counts.end()),
            false => format!("its shape is {shape:?}, of more than {} values", counts.end()),
        });
    };
    let origin = vec![0; shape.len()];
    let chunk = array.chunk_shape(&origin).map_err(|e| e.to_string())?;
    let chunk: Vec<u64> = chunk.iter().map(|n| n.get()).collect();
    // No accepted type has values of more than 8 bytes.
    let bytes = product(&chunk).and_then(|values| values.checked_mul(8));
    match bytes {
        Some(bytes) if bytes <= longest(found) => Ok(()),
        _ => Err(format!("its chunks are of shape {chunk:?}, and it is of shape {shape:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fill_value_of_a_zarr_v2_array_is_a_missing_value() {
        let values = |attributes: Value, fill: Value, dtype| {
            let mut attributes = attributes.as_object().cloned().unwrap_or_default();
            add_fill_value(&mut attributes, fill);
            decoding("a", dtype, &attributes, "").unwrap().values(vec![2.0, -999.0])
        };
        let packed = values(json!({ "scale_factor": 0.5 }), json!(-999), DataType::I16);
        assert!(packed[0] == 1.0 && packed[1].is_nan(), "{packed:?}");
        let floats = values(json!({}), json!(-999.0), DataType::F32);
        assert!(floats[0] == 2.0 && floats[1].is_nan(), "{floats:?}");
        for fill in [json!(null), json!("NaN")] {
            assert_eq!(values(json!({}), fill, DataType::F64), [2.0, -999.0]);
        }
        // The attribute takes precedence over the fill value of the array.
        let named = values(json!({ "_FillValue": 2.0 }), json!(-999.0), DataType::F64);
        assert!(named[0].is_nan() && named[1] == -999.0, "{named:?}");
    }
}
