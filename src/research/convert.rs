//! Conversion of one raw file into one research-grade file. The code is synchronous and runs on a
//! CPU thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use md5::{Digest as _, Md5};

use super::file_parts::{FileInParts, PartError};
pub use super::timing::Timing;
use super::validate::{ValidationError, check_month, check_points, check_shapes};
use crate::encode::deflate;
use crate::encode::research::{
    self, FileLayout, FileProvenance, OutputVariable, SOURCE_SHA256, Values,
};
use crate::encode::shuffle::Shuffler;
use crate::encode::{EncodeError, PartSink, SinkError};
use crate::model::cf::Decoding;
use crate::model::dataset::{ByteOrder, Header, Variable};
use crate::model::{Case, Checksums, Grid, YearMonth};
use crate::model::{ErrorKind, WithErrorKind, time_units};
use crate::read::bounds;
use crate::read::grid::check_degrees;
use crate::read::history::{self, History};
use crate::read::{ByteSource, ReadError};

/// A raw file could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The raw file is not valid or cannot be read.
    #[error(transparent)]
    Input(#[from] ValidationError),
    /// The research-grade file could not be encoded.
    #[error("cannot make the research-grade file of {url}")]
    Encode {
        /// URL of the raw file.
        url: String,
        /// What the HDF5 library or the layout refused.
        source: EncodeError,
    },
    /// A part of the file could not be stored.
    #[error("cannot store the research-grade file of {url}")]
    Store {
        /// URL of the raw file.
        url: String,
        /// What the store answered.
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

/// What all files of a case share.
pub struct CaseContext {
    /// The case that the files belong to.
    pub case: Case,
    /// Points of the grid file; `None` without a grid file.
    pub grid: Option<Arc<Grid>>,
    /// Bytes of a part, of which the case manifest records the MD5.
    pub part_size: u64,
    chunks: ChunkCache,
}

impl CaseContext {
    /// Creates the context of a case. `part_size` is in bytes and comes from the case manifest.
    pub fn new(case: Case, grid: Option<Arc<Grid>>, part_size: u64) -> Self {
        Self { case, grid, part_size, chunks: ChunkCache::default() }
    }
}

/// The MD5 of uncompressed planes and the chunk compressed from them.
type CachedChunk = ([u8; 16], Arc<Vec<u8>>);

/// Compressed chunks of grid fields by variable. The files of a case have equal grid fields, so that
/// each is compressed once for a case.
#[derive(Default)]
struct ChunkCache {
    chunks: Mutex<HashMap<String, CachedChunk>>,
}

impl ChunkCache {
    /// The chunk of a variable: the cached one when the planes have the same MD5, else a new one.
    fn get(
        &self,
        variable: &str,
        planes: &[u8],
        compress: impl FnOnce() -> Vec<u8>,
    ) -> Arc<Vec<u8>> {
        let digest: [u8; 16] = Md5::digest(planes).into();
        let lock = || self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cached, chunk)) = lock().get(variable)
            && *cached == digest
        {
            return chunk.clone();
        }
        let chunk = Arc::new(compress());
        lock().insert(variable.to_owned(), (digest, chunk.clone()));
        chunk
    }
}

/// Result of a conversion whose parts have all been passed to the sink.
#[derive(Debug)]
pub struct Converted {
    /// Size and checksums of the research-grade file.
    pub content: Checksums,
    /// SHA-256 of the raw file, in hexadecimal.
    pub source_sha256: String,
    /// Time by kind of work.
    pub timing: Timing,
}

/// A raw file to convert.
pub struct RawInput<'a> {
    /// Reads the bytes of the file.
    pub source: Box<dyn ByteSource>,
    /// Month that the file name states.
    pub month: YearMonth,
    /// File name, for the `source_file` attribute.
    pub name: &'a str,
    /// Modification time of the file. It dates the line in `history`, so that equal inputs give
    /// equal bytes at any time.
    pub modified: chrono::DateTime<chrono::Utc>,
}

/// Converts one raw file and passes the parts of the research-grade file to `sink`.
///
/// # Errors
/// The raw file is not valid, the research-grade file cannot be encoded, or `sink` fails.
pub fn convert(
    input: RawInput<'_>,
    context: &CaseContext,
    sink: &mut dyn PartSink,
) -> Result<Converted, ConvertError> {
    let RawInput { source, month, name, modified } = input;
    let url = source.url().to_owned();
    let grid = context.grid.as_deref();
    let mut history = History::open(source)?;
    check_shapes(history.header(), &url, grid)?;
    let small = SmallVariables::read(&mut history)?;
    let header = history.header();
    let bounds = month_bounds(header, &small, &url, month)?;
    check_coordinates(header, &small, &url, grid)?;
    let provenance = provenance(context, (month, name), modified, bounds);
    let layout =
        research::layout(header, &provenance, |variable: &str| small.stored(header, variable))
            .map_err(|source| ReadError::Meaning { url: url.clone(), source })?;

    let mut file = FileConversion::begin(context, &layout, &url, (history, small), sink)?;
    for (index, output) in in_reading_order(&file.history, &layout) {
        let planes = file.shuffle(index, output)?;
        file.write(&output.variable, planes)?;
    }
    file.finish()
}

/// Start and end of the month in days since 0000-01-01, from the time bounds of the raw file.
fn month_bounds(
    header: &Header,
    small: &SmallVariables,
    url: &str,
    month: YearMonth,
) -> Result<[f64; 2], ValidationError> {
    let bounds = match time_units::time_bounds(header) {
        None => Vec::new(),
        Some(variable) => {
            let stored = small.stored(header, &variable.name).unwrap_or_default();
            history::days(header, variable, stored, url)?
        }
    };
    check_month(&bounds, url, month)
}

/// Compares the T points of the raw file with the grid file. Without a grid file, checks that the
/// coordinates are latitudes and longitudes in degrees.
fn check_coordinates(
    header: &Header,
    small: &SmallVariables,
    url: &str,
    grid: Option<&Grid>,
) -> Result<(), ValidationError> {
    let degrees = |name: &str| small.decoded(header, name, url);
    if let Some(grid) = grid {
        if let (Some(tlat), Some(tlong)) = (degrees("TLAT")?, degrees("TLONG")?) {
            check_points(&tlat, &tlong, url, grid)?;
        }
        return Ok(());
    }
    for (lat, lon) in [("TLAT", "TLONG"), ("ULAT", "ULONG")] {
        let (Some(lats), Some(lons)) = (degrees(lat)?, degrees(lon)?) else { continue };
        let nlon = header.variable(lat).and_then(|v| v.dims.last()).map_or(1, |d| d.len);
        check_degrees((lat, &lats), (lon, &lons), nlon)
            .map_err(|problem| ReadError::Degrees { url: url.to_owned(), problem })?;
    }
    Ok(())
}

/// What the attributes and the added variables of the research-grade file are computed from.
fn provenance<'a>(
    context: &'a CaseContext,
    (month, source_file): (YearMonth, &'a str),
    modified: chrono::DateTime<chrono::Utc>,
    bounds: [f64; 2],
) -> FileProvenance<'a> {
    let (date, version) = (modified.format("%Y-%m-%dT%H:%M:%SZ"), crate::VERSION);
    FileProvenance {
        case: context.case,
        month,
        bounds,
        grid: context.grid.as_deref(),
        source_file,
        history: format!("{date} dor {version}: research-grade form of {source_file}"),
    }
}

/// Chunked variables with the indexes of their raw variables, in the order of the raw data.
/// Variables with computed values come first; their index is `usize::MAX`.
fn in_reading_order<'a>(
    history: &History,
    layout: &'a FileLayout,
) -> Vec<(usize, &'a OutputVariable)> {
    let mut ranks = vec![0; history.header().variables.len()];
    for (position, index) in history.data_order().into_iter().enumerate() {
        ranks[index] = position + 1;
    }
    let mut outputs: Vec<(usize, &OutputVariable)> = layout
        .outputs
        .iter()
        .filter(|output| output.is_chunked())
        .map(|output| match output.values {
            Values::Raw(index) => (index, output),
            Values::Computed(_) => (usize::MAX, output),
        })
        .collect();
    outputs.sort_by_key(|(index, _)| ranks.get(*index).copied().unwrap_or(0));
    outputs
}

/// The stored bytes of the variables that `convert` keeps in memory: the time variables, those
/// that do not vary with time, and those that are not stored in chunks.
struct SmallVariables {
    /// Bytes by index of the raw variable.
    bytes: HashMap<usize, Vec<u8>>,
    /// Byte order of all raw data of the file.
    order: ByteOrder,
}

impl SmallVariables {
    /// Reads the small variables.
    ///
    /// In the classic formats most small variables precede the data variables, so that they are
    /// read in sequence. Each of the others takes a request.
    fn read(history: &mut History) -> Result<Self, ReadError> {
        let mut small = HashMap::new();
        let mut is_past_data = false;
        for index in history.data_order() {
            let variable = &history.header().variables[index];
            if !bounds::is_small(history.header(), variable) {
                is_past_data = true;
                continue;
            }
            let mut bytes = Vec::with_capacity(variable.bytes());
            history.read(index, is_past_data, |piece| bytes.extend_from_slice(piece))?;
            small.insert(index, bytes);
        }
        Ok(Self { bytes: small, order: history.byte_order() })
    }

    /// Values of a variable as stored, before scale factor and units are applied.
    fn stored(&self, header: &Header, name: &str) -> Option<Vec<f64>> {
        let index = header.variables.iter().position(|v| v.name == name)?;
        let variable = header.variables.get(index)?;
        Some(history::to_f64(self.bytes.get(&index)?, variable.dtype, self.order))
    }

    /// Values of a variable in the units that this program computes in; `None` when the file has
    /// no such variable.
    fn decoded(
        &self,
        header: &Header,
        name: &str,
        url: &str,
    ) -> Result<Option<Vec<f64>>, ReadError> {
        let Some((variable, stored)) = header.variable(name).zip(self.stored(header, name)) else {
            return Ok(None);
        };
        let decoding = Decoding::of(variable)
            .map_err(|source| ReadError::Meaning { url: url.to_owned(), source })?;
        Ok(Some(decoding.values(stored)))
    }
}

/// The conversion of one file, variable by variable.
struct FileConversion<'a> {
    context: &'a CaseContext,
    layout: &'a FileLayout,
    /// Raw file, for messages.
    url: &'a str,
    history: History,
    /// Variables that are not written yet.
    small: SmallVariables,
    file: FileInParts<'a>,
    /// Buffer for the planes of a variable, reused so that its pages are allocated once.
    planes: Vec<u8>,
    /// Buffer for a compressed chunk, reused for the same reason.
    compressed: Vec<u8>,
    timing: Timing,
}

impl<'a> FileConversion<'a> {
    /// Defines the research-grade file and writes the variables that are not chunked.
    fn begin(
        context: &'a CaseContext,
        layout: &'a FileLayout,
        url: &'a str,
        (history, small): (History, SmallVariables),
        sink: &'a mut dyn PartSink,
    ) -> Result<Self, ConvertError> {
        let start = Instant::now();
        let raw = |index: usize| small.bytes.get(&index).cloned();
        let writer = research::define(layout, small.order, raw).map_err(encode_failed(url))?;
        let file = FileInParts::new(writer, sink, context.part_size);
        let timing = Timing { encode: start.elapsed(), ..Timing::default() };
        let (planes, compressed) = (Vec::new(), Vec::new());
        Ok(Self { context, layout, url, history, small, file, planes, compressed, timing })
    }

    /// Reads the values of a variable and sorts their bytes into planes. `index` is that of the
    /// raw variable.
    fn shuffle(&mut self, index: usize, output: &OutputVariable) -> Result<Vec<u8>, ConvertError> {
        let variable = &output.variable;
        let order = match output.values {
            Values::Computed(_) => ByteOrder::Little,
            Values::Raw(_) => self.small.order,
        };
        let (buffer, size) = (std::mem::take(&mut self.planes), variable.dtype.size());
        let mut shuffler = Shuffler::with_buffer(buffer, variable.len(), size, order);
        let timing = &mut self.timing;
        let mut push = |piece: &[u8]| {
            let start = Instant::now();
            shuffler.push(piece);
            timing.shuffle += start.elapsed();
        };
        match (&output.values, self.small.bytes.remove(&index)) {
            (Values::Computed(bytes), _) => push(bytes),
            (Values::Raw(_), Some(bytes)) => push(&bytes),
            (Values::Raw(index), None) => self.history.read(*index, false, push)?,
        }
        shuffler.finish().ok_or_else(|| {
            let (variable, expected) = (variable.name.clone(), variable.bytes());
            let source = EncodeError::Length { variable, found: 0, expected };
            ConvertError::Encode { url: self.url.to_owned(), source }
        })
    }

    /// Compresses the planes of a variable, writes them as its chunk, and sends the parts of the
    /// file that no longer change.
    fn write(&mut self, variable: &Variable, planes: Vec<u8>) -> Result<(), ConvertError> {
        let size = variable.dtype.size();
        let start = Instant::now();
        let cached;
        let chunk = if variable.has_leading_dim("polygon_id") {
            deflate::zlib_into(&planes, size, &mut self.compressed);
            &self.compressed
        } else {
            let compress = || deflate::zlib(&planes, size);
            cached = self.context.chunks.get(&variable.name, &planes, compress);
            &*cached
        };
        self.planes = planes;
        let compressed = Instant::now();
        self.timing.deflate += compressed - start;
        self.file
            .write_chunk(&self.layout.dataset(variable), variable, chunk)
            .map_err(encode_failed(self.url))?;
        let written = Instant::now();
        self.timing.encode += written - compressed;
        self.file.send_final().map_err(|error| error.into_error(self.url))?;
        self.timing.write += written.elapsed();
        Ok(())
    }

    /// Reads the raw file to its end, records its SHA-256, and sends the remaining parts.
    fn finish(self) -> Result<Converted, ConvertError> {
        let Self { url, history, mut file, mut timing, .. } = self;
        let summary = history.finish()?;
        timing.read += summary.waiting;
        timing.hash += summary.hashing;
        file.writer.set_text(SOURCE_SHA256, &summary.sha256).map_err(encode_failed(url))?;
        let content = file.finish(&mut timing).map_err(|error| error.into_error(url))?;
        Ok(Converted { content, source_sha256: summary.sha256, timing })
    }
}

impl PartError {
    /// The error with the URL of the raw file.
    fn into_error(self, url: &str) -> ConvertError {
        let url = url.to_owned();
        match self {
            Self::Encode(source) => ConvertError::Encode { url, source },
            Self::Sink(source) => ConvertError::Store { url, source },
        }
    }
}

/// Makes a [`ConvertError::Encode`] of a raw file from its cause.
fn encode_failed(url: &str) -> impl Fn(EncodeError) -> ConvertError {
    move |source| ConvertError::Encode { url: url.to_owned(), source }
}
