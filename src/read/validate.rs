//! What an HDF5 file declares, compared with what it holds, before any of it is believed.
//!
//! The HDF5 library and this program's reader take a chunk that the index does not name for fill,
//! and a dimension scale for the shape of the data. In a model's output neither is meant: both are
//! damage, or a file that was not written to its end. Specification: "HDF5 file format", version
//! 3.0, IV.A.2.i (data layout) and VII (chunk indexes).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use hdf5_reader::chunk_index::{self, ChunkEntry};
use hdf5_reader::group::Group;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::messages::dataspace::DataspaceType;
use hdf5_reader::messages::filter_pipeline::FilterDescription;
use hdf5_reader::messages::layout::{ChunkIndexing, DataLayout};
use hdf5_reader::storage::DynStorage;
use hdf5_reader::{Dataset, Hdf5File, OpenOptions, btree_v1, filters};
use hdf5_reader::{error::Error as Hdf5Error, extensible_array, fixed_array};
use netcdf_reader::nc4::types::hdf5_to_nc_type;

use super::ReadError;
use super::bounds::LONGEST_HEADER;
use super::links::{self, UnreadableLinks, leaf};
use super::{text, types};
use crate::model::dataset::{Header, Variable};

/// Chunks of one variable: a chunk each month and level of a long series are fewer.
const MOST_CHUNKS: u64 = 1 << 18;
/// Deflate makes data at most this many times larger ("zlib technical details").
const DEFLATE_RATIO: u64 = 1032;
/// Chunks may be so many times larger than the data, as along a record dimension, or of this size.
const CHUNK_EXCESS: u64 = 16;
const SMALL_CHUNK: u64 = 16 << 20;
/// Bytes that a checksum or the frame of a compressed chunk adds.
const SLACK: u64 = 64;
/// The filters that the reader undoes; netCDF-C writes the first three.
const READABLE: [u16; 6] = [
    filters::FILTER_DEFLATE,
    filters::FILTER_SHUFFLE,
    filters::FILTER_FLETCHER32,
    filters::FILTER_SZIP,
    filters::FILTER_NBIT,
    filters::FILTER_SCALEOFFSET,
];

/// Where the data of a variable lies.
#[derive(Clone, Debug, Default)]
pub(super) struct DataExtent {
    /// Bytes of a chunk when it is decoded; of all data where there are no chunks.
    pub chunk: usize,
    ranges: Vec<Range<u64>>,
}

/// The structure of an HDF5 file.
pub(super) struct Structure {
    url: String,
    file: Hdf5File,
    root: Group,
    /// Datasets of the root group, by name.
    datasets: HashMap<String, Dataset>,
    found: UnreadableLinks,
    places: Mutex<HashMap<String, DataExtent>>,
}

impl Structure {
    /// Reads the structure and checks what does not need the index of any variable: the length
    /// that the superblock tells, types, filters, and that no group is reached twice.
    pub(super) fn open(start: &[u8], storage: DynStorage, url: &str) -> Result<Self, ReadError> {
        let has = storage.len();
        if let Some(needs) = end_of_file(start).filter(|&end| end > has) {
            let variable = "HDF5 data".to_owned();
            return Err(ReadError::Truncated { url: url.to_owned(), variable, needs, has });
        }
        let options = OpenOptions::default().with_max_object_header_bytes(LONGEST_HEADER);
        let broken = |e: Hdf5Error| ReadError::damaged(url, e.into());
        let file = Hdf5File::from_storage_with_options(storage, options).map_err(broken)?;
        let root = file.root_group().map_err(broken)?;
        let (datasets, found) = links::walk(&file, &root, url)?;
        let mut names = HashMap::new();
        for dataset in &datasets {
            let (name, foreign) = (leaf(dataset.name()), |what: String| {
                let object = leaf(dataset.name()).to_owned();
                Err(ReadError::Foreign { url: url.to_owned(), object, what })
            });
            if let Some(other) = names.insert(dataset.address(), name) {
                return foreign(format!("is another name of `{other}`"));
            }
            check_types(dataset, url)?;
            let has = |name: &str| dataset.attribute(name).is_ok();
            if dataset.ndim() > 0 && !has("CLASS") && !has("DIMENSION_LIST") {
                return foreign("is a dataset without dimensions".to_owned());
            }
            check_filters(&file, dataset, url)?;
        }
        let datasets = datasets.into_iter().map(|d| (leaf(d.name()).to_owned(), d)).collect();
        let places = Mutex::default();
        Ok(Self { url: url.to_owned(), file, root, datasets, found, places })
    }

    /// Refuses a file with data in groups, of which nothing would be converted.
    pub(super) fn refuse_groups(&self) -> Result<(), ReadError> {
        match self.found.in_groups.as_slice() {
            [] => Ok(()),
            paths => Err(ReadError::Groups { url: self.url.clone(), paths: paths.to_vec() }),
        }
    }

    /// Tells of what the file has that its conversion does not.
    pub(super) fn tell_left_out(&self) {
        self.found.tell(&self.root, self.datasets.values(), &self.url);
    }

    /// Puts the texts of attributes into the header whole, where the reader cuts them at a NUL.
    pub(super) fn complete_texts(&self, header: &mut Header) {
        text::complete(header, &self.root, self.datasets.values(), &self.url);
    }

    /// Compares the shape that each variable has by its dimensions with that of its data, but for
    /// records that were not written.
    pub(super) fn compare_shapes(&self, header: &Header) -> Result<(), ReadError> {
        for variable in &header.variables {
            let declared: Vec<u64> = variable.dims.iter().map(|d| d.len as u64).collect();
            let dataset = self.datasets.get(&variable.name);
            let found = dataset.map_or(&[][..], Dataset::shape);
            let most = dataset.and_then(Dataset::max_dims).unwrap_or(found);
            let fits = |((found, declared), most): ((&u64, &u64), &u64)| {
                found == declared || (*most == u64::MAX && found < declared)
            };
            if found.len() != declared.len() || !found.iter().zip(&declared).zip(most).all(fits) {
                let dims: Vec<_> =
                    variable.dims.iter().map(|d| format!("{} = {}", d.name, d.len)).collect();
                let problem = format!(
                    "has data of shape {found:?} where its dimensions are ({})",
                    dims.join(", ")
                );
                return Err(self.contradiction(&variable.name, problem));
            }
        }
        Ok(())
    }

    /// Checks the data of every variable: all of it allocated, inside the file, and none of it
    /// shared.
    pub(super) fn check_all(&self, header: &Header) -> Result<(), ReadError> {
        let mut ranges = Vec::new();
        for variable in &header.variables {
            let place = self.place(variable)?;
            ranges.extend(place.ranges.into_iter().map(|range| (range, &variable.name)));
        }
        ranges.sort_by_key(|(range, _)| range.start);
        match ranges.windows(2).find(|pair| pair[1].0.start < pair[0].0.end) {
            None => Ok(()),
            Some(pair) => {
                let between = pair.iter().map(|(_, name)| (*name).clone()).collect();
                Err(ReadError::Overlap { url: self.url.clone(), between })
            }
        }
    }

    /// Where the data of a variable lies, when all of it is there.
    pub(super) fn place(&self, variable: &Variable) -> Result<DataExtent, ReadError> {
        let places = || self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = places().get(&variable.name) {
            return Ok(place.clone());
        }
        let Some(dataset) = self.datasets.get(&variable.name) else {
            return Err(ReadError::NoVariable {
                url: self.url.clone(),
                variable: variable.name.clone(),
            });
        };
        for (dim, &found) in variable.dims.iter().zip(dataset.shape()) {
            // What is missing is fill to netCDF-C.
            if dim.len as u64 > found {
                let what = format!("records along `{}`", dim.name);
                return Err(self.unwritten(&variable.name, (found, dim.len as u64), &what));
            }
        }
        let place = self.find(&variable.name, dataset)?;
        places().insert(variable.name.clone(), place.clone());
        Ok(place)
    }

    fn find(&self, name: &str, dataset: &Dataset) -> Result<DataExtent, ReadError> {
        let broken = |e: Hdf5Error| ReadError::damaged(&self.url, e.into());
        let wrong = |problem: String| self.contradiction(name, problem);
        let element = dataset.raw_element_size().map_err(broken)? as u64;
        let shape = dataset.shape();
        let product = |mut lens: &mut dyn Iterator<Item = u64>| {
            (&mut lens)
                .try_fold(element, u64::checked_mul)
                .filter(|&bytes| usize::try_from(bytes).is_ok_and(|bytes| bytes < usize::MAX / 2))
        };
        let Some(bytes) = product(&mut shape.iter().copied()) else {
            return Err(wrong(format!("has shape {shape:?}, which no file can hold")));
        };
        let header = self.file.get_or_parse_header(dataset.address()).map_err(broken)?;
        let (mut layout, mut pipeline, mut elsewhere) = (None, &[][..], None);
        for message in &header.messages {
            match message {
                HdfMessage::DataLayout(found) => layout = Some(&found.layout),
                HdfMessage::FilterPipeline(found) => pipeline = &found.filters,
                HdfMessage::ExternalFiles(_) => elsewhere = Some("has its data in another file"),
                HdfMessage::Dataspace(space) if space.dataspace_type == DataspaceType::Null => {
                    elsewhere = Some("has no dataspace");
                }
                _ => {}
            }
        }
        if let Some(what) = elsewhere {
            let (url, object, what) = (self.url.clone(), name.to_owned(), what.to_owned());
            return Err(ReadError::Foreign { url, object, what });
        }
        let whole = |ranges| Ok(DataExtent { chunk: bytes as usize, ranges });
        match layout {
            _ if bytes == 0 => whole(Vec::new()),
            None => Err(wrong("has no layout".to_owned())),
            Some(DataLayout::Compact { data }) if data.len() as u64 == bytes => whole(Vec::new()),
            Some(DataLayout::Compact { data }) => Err(wrong(format!(
                "has {} bytes of data where its shape needs {bytes}",
                data.len()
            ))),
            Some(DataLayout::Contiguous { address, .. }) if self.is_undefined(*address) => {
                Err(self.unwritten(name, (0, 1), "blocks of data"))
            }
            Some(DataLayout::Contiguous { address, size }) => {
                if *size != bytes {
                    let problem = format!("has {size} bytes of data where its shape needs {bytes}");
                    return Err(wrong(problem));
                }
                whole(vec![self.inside(name, *address, *size)?])
            }
            Some(DataLayout::Chunked { address, dims, chunk_indexing, .. }) => {
                // Version 3 of the message has the size of an element as the last dimension.
                let dims = dims.get(..shape.len()).unwrap_or_default();
                if dims.len() != shape.len() || dims.contains(&0) {
                    return Err(wrong(format!("has chunks {dims:?} of data of shape {shape:?}")));
                }
                let lens = &mut dims.iter().map(|&d| u64::from(d));
                let chunk = product(lens).filter(|&chunk| chunk <= u64::from(u32::MAX));
                let Some(chunk) = chunk else {
                    return Err(wrong(format!("has chunks of shape {dims:?}, beyond 4 GiB")));
                };
                if chunk > bytes.saturating_mul(CHUNK_EXCESS).saturating_add(SMALL_CHUNK) {
                    return Err(wrong(format!("has chunks of {chunk} bytes for {bytes} of data")));
                }
                let counts = || shape.iter().zip(dims).map(|(&n, &d)| n.div_ceil(u64::from(d)));
                let expected = counts().try_fold(1, u64::checked_mul).unwrap_or(u64::MAX);
                if self.is_undefined(*address) {
                    return Err(self.unwritten(name, (0, expected), "chunks"));
                }
                if expected > MOST_CHUNKS {
                    return Err(wrong(format!("has {expected} chunks, more than {MOST_CHUNKS}")));
                }
                let index = (*address, chunk_indexing.as_ref());
                let entries = self.entries(dataset, index, dims, element).map_err(broken)?;
                let mut ranges = Vec::with_capacity(entries.len());
                let mut at = HashSet::new();
                for entry in &entries {
                    let on_grid =
                        entry.offsets.iter().zip(dims).all(|(&o, &d)| o % u64::from(d) == 0);
                    let is_in = entry.offsets.iter().zip(shape).all(|(o, n)| o < n);
                    if entry.offsets.len() != shape.len() || !on_grid {
                        return Err(wrong(format!("has a chunk at {:?}", entry.offsets)));
                    }
                    // A dataset that was shortened keeps the chunks beyond its end.
                    if is_in && !self.is_undefined(entry.address) && at.insert(&entry.offsets) {
                        check_size(entry, chunk, pipeline).map_err(wrong)?;
                        let size = if entry.size == 0 { chunk } else { entry.size };
                        ranges.push(self.inside(name, entry.address, size)?);
                    }
                }
                match ranges.len() as u64 {
                    found if found == expected => Ok(DataExtent { chunk: chunk as usize, ranges }),
                    found => Err(self.unwritten(name, (found, expected), "chunks")),
                }
            }
        }
    }

    /// All chunks that the index of a dataset names.
    fn entries(
        &self,
        dataset: &Dataset,
        (address, indexing): (u64, Option<&ChunkIndexing>),
        dims: &[u32],
        element: u64,
    ) -> Result<Vec<ChunkEntry>, Hdf5Error> {
        let (storage, shape) = (self.file.storage(), dataset.shape());
        let superblock = self.file.superblock();
        let (offsets, lengths) = (superblock.offset_size, superblock.length_size);
        let rank = shape.len() as u32;
        match indexing {
            None => {
                let leaves = btree_v1::collect_btree_v1_leaves_storage(
                    storage,
                    address,
                    offsets,
                    lengths,
                    Some(rank),
                    dims,
                    None,
                )?;
                let entry = |(key, address)| match key {
                    btree_v1::BTreeV1Key::RawData { chunk_size, filter_mask, mut offsets } => {
                        offsets.truncate(shape.len());
                        let size = u64::from(chunk_size);
                        Some(ChunkEntry { address, size, filter_mask, offsets })
                    }
                    btree_v1::BTreeV1Key::Group { .. } => None,
                };
                Ok(leaves.into_iter().filter_map(entry).collect())
            }
            Some(ChunkIndexing::SingleChunk { filtered_size, filters }) => {
                let rank = shape.len();
                Ok(vec![chunk_index::single_chunk_entry(address, *filtered_size, *filters, rank)])
            }
            Some(ChunkIndexing::BTreeV2) => chunk_index::collect_v2_chunk_entries_storage(
                storage, address, offsets, lengths, rank, dims, None,
            ),
            Some(ChunkIndexing::Implicit) => chunk_index::collect_implicit_chunk_entries(
                address,
                shape,
                dims,
                element as usize,
                None,
                storage.len(),
            ),
            Some(ChunkIndexing::FixedArray { .. }) => {
                fixed_array::collect_fixed_array_chunk_entries_storage(
                    storage, address, offsets, lengths, shape, dims, None,
                )
            }
            Some(ChunkIndexing::ExtensibleArray { .. }) => {
                extensible_array::collect_extensible_array_chunk_entries_storage(
                    storage,
                    address,
                    offsets,
                    lengths,
                    shape,
                    dataset.max_dims(),
                    dims,
                    None,
                )
            }
        }
    }

    /// Whether an address is the one that stands for none: all bits set.
    fn is_undefined(&self, address: u64) -> bool {
        let bits = 8 * u32::from(self.file.superblock().offset_size);
        address == u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(u64::MAX)
    }

    fn inside(&self, name: &str, start: u64, size: u64) -> Result<Range<u64>, ReadError> {
        let (needs, has) = (start.saturating_add(size), self.file.storage().len());
        if needs <= has {
            return Ok(start..needs);
        }
        Err(ReadError::Truncated { url: self.url.clone(), variable: name.to_owned(), needs, has })
    }

    fn unwritten(&self, name: &str, (found, expected): (u64, u64), what: &str) -> ReadError {
        let (url, variable, what) = (self.url.clone(), name.to_owned(), what.to_owned());
        ReadError::Unwritten { url, variable, found, expected, what }
    }

    fn contradiction(&self, name: &str, problem: String) -> ReadError {
        ReadError::Contradiction { url: self.url.clone(), variable: name.to_owned(), problem }
    }
}

/// Refuses what has no counterpart in NetCDF, such as references, by name: it is no damage.
fn check_types(dataset: &Dataset, url: &str) -> Result<(), ReadError> {
    let name = leaf(dataset.name());
    if hdf5_to_nc_type(dataset.dtype()).is_err() {
        return Err(types::without_counterpart(url, name, dataset.dtype()));
    }
    // What netCDF-C itself keeps in references.
    let own = |name: &str| matches!(name, "DIMENSION_LIST" | "REFERENCE_LIST");
    for attribute in dataset.attributes().iter().filter(|a| !own(&a.name)) {
        if hdf5_to_nc_type(&attribute.datatype).is_err() {
            let object = format!("{name}:{}", attribute.name);
            return Err(types::without_counterpart(url, &object, &attribute.datatype));
        }
    }
    Ok(())
}

/// Refuses filters that cannot be undone here.
fn check_filters(file: &Hdf5File, dataset: &Dataset, url: &str) -> Result<(), ReadError> {
    let header = file.get_or_parse_header(dataset.address());
    let header = header.map_err(|e| ReadError::damaged(url, e.into()))?;
    let filters = header.messages.iter().filter_map(|message| match message {
        HdfMessage::FilterPipeline(pipeline) => Some(&pipeline.filters),
        _ => None,
    });
    let Some(filter) = filters.flatten().find(|f| !READABLE.contains(&f.id)) else {
        return Ok(());
    };
    let name = filter.name.as_deref().map(|n| n.trim_end_matches('\0'));
    let name = name.filter(|n| !n.is_empty()).unwrap_or("an unknown filter");
    Err(ReadError::Filter {
        url: url.to_owned(),
        variable: dataset.name().to_owned(),
        filter: format!("{name} (HDF5 filter {})", filter.id),
    })
}

/// Whether a chunk of this stored size can come to `bytes`; the problem when it cannot.
fn check_size(
    entry: &ChunkEntry,
    bytes: u64,
    pipeline: &[FilterDescription],
) -> Result<(), String> {
    let skipped = |n: usize| n < 32 && entry.filter_mask & (1 << n) != 0;
    // The library skips a filter that fails; these cannot.
    let never = [filters::FILTER_SHUFFLE, filters::FILTER_FLETCHER32];
    let wrongly = pipeline.iter().enumerate().find(|(n, f)| skipped(*n) && never.contains(&f.id));
    let beyond = pipeline.len() < 32 && entry.filter_mask >> pipeline.len() != 0;
    if beyond || wrongly.is_some() {
        return Err(format!("has a chunk with the filter mask {:#x}", entry.filter_mask));
    }
    let active = || pipeline.iter().enumerate().filter(|(n, _)| !skipped(*n)).map(|(_, f)| f.id);
    let keeps = |id: u16| matches!(id, filters::FILTER_SHUFFLE | filters::FILTER_FLETCHER32);
    let size = entry.size;
    let fits = match active().filter(|&id| !keeps(id)).collect::<Vec<_>>().as_slice() {
        // Where an index tells no size, the chunk is as large as its shape.
        [] => size == 0 || (bytes..=bytes + SLACK).contains(&size),
        [filters::FILTER_DEFLATE] => bytes <= size.saturating_mul(DEFLATE_RATIO) + SLACK,
        _ => true,
    };
    match fits {
        true => Ok(()),
        false => Err(format!("has a chunk of {size} bytes, which cannot hold {bytes}")),
    }
}

/// Length of an HDF5 file as its superblock has it ("HDF5 file format", II.A), for versions 0 to 3
/// with addresses of 8 bytes, which is what netCDF-C writes.
fn end_of_file(start: &[u8]) -> Option<u64> {
    if !start.starts_with(b"\x89HDF") {
        // It comes after a block of the user's own.
        return None;
    }
    let (address_size, at) = match *start.get(8)? {
        0 => (13, 40),
        1 => (13, 44),
        2 | 3 => (9, 28),
        _ => return None,
    };
    let end = start.get(at..)?.first_chunk()?;
    (*start.get(address_size)? == 8).then(|| u64::from_le_bytes(*end))
}
