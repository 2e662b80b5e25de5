//! From the model's values to the bytes of files: research-grade NetCDF-4, Zarr. No I/O.

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

/// What can go wrong while a part is taken, whoever takes it.
pub type SinkError = IoCause;

/// Takes the parts of a file as they become final, in any order.
pub trait PartSink: Send {
    /// Length of every part but the last.
    fn part_size(&self) -> usize;
    /// Takes one part, with its MD5 where that is known.
    fn part(&mut self, index: usize, data: Bytes, md5: Option<Md5Digest>) -> Result<(), SinkError>;
}
