//! The HDF5 shuffle filter: the first bytes of all elements, then the second bytes, and so on.
//!
//! Neighboring floats share their high bytes and little else: shuffling makes the high bytes
//! compressible. Specification: "Shuffle" in the HDF5 filter reference, filter id 2.

use crate::model::dataset::ByteOrder;

/// Shuffles a stream of elements into planes: one plane for each byte of a little-endian element, the
/// least significant byte first.
///
/// ```
/// use dor_atlas::encode::shuffle::Shuffler;
/// use dor_atlas::model::dataset::ByteOrder;
///
/// let mut shuffler = Shuffler::new(2, 2, ByteOrder::Big);
/// shuffler.push(&[0xAA, 0x01, 0xAA, 0x02]);
/// assert_eq!(shuffler.finish(), Some(vec![0x01, 0x02, 0xAA, 0xAA]));
/// ```
#[derive(Debug)]
pub struct Shuffler {
    planes: Vec<u8>,
    /// Bytes of an element.
    size: usize,
    /// Number of elements.
    len: usize,
    order: ByteOrder,
    /// Number of elements in the planes.
    filled: usize,
    /// The first bytes of an incomplete element.
    carry: Vec<u8>,
}

impl Shuffler {
    /// Creates a shuffler for `len` elements of `size` bytes, which arrive in byte order `order`.
    pub fn new(len: usize, size: usize, order: ByteOrder) -> Self {
        Self::with_buffer(Vec::new(), len, size, order)
    }

    /// Creates a shuffler as [`Self::new`] does, in the memory of earlier planes.
    pub fn with_buffer(mut planes: Vec<u8>, len: usize, size: usize, order: ByteOrder) -> Self {
        planes.resize(len * size, 0);
        Self { planes, size, len, order, filled: 0, carry: Vec::with_capacity(size) }
    }

    /// Adds the next bytes, which can end inside an element; bytes after the last element are ignored.
    pub fn push(&mut self, mut data: &[u8]) {
        if !self.carry.is_empty() {
            let missing = (self.size - self.carry.len()).min(data.len());
            let (head, rest) = data.split_at(missing);
            self.carry.extend_from_slice(head);
            data = rest;
            if self.carry.len() < self.size {
                return;
            }
            let element = std::mem::take(&mut self.carry);
            self.scatter(&element);
        }
        let whole = data.len() - data.len() % self.size;
        let (elements, rest) = data.split_at(whole);
        self.scatter(elements);
        self.carry.extend_from_slice(rest);
    }

    /// The planes; `None` when elements are missing.
    pub fn finish(self) -> Option<Vec<u8>> {
        (self.filled == self.len).then_some(self.planes)
    }

    fn scatter(&mut self, data: &[u8]) {
        let elements = (data.len() / self.size).min(self.len - self.filled);
        let data = &data[..elements * self.size];
        let (start, end) = (self.filled, self.filled + elements);
        if self.size == 4 {
            let mut planes = self.planes.chunks_exact_mut(self.len);
            if let [Some(a), Some(b), Some(c), Some(d)] = [(); 4].map(|()| planes.next()) {
                let planes = [a, b, c, d].map(|p| &mut p[start..end]);
                scatter4_widest(data, planes, self.order);
            }
        } else {
            for (k, plane) in self.planes.chunks_exact_mut(self.len.max(1)).enumerate() {
                let byte = match self.order {
                    ByteOrder::Little => k,
                    ByteOrder::Big => self.size - 1 - k,
                };
                let bytes = data.iter().skip(byte).step_by(self.size);
                for (to, from) in plane[start..end].iter_mut().zip(bytes) {
                    *to = *from;
                }
            }
        }
        self.filled = end;
    }
}

/// Runs [`scatter4`] with AVX2 where the processor has it: baseline x86-64 has no byte shuffles and
/// takes four times as long.
fn scatter4_widest(data: &[u8], planes: [&mut [u8]; 4], order: ByteOrder) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2(data: &[u8], planes: [&mut [u8]; 4], order: ByteOrder) {
            scatter4(data, planes, order);
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2, the only requirement of the function.
            return unsafe { with_avx2(data, planes, order) };
        }
    }
    scatter4(data, planes, order);
}

/// Fills four planes at once, 16 elements in a step, with loops that the compiler vectorizes.
#[inline(always)]
fn scatter4(data: &[u8], planes: [&mut [u8]; 4], order: ByteOrder) {
    const STEP: usize = 16;
    let read = match order {
        ByteOrder::Big => u32::from_be_bytes,
        ByteOrder::Little => u32::from_le_bytes,
    };
    let elements = data.as_chunks::<4>().0;
    let (steps, rest) = elements.as_chunks::<STEP>();
    let [p0, p1, p2, p3] = planes.map(|plane| plane.as_chunks_mut::<STEP>());
    for ((((step, a), b), c), d) in steps.iter().zip(p0.0).zip(p1.0).zip(p2.0).zip(p3.0) {
        let values = step.map(read);
        *a = values.map(|v| v as u8);
        *b = values.map(|v| (v >> 8) as u8);
        *c = values.map(|v| (v >> 16) as u8);
        *d = values.map(|v| (v >> 24) as u8);
    }
    for ((((&element, a), b), c), d) in rest.iter().zip(p0.1).zip(p1.1).zip(p2.1).zip(p3.1) {
        [*a, *b, *c, *d] = read(element).to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shuffled(values: &[u32], order: ByteOrder, piece: usize) -> Vec<u8> {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|v| match order {
                ByteOrder::Big => v.to_be_bytes(),
                ByteOrder::Little => v.to_le_bytes(),
            })
            .collect();
        let mut shuffler = Shuffler::new(values.len(), 4, order);
        for piece in bytes.chunks(piece) {
            shuffler.push(piece);
        }
        shuffler.finish().unwrap()
    }

    #[test]
    fn planes_are_least_significant_first_for_any_byte_order_and_pieces() {
        let values: Vec<u32> = (0..37u32).map(|i| i.wrapping_mul(0x9E37_79B9)).collect();
        let expected: Vec<u8> =
            (0..4).flat_map(|k| values.iter().map(move |v| v.to_le_bytes()[k])).collect();
        for order in [ByteOrder::Big, ByteOrder::Little] {
            for piece in [1, 3, 4, 7, 64, 1000] {
                assert_eq!(shuffled(&values, order, piece), expected, "{order:?} {piece}");
            }
        }
    }

    #[test]
    fn doubles_have_eight_planes() {
        let mut shuffler = Shuffler::new(3, 8, ByteOrder::Big);
        let values = [1.5f64, -2.25, 1e300];
        for v in values {
            shuffler.push(&v.to_be_bytes());
        }
        let expected: Vec<u8> =
            (0..8).flat_map(|k| values.iter().map(move |v| v.to_le_bytes()[k])).collect();
        assert_eq!(shuffler.finish().unwrap(), expected);
    }

    #[test]
    fn missing_elements_are_detected() {
        let mut shuffler = Shuffler::new(2, 4, ByteOrder::Big);
        shuffler.push(&[1, 2, 3, 4, 5]);
        assert!(shuffler.finish().is_none());
    }
}
