//! What lies at a path of this machine, if it is neither a file nor a folder.

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What is neither a file nor a folder: reading from it may never end.
pub(super) fn oddity(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_file() || kind.is_dir() => None,
        () if kind.is_fifo() => Some("a named pipe (FIFO), not a file"),
        () if kind.is_socket() => Some("a socket, not a file"),
        () => Some("a device, not a file"),
    }
}

/// What is neither a file nor a folder where a folder must be on the way to `path`.
pub(super) fn odd_above(path: &Path) -> Option<(String, String)> {
    let there = |above: &Path| Some((above.display().to_string(), fs::metadata(above).ok()?));
    let (above, found) = path.ancestors().find_map(there)?;
    oddity(found.file_type()).map(|what| (above, what.to_owned()))
}
