//! A research-grade file that is sent in parts while it is written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::timing::Timing;
use crate::encode::hdf5::{FileImage, InMemoryHdf5};
use crate::encode::{EncodeError, PartSink, SinkError};
use crate::model::dataset::Variable;
use crate::model::{Checksums, Md5Digest, Parts};

/// A research-grade file in memory, whose parts are sent as soon as their bytes are final.
pub(super) struct FileInParts<'a> {
    pub(super) writer: InMemoryHdf5,
    /// Byte ranges of the chunks in the file. Adjacent chunks are one range.
    chunks: Vec<Range<u64>>,
    parts: PartSender<'a>,
}

/// Sends each part of a file once.
struct PartSender<'a> {
    sink: &'a mut dyn PartSink,
    /// Bytes of the parts whose MD5s are recorded. On disk they are larger than the parts sent.
    part_size: u64,
    /// Indexes of the parts sent. The MD5 is absent where parts of another size are recorded.
    sent: BTreeMap<usize, Option<Md5Digest>>,
    /// Time spent on MD5s.
    hashing: Duration,
}

impl PartSender<'_> {
    /// Sends a part, unless it is sent already. A recorded MD5 goes with the part, so that the store
    /// does not compute it again.
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

/// A part could not be made or sent.
pub(super) enum PartError {
    Encode(EncodeError),
    Sink(SinkError),
}

impl From<EncodeError> for PartError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl<'a> FileInParts<'a> {
    /// Wraps a file whose variables are defined. `part_size` is that of the recorded MD5s, in bytes.
    pub(super) fn new(writer: InMemoryHdf5, sink: &'a mut dyn PartSink, part_size: u64) -> Self {
        let (sent, hashing) = (BTreeMap::new(), Duration::ZERO);
        let parts = PartSender { sink, part_size, sent, hashing };
        Self { writer, chunks: Vec::new(), parts }
    }

    /// Writes the only chunk of a dataset and notes its byte range.
    pub(super) fn write_chunk(
        &mut self,
        dataset: &str,
        variable: &Variable,
        chunk: &[u8],
    ) -> Result<(), EncodeError> {
        let range = self.writer.write_chunk(dataset, variable.dims.len(), chunk)?;
        match self.chunks.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.chunks.push(range),
        }
        Ok(())
    }

    /// Sends the parts that lie within chunks: only metadata changes later.
    pub(super) fn send_final(&mut self) -> Result<(), PartError> {
        let size = self.parts.sink.part_size() as u64;
        let Some(last) = self.chunks.last().cloned() else { return Ok(()) };
        for index in last.start.div_ceil(size)..last.end / size {
            let start = index * size;
            let copy = || self.writer.copy(start..start + size).map(Bytes::from);
            self.parts.send(index as usize, copy)?;
        }
        Ok(())
    }

    /// Sends the remaining parts and returns the size and the checksums of the file.
    pub(super) fn finish(self, timing: &mut Timing) -> Result<Checksums, PartError> {
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
        let recorded: Option<Parts> = parts.sent.into_values().collect();
        let md5 = recorded.unwrap_or_else(|| Parts::of(&image, parts.part_size));
        let content = Checksums::with_parts(&image, md5);
        // `sent - finished` contains the hashing of this loop, and earlier `write` times contain
        // the hashing of earlier parts.
        timing.write = (timing.write + (sent - finished)).saturating_sub(parts.hashing);
        timing.hash += parts.hashing + sent.elapsed();
        Ok(content)
    }
}
