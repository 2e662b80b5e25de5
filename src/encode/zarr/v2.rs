//! Encodes metadata and coordinates in the v2 format.

use serde_json::{Map, Value, json};

use super::chunk::{self, LEVEL};
use super::{Array, Content, Hierarchy, StoreObject, fill};

/// Key of the consolidated metadata, which readers open first and `dor` writes last.
pub const CONSOLIDATED: &str = ".zmetadata";

/// The metadata objects of the groups and arrays, without the consolidated metadata.
pub fn metadata(hierarchy: &Hierarchy) -> Vec<StoreObject> {
    let object = |(key, value): (String, Value)| StoreObject { key, bytes: super::json(&value) };
    documents(hierarchy).into_iter().map(object).collect()
}

/// The object with the consolidated metadata.
pub fn consolidated(hierarchy: &Hierarchy) -> StoreObject {
    StoreObject { key: CONSOLIDATED.to_owned(), bytes: super::json(&consolidated_value(hierarchy)) }
}

/// The consolidated metadata as JSON.
pub fn consolidated_value(hierarchy: &Hierarchy) -> Value {
    let documents: Map<String, Value> = documents(hierarchy).into_iter().collect();
    json!({"metadata": documents, "zarr_consolidated_format": 1})
}

/// The chunks of the coordinates.
pub fn coordinates(hierarchy: &Hierarchy) -> Vec<StoreObject> {
    let chunk = |array: &Array| {
        let raw = chunk::coordinate(&array.content)?;
        Some(StoreObject { key: array.first_key(), bytes: chunk::encode(&raw) })
    };
    hierarchy.arrays.iter().filter_map(chunk).collect()
}

/// Size of an element in bytes.
pub fn element_size(content: &Content) -> usize {
    match content {
        Content::Names(_) => chunk::NAME,
        Content::Doubles(_) => 8,
        Content::Data | Content::Floats(_) | Content::Integers(_) => 4,
    }
}

fn documents(hierarchy: &Hierarchy) -> Vec<(String, Value)> {
    let group = json!({"zarr_format": 2});
    let mut documents = vec![
        (".zattrs".to_owned(), Value::Object(hierarchy.attributes.clone())),
        (".zgroup".to_owned(), group.clone()),
    ];
    for path in &hierarchy.groups {
        documents.push((format!("{path}/.zgroup"), group.clone()));
    }
    for array in &hierarchy.arrays {
        let mut attributes = array.attributes.clone();
        attributes.insert("_ARRAY_DIMENSIONS".to_owned(), json!(array.dimensions));
        documents.push((format!("{}/.zarray", array.path), array_metadata(array)));
        documents.push((format!("{}/.zattrs", array.path), Value::Object(attributes)));
    }
    documents
}

/// The `.zarray` of an array. A coordinate has no fill value, because xarray would convert integers
/// with a fill value to floats.
fn array_metadata(array: &Array) -> Value {
    let (dtype, fill) = match array.content {
        Content::Data => ("<f4", fill()),
        Content::Doubles(_) => ("<f8", Value::Null),
        Content::Floats(_) => ("<f4", Value::Null),
        Content::Integers(_) => ("<i4", Value::Null),
        Content::Names(_) => ("<U12", Value::Null),
    };
    json!({
        "chunks": array.chunks,
        "compressor": {"id": "zlib", "level": LEVEL},
        "dimension_separator": ".",
        "dtype": dtype,
        "fill_value": fill,
        "filters": null,
        "order": "C",
        "shape": array.shape,
        "zarr_format": 2,
    })
}
