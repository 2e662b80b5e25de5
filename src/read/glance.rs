//! What a file says of itself, read by range and without its data.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::{Hdf5File, Storage, StorageBuffer, filters};
use netcdf_reader::NcFile;

use super::history::{Form, damaged, header_of, positions, range_within};
use super::{ReadError, Source, SourceError};
use crate::model::dataset::Header;

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

/// What a file says of itself and of its month, read without its data.
pub struct Glance {
    /// The header.
    pub header: Header,
    /// Values of `time_bound`.
    pub time_bound: Vec<f64>,
    /// Values of `TLAT` and `TLONG`, where they were asked for.
    pub points: Option<[Vec<f64>; 2]>,
}

/// A source as the random-access storage of the reader.
struct Ranges {
    len: u64,
    state: Mutex<State>,
}

struct State {
    source: Box<dyn Source>,
    /// Headers are read in many small pieces that lie together: each block is fetched once.
    blocks: HashMap<u64, Bytes>,
    failed: Option<SourceError>,
}

impl State {
    fn read(&mut self, range: Range<u64>, len: u64) -> Result<Vec<u8>, SourceError> {
        if range.end - range.start > BLOCK {
            return Ok(self.source.range(range)?.into());
        }
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let start = block * BLOCK;
            let held = match self.blocks.entry(block) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(place) => {
                    place.insert(self.source.range(start..len.min(start + BLOCK))?)
                }
            };
            let [from, to] = [range.start.max(start), range.end.min(start + BLOCK)];
            bytes.extend_from_slice(&held[(from - start) as usize..(to - start) as usize]);
        }
        Ok(bytes)
    }
}

impl Ranges {
    fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.read(range, self.len).map_err(|error| {
            state.failed = Some(error);
            io::ErrorKind::UnexpectedEof.into()
        })
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

/// Reads the header of any NetCDF file.
pub fn header(source: Box<dyn Source>) -> Result<Header, ReadError> {
    look(source, |_, header, _| Ok(header))
}

/// Reads the header and the month, and checks that the data is all there; fetches little more
/// than that, except for the T points.
pub fn glance(source: Box<dyn Source>, with_points: bool) -> Result<Glance, ReadError> {
    let len = source.len();
    let url = source.url().to_owned();
    look(source, |file, header, form| {
        if let Form::Classic = form {
            positions(file, &header, &url, len)?;
        }
        let values = |name: &str| match header.variable(name) {
            Some(_) => file.read_variable_as_f64(name).map_err(|e| damaged(&url, e)),
            None => Ok(Default::default()),
        };
        let values = |name: &str| values(name).map(|v| v.into_iter().collect::<Vec<f64>>());
        let time_bound = values("time_bound")?;
        let points = with_points.then(|| Ok([values("TLAT")?, values("TLONG")?])).transpose()?;
        Ok(Glance { header, time_bound, points })
    })
}

/// Opens a file by ranges.
fn look<T>(
    source: Box<dyn Source>,
    take: impl FnOnce(&NcFile, Header, Form) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    let url = source.url().to_owned();
    let len = source.len();
    let state = State { source, blocks: HashMap::new(), failed: None };
    let ranges = Arc::new(Ranges { len, state: Mutex::new(state) });
    let result = ranges.read(0..len.min(SUPERBLOCK)).map_err(|e| damaged(&url, e.into())).and_then(
        |start| {
            let form = Form::of(&start, &url)?;
            if let Form::Netcdf4 = form {
                check_hdf5(&start, ranges.clone(), &url)?;
            }
            let file = NcFile::from_storage(ranges.clone()).map_err(|e| damaged(&url, e))?;
            take(&file, header_of(&file, &url)?, form)
        },
    );
    let failed = ranges.state.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
    match failed {
        Some(source) => Err(ReadError::Fetch { url, source }),
        None => result,
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
