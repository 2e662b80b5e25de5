//! What a file says of itself, read by range and without its data.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hdf5_reader::{Storage, StorageBuffer};
use netcdf_reader::NcFile;

use super::history::{Form, damaged, header_of, positions};
use super::{ReadError, Source, SourceError};
use crate::model::dataset::Header;

/// More bytes than an HDF5 superblock has up to its end-of-file address.
const SUPERBLOCK: u64 = 64;

/// What a file says of itself and of its month, read without its data.
pub struct Glance {
    /// The header.
    pub header: Header,
    /// Values of `time_bound`.
    pub time_bound: Vec<f64>,
}

/// A source as the random-access storage of the reader.
struct Ranges {
    len: u64,
    source: Mutex<(Box<dyn Source>, Option<SourceError>)>,
}

impl Storage for Ranges {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_range(
        &self,
        offset: u64,
        len: usize,
    ) -> Result<StorageBuffer, hdf5_reader::error::Error> {
        let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = offset.checked_add(len as u64).filter(|&e| e <= self.len).ok_or_else(ended)?;
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        match source.0.range(offset..end) {
            Ok(bytes) => Ok(StorageBuffer::from_vec(bytes.into())),
            Err(error) => {
                source.1 = Some(error);
                Err(ended().into())
            }
        }
    }
}

/// Reads the header of any NetCDF file.
pub fn header(source: Box<dyn Source>) -> Result<Header, ReadError> {
    look(source, |_, header, _| Ok(header))
}

/// Reads the header and the month, and checks that the data is all there; fetches little more
/// than that.
pub fn glance(source: Box<dyn Source>) -> Result<Glance, ReadError> {
    let len = source.len();
    let url = source.url().to_owned();
    look(source, |file, header, form| {
        if let Form::Classic = form {
            positions(file, &header, &url, len)?;
        }
        let time_bound = match header.variable("time_bound") {
            Some(_) => file.read_variable_as_f64("time_bound").map_err(|e| damaged(&url, e))?,
            None => Default::default(),
        };
        Ok(Glance { header, time_bound: time_bound.into_iter().collect() })
    })
}

/// Opens a file by ranges.
fn look<T>(
    mut source: Box<dyn Source>,
    take: impl FnOnce(&NcFile, Header, Form) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    let url = source.url().to_owned();
    let len = source.len();
    let start = source.range(0..len.min(SUPERBLOCK));
    let start = start.map_err(|source| ReadError::Fetch { url: url.clone(), source })?;
    let form = Form::of(&start, &url)?;
    if let (Form::Netcdf4, Some(needs)) = (&form, hdf5_end(&start).filter(|&end| end > len)) {
        return Err(ReadError::Truncated {
            url,
            variable: "HDF5 data".to_owned(),
            needs,
            has: len,
        });
    }
    let ranges = Arc::new(Ranges { len, source: Mutex::new((source, None)) });
    let result = NcFile::from_storage(ranges.clone())
        .map_err(|e| damaged(&url, e))
        .and_then(|file| take(&file, header_of(&file, &url)?, form));
    let failed = ranges.source.lock().unwrap_or_else(PoisonError::into_inner).1.take();
    match failed {
        Some(source) => Err(ReadError::Fetch { url, source }),
        None => result,
    }
}

/// Length of an HDF5 file as its superblock has it ("HDF5 file format", II.A), for versions 0 to 3
/// with addresses of 8 bytes, which is what netCDF-C writes.
fn hdf5_end(start: &[u8]) -> Option<u64> {
    let (address_size, at) = match *start.get(8)? {
        0 => (13, 40),
        1 => (13, 44),
        2 | 3 => (9, 28),
        _ => return None,
    };
    let end = start.get(at..)?.first_chunk()?;
    (*start.get(address_size)? == 8).then(|| u64::from_le_bytes(*end))
}
