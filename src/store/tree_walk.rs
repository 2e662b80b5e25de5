//! Listing of a folder that is to be published. Unlike in other listings, a public file that cannot be
//! read is an error and is not skipped.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::atomic_file::is_temp_name;
use super::error::StoreError;
use super::file_kind::special_file_kind;
use super::folder_walk::{has_hash_suffix, usable_name};
use super::object_meta::ObjectMeta;
use super::skipped::{SkipLog, SkipReason, escape_control};

/// Names of Zarr metadata: the only public names that begin with a dot.
const ZARR_METADATA: [&str; 4] = [".zarray", ".zattrs", ".zgroup", ".zmetadata"];

/// An object that can be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Key below the location of the store.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// A value that changes whenever the bytes change: on disk from inode, size, mtime and ctime,
    /// otherwise from size and ETag, or the time of the last write where there is no ETag.
    pub fingerprint: String,
}

/// Whether an object may be published. No segment of its key begins with a dot, except the names of
/// Zarr metadata, and its name is not that of a temporary file.
pub fn is_public(key: &str) -> bool {
    private_reason(key).is_none()
}

/// The reason why an object is not public; `None` if it is.
fn private_reason(key: &str) -> Option<SkipReason> {
    let (folders, name) = key.rsplit_once('/').unwrap_or(("", key));
    let is_hidden = folders.split('/').any(|folder| folder.starts_with('.'))
        || (name.starts_with('.') && !ZARR_METADATA.contains(&name));
    match is_hidden {
        true => Some(SkipReason::Hidden),
        false => has_hash_suffix(key).then_some(SkipReason::Name),
    }
}

/// Selects objects by key. The argument `FOLDER/*` asks whether any object in a folder can be selected.
pub(super) type KeyFilter = Box<dyn Fn(&str) -> bool + Send>;

/// The public objects in a folder on disk that `filter` selects, and the skipped entries; with `deep`
/// also those of its subfolders. Keys begin with `prefix`.
///
/// # Errors
/// A folder or a selected file cannot be read, or is a special file or a dangling or circular link.
pub(super) fn of_disk(
    folder: &Path,
    prefix: &str,
    deep: bool,
    filter: &KeyFilter,
) -> Result<(Vec<SourceFile>, SkipLog), StoreError> {
    let canonical = folder.canonicalize().or_else(|error| list_error(folder, error))?;
    let ancestors = deep.then_some(canonical).into_iter().collect();
    let mut walk = TreeWalk { filter, files: Vec::new(), skipped: SkipLog::new() };
    walk.folder(folder, prefix, ancestors)?;
    Ok((walk.files, walk.skipped))
}

/// The public objects of a listing that `filter` selects, and the skipped objects.
pub(super) fn of_listing(listed: Vec<ObjectMeta>, filter: KeyFilter) -> (Vec<SourceFile>, SkipLog) {
    let (mut files, mut skipped) = (Vec::new(), SkipLog::new());
    for ObjectMeta { key, size, modified, etag } in listed {
        match private_reason(&key) {
            Some(reason) => skipped.push((key, reason)),
            None if filter(&key) => {
                let version = etag.unwrap_or_else(|| modified.to_rfc3339());
                let fingerprint = format!("{size}-{version}");
                files.push(SourceFile { key, size, fingerprint });
            }
            None => {}
        }
    }
    (files, skipped)
}

/// The keys of the public objects of a listing, and the other objects that `is_ours` does not accept. On
/// disk, where `root` is the folder of the store, a hidden folder counts as one skipped entry.
pub(super) fn public_keys(
    listed: Vec<ObjectMeta>,
    root: Option<&Path>,
    is_ours: impl Fn(&str) -> bool,
) -> (Vec<String>, SkipLog) {
    let (mut keys, mut skipped) = (Vec::new(), SkipLog::new());
    for ObjectMeta { key, .. } in listed {
        match private_reason(&key) {
            None => keys.push(key),
            Some(_) if is_ours(&key) => {}
            Some(reason) => {
                let path =
                    |root: &Path| escape_control(&root.join(hidden_prefix(&key)).to_string_lossy());
                skipped.push((root.map_or_else(|| key.clone(), path), reason));
            }
        }
    }
    (keys, skipped)
}

/// A key up to and including its first segment that begins with a dot; the whole key if none does.
fn hidden_prefix(key: &str) -> &str {
    let begin = match key.starts_with('.') {
        true => Some(0),
        false => key.find("/.").map(|slash| slash + 1),
    };
    let end = begin.and_then(|begin| Some(begin + key.get(begin..)?.find('/')?));
    end.and_then(|end| key.get(..end)).unwrap_or(key)
}

/// The error of listing `path`, as a result.
fn list_error<T>(path: &Path, error: io::Error) -> Result<T, StoreError> {
    Err(StoreError::io(&path.display().to_string(), "list", error))
}

/// State of a listing.
struct TreeWalk<'a> {
    filter: &'a KeyFilter,
    files: Vec<SourceFile>,
    skipped: SkipLog,
}

impl TreeWalk<'_> {
    /// Lists one folder. `ancestors` has the canonical paths of the folder and of its parents; if it is
    /// empty, subfolders are not listed.
    fn folder(
        &mut self,
        folder: &Path,
        prefix: &str,
        ancestors: Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let entries = match fs::read_dir(folder) {
            // The filter selects nothing in this folder.
            Err(_) if !prefix.is_empty() && !(self.filter)(&format!("{prefix}/*")) => {
                self.skip(folder, SkipReason::Unreadable);
                return Ok(());
            }
            entries => entries.or_else(|error| list_error(folder, error))?,
        };
        for entry in entries {
            let path = entry.or_else(|error| list_error(folder, error))?.path();
            let Some(name) = usable_name(&path) else {
                let is_hidden = path.file_name().is_some_and(|n| n.as_bytes().starts_with(b"."));
                self.skip(&path, if is_hidden { SkipReason::Hidden } else { SkipReason::Name });
                continue;
            };
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            match private_reason(&key) {
                // A temporary file is not part of the tree.
                Some(_) if is_temp_name(name) => {}
                Some(reason) => self.skip(&path, reason),
                None => self.entry(&path, key, &ancestors)?,
            }
        }
        Ok(())
    }

    /// Adds one public entry.
    fn entry(&mut self, path: &Path, key: String, ancestors: &[PathBuf]) -> Result<(), StoreError> {
        let unsupported = |what: String| StoreError::UnsupportedFileType {
            url: path.display().to_string(),
            what,
        };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(_) if !(self.filter)(&key) => return Ok(()),
            Err(error) if path.is_symlink() => {
                let target = fs::read_link(path).unwrap_or_default();
                return Err(unsupported(format!("a link to {}: {error}", target.display())));
            }
            Err(error) => return list_error(path, error),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let canonical = path.canonicalize().or_else(|error| list_error(path, error))?;
            if ancestors.contains(&canonical) {
                let what = "a circular link to one of its parent folders".to_owned();
                return Err(unsupported(what));
            }
            if !ancestors.is_empty() {
                let ancestors = ancestors.iter().cloned().chain([canonical]).collect();
                self.folder(path, &key, ancestors)?;
            }
        } else if (self.filter)(&key) {
            if let Some(what) = special_file_kind(kind) {
                return Err(unsupported(what.to_owned()));
            }
            rustix::fs::access(path, rustix::fs::Access::READ_OK).map_err(|error| {
                StoreError::io(&path.display().to_string(), "read", error.into())
            })?;
            let (size, fingerprint) = (metadata.len(), fingerprint(&metadata));
            self.files.push(SourceFile { key, size, fingerprint });
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, reason: SkipReason) {
        self.skipped.push((escape_control(&path.to_string_lossy()), reason));
    }
}

/// The fingerprint of a file. It contains the ctime, because a program can restore the mtime.
fn fingerprint(file: &Metadata) -> String {
    let (inode, size) = (file.ino(), file.len());
    let (mtime, mtime_nsec) = (file.mtime(), file.mtime_nsec());
    let (ctime, ctime_nsec) = (file.ctime(), file.ctime_nsec());
    format!("{inode}-{size}-{mtime}.{mtime_nsec}-{ctime}.{ctime_nsec}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::{S3Options, StoreRegistry};

    #[test]
    fn hidden_and_temporary_names_are_not_public() {
        for key in ["a/b.nc", "s.zarr/.zmetadata", "0/x/.zarray", "a#b", "name#"] {
            assert!(is_public(key), "{key}");
        }
        for key in [".DS_Store", "a/.git/config", "s/.cases/1.json", "a/b.nc#12", ".zarray/x"] {
            assert!(!is_public(key), "{key}");
        }
    }

    #[tokio::test]
    async fn unreadable_files_are_named_and_changes_are_detected() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let location = folder.path().display().to_string().parse().unwrap();
        let store = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
        fs::create_dir_all(at("d/.hidden")).unwrap();
        for name in ["d/a", "d/.hidden/b", "d/.zgroup", "d/c#1"] {
            fs::write(at(name), "one").unwrap();
        }
        let first = store.list_publishable("", true, |_| true).await.unwrap();
        assert_eq!(first.iter().map(|f| &*f.key).collect::<Vec<_>>(), ["d/.zgroup", "d/a"]);
        // Other bytes of the same length, with the mtime of the old ones.
        let time = fs::metadata(at("d/a")).unwrap().modified().unwrap();
        fs::write(at("d/a"), "two").unwrap();
        fs::File::options().write(true).open(at("d/a")).unwrap().set_modified(time).unwrap();
        let second = store.list_publishable("d", true, |_| true).await.unwrap();
        assert_ne!(first[1].fingerprint, second[1].fingerprint);
        assert_eq!(first[0], second[0]);
        for target in ["nowhere", "../d"] {
            symlink(target, at("d/link")).unwrap();
            let error = store.list_publishable("", true, |_| true).await.unwrap_err();
            assert!(matches!(error, StoreError::UnsupportedFileType { .. }), "{error}");
            assert!(error.to_string().contains("link to"), "{error}");
            fs::remove_file(at("d/link")).unwrap();
        }
        fs::write(at("d/two\nlines"), "").unwrap();
        assert_eq!(store.list_publishable("", true, |_| true).await.unwrap(), second);
        let skipped: Vec<_> =
            store.skipped().into_iter().map(|(reason, number, _)| (reason, number)).collect();
        assert_eq!(skipped, [(SkipReason::Hidden, 1), (SkipReason::Name, 2)]);
        assert!(store.list_publishable("absent", true, |_| true).await.unwrap_err().is_not_found());
    }
}
