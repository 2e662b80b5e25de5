//! From the model's values to the bytes of files: research-grade NetCDF-4. No I/O.

pub mod deflate;
pub mod hdf5;
pub mod research;

pub mod shuffle;

pub use hdf5::EncodeError;
