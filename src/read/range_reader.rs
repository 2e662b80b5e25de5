//! Reader of a NetCDF file by range requests: it fetches the header and the requested variables only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hdf5_reader::{Storage, StorageBuffer};
use netcdf_reader::{NcFile, NcOpenOptions, NcSliceInfo, NcSliceInfoElem};

use super::bounds::{self, LONGEST_HEADER, TOO_LONG, catch_reader_panic, implausible_header};
use super::classic;
use super::filters::registry;
use super::header::positions;
use super::history::{self, decoding_error, range_within};
use super::netcdf_format::NetcdfFormat;
use super::validate::Structure;
use super::{ByteSource, ReadError, SourceError, text};
use crate::model::cf::Decoding;
use crate::model::dataset::{DataType, Header, Variable};
use crate::model::time_units;

/// Length of the start of a file, bytes: it contains the end-of-file address of an HDF5 superblock.
const SUPERBLOCK: u64 = 64;
/// Length of a cached block, bytes: most headers fit into one.
const BLOCK: u64 = 64 << 10;
/// Largest number of cached blocks: more than any header has.
const MOST_BLOCKS: usize = 256;

/// An open NetCDF file: its header is in memory, its variables are read on request.
pub struct RangeReader {
    url: String,
    file: NcFile,
    header: Header,
    storage: Arc<RangeStorage>,
    /// Structure of an HDF5 file; `None` for classic files.
    structure: Option<Structure>,
    /// Bytes of a decoded chunk of the current variable, which limits the output of the filters.
    chunk_size: Arc<AtomicUsize>,
}

impl RangeReader {
    /// Opens a file: reads and checks its header; of a classic file, also that it is not truncated.
    ///
    /// # Errors
    /// The header cannot be fetched, is not NetCDF, or is damaged.
    pub fn open(source: Box<dyn ByteSource>) -> Result<Self, ReadError> {
        let url = source.url().to_owned();
        let len = source.len();
        let cache = BlockCache { source, blocks: HashMap::new(), fetch_error: None };
        let storage =
            Arc::new(RangeStorage { len, cache: Mutex::new(cache), fetched: AtomicU64::new(0) });
        let chunk_size = Arc::<AtomicUsize>::default();
        let opened =
            catch_reader_panic(&url, || Self::open_storage(&storage, &url, chunk_size.clone()));
        let (file, header, structure) = storage.or_fetch_error(&url, opened)?;
        Ok(Self { url, file, header, storage, structure, chunk_size })
    }

    fn open_storage(
        storage: &Arc<RangeStorage>,
        url: &str,
        chunk_size: Arc<AtomicUsize>,
    ) -> Result<(NcFile, Header, Option<Structure>), ReadError> {
        let start = storage.read(0..storage.len.min(SUPERBLOCK));
        let start = start.map_err(|e| ReadError::damaged(url, e.into()))?;
        let read_at = |offset: u64| {
            let end = offset.checked_add(8).filter(|&end| end <= storage.len)?;
            storage.read(offset..end).ok()?.first_chunk().copied()
        };
        let structure = match NetcdfFormat::detect(&start, read_at, url)? {
            NetcdfFormat::Netcdf4 => Some(Structure::open(&start, storage.clone(), url)?),
            NetcdfFormat::Classic => storage.check_classic_header(url).map(|()| None)?,
        };
        let options = || NcOpenOptions {
            filter_registry: Some(registry(chunk_size.clone())),
            // Every variable is read once.
            chunk_cache_bytes: 0,
            max_object_header_bytes: LONGEST_HEADER,
            ..NcOpenOptions::default()
        };
        let (file, mut header) = text::open(storage.clone(), options, url)?;
        match &structure {
            Some(structure) => {
                structure.complete_texts(&mut header);
                structure.compare_shapes(&header)?;
            }
            None => drop(positions(&file, &header, url, storage.len)?),
        }
        Ok((file, header, structure))
    }

    /// Checks that all data of the file is present and that the file has no data in groups; warns of
    /// what a conversion drops. Classic files are checked by [`Self::open`].
    pub(super) fn check_all(&self) -> Result<(), ReadError> {
        let Some(structure) = &self.structure else { return Ok(()) };
        let checked = catch_reader_panic(&self.url, || {
            structure.refuse_groups()?;
            structure.check_all(&self.header)?;
            structure.warn_of_losses();
            Ok(())
        });
        self.storage.or_fetch_error(&self.url, checked)
    }

    /// Memory that the conversion of the file takes, bytes.
    pub(super) fn memory(&self) -> u64 {
        match self.structure {
            // The output in memory and the largest variable together are smaller than a raw file.
            None => self.storage.len,
            Some(_) => bounds::memory(&self.header, self.storage.len),
        }
    }

    /// Checks that a variable has at most `most` values, before it is read.
    ///
    /// # Errors
    /// [`ReadError::TooMany`].
    pub fn check_value_count(&self, name: &str, most: usize) -> Result<(), ReadError> {
        match self.header.variable(name).map(Variable::len) {
            Some(found) if found > most => {
                let (url, variable) = (self.url.clone(), name.to_owned());
                Err(ReadError::TooMany { url, variable, found, most })
            }
            _ => Ok(()),
        }
    }

    /// Calls `read` after a check that all data of the variable is present.
    fn read<T>(
        &self,
        variable: &Variable,
        read: impl FnOnce(&NcFile) -> Result<T, netcdf_reader::Error>,
    ) -> Result<T, ReadError> {
        let values = catch_reader_panic(&self.url, || {
            let chunk_size = match &self.structure {
                Some(structure) => structure.extent(variable)?.chunk,
                None => variable.bytes(),
            };
            self.chunk_size.store(chunk_size, Ordering::Relaxed);
            read(&self.file).map_err(|e| ReadError::damaged(&self.url, e))
        });
        self.storage.or_fetch_error(&self.url, values)
    }

    /// Dimensions, variables and attributes of the file.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Path or URL of the file, for messages.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Number of bytes fetched since the file was opened.
    pub fn fetched(&self) -> u64 {
        self.storage.fetched.load(Ordering::Relaxed)
    }

    /// All numbers of a variable as stored: packed, and with fill values.
    pub(super) fn stored(&self, variable: &Variable) -> Result<Vec<f64>, ReadError> {
        let values = self.read(variable, |file| file.read_variable_as_f64(&variable.name))?;
        Ok(values.into_iter().collect())
    }

    /// The decoding of a variable: from stored numbers to values in its CF units.
    ///
    /// # Errors
    /// The file has no such variable, or an attribute of it is invalid.
    pub fn decoding(&self, name: &str) -> Result<Decoding, ReadError> {
        Decoding::of(self.variable(name)?).map_err(decoding_error(&self.url))
    }

    /// All values of a variable in the units of [`crate::model::cf`]; NaN for missing values.
    ///
    /// # Errors
    /// The file has no such variable, an attribute of it is invalid, or its data cannot be read.
    pub fn values(&self, name: &str) -> Result<Vec<f64>, ReadError> {
        let variable = self.variable(name)?;
        Ok(self.decoding(name)?.values(self.stored(variable)?))
    }

    /// All values of a variable as with [`Self::values`], in 4-byte floats when they are stored so.
    ///
    /// # Errors
    /// As for [`Self::values`].
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

    /// The values at `index` along the first dimension of a variable, as with [`Self::values`].
    ///
    /// # Errors
    /// As for [`Self::values`].
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

    /// The time bounds of the file, days since 0000-01-01 of the noleap calendar; `None` when the
    /// file has none.
    ///
    /// # Errors
    /// There are more than `most` numbers, their units are invalid, or they cannot be read.
    pub fn time_bounds(&self, most: usize) -> Result<Option<Vec<f64>>, ReadError> {
        let Some(variable) = time_units::time_bounds(&self.header) else { return Ok(None) };
        self.check_value_count(&variable.name, most)?;
        let stored = self.stored(variable)?;
        history::days(&self.header, variable, stored, &self.url).map(Some)
    }

    /// The values of `time`, days since 0000-01-01 of the noleap calendar.
    ///
    /// # Errors
    /// The file has no `time`, its units are invalid, or it cannot be read.
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

/// The decoded values of a field, in 4-byte or 8-byte floats.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValues {
    /// Values that are stored as 4-byte floats, unpacked and in the units of [`crate::model::cf`].
    Single(Vec<f32>),
    /// Values of 8-byte floats or integers, packed values, and values in converted units.
    Double(Vec<f64>),
}

impl FieldValues {
    /// Number of values, including NaN.
    pub fn len(&self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// Whether there is a value, not NaN, at an index.
    pub fn has_value(&self, at: usize) -> bool {
        match self {
            Self::Single(values) => values.get(at).is_some_and(|value| !value.is_nan()),
            Self::Double(values) => values.get(at).is_some_and(|value| !value.is_nan()),
        }
    }

    /// Whether the field has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values as 8-byte floats.
    pub fn into_doubles(self) -> Vec<f64> {
        match self {
            Self::Single(values) => values.into_iter().map(f64::from).collect(),
            Self::Double(values) => values,
        }
    }
}

/// A [`ByteSource`] as random-access storage of the reading library.
struct RangeStorage {
    len: u64,
    cache: Mutex<BlockCache>,
    fetched: AtomicU64,
}

/// A source with a cache: the library reads headers in many small pieces close to one another.
struct BlockCache {
    source: Box<dyn ByteSource>,
    /// Fetched blocks by number.
    blocks: HashMap<u64, Bytes>,
    /// The last error of the source, which the library does not pass on.
    fetch_error: Option<SourceError>,
}

impl BlockCache {
    /// Reads a range of a file of `len` bytes; ranges longer than a block are not cached.
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
            let block = match self.blocks.entry(block) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let block = self.source.range(start..len.min(start + BLOCK))?;
                    fetched.fetch_add(block.len() as u64, Ordering::Relaxed);
                    entry.insert(block)
                }
            };
            let [from, to] = [range.start.max(start), range.end.min(start + BLOCK)];
            bytes.extend_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        Ok(bytes)
    }
}

impl RangeStorage {
    fn cache(&self) -> MutexGuard<'_, BlockCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut cache = self.cache();
        cache.read(range, self.len, &self.fetched).map_err(|error| {
            cache.fetch_error = Some(error);
            io::ErrorKind::UnexpectedEof.into()
        })
    }

    /// Checks the header of a classic file with [`classic::check_header`].
    fn check_classic_header(&self, url: &str) -> Result<(), ReadError> {
        let most = self.len.min(LONGEST_HEADER as u64);
        let mut len = BLOCK.min(most);
        loop {
            let bytes = self.read(0..len).map_err(|e| ReadError::damaged(url, e.into()))?;
            match classic::check_header(&bytes, self.len, url)? {
                classic::HeaderExtent::Longer if len < most => len = (2 * len).min(most),
                // The file ends inside its header: the parser reports that it is truncated.
                classic::HeaderExtent::Longer if len == self.len => return Ok(()),
                classic::HeaderExtent::Whole => return Ok(()),
                classic::HeaderExtent::Longer => return Err(implausible_header(url, TOO_LONG)),
            }
        }
    }

    /// The error of the source if there is one, else `result`: the library reports failed fetches
    /// as damage of the file.
    fn or_fetch_error<T>(&self, url: &str, result: Result<T, ReadError>) -> Result<T, ReadError> {
        match self.cache().fetch_error.take() {
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
