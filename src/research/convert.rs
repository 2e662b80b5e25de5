//! One raw file in, one research-grade file out. No async: runs on a CPU thread.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::validate::{ValidationError, check_month, check_points, check_shapes};
use crate::encode::deflate;
use crate::encode::hdf5::{FileImage, InMemoryHdf5};
use crate::encode::research::{
    self, FileLayout, FileProvenance, OutputVariable, SOURCE_SHA256, Values,
};
use crate::encode::shuffle::Shuffler;
use crate::encode::{EncodeError, PartSink, SinkError};
use crate::model::cf::Decoding;
use crate::model::dataset::{ByteOrder, Variable};
use crate::model::{Case, Checksums, Grid, Md5Digest, Parts, YearMonth};
use crate::model::{ErrorKind, WithErrorKind, time_units};
use crate::read::bounds;
use crate::read::grid::check_degrees;
use crate::read::history::{self, History};
use crate::read::{ByteSource, ReadError};

/// A raw file could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The raw file cannot be used.
    #[error(transparent)]
    Input(#[from] ValidationError),
    /// The research-grade file could not be made.
    #[error("cannot make the research-grade file of {url}")]
    Encode {
        /// Raw file.
        url: String,
        /// Cause.
        source: EncodeError,
    },
    /// A part of the file could not be stored.
    #[error("cannot store the research-grade file of {url}")]
    Store {
        /// Raw file.
        url: String,
        /// Cause.
        source: SinkError,
    },
}

impl WithErrorKind for ConvertError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Input(error) => error.kind(),
            Self::Store { source, .. } => source.kind(),
            Self::Encode { .. } => ErrorKind::Defect,
        }
    }
}

impl From<ReadError> for ConvertError {
    fn from(error: ReadError) -> Self {
        ValidationError::from(error).into()
    }
}

/// What the files of a case have in common.
pub struct CaseContext {
    /// The case.
    pub case: Case,
    /// The full grid, when there is one.
    pub grid: Option<Arc<Grid>>,
    /// Bytes of the parts of the files of which the MD5s are recorded.
    pub part_size: u64,
    chunks: ChunkCache,
}

impl CaseContext {
    /// For a case on a grid, whose record has the MD5s of parts of so many bytes.
    pub fn new(case: Case, grid: Option<Arc<Grid>>, part_size: u64) -> Self {
        Self { case, grid, part_size, chunks: ChunkCache::default() }
    }
}

/// A compressed chunk and the MD5 of what it was made from.
type CachedChunk = ([u8; 16], Arc<Vec<u8>>);

/// Chunks of grid fields: every file of a case has the same, so they are compressed once.
#[derive(Default)]
struct ChunkCache {
    chunks: Mutex<HashMap<String, CachedChunk>>,
}

impl ChunkCache {
    fn get(
        &self,
        variable: &str,
        planes: &[u8],
        compress: impl FnOnce() -> Vec<u8>,
    ) -> Arc<Vec<u8>> {
        let digest: [u8; 16] = Md5::digest(planes).into();
        let lock = || self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, chunk)) = lock().get(variable)
            && *known == digest
        {
            return chunk.clone();
        }
        let chunk = Arc::new(compress());
        lock().insert(variable.to_owned(), (digest, chunk.clone()));
        chunk
    }
}

/// Where the time of a conversion went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Waiting for bytes of the raw file.
    pub read: Duration,
    /// SHA-256 of the raw file; SHA-256 of the result and MD5 of its parts.
    pub hash: Duration,
    /// Sorting bytes into planes.
    pub shuffle: Duration,
    /// Compressing.
    pub deflate: Duration,
    /// Defining the file and placing its chunks.
    pub encode: Duration,
    /// Handing parts to the store.
    pub write: Duration,
}

impl std::ops::AddAssign for Timing {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.hash += other.hash;
        self.shuffle += other.shuffle;
        self.deflate += other.deflate;
        self.encode += other.encode;
        self.write += other.write;
    }
}

/// A finished conversion whose parts have all been handed over.
#[derive(Debug)]
pub struct Converted {
    /// Size and checksums of the research-grade file.
    pub content: Checksums,
    /// SHA-256 of the raw file, in hexadecimal.
    pub source_sha256: String,
    /// Where the time went.
    pub timing: Timing,
}

/// A raw file to convert.
pub struct RawInput<'a> {
    /// Its bytes.
    pub source: Box<dyn ByteSource>,
    /// Month that its name states.
    pub month: YearMonth,
    /// Its name, for the `source_file` attribute.
    pub name: &'a str,
    /// When it was written: dates the line in `history`, so that the same input gives the same
    /// bytes whenever it is converted.
    pub modified: chrono::DateTime<chrono::Utc>,
}

/// Converts one file and hands its parts to `sink`.
pub fn convert(
    input: RawInput<'_>,
    context: &CaseContext,
    sink: &mut dyn PartSink,
) -> Result<Converted, ConvertError> {
    let url = input.source.url().to_owned();
    let encode_failed = |source| ConvertError::Encode { url: url.clone(), source };
    let meaning = |source| ReadError::Meaning { url: url.clone(), source };
    let mut timing = Timing::default();
    let mut history = History::open(input.source)?;
    let order = history.byte_order();
    check_shapes(history.header(), &url, context.grid.as_deref())?;

    let mut small = read_small(&mut history)?;
    let header = history.header();
    let stored = |name: &str| {
        let index = header.variables.iter().position(|v| v.name == name)?;
        Some(history::to_f64(small.get(&index)?, header.variables.get(index)?.dtype, order))
    };
    let bounds = match time_units::time_bounds(header) {
        None => Vec::new(),
        Some(bounds) => {
            history::days(header, bounds, stored(&bounds.name).unwrap_or_default(), &url)?
        }
    };
    let bounds = check_month(&bounds, &url, input.month)?;
    let points = |name: &str| {
        let found = header.variable(name).zip(stored(name));
        let decoded = |(variable, stored)| Ok(Decoding::of(variable)?.values(stored));
        found.map(decoded).transpose().map_err(&meaning)
    };
    if let Some(grid) = context.grid.as_deref() {
        if let (Some(tlat), Some(tlong)) = (points("TLAT")?, points("TLONG")?) {
            check_points(&tlat, &tlong, &url, grid)?;
        }
    } else {
        for (lat, lon) in [("TLAT", "TLONG"), ("ULAT", "ULONG")] {
            let (Some(lats), Some(lons)) = (points(lat)?, points(lon)?) else { continue };
            let nlon = header.variable(lat).and_then(|v| v.dims.last()).map_or(1, |d| d.len);
            check_degrees((lat, &lats), (lon, &lons), nlon)
                .map_err(|problem| ReadError::Degrees { url: url.clone(), problem })?;
        }
    }
    let date = input.modified.format("%Y-%m-%dT%H:%M:%SZ");
    let origin = FileProvenance {
        case: context.case,
        month: input.month,
        bounds,
        grid: context.grid.as_deref(),
        source_file: input.name,
        history: format!("{date} dor {}: research-grade form of {}", crate::VERSION, input.name),
    };
    let layout = research::layout(header, &origin, stored).map_err(meaning)?;

    let start = Instant::now();
    let writer = research::define(&layout, order, |index| small.get(&index).cloned())
        .map_err(encode_failed)?;
    let (part_size, sent, hashing) = (context.part_size, BTreeMap::new(), Duration::ZERO);
    let parts = PartSender { sink, part_size, sent, hashing };
    let mut file = FileInParts { writer, chunks: Vec::new(), parts };
    timing.encode += start.elapsed();

    // Taken from variable to variable, so that their pages are made once.
    let (mut buffer, mut compressed) = (Vec::new(), Vec::new());
    for (index, output) in in_reading_order(&history, &layout) {
        let variable = &output.variable;
        let size = variable.dtype.size();
        let order = match output.values {
            Values::Made(_) => ByteOrder::Little,
            Values::Raw(_) => order,
        };
        let reused = std::mem::take(&mut buffer);
        let mut shuffler = Shuffler::with_buffer(reused, variable.len(), size, order);
        let mut push = |piece: &[u8]| {
            let start = Instant::now();
            shuffler.push(piece);
            timing.shuffle += start.elapsed();
        };
        match (&output.values, small.remove(&index)) {
            (Values::Made(bytes), _) => push(bytes),
            (Values::Raw(_), Some(bytes)) => push(&bytes),
            (Values::Raw(index), None) => history.read(*index, false, push)?,
        }
        let planes = shuffler.finish().ok_or_else(|| {
            let (variable, expected) = (variable.name.clone(), variable.bytes());
            encode_failed(EncodeError::Length { variable, found: 0, expected })
        })?;
        let start = Instant::now();
        let cached;
        let chunk = if variable.has_leading_dim("polygon_id") {
            deflate::zlib_into(&planes, size, &mut compressed);
            &compressed
        } else {
            cached = context.chunks.get(&variable.name, &planes, || deflate::zlib(&planes, size));
            &*cached
        };
        buffer = planes;
        let deflated = Instant::now();
        timing.deflate += deflated - start;
        file.place(&layout.dataset(variable), variable, chunk).map_err(encode_failed)?;
        let placed = Instant::now();
        timing.encode += placed - deflated;
        file.send_final().map_err(|e| e.into_error(&url))?;
        timing.write += placed.elapsed();
    }
    let finished = history.finish()?;
    timing.read += finished.waiting;
    timing.hash += finished.hashing;
    file.writer.set_text(SOURCE_SHA256, &finished.sha256).map_err(encode_failed)?;
    let content = file.finish(&mut timing).map_err(|e| e.into_error(&url))?;
    Ok(Converted { content, source_sha256: finished.sha256, timing })
}

/// Variables in the order in which their raw data comes, those made here first.
fn in_reading_order<'a>(
    history: &History,
    layout: &'a FileLayout,
) -> Vec<(usize, &'a OutputVariable)> {
    let mut place = vec![0; history.header().variables.len()];
    for (position, index) in history.order().into_iter().enumerate() {
        place[index] = position + 1;
    }
    let mut outputs: Vec<(usize, &OutputVariable)> = layout
        .outputs
        .iter()
        .filter(|o| o.is_chunked())
        .map(|o| match o.values {
            Values::Raw(index) => (index, o),
            Values::Made(_) => (usize::MAX, o),
        })
        .collect();
    outputs.sort_by_key(|(index, _)| place.get(*index).copied().unwrap_or(0));
    outputs
}

/// Bytes of every variable that does not vary with time, of the times, and of those that are not
/// stored in chunks.
///
/// In the classic formats these come before the data variables, so that they are read in passing;
/// the few that do not are fetched by themselves.
fn read_small(history: &mut History) -> Result<HashMap<usize, Vec<u8>>, ReadError> {
    let mut small = HashMap::new();
    let mut passed_data = false;
    for index in history.order() {
        let variable = &history.header().variables[index];
        if !bounds::is_small(history.header(), variable) {
            passed_data = true;
            continue;
        }
        let mut bytes = Vec::with_capacity(variable.bytes());
        history.read(index, passed_data, |piece| bytes.extend_from_slice(piece))?;
        small.insert(index, bytes);
    }
    Ok(small)
}

/// A file under construction, whose parts are sent as soon as nothing in them can change.
struct FileInParts<'a> {
    writer: InMemoryHdf5,
    /// Chunks in the file, by position; neighbours are joined.
    chunks: Vec<Range<u64>>,
    parts: PartSender<'a>,
}

/// Sends parts, each once.
struct PartSender<'a> {
    sink: &'a mut dyn PartSink,
    /// Bytes of the parts whose MD5s are recorded: those that are sent, or on disk larger ones.
    part_size: u64,
    /// Parts that were sent, with their MD5s where these are recorded.
    sent: BTreeMap<usize, Option<Md5Digest>>,
    /// How long hashing took.
    hashing: Duration,
}

impl PartSender<'_> {
    /// Sends a part, unless it was. Its MD5 goes with it where that is recorded, so that nobody computes
    /// it again.
    fn send(
        &mut self,
        index: usize,
        part: impl FnOnce() -> Result<Bytes, EncodeError>,
    ) -> Result<(), PartError> {
        if self.sent.contains_key(&index) {
            return Ok(());
        }
        let part = part()?;
        let start = Instant::now();
        let is_recorded = self.sink.part_size() as u64 == self.part_size;
        let md5 = is_recorded.then(|| Md5Digest::of(&part));
        self.hashing += start.elapsed();
        self.sink.part(index, part, md5).map_err(PartError::Sink)?;
        self.sent.insert(index, md5);
        Ok(())
    }
}

enum PartError {
    Encode(EncodeError),
    Sink(SinkError),
}

impl From<EncodeError> for PartError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl PartError {
    fn into_error(self, url: &str) -> ConvertError {
        let url = url.to_owned();
        match self {
            Self::Encode(source) => ConvertError::Encode { url, source },
            Self::Sink(source) => ConvertError::Store { url, source },
        }
    }
}

impl FileInParts<'_> {
    fn place(
        &mut self,
        dataset: &str,
        variable: &Variable,
        chunk: &[u8],
    ) -> Result<(), EncodeError> {
        let place = self.writer.write_chunk(dataset, variable.dims.len(), chunk)?;
        match self.chunks.last_mut() {
            Some(last) if last.end == place.start => last.end = place.end,
            _ => self.chunks.push(place),
        }
        Ok(())
    }

    /// Sends the parts that lie inside chunks: nothing but metadata changes afterwards.
    fn send_final(&mut self) -> Result<(), PartError> {
        let size = self.parts.sink.part_size() as u64;
        let Some(last) = self.chunks.last().cloned() else { return Ok(()) };
        for index in last.start.div_ceil(size)..last.end / size {
            let start = index * size;
            let copy = || self.writer.copy(start..start + size).map(Bytes::from);
            self.parts.send(index as usize, copy)?;
        }
        Ok(())
    }

    /// Sends the rest; gives the size and the checksums of the file.
    fn finish(self, timing: &mut Timing) -> Result<Checksums, PartError> {
        let Self { writer, mut parts, .. } = self;
        let start = Instant::now();
        let image: FileImage = writer.finish()?;
        let image = Bytes::from_owner(image);
        let finished = Instant::now();
        timing.encode += finished - start;
        let size = parts.sink.part_size();
        for (index, start) in (0..image.len()).step_by(size).enumerate() {
            parts.send(index, || Ok(image.slice(start..image.len().min(start + size))))?;
        }
        let sent = Instant::now();
        let known: Option<Parts> = parts.sent.into_values().collect();
        let md5 = known.unwrap_or_else(|| Parts::of(&image, parts.part_size));
        let content = Checksums::with_parts(&image, md5);
        // Both passed while parts were sent, here and before.
        timing.write = (timing.write + (sent - finished)).saturating_sub(parts.hashing);
        timing.hash += parts.hashing + sent.elapsed();
        Ok(content)
    }
}
