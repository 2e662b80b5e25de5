//! Reading no more than was agreed on: small objects, files of this machine, and lines. What is larger is
//! damaged, or was put there by somebody else, and is refused before it takes memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::file_kind::oddity;

/// Bytes of a small object: metadata, records, plans, claims.
pub const SMALL_OBJECT: u64 = 64 << 20;
/// Bytes of a line.
const LINE: u64 = 1 << 20;

fn too_large(what: &str, limit: u64) -> io::Error {
    let text = format!("{what} has more than {limit} bytes");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Opens a file of this machine for reading. A pipe or a device in its place is refused, not waited for.
pub fn open_file(path: &Path) -> io::Result<File> {
    // Should one come to be there now, it is not waited for either.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match oddity(file.metadata()?.file_type()) {
        Some(what) => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}"))),
        None => Ok(file),
    }
}

/// A file of this machine, of up to `limit` bytes.
pub(super) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if fs::metadata(path).is_ok_and(|found| found.len() > limit) {
        return Err(too_large("it", limit));
    }
    let mut bytes = Vec::new();
    open_file(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(too_large("it", limit)),
        false => Ok(bytes),
    }
}

/// The text of a file of this machine, of up to `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let text = String::from_utf8(read_file(path, limit)?);
    text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Lines that may have been compressed: each of up to a MiB, and all of them of up to `limit` bytes.
pub struct Lines<R> {
    from: BufReader<R>,
    line: Vec<u8>,
    left: u64,
    limit: u64,
}

impl<R: Read> Lines<R> {
    /// The lines that are read from `from`.
    pub fn new(from: R, limit: u64) -> Self {
        let from = BufReader::with_capacity(256 << 10, from);
        Self { from, line: Vec::new(), left: limit, limit }
    }

    /// The next line, with its line break if it has one; `None` at the end.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let most = LINE.min(self.left);
        let mut from = self.from.by_ref().take(most.saturating_add(1));
        let length = from.read_until(b'\n', &mut self.line)? as u64;
        if length > most {
            return Err(match most < LINE {
                true => too_large("what it holds", self.limit),
                false => too_large("one of its lines", LINE),
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
        assert!(error.to_string().contains("one of its lines"), "{error}");
    }
}
