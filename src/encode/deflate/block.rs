//! Writes deflate blocks (RFC 1951, 3.2).

use std::f64::consts::LN_2;

use super::bits::BitWriter;
use super::huffman::{self, Code};
use super::lz77::{LONGEST, Token};

/// Longest code in bits: four literals fit into the bit buffer between flushes.
const LIMIT: u8 = 12;
/// Symbol that ends a block.
const END: usize = 256;
/// Number of symbols for literals and lengths.
const LITERALS: usize = 286;
/// Number of symbols for distances.
const DISTANCES: usize = 30;
/// Shortest run between stored bytes: it must save more than the block headers around it.
const LONG_RUN: usize = 48;
/// Step between the literals that are sampled to detect noise.
const SAMPLE_STEP: usize = 16;
/// Smallest number of samples that can detect noise.
const FEWEST_SAMPLES: u32 = 2048;

/// The number of occurrences of each symbol in a block.
struct Frequencies {
    literals: [u32; LITERALS],
    distances: [u32; DISTANCES],
}

impl Frequencies {
    fn of(block: &[u8], tokens: &[Token]) -> Self {
        let mut literals = [0; LITERALS];
        let mut distances = [0; DISTANCES];
        // Four tables of counters: equal bytes in a row would wait for one counter.
        let mut counts = [[0u32; 256]; 4];
        let mut at = 0;
        for token in tokens {
            let bytes = &block[at..at + token.literals];
            let (fours, rest) = bytes.as_chunks::<4>();
            for four in fours {
                for (count, &byte) in counts.iter_mut().zip(four) {
                    count[usize::from(byte)] += 1;
                }
            }
            for &byte in rest {
                counts[0][usize::from(byte)] += 1;
            }
            if token.len > 0 {
                literals[length_symbol(token.len).0] += 1;
                distances[distance_symbol(token.distance).0] += 1;
            }
            at += token.literals + token.len;
        }
        for (symbol, frequency) in literals[..256].iter_mut().enumerate() {
            *frequency = counts.iter().map(|c| c[symbol]).sum();
        }
        literals[END] = 1;
        Self { literals, distances }
    }

    /// Number of extra bits of all lengths and distances.
    fn extra_bits(&self) -> u64 {
        let lengths = self.literals[265..285].iter().zip(4u64..);
        let distances = self.distances[4..].iter().zip(2u64..);
        lengths.map(|(&f, n)| u64::from(f) * (n / 4)).sum::<u64>()
            + distances.map(|(&f, n)| u64::from(f) * (n / 2)).sum::<u64>()
    }
}

/// Whether Huffman codes would save less than 0.25 % of the literals, by the entropy of a sample.
///
/// Counting all literals of a block of noise would take longer than storing them.
fn is_noise(block: &[u8], tokens: &[Token]) -> bool {
    let mut counts = [0u32; 256];
    let mut at = 0;
    for token in tokens {
        if token.distance > 1 {
            // The entropy does not include the gain of matches.
            return false;
        }
        for &byte in block[at..at + token.literals].iter().step_by(SAMPLE_STEP) {
            counts[usize::from(byte)] += 1;
        }
        at += token.literals + token.len;
    }
    let total: u32 = counts.iter().sum();
    if total < FEWEST_SAMPLES {
        return false;
    }
    let total = f64::from(total);
    let information = |&count: &u32| match count {
        0 => 0.0,
        count => f64::from(count) / total * (total / f64::from(count)).log2(),
    };
    let entropy: f64 = counts.iter().map(information).sum();
    // The entropy of a sample is biased low (Miller's correction).
    entropy + 255.0 / (2.0 * total * LN_2) > 8.0 * (1.0 - 1.0 / 400.0)
}

/// Writes a block that is not the last one, with Huffman codes or as stored bytes.
pub fn put(block: &[u8], tokens: &[Token], bits: &mut BitWriter<'_>) {
    if is_noise(block, tokens) {
        return put_stored(block, &long_runs(tokens), bits);
    }
    let frequencies = Frequencies::of(block, tokens);
    let literals = huffman::lengths(&frequencies.literals, LIMIT);
    let mut distances = huffman::lengths(&frequencies.distances, LIMIT);
    if distances.iter().all(|&len| len == 0) {
        distances[0] = 1;
    }
    let cost = |frequencies: &[u32], lengths: &[u8]| -> u64 {
        frequencies.iter().zip(lengths).map(|(&f, &l)| u64::from(f) * u64::from(l)).sum()
    };
    let coded = cost(&frequencies.literals, &literals)
        + cost(&frequencies.distances, &distances)
        + frequencies.extra_bits();
    let segments = long_runs(tokens);
    let stored: u64 = segments.iter().map(Segment::stored_bits).sum();
    // A gain of 0.25 % is not worth the time for coding and decoding.
    if coded + stored / 400 < stored {
        put_coded(block, tokens, &literals, &distances, bits);
    } else {
        put_stored(block, &segments, bits);
    }
}

/// Writes an empty last block and pads the last byte.
pub fn put_last(bits: &mut BitWriter<'_>) {
    bits.put(0b011, 3);
    bits.put(0, 7);
    bits.align();
}

/// The symbol of a match length, its extra bits and their number (RFC 1951, 3.2.5).
#[inline(always)]
fn length_symbol(len: usize) -> (usize, u64, u32) {
    const TABLE: [(u16, u8, u8); LONGEST + 1] = {
        let mut table = [(0, 0, 0); LONGEST + 1];
        let mut len = 3;
        while len < LONGEST {
            table[len] = match len {
                0..=10 => (254 + len as u16, 0, 0),
                _ => {
                    let extra = (len - 3).ilog2() - 2;
                    let symbol = 257 + 4 * extra as usize + ((len - 3) >> extra);
                    (symbol as u16, ((len - 3) & ((1 << extra) - 1)) as u8, extra as u8)
                }
            };
            len += 1;
        }
        table[LONGEST] = (285, 0, 0);
        table
    };
    let (symbol, extra, bits) = TABLE[len];
    (symbol.into(), extra.into(), bits.into())
}

/// The symbol of a distance, its extra bits and their number (RFC 1951, 3.2.5).
#[inline(always)]
fn distance_symbol(distance: usize) -> (usize, u64, u32) {
    let d = distance.saturating_sub(1);
    if d < 4 {
        return (d, 0, 0);
    }
    let extra = d.ilog2() - 1;
    let symbol = 2 * (extra as usize + 1) + ((d >> extra) & 1);
    (symbol, (d & ((1 << extra) - 1)) as u64, extra)
}

/// Writes a block with dynamic Huffman codes.
fn put_coded(
    block: &[u8],
    tokens: &[Token],
    literals: &[u8],
    distances: &[u8],
    bits: &mut BitWriter<'_>,
) {
    bits.put(0b100, 3);
    put_code_lengths(literals, distances, bits);
    let (literals, distances) = (huffman::codes(literals), huffman::codes(distances));
    // Indexing an array of 256 codes by a byte needs no bounds check.
    let mut byte_codes = [Code::default(); 256];
    byte_codes.copy_from_slice(&literals[..256]);
    let mut at = 0;
    for token in tokens {
        let (fours, rest) = block[at..at + token.literals].as_chunks::<4>();
        for four in fours {
            bits.put_codes(four.map(|byte| byte_codes[usize::from(byte)]));
            bits.flush();
        }
        for &byte in rest {
            bits.put_code(byte_codes[usize::from(byte)]);
        }
        bits.flush();
        put_match(token, &literals, &distances, bits);
        at += token.literals + token.len;
    }
    bits.put_code(literals[END]);
    bits.flush();
}

fn put_match(token: &Token, literals: &[Code], distances: &[Code], bits: &mut BitWriter<'_>) {
    if token.len == 0 {
        return;
    }
    let (symbol, extra, extra_bits) = length_symbol(token.len);
    bits.put_code(literals[symbol]);
    bits.put(extra, extra_bits);
    let (symbol, extra, extra_bits) = distance_symbol(token.distance);
    bits.put_code(distances[symbol]);
    bits.put(extra, extra_bits);
    bits.flush();
}

/// Writes the code lengths of a block with dynamic Huffman codes.
fn put_code_lengths(literals: &[u8], distances: &[u8], bits: &mut BitWriter<'_>) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let lengths = || literals.iter().chain(distances).map(|&len| usize::from(len));
    let mut frequencies = [0u32; ORDER.len()];
    lengths().for_each(|len| frequencies[len] += 1);
    let meta_lengths = huffman::lengths(&frequencies, 7);
    let meta = huffman::codes(&meta_lengths);
    bits.put((literals.len() - 257) as u64, 5);
    bits.put((distances.len() - 1) as u64, 5);
    bits.put((ORDER.len() - 4) as u64, 4);
    bits.flush();
    for symbol in ORDER {
        bits.put(meta_lengths[symbol].into(), 3);
        bits.flush();
    }
    for len in lengths() {
        bits.put_code(meta[len]);
        bits.flush();
    }
}

/// A number of stored bytes and the long run that follows them.
struct Segment {
    literals: usize,
    /// Length of the run; 0 for no run.
    run: usize,
}

impl Segment {
    /// Size in bits as stored bytes and a run with fixed codes, including block headers.
    fn stored_bits(&self) -> u64 {
        let headers = if self.run > 0 { 10 + 5 * 8 + 8 } else { 5 * 8 };
        8 * self.literals as u64 + headers + 13 * (self.run / LONGEST) as u64
    }
}

/// Divides tokens into segments: stored bytes and runs of at least [`LONG_RUN`] bytes.
fn long_runs(tokens: &[Token]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    let (mut literals, mut run) = (0, 0);
    let mut end = |literals: &mut usize, run: &mut usize| {
        if *run >= LONG_RUN {
            segments.push(Segment { literals: *literals, run: *run });
            *literals = 0;
        } else {
            *literals += *run;
        }
        *run = 0;
    };
    for token in tokens {
        if token.literals > 0 {
            end(&mut literals, &mut run);
            literals += token.literals;
        }
        match token.distance {
            1 => run += token.len,
            _ => {
                end(&mut literals, &mut run);
                literals += token.len;
            }
        }
    }
    end(&mut literals, &mut run);
    segments.push(Segment { literals, run: 0 });
    segments
}

/// Writes stored blocks for the literals, and blocks with fixed codes for the runs between them.
fn put_stored(block: &[u8], segments: &[Segment], bits: &mut BitWriter<'_>) {
    let (literals, distances) = fixed_codes();
    let mut rest = block;
    for segment in segments {
        let (stored, tail) = rest.split_at(segment.literals);
        for stored in stored.chunks(65_535) {
            bits.put(0b000, 3);
            let len = stored.len() as u16;
            bits.bytes(&len.to_le_bytes());
            bits.bytes(&(!len).to_le_bytes());
            bits.bytes(stored);
        }
        if segment.run > 0 {
            bits.put(0b010, 3);
            for len in super::lz77::lengths(segment.run) {
                let token = Token { literals: 0, len, distance: 1 };
                put_match(&token, &literals, &distances, bits);
            }
            bits.put_code(literals[END]);
            bits.flush();
        }
        rest = &tail[segment.run..];
    }
}

/// The fixed codes of literals, lengths and distances (RFC 1951, 3.2.6).
fn fixed_codes() -> (Vec<Code>, Vec<Code>) {
    let lengths: Vec<u8> = (0..288)
        .map(|symbol| match symbol {
            144..256 => 9,
            256..280 => 7,
            _ => 8,
        })
        .collect();
    (huffman::codes(&lengths), huffman::codes(&[5; 30]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_symbols_are_those_of_the_specification() {
        // RFC 1951, 3.2.5: first length of each symbol from 257 on.
        let first = [
            3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99,
            115, 131, 163, 195, 227,
        ];
        for (symbol, len) in (257..).zip(first) {
            assert_eq!((length_symbol(len).0, length_symbol(len).1), (symbol, 0), "{len}");
        }
        assert_eq!(length_symbol(257), (284, 30, 5));
        let frequencies = Frequencies { literals: [1; LITERALS], distances: [1; DISTANCES] };
        let all = (0..5).map(|n| 4 * (n + 1)).sum::<u64>() + (1..14).map(|n| 2 * n).sum::<u64>();
        assert_eq!(frequencies.extra_bits(), all);
        assert_eq!(length_symbol(258), (285, 0, 0));
    }

    #[test]
    fn distance_symbols_are_those_of_the_specification() {
        // RFC 1951, 3.2.5: first distance of each symbol.
        let first = [
            1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025,
            1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
        ];
        for (symbol, distance) in first.into_iter().enumerate() {
            let found = distance_symbol(distance);
            assert_eq!((found.0, found.1), (symbol, 0), "{distance}");
        }
        assert_eq!(distance_symbol(32768), (29, 8191, 13));
    }
}
