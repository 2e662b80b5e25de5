//! Bits of a deflate stream, least significant first.

use super::huffman::Code;

/// Appends bits to bytes.
pub struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    /// Starts at a byte boundary, after what `out` holds.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, count: 0 }
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

    /// Moves whole bytes out; afterwards fewer than 8 bits are pending.
    #[inline(always)]
    pub fn flush(&mut self) {
        let bytes = (self.count / 8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..8]);
        let len = self.out.len() - (8 - bytes);
        self.out.truncate(len);
        self.pending = self.pending.checked_shr(bytes as u32 * 8).unwrap_or(0);
        self.count %= 8;
    }

    /// Fills up to a byte boundary with zeros.
    pub fn align(&mut self) {
        self.flush();
        if self.count > 0 {
            self.out.push(self.pending as u8);
            self.pending = 0;
            self.count = 0;
        }
    }

    /// Appends bytes at a byte boundary.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.align();
        self.out.extend_from_slice(bytes);
    }
}
