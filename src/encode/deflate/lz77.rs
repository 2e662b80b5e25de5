//! Divides data into the tokens of deflate: literal bytes, and matches with earlier bytes.

/// Longest match of the format, in bytes.
pub const LONGEST: usize = 258;
/// Shortest match of the format, in bytes.
const SHORTEST: usize = 3;
/// Largest distance of a match, in bytes.
const WINDOW: usize = 32 * 1024;
/// Number of positions inside a match that enter the hash table.
const HASHED: usize = 16;
/// Number of bits of a hash, which is an index into the table of positions.
const TABLE_BITS: u32 = 15;

/// A number of literal bytes and the match that follows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// Number of literal bytes.
    pub literals: usize,
    /// Length of the match in bytes; 0 for no match.
    pub len: usize,
    /// Distance back to the start of the match in bytes.
    pub distance: usize,
}

/// Divides a block into literals and runs of one byte, which are matches at distance 1.
///
/// The search steps by 8 bytes: the gain of a finer search is not worth its time.
pub fn runs(block: &[u8], tokens: &mut Vec<Token>) {
    tokens.clear();
    let (mut at, mut start) = (0, 0);
    while let Some(word) = block[at..].first_chunk::<8>() {
        let byte = word[0];
        if *word != [byte; 8] {
            at += 8;
            continue;
        }
        // The run can begin in the bytes before, which are literals so far.
        let before = block[start..at].iter().rev().take(7).take_while(|&&b| b == byte).count();
        let begin = at - before;
        at += run_length(&block[at..], byte);
        let mut literals = begin + 1 - start;
        for len in lengths(at - begin - 1) {
            tokens.push(Token { literals, len, distance: 1 });
            literals = 0;
        }
        start = at;
    }
    tokens.push(Token { literals: block.len() - start, ..Token::default() });
}

/// The number of bytes at the start of `data` that equal `byte`.
fn run_length(data: &[u8], byte: u8) -> usize {
    let pattern = [byte; 32];
    let whole = data.chunks_exact(32).take_while(|chunk| *chunk == pattern).count() * 32;
    whole + data[whole..].iter().take_while(|&&b| b == byte).count()
}

/// Divides `len` bytes into match lengths between the limits of the format.
pub fn lengths(mut len: usize) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let next = match len {
            0 => return None,
            1..=LONGEST => len,
            _ if len - LONGEST < SHORTEST => LONGEST - SHORTEST,
            _ => LONGEST,
        };
        len -= next;
        Some(next)
    })
}

/// Finds matches in the window: compares the last two positions with the same hash of four bytes.
pub struct Matcher {
    /// By hash, the last two positions plus 1, the latest first; 0 for no position.
    table: Vec<[u32; 2]>,
}

impl Matcher {
    /// Creates a matcher with an empty table.
    pub fn new() -> Self {
        Self { table: vec![[0; 2]; 1 << TABLE_BITS] }
    }

    /// Divides `data[start..end]` into literals and matches; a match can refer to bytes before `start`.
    pub fn find(&mut self, data: &[u8], start: usize, end: usize, tokens: &mut Vec<Token>) {
        tokens.clear();
        let (mut at, mut literals) = (start, start);
        while let Some(next) = data[at..end].first_chunk::<4>() {
            let longest = &data[at..end.min(at + LONGEST)];
            let (mut len, mut distance) = (0, 0);
            for entry in self.insert(*next, at) {
                let candidate = (entry as usize).wrapping_sub(1);
                if candidate < at && at - candidate <= WINDOW && data[candidate..].starts_with(next)
                {
                    let common = common_prefix(&data[candidate..], longest);
                    if common > len {
                        (len, distance) = (common, at - candidate);
                    }
                }
            }
            if len == 0 {
                at += 1;
                continue;
            }
            tokens.push(Token { literals: at - literals, len, distance });
            // Rows of a field resemble each other with small shifts, so positions inside a match
            // enter the table, too; in long runs a few positions are enough.
            for inner in at + 1..(at + len).min(at + HASHED) {
                if let Some(bytes) = data[inner..end].first_chunk::<4>() {
                    self.insert(*bytes, inner);
                }
            }
            at += len;
            literals = at;
        }
        tokens.push(Token { literals: end - literals, ..Token::default() });
    }

    /// Inserts the position of four bytes into the table; returns the previous entry of their hash.
    #[inline(always)]
    fn insert(&mut self, bytes: [u8; 4], at: usize) -> [u32; 2] {
        let hash = u32::from_le_bytes(bytes).wrapping_mul(0x9E37_79B1);
        let entry = &mut self.table[(hash >> (32 - TABLE_BITS)) as usize];
        let previous = *entry;
        *entry = [at as u32 + 1, previous[0]];
        previous
    }
}

/// Length of the common prefix of `a` and `b`; `a` is not shorter than `b`.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (a8, b8) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    for (i, (x, y)) in a8.iter().zip(b8).enumerate() {
        let differs = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differs != 0 {
            return 8 * i + (differs.trailing_zeros() / 8) as usize;
        }
    }
    let whole = 8 * a8.len().min(b8.len());
    whole + a[whole..].iter().zip(&b[whole..]).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes the tokens of `data[start..]`.
    fn replay(data: &[u8], start: usize, tokens: &[Token]) -> Vec<u8> {
        let mut out = data[..start].to_vec();
        for token in tokens {
            let literals = &data[out.len()..out.len() + token.literals];
            out.extend_from_slice(literals);
            for _ in 0..token.len {
                out.push(out[out.len() - token.distance]);
            }
            assert!(token.len == 0 || (SHORTEST..=LONGEST).contains(&token.len), "{token:?}");
        }
        out
    }

    fn samples() -> Vec<Vec<u8>> {
        let waves = |n: usize| (0..n).map(|i| (40.0 * (i as f64 / 50.0).sin()) as i8 as u8);
        let runs = [0usize, 1, 2, 3, 4, 9, 255, 258, 259, 260, 261, 262, 516, 519, 3000];
        let mixed = runs.iter().zip(0u8..).flat_map(|(&n, b)| {
            std::iter::repeat_n(b, n).chain((0..n % 13).map(move |i| (i * 37) as u8 ^ b))
        });
        vec![
            Vec::new(),
            vec![7],
            vec![7; 8],
            vec![7; 100_000],
            mixed.collect(),
            waves(70_000).collect(),
        ]
    }

    #[test]
    fn decoding_runs_restores_the_data() {
        for data in samples() {
            let mut tokens = Vec::new();
            runs(&data, &mut tokens);
            assert_eq!(replay(&data, 0, &tokens), data);
        }
    }

    #[test]
    fn decoding_matches_restores_the_data_across_blocks() {
        for data in samples() {
            let (mut matcher, mut tokens) = (Matcher::new(), Vec::new());
            let mut start = 0;
            while start < data.len() {
                let end = data.len().min(start + 10_000);
                matcher.find(&data, start, end, &mut tokens);
                assert_eq!(replay(&data, start, &tokens), data[..end]);
                start = end;
            }
        }
    }

    #[test]
    fn a_repeated_row_is_found() {
        let row: Vec<u8> =
            (0..320u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let data = row.repeat(20);
        let mut tokens = Vec::new();
        Matcher::new().find(&data, 0, data.len(), &mut tokens);
        let literals: usize = tokens.iter().map(|t| t.literals).sum();
        assert!(literals < 400, "{literals}");
    }
}
