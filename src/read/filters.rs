//! The two HDF5 filters of research-grade files, faster than those of the reading library.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hdf5_reader::FilterRegistry;
use hdf5_reader::error::Error;
use hdf5_reader::filters::{FILTER_DEFLATE, FILTER_SHUFFLE};
use libdeflater::{DecompressionError, Decompressor};

/// Room for a checksum inside the compressed data, bytes.
const SLACK: usize = 64;

/// The filters of the library, with deflate and shuffle replaced.
///
/// `chunk_size` is the length in bytes of the next decoded chunk: a longer result is an error.
pub(super) fn registry(chunk_size: Arc<AtomicUsize>) -> FilterRegistry {
    let mut registry = FilterRegistry::new();
    let inflate = move |data: &[u8]| inflate(data, chunk_size.load(Ordering::Relaxed));
    registry.register(FILTER_DEFLATE, Box::new(move |_, data, _| inflate(data)));
    registry.register(FILTER_SHUFFLE, Box::new(|_, data, size| Ok(unshuffle(data, size))));
    registry
}

/// Decompresses a zlib stream of `size` bytes, or up to [`SLACK`] more.
fn inflate(data: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    let failed = |detail: String| Error::DecompressionError(detail);
    let capacity = size.saturating_add(SLACK);
    let mut out = Vec::new();
    out.try_reserve_exact(capacity).map_err(|e| failed(e.to_string()))?;
    out.resize(capacity, 0);
    let len = Decompressor::new().zlib_decompress(data, &mut out).map_err(|error| match error {
        DecompressionError::InsufficientSpace => failed(format!("it has more than {size} bytes")),
        error => failed(error.to_string()),
    })?;
    out.truncate(len);
    Ok(out)
}

/// Reverses the shuffle filter for elements of `size` bytes.
///
/// Shuffled data consists of planes: the first bytes of all elements, then the second bytes, and so
/// on. Bytes after the last whole element stay at the end.
fn unshuffle(data: &[u8], size: usize) -> Vec<u8> {
    let count = data.len() / size.max(1);
    let plane = |k: usize| &data[k * count..(k + 1) * count];
    let whole = count * size;
    let mut out = match size {
        4 => {
            let planes = plane(0).iter().zip(plane(1)).zip(plane(2)).zip(plane(3));
            let elements = planes.map(|(((a, b), c), d)| [*a, *b, *c, *d]);
            elements.collect::<Vec<_>>().into_flattened()
        }
        _ => {
            let mut out = vec![0; whole];
            for k in 0..size {
                let targets = out[k..].iter_mut().step_by(size);
                targets.zip(plane(k)).for_each(|(out, byte)| *out = *byte);
            }
            out
        }
    };
    out.extend_from_slice(&data[whole..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unshuffle_restores_elements_and_keeps_trailing_bytes() {
        assert_eq!(unshuffle(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 4), [1, 3, 5, 7, 2, 4, 6, 8, 9]);
        assert_eq!(unshuffle(&[1, 2, 3, 4], 2), [1, 3, 2, 4]);
        assert_eq!(unshuffle(&[1, 2], 1), [1, 2]);
    }

    #[test]
    fn inflate_restores_data_and_rejects_longer_results() {
        let data = vec![7; 1 << 20];
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut packed = vec![0; compressor.zlib_compress_bound(data.len())];
        let len = compressor.zlib_compress(&data, &mut packed).unwrap();
        assert_eq!(inflate(&packed[..len], 1 << 20).unwrap(), data);
        let error = inflate(&packed[..len], 1 << 19).unwrap_err().to_string();
        assert!(error.contains("more than 524288 bytes"), "{error}");
        assert!(inflate(b"not zlib", 1 << 20).is_err());
    }
}
