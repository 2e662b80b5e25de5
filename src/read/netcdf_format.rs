//! Detects the NetCDF format of a file by its signature.

use super::ReadError;

/// The signature of HDF5 ("HDF5 file format", version 3.0, II.A).
const HDF5: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
/// Length of the smallest HDF5 user block in bytes; each larger one has twice the length.
const USER_BLOCK: u64 = 512;
/// Length of the largest user block after which the signature is searched, bytes.
const LONGEST_USER_BLOCK: u64 = 1 << 20;

/// A family of NetCDF formats.
pub(super) enum NetcdfFormat {
    /// CDF-1, CDF-2 or CDF-5.
    Classic,
    /// HDF5.
    Netcdf4,
}

impl NetcdfFormat {
    /// Detects the format of a file by `start`, its first bytes.
    ///
    /// `read_at` returns the 8 bytes at an offset, or `None` beyond the end of the file: HDF5 files
    /// can have a user block before the signature.
    pub(super) fn detect(
        start: &[u8],
        mut read_at: impl FnMut(u64) -> Option<[u8; 8]>,
        url: &str,
    ) -> Result<Self, ReadError> {
        match start {
            [b'C', b'D', b'F', 1 | 2 | 5, ..] => return Ok(Self::Classic),
            start if start.starts_with(&HDF5) => return Ok(Self::Netcdf4),
            [] => return Err(ReadError::Empty { url: url.to_owned() }),
            _ => {}
        }
        let offsets = std::iter::successors(Some(USER_BLOCK), |offset| offset.checked_mul(2));
        let mut offsets = offsets.take_while(|&offset| offset <= LONGEST_USER_BLOCK);
        if offsets.any(|offset| read_at(offset) == Some(HDF5)) {
            return Ok(Self::Netcdf4);
        }
        let start = String::from_utf8_lossy(&start[..start.len().min(16)]).into_owned();
        Err(ReadError::NotNetcdf { url: url.to_owned(), start })
    }
}
