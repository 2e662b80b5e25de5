//! Size limits for reads of small objects, local files and lines. A larger input is damaged or of another
//! kind, and is rejected before it takes memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::file_kind::special_file_kind;

/// Largest small object (metadata, manifest, record, plan or lease), in bytes.
pub const SMALL_OBJECT: u64 = 64 << 20;
/// Longest line, in bytes.
const MAX_LINE: u64 = 1 << 20;

fn too_large(what: &str, limit: u64) -> io::Error {
    let text = format!("{what} has more than {limit} bytes");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Opens a local file for reading.
///
/// # Errors
/// The file cannot be opened, or is a pipe, a socket or a device. The call does not block on these.
pub fn open_file(path: &Path) -> io::Result<File> {
    // Without `O_NONBLOCK`, opening a pipe blocks until it has a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match special_file_kind(file.metadata()?.file_type()) {
        Some(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}"))),
        None => Ok(file),
    }
}

/// Reads a local file.
///
/// # Errors
/// The file cannot be read, or has more than `limit` bytes.
pub(super) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > limit) {
        return Err(too_large("the file", limit));
    }
    let mut bytes = Vec::new();
    open_file(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(too_large("the file", limit)),
        false => Ok(bytes),
    }
}

/// Reads the text of a local file.
///
/// # Errors
/// The file cannot be read, has more than `limit` bytes, or is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let text = String::from_utf8(read_file(path, limit)?);
    text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Lines of a reader, with limits that bound the memory for a compressed input: 1 MiB a line, and
/// `limit` bytes in total.
pub struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// Bytes that may still be read.
    left: u64,
    limit: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of `reader`, of at most `limit` bytes in total.
    pub fn new(reader: R, limit: u64) -> Self {
        let reader = BufReader::with_capacity(256 << 10, reader);
        Self { reader, line: Vec::new(), left: limit, limit }
    }

    /// Returns the next line with its line break, if it has one; `None` at the end.
    ///
    /// # Errors
    /// The reader fails, or a limit is exceeded.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let most = MAX_LINE.min(self.left);
        let mut reader = self.reader.by_ref().take(most.saturating_add(1));
        let length = reader.read_until(b'\n', &mut self.line)? as u64;
        if length > most {
            return Err(match most < MAX_LINE {
                true => too_large("the content", self.limit),
                false => too_large("a line", MAX_LINE),
            });
        }
        self.left -= length;
        Ok((length > 0).then_some(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_lines_have_limits() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "a\nbc").unwrap();
        assert_eq!(read_text(&file, 4).unwrap(), "a\nbc");
        assert!(read_text(&file, 3).unwrap_err().to_string().contains("more than 3 bytes"));
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        assert!(read_text(&pipe, 3).unwrap_err().to_string().contains("named pipe"));
        let mut lines = Lines::new(&b"a\nbc"[..], 4);
        assert_eq!(lines.next_line().unwrap(), Some(&b"a\n"[..]));
        assert_eq!(lines.next_line().unwrap(), Some(&b"bc"[..]));
        assert_eq!(lines.next_line().unwrap(), None);
        let mut lines = Lines::new(&b"a\nbc"[..], 3);
        lines.next_line().unwrap();
        assert!(lines.next_line().unwrap_err().to_string().contains("more than 3 bytes"));
        let error = Lines::new(io::repeat(b'x'), u64::MAX).next_line().map(drop).unwrap_err();
        assert!(error.to_string().contains("a line has more than"), "{error}");
    }
}
