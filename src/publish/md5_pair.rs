//! MD5 of an object and of each of its parts, taken in one pass: each step of MD5 waits for the one
//! before, so that a processor has room for the steps of a second digest between them, and for those of
//! four objects at once in its vectors.

use std::num::Wrapping;
use std::ops::{Add, BitAnd, BitOr, BitXor, Not};

use wide::u32x4;

use super::Digest;

const BLOCK: usize = 64;
const START: State<Wrapping<u32>> =
    [Wrapping(0x67452301), Wrapping(0xefcdab89), Wrapping(0x98badcfe), Wrapping(0x10325476)];
/// Rotations in each round, RFC 1321.
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
/// floor(2^32 |sin(i + 1)|), RFC 1321.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

/// The state of a digest.
type State<W> = [W; 4];
/// Digests of a whole and of the part that is under way, of the same bytes.
type Pair<W> = [State<W>; 2];
/// Objects whose steps are taken together.
pub(super) const LANES: usize = 4;

/// What the steps of MD5 are taken on: a word of one object, or the same word of [`LANES`].
trait Word:
    Copy
    + Add<Output = Self>
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
{
    /// Of the same value everywhere.
    fn all(value: u32) -> Self;
    /// Rotated to the left.
    fn turned(self, by: u32) -> Self;
}

impl Word for Wrapping<u32> {
    fn all(value: u32) -> Self {
        Self(value)
    }

    fn turned(self, by: u32) -> Self {
        Self(self.0.rotate_left(by))
    }
}

impl Word for u32x4 {
    fn all(value: u32) -> Self {
        Self::splat(value)
    }

    fn turned(self, by: u32) -> Self {
        (self << by) | (self >> (u32::BITS - by))
    }
}

/// MD5 of an object that is given piece by piece, and of its parts.
pub(super) struct Md5Pair {
    /// Of the whole, and of the part.
    pair: Pair<Wrapping<u32>>,
    /// Bytes of the whole, and of the part.
    lengths: [u64; 2],
    /// Bytes that do not fill a block yet.
    rest: Vec<u8>,
}

impl Default for Md5Pair {
    fn default() -> Self {
        Self { pair: [START; 2], lengths: [0; 2], rest: Vec::new() }
    }
}

impl Md5Pair {
    /// The next bytes of up to [`LANES`] objects: faster together than one after another.
    pub fn update_all(objects: &mut [(Self, Vec<u8>)]) {
        let are_between_blocks = objects.iter().all(|(md5, _)| md5.rest.is_empty());
        let common = match are_between_blocks && (2..=LANES).contains(&objects.len()) {
            true => objects.iter().map(|(_, data)| data.len() / BLOCK * BLOCK).min().unwrap_or(0),
            false => 0,
        };
        if common > 0 {
            // Lanes without an object take the steps of the first once more.
            let of = |lane: usize| objects.get(lane).unwrap_or(&objects[0]);
            let mut pairs = std::array::from_fn(|lane| of(lane).0.pair);
            let blocks = std::array::from_fn(|lane| of(lane).1[..common].as_chunks().0);
            compress_lanes(&mut pairs, blocks);
            for ((md5, _), pair) in objects.iter_mut().zip(pairs) {
                md5.pair = pair;
                md5.lengths = md5.lengths.map(|length| length + common as u64);
            }
        }
        objects.iter_mut().for_each(|(md5, data)| md5.update(&data[common..]));
    }

    /// The next bytes.
    pub fn update(&mut self, mut data: &[u8]) {
        self.lengths = self.lengths.map(|length| length + data.len() as u64);
        if !self.rest.is_empty() {
            let (head, tail) = data.split_at(data.len().min(BLOCK - self.rest.len()));
            self.rest.extend_from_slice(head);
            data = tail;
            if self.rest.len() == BLOCK {
                compress(&mut self.pair, self.rest.as_chunks().0);
                self.rest.clear();
            }
        }
        let (blocks, rest) = data.as_chunks();
        compress(&mut self.pair, blocks);
        self.rest.extend_from_slice(rest);
    }

    /// Ends a part, which must consist of whole blocks of 64 bytes unless it is the last.
    pub fn end_part(&mut self) -> Digest {
        let [_, part] = self.digests();
        (self.pair[1], self.lengths[1]) = (START, 0);
        part
    }

    /// Of all that has come.
    pub fn whole(&self) -> Digest {
        self.digests()[0]
    }

    /// Both, if nothing follows.
    fn digests(&self) -> [Digest; 2] {
        let rest = self.rest.len();
        let end = if rest + 1 + 8 <= BLOCK { BLOCK } else { 2 * BLOCK };
        let ended = |lane: usize| {
            let mut last = [0; 2 * BLOCK];
            last[..rest].copy_from_slice(&self.rest);
            last[rest] = 0x80;
            let bits = self.lengths[lane].wrapping_mul(8);
            last[end - 8..end].copy_from_slice(&bits.to_le_bytes());
            let mut pair = [self.pair[lane]; 2];
            compress(&mut pair, last[..end].as_chunks().0);
            let mut digest = Digest([0; 16]);
            for (bytes, word) in digest.0.as_chunks_mut().0.iter_mut().zip(pair[0]) {
                *bytes = word.0.to_le_bytes();
            }
            digest
        };
        [ended(0), ended(1)]
    }
}

/// Takes blocks of [`LANES`] objects into their digests, as many as all have.
fn compress_lanes(pairs: &mut [Pair<Wrapping<u32>>; LANES], blocks: [&[[u8; BLOCK]]; LANES]) {
    let across = |state: usize, word: usize| {
        u32x4::new(std::array::from_fn(|lane| pairs[lane][state][word].0))
    };
    let mut lanes: Pair<u32x4> = [0, 1].map(|state| [0, 1, 2, 3].map(|word| across(state, word)));
    let [a, b, c, d] = blocks;
    for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
        let blocks = [a, b, c, d].map(|block| block.as_chunks().0);
        let mut words = [u32x4::splat(0); 16];
        for (at, words) in words.as_chunks_mut().0.iter_mut().enumerate() {
            let of_lane = |block: &[[u8; 4]]| {
                u32x4::new([0, 1, 2, 3].map(|n| u32::from_le_bytes(block[4 * at + n])))
            };
            *words = u32x4::transpose(blocks.map(of_lane));
        }
        mix(&mut lanes, &words);
    }
    for (state, words) in lanes.iter().enumerate() {
        for (word, of_lanes) in words.iter().enumerate() {
            for (pair, value) in pairs.iter_mut().zip(of_lanes.to_array()) {
                pair[state][word] = Wrapping(value);
            }
        }
    }
}

fn compress(pair: &mut Pair<Wrapping<u32>>, blocks: &[[u8; BLOCK]]) {
    for block in blocks {
        let mut words = [Wrapping(0); 16];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            *word = Wrapping(u32::from_le_bytes(*bytes));
        }
        mix(pair, &words);
    }
}

/// Takes a block into both digests.
#[inline(always)]
fn mix<W: Word>(pair: &mut Pair<W>, words: &[W; 16]) {
    let mut mixed = *pair;
    round::<0, W>(&mut mixed, words);
    round::<1, W>(&mut mixed, words);
    round::<2, W>(&mut mixed, words);
    round::<3, W>(&mut mixed, words);
    for (own, mixed) in pair.iter_mut().flatten().zip(mixed.iter().flatten()) {
        *own = *own + *mixed;
    }
}

#[inline(always)]
fn round<const ROUND: usize, W: Word>(pair: &mut Pair<W>, words: &[W; 16]) {
    // The compiler leaves a loop as it is, which halves the speed.
    macro_rules! steps {
        ($($at:literal)*) => { $(step::<ROUND, W>(pair, words, $at);)* }
    }
    steps!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

#[inline(always)]
fn step<const ROUND: usize, W: Word>(pair: &mut Pair<W>, words: &[W; 16], at: usize) {
    let word = match ROUND {
        0 => at,
        1 => 5 * at + 1,
        2 => 3 * at + 5,
        _ => 7 * at,
    };
    let added = words[word % 16] + W::all(SINES[16 * ROUND + at]);
    for state in pair {
        let [a, b, c, d] = *state;
        // What does not wait for b, the last result, is done first.
        let sum = a + added;
        let sum = match ROUND {
            0 => sum + (d ^ (b & (c ^ d))),
            1 => sum + (c & !d) + (b & d),
            2 => sum + (b ^ (c ^ d)),
            _ => sum + (c ^ (b | !d)),
        };
        *state = [d, sum.turned(TURNS[ROUND][at % 4]) + b, b, c];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_at_once_are_those_of_each() {
        let data = |n: usize| (0..n as u32 * 64 + 3).map(|at| (at * n as u32) as u8).collect();
        for count in 0..=LANES {
            let mut all: Vec<(Md5Pair, Vec<u8>)> =
                (1..=count).map(|n| (Md5Pair::default(), data(n))).collect();
            // Afterwards none is between blocks.
            Md5Pair::update_all(&mut all);
            Md5Pair::update_all(&mut all);
            for (mut md5, data) in all {
                let twice = Digest::of(&[&*data, &*data].concat());
                assert_eq!((md5.whole(), md5.end_part()), (twice, twice));
            }
        }
    }

    #[test]
    fn both_are_those_of_the_library() {
        let data: Vec<u8> = (0..1000_u32).map(|n| ((n * n) >> 3) as u8).collect();
        for size in [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 500, 1000] {
            for piece in [1, 7, 64, 100, 1000] {
                for part in [64, 128, 1024] {
                    let data = &data[..size];
                    let mut pair = Md5Pair::default();
                    for part in data.chunks(part) {
                        part.chunks(piece).for_each(|piece| pair.update(piece));
                        assert_eq!(pair.end_part(), Digest::of(part), "{size} {piece}");
                    }
                    assert_eq!(pair.whole(), Digest::of(data), "{size} {piece} {part}");
                }
            }
        }
    }
}
