//! Validates the structure of an HDF5 file: the data that it declares must be present.
//!
//! The HDF5 library and the Rust reading library return fill values for a chunk that is missing in
//! the index, and take the shape of a variable from its dimension scales. In the output of a model,
//! missing chunks and differing shapes are damage, or the file was not written to its end.
//! Specification: "HDF5 file format", version 3.0, IV.A.2.i (data layout) and VII (chunk indexes).

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use hdf5_reader::btree_v1::{self, BTreeV1Key};
use hdf5_reader::chunk_index::{self, ChunkEntry};
use hdf5_reader::group::Group;
use hdf5_reader::messages::HdfMessage;
use hdf5_reader::messages::dataspace::DataspaceType;
use hdf5_reader::messages::filter_pipeline::FilterDescription;
use hdf5_reader::messages::layout::{ChunkIndexing, DataLayout};
use hdf5_reader::storage::DynStorage;
use hdf5_reader::{Dataset, Hdf5File, OpenOptions, filters};
use hdf5_reader::{error::Error as Hdf5Error, extensible_array, fixed_array};

use super::ReadError;
use super::bounds::LONGEST_HEADER;
use super::links::{self, UnreadableLinks};
use super::types::leaf;
use super::{text, types};
use crate::model::dataset::{Header, Variable};

/// Largest number of chunks of a variable: more than one for each month and level of a long series.
const MOST_CHUNKS: u64 = 1 << 18;
/// Largest compression ratio of deflate ("zlib technical details").
const DEFLATE_RATIO: u64 = 1032;
/// Largest ratio of chunk size to data size; chunks exceed the data along a record dimension.
const CHUNK_EXCESS: u64 = 16;
/// Size in bytes up to which chunks may exceed the data by any ratio.
const SMALL_CHUNK: u64 = 16 << 20;
/// Room for the checksum and the frame of a compressed chunk, bytes.
const SLACK: u64 = 64;
/// The filters that the reading library supports; netCDF-C writes the first three.
const READABLE: [u16; 6] = [
    filters::FILTER_DEFLATE,
    filters::FILTER_SHUFFLE,
    filters::FILTER_FLETCHER32,
    filters::FILTER_SZIP,
    filters::FILTER_NBIT,
    filters::FILTER_SCALEOFFSET,
];

/// The location of a variable's data in the file.
#[derive(Clone, Debug, Default)]
pub(super) struct DataExtent {
    /// Bytes of a decoded chunk; of all data for a layout without chunks.
    pub chunk: usize,
    /// Byte ranges in the file.
    ranges: Vec<Range<u64>>,
}

/// The structure of an open HDF5 file.
pub(super) struct Structure {
    url: String,
    file: Hdf5File,
    root: Group,
    /// Datasets of the root group, by name.
    datasets: HashMap<String, Dataset>,
    unreadable: UnreadableLinks,
    /// Validated extents of variables, by name.
    extents: Mutex<HashMap<String, DataExtent>>,
}

impl Structure {
    /// Reads the structure without the chunk indexes, and checks it: the length in the superblock,
    /// data types, filters, and that no dataset or group has two names. `start` is the first bytes
    /// of the file.
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
        let (datasets, unreadable) = links::walk(&file, &root, url)?;
        let mut names = HashMap::new();
        for dataset in &datasets {
            let (name, foreign) = (leaf(dataset.name()), |what: String| {
                let object = leaf(dataset.name()).to_owned();
                Err(ReadError::Foreign { url: url.to_owned(), object, what })
            });
            if let Some(other) = names.insert(dataset.address(), name) {
                return foreign(format!("is another name of `{other}`"));
            }
            types::check(dataset, url)?;
            let has = |name: &str| dataset.attribute(name).is_ok();
            if dataset.ndim() > 0 && !has("CLASS") && !has("DIMENSION_LIST") {
                return foreign("is a dataset without dimensions".to_owned());
            }
            check_filters(&file, dataset, url)?;
        }
        let datasets = datasets.into_iter().map(|d| (leaf(d.name()).to_owned(), d)).collect();
        let (url, extents) = (url.to_owned(), Mutex::default());
        Ok(Self { url, file, root, datasets, unreadable, extents })
    }

    /// Rejects a file with variables or attributes in groups, which a conversion would lose.
    pub(super) fn refuse_groups(&self) -> Result<(), ReadError> {
        match self.unreadable.in_groups.as_slice() {
            [] => Ok(()),
            paths => Err(ReadError::Groups { url: self.url.clone(), paths: paths.to_vec() }),
        }
    }

    /// Warns of objects of the file that a conversion drops or changes.
    pub(super) fn warn_of_losses(&self) {
        self.unreadable.warn(&self.root, self.datasets.values(), &self.url);
    }

    /// Restores attribute texts of the header that the library has cut at a NUL.
    pub(super) fn complete_texts(&self, header: &mut Header) {
        text::restore_nul_texts(header, &self.root, self.datasets.values(), &self.url);
    }

    /// Compares the shape of each variable by its dimensions with the shape of its data, which can
    /// have fewer records than an unlimited dimension.
    pub(super) fn compare_shapes(&self, header: &Header) -> Result<(), ReadError> {
        for variable in &header.variables {
            let declared: Vec<u64> = variable.dims.iter().map(|d| d.len as u64).collect();
            let dataset = self.datasets.get(&variable.name);
            let shape = dataset.map_or(&[][..], Dataset::shape);
            let max_shape = dataset.and_then(Dataset::max_dims).unwrap_or(shape);
            let fits = |((len, declared), max_len): ((&u64, &u64), &u64)| {
                len == declared || (*max_len == u64::MAX && len < declared)
            };
            let mut lens = shape.iter().zip(&declared).zip(max_shape);
            if shape.len() != declared.len() || !lens.all(fits) {
                let dims = variable.dims.iter().map(|d| format!("{} = {}", d.name, d.len));
                let dims = dims.collect::<Vec<_>>().join(", ");
                let problem =
                    format!("has data of shape {shape:?} where its dimensions are ({dims})");
                return Err(self.contradiction(&variable.name, problem));
            }
        }
        Ok(())
    }

    /// Checks that the data of every variable is complete and inside the file, and that no two byte
    /// ranges overlap.
    pub(super) fn check_all(&self, header: &Header) -> Result<(), ReadError> {
        let mut ranges = Vec::new();
        for variable in &header.variables {
            let extent = self.extent(variable)?;
            ranges.extend(extent.ranges.into_iter().map(|range| (range, &variable.name)));
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

    /// The location of a variable's data, after a check that all of it is present.
    pub(super) fn extent(&self, variable: &Variable) -> Result<DataExtent, ReadError> {
        let extents = || self.extents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(extent) = extents().get(&variable.name) {
            return Ok(extent.clone());
        }
        let Some(dataset) = self.datasets.get(&variable.name) else {
            let (url, variable) = (self.url.clone(), variable.name.clone());
            return Err(ReadError::NoVariable { url, variable });
        };
        for (dim, &len) in variable.dims.iter().zip(dataset.shape()) {
            // netCDF-C returns fill values for missing records.
            if dim.len as u64 > len {
                let what = format!("records along `{}`", dim.name);
                return Err(self.unwritten(&variable.name, (len, dim.len as u64), &what));
            }
        }
        let extent = DatasetCheck::new(self, &variable.name, dataset)?.locate()?;
        extents().insert(variable.name.clone(), extent.clone());
        Ok(extent)
    }

    /// Whether an address is the undefined address of HDF5, with all bits set.
    fn is_undefined(&self, address: u64) -> bool {
        let bits = 8 * u32::from(self.file.superblock().offset_size);
        address == u64::MAX.checked_shr(64 - bits.min(64)).unwrap_or(u64::MAX)
    }

    /// The byte range of `size` bytes at `start`, which must lie inside the file.
    fn range_in_file(&self, name: &str, start: u64, size: u64) -> Result<Range<u64>, ReadError> {
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

    fn damaged(&self, error: Hdf5Error) -> ReadError {
        ReadError::damaged(&self.url, error.into())
    }

    fn contradiction(&self, name: &str, problem: String) -> ReadError {
        ReadError::Contradiction { url: self.url.clone(), variable: name.to_owned(), problem }
    }
}

/// The check of one dataset.
struct DatasetCheck<'a> {
    hdf5: &'a Structure,
    name: &'a str,
    dataset: &'a Dataset,
    /// Bytes of an element.
    element_size: u64,
    /// Bytes that the shape of the dataset needs, uncompressed.
    needed: u64,
}

impl<'a> DatasetCheck<'a> {
    fn new(hdf5: &'a Structure, name: &'a str, dataset: &'a Dataset) -> Result<Self, ReadError> {
        let element_size = dataset.raw_element_size().map_err(|e| hdf5.damaged(e))? as u64;
        let shape = dataset.shape();
        let Some(needed) = byte_count(element_size, shape.iter().copied()) else {
            let problem = format!("has shape {shape:?}, which no file can hold");
            return Err(hdf5.contradiction(name, problem));
        };
        Ok(Self { hdf5, name, dataset, element_size, needed })
    }

    /// The location of the data, all of which must be present.
    fn locate(&self) -> Result<DataExtent, ReadError> {
        let header = self.hdf5.file.get_or_parse_header(self.dataset.address());
        let header = header.map_err(|e| self.hdf5.damaged(e))?;
        let (layout, filters) = self.storage(&header.messages)?;
        let ranges = match layout {
            _ if self.needed == 0 => Vec::new(),
            None => return Err(self.invalid("has no layout".to_owned())),
            Some(DataLayout::Compact { data }) => {
                self.check_total(data.len() as u64)?;
                Vec::new()
            }
            Some(DataLayout::Contiguous { address, size }) => vec![self.block(*address, *size)?],
            Some(DataLayout::Chunked { address, dims, chunk_indexing, .. }) => {
                return self.locate_chunks((*address, chunk_indexing.as_ref()), dims, filters);
            }
        };
        Ok(DataExtent { chunk: self.needed as usize, ranges })
    }

    /// The layout and the filters in the messages of the object header.
    fn storage<'m>(
        &self,
        messages: &'m [HdfMessage],
    ) -> Result<(Option<&'m DataLayout>, &'m [FilterDescription]), ReadError> {
        let (mut layout, mut foreign) = (None, None);
        let mut filters: &[FilterDescription] = &[];
        for message in messages {
            match message {
                HdfMessage::DataLayout(message) => layout = Some(&message.layout),
                HdfMessage::FilterPipeline(message) => filters = &message.filters,
                HdfMessage::ExternalFiles(_) => foreign = Some("has its data in another file"),
                HdfMessage::Dataspace(space) if space.dataspace_type == DataspaceType::Null => {
                    foreign = Some("has no dataspace");
                }
                _ => {}
            }
        }
        let Some(what) = foreign else { return Ok((layout, filters)) };
        let (url, object) = (self.hdf5.url.clone(), self.name.to_owned());
        Err(ReadError::Foreign { url, object, what: what.to_owned() })
    }

    /// The location of data in contiguous layout.
    fn block(&self, address: u64, size: u64) -> Result<Range<u64>, ReadError> {
        if self.hdf5.is_undefined(address) {
            return Err(self.hdf5.unwritten(self.name, (0, 1), "blocks of data"));
        }
        self.check_total(size)?;
        self.hdf5.range_in_file(self.name, address, size)
    }

    /// Checks the size of data in compact or contiguous layout.
    fn check_total(&self, size: u64) -> Result<(), ReadError> {
        let problem = || format!("has {size} bytes of data where its shape needs {}", self.needed);
        (size == self.needed).then_some(()).ok_or_else(|| self.invalid(problem()))
    }

    /// The location of data in chunked layout; `dims` is the shape of a chunk.
    fn locate_chunks(
        &self,
        (address, indexing): (u64, Option<&ChunkIndexing>),
        dims: &[u32],
        filters: &[FilterDescription],
    ) -> Result<DataExtent, ReadError> {
        let shape = self.dataset.shape();
        // In version 3 of the layout message, the last dimension is the size of an element.
        let dims = dims.get(..shape.len()).unwrap_or_default();
        let chunk = self.chunk_size(dims)?;
        let mut counts = shape.iter().zip(dims).map(|(&n, &d)| n.div_ceil(u64::from(d)));
        let expected = counts.try_fold(1, u64::checked_mul).unwrap_or(u64::MAX);
        let unwritten = |found| self.hdf5.unwritten(self.name, (found, expected), "chunks");
        if self.hdf5.is_undefined(address) {
            return Err(unwritten(0));
        }
        if expected > MOST_CHUNKS {
            return Err(self.invalid(format!("has {expected} chunks, more than {MOST_CHUNKS}")));
        }
        let entries = self.entries(address, indexing, dims).map_err(|e| self.hdf5.damaged(e))?;
        let ranges = self.chunk_ranges(&entries, dims, chunk, filters)?;
        match ranges.len() as u64 {
            found if found == expected => Ok(DataExtent { chunk: chunk as usize, ranges }),
            found => Err(unwritten(found)),
        }
    }

    /// Bytes of a decoded chunk of shape `dims`.
    fn chunk_size(&self, dims: &[u32]) -> Result<u64, ReadError> {
        let (shape, bytes) = (self.dataset.shape(), self.needed);
        if dims.len() != shape.len() || dims.contains(&0) {
            return Err(self.invalid(format!("has chunks {dims:?} of data of shape {shape:?}")));
        }
        let chunk = byte_count(self.element_size, dims.iter().map(|&d| u64::from(d)));
        let Some(chunk) = chunk.filter(|&chunk| chunk <= u64::from(u32::MAX)) else {
            return Err(self.invalid(format!("has chunks of shape {dims:?}, beyond 4 GiB")));
        };
        if chunk > bytes.saturating_mul(CHUNK_EXCESS).saturating_add(SMALL_CHUNK) {
            return Err(self.invalid(format!("has chunks of {chunk} bytes for {bytes} of data")));
        }
        Ok(chunk)
    }

    /// The byte ranges of the chunks of shape `dims`, each of `chunk` bytes when decoded.
    fn chunk_ranges(
        &self,
        entries: &[ChunkEntry],
        dims: &[u32],
        chunk: u64,
        filters: &[FilterDescription],
    ) -> Result<Vec<Range<u64>>, ReadError> {
        let (hdf5, shape) = (self.hdf5, self.dataset.shape());
        let (mut ranges, mut found) = (Vec::with_capacity(entries.len()), HashSet::new());
        for entry in entries {
            let offsets = &entry.offsets;
            let on_grid = offsets.iter().zip(dims).all(|(&o, &d)| o % u64::from(d) == 0);
            if offsets.len() != shape.len() || !on_grid {
                return Err(self.invalid(format!("has a chunk at {offsets:?}")));
            }
            // HDF5 keeps the chunks beyond the end of a dataset that was shortened.
            let is_inside = offsets.iter().zip(shape).all(|(o, n)| o < n);
            if is_inside && !hdf5.is_undefined(entry.address) && found.insert(offsets) {
                check_size(entry, chunk, filters).map_err(|problem| self.invalid(problem))?;
                let size = if entry.size == 0 { chunk } else { entry.size };
                ranges.push(hdf5.range_in_file(self.name, entry.address, size)?);
            }
        }
        Ok(ranges)
    }

    /// All entries of the chunk index at `address`.
    fn entries(
        &self,
        address: u64,
        indexing: Option<&ChunkIndexing>,
        dims: &[u32],
    ) -> Result<Vec<ChunkEntry>, Hdf5Error> {
        let (file, shape) = (&self.hdf5.file, self.dataset.shape());
        let (storage, superblock) = (file.storage(), file.superblock());
        let (offsets, lengths) = (superblock.offset_size, superblock.length_size);
        let (ndim, max_dims, rank) = (shape.len(), self.dataset.max_dims(), shape.len() as u32);
        match indexing {
            None => {
                let rank = Some(rank);
                let leaves = btree_v1::collect_btree_v1_leaves_storage(
                    storage, address, offsets, lengths, rank, dims, None,
                )?;
                Ok(leaves.into_iter().filter_map(|node| chunk_of_leaf(node, ndim)).collect())
            }
            Some(ChunkIndexing::SingleChunk { filtered_size, filters }) => {
                Ok(vec![chunk_index::single_chunk_entry(address, *filtered_size, *filters, ndim)])
            }
            Some(ChunkIndexing::BTreeV2) => chunk_index::collect_v2_chunk_entries_storage(
                storage, address, offsets, lengths, rank, dims, None,
            ),
            Some(ChunkIndexing::Implicit) => {
                let (size, len) = (self.element_size as usize, storage.len());
                chunk_index::collect_implicit_chunk_entries(address, shape, dims, size, None, len)
            }
            Some(ChunkIndexing::FixedArray { .. }) => {
                fixed_array::collect_fixed_array_chunk_entries_storage(
                    storage, address, offsets, lengths, shape, dims, None,
                )
            }
            Some(ChunkIndexing::ExtensibleArray { .. }) => {
                extensible_array::collect_extensible_array_chunk_entries_storage(
                    storage, address, offsets, lengths, shape, max_dims, dims, None,
                )
            }
        }
    }

    fn invalid(&self, problem: String) -> ReadError {
        self.hdf5.contradiction(self.name, problem)
    }
}

/// Bytes of an array with dimensions `lens`; `None` when they exceed the address space.
fn byte_count(element_size: u64, mut lens: impl Iterator<Item = u64>) -> Option<u64> {
    lens.try_fold(element_size, u64::checked_mul)
        .filter(|&bytes| usize::try_from(bytes).is_ok_and(|bytes| bytes < usize::MAX / 2))
}

/// The chunk in a leaf of a version 1 B-tree.
fn chunk_of_leaf((key, address): (BTreeV1Key, u64), rank: usize) -> Option<ChunkEntry> {
    let BTreeV1Key::RawData { chunk_size, filter_mask, mut offsets } = key else { return None };
    offsets.truncate(rank);
    Some(ChunkEntry { address, size: u64::from(chunk_size), filter_mask, offsets })
}

/// Rejects a dataset with a filter that the library does not support.
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

/// Checks that a stored chunk can decode to `bytes`; the error is the problem in words.
fn check_size(
    entry: &ChunkEntry,
    bytes: u64,
    pipeline: &[FilterDescription],
) -> Result<(), String> {
    let is_skipped = |n: usize| n < 32 && entry.filter_mask & (1 << n) != 0;
    let keeps_size = |id: u16| matches!(id, filters::FILTER_SHUFFLE | filters::FILTER_FLETCHER32);
    // HDF5 skips a filter that fails on a chunk; shuffle and Fletcher-32 cannot fail.
    let is_wrongly_skipped =
        pipeline.iter().enumerate().any(|(n, f)| is_skipped(n) && keeps_size(f.id));
    let is_beyond_pipeline = pipeline.len() < 32 && entry.filter_mask >> pipeline.len() != 0;
    if is_beyond_pipeline || is_wrongly_skipped {
        return Err(format!("has a chunk with the filter mask {:#x}", entry.filter_mask));
    }
    let active = pipeline.iter().enumerate().filter(|(n, _)| !is_skipped(*n)).map(|(_, f)| f.id);
    let size = entry.size;
    let fits = match active.filter(|&id| !keeps_size(id)).collect::<Vec<_>>().as_slice() {
        // An index without sizes stores chunks without compression.
        [] => size == 0 || (bytes..=bytes + SLACK).contains(&size),
        [filters::FILTER_DEFLATE] => bytes <= size.saturating_mul(DEFLATE_RATIO) + SLACK,
        _ => true,
    };
    match fits {
        true => Ok(()),
        false => Err(format!("has a chunk of {size} bytes, which cannot hold {bytes}")),
    }
}

/// Length of an HDF5 file in its superblock ("HDF5 file format", II.A).
///
/// `None` for other versions than 0 to 3 and for addresses of other than 8 bytes, which netCDF-C does
/// not write.
fn end_of_file(start: &[u8]) -> Option<u64> {
    if !start.starts_with(b"\x89HDF") {
        // The superblock follows a user block.
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
