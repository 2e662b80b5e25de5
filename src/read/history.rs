//! Reader of a monthly POP history file: CDF-1, CDF-2, CDF-5 or NetCDF-4.
//!
//! A classic file is read and hashed once, from the first byte to the last: the reader parses the
//! header as soon as its bytes have arrived, and passes on the data of each variable as it arrives.
//! The data of a NetCDF-4 file has no fixed order, so the reader keeps the whole file in memory, as it
//! is stored (compressed).

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hdf5_reader::{BytesStorage, Storage, StorageBuffer};
use netcdf_reader::{NcFile, NcOpenOptions};
use sha2::{Digest, Sha256};

use super::bounds::{LONGEST_HEADER, TOO_LONG, catch_reader_panic, implausible_header};
use super::header::{header_of, positions};
use super::netcdf_format::NetcdfFormat;
use super::validate::Structure;
use super::{ByteSource, ReadError, SourceError, classic, text};
use crate::model::YearMonth;
use crate::model::cf::{CfError, Decoding};
use crate::model::dataset::{ByteOrder, DataType, Header, Variable};
use crate::model::time_units::TimeUnits;

/// An open history file.
pub struct History {
    header: Header,
    layout: DataLayout,
    input: HashingSource,
}

enum DataLayout {
    /// Byte range of each variable's data.
    Classic(Vec<Range<u64>>),
    Netcdf4(Box<NcFile>),
}

/// A source that hashes the bytes of its sequential stream.
struct HashingSource {
    source: Box<dyn ByteSource>,
    /// Offset of the first byte of `pending` in the file.
    position: u64,
    /// Bytes that are fetched and hashed, but not consumed.
    pending: Bytes,
    digest: Sha256,
    waiting: Duration,
    hashing: Duration,
}

impl HashingSource {
    fn fetch_error(&self, source: SourceError) -> ReadError {
        ReadError::Fetch { url: self.source.url().to_owned(), source }
    }

    /// Fetches and hashes the next piece.
    fn fetch(&mut self) -> Result<Option<Bytes>, ReadError> {
        let start = Instant::now();
        let piece = self.source.next().map_err(|e| self.fetch_error(e))?;
        let fetched = Instant::now();
        if let Some(piece) = &piece {
            self.digest.update(piece);
        }
        self.waiting += fetched - start;
        self.hashing += fetched.elapsed();
        Ok(piece)
    }

    /// Skips the bytes before `range` and passes those inside it to `sink`.
    fn take(&mut self, range: Range<u64>, mut sink: impl FnMut(&[u8])) -> Result<(), ReadError> {
        while self.position < range.end {
            if self.pending.is_empty() {
                match self.fetch()? {
                    Some(piece) => self.pending = piece,
                    None => {
                        let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                        return Err(self.fetch_error(ended.into()));
                    }
                }
            }
            let end = if self.position < range.start { range.start } else { range.end };
            let len = self.pending.len().min((end - self.position) as usize);
            let bytes = self.pending.split_to(len);
            if self.position >= range.start {
                sink(&bytes);
            }
            self.position += len as u64;
        }
        Ok(())
    }
}

/// The first bytes of a file as storage of the reading library.
struct Prefix {
    bytes: Bytes,
    /// Length of the whole file.
    len: u64,
    /// Whether the library has requested bytes beyond the prefix.
    is_short: AtomicBool,
}

impl Storage for Prefix {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_range(
        &self,
        offset: u64,
        len: usize,
    ) -> Result<StorageBuffer, hdf5_reader::error::Error> {
        let range = range_within(offset, len, self.bytes.len() as u64)
            .inspect_err(|_| self.is_short.store(true, Ordering::Relaxed))?;
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        Ok(StorageBuffer::from_vec(bytes.to_vec()))
    }
}

impl History {
    /// Opens a file: reads and checks its header; of a NetCDF-4 file, reads all bytes.
    ///
    /// # Errors
    /// The file cannot be fetched, is not NetCDF, is damaged or truncated, or contains objects that a
    /// conversion would lose.
    pub fn open(source: Box<dyn ByteSource>) -> Result<Self, ReadError> {
        let url = source.url().to_owned();
        let mut input = HashingSource {
            source,
            position: 0,
            pending: Bytes::new(),
            digest: Sha256::new(),
            waiting: Duration::ZERO,
            hashing: Duration::ZERO,
        };
        let start = input.fetch()?.unwrap_or_default();
        let read_at = |offset: u64| {
            let end = offset.checked_add(8).filter(|&end| end <= input.source.len())?;
            input.source.range(offset..end).ok()?.first_chunk().copied()
        };
        match NetcdfFormat::detect(&start, read_at, &url)? {
            NetcdfFormat::Netcdf4 => return Self::open_netcdf4(start, input, url),
            NetcdfFormat::Classic => {}
        }
        let (file, prefix) = parse_header(start, &mut input, &url)?;
        let mut header = header_of(&file, &url)?;
        if text::has_replacement_characters(&header) {
            text::recode_classic(&mut header, &prefix, &url);
        }
        input.pending = prefix;
        let positions = positions(&file, &header, &url, input.source.len())?;
        Ok(Self { header, layout: DataLayout::Classic(positions), input })
    }

    fn open_netcdf4(
        start: Bytes,
        mut input: HashingSource,
        url: String,
    ) -> Result<Self, ReadError> {
        let mut whole = Vec::new();
        let reserved = whole.try_reserve_exact(input.source.len() as usize);
        reserved.map_err(|e| input.fetch_error(e.into()))?;
        whole.extend_from_slice(&start);
        while let Some(piece) = input.fetch()? {
            whole.extend_from_slice(&piece);
        }
        let whole = Bytes::from(whole);
        let (file, header) = catch_reader_panic(&url, || {
            let storage = Arc::new(BytesStorage::from_owner(whole.clone()));
            let structure = Structure::open(&whole, storage.clone(), &url)?;
            structure.refuse_groups()?;
            let options = || NcOpenOptions {
                max_chunk_bytes: u32::MAX as usize,
                max_object_header_bytes: LONGEST_HEADER,
                ..NcOpenOptions::default()
            };
            let (file, mut header) = text::open(storage, options, &url)?;
            structure.complete_texts(&mut header);
            structure.compare_shapes(&header)?;
            structure.check_all(&header)?;
            structure.warn_of_losses();
            Ok((file, header))
        })?;
        Ok(Self { header, layout: DataLayout::Netcdf4(Box::new(file)), input })
    }

    /// Dimensions, variables and attributes of the file.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Path or URL of the file, for messages.
    pub fn url(&self) -> &str {
        self.input.source.url()
    }

    /// Byte order of the data that [`Self::read`] returns.
    pub fn byte_order(&self) -> ByteOrder {
        match self.layout {
            DataLayout::Classic(_) => ByteOrder::Big,
            DataLayout::Netcdf4(_) => ByteOrder::Little,
        }
    }

    /// Indexes of the variables in the order of their data in the file.
    pub fn data_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.header.variables.len()).collect();
        if let DataLayout::Classic(positions) = &self.layout {
            order.sort_by_key(|&i| positions[i].start);
        }
        order
    }

    /// Passes the data of the variable at `index` to `sink`, in pieces.
    ///
    /// The data of a classic file comes from the sequential stream. When the stream is past the
    /// variable, or with `ahead`, the reader fetches the variable with a separate request.
    ///
    /// # Errors
    /// The bytes cannot be fetched, or the data is damaged.
    pub fn read(
        &mut self,
        index: usize,
        ahead: bool,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        match &self.layout {
            DataLayout::Classic(positions) => {
                let range = positions[index].clone();
                if ahead || range.start < self.input.position {
                    let bytes = self.input.source.range(range);
                    sink(&bytes.map_err(|e| self.input.fetch_error(e))?);
                    return Ok(());
                }
                self.input.take(range, sink)
            }
            DataLayout::Netcdf4(file) => {
                let (name, url) = (&self.header.variables[index].name, self.input.source.url());
                let read = || {
                    file.read_variable_native_bytes(name).map_err(|e| ReadError::damaged(url, e))
                };
                sink(&catch_reader_panic(url, read)?);
                Ok(())
            }
        }
    }

    /// Reads the file to its end and returns its SHA-256.
    ///
    /// # Errors
    /// The bytes cannot be fetched.
    pub fn finish(mut self) -> Result<ReadSummary, ReadError> {
        while self.input.fetch()?.is_some() {}
        let sha256 = crate::model::hex(&self.input.digest.finalize());
        Ok(ReadSummary { sha256, waiting: self.input.waiting, hashing: self.input.hashing })
    }
}

/// Checksum and timing of a file that was read to its end.
#[derive(Debug)]
pub struct ReadSummary {
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Time spent waiting for bytes.
    pub waiting: Duration,
    /// Time spent hashing bytes.
    pub hashing: Duration,
}

/// Converts the bytes of a numeric variable, as [`History::read`] returns them, to f64.
pub fn to_f64(bytes: &[u8], dtype: DataType, order: ByteOrder) -> Vec<f64> {
    macro_rules! values {
        ($type:ty, $n:literal) => {
            bytes
                .as_chunks::<$n>()
                .0
                .iter()
                .map(|&b| match order {
                    ByteOrder::Big => <$type>::from_be_bytes(b) as f64,
                    ByteOrder::Little => <$type>::from_le_bytes(b) as f64,
                })
                .collect()
        };
    }
    match dtype {
        DataType::Char | DataType::I8 => bytes.iter().map(|&b| f64::from(b as i8)).collect(),
        DataType::I16 => values!(i16, 2),
        DataType::I32 => values!(i32, 4),
        DataType::I64 => values!(i64, 8),
        DataType::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
        DataType::U16 => values!(u16, 2),
        DataType::U32 => values!(u32, 4),
        DataType::U64 => values!(u64, 8),
        DataType::F32 => values!(f32, 4),
        DataType::F64 => values!(f64, 8),
    }
}

/// Decodes stored numbers of the time or its bounds to days since 0000-01-01, noleap calendar.
///
/// # Errors
/// The units, the calendar or the packing of the variable is invalid.
pub fn days(
    header: &Header,
    variable: &Variable,
    stored: Vec<f64>,
    url: &str,
) -> Result<Vec<f64>, ReadError> {
    let time_units = TimeUnits::of(header, variable).map_err(decoding_error(url))?;
    let decoding = Decoding::without_units(variable).map_err(decoding_error(url))?;
    Ok(decoding.values(stored).into_iter().map(|value| time_units.days(value)).collect())
}

/// Adds the name of the file to a [`CfError`].
pub(super) fn decoding_error(url: &str) -> impl Fn(CfError) -> ReadError + '_ {
    |source| ReadError::Meaning { url: url.to_owned(), source }
}

/// The month of a file, and its bounds in days, from the values of `time_bound`.
///
/// # Errors
/// The bounds are not two numbers that enclose exactly one month of the noleap calendar.
pub fn month_of(url: &str, bounds: &[f64]) -> Result<(YearMonth, [f64; 2]), ReadError> {
    let &[start, end] = bounds else {
        return Err(ReadError::Missing {
            url: url.to_owned(),
            variable: "time_bound".to_owned(),
            shape: "(time = 1, d2 = 2)".to_owned(),
        });
    };
    let invalid = |why| ReadError::Value {
        url: url.to_owned(),
        variable: "time_bound".to_owned(),
        value: format!("{start}, {end}"),
        why,
    };
    let month = YearMonth::containing(f64::midpoint(start, end))
        .ok_or_else(|| invalid("is outside the noleap calendar"))?;
    let first = month.first_day() as f64;
    if (start, end) != (first, first + f64::from(month.days())) {
        return Err(invalid("is not one whole month of the noleap calendar"));
    }
    Ok((month, [start, end]))
}

/// The range of `len` bytes at `offset`, when it lies inside a file of `file_len` bytes.
pub(super) fn range_within(offset: u64, len: usize, file_len: u64) -> io::Result<Range<u64>> {
    let end = offset.checked_add(len as u64).filter(|&end| end <= file_len);
    end.map(|end| offset..end).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Parses the header of a classic file; returns the bytes that were fetched for it, too.
fn parse_header(
    start: Bytes,
    input: &mut HashingSource,
    url: &str,
) -> Result<(NcFile, Bytes), ReadError> {
    let mut prefix = start;
    loop {
        classic::check_header(&prefix, input.source.len(), url)?;
        let storage = Arc::new(Prefix {
            bytes: prefix.clone(),
            len: input.source.len(),
            is_short: AtomicBool::new(false),
        });
        let error = match NcFile::from_storage(storage.clone()) {
            Ok(file) => return Ok((file, prefix)),
            Err(error) => error,
        };
        if !storage.is_short.load(Ordering::Relaxed) {
            return Err(ReadError::damaged(url, error));
        }
        if prefix.len() > LONGEST_HEADER {
            return Err(implausible_header(url, TOO_LONG));
        }
        match input.fetch()? {
            Some(piece) => {
                let mut longer = BytesMut::from(prefix);
                longer.extend_from_slice(&piece);
                prefix = longer.freeze();
            }
            None => {
                let has = input.source.len();
                let variable = "header".to_owned();
                return Err(ReadError::Truncated {
                    url: url.into(),
                    variable,
                    needs: has + 1,
                    has,
                });
            }
        }
    }
}
