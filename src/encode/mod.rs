//! Encoders of research-grade NetCDF-4 files and Zarr stores. No I/O.

pub mod deflate;
pub(crate) mod hdf5;
mod netcdf;
pub(crate) mod research;
pub mod shuffle;
mod writable;
pub mod zarr;

use bytes::Bytes;

pub use hdf5::EncodeError;

use crate::model::{IoCause, Md5Digest};

/// The error of a [`PartSink`] that cannot store a part.
pub type SinkError = IoCause;

/// The receiver of the parts of a file, which arrive in any order, each as soon as it is final.
pub trait PartSink: Send {
    /// Length in bytes of every part but the last.
    fn part_size(&self) -> usize;
    /// Receives the part at `index`; `md5` is its digest, if it is already computed.
    ///
    /// # Errors
    /// The part cannot be stored.
    fn part(&mut self, index: usize, data: Bytes, md5: Option<Md5Digest>) -> Result<(), SinkError>;
}
