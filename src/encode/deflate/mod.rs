//! Compresses shuffled floats to zlib streams, plane by plane.
//!
//! After the shuffle, the low planes of a float field are noise over the ocean and constant over
//! land, and the highest plane is constant over long stretches. A match finder spends most of its
//! time on these planes and finds only the constants; matches exist in the planes between.
//!
//! The encoder therefore divides each plane into literals and runs of one byte, or into literals and
//! matches, and writes blocks with Huffman codes or stored bytes. It chooses the strategy of a plane by
//! compressing samples of the plane: equal data gives equal bytes. Specifications: RFC 1950 (zlib),
//! RFC 1951 (deflate). Every inflater reads the result.

mod bits;
mod block;
mod huffman;
mod lz77;

use bits::BitWriter;
use lz77::Matcher;

/// Compression level in the metadata of the files, that of the reference program: the streams are about
/// as small as those of zlib at this level.
pub const LEVEL: i32 = 4;

/// Length of a block in bytes; each block has its own Huffman codes.
const BLOCK: usize = 128 * 1024;
/// Number of samples of a plane that determine its strategy.
const SAMPLES: usize = 5;
/// Length of a sample in bytes.
const SAMPLE: usize = 32 * 1024;

/// How a plane is divided into tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strategy {
    /// Literals and runs of one byte.
    Runs,
    /// Literals and matches anywhere in the window.
    Matches,
}

/// Compresses shuffled data of `planes` planes of equal length to a zlib stream.
///
/// ```
/// use std::io::Read;
///
/// // The four planes of shuffled 4-byte numbers.
/// let shuffled = vec![7; 4 * 100_000];
/// let compressed = dor_atlas::encode::deflate::zlib(&shuffled, 4);
/// assert!(compressed.len() < 1000);
/// let mut back = Vec::new();
/// flate2::read::ZlibDecoder::new(&compressed[..]).read_to_end(&mut back)?;
/// assert_eq!(back, shuffled);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn zlib(data: &[u8], planes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    zlib_into(data, planes, &mut out);
    out
}

/// Compresses as [`zlib`] does, into `out`, whose previous content is discarded.
pub fn zlib_into(data: &[u8], planes: usize, out: &mut Vec<u8>) {
    out.clear();
    // 0x78: deflate with a 32 KiB window; 0x5E: the compression level "fast", no dictionary.
    out.extend_from_slice(&[0x78, 0x5E]);
    let mut bits = BitWriter::new(out);
    for plane in data.chunks((data.len() / planes.max(1)).max(1)) {
        put_plane(plane, choose_strategy(plane), &mut bits);
    }
    block::put_last(&mut bits);
    drop(bits);
    out.extend_from_slice(&libdeflater::adler32(data).to_be_bytes());
}

fn put_plane(plane: &[u8], strategy: Strategy, bits: &mut BitWriter<'_>) {
    let (mut matcher, mut tokens) = (Matcher::new(), Vec::new());
    for start in (0..plane.len()).step_by(BLOCK) {
        let end = plane.len().min(start + BLOCK);
        let block = &plane[start..end];
        match strategy {
            Strategy::Runs => lz77::runs(block, &mut tokens),
            Strategy::Matches => matcher.find(plane, start, end, &mut tokens),
        }
        block::put(block, &tokens, bits);
    }
}

/// [`Strategy::Runs`], unless matches make samples of the plane smaller by more than 0.5 %.
fn choose_strategy(plane: &[u8]) -> Strategy {
    let mut sizes = [0; 2];
    let mut out = Vec::with_capacity(SAMPLE + SAMPLE / 16);
    for i in 0..SAMPLES {
        let sample = match plane.len().checked_sub(SAMPLE) {
            Some(last_start) => &plane[last_start / (SAMPLES - 1) * i..][..SAMPLE],
            None => plane,
        };
        for (strategy, size) in [Strategy::Runs, Strategy::Matches].into_iter().zip(&mut sizes) {
            out.clear();
            put_plane(sample, strategy, &mut BitWriter::new(&mut out));
            *size += out.len();
        }
    }
    let [runs, matches] = sizes;
    if matches + matches / 200 < runs { Strategy::Matches } else { Strategy::Runs }
}

#[cfg(test)]
mod tests {
    use libdeflater::{CompressionLvl, Compressor};

    use super::*;

    fn inflated(stream: &[u8], len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let n = libdeflater::Decompressor::new().zlib_decompress(stream, &mut out).unwrap();
        assert_eq!(n, len);
        out
    }

    /// Deterministic noise: a xorshift generator.
    fn noise(seed: u64) -> impl FnMut() -> u8 {
        let mut x = seed | 1;
        move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        }
    }

    /// Planes like those of a float field: noise and near noise with constant land, then structure.
    fn field(n: usize) -> Vec<u8> {
        let mut next = noise(7);
        let land = |i: usize| (i / 97).is_multiple_of(5);
        let mut data = Vec::with_capacity(4 * n);
        data.extend((0..n).map(|i| if land(i) { 0 } else { next() }));
        data.extend((0..n).map(|i| if land(i) { 0 } else { next() & next() | 3 }));
        data.extend((0..n).map(|i| if land(i) { 0xF0 } else { 0x80 | (i / 50) as u8 }));
        data.extend((0..n).map(|i| if land(i) { 0x7C } else { 0x44 }));
        data
    }

    #[test]
    fn inflating_restores_data_of_any_length() {
        for n in [0, 1, 2, 3, 5, 258, 4096, 65_535, 65_536, 200_001, 1_000_003] {
            let data = field(n);
            assert_eq!(inflated(&zlib(&data, 4), data.len()), data, "{n}");
        }
    }

    #[test]
    fn inflating_restores_constant_and_random_data() {
        let mut next = noise(3);
        let cases: [Vec<u8>; 3] = [
            vec![0x7C; 3_000_000],
            (0..3_000_000).map(|_| next()).collect(),
            (0..3_000_000usize).map(|i| (i % 251) as u8).collect(),
        ];
        for data in cases {
            let stream = zlib(&data, 4);
            assert_eq!(inflated(&stream, data.len()), data);
            assert!(stream.len() < data.len() + data.len() / 1000 + 100);
        }
    }

    #[test]
    fn the_stream_is_no_larger_than_libdeflates_own() {
        let data = field(2_000_000);
        let mut whole = Compressor::new(CompressionLvl::new(LEVEL).unwrap());
        let mut out = vec![0; whole.zlib_compress_bound(data.len())];
        let theirs = whole.zlib_compress(&data, &mut out).unwrap();
        let ours = zlib(&data, 4).len();
        assert!(ours * 100 <= theirs * 101, "{ours} against {theirs}");
    }

    #[test]
    fn the_largest_frequencies_keep_codes_within_the_limit() {
        // Fibonacci frequencies give the deepest possible Huffman tree.
        let mut data = Vec::new();
        let (mut a, mut b) = (1usize, 1usize);
        for symbol in 0..24u8 {
            data.extend((0..a).map(|i| if i % 2 == 0 { symbol * 3 } else { symbol * 3 + 1 }));
            (a, b) = (b, a + b);
        }
        let out = zlib(&data, 1);
        assert_eq!(inflated(&out, data.len()), data);
    }
}
