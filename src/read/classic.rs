//! Checks the header of a classic NetCDF file before the reading library parses it.
//!
//! The library allocates memory for all that the header claims, and does not compare the shape and
//! type of a variable with its size and offset. Specification: "NetCDF classic format
//! specification", CDF-1, CDF-2 and CDF-5.

use super::ReadError;
use super::bounds::implausible_header;

/// Longest name in bytes (NC_MAX_NAME of netCDF-C is 256 characters).
const LONGEST_NAME: u64 = 1024;
/// Largest number of dimensions of a variable, as in HDF5.
const HIGHEST_RANK: u64 = 32;
/// Largest number of dimensions, of variables, and of attributes of one object.
const MOST: u64 = 1 << 16;
/// Largest memory in bytes for the dimensions of all variables: the parser copies them for each.
const MOST_COPIED: u64 = 32 << 20;

/// Whether the bytes that were read contain the whole header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderExtent {
    /// The header ends inside the bytes.
    Whole,
    /// The header continues after the bytes.
    Longer,
}

/// The bytes of every attribute of type NC_CHAR, in the order of the file: global attributes first,
/// then those of the variables. `None` when the bytes do not contain the whole header.
pub(super) fn texts(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut header = Cursor::new(bytes);
    header.parse().ok()?;
    Some(header.texts)
}

/// Checks the header of a file of `len` bytes, whose first bytes are `bytes`.
///
/// # Errors
/// The header claims implausible amounts, or contradicts itself.
pub(super) fn check_header(bytes: &[u8], len: u64, url: &str) -> Result<HeaderExtent, ReadError> {
    let mut header = Cursor::new(bytes);
    match header.parse() {
        Ok(()) => {}
        Err(None) => return Ok(HeaderExtent::Longer),
        Err(Some(problem)) => return Err(implausible_header(url, problem)),
    }
    match header.contradiction(len) {
        None => Ok(HeaderExtent::Whole),
        Some((variable, problem)) => {
            Err(ReadError::Contradiction { url: url.to_owned(), variable, problem })
        }
    }
}

/// A parser of the header, with what it has parsed.
struct Cursor<'a> {
    /// Bytes that are not parsed yet.
    bytes: &'a [u8],
    /// Whether counts have 8 bytes (CDF-5) rather than 4.
    wide: bool,
    /// Bytes of an offset: 4 or 8.
    offset: usize,
    /// Number of records.
    records: u64,
    /// Lengths of the dimensions; 0 of the record dimension.
    dims: Vec<u64>,
    /// Variables, in the order of the header.
    variables: Vec<VariableEntry<'a>>,
    /// Bytes of the attributes of type NC_CHAR, in the order of the header.
    texts: Vec<&'a [u8]>,
}

/// A variable in the header; field names as in the specification.
struct VariableEntry<'a> {
    name: &'a [u8],
    /// Indexes into the list of dimensions.
    dims: Vec<u64>,
    nc_type: u64,
    /// Bytes of the data, or of one record of it.
    vsize: u64,
    /// Offset of the data in the file.
    begin: u64,
}

/// Why parsing stops: `None` at the end of the bytes, else an implausible claim of the header.
type HeaderEnd = Option<&'static str>;

/// Size in bytes and CDL name of a type.
fn type_info(nc_type: u64) -> (u64, &'static str) {
    match nc_type {
        1 => (1, "byte"),
        2 => (1, "char"),
        3 => (2, "short"),
        4 => (4, "int"),
        5 => (4, "float"),
        6 => (8, "double"),
        7 => (1, "ubyte"),
        8 => (2, "ushort"),
        9 => (4, "uint"),
        10 => (8, "int64"),
        11 => (8, "uint64"),
        _ => (8, "unknown"),
    }
}

/// `size` rounded up to a multiple of 4 bytes, as in the format.
fn padded(size: u64) -> u64 {
    size.div_ceil(4).saturating_mul(4)
}

impl<'a> Cursor<'a> {
    fn new(file: &'a [u8]) -> Self {
        let version = file.get(3).copied().unwrap_or_default();
        Self {
            bytes: file.get(4..).unwrap_or_default(),
            wide: version == 5,
            offset: if version == 1 { 4 } else { 8 },
            records: 0,
            dims: Vec::new(),
            variables: Vec::new(),
            texts: Vec::new(),
        }
    }

    fn parse(&mut self) -> Result<(), HeaderEnd> {
        self.records = self.count()?;
        let mut names = Vec::new();
        for _ in 0..self.list("more dimensions than any file has")? {
            names.push(self.name()?.len() as u64);
            let len = self.count()?;
            self.dims.push(len);
        }
        self.attributes()?;
        let mut copied = 0;
        for _ in 0..self.list("more variables than any file has")? {
            let name = self.name()?;
            let mut dims = Vec::new();
            for _ in 0..self.at_most(HIGHEST_RANK, "a variable with over 32 dimensions")? {
                let id = self.count()?;
                dims.push(id);
                let name = usize::try_from(id).ok().and_then(|id| names.get(id));
                copied += name.copied().unwrap_or_default() + 64;
            }
            if copied > MOST_COPIED {
                return Err(Some("more dimensions of variables than any file has"));
            }
            self.attributes()?;
            let nc_type = self.number(4)?;
            let (vsize, begin) = (self.count()?, self.number(self.offset)?);
            self.variables.push(VariableEntry { name, dims, nc_type, vsize, begin });
        }
        Ok(())
    }

    /// The name of a variable whose shape or type is damaged in the header, and the problem.
    ///
    /// A shape or type is damaged when `vsize` and the distance to the next variable agree with each
    /// other, but not with the size by shape and type. A wrong `vsize` alone is no damage: netCDF-C
    /// ignores it, and some programs write another value.
    fn contradiction(&self, file_len: u64) -> Option<(String, String)> {
        let record_dim = self.dims.iter().position(|&len| len == 0).map(|id| id as u64);
        let is_record =
            |v: &&VariableEntry| record_dim.is_some() && v.dims.first().copied() == record_dim;
        let (records, fixed): (Vec<_>, Vec<_>) = self.variables.iter().partition(is_record);
        let first_record = records.first().map_or(file_len, |v| v.begin);
        let record_size =
            file_len.saturating_sub(first_record).checked_div(self.records).unwrap_or_default();
        let record_end = first_record.saturating_add(record_size);
        for (list, end) in [(fixed, first_record), (records, record_end)] {
            let ends = list.iter().skip(1).map(|v| v.begin).chain([end]);
            for (variable, end) in list.iter().zip(ends) {
                let shape: Vec<u64> = self.shape(variable, record_dim)?;
                let (bytes, type_name) = type_info(variable.nc_type);
                let size = shape.iter().fold(bytes, |size, &len| size.saturating_mul(len));
                let distance = padded(end.saturating_sub(variable.begin));
                if distance != padded(variable.vsize) || distance == padded(size) {
                    continue;
                }
                let shape: Vec<_> = shape.iter().map(u64::to_string).collect();
                let shape = if shape.is_empty() { "1".to_owned() } else { shape.join(" x ") };
                let problem = format!(
                    "has {} bytes by its size and offset in the header, but {shape} values of type \
                     {type_name} by its dimensions and type there, which take {size} bytes",
                    variable.vsize
                );
                return Some((String::from_utf8_lossy(variable.name).into_owned(), problem));
            }
        }
        None
    }

    /// Lengths of the dimensions of a variable, without the record dimension. `None` when a dimension
    /// is not defined, which the library reports.
    fn shape(&self, variable: &VariableEntry, record_dim: Option<u64>) -> Option<Vec<u64>> {
        let dims = variable.dims.iter().filter(|&&id| Some(id) != record_dim);
        dims.map(|&id| self.dims.get(usize::try_from(id).ok()?).copied()).collect()
    }

    fn attributes(&mut self) -> Result<(), HeaderEnd> {
        for _ in 0..self.list("more attributes than any object has")? {
            self.name()?;
            let nc_type = self.number(4)?;
            let count = self.count()?;
            let start = self.bytes;
            self.skip(padded(count.saturating_mul(type_info(nc_type).0)))?;
            if nc_type == 2 {
                self.texts.extend(usize::try_from(count).ok().and_then(|len| start.get(..len)));
            }
        }
        Ok(())
    }

    /// Parses the tag and the number of entries of a list.
    fn list(&mut self, problem: &'static str) -> Result<u64, HeaderEnd> {
        match self.number(4)? {
            0 => self.count().map(|_| 0),
            _ => self.at_most(MOST, problem),
        }
    }

    fn name(&mut self) -> Result<&'a [u8], HeaderEnd> {
        let len = self.at_most(LONGEST_NAME, "a name of over 1,024 bytes")?;
        let start = self.bytes;
        self.skip(padded(len))?;
        Ok(start.get(..len as usize).unwrap_or_default())
    }

    fn at_most(&mut self, most: u64, problem: &'static str) -> Result<u64, HeaderEnd> {
        match self.count()? {
            count if count > most => Err(Some(problem)),
            count => Ok(count),
        }
    }

    fn count(&mut self) -> Result<u64, HeaderEnd> {
        self.number(if self.wide { 8 } else { 4 })
    }

    fn number(&mut self, len: usize) -> Result<u64, HeaderEnd> {
        let (number, rest) = self.bytes.split_at_checked(len).ok_or(None)?;
        self.bytes = rest;
        Ok(number.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn skip(&mut self, len: u64) -> Result<(), HeaderEnd> {
        let len = usize::try_from(len).map_err(|_| None)?;
        self.bytes = self.bytes.get(len..).ok_or(None)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    /// Bytes of the file: the header and 12 of data.
    const LEN: u64 = 100;

    /// CDF-2: one dimension `x` of 3, no attributes, one variable `v(x)`.
    fn header() -> Vec<u8> {
        let mut bytes = b"CDF\x02".to_vec();
        let name = |letter: u8| [0, 0, 0, 1, letter, 0, 0, 0];
        for number in [0u32, 10, 1] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(name(b'x'));
        for number in [3u32, 0, 0, 11, 1] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(name(b'v'));
        for number in [1u32, 0, 0, 0, 5, 12, 0, 88] {
            bytes.extend(number.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn a_header_is_whole_only_with_its_last_byte() {
        let whole = header();
        assert_eq!(check_header(&whole, LEN, "x.nc").unwrap(), HeaderExtent::Whole);
        for len in 4..whole.len() {
            let extent = check_header(&whole[..len], LEN, "x.nc").unwrap();
            assert_eq!(extent, HeaderExtent::Longer, "{len}");
        }
    }

    #[test]
    fn implausible_claims_are_rejected() {
        for (at, problem) in [(12, "dimensions"), (16, "name"), (40, "variables"), (52, "over 32")]
        {
            let mut bytes = header();
            bytes[at..at + 4].copy_from_slice(&(1u32 << 27).to_be_bytes());
            let error = check_header(&bytes, LEN, "x.nc").unwrap_err();
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains(problem), "{at}: {cause}");
        }
    }

    #[test]
    fn a_shape_or_type_that_contradicts_size_and_offset_is_rejected() {
        let check = |changes: &[(usize, u32)]| {
            let mut bytes = header();
            for &(at, value) in changes {
                bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
            check_header(&bytes, LEN, "x.nc").map_err(|e| e.to_string())
        };
        let (len, kind, vsize) = (24, 68, 72);
        for (changes, shape) in [
            (
                &[(len, 2)][..],
                "`v` has 12 bytes by its size and offset in the header, but 2 values of type float",
            ),
            (&[(kind, 3)], "3 values of type short"),
            (
                &[(kind, 6)],
                "3 values of type double by its dimensions and type there, which take 24 bytes",
            ),
        ] {
            let error = check(changes).unwrap_err();
            assert!(error.contains(shape), "{error}");
        }
        // `vsize` missing, wrong, and the value for variables above 4 GiB.
        for value in [0, 16, u32::MAX] {
            assert_eq!(check(&[(vsize, value)]), Ok(HeaderExtent::Whole), "{value}");
        }
    }
}
