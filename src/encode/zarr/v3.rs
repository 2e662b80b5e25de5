//! Metadata, coordinates and shards in the v3 format.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use zarrs::array::codec::ZstdCodec;
use zarrs::array::{ArrayBuilder, ArrayCreateError, ArrayError, CodecOptions, data_type};
use zarrs::storage::store::MemoryStore;
use zarrs::storage::{ReadableStorageTraits, StorageError, StoreKey};

use super::{Array, Content, Hierarchy, StoreObject, fill};
use crate::model::atlas::FILL;

/// Name of the metadata of a group or an array. That of the root holds all others too and is
/// written last.
pub const METADATA: &str = "zarr.json";
/// Compression level of zstd: its default.
const LEVEL: i32 = 3;

/// An array could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum ShardEncodeError {
    /// Its metadata contradicts itself.
    #[error(transparent)]
    Create(#[from] ArrayCreateError),
    /// A chunk does not have the shape of the array's chunks.
    #[error(transparent)]
    Array(#[from] Box<ArrayError>),
    /// Nothing came out.
    #[error("no bytes came out of the encoder")]
    Empty,
    /// Memory failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// An array of the library over memory: chunks go in, the objects of the format come out.
pub struct Encoder {
    array: zarrs::array::Array<MemoryStore>,
    memory: Arc<MemoryStore>,
    path: String,
}

impl Encoder {
    /// For the chunks of an array.
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
            // What xarray takes for the fill value of this format: the double in base 64.
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
            // The library rounds the number to the shortest that is the same 4-byte float.
            metadata["fill_value"] = fill();
        }
        Ok(metadata)
    }

    /// Encodes the floats of the object at `index` of the grid of objects.
    pub fn floats(&self, index: &[u64], values: &[f32]) -> Result<StoreObject, ShardEncodeError> {
        // One after the other: threads put the chunks into a shard in the order in which they end.
        let options = CodecOptions::default().with_concurrent_target(1);
        self.array.store_chunk_opt(index, values, &options).map_err(Box::new)?;
        self.take(index)
    }

    fn take(&self, index: &[u64]) -> Result<StoreObject, ShardEncodeError> {
        let key = self.key(index);
        let stored = StoreKey::new(&key).map_err(|_| ShardEncodeError::Empty)?;
        let bytes = self.memory.get(&stored)?.ok_or(ShardEncodeError::Empty)?;
        zarrs::storage::WritableStorageTraits::erase(&*self.memory, &stored)?;
        Ok(StoreObject { key, bytes: Bytes::from(bytes.to_vec()) })
    }

    /// Name of the object at `index`.
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

/// The values of the object at `index` of an array of floats.
pub fn decode(array: &Array, index: &[u64], bytes: Bytes) -> Result<Vec<f32>, ShardEncodeError> {
    let encoder = Encoder::new(array)?;
    let key = StoreKey::new(encoder.key(index)).map_err(|_| ShardEncodeError::Empty)?;
    zarrs::storage::WritableStorageTraits::set(&*encoder.memory, &key, bytes)?;
    Ok(encoder.array.retrieve_chunk::<Vec<f32>>(index).map_err(Box::new)?)
}

/// Metadata of everything but the root, then the coordinates, then the root.
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
