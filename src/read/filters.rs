//! The two HDF5 filters of research-grade files, faster than the reader's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hdf5_reader::FilterRegistry;
use hdf5_reader::error::Error;
use hdf5_reader::filters::{FILTER_DEFLATE, FILTER_SHUFFLE};
use libdeflater::{DecompressionError, Decompressor};

/// No chunk of a model field comes near this size: a longer one is damage.
const LONGEST_CHUNK: usize = 1 << 30;

/// The reader's filters with these two in place of its own; `size` tells how long the next chunk
/// is likely to be.
pub(super) fn registry(size: Arc<AtomicUsize>) -> FilterRegistry {
    let mut registry = FilterRegistry::new();
    let inflate = move |data: &[u8]| inflate(data, size.load(Ordering::Relaxed));
    registry.register(FILTER_DEFLATE, Box::new(move |_, data, _| inflate(data)));
    registry.register(FILTER_SHUFFLE, Box::new(|_, data, size| Ok(unshuffle(data, size))));
    registry
}

/// Undoes zlib compression.
fn inflate(data: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    let mut room = size.clamp(1 << 12, LONGEST_CHUNK);
    let mut decompressor = Decompressor::new();
    loop {
        let mut out = vec![0; room];
        match decompressor.zlib_decompress(data, &mut out) {
            Ok(len) => {
                out.truncate(len);
                return Ok(out);
            }
            Err(DecompressionError::InsufficientSpace) if room < LONGEST_CHUNK => room *= 2,
            Err(error) => return Err(Error::DecompressionError(error.to_string())),
        }
    }
}

/// Puts the bytes of each element together again: the first bytes of all elements come first,
/// then the second bytes, and so on; what is left over stays at the end.
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
                let places = out[k..].iter_mut().step_by(size);
                places.zip(plane(k)).for_each(|(out, byte)| *out = *byte);
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
    fn elements_are_put_together_and_leftovers_kept() {
        assert_eq!(unshuffle(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 4), [1, 3, 5, 7, 2, 4, 6, 8, 9]);
        assert_eq!(unshuffle(&[1, 2, 3, 4], 2), [1, 3, 2, 4]);
        assert_eq!(unshuffle(&[1, 2], 1), [1, 2]);
    }

    #[test]
    fn what_was_deflated_comes_back_however_small_it_was() {
        let data = vec![7; 1 << 20];
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
        let mut packed = vec![0; compressor.zlib_compress_bound(data.len())];
        let len = compressor.zlib_compress(&data, &mut packed).unwrap();
        assert_eq!(inflate(&packed[..len], 9).unwrap(), data);
        assert!(inflate(b"not zlib", 1 << 20).is_err());
    }
}
