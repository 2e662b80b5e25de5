//! Encoders of Zarr hierarchies for the public map and xarray.
//!
//! A [`Hierarchy`] describes groups and arrays; [`v2`] and [`v3`] encode it in the two versions of
//! the format ([specification](https://zarr-specs.readthedocs.io)). The published stores are v2. Their
//! readers (zarr-js 3.3.0, `@carbonplan/maps` 3.4.1) require the separator `.`, zlib, little-endian
//! 4-byte numbers, chunks of full shape without gaps, fill values as JSON numbers, and strict JSON.

pub mod chunk;
pub mod consolidated;
pub mod v2;
pub mod v3;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::model::atlas::FILL;

/// A version of the Zarr format, with the encoding that this program uses for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZarrVersion {
    /// Version 2 with one object for each chunk and zlib, for the public map.
    V2,
    /// Version 3 with shards and zstd.
    V3,
}

/// The groups and arrays of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Hierarchy {
    /// Attributes of the root group.
    pub attributes: Map<String, Value>,
    /// Paths of the groups below the root.
    pub groups: Vec<String>,
    /// Arrays, in the order in which they are written.
    pub arrays: Vec<Array>,
}

/// An array of a store, with the values of coordinates.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Path from the root, such as `0/DIC`.
    pub path: String,
    /// Names of the dimensions, the slowest first.
    pub dimensions: Vec<&'static str>,
    /// Lengths of the dimensions.
    pub shape: Vec<usize>,
    /// Shape of a chunk.
    pub chunks: Vec<usize>,
    /// Shape of a shard, an object with several chunks, in v3; `None` for an array without shards.
    pub shards: Option<Vec<usize>>,
    /// Attributes, without the names of the dimensions.
    pub attributes: Map<String, Value>,
    /// Kind and values of the array.
    pub content: Content,
}

/// The kind of an array, with the values of coordinates.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Data in 4-byte floats, with `FILL` for missing values; not part of the hierarchy.
    Data,
    /// A coordinate of 8-byte floats in one chunk.
    Doubles(Vec<f64>),
    /// A coordinate of 4-byte floats in one chunk.
    Floats(Vec<f32>),
    /// A coordinate of 4-byte integers in one chunk.
    Integers(Vec<i32>),
    /// A coordinate of names in one chunk, each of at most 12 ASCII characters.
    Names(Vec<&'static str>),
}

impl Content {
    /// Number of values of a coordinate; 0 for data.
    pub fn len(&self) -> usize {
        match self {
            Self::Data => 0,
            Self::Doubles(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Integers(values) => values.len(),
            Self::Names(names) => names.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Array {
    /// Creates a coordinate: an array of one dimension and one chunk.
    pub fn coordinate(path: String, dimension: &'static str, content: Content) -> Self {
        let shape = vec![content.len()];
        Self {
            path,
            dimensions: vec![dimension],
            chunks: shape.clone(),
            shape,
            shards: None,
            attributes: Map::new(),
            content,
        }
    }

    /// Replaces the attributes.
    #[must_use]
    pub fn with_attributes<const N: usize>(self, pairs: [(&str, &str); N]) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        Self { attributes: pairs.collect(), ..self }
    }

    /// Number of elements of a chunk.
    pub fn chunk_len(&self) -> usize {
        self.chunks.iter().product()
    }

    /// Whether the array is data rather than a coordinate.
    pub fn is_data(&self) -> bool {
        self.content == Content::Data
    }

    /// Key of the first chunk in the v2 format.
    pub fn first_key(&self) -> String {
        format!("{}/{}", self.path, vec!["0"; self.shape.len()].join("."))
    }

    /// Keys of all chunks in the v2 format, `0.0.0` first.
    pub fn chunk_keys(&self) -> Vec<String> {
        let counts = self.shape.iter().zip(&self.chunks).map(|(len, chunk)| len.div_ceil(*chunk));
        let mut keys = vec![self.path.clone() + "/"];
        for (n, count) in counts.enumerate() {
            let with_index = |key: &String| -> Vec<String> {
                let dot = if n == 0 { "" } else { "." };
                (0..count).map(|index| format!("{key}{dot}{index}")).collect()
            };
            keys = keys.iter().flat_map(with_index).collect();
        }
        keys
    }
}

/// An object of a store: a metadata document, a chunk or a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreObject {
    /// Key relative to the root of the store.
    pub key: String,
    /// Encoded content.
    pub bytes: Bytes,
}

/// The fill value as JSON: the exact double of the 4-byte float, because web pages compare doubles.
fn fill() -> Value {
    f64::from(FILL).into()
}

/// Strict JSON with sorted keys and an indent of two spaces.
fn json(value: &Value) -> Bytes {
    let mut text = format!("{value:#}");
    text.push('\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_value_is_the_exact_double_of_the_float() {
        assert_eq!(fill().to_string().parse(), Ok(9.969_209_968_386_869e36));
        assert_eq!(FILL.to_le_bytes(), [0x00, 0x00, 0xf0, 0x7c]);
    }

    #[test]
    fn chunk_keys_are_the_indexes_in_the_chunk_grid() {
        let array = Array {
            path: "0/DIC".to_owned(),
            dimensions: vec!["a", "b"],
            shape: vec![2, 3],
            chunks: vec![1, 2],
            shards: None,
            attributes: Map::new(),
            content: Content::Data,
        };
        assert_eq!(array.first_key(), "0/DIC/0.0");
        assert_eq!(array.chunk_keys(), ["0/DIC/0.0", "0/DIC/0.1", "0/DIC/1.0", "0/DIC/1.1"]);
    }
}
