//! Writes the bits of a deflate stream, least significant bit first.

use super::huffman::Code;

/// Size of the buffer in bytes: appending single bytes to a vector is slow.
const BUFFER: usize = 4096;

/// A writer that appends bits to a vector of bytes.
pub struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    buffer: [u8; BUFFER],
    len: usize,
    /// Bits that are not yet in the buffer.
    pending: u64,
    /// Number of pending bits.
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Creates a writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, buffer: [0; BUFFER], len: 0, pending: 0, count: 0 }
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

    /// Moves whole bytes to the buffer; afterwards fewer than 8 bits are pending.
    #[inline(always)]
    pub fn flush(&mut self) {
        if self.len > BUFFER - 8 {
            self.append();
        }
        if let Some(bytes) = self.buffer[self.len..].first_chunk_mut() {
            *bytes = self.pending.to_le_bytes();
        }
        // At most 63 bits are pending: the shift stays below 64.
        let bytes = self.count / 8;
        self.len += bytes as usize;
        self.pending >>= 8 * bytes;
        self.count %= 8;
    }

    fn append(&mut self) {
        self.out.extend_from_slice(&self.buffer[..self.len]);
        self.len = 0;
    }

    /// Pads with zero bits to a byte boundary and appends the buffer to the output.
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
    /// Appends the buffer to the output; bits after the last [`Self::flush`] are lost.
    fn drop(&mut self) {
        self.append();
    }
}
