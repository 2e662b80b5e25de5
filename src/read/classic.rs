//! A look over the header of a classic NetCDF file before it is parsed: the parser makes room for
//! what the header claims ("NetCDF classic format specification", CDF-1, CDF-2 and CDF-5).

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
pub(super) enum Extent {
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

/// Goes over a header; what is wrong with it when it claims more than any file has.
pub(super) fn look_over(bytes: &[u8]) -> Result<Extent, &'static str> {
    match Cursor::of(bytes).all() {
        Ok(()) => Ok(Extent::Whole),
        Err(None) => Ok(Extent::Longer),
        Err(Some(problem)) => Err(problem),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    /// Whether counts have 8 bytes.
    wide: bool,
    /// Bytes of an offset.
    offset: u64,
    /// Texts of attributes that were passed.
    texts: Vec<&'a [u8]>,
}

/// What ends the walk: the end of the bytes, or a claim that cannot be.
type Ended = Option<&'static str>;

impl<'a> Cursor<'a> {
    fn of(file: &'a [u8]) -> Self {
        let version = file.get(3).copied().unwrap_or_default();
        let (wide, offset) = (version == 5, if version == 1 { 4 } else { 8 });
        Self { bytes: file.get(4..).unwrap_or_default(), wide, offset, texts: Vec::new() }
    }

    fn all(&mut self) -> Result<(), Ended> {
        self.count()?;
        let mut names = Vec::new();
        for _ in 0..self.list("more dimensions than any file has")? {
            names.push(self.name()?);
            self.count()?;
        }
        self.attributes()?;
        let mut copied = 0;
        for _ in 0..self.list("more variables than any file has")? {
            self.name()?;
            for _ in 0..self.at_most(HIGHEST_RANK, "a variable with over 32 dimensions")? {
                let id = self.count()?;
                let name = usize::try_from(id).ok().and_then(|id| names.get(id));
                copied += name.copied().unwrap_or_default() + 64;
            }
            if copied > MOST_COPIED {
                return Err(Some("more dimensions of variables than any file has"));
            }
            self.attributes()?;
            self.skip(4)?;
            self.count()?;
            self.skip(self.offset)?;
        }
        Ok(())
    }

    fn attributes(&mut self) -> Result<(), Ended> {
        for _ in 0..self.list("more attributes than any object has")? {
            self.name()?;
            let kind = self.number(4)?;
            let size = match kind {
                1 | 2 | 7 => 1,
                3 | 8 => 2,
                4 | 5 | 9 => 4,
                _ => 8,
            };
            let count = self.count()?;
            let start = self.bytes;
            self.skip(count.saturating_mul(size).div_ceil(4).saturating_mul(4))?;
            if kind == 2 {
                self.texts.extend(usize::try_from(count).ok().and_then(|len| start.get(..len)));
            }
        }
        Ok(())
    }

    /// The number of entries of a list, behind its tag.
    fn list(&mut self, problem: &'static str) -> Result<u64, Ended> {
        match self.number(4)? {
            0 => self.count().map(|_| 0),
            _ => self.at_most(MOST, problem),
        }
    }

    /// Length of a name.
    fn name(&mut self) -> Result<u64, Ended> {
        let len = self.at_most(LONGEST_NAME, "a name of over 1,024 bytes")?;
        self.skip(len.next_multiple_of(4))?;
        Ok(len)
    }

    fn at_most(&mut self, most: u64, problem: &'static str) -> Result<u64, Ended> {
        match self.count()? {
            count if count > most => Err(Some(problem)),
            count => Ok(count),
        }
    }

    fn count(&mut self) -> Result<u64, Ended> {
        self.number(if self.wide { 8 } else { 4 })
    }

    fn number(&mut self, len: usize) -> Result<u64, Ended> {
        let (number, rest) = self.bytes.split_at_checked(len).ok_or(None)?;
        self.bytes = rest;
        Ok(number.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn skip(&mut self, len: u64) -> Result<(), Ended> {
        let len = usize::try_from(len).map_err(|_| None)?;
        self.bytes = self.bytes.get(len..).ok_or(None)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(look_over(&whole), Ok(Extent::Whole));
        for len in 4..whole.len() {
            assert_eq!(look_over(&whole[..len]), Ok(Extent::Longer), "{len}");
        }
    }

    #[test]
    fn claims_beyond_any_file_are_refused() {
        for (at, problem) in [(12, "dimensions"), (16, "name"), (40, "variables"), (52, "over 32")]
        {
            let mut bytes = header();
            bytes[at..at + 4].copy_from_slice(&(1u32 << 27).to_be_bytes());
            let refused = look_over(&bytes).unwrap_err();
            assert!(refused.contains(problem), "{at}: {refused}");
        }
    }
}
