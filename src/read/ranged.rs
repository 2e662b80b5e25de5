//! A NetCDF file that is read by range: no byte is fetched that nobody asks for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::{Hdf5File, Storage, StorageBuffer, filters};
use netcdf_reader::{NcFile, NcOpenOptions, NcSliceInfo, NcSliceInfoElem};

use super::filters::registry;
use super::history::{Form, damaged, header_of, positions, range_within};
use super::{ReadError, Source, SourceError};
use crate::model::dataset::{DataType, Header, Variable};

/// More bytes than an HDF5 superblock has up to its end-of-file address.
const SUPERBLOCK: u64 = 64;
/// What is fetched at a time: most of a header, and little beside it.
const BLOCK: u64 = 64 << 10;
/// The filters that the reader undoes; netCDF-C writes the first three.
const READABLE: [u16; 6] = [
    filters::FILTER_DEFLATE,
    filters::FILTER_SHUFFLE,
    filters::FILTER_FLETCHER32,
    filters::FILTER_SZIP,
    filters::FILTER_NBIT,
    filters::FILTER_SCALEOFFSET,
];

/// An open file: its header is read, its variables are when they are asked for.
pub struct Ranged {
    url: String,
    file: NcFile,
    header: Header,
    ranges: Arc<Ranges>,
    /// Bytes of the variable that is being read: most are one chunk.
    size: Arc<AtomicUsize>,
}

impl Ranged {
    /// Reads and checks the header; of a classic file also that its data is all there.
    pub fn open(source: Box<dyn Source>) -> Result<Self, ReadError> {
        let url = source.url().to_owned();
        let len = source.len();
        let state = State { source, blocks: HashMap::new(), failed: None };
        let ranges = Arc::new(Ranges { len, state: Mutex::new(state), fetched: AtomicU64::new(0) });
        let size = Arc::<AtomicUsize>::default();
        let opened = Self::open_ranges(&ranges, &url, size.clone());
        let (file, header) = ranges.settle(&url, opened)?;
        Ok(Self { url, file, header, ranges, size })
    }

    fn open_ranges(
        ranges: &Arc<Ranges>,
        url: &str,
        size: Arc<AtomicUsize>,
    ) -> Result<(NcFile, Header), ReadError> {
        let start = ranges.read(0..ranges.len.min(SUPERBLOCK));
        let start = start.map_err(|e| damaged(url, e.into()))?;
        let form = Form::of(&start, url)?;
        if let Form::Netcdf4 = form {
            check_hdf5(&start, ranges.clone(), url)?;
        }
        let options = NcOpenOptions {
            filter_registry: Some(registry(size)),
            // Every variable is read once.
            chunk_cache_bytes: 0,
            ..NcOpenOptions::default()
        };
        let file = NcFile::from_storage_with_options(ranges.clone(), options)
            .map_err(|e| damaged(url, e))?;
        let header = header_of(&file, url)?;
        if let Form::Classic = form {
            positions(&file, &header, url, ranges.len)?;
        }
        Ok((file, header))
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

    /// All values of a variable as they are stored, fill included; `None` when there is no such
    /// variable.
    pub fn stored(&self, name: &str) -> Result<Option<Vec<f64>>, ReadError> {
        let Some(variable) = self.header.variable(name) else { return Ok(None) };
        self.size.store(variable.bytes(), Ordering::Relaxed);
        let values = self.file.read_variable_as_f64(name).map_err(|e| damaged(&self.url, e));
        Ok(Some(self.ranges.settle(&self.url, values)?.into_iter().collect()))
    }

    /// All values of a variable that must be there, NaN where they are fill.
    pub fn values(&self, name: &str) -> Result<Vec<f64>, ReadError> {
        let variable = self.variable(name)?;
        let fill = variable.fill_values();
        let mut values = self.stored(name)?.unwrap_or_default();
        for value in values.iter_mut().filter(|v| fill.contains(v)) {
            *value = f64::NAN;
        }
        Ok(values)
    }

    /// The same for a variable of 4-byte floats, as such.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, ReadError> {
        let variable = self.variable(name)?;
        if variable.dtype != DataType::F32 {
            return Ok(self.values(name)?.into_iter().map(|v| v as f32).collect());
        }
        self.size.store(variable.bytes(), Ordering::Relaxed);
        let mut fill: Vec<f32> = variable.fill_values().into_iter().map(|v| v as f32).collect();
        // `missing_value` mostly repeats `_FillValue`.
        fill.dedup();
        let values = self.file.read_variable::<f32>(name).map_err(|e| damaged(&self.url, e));
        let mut values = self.ranges.settle(&self.url, values)?.into_raw_vec_and_offset().0;
        for fill in fill {
            values.iter_mut().for_each(|v| *v = if *v == fill { f32::NAN } else { *v });
        }
        Ok(values)
    }

    /// The `index`-th slice along the first dimension of a variable, NaN where it is fill.
    pub fn slice(&self, name: &str, index: usize) -> Result<Vec<f64>, ReadError> {
        let variable = self.variable(name)?;
        let fill = variable.fill_values();
        let mut selections = vec![NcSliceInfoElem::Index(index as u64)];
        let all = NcSliceInfoElem::Slice { start: 0, end: u64::MAX, step: 1 };
        selections.resize(variable.dims.len(), all);
        let selection = NcSliceInfo { selections };
        let values = self.file.read_variable_slice_as_f64(name, &selection);
        let values = values.map_err(|e| damaged(&self.url, e));
        let none_as_nan = |v: f64| if fill.contains(&v) { f64::NAN } else { v };
        Ok(self.ranges.settle(&self.url, values)?.into_iter().map(none_as_nan).collect())
    }

    fn variable(&self, name: &str) -> Result<&Variable, ReadError> {
        self.header.variable(name).ok_or_else(|| ReadError::NoVariable {
            url: self.url.clone(),
            variable: name.to_owned(),
        })
    }
}

/// A source as the random-access storage of the reader.
struct Ranges {
    len: u64,
    state: Mutex<State>,
    fetched: AtomicU64,
}

struct State {
    source: Box<dyn Source>,
    /// Headers are read in many small pieces that lie together: each block is fetched once.
    blocks: HashMap<u64, Bytes>,
    failed: Option<SourceError>,
}

impl State {
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

impl Ranges {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        state.read(range, self.len, &self.fetched).map_err(|error| {
            state.failed = Some(error);
            io::ErrorKind::UnexpectedEof.into()
        })
    }

    /// The result, unless bytes could not be fetched: the reader takes that for damage.
    fn settle<T>(&self, url: &str, result: Result<T, ReadError>) -> Result<T, ReadError> {
        match self.state().failed.take() {
            Some(source) => Err(ReadError::Fetch { url: url.to_owned(), source }),
            None => result,
        }
    }
}

impl Storage for Ranges {
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

/// Checks that an HDF5 file is as long as its superblock says and that its filters can be undone.
fn check_hdf5(start: &[u8], ranges: Arc<Ranges>, url: &str) -> Result<(), ReadError> {
    let has = ranges.len;
    if let Some(needs) = hdf5_end(start).filter(|&end| end > has) {
        let variable = "HDF5 data".to_owned();
        return Err(ReadError::Truncated { url: url.to_owned(), variable, needs, has });
    }
    let broken = |e: hdf5_reader::error::Error| damaged(url, e.into());
    let file = Hdf5File::from_storage(ranges).map_err(broken)?;
    for dataset in file.root_group().and_then(|root| root.datasets()).map_err(broken)? {
        let header = file.get_or_parse_header(dataset.address()).map_err(broken)?;
        let filters = header.messages.iter().filter_map(|message| match message {
            HdfMessage::FilterPipeline(pipeline) => Some(&pipeline.filters),
            _ => None,
        });
        if let Some(filter) = filters.flatten().find(|f| !READABLE.contains(&f.id)) {
            let name = filter.name.as_deref().map(|n| n.trim_end_matches('\0'));
            let name = name.filter(|n| !n.is_empty()).unwrap_or("an unknown filter");
            return Err(ReadError::Filter {
                url: url.to_owned(),
                variable: dataset.name().to_owned(),
                filter: format!("{name} (HDF5 filter {})", filter.id),
            });
        }
    }
    Ok(())
}

/// Length of an HDF5 file as its superblock has it ("HDF5 file format", II.A), for versions 0 to 3
/// with addresses of 8 bytes, which is what netCDF-C writes.
fn hdf5_end(start: &[u8]) -> Option<u64> {
    let (address_size, at) = match *start.get(8)? {
        0 => (13, 40),
        1 => (13, 44),
        2 | 3 => (9, 28),
        _ => return None,
    };
    let end = start.get(at..)?.first_chunk()?;
    (*start.get(address_size)? == 8).then(|| u64::from_le_bytes(*end))
}
