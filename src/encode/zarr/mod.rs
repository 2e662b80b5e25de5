//! Zarr hierarchies: what the map and xarray read.
//!
//! A [`Hierarchy`] says which groups and arrays there are; [`v2`] and [`v3`] write that down in
//! the two versions of the format ([specification](https://zarr-specs.readthedocs.io)). The
//! published stores are v2, whose restrictions come from their readers (zarr-js 3.3.0,
//! `@carbonplan/maps` 3.4.1): separator `.`, zlib, little-endian 4-byte numbers, full chunks that
//! are all there, fill values as JSON numbers, strict JSON.

pub mod chunk;
pub mod consolidated;
pub mod v2;
pub mod v3;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::model::atlas::FILL;

/// Which version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZarrVersion {
    /// Chunks as objects, zlib; what the public map reads.
    V2,
    /// Sharded, zstd.
    V3,
}

/// Groups and arrays of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Hierarchy {
    /// Attributes of the root.
    pub attributes: Map<String, Value>,
    /// Paths of the groups below the root.
    pub groups: Vec<String>,
    /// The arrays.
    pub arrays: Vec<Array>,
}

/// An array of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Path from the root, such as `0/DIC`.
    pub path: String,
    /// Names of the dimensions.
    pub dimensions: Vec<&'static str>,
    /// Their lengths.
    pub shape: Vec<usize>,
    /// Lengths of a chunk.
    pub chunks: Vec<usize>,
    /// In v3, lengths of a shard, whose chunks lie in one object; not sharded when none.
    pub shards: Option<Vec<usize>>,
    /// What describes it.
    pub attributes: Map<String, Value>,
    /// What it holds.
    pub content: Content,
}

/// What an array holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Data, 4-byte floats, `FILL` where there is none.
    Data,
    /// A coordinate, one chunk.
    Doubles(Vec<f64>),
    /// A coordinate, one chunk.
    Floats(Vec<f32>),
    /// A coordinate, one chunk.
    Integers(Vec<i32>),
    /// A coordinate of names, ASCII and at most 12 long, one chunk.
    Names(Vec<&'static str>),
}

impl Content {
    /// Number of elements; 0 of data.
    pub fn len(&self) -> usize {
        match self {
            Self::Data => 0,
            Self::Doubles(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Integers(values) => values.len(),
            Self::Names(names) => names.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Array {
    /// An array of one dimension and one chunk.
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

    /// The same with attributes.
    #[must_use]
    pub fn with_attributes<const N: usize>(self, pairs: [(&str, &str); N]) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into()));
        Self { attributes: pairs.collect(), ..self }
    }

    /// Number of elements of a chunk.
    pub fn chunk_len(&self) -> usize {
        self.chunks.iter().product()
    }

    /// Whether it holds data, not a coordinate.
    pub fn is_data(&self) -> bool {
        self.content == Content::Data
    }

    /// Name of the first chunk of the v2 format.
    pub fn first_key(&self) -> String {
        format!("{}/{}", self.path, vec!["0"; self.shape.len()].join("."))
    }

    /// Names of all chunks of the v2 format, `0.0.0` first.
    pub fn chunk_keys(&self) -> Vec<String> {
        let counts = self.shape.iter().zip(&self.chunks).map(|(len, chunk)| len.div_ceil(*chunk));
        let mut keys = vec![self.path.clone() + "/"];
        for (n, count) in counts.enumerate() {
            let longer = |key: &String| -> Vec<String> {
                let dot = if n == 0 { "" } else { "." };
                (0..count).map(|index| format!("{key}{dot}{index}")).collect()
            };
            keys = keys.iter().flat_map(longer).collect();
        }
        keys
    }
}

/// An object of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreObject {
    /// Its name in the store.
    pub key: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The fill value as JSON: the exact double of the 4-byte float, for pages compare doubles.
fn fill() -> Value {
    f64::from(FILL).into()
}

/// Strict JSON with keys in order, as zarr-python writes it.
fn json(value: &Value) -> Bytes {
    let mut text = format!("{value:#}");
    text.push('\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_value_is_the_double_that_pages_compare_with() {
        assert_eq!(fill().to_string().parse(), Ok(9.969_209_968_386_869e36));
        assert_eq!(FILL.to_le_bytes(), [0x00, 0x00, 0xf0, 0x7c]);
    }

    #[test]
    fn chunks_are_named_by_their_place_in_the_grid() {
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
