//! Looking over a folder on disk.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::atomic_file;
use super::error::StoreError;
use super::file_kind::oddity;
use super::object_meta::ObjectMeta;
use super::skipped::{SkipLog, SkipReason, shown};

/// What the caller knows to be its own.
pub(super) enum ExpectedFiles {
    /// Keys that must be those of files.
    Files(IsOwnFile),
    /// Keys that must be those of folders.
    Folders(IsOwnFile),
}

type IsOwnFile = Box<dyn Fn(&str) -> bool + Send>;

impl ExpectedFiles {
    pub(super) fn nothing() -> Self {
        Self::Files(Box::new(|_| false))
    }

    fn has(&self, key: &str) -> bool {
        let (Self::Files(ours) | Self::Folders(ours)) = self;
        ours(key)
    }

    fn is_file(&self, key: &str) -> bool {
        matches!(self, Self::Files(ours) if ours(key))
    }
}

/// What lies in a folder.
#[derive(Default)]
pub(super) struct FolderContents {
    /// Its files, sorted by key; with those of the folders in it where that was asked for.
    pub files: Vec<ObjectMeta>,
    /// Keys of the folders directly in it, sorted.
    pub folders: Vec<String>,
    /// What was passed over.
    pub passed: SkipLog,
}

/// Lists a folder, whose keys begin with `prefix`; an absent one is empty.
pub(super) fn walk(
    folder: &Path,
    prefix: &str,
    deep: bool,
    expected: &ExpectedFiles,
) -> Result<FolderContents, StoreError> {
    let mut found = FolderContents::default();
    match folder.canonicalize() {
        Ok(real) => {
            let mut walk = Walk { found: &mut found, deep, expected };
            walk.folder(folder, prefix, &mut vec![real])?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_circle(&error) => {
            refuse_dangling(folder)?;
        }
        Err(error) => return Err(failed(folder, error)),
    }
    found.files.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    found.folders.sort_unstable();
    Ok(found)
}

struct Walk<'a> {
    found: &'a mut FolderContents,
    deep: bool,
    expected: &'a ExpectedFiles,
}

impl Walk<'_> {
    /// `above` are the real paths of the folder and of those on the way to it.
    fn folder(
        &mut self,
        folder: &Path,
        prefix: &str,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let entries = match fs::read_dir(folder) {
            Err(error) if above.len() > 1 && is_closed(&error) => {
                self.pass(folder, SkipReason::Unreadable);
                return Ok(());
            }
            entries => entries.map_err(|error| failed(folder, error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| failed(folder, error))?;
            let path = entry.path();
            let Some(name) = usable_name(&path) else {
                self.pass(&path, SkipReason::Name);
                continue;
            };
            if atomic_file::is_staged(name) {
                continue;
            }
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            // Where it really lies, as far as no link has to be followed for that.
            let real = above.last().map_or(path.clone(), |above| above.join(name));
            let told = entry.metadata().map_err(|error| failed(&path, error));
            let led = told.and_then(|told| match told.is_symlink() {
                true => follow(&path),
                false => Ok(Some((told, real))),
            });
            match led {
                Ok(Some((metadata, real))) => self.entry(&path, key, &metadata, real, above)?,
                // Renamed or removed meanwhile.
                Ok(None) | Err(StoreError::NotFound { .. }) => {}
                Err(error) if self.expected.has(&key) => return Err(error),
                Err(StoreError::PermissionDenied { .. }) => {
                    self.pass(&path, SkipReason::Unreadable);
                }
                Err(StoreError::UnsupportedFileType { .. }) => {
                    self.pass(&path, SkipReason::UnsupportedFileType)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &Path,
        key: String,
        metadata: &Metadata,
        real: PathBuf,
        above: &mut Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let odd = |what: &str| {
            Err(StoreError::UnsupportedFileType {
                url: path.display().to_string(),
                what: what.to_owned(),
            })
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            if self.expected.is_file(&key) {
                return odd("a folder where a file is expected");
            }
            if !self.deep {
                self.found.folders.push(key);
            } else if above.iter().any(|folder| folder.starts_with(&real)) {
                self.pass(path, SkipReason::UnsupportedFileType);
            } else {
                above.push(real);
                self.folder(path, &key, above)?;
                above.pop();
            }
            return Ok(());
        }
        match (oddity(kind), modified(metadata)) {
            (Some(what), _) if self.expected.has(&key) => return odd(what),
            (None, Some(_)) if has_number(&key) => self.pass(path, SkipReason::Name),
            (None, Some(modified)) => {
                let etag = Some(etag(metadata));
                self.found.files.push(ObjectMeta { key, size: metadata.len(), modified, etag });
            }
            (Some(_), _) | (None, None) => self.pass(path, SkipReason::UnsupportedFileType),
        }
        Ok(())
    }

    fn pass(&mut self, path: &Path, why: SkipReason) {
        self.found.passed.push((shown(&path.to_string_lossy()), why));
    }
}

fn failed(path: &Path, error: io::Error) -> StoreError {
    StoreError::io(&path.display().to_string(), "list", error)
}

/// Whether a folder is somebody else's, or cannot be read at all: such as lost+found.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), PermissionDenied | NotFound | NotADirectory)
}

/// When a file was written; `None` beyond the years that can be told.
pub(super) fn modified(metadata: &Metadata) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(metadata.mtime(), u32::try_from(metadata.mtime_nsec()).ok()?)
}

/// The version of a file, as `object_store` makes it when it is opened: a test holds that.
fn etag(metadata: &Metadata) -> String {
    let seconds = i128::from(metadata.mtime());
    let time = (seconds * 1_000_000 + i128::from(metadata.mtime_nsec() / 1000)).max(0);
    format!("{:x}-{time:x}-{:x}", metadata.ino(), metadata.len())
}

/// The name of what lies on disk, when it can be one of an object.
pub(super) fn usable_name(path: &Path) -> Option<&str> {
    path.file_name().unwrap_or_default().to_str().filter(|name| !name.contains(char::is_control))
}

/// Whether a name ends in `#` and digits: no object on disk can have it.
pub(super) fn has_number(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    let digits = name.split_once('#').map(|(_, digits)| digits);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Refuses what is not there because it, or a folder above it, is a link that leads nowhere.
pub(super) fn refuse_dangling(absent: &Path) -> Result<(), StoreError> {
    let leads_nowhere = |path: &&Path| {
        let seen = fs::metadata(path);
        path.is_symlink()
            && seen.is_err_and(|e| e.kind() == io::ErrorKind::NotFound || is_circle(&e))
    };
    absent.ancestors().find(leads_nowhere).map_or(Ok(()), |link| follow(link).map(drop))
}

/// What a link leads to, and where that really is; `None` when the link has gone meanwhile.
fn follow(link: &Path) -> Result<Option<(Metadata, PathBuf)>, StoreError> {
    let led = fs::metadata(link).and_then(|led| Ok((led, link.canonicalize()?)));
    let url = link.display().to_string();
    let what = match (led, fs::read_link(link)) {
        (Ok(led), _) => return Ok(Some(led)),
        (Err(error), Ok(_)) if is_circle(&error) => "a link in a circle".to_owned(),
        (Err(error), Ok(target)) if error.kind() == io::ErrorKind::NotFound => {
            format!("a link to {}, which does not exist", target.display())
        }
        (Err(error), Ok(_)) => return Err(StoreError::io(&url, "list", error)),
        (Err(_), Err(_)) => return Ok(None),
    };
    Err(StoreError::UnsupportedFileType { url, what })
}

fn is_circle(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    fn keys(folder: &Path) -> (Vec<String>, Vec<SkipReason>) {
        let found = walk(folder, "", true, &ExpectedFiles::nothing()).unwrap();
        let passed = found.passed.into_iter().map(|(_, why)| why).collect();
        (found.files.into_iter().map(|file| file.key).collect(), passed)
    }

    #[test]
    fn whatever_lies_there_is_passed_over_unless_it_should_be_ours() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs::create_dir_all(at("listed/deep")).unwrap();
        fs::create_dir_all(at("aside")).unwrap();
        fs::write(at("aside/x.nc"), "x").unwrap();
        symlink(at("aside"), at("listed/deep/folder")).unwrap();
        symlink(at("aside/x.nc"), at("listed/deep/file.nc")).unwrap();
        let good = ["deep/file.nc", "deep/folder/x.nc"].map(str::to_owned);
        assert_eq!(keys(&at("listed")), (good.to_vec(), vec![]));
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
            // Two links that lead into each other's folder.
            (at("listed/deep"), "aside/back"),
        ];
        for (target, link) in &links {
            symlink(target, at(link)).unwrap();
        }
        let (files, mut passed) = keys(&at("listed"));
        passed.sort_unstable();
        assert_eq!(files, good);
        assert_eq!(
            passed,
            [[SkipReason::Name; 3].as_slice(), &[SkipReason::UnsupportedFileType; 5]].concat()
        );
        for name in ["pipe", "deep", "deep/self", "deep/case_00449.001"] {
            let ours = ExpectedFiles::Files(Box::new(move |key| key == name));
            let error = walk(&at("listed"), "", true, &ours).map(drop).unwrap_err();
            assert!(matches!(error, StoreError::UnsupportedFileType { .. }), "{error}");
            assert!(error.to_string().contains(&format!("/{name}: a ")), "{error}");
        }
        let ours = ExpectedFiles::Folders(Box::new(|key| key.ends_with("/case_00449.001")));
        let error = walk(&at("listed/deep"), "deep", false, &ours).map(drop).unwrap_err();
        assert!(error.to_string().contains("case_00449.001: a link to "), "{error}");
        symlink(at("gone"), at("archive")).unwrap();
        for folder in ["archive", "archive/deeper"] {
            let listed = walk(&at(folder), "", true, &ExpectedFiles::nothing());
            let error = listed.map(drop).unwrap_err().to_string();
            assert!(error.contains("/archive: a link to ") && error.contains("gone"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_listing_and_a_look_tell_the_same_of_a_file() {
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
