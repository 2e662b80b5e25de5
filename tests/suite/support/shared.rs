//! Data of the reference workflow, which is not part of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::skipped;

/// The folder `data` in `../shared`, or in `DOR_SHARED` if set. If the reference data are absent, prints
/// `SKIPPED` with `what`, the name of what was not tested, and returns `None`.
pub fn shared(what: &str) -> Option<PathBuf> {
    let default_folder = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("DOR_SHARED").map_or_else(default_folder, PathBuf::from);
    let data = folder.join("data");
    if !data.join("mini-expected.tar.gz").exists() {
        skipped(&format!("no {}: {what} was not tested", data.display()));
        return None;
    }
    Some(data)
}

/// Unpacks a small case and the output of the reference workflow for it into a temporary folder.
pub fn unpacked(data: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for archive in ["mini-case.tar.gz", "mini-expected.tar.gz"] {
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(data.join(archive)).arg("-C").arg(folder.path());
        assert!(tar.status().unwrap().success(), "{archive}");
    }
    folder
}
