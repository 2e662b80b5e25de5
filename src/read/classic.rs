//! A look over the header of a classic NetCDF file before it is parsed: the parser makes room for
//! what the header claims ("NetCDF classic format specification", CDF-1, CDF-2 and CDF-5), and takes
//! the shape and type of a variable for true that its size and place contradict.

use super::ReadError;
use super::bounds::claims;

/// Names are at most this long (NC_MAX_NAME of netCDF-C is 256 characters).
const LONGEST_NAME: u64 = 1024;
/// Dimensions of a variable, as HDF5 allows them.
const HIGHEST_RANK: u64 = 32;
/// Dimensions, variables, or attributes of one object.
const MOST: u64 = 1 << 16;
/// Bytes that the parser may take for the dimensions of all variables, which it copies.
const MOST_COPIED: u64 = 32 << 20;

/// How far a header goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderExtent {
    /// The bytes hold all of it.
    Whole,
    /// It goes on after the bytes.
    Longer,
}

/// The bytes of every attribute of type NC_CHAR, in the order of the file: its own, then those of
/// its variables. `None` when the bytes do not hold the whole header.
pub(super) fn texts(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut header = Cursor::of(bytes);
    header.all().ok()?;
    Some(header.texts)
}

/// Goes over the header of a file of `len` bytes; an error when it claims more than any file has, or
/// contradicts itself.
pub(super) fn look_over(bytes: &[u8], len: u64, url: &str) -> Result<HeaderExtent, ReadError> {
    let mut header = Cursor::of(bytes);
    match header.all() {
        Ok(()) => {}
        Err(None) => return Ok(HeaderExtent::Longer),
        Err(Some(problem)) => return Err(claims(url, problem)),
    }
    match header.contradiction(len) {
        None => Ok(HeaderExtent::Whole),
        Some((variable, problem)) => {
            Err(ReadError::Contradiction { url: url.to_owned(), variable, problem })
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    /// Whether counts have 8 bytes.
    wide: bool,
    /// Bytes of an offset.
    offset: usize,
    /// Number of records.
    records: u64,
    /// Lengths of the dimensions that were passed; 0 of records.
    dims: Vec<u64>,
    /// Variables that were passed.
    variables: Vec<VariableEntry<'a>>,
    /// Texts of attributes that were passed.
    texts: Vec<&'a [u8]>,
}

/// What the header says of a variable.
struct VariableEntry<'a> {
    name: &'a [u8],
    /// Places in the list of dimensions.
    dims: Vec<u64>,
    kind: u64,
    /// Bytes of it, or of one record of it.
    vsize: u64,
    /// Where they begin.
    begin: u64,
}

/// What ends the walk: the end of the bytes, or a claim that cannot be.
type HeaderEnd = Option<&'static str>;

/// Bytes of a value of a type, and its name in CDL.
fn kind_of(kind: u64) -> (u64, &'static str) {
    match kind {
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

/// Data of variables begins at multiples of 4 bytes.
fn padded(size: u64) -> u64 {
    size.div_ceil(4).saturating_mul(4)
}

impl<'a> Cursor<'a> {
    fn of(file: &'a [u8]) -> Self {
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

    fn all(&mut self) -> Result<(), HeaderEnd> {
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
            let (kind, vsize, begin) = (self.number(4)?, self.count()?, self.number(self.offset)?);
            self.variables.push(VariableEntry { name, dims, kind, vsize, begin });
        }
        Ok(())
    }

    /// A variable whose shape and type are not what they were when the file was written, and how
    /// that shows: its size and the room up to the next variable agree with each other, but not
    /// with them. A size that alone is wrong is no damage: netCDF-C pays no heed to it, and some
    /// programs write another one.
    fn contradiction(&self, file: u64) -> Option<(String, String)> {
        let record = self.dims.iter().position(|&len| len == 0).map(|id| id as u64);
        let is_record = |v: &&VariableEntry| record.is_some() && v.dims.first().copied() == record;
        let (records, fixed): (Vec<_>, Vec<_>) = self.variables.iter().partition(is_record);
        let first = records.first().map_or(file, |v| v.begin);
        // All records have one size.
        let of_record = file.saturating_sub(first).checked_div(self.records).unwrap_or_default();
        for (list, end) in [(fixed, first), (records, first.saturating_add(of_record))] {
            let ends = list.iter().skip(1).map(|v| v.begin).chain([end]);
            for (variable, end) in list.iter().zip(ends) {
                let shape: Vec<u64> = self.shape(variable, record)?;
                let (bytes, kind) = kind_of(variable.kind);
                let size = shape.iter().fold(bytes, |size, &len| size.saturating_mul(len));
                let room = padded(end.saturating_sub(variable.begin));
                if room != padded(variable.vsize) || room == padded(size) {
                    continue;
                }
                let shape: Vec<_> = shape.iter().map(u64::to_string).collect();
                let shape = if shape.is_empty() { "1".to_owned() } else { shape.join(" x ") };
                let problem = format!(
                    "has {} bytes by the size and the place that its header gives, but {shape} \
                     values of type {kind} by its dimensions and type there, which take {size}",
                    variable.vsize
                );
                return Some((String::from_utf8_lossy(variable.name).into_owned(), problem));
            }
        }
        None
    }

    /// Lengths of the dimensions of a variable; of one record, if it has records. `None` when it
    /// has a dimension that is not there, which the parser refuses.
    fn shape(&self, variable: &VariableEntry, record: Option<u64>) -> Option<Vec<u64>> {
        let dims = variable.dims.iter().filter(|&&id| Some(id) != record);
        dims.map(|&id| self.dims.get(usize::try_from(id).ok()?).copied()).collect()
    }

    fn attributes(&mut self) -> Result<(), HeaderEnd> {
        for _ in 0..self.list("more attributes than any object has")? {
            self.name()?;
            let kind = self.number(4)?;
            let count = self.count()?;
            let start = self.bytes;
            self.skip(padded(count.saturating_mul(kind_of(kind).0)))?;
            if kind == 2 {
                self.texts.extend(usize::try_from(count).ok().and_then(|len| start.get(..len)));
            }
        }
        Ok(())
    }

    /// The number of entries of a list, behind its tag.
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
    fn a_header_is_whole_at_its_last_byte() {
        let whole = header();
        assert_eq!(look_over(&whole, LEN, "x.nc").unwrap(), HeaderExtent::Whole);
        for len in 4..whole.len() {
            let extent = look_over(&whole[..len], LEN, "x.nc").unwrap();
            assert_eq!(extent, HeaderExtent::Longer, "{len}");
        }
    }

    #[test]
    fn claims_beyond_any_file_are_refused() {
        for (at, problem) in [(12, "dimensions"), (16, "name"), (40, "variables"), (52, "over 32")]
        {
            let mut bytes = header();
            bytes[at..at + 4].copy_from_slice(&(1u32 << 27).to_be_bytes());
            let refused = look_over(&bytes, LEN, "x.nc").unwrap_err();
            let cause = refused.source().unwrap().to_string();
            assert!(cause.contains(problem), "{at}: {cause}");
        }
    }

    #[test]
    fn a_shape_or_type_that_size_and_place_contradict_is_refused() {
        let put = |changes: &[(usize, u32)]| {
            let mut bytes = header();
            for &(at, value) in changes {
                bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
            look_over(&bytes, LEN, "x.nc").map_err(|e| e.to_string())
        };
        let (len, kind, vsize) = (24, 68, 72);
        for (changes, shape) in [
            (
                &[(len, 2)][..],
                "`v` has 12 bytes by the size and the place that its header gives, but 2 values of type float",
            ),
            (&[(kind, 3)], "3 values of type short"),
            (
                &[(kind, 6)],
                "3 values of type double by its dimensions and type there, which take 24",
            ),
        ] {
            let refused = put(changes).unwrap_err();
            assert!(refused.contains(shape), "{refused}");
        }
        // A size that alone is wrong or missing, and one that is too large to be told.
        for value in [0, 16, u32::MAX] {
            assert_eq!(put(&[(vsize, value)]), Ok(HeaderExtent::Whole), "{value}");
        }
    }
}
