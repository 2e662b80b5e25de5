//! Time of a conversion.

use std::time::Duration;

/// Time of a conversion by kind of work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Waiting for bytes of the raw file.
    pub read: Duration,
    /// SHA-256 of both files and MD5 of the parts.
    pub hash: Duration,
    /// Sorting bytes into planes (the HDF5 shuffle filter).
    pub shuffle: Duration,
    /// Compressing planes with deflate.
    pub deflate: Duration,
    /// Defining the HDF5 file and writing its chunks.
    pub encode: Duration,
    /// Passing parts to the store.
    pub write: Duration,
}

impl std::ops::AddAssign for Timing {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.hash += other.hash;
        self.shuffle += other.shuffle;
        self.deflate += other.deflate;
        self.encode += other.encode;
        self.write += other.write;
    }
}
