//! A NetCDF file that is read by range: no byte is fetched that nobody asks for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hdf5_reader::{Storage, StorageBuffer};
use netcdf_reader::{NcFile, NcOpenOptions, NcSliceInfo, NcSliceInfoElem};

use super::bounds::{self, LONGEST_HEADER, TOO_LONG, claims, guarded};
use super::classic;
use super::filters::registry;
use super::header::positions;
use super::history::{self, meaning, range_within};
use super::netcdf_format::NetcdfFormat;
use super::validate::Structure;
use super::{ByteSource, ReadError, SourceError, text};
use crate::model::cf::Decoding;
use crate::model::dataset::{DataType, Header, Variable};
use crate::model::time_units;

/// More bytes than an HDF5 superblock has up to its end-of-file address.
const SUPERBLOCK: u64 = 64;
/// What is fetched at a time: most of a header, and little beside it.
const BLOCK: u64 = 64 << 10;
/// Blocks that are kept: more than any header has.
const MOST_BLOCKS: usize = 256;

/// An open file: its header is read, its variables are when they are asked for.
pub struct RangeReader {
    url: String,
    file: NcFile,
    header: Header,
    ranges: Arc<RangeStorage>,
    /// What an HDF5 file declares.
    structure: Option<Structure>,
    /// Bytes of a chunk of the variable that is being read.
    size: Arc<AtomicUsize>,
}

impl RangeReader {
    /// Reads and checks the header; of a classic file also that its data is all there.
    pub fn open(source: Box<dyn ByteSource>) -> Result<Self, ReadError> {
        let url = source.url().to_owned();
        let len = source.len();
        let state = BlockCache { source, blocks: HashMap::new(), failed: None };
        let ranges =
            Arc::new(RangeStorage { len, state: Mutex::new(state), fetched: AtomicU64::new(0) });
        let size = Arc::<AtomicUsize>::default();
        let opened = guarded(&url, || Self::open_ranges(&ranges, &url, size.clone()));
        let (file, header, structure) = ranges.settle(&url, opened)?;
        Ok(Self { url, file, header, ranges, structure, size })
    }

    fn open_ranges(
        ranges: &Arc<RangeStorage>,
        url: &str,
        size: Arc<AtomicUsize>,
    ) -> Result<(NcFile, Header, Option<Structure>), ReadError> {
        let start = ranges.read(0..ranges.len.min(SUPERBLOCK));
        let start = start.map_err(|e| ReadError::damaged(url, e.into()))?;
        let at = |offset: u64| {
            let end = offset.checked_add(8).filter(|&end| end <= ranges.len)?;
            ranges.read(offset..end).ok()?.first_chunk().copied()
        };
        let form = NetcdfFormat::of(&start, at, url)?;
        let structure = match form {
            NetcdfFormat::Netcdf4 => Some(Structure::open(&start, ranges.clone(), url)?),
            NetcdfFormat::Classic => ranges.look_over_header(url).map(|()| None)?,
        };
        let options = || NcOpenOptions {
            filter_registry: Some(registry(size.clone())),
            // Every variable is read once.
            chunk_cache_bytes: 0,
            max_object_header_bytes: LONGEST_HEADER,
            ..NcOpenOptions::default()
        };
        let (file, mut header) = text::open(ranges.clone(), options, url)?;
        match &structure {
            Some(structure) => {
                structure.complete_texts(&mut header);
                structure.compare_shapes(&header)?;
            }
            None => drop(positions(&file, &header, url, ranges.len)?),
        }
        Ok((file, header, structure))
    }

    /// Checks that a file to convert has nothing in groups and that all its data is there.
    pub(super) fn check_all(&self) -> Result<(), ReadError> {
        let Some(structure) = &self.structure else { return Ok(()) };
        let checked = guarded(&self.url, || {
            structure.refuse_groups()?;
            structure.check_all(&self.header)?;
            structure.tell_left_out();
            Ok(())
        });
        self.ranges.settle(&self.url, checked)
    }

    /// Bytes of memory that the conversion of the file takes.
    pub(super) fn memory(&self) -> u64 {
        match self.structure {
            // The file in memory and its largest variable take less than the raw file.
            None => self.ranges.len,
            Some(_) => bounds::memory(&self.header, self.ranges.len),
        }
    }

    /// Refuses a variable with more values than can be meant, before it is read.
    pub fn at_most(&self, name: &str, most: usize) -> Result<(), ReadError> {
        match self.header.variable(name).map(Variable::len) {
            Some(found) if found > most => {
                let (url, variable) = (self.url.clone(), name.to_owned());
                Err(ReadError::TooMany { url, variable, found, most })
            }
            _ => Ok(()),
        }
    }

    /// Reads from a variable of which all data is there.
    fn read<T>(
        &self,
        variable: &Variable,
        read: impl FnOnce(&NcFile) -> Result<T, netcdf_reader::Error>,
    ) -> Result<T, ReadError> {
        let values = guarded(&self.url, || {
            let size = match &self.structure {
                Some(structure) => structure.place(variable)?.chunk,
                None => variable.bytes(),
            };
            self.size.store(size, Ordering::Relaxed);
            read(&self.file).map_err(|e| ReadError::damaged(&self.url, e))
        });
        self.ranges.settle(&self.url, values)
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Name for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Bytes fetched so far.
    pub fn fetched(&self) -> u64 {
        self.ranges.fetched.load(Ordering::Relaxed)
    }

    /// All numbers of a variable as they are stored, packed and with fill.
    pub(super) fn stored(&self, variable: &Variable) -> Result<Vec<f64>, ReadError> {
        let values = self.read(variable, |file| file.read_variable_as_f64(&variable.name))?;
        Ok(values.into_iter().collect())
    }

    /// How the stored numbers of a variable become values.
    pub fn decoding(&self, name: &str) -> Result<Decoding, ReadError> {
        Decoding::of(self.variable(name)?).map_err(meaning(&self.url))
    }

    /// All values of a variable, in the units that [`crate::model::cf`] has for it, NaN where there
    /// is none.
    pub fn values(&self, name: &str) -> Result<Vec<f64>, ReadError> {
        let variable = self.variable(name)?;
        Ok(self.decoding(name)?.values(self.stored(variable)?))
    }

    /// The same as a field.
    pub fn field(&self, name: &str) -> Result<FieldValues, ReadError> {
        let variable = self.variable(name)?;
        let decoding = self.decoding(name)?;
        if variable.dtype != DataType::F32 || !decoding.is_plain() {
            return Ok(FieldValues::Double(decoding.values(self.stored(variable)?)));
        }
        let values = self.read(variable, |file| file.read_variable::<f32>(name))?;
        let mut values = values.into_raw_vec_and_offset().0;
        decoding.mask(&mut values);
        Ok(FieldValues::Single(values))
    }

    /// The same of the `index`-th slice along the first dimension of a variable.
    pub fn slice(&self, name: &str, index: usize) -> Result<Vec<f64>, ReadError> {
        let variable = self.variable(name)?;
        let decoding = self.decoding(name)?;
        let mut selections = vec![NcSliceInfoElem::Index(index as u64)];
        let all = NcSliceInfoElem::Slice { start: 0, end: u64::MAX, step: 1 };
        selections.resize(variable.dims.len(), all);
        let selection = NcSliceInfo { selections };
        let slice = |file: &NcFile| file.read_variable_slice_as_f64(name, &selection);
        Ok(decoding.values(self.read(variable, slice)?.into_iter().collect()))
    }

    /// The bounds of its times, in days since 0000-01-01 of the noleap calendar, which must be no
    /// more than `most`; `None` when it has none.
    pub fn time_bounds(&self, most: usize) -> Result<Option<Vec<f64>>, ReadError> {
        let Some(variable) = time_units::time_bounds(&self.header) else { return Ok(None) };
        self.at_most(&variable.name, most)?;
        let stored = self.stored(variable)?;
        history::days(&self.header, variable, stored, &self.url).map(Some)
    }

    /// The values of `time`, in such days.
    pub fn times(&self) -> Result<Vec<f64>, ReadError> {
        let variable = self.variable("time")?;
        history::days(&self.header, variable, self.stored(variable)?, &self.url)
    }

    fn variable(&self, name: &str) -> Result<&Variable, ReadError> {
        self.header.variable(name).ok_or_else(|| ReadError::NoVariable {
            url: self.url.clone(),
            variable: name.to_owned(),
        })
    }
}

/// The values of a field: of 4 bytes where the file has them so, of 8 where they follow from what
/// it has.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValues {
    /// As the model writes them.
    Single(Vec<f32>),
    /// Of 8-byte floats, packed numbers or other units.
    Double(Vec<f64>),
}

impl FieldValues {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All as 8-byte floats.
    pub fn into_doubles(self) -> Vec<f64> {
        match self {
            Self::Single(values) => values.into_iter().map(f64::from).collect(),
            Self::Double(values) => values,
        }
    }
}

/// A source as the random-access storage of the reader.
struct RangeStorage {
    len: u64,
    state: Mutex<BlockCache>,
    fetched: AtomicU64,
}

struct BlockCache {
    source: Box<dyn ByteSource>,
    /// Headers are read in many small pieces that lie together: each block is fetched once.
    blocks: HashMap<u64, Bytes>,
    failed: Option<SourceError>,
}

impl BlockCache {
    fn read(
        &mut self,
        range: Range<u64>,
        len: u64,
        fetched: &AtomicU64,
    ) -> Result<Vec<u8>, SourceError> {
        if range.end - range.start > BLOCK {
            fetched.fetch_add(range.end - range.start, Ordering::Relaxed);
            return Ok(self.source.range(range)?.into());
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let start = block * BLOCK;
            if self.blocks.len() >= MOST_BLOCKS {
                self.blocks.clear();
            }
            let held = match self.blocks.entry(block) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(place) => {
                    let block = self.source.range(start..len.min(start + BLOCK))?;
                    fetched.fetch_add(block.len() as u64, Ordering::Relaxed);
                    place.insert(block)
                }
            };
            let [from, to] = [range.start.max(start), range.end.min(start + BLOCK)];
            bytes.extend_from_slice(&held[(from - start) as usize..(to - start) as usize]);
        }
        Ok(bytes)
    }
}

impl RangeStorage {
    fn state(&self) -> MutexGuard<'_, BlockCache> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.read(range, self.len, &self.fetched).map_err(|error| {
            state.failed = Some(error);
            io::ErrorKind::UnexpectedEof.into()
        })
    }

    /// Looks over the header of a classic file.
    fn look_over_header(&self, url: &str) -> Result<(), ReadError> {
        let most = self.len.min(LONGEST_HEADER as u64);
        let mut len = BLOCK.min(most);
        loop {
            let bytes = self.read(0..len).map_err(|e| ReadError::damaged(url, e.into()))?;
            match classic::look_over(&bytes, self.len, url)? {
                classic::HeaderExtent::Longer if len < most => len = (2 * len).min(most),
                // A file that ends in its header is truncated, and found to be so by the parser.
                classic::HeaderExtent::Longer if len == self.len => return Ok(()),
                classic::HeaderExtent::Whole => return Ok(()),
                classic::HeaderExtent::Longer => return Err(claims(url, TOO_LONG)),
            }
        }
    }

    /// The result, unless bytes could not be fetched: the reader takes that for damage.
    fn settle<T>(&self, url: &str, result: Result<T, ReadError>) -> Result<T, ReadError> {
        match self.state().failed.take() {
            Some(source) => Err(ReadError::Fetch { url: url.to_owned(), source }),
            None => result,
        }
    }
}

impl Storage for RangeStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_range(
        &self,
        offset: u64,
        len: usize,
    ) -> Result<StorageBuffer, hdf5_reader::error::Error> {
        let bytes = self.read(range_within(offset, len, self.len)?)?;
        Ok(StorageBuffer::from_vec(bytes))
    }
}
