//! Encodes metadata, coordinates and shards in the v3 format.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use zarrs::array::codec::ZstdCodec;
use zarrs::array::{ArrayBuilder, ArrayCreateError, ArrayError, CodecOptions, data_type};
use zarrs::storage::store::MemoryStore;
use zarrs::storage::{ReadableStorageTraits, StorageError, StoreKey};

use super::{Array, Content, Hierarchy, StoreObject, fill};
use crate::model::atlas::FILL;

/// Name of the metadata object of a group or an array. The object of the root also contains the
/// consolidated metadata, and `dor` writes it last.
pub const METADATA: &str = "zarr.json";
/// Compression level of zstd: the default.
const LEVEL: i32 = 3;

/// The error of an array that cannot be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum ShardEncodeError {
    /// The metadata of the array is inconsistent.
    #[error(transparent)]
    Create(#[from] ArrayCreateError),
    /// A chunk does not have the chunk shape of the array, or is damaged.
    #[error(transparent)]
    Array(#[from] Box<ArrayError>),
    /// The encoder has produced no object.
    #[error("the Zarr encoder has produced no object")]
    Empty,
    /// The in-memory store of the library failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// An encoder of one array: a zarrs array on an in-memory store.
pub struct Encoder {
    array: zarrs::array::Array<MemoryStore>,
    memory: Arc<MemoryStore>,
    path: String,
}

impl Encoder {
    /// Creates an encoder for an array.
    ///
    /// # Errors
    /// The metadata of the array is inconsistent.
    pub fn new(array: &Array) -> Result<Self, ShardEncodeError> {
        let sizes = |lengths: &[usize]| lengths.iter().map(|&n| n as u64).collect::<Vec<u64>>();
        let objects = sizes(array.shards.as_ref().unwrap_or(&array.chunks));
        let shape = sizes(&array.shape);
        let mut builder = match &array.content {
            Content::Data => ArrayBuilder::new(shape, objects, data_type::float32(), FILL),
            Content::Doubles(_) => ArrayBuilder::new(shape, objects, data_type::float64(), 0_f64),
            Content::Floats(_) => ArrayBuilder::new(shape, objects, data_type::float32(), 0_f32),
            Content::Integers(_) => ArrayBuilder::new(shape, objects, data_type::int32(), 0_i32),
            Content::Names(_) => ArrayBuilder::new(shape, objects, data_type::string(), ""),
        };
        if array.shards.is_some() {
            builder.subchunk_shape(sizes(&array.chunks));
        }
        let mut attributes = array.attributes.clone();
        if array.is_data() {
            // xarray reads the fill value of v3 from this attribute: the double in base 64.
            attributes.insert("_FillValue".to_owned(), "AAAAAAAAnkc=".into());
        }
        builder
            .bytes_to_bytes_codecs(vec![Arc::new(ZstdCodec::new(LEVEL, false))])
            .dimension_names(array.dimensions.clone().into())
            .attributes(attributes);
        let memory = Arc::new(MemoryStore::new());
        let path = array.path.clone();
        let array = builder.build(memory.clone(), &format!("/{path}"))?;
        Ok(Self { array, memory, path })
    }

    /// The metadata of the array.
    fn metadata(&self) -> Result<Value, serde_json::Error> {
        let mut metadata = serde_json::to_value(self.array.metadata())?;
        if metadata["data_type"] == "float32" && metadata["fill_value"] != json!(0.0) {
            // The library writes the shortest decimal that gives the same 4-byte float.
            metadata["fill_value"] = fill();
        }
        Ok(metadata)
    }

    /// Encodes the floats of one object, a shard or a chunk; `index` is its position in the grid of
    /// objects.
    ///
    /// # Errors
    /// The number of values is not that of the object.
    pub fn floats(&self, index: &[u64], values: &[f32]) -> Result<StoreObject, ShardEncodeError> {
        // A single thread gives a fixed order of the chunks in a shard.
        let options = CodecOptions::default().with_concurrent_target(1);
        self.array.store_chunk_opt(index, values, &options).map_err(Box::new)?;
        self.take(index)
    }

    /// Removes an encoded object from the in-memory store and returns it.
    fn take(&self, index: &[u64]) -> Result<StoreObject, ShardEncodeError> {
        let key = self.key(index);
        let stored = StoreKey::new(&key).map_err(|_| ShardEncodeError::Empty)?;
        let bytes = self.memory.get(&stored)?.ok_or(ShardEncodeError::Empty)?;
        zarrs::storage::WritableStorageTraits::erase(&*self.memory, &stored)?;
        Ok(StoreObject { key, bytes: Bytes::from(bytes.to_vec()) })
    }

    /// Key of the object at `index` in the grid of objects.
    pub fn key(&self, index: &[u64]) -> String {
        let index: Vec<String> = index.iter().map(u64::to_string).collect();
        format!("{}/c/{}", self.path, index.join("/"))
    }

    fn coordinate(&self, content: &Content) -> Result<Option<StoreObject>, ShardEncodeError> {
        let index = vec![0; self.array.shape().len()];
        match content {
            Content::Data => return Ok(None),
            Content::Doubles(values) => self.array.store_chunk(&index, values.as_slice()),
            Content::Floats(values) => self.array.store_chunk(&index, values.as_slice()),
            Content::Integers(values) => self.array.store_chunk(&index, values.as_slice()),
            Content::Names(names) => self.array.store_chunk(&index, names.as_slice()),
        }
        .map_err(Box::new)?;
        self.take(&index).map(Some)
    }
}

/// Decodes the object at `index` of an array of floats.
///
/// # Errors
/// The object is damaged, or is not an object of this array.
pub fn decode(array: &Array, index: &[u64], bytes: Bytes) -> Result<Vec<f32>, ShardEncodeError> {
    let encoder = Encoder::new(array)?;
    let key = StoreKey::new(encoder.key(index)).map_err(|_| ShardEncodeError::Empty)?;
    zarrs::storage::WritableStorageTraits::set(&*encoder.memory, &key, bytes)?;
    Ok(encoder.array.retrieve_chunk::<Vec<f32>>(index).map_err(Box::new)?)
}

/// The objects of a hierarchy without data, in the order in which they must be written: the metadata of
/// groups and arrays, the coordinates, and last the metadata of the root.
///
/// # Errors
/// An array cannot be encoded.
pub fn objects(hierarchy: &Hierarchy) -> Result<Vec<StoreObject>, ShardEncodeError> {
    let mut documents = Map::new();
    let mut coordinates = Vec::new();
    for path in &hierarchy.groups {
        documents.insert(path.clone(), group(&Map::new()));
    }
    for array in &hierarchy.arrays {
        let encoder = Encoder::new(array)?;
        let metadata = encoder.metadata().map_err(|_| ShardEncodeError::Empty)?;
        documents.insert(array.path.clone(), metadata);
        coordinates.extend(encoder.coordinate(&array.content)?);
    }
    let document = |(path, value): (&String, &Value)| StoreObject {
        key: format!("{path}/{METADATA}"),
        bytes: super::json(value),
    };
    let mut objects: Vec<StoreObject> = documents.iter().map(document).collect();
    objects.extend(coordinates);
    let mut root = group(&hierarchy.attributes);
    root["consolidated_metadata"] =
        json!({"kind": "inline", "must_understand": false, "metadata": documents});
    objects.push(StoreObject { key: METADATA.to_owned(), bytes: super::json(&root) });
    Ok(objects)
}

fn group(attributes: &Map<String, Value>) -> Value {
    json!({"attributes": attributes, "node_type": "group", "zarr_format": 3})
}
