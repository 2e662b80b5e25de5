//! zlib streams of shuffled floats, made from blocks that suit each byte plane.
//!
//! After the shuffle the low planes of a float field are noise over the ocean and constant over
//! land: a match finder spends most of its time there and finds nothing but the constants. So the
//! leading planes for which it does not pay are coded as stored bytes, runs and Huffman codes
//! ([`plain`]), and the rest by libdeflate, whose stream ends the whole. Which planes these are is
//! decided on samples, from the data alone: equal data gives equal bytes. Specifications: RFC 1950
//! (zlib), RFC 1951 (deflate). Every inflater reads the result.

mod bits;
mod huffman;
mod plain;

use libdeflater::{CompressionLvl, Compressor};

/// Level that the files state, the reference's: what they are as small as.
pub const LEVEL: i32 = 4;
/// Level at which libdeflate is asked for the planes that it gets: the files are then still as
/// small as zlib makes them at [`LEVEL`].
const LIBDEFLATE_LEVEL: i32 = 2;

/// Samples of a plane on which its coder is chosen, and their length in bytes.
const SAMPLES: usize = 6;
const SAMPLE: usize = 48 * 1024;

/// Compresses shuffled data that consists of `planes` planes of equal length.
pub fn zlib(data: &[u8], planes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    zlib_into(data, planes, &mut out);
    out
}

/// The same, into memory that is used again; what it held is lost.
pub fn zlib_into(data: &[u8], planes: usize, out: &mut Vec<u8>) {
    let mut libdeflate = Compressor::new(CompressionLvl::new(LIBDEFLATE_LEVEL).unwrap_or_default());
    let plane = data.len() / planes.max(1);
    let mut split = 0;
    while split < data.len() && plane >= 2 * SAMPLE {
        let next = (split + plane).min(data.len());
        if !suits_plain(&data[split..next], &mut libdeflate) {
            break;
        }
        split = next;
    }
    let (low, high) = data.split_at(split);

    // 0x78: deflate with a 32 KiB window; 0x5E: the level that zlib calls fast, no dictionary.
    out.clear();
    out.extend_from_slice(&[0x78, 0x5E]);
    plain::encode(low, out);
    let start = out.len();
    out.resize(start + libdeflate.deflate_compress_bound(high.len()), 0);
    let written = libdeflate.deflate_compress(high, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.extend_from_slice(&libdeflater::adler32(data).to_be_bytes());
}

/// Whether `plain` codes this plane as small as libdeflate does, to half a percent, on samples.
fn suits_plain(plane: &[u8], libdeflate: &mut Compressor) -> bool {
    let mut scratch = vec![0; libdeflate.deflate_compress_bound(SAMPLE)];
    let (mut ours, mut theirs) = (0, 0);
    for i in 0..SAMPLES {
        let start = (plane.len() - SAMPLE) / (SAMPLES - 1).max(1) * i;
        let sample = &plane[start..start + SAMPLE];
        let mut out = Vec::with_capacity(SAMPLE + 64);
        plain::encode(sample, &mut out);
        ours += out.len();
        theirs += libdeflate.deflate_compress(sample, &mut scratch).unwrap_or(usize::MAX / 16);
    }
    ours <= theirs + theirs / 200
}

#[cfg(test)]
mod tests {
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

    /// Planes as a float field has them: noise and near noise with constant land, then structure.
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
    fn what_goes_in_comes_out() {
        for n in [0, 1, 2, 3, 5, 258, 4096, 65_535, 65_536, 200_001, 1_000_003] {
            let data = field(n);
            assert_eq!(inflated(&zlib(&data, 4), data.len()), data, "{n}");
        }
    }

    #[test]
    fn single_valued_and_pure_noise_data_survive() {
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
        // Fibonacci frequencies make the deepest Huffman tree there is.
        let mut data = Vec::new();
        let (mut a, mut b) = (1usize, 1usize);
        for symbol in 0..24u8 {
            data.extend((0..a).map(|i| if i % 2 == 0 { symbol * 3 } else { symbol * 3 + 1 }));
            (a, b) = (b, a + b);
        }
        let mut out = vec![0x78, 0x5E];
        plain::encode(&data, &mut out);
        out.extend_from_slice(&[1, 0, 0, 0xFF, 0xFF]);
        out.extend_from_slice(&libdeflater::adler32(&data).to_be_bytes());
        assert_eq!(inflated(&out, data.len()), data);
    }
}
