//! Listing of a folder on disk.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::atomic_file;
use super::error::StoreError;
use super::file_kind::special_file_kind;
use super::object_meta::ObjectMeta;
use super::skipped::{SkipLog, SkipReason, escape_control};

/// Keys that the caller expects to be files or folders. An entry with such a key is an error if it is of
/// another type or cannot be read; other entries are skipped.
pub(super) enum ExpectedFiles {
    /// Keys that must be files.
    Files(KeyPredicate),
    /// Keys that must be folders.
    Folders(KeyPredicate),
}

type KeyPredicate = Box<dyn Fn(&str) -> bool + Send>;

impl ExpectedFiles {
    /// Expects no key.
    pub(super) fn nothing() -> Self {
        Self::Files(Box::new(|_| false))
    }

    fn has(&self, key: &str) -> bool {
        let (Self::Files(is_expected) | Self::Folders(is_expected)) = self;
        is_expected(key)
    }

    fn is_file(&self, key: &str) -> bool {
        matches!(self, Self::Files(is_expected) if is_expected(key))
    }
}

/// The contents of a folder.
#[derive(Default)]
pub(super) struct FolderContents {
    /// Files, sorted by key; in a deep listing also those of the subfolders.
    pub files: Vec<ObjectMeta>,
    /// Keys of the direct subfolders, sorted; empty in a deep listing.
    pub folders: Vec<String>,
    /// Entries that were skipped.
    pub skipped: SkipLog,
}

/// Lists a folder; its keys begin with `prefix`. An absent folder is empty.
///
/// # Errors
/// A folder cannot be listed, or an expected entry is of another type or cannot be read.
pub(super) fn walk(
    folder: &Path,
    prefix: &str,
    deep: bool,
    expected: &ExpectedFiles,
) -> Result<FolderContents, StoreError> {
    let mut contents = FolderContents::default();
    match folder.canonicalize() {
        Ok(canonical) => {
            let mut walk = Walk { contents: &mut contents, deep, expected };
            walk.folder(folder, prefix, &mut vec![canonical])?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_link_loop(&error) => {
            ensure_not_dangling(folder)?;
        }
        Err(error) => return Err(list_error(folder, error)),
    }
    contents.files.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    contents.folders.sort_unstable();
    Ok(contents)
}

/// State of a listing.
struct Walk<'a> {
    contents: &'a mut FolderContents,
    deep: bool,
    expected: &'a ExpectedFiles,
}

impl Walk<'_> {
    /// Lists one folder. `ancestors` has the canonical paths of the folder and of its parents, root
    /// first; they detect loops of symbolic links.
    fn folder(
        &mut self,
        folder: &Path,
        prefix: &str,
        ancestors: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let entries = match fs::read_dir(folder) {
            Err(error) if ancestors.len() > 1 && is_inaccessible(&error) => {
                self.skip(folder, SkipReason::Unreadable);
                return Ok(());
            }
            entries => entries.map_err(|error| list_error(folder, error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| list_error(folder, error))?;
            let path = entry.path();
            let Some(name) = usable_name(&path) else {
                self.skip(&path, SkipReason::Name);
                continue;
            };
            if atomic_file::is_temp_name(name) {
                continue;
            }
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            // The canonical path of an entry that is not a symbolic link.
            let canonical = ancestors.last().map_or(path.clone(), |folder| folder.join(name));
            let metadata = entry.metadata().map_err(|error| list_error(&path, error));
            let target = metadata.and_then(|metadata| match metadata.is_symlink() {
                true => follow(&path),
                false => Ok(Some((metadata, canonical))),
            });
            match target {
                Ok(Some((metadata, canonical))) => {
                    self.entry(&path, key, &metadata, canonical, ancestors)?;
                }
                // Another process has renamed or removed the entry.
                Ok(None) | Err(StoreError::NotFound { .. }) => {}
                Err(error) if self.expected.has(&key) => return Err(error),
                Err(StoreError::PermissionDenied { .. }) => {
                    self.skip(&path, SkipReason::Unreadable);
                }
                Err(StoreError::UnsupportedFileType { .. }) => {
                    self.skip(&path, SkipReason::UnsupportedFileType)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds one entry, or skips it. `metadata` and `canonical` are those of the target of a symbolic
    /// link.
    fn entry(
        &mut self,
        path: &Path,
        key: String,
        metadata: &Metadata,
        canonical: PathBuf,
        ancestors: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let unsupported = |what: &str| {
            Err(StoreError::UnsupportedFileType {
                url: path.display().to_string(),
                what: what.to_owned(),
            })
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            if self.expected.is_file(&key) {
                return unsupported("a folder where a file is expected");
            }
            if !self.deep {
                self.contents.folders.push(key);
            } else if ancestors.iter().any(|folder| folder.starts_with(&canonical)) {
                self.skip(path, SkipReason::UnsupportedFileType);
            } else {
                ancestors.push(canonical);
                self.folder(path, &key, ancestors)?;
                ancestors.pop();
            }
            return Ok(());
        }
        match (special_file_kind(kind), modified(metadata)) {
            (Some(what), _) if self.expected.has(&key) => return unsupported(what),
            (None, Some(_)) if has_hash_suffix(&key) => self.skip(path, SkipReason::Name),
            (None, Some(modified)) => {
                let etag = Some(etag(metadata));
                self.contents.files.push(ObjectMeta { key, size: metadata.len(), modified, etag });
            }
            (Some(_), _) | (None, None) => self.skip(path, SkipReason::UnsupportedFileType),
        }
        Ok(())
    }

    fn skip(&mut self, path: &Path, reason: SkipReason) {
        self.contents.skipped.push((escape_control(&path.to_string_lossy()), reason));
    }
}

/// An error of listing `path`.
fn list_error(path: &Path, error: io::Error) -> StoreError {
    StoreError::io(&path.display().to_string(), "list", error)
}

/// Whether a folder cannot be listed because it belongs to another user (such as `lost+found`) or has
/// been removed.
fn is_inaccessible(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), PermissionDenied | NotFound | NotADirectory)
}

/// Modification time of a file; `None` if it is outside the range of [`DateTime`].
pub(super) fn modified(metadata: &Metadata) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(metadata.mtime(), u32::try_from(metadata.mtime_nsec()).ok()?)
}

/// The ETag of a file in the form that `object_store` uses (inode, time in microseconds and size, all
/// hexadecimal). A test compares the two.
fn etag(metadata: &Metadata) -> String {
    let seconds = i128::from(metadata.mtime());
    let time = (seconds * 1_000_000 + i128::from(metadata.mtime_nsec() / 1000)).max(0);
    format!("{:x}-{time:x}-{:x}", metadata.ino(), metadata.len())
}

/// The name of an entry, if it can be the name of an object: UTF-8 without control characters.
pub(super) fn usable_name(path: &Path) -> Option<&str> {
    path.file_name().unwrap_or_default().to_str().filter(|name| !name.contains(char::is_control))
}

/// Whether a name ends in `#` and digits. `object_store` uses such names for temporary files on disk and
/// does not read them.
pub(super) fn has_hash_suffix(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    let digits = name.split_once('#').map(|(_, digits)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Checks that an absent path is not absent because of a dangling or circular symbolic link.
///
/// # Errors
/// [`StoreError::UnsupportedFileType`] with the link.
pub(super) fn ensure_not_dangling(absent: &Path) -> Result<(), StoreError> {
    let is_dangling = |path: &&Path| {
        let target = fs::metadata(path);
        path.is_symlink()
            && target.is_err_and(|e| e.kind() == io::ErrorKind::NotFound || is_link_loop(&e))
    };
    absent.ancestors().find(is_dangling).map_or(Ok(()), |link| follow(link).map(drop))
}

/// Metadata and canonical path of the target of a symbolic link; `None` if the link no longer exists.
fn follow(link: &Path) -> Result<Option<(Metadata, PathBuf)>, StoreError> {
    let target = fs::metadata(link).and_then(|metadata| Ok((metadata, link.canonicalize()?)));
    let url = link.display().to_string();
    let what = match (target, fs::read_link(link)) {
        (Ok(target), _) => return Ok(Some(target)),
        (Err(error), Ok(_)) if is_link_loop(&error) => "a circular link".to_owned(),
        (Err(error), Ok(target)) if error.kind() == io::ErrorKind::NotFound => {
            format!("a link to {}, which does not exist", target.display())
        }
        (Err(error), Ok(_)) => return Err(StoreError::io(&url, "list", error)),
        (Err(_), Err(_)) => return Ok(None),
    };
    Err(StoreError::UnsupportedFileType { url, what })
}

/// Whether an error is `ELOOP`: too many symbolic links.
fn is_link_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn keys(folder: &Path) -> (Vec<String>, Vec<SkipReason>) {
        let contents = walk(folder, "", true, &ExpectedFiles::nothing()).unwrap();
        let skipped = contents.skipped.into_iter().map(|(_, reason)| reason).collect();
        (contents.files.into_iter().map(|file| file.key).collect(), skipped)
    }

    #[test]
    fn unusable_entries_are_skipped_unless_they_are_expected() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs::create_dir_all(at("listed/deep")).unwrap();
        fs::create_dir_all(at("aside")).unwrap();
        fs::write(at("aside/x.nc"), "x").unwrap();
        symlink(at("aside"), at("listed/deep/folder")).unwrap();
        symlink(at("aside/x.nc"), at("listed/deep/file.nc")).unwrap();
        let expected_files = ["deep/file.nc", "deep/folder/x.nc"].map(str::to_owned);
        assert_eq!(keys(&at("listed")), (expected_files.to_vec(), vec![]));
        for absent in ["absent", "absent/deeper"] {
            assert_eq!(keys(&at(absent)), (vec![], vec![]));
        }
        fs::write(at("listed/.x.host-1-2.staged"), "").unwrap();
        for name in [&b"caf\xe9.nc"[..], b"two\nlines", b"left#12"] {
            fs::write(at("listed").join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, at("listed/pipe"), rustix::fs::Mode::RWXU).unwrap();
        let links = [
            (at("gone"), "listed/deep/case_00449.001"),
            (at("listed"), "listed/deep/up"),
            (at("listed/deep/self"), "listed/deep/self"),
            // Two links, each with a target that contains the other.
            (at("listed/deep"), "aside/back"),
        ];
        for (target, link) in &links {
            symlink(target, at(link)).unwrap();
        }
        let (files, mut skipped) = keys(&at("listed"));
        skipped.sort_unstable();
        assert_eq!(files, expected_files);
        assert_eq!(
            skipped,
            [[SkipReason::Name; 3].as_slice(), &[SkipReason::UnsupportedFileType; 5]].concat()
        );
        for name in ["pipe", "deep", "deep/self", "deep/case_00449.001"] {
            let expected = ExpectedFiles::Files(Box::new(move |key| key == name));
            let error = walk(&at("listed"), "", true, &expected).map(drop).unwrap_err();
            assert!(matches!(error, StoreError::UnsupportedFileType { .. }), "{error}");
            assert!(error.to_string().contains(&format!("/{name}: a ")), "{error}");
        }
        let expected = ExpectedFiles::Folders(Box::new(|key| key.ends_with("/case_00449.001")));
        let error = walk(&at("listed/deep"), "deep", false, &expected).map(drop).unwrap_err();
        assert!(error.to_string().contains("case_00449.001: a link to "), "{error}");
        symlink(at("gone"), at("archive")).unwrap();
        for folder in ["archive", "archive/deeper"] {
            let listed = walk(&at(folder), "", true, &ExpectedFiles::nothing());
            let error = listed.map(drop).unwrap_err().to_string();
            assert!(error.contains("/archive: a link to ") && error.contains("gone"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_listing_and_a_head_return_the_same_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().display().to_string().parse().unwrap();
        let store = crate::store::StoreRegistry::new(Default::default()).open(&location).unwrap();
        for (name, seconds) in [("now", None), ("future", Some(9_000_000_000)), ("past", Some(7))] {
            let path = folder.path().join(name);
            fs::write(&path, name).unwrap();
            if let Some(seconds) = seconds {
                let time = std::time::UNIX_EPOCH + std::time::Duration::new(seconds, 987_654_321);
                fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            }
        }
        let listed = store.list("").await.unwrap();
        assert_eq!(listed.len(), 3);
        for info in listed {
            assert_eq!(store.head(&info.key).await.unwrap().as_ref(), Some(&info));
            assert_eq!(
                store.list_with_delimiter("").await.unwrap().iter().find(|i| **i == info),
                Some(&info)
            );
        }
    }
}
