//! Detection of special files: paths that are neither regular files nor folders.

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Description of a special file (pipe, socket, device), whose reading may block for ever; `None` for
/// a regular file or a folder.
pub(super) fn special_file_kind(kind: FileType) -> Option<&'static str> {
    match () {
        () if kind.is_file() || kind.is_dir() => None,
        () if kind.is_fifo() => Some("a named pipe (FIFO), not a file"),
        () if kind.is_socket() => Some("a socket, not a file"),
        () => Some("a device, not a file"),
    }
}

/// The closest existing ancestor of `path` and its description, if it is a special file.
pub(super) fn special_file_above(path: &Path) -> Option<(String, String)> {
    let existing =
        |ancestor: &Path| Some((ancestor.display().to_string(), fs::metadata(ancestor).ok()?));
    let (ancestor, metadata) = path.ancestors().find_map(existing)?;
    special_file_kind(metadata.file_type()).map(|what| (ancestor, what.to_owned()))
}
