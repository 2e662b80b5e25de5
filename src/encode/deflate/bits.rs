//! Bits of a deflate stream, least significant first.

use super::huffman::Code;

/// Bytes that are gathered before they are appended: a vector grows at a price.
const GATHERED: usize = 4096;

/// Appends bits to bytes.
pub struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    gathered: [u8; GATHERED],
    len: usize,
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Starts at a byte boundary, after what `out` holds.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, gathered: [0; GATHERED], len: 0, pending: 0, count: 0 }
    }

    /// Appends the low `count` bits of `bits` (at most 56 before the next [`Self::flush`]).
    #[inline(always)]
    pub fn put(&mut self, bits: u64, count: u32) {
        self.pending |= bits << self.count;
        self.count += count;
    }

    /// Appends the code of a symbol.
    #[inline(always)]
    pub fn put_code(&mut self, code: Code) {
        self.put(code.bits.into(), code.len.into());
    }

    /// Appends the codes of four symbols, none longer than 14 bits.
    #[inline(always)]
    pub fn put_codes(&mut self, [a, b, c, d]: [Code; 4]) {
        let pair =
            |a: Code, b: Code| (u64::from(a.bits) | u64::from(b.bits) << a.len, a.len + b.len);
        let ((ab, ab_len), (cd, cd_len)) = (pair(a, b), pair(c, d));
        self.put(ab | cd << ab_len, u32::from(ab_len + cd_len));
    }

    /// Moves whole bytes out; afterwards fewer than 8 bits are pending.
    #[inline(always)]
    pub fn flush(&mut self) {
        if self.len > GATHERED - 8 {
            self.append();
        }
        if let Some(room) = self.gathered[self.len..].first_chunk_mut() {
            *room = self.pending.to_le_bytes();
        }
        // At most 63 bits are pending: the shift stays below 64.
        let bytes = self.count / 8;
        self.len += bytes as usize;
        self.pending >>= 8 * bytes;
        self.count %= 8;
    }

    fn append(&mut self) {
        self.out.extend_from_slice(&self.gathered[..self.len]);
        self.len = 0;
    }

    /// Fills up to a byte boundary with zeros and hands over what is gathered.
    pub fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.flush();
        self.append();
    }

    /// Appends bytes at a byte boundary.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.align();
        self.out.extend_from_slice(bytes);
    }
}

impl Drop for BitWriter<'_> {
    /// What [`Self::flush`] has moved out is in the bytes afterwards.
    fn drop(&mut self) {
        self.append();
    }
}
