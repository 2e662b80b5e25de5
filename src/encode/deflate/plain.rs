//! Deflate blocks without a match finder: stored bytes, runs of one byte, Huffman codes.

use super::bits::BitWriter;
use super::huffman::{self, Code};

/// Bytes that share one set of codes.
const BLOCK: usize = 128 * 1024;
/// Longest code in use: four fit into the bit buffer between flushes.
const LIMIT: u8 = 12;
const END: usize = 256;
/// Symbol of the longest match, 258 bytes, which has no extra bits.
const LONGEST: usize = 285;
/// A run that stands between stored bytes must save more than the headers around it.
const LONG_RUN: usize = 48;

/// A stretch of literal bytes and the run that follows it.
#[derive(Clone, Copy)]
struct Segment {
    literals: usize,
    run: usize,
}

impl Segment {
    /// Bits that it takes as stored bytes and a run with the fixed codes, headers included.
    fn stored_bits(&self) -> u64 {
        let headers = if self.run > 0 { 10 + 5 * 8 + 8 + 13 } else { 5 * 8 };
        8 * self.literals as u64 + headers + 13 * (self.run / 258) as u64
    }
}

/// Appends blocks, none of them the last, that inflate to `data` and end at a byte boundary.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    let (mut segments, mut long) = (Vec::new(), Vec::new());
    for block in data.chunks(BLOCK) {
        let mut frequencies = [0u32; LONGEST + 1];
        split_runs(block, 8, &mut segments, &mut frequencies);
        frequencies[END] = 1;
        let lengths = huffman::lengths(&frequencies, LIMIT);
        let coded: u64 =
            frequencies.iter().zip(&lengths).map(|(&f, &l)| u64::from(f) * u64::from(l)).sum();
        keep_long_runs(&segments, &mut long);
        let stored: u64 = long.iter().map(Segment::stored_bits).sum();
        // A quarter of a percent of size is not worth the time that the codes take.
        if coded + stored / 400 < stored {
            put_coded(block, &segments, &lengths, out);
        } else {
            put_stored(block, &long, out);
        }
    }
}

/// Makes runs that are too short to stand between stored bytes part of the literals.
fn keep_long_runs(segments: &[Segment], long: &mut Vec<Segment>) {
    long.clear();
    let mut literals = 0;
    for segment in segments {
        literals += segment.literals;
        if segment.run >= LONG_RUN {
            long.push(Segment { literals, run: segment.run });
            literals = 0;
        } else {
            literals += segment.run;
        }
    }
    long.push(Segment { literals, run: 0 });
}

/// Finds runs of at least `shortest` bytes (8 or more) and counts the symbols that code the rest.
/// Runs are looked for every 8 bytes: what a finer search would add is not worth its time.
fn split_runs(
    block: &[u8],
    shortest: usize,
    segments: &mut Vec<Segment>,
    frequencies: &mut [u32; LONGEST + 1],
) {
    segments.clear();
    let mut counts = [[0u32; 256]; 4];
    let (mut at, mut literals) = (0, 0);
    while let Some(word) = block.get(at..at + 8) {
        let first = word[0];
        let value = u64::from_le_bytes([
            word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7],
        ]);
        if value == u64::from(first) * 0x0101_0101_0101_0101 {
            let run = run_length(&block[at..], first);
            if run >= shortest {
                // The run may have begun in bytes that were taken for literals.
                let before = &block[at - literals..at];
                let early = before.iter().rev().take(7).take_while(|&&b| b == first).count();
                // Only the sum over the four counters is used, so it may wrap in between.
                let count = &mut counts[0][usize::from(first)];
                *count = count.wrapping_sub(early as u32).wrapping_add(1);
                count_matches(early + run - 1, frequencies);
                segments.push(Segment { literals: literals - early, run: early + run });
                literals = 0;
                at += run;
                continue;
            }
        }
        for (i, &byte) in word.iter().enumerate() {
            let count = &mut counts[i % 4][usize::from(byte)];
            *count = count.wrapping_add(1);
        }
        literals += 8;
        at += 8;
    }
    for &byte in &block[at..] {
        let count = &mut counts[0][usize::from(byte)];
        *count = count.wrapping_add(1);
    }
    segments.push(Segment { literals: literals + block.len() - at, run: 0 });
    for (symbol, frequency) in frequencies[..256].iter_mut().enumerate() {
        *frequency = counts.iter().fold(0, |sum: u32, c| sum.wrapping_add(c[symbol]));
    }
}

fn run_length(data: &[u8], byte: u8) -> usize {
    let pattern = [byte; 32];
    let mut len = 0;
    for chunk in data.chunks_exact(32) {
        if chunk != pattern {
            break;
        }
        len += 32;
    }
    len + data[len..].iter().take_while(|&&b| b == byte).count()
}

/// The matches of `len` bytes in all: 258 each, then one or two for the rest, none under 3.
fn matches(mut len: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = match len {
            0 => return None,
            1..=258 => len,
            259 | 260 => 200,
            _ => 258,
        };
        len -= next;
        Some(next)
    })
}

/// Symbol, extra bits and their number of a match length 3 to 258 (RFC 1951, 3.2.5).
fn length_symbol(len: usize) -> (usize, u64, u32) {
    match len {
        258 => (LONGEST, 0, 0),
        3..=10 => (254 + len, 0, 0),
        _ => {
            let extra = (len - 3).ilog2() - 2;
            let symbol = 257 + 4 * extra as usize + ((len - 3) >> extra);
            (symbol, ((len - 3) & ((1 << extra) - 1)) as u64, extra)
        }
    }
}

fn count_matches(len: usize, frequencies: &mut [u32; LONGEST + 1]) {
    for len in matches(len) {
        frequencies[length_symbol(len).0] += 1;
    }
}

/// One block with dynamic codes.
fn put_coded(block: &[u8], segments: &[Segment], lengths: &[u8], out: &mut Vec<u8>) {
    let codes = huffman::codes(lengths);
    let mut bits = BitWriter::new(out);
    bits.put(0b100, 3);
    put_code_lengths(lengths, &mut bits);
    let mut rest = block;
    for segment in segments {
        let (literals, tail) = rest.split_at(segment.literals);
        let fours = literals.chunks_exact(4);
        let last = fours.remainder();
        for four in fours {
            for &byte in four {
                let code = codes[usize::from(byte)];
                bits.put(code.bits.into(), code.len.into());
            }
            bits.flush();
        }
        for &byte in last {
            let code = codes[usize::from(byte)];
            bits.put(code.bits.into(), code.len.into());
        }
        bits.flush();
        let (run, tail) = tail.split_at(segment.run);
        put_run(run, &codes, Code { bits: 0, len: 1 }, &mut bits);
        rest = tail;
    }
    let end = codes[END];
    bits.put(end.bits.into(), end.len.into());
    // The next block may be libdeflate's: an empty stored block ends this one at a byte boundary.
    bits.put(0, 3);
    bits.bytes(&[0, 0, 0xFF, 0xFF]);
}

fn put_run(run: &[u8], codes: &[Code], distance_one: Code, bits: &mut BitWriter<'_>) {
    let Some(&byte) = run.first() else { return };
    let code = codes[usize::from(byte)];
    bits.put(code.bits.into(), code.len.into());
    for len in matches(run.len() - 1) {
        let (symbol, extra, extra_bits) = length_symbol(len);
        let code = codes[symbol];
        bits.put(code.bits.into(), code.len.into());
        bits.put(extra, extra_bits);
        bits.put(distance_one.bits.into(), distance_one.len.into());
        bits.flush();
    }
    bits.flush();
}

/// The header of a dynamic block: lengths of the literal codes and of one distance code.
fn put_code_lengths(lengths: &[u8], bits: &mut BitWriter<'_>) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let distances = [1u8];
    let mut frequencies = [0u32; 19];
    for &len in lengths.iter().chain(&distances) {
        frequencies[usize::from(len)] += 1;
    }
    let meta_lengths = huffman::lengths(&frequencies, 7);
    let meta = huffman::codes(&meta_lengths);
    bits.put((lengths.len() - 257) as u64, 5);
    bits.put((distances.len() - 1) as u64, 5);
    bits.put((ORDER.len() - 4) as u64, 4);
    bits.flush();
    for symbol in ORDER {
        bits.put(meta_lengths[symbol].into(), 3);
        bits.flush();
    }
    for &len in lengths.iter().chain(&distances) {
        let code = meta[usize::from(len)];
        bits.put(code.bits.into(), code.len.into());
        bits.flush();
    }
}

/// Stored blocks for the literals, blocks with the fixed codes for the runs between them.
fn put_stored(block: &[u8], segments: &[Segment], out: &mut Vec<u8>) {
    let fixed = fixed_codes();
    let mut bits = BitWriter::new(out);
    let mut rest = block;
    for segment in segments {
        let (literals, tail) = rest.split_at(segment.literals);
        for stored in literals.chunks(65_535) {
            bits.put(0b000, 3);
            let len = stored.len() as u16;
            bits.bytes(&len.to_le_bytes());
            bits.bytes(&(!len).to_le_bytes());
            bits.bytes(stored);
        }
        let (run, tail) = tail.split_at(segment.run);
        if !run.is_empty() {
            bits.put(0b010, 3);
            put_run(run, &fixed, Code { bits: 0, len: 5 }, &mut bits);
            bits.put(0, 7);
            bits.flush();
        }
        rest = tail;
    }
    bits.put(0, 3);
    bits.bytes(&[0, 0, 0xFF, 0xFF]);
}

/// The fixed literal and length codes (RFC 1951, 3.2.6).
fn fixed_codes() -> Vec<Code> {
    let lengths: Vec<u8> = (0..288)
        .map(|symbol| match symbol {
            0..144 => 8,
            144..256 => 9,
            256..280 => 7,
            _ => 8,
        })
        .collect();
    huffman::codes(&lengths)
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
            assert_eq!(length_symbol(len).0, symbol, "{len}");
            assert_eq!(length_symbol(len).1, 0, "{len}");
        }
        assert_eq!(length_symbol(257), (284, 30, 5));
        assert_eq!(length_symbol(258), (285, 0, 0));
    }

    #[test]
    fn matches_add_up_and_are_never_too_short() {
        for len in (3..2000).chain([7, 258, 259, 260, 261, 516, 517, 518, 519]) {
            let parts: Vec<_> = matches(len).collect();
            assert_eq!(parts.iter().sum::<usize>(), len);
            assert!(parts.iter().all(|p| (3..=258).contains(p)), "{len} {parts:?}");
        }
    }
}
