//! Encodes and decodes chunks of the v2 format: little-endian numbers with zlib at level 1.

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

/// zlib level in the metadata. Higher levels take twice the time for 1 % smaller chunks.
pub const LEVEL: u8 = 1;
/// Size of a name in bytes: 12 characters of UTF-32.
pub const NAME: usize = 48;

/// The error of a chunk that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The chunk is not a zlib stream, or its checksum differs.
    #[error("it is damaged")]
    Damaged,
    /// The chunk has fewer or more bytes than its shape needs.
    #[error("it does not have the full chunk shape")]
    Length,
}

/// Compresses the bytes of a chunk.
pub fn encode(raw: &[u8]) -> Bytes {
    let level = CompressionLvl::new(LEVEL.into()).unwrap_or_default();
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.zlib_compress_bound(raw.len())];
    // Cannot fail: the buffer has the size that the library requires.
    let len = compressor.zlib_compress(raw, &mut out).unwrap_or_default();
    out.truncate(len);
    out.into()
}

/// Decompresses a chunk of `len` bytes.
///
/// # Errors
/// The chunk is damaged, or has another length.
pub fn decode(bytes: &[u8], len: usize) -> Result<Vec<u8>, ChunkError> {
    let mut out = vec![0; len];
    match Decompressor::new().zlib_decompress(bytes, &mut out) {
        Ok(found) if found == len => Ok(out),
        Ok(_) | Err(DecompressionError::InsufficientSpace) => Err(ChunkError::Length),
        Err(DecompressionError::BadData) => Err(ChunkError::Damaged),
    }
}

/// Compresses a chunk of floats.
pub fn encode_floats(values: &[f32]) -> Bytes {
    encode(&float_bytes(values))
}

/// Decompresses a chunk of `len` floats.
///
/// # Errors
/// As for [`decode`].
pub fn decode_floats(bytes: &[u8], len: usize) -> Result<Vec<f32>, ChunkError> {
    let raw = decode(bytes, len.saturating_mul(4))?;
    Ok(raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn float_bytes(values: &[f32]) -> Vec<u8> {
    let mut raw = vec![0; values.len() * 4];
    raw.as_chunks_mut::<4>().0.iter_mut().zip(values).for_each(|(b, v)| *b = v.to_le_bytes());
    raw
}

/// The uncompressed bytes of a coordinate; `None` for data.
pub(super) fn coordinate(content: &super::Content) -> Option<Vec<u8>> {
    match content {
        super::Content::Data => None,
        super::Content::Doubles(values) => {
            Some(values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        super::Content::Floats(values) => Some(float_bytes(values)),
        super::Content::Integers(values) => {
            Some(values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        super::Content::Names(names) => {
            let mut raw = vec![0; names.len() * NAME];
            for (field, name) in raw.as_chunks_mut::<NAME>().0.iter_mut().zip(names) {
                for (unit, c) in field.as_chunks_mut::<4>().0.iter_mut().zip(name.chars()) {
                    *unit = u32::from(c).to_le_bytes();
                }
            }
            Some(raw)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_restores_floats_exactly() {
        let values: Vec<f32> = (0..10_000).map(|n| (n as f32).sin()).collect();
        assert_eq!(decode_floats(&encode_floats(&values), values.len()).unwrap(), values);
    }

    #[test]
    fn wrong_lengths_and_damage_are_different_errors() {
        let chunk = encode_floats(&[1.0; 100]);
        assert_eq!(decode_floats(&chunk, 99), Err(ChunkError::Length));
        assert_eq!(decode_floats(&chunk, 101), Err(ChunkError::Length));
        assert_eq!(decode_floats(&chunk[..chunk.len() - 1], 100), Err(ChunkError::Damaged));
        assert_eq!(decode_floats(b"", 100), Err(ChunkError::Damaged));
    }

    #[test]
    fn names_are_utf_32_padded_with_nul() {
        let raw = coordinate(&super::super::Content::Names(vec!["delta"])).unwrap();
        assert_eq!(raw.len(), 48);
        assert_eq!(&raw[..8], b"d\0\0\0e\0\0\0");
        assert_eq!(raw[20..], [0; 28]);
    }
}
