//! Conflicts between objects and existing paths on disk. In a bucket, `a` and `a/b` can both be objects;
//! on disk, `a` is either a file or a folder.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::atomic_file;

/// Existing files and folders that prevent writing objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PathConflicts {
    /// Keys that cannot be written, each with the key of a file that prevents it.
    pub files: Vec<(String, String)>,
    /// Keys that are folders.
    pub folders: Vec<String>,
}

/// Finds the conflicts of objects with keys `keys` below `root`.
pub(super) fn path_conflicts(root: &Path, keys: Vec<String>) -> io::Result<PathConflicts> {
    let mut conflicts = PathConflicts::default();
    // Ancestors of earlier keys that are known not to be files.
    let mut folders = HashSet::new();
    for key in keys {
        let ancestors = key.match_indices('/').map(|(end, _)| &key[..end]);
        let is_file = |folder: &&str| {
            !folders.contains(*folder) && fs::metadata(root.join(folder)).is_ok_and(|m| !m.is_dir())
        };
        if let Some(file) = ancestors.clone().find(is_file).map(str::to_owned) {
            conflicts.files.push((key, file));
            continue;
        }
        folders.extend(ancestors.map(str::to_owned));
        let target = root.join(&key);
        if !fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_dir()) {
            continue;
        }
        for file in files_below(&target)? {
            let file = file.strip_prefix(root).unwrap_or(&file).to_string_lossy();
            conflicts.files.push((key.clone(), file.into_owned()));
        }
        conflicts.folders.push(key);
    }
    Ok(conflicts)
}

/// All files below a folder except temporary files, which their writers remove.
fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else if !entry.file_name().to_str().is_some_and(atomic_file::is_temp_name) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Removes a folder and its subfolders. A folder that contains files stays.
pub(super) fn remove_empty(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(meta) if meta.is_dir() => {}
        _ => return Ok(()),
    }
    for entry in fs::read_dir(folder)? {
        remove_empty(&entry?.path())?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_conflict_with_folders_and_folders_that_contain_files_with_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("full/a/b")).unwrap();
        fs::create_dir_all(at("empty/a/b")).unwrap();
        for file in ["file", "full/a/x", "full/.hidden", "empty/a/.x.host-1-2.staged"] {
            fs::write(at(file), "").unwrap();
        }
        let keys = ["file", "file/x/y", "full", "full/a/y", "empty", "new/x"];
        let found = path_conflicts(folder.path(), keys.map(str::to_owned).into()).unwrap();
        let mut files: Vec<_> = found.files.iter().map(|(k, f)| (k.as_str(), f.as_str())).collect();
        files.sort_unstable();
        assert_eq!(files, [("file/x/y", "file"), ("full", "full/.hidden"), ("full", "full/a/x")]);
        assert_eq!(found.folders, ["full", "empty"]);
        fs::remove_file(at("empty/a/.x.host-1-2.staged")).unwrap();
        for key in found.folders {
            remove_empty(&at(&key)).unwrap();
        }
        assert!(!at("empty").exists() && at("full/a/x").exists() && !at("full/a/b").exists());
    }
}
