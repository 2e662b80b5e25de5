//! The reference's data, which is not part of the project.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::skipped;

/// The folder of the reference's data beside the repository, or where `DOR_SHARED` says; `None`,
/// loudly, when it is not there and `what` cannot be tested.
pub fn shared(what: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let folder = std::env::var_os("DOR_SHARED").map_or_else(beside, PathBuf::from);
    let data = folder.join("data");
    if !data.join("mini-expected.tar.gz").exists() {
        skipped(&format!("no {}: {what} was not tested", data.display()));
        return None;
    }
    Some(data)
}

/// The whole small case and what the reference made of it, unpacked.
pub fn unpacked(data: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for archive in ["mini-case.tar.gz", "mini-expected.tar.gz"] {
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(data.join(archive)).arg("-C").arg(folder.path());
        assert!(tar.status().unwrap().success(), "{archive}");
    }
    folder
}
