//! What the first bytes say a file is.

use super::ReadError;

/// The signature of HDF5 ("HDF5 file format", version 3.0, II.A).
const HDF5: [u8; 8] = *b"\x89HDF\r\n\x1a\n";
/// The first place of the signature after the beginning of the file; each next one is twice as far.
const USER_BLOCK: u64 = 512;
/// The longest block before the signature that is looked for: a file of other bytes is read no further.
const LONGEST_USER_BLOCK: u64 = 1 << 20;

/// A format of NetCDF.
pub(super) enum NetcdfFormat {
    Classic,
    Netcdf4,
}

impl NetcdfFormat {
    /// Judges a file by its first bytes; `at` gives the eight bytes of a place beyond them, as far as the
    /// file has them, for HDF5 can begin with a block of the user's own.
    pub(super) fn of(
        start: &[u8],
        mut at: impl FnMut(u64) -> Option<[u8; 8]>,
        url: &str,
    ) -> Result<Self, ReadError> {
        match start {
            [b'C', b'D', b'F', 1 | 2 | 5, ..] => return Ok(Self::Classic),
            start if start.starts_with(&HDF5) => return Ok(Self::Netcdf4),
            [] => return Err(ReadError::Empty { url: url.to_owned() }),
            _ => {}
        }
        let places = std::iter::successors(Some(USER_BLOCK), |place| place.checked_mul(2));
        let mut places = places.take_while(|&place| place <= LONGEST_USER_BLOCK);
        if places.any(|place| at(place) == Some(HDF5)) {
            return Ok(Self::Netcdf4);
        }
        let start = String::from_utf8_lossy(&start[..start.len().min(16)]).into_owned();
        Err(ReadError::NotNetcdf { url: url.to_owned(), start })
    }
}
