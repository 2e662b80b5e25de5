//! A monthly POP history file: CDF-1, CDF-2, CDF-5 or NetCDF-4.
//!
//! The classic formats are read once, from the first byte to the last, and hashed on the way: the
//! header is parsed as soon as it is there and every variable is handed out as its bytes pass. A
//! NetCDF-4 file has no such order, so it is held in memory as it is stored (compressed).

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hdf5_reader::{BytesStorage, Storage, StorageBuffer};
use netcdf_reader::{NcFile, NcOpenOptions};
use sha2::{Digest, Sha256};

use super::bounds::{LONGEST_HEADER, TOO_LONG, claims, guarded};
use super::header::{header_of, positions};
use super::netcdf_format::NetcdfFormat;
use super::validate::Structure;
use super::{ByteSource, ReadError, SourceError, classic, text};
use crate::model::YearMonth;
use crate::model::cf::{CfError, Decoding};
use crate::model::dataset::{ByteOrder, DataType, Header, Variable};
use crate::model::time_units::TimeUnits;

/// A history file that is being read.
pub struct History {
    header: Header,
    layout: DataLayout,
    input: HashingSource,
}

enum DataLayout {
    /// Position of each variable's data.
    Classic(Vec<Range<u64>>),
    Netcdf4(Box<NcFile>),
}

/// The source with the place reached in it and the digest of what has passed.
struct HashingSource {
    source: Box<dyn ByteSource>,
    position: u64,
    pending: Bytes,
    digest: Sha256,
    waiting: Duration,
    hashing: Duration,
}

impl HashingSource {
    fn failed(&self, source: SourceError) -> ReadError {
        ReadError::Fetch { url: self.source.url().to_owned(), source }
    }

    /// The next piece in order, hashed.
    fn fetch(&mut self) -> Result<Option<Bytes>, ReadError> {
        let start = Instant::now();
        let piece = self.source.next().map_err(|e| self.failed(e))?;
        let fetched = Instant::now();
        if let Some(piece) = &piece {
            self.digest.update(piece);
        }
        self.waiting += fetched - start;
        self.hashing += fetched.elapsed();
        Ok(piece)
    }

    /// Passes over bytes up to `range` and hands out those inside it.
    fn take(&mut self, range: Range<u64>, mut sink: impl FnMut(&[u8])) -> Result<(), ReadError> {
        while self.position < range.end {
            if self.pending.is_empty() {
                match self.fetch()? {
                    Some(piece) => self.pending = piece,
                    None => {
                        let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                        return Err(self.failed(ended.into()));
                    }
                }
            }
            let goal = if self.position < range.start { range.start } else { range.end };
            let len = self.pending.len().min((goal - self.position) as usize);
            let bytes = self.pending.split_to(len);
            if self.position >= range.start {
                sink(&bytes);
            }
            self.position += len as u64;
        }
        Ok(())
    }
}

/// The first bytes of a longer file; notes when more were asked for.
struct Prefix {
    bytes: Bytes,
    len: u64,
    short: AtomicBool,
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
            .inspect_err(|_| self.short.store(true, Ordering::Relaxed))?;
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        Ok(StorageBuffer::from_vec(bytes.to_vec()))
    }
}

impl History {
    /// Reads and checks the header.
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
        let at = |offset: u64| {
            let end = offset.checked_add(8).filter(|&end| end <= input.source.len())?;
            input.source.range(offset..end).ok()?.first_chunk().copied()
        };
        match NetcdfFormat::of(&start, at, &url)? {
            NetcdfFormat::Netcdf4 => return Self::open_netcdf4(start, input, url),
            NetcdfFormat::Classic => {}
        }
        let (file, prefix) = parse_header(start, &mut input, &url)?;
        let mut header = header_of(&file, &url)?;
        if text::is_replaced(&header) {
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
        let room = whole.try_reserve_exact(input.source.len() as usize);
        room.map_err(|e| input.failed(e.into()))?;
        whole.extend_from_slice(&start);
        while let Some(piece) = input.fetch()? {
            whole.extend_from_slice(&piece);
        }
        let whole = Bytes::from(whole);
        let (file, header) = guarded(&url, || {
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
            structure.tell_left_out();
            Ok((file, header))
        })?;
        Ok(Self { header, layout: DataLayout::Netcdf4(Box::new(file)), input })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Name for messages.
    pub fn url(&self) -> &str {
        self.input.source.url()
    }

    /// Order of the bytes that [`Self::read`] hands out.
    pub fn byte_order(&self) -> ByteOrder {
        match self.layout {
            DataLayout::Classic(_) => ByteOrder::Big,
            DataLayout::Netcdf4(_) => ByteOrder::Little,
        }
    }

    /// Variables in the order in which their data lies in the file.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.header.variables.len()).collect();
        if let DataLayout::Classic(positions) = &self.layout {
            order.sort_by_key(|&i| positions[i].start);
        }
        order
    }

    /// Hands out the data of a variable, in pieces.
    ///
    /// A variable that the reading has passed already, or that is read `ahead` of its turn, is
    /// fetched by a request of its own.
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
                    sink(&bytes.map_err(|e| self.input.failed(e))?);
                    return Ok(());
                }
                self.input.take(range, sink)
            }
            DataLayout::Netcdf4(file) => {
                let (name, url) = (&self.header.variables[index].name, self.input.source.url());
                let read = || {
                    file.read_variable_native_bytes(name).map_err(|e| ReadError::damaged(url, e))
                };
                sink(&guarded(url, read)?);
                Ok(())
            }
        }
    }

    /// Reads what is left and gives the SHA-256 of the whole file, in hexadecimal.
    pub fn finish(mut self) -> Result<ReadSummary, ReadError> {
        while self.input.fetch()?.is_some() {}
        let sha256 = crate::model::hex(&self.input.digest.finalize());
        Ok(ReadSummary { sha256, waiting: self.input.waiting, hashing: self.input.hashing })
    }
}

/// What is known when a file has been read to its end.
#[derive(Debug)]
pub struct ReadSummary {
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Time spent waiting for bytes.
    pub waiting: Duration,
    /// Time spent hashing them.
    pub hashing: Duration,
}

/// Values of a numeric variable as f64, from bytes that [`History::read`] handed out.
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

/// The numbers of a time variable or its bounds in days since 0000-01-01 of the noleap calendar.
pub fn days(
    header: &Header,
    variable: &Variable,
    stored: Vec<f64>,
    url: &str,
) -> Result<Vec<f64>, ReadError> {
    let clock = TimeUnits::of(header, variable).map_err(meaning(url))?;
    let decoding = Decoding::without_units(variable).map_err(meaning(url))?;
    Ok(decoding.values(stored).into_iter().map(|value| clock.days(value)).collect())
}

/// Names the file whose numbers have no certain meaning.
pub(super) fn meaning(url: &str) -> impl Fn(CfError) -> ReadError + '_ {
    |source| ReadError::Meaning { url: url.to_owned(), source }
}

/// The month that a file stands for and its bounds in days, from the values of `time_bound`.
pub fn month_of(url: &str, bounds: &[f64]) -> Result<(YearMonth, [f64; 2]), ReadError> {
    let &[start, end] = bounds else {
        return Err(ReadError::Missing {
            url: url.to_owned(),
            variable: "time_bound".to_owned(),
            shape: "(time = 1, d2 = 2)".to_owned(),
        });
    };
    let wrong = |why| ReadError::Value {
        url: url.to_owned(),
        variable: "time_bound".to_owned(),
        value: format!("{start}, {end}"),
        why,
    };
    let month = YearMonth::containing(f64::midpoint(start, end))
        .ok_or_else(|| wrong("is no time of the noleap calendar"))?;
    let first = month.first_day() as f64;
    if (start, end) != (first, first + f64::from(month.days())) {
        return Err(wrong("is not one whole month of the noleap calendar"));
    }
    Ok((month, [start, end]))
}

/// The range that is asked for, when the file has it.
pub(super) fn range_within(offset: u64, len: usize, file: u64) -> io::Result<Range<u64>> {
    let end = offset.checked_add(len as u64).filter(|&end| end <= file);
    end.map(|end| offset..end).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Parses the header from as many pieces as it needs; gives them back.
fn parse_header(
    start: Bytes,
    input: &mut HashingSource,
    url: &str,
) -> Result<(NcFile, Bytes), ReadError> {
    let mut prefix = start;
    loop {
        classic::look_over(&prefix, input.source.len(), url)?;
        let storage = Arc::new(Prefix {
            bytes: prefix.clone(),
            len: input.source.len(),
            short: AtomicBool::new(false),
        });
        let error = match NcFile::from_storage(storage.clone()) {
            Ok(file) => return Ok((file, prefix)),
            Err(error) => error,
        };
        if !storage.short.load(Ordering::Relaxed) {
            return Err(ReadError::damaged(url, error));
        }
        if prefix.len() > LONGEST_HEADER {
            return Err(claims(url, TOO_LONG));
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
