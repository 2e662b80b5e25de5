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
use netcdf_reader::{NcAttrValue, NcAttribute, NcFile, NcOpenOptions, NcType};
use sha2::{Digest, Sha256};

use super::bounds::{LONGEST_HEADER, TOO_LONG, check_header, claims, guarded};
use super::form::Form;
use super::validate::Structure;
use super::{ReadError, Source, SourceError, classic, text, types};
use crate::model::YearMonth;
use crate::model::cf::{CfError, Decoding};
use crate::model::clock::Clock;
use crate::model::dataset::{
    Attribute, AttributeValue, ByteOrder, DataType, Dimension, Header, Variable,
};

/// A history file that is being read.
pub struct History {
    header: Header,
    layout: Layout,
    input: Input,
}

enum Layout {
    /// Position of each variable's data.
    Classic(Vec<Range<u64>>),
    Netcdf4(Box<NcFile>),
}

/// The source with the place reached in it and the digest of what has passed.
struct Input {
    source: Box<dyn Source>,
    position: u64,
    pending: Bytes,
    digest: Sha256,
    waiting: Duration,
    hashing: Duration,
}

impl Input {
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
    pub fn open(source: Box<dyn Source>) -> Result<Self, ReadError> {
        let url = source.url().to_owned();
        let mut input = Input {
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
        match Form::of(&start, at, &url)? {
            Form::Netcdf4 => return Self::open_netcdf4(start, input, url),
            Form::Classic => {}
        }
        let (file, prefix) = parse_header(start, &mut input, &url)?;
        let mut header = header_of(&file, &url)?;
        if text::is_replaced(&header) {
            text::recode_classic(&mut header, &prefix, &url);
        }
        input.pending = prefix;
        let positions = positions(&file, &header, &url, input.source.len())?;
        Ok(Self { header, layout: Layout::Classic(positions), input })
    }

    fn open_netcdf4(start: Bytes, mut input: Input, url: String) -> Result<Self, ReadError> {
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
        Ok(Self { header, layout: Layout::Netcdf4(Box::new(file)), input })
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
            Layout::Classic(_) => ByteOrder::Big,
            Layout::Netcdf4(_) => ByteOrder::Little,
        }
    }

    /// Variables in the order in which their data lies in the file.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.header.variables.len()).collect();
        if let Layout::Classic(positions) = &self.layout {
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
            Layout::Classic(positions) => {
                let range = positions[index].clone();
                if ahead || range.start < self.input.position {
                    let bytes = self.input.source.range(range);
                    sink(&bytes.map_err(|e| self.input.failed(e))?);
                    return Ok(());
                }
                self.input.take(range, sink)
            }
            Layout::Netcdf4(file) => {
                let (name, url) = (&self.header.variables[index].name, self.input.source.url());
                let read = || file.read_variable_native_bytes(name).map_err(|e| damaged(url, e));
                sink(&guarded(url, read)?);
                Ok(())
            }
        }
    }

    /// Reads what is left and gives the SHA-256 of the whole file, in hexadecimal.
    pub fn finish(mut self) -> Result<Finished, ReadError> {
        while self.input.fetch()?.is_some() {}
        let sha256 = crate::model::hex(&self.input.digest.finalize());
        Ok(Finished { sha256, waiting: self.input.waiting, hashing: self.input.hashing })
    }
}

/// What is known when a file has been read to its end.
#[derive(Debug)]
pub struct Finished {
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
    let clock = Clock::of(header, variable).map_err(meaning(url))?;
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

pub(super) fn damaged(url: &str, source: netcdf_reader::Error) -> ReadError {
    let url = url.to_owned();
    // The reader has no kind of its own for it.
    match source.to_string().contains("invalid UTF-8") {
        true => ReadError::NotUtf8 { url, source },
        false => ReadError::Damaged { url, source },
    }
}

/// Where the data of each variable of a classic file lies: all of it inside the file, fixed
/// variables before records, in the order of the header, as the format has it ("NetCDF classic
/// format specification", note on `begin`).
pub(super) fn positions(
    file: &NcFile,
    header: &Header,
    url: &str,
    len: u64,
) -> Result<Vec<Range<u64>>, ReadError> {
    let variables = file.variables().map_err(|e| damaged(url, e))?;
    let mut positions = Vec::new();
    let mut in_order = Vec::new();
    for (variable, own) in variables.iter().zip(&header.variables) {
        let is_record = variable.dimensions().first().is_some_and(|d| d.is_unlimited);
        // Of records the first: there is one, or the file is refused for that.
        let size = match own.dims.first().filter(|_| is_record).map(|time| time.len) {
            Some(0) => 0,
            Some(times) => (own.bytes() / times) as u64,
            None => own.bytes() as u64,
        };
        let start = variable.data_offset;
        let position = start..start.saturating_add(size);
        in_order.push((is_record, position.clone(), own));
        positions.push(position);
    }
    in_order.sort_by_key(|(is_record, ..)| *is_record);
    if let Some(pair) = in_order.windows(2).find(|pair| pair[1].1.start < pair[0].1.end) {
        let between = pair.iter().map(|(_, _, variable)| variable.name.clone()).collect();
        return Err(ReadError::Overlap { url: url.to_owned(), between });
    }
    let is_beyond = |position: &Range<u64>| !position.is_empty() && position.end > len;
    match in_order.iter().find(|(_, position, _)| is_beyond(position)) {
        None => Ok(positions),
        Some((_, position, variable)) => Err(ReadError::Truncated {
            url: url.to_owned(),
            variable: variable.name.clone(),
            needs: position.end,
            has: len,
        }),
    }
}

/// Parses the header from as many pieces as it needs; gives them back.
fn parse_header(start: Bytes, input: &mut Input, url: &str) -> Result<(NcFile, Bytes), ReadError> {
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
            return Err(damaged(url, error));
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

pub(super) fn header_of(file: &NcFile, url: &str) -> Result<Header, ReadError> {
    let mut variables = Vec::new();
    for variable in file.variables().map_err(|e| damaged(url, e))? {
        let dtype = match variable.dtype() {
            NcType::Char => DataType::Char,
            NcType::Byte => DataType::I8,
            NcType::Short => DataType::I16,
            NcType::Int => DataType::I32,
            NcType::Int64 => DataType::I64,
            NcType::UByte => DataType::U8,
            NcType::UShort => DataType::U16,
            NcType::UInt => DataType::U32,
            NcType::UInt64 => DataType::U64,
            NcType::Float => DataType::F32,
            NcType::Double => DataType::F64,
            other => return Err(types::unknown(url, variable.name(), other)),
        };
        let dims = variable
            .dimensions()
            .iter()
            .map(|d| Ok(Dimension { name: allowed(&d.name, url)?, len: d.size as usize }))
            .collect::<Result<_, ReadError>>()?;
        variables.push(Variable {
            name: allowed(variable.name(), url)?,
            dtype,
            dims,
            attributes: attributes_of(variable.attributes(), url)?,
        });
    }
    let attributes = file.global_attributes().map_err(|e| damaged(url, e))?;
    let attributes = attributes_of(attributes, url)?;
    let header = Header { variables, attributes };
    check_header(&header, url)?;
    Ok(header)
}

/// A name that may stand in a NetCDF file: anything else is damage, and netCDF-C would refuse it.
fn allowed(name: &str, url: &str) -> Result<String, ReadError> {
    if name.is_empty() || name.contains(|c: char| c.is_control() || c == '/') {
        return Err(ReadError::Name { url: url.to_owned(), name: name.to_owned() });
    }
    Ok(name.to_owned())
}

fn attributes_of(attributes: &[NcAttribute], url: &str) -> Result<Vec<Attribute>, ReadError> {
    attributes.iter().map(|a| attribute_of(a, url)).collect()
}

fn attribute_of(attribute: &NcAttribute, url: &str) -> Result<Attribute, ReadError> {
    let value = match &attribute.value {
        NcAttrValue::Chars(text) => AttributeValue::Text(text.clone()),
        NcAttrValue::Strings(texts) => AttributeValue::Texts(texts.clone()),
        NcAttrValue::Bytes(v) => AttributeValue::I8(v.clone()),
        NcAttrValue::Shorts(v) => AttributeValue::I16(v.clone()),
        NcAttrValue::Ints(v) => AttributeValue::I32(v.clone()),
        NcAttrValue::Int64s(v) => AttributeValue::I64(v.clone()),
        NcAttrValue::UBytes(v) => AttributeValue::U8(v.clone()),
        NcAttrValue::UShorts(v) => AttributeValue::U16(v.clone()),
        NcAttrValue::UInts(v) => AttributeValue::U32(v.clone()),
        NcAttrValue::UInt64s(v) => AttributeValue::U64(v.clone()),
        NcAttrValue::Floats(v) => AttributeValue::F32(v.clone()),
        NcAttrValue::Doubles(v) => AttributeValue::F64(v.clone()),
        NcAttrValue::UserDefined { dtype, .. } => {
            return Err(types::unknown(url, &attribute.name, dtype));
        }
    };
    Ok(Attribute { name: allowed(&attribute.name, url)?, value })
}
