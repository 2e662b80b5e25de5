//! Looking over a tree that is to be published: what would be passed over elsewhere is an error.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::atomic_file::is_staged;
use super::error::StoreError;
use super::file_kind::oddity;
use super::folder_walk::{has_number, usable_name};
use super::object_meta::ObjectMeta;
use super::skipped::{SkipLog, SkipReason, shown};

/// Metadata of Zarr: the only names with a dot in front that others are to read.
const DOTTED: [&str; 4] = [".zarray", ".zattrs", ".zgroup", ".zmetadata"];

/// An object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is below the store's location.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// Changes whenever its bytes do: on disk from inode, size, time of the bytes and of the inode.
    pub fingerprint: String,
}

/// Whether a key is one that is to be read by others: no part of it begins with a dot, but for the
/// metadata of Zarr, and it is no file that a writer left.
pub fn is_public(key: &str) -> bool {
    why_not_public(key).is_none()
}

fn why_not_public(key: &str) -> Option<SkipReason> {
    let (folders, name) = key.rsplit_once('/').unwrap_or(("", key));
    let is_hidden = folders.split('/').any(|folder| folder.starts_with('.'))
        || (name.starts_with('.') && !DOTTED.contains(&name));
    match is_hidden {
        true => Some(SkipReason::Hidden),
        false => has_number(key).then_some(SkipReason::Name),
    }
}

/// Which objects are wanted, by key; a key of `FOLDER/*` stands for all in a folder.
pub(super) type KeyFilter = Box<dyn Fn(&str) -> bool + Send>;

/// Those objects in a folder on disk that are public and wanted, and what was passed over; `deep` also those in its
/// folders. Keys begin with `prefix`.
pub(super) fn of_disk(
    folder: &Path,
    prefix: &str,
    deep: bool,
    wanted: &KeyFilter,
) -> Result<(Vec<SourceFile>, SkipLog), StoreError> {
    let real = folder.canonicalize().or_else(|error| failed(folder, error))?;
    let above = deep.then_some(real).into_iter().collect();
    let mut survey = TreeWalk { wanted, found: Vec::new(), passed: SkipLog::new() };
    survey.look_over(folder, prefix, above)?;
    Ok((survey.found, survey.passed))
}

/// Those objects of a listing that are public and wanted, and what was passed over.
pub(super) fn of_listing(listed: Vec<ObjectMeta>, wanted: KeyFilter) -> (Vec<SourceFile>, SkipLog) {
    let (mut found, mut passed) = (Vec::new(), SkipLog::new());
    for ObjectMeta { key, size, modified, etag } in listed {
        match why_not_public(&key) {
            Some(why) => passed.push((key, why)),
            None if wanted(&key) => {
                let version = etag.unwrap_or_else(|| modified.to_rfc3339());
                let fingerprint = format!("{size}-{version}");
                found.push(SourceFile { key, size, fingerprint });
            }
            None => {}
        }
    }
    (found, passed)
}

/// Keys of the public objects of a listing, and what is hidden and not `ours`: of a store on disk, whose folder is
/// `root`, a hidden folder once.
pub(super) fn public_keys(
    listed: Vec<ObjectMeta>,
    root: Option<&Path>,
    ours: impl Fn(&str) -> bool,
) -> (Vec<String>, SkipLog) {
    let (mut found, mut passed) = (Vec::new(), SkipLog::new());
    for ObjectMeta { key, .. } in listed {
        match why_not_public(&key) {
            None => found.push(key),
            Some(_) if ours(&key) => {}
            Some(why) => {
                let path = |root: &Path| shown(&root.join(hidden(&key)).to_string_lossy());
                passed.push((root.map_or_else(|| key.clone(), path), why));
            }
        }
    }
    (found, passed)
}

/// A key up to the first of its parts that begins with a dot.
fn hidden(key: &str) -> &str {
    let begin = match key.starts_with('.') {
        true => Some(0),
        false => key.find("/.").map(|slash| slash + 1),
    };
    let end = begin.and_then(|begin| Some(begin + key.get(begin..)?.find('/')?));
    end.and_then(|end| key.get(..end)).unwrap_or(key)
}

fn failed<T>(path: &Path, error: io::Error) -> Result<T, StoreError> {
    Err(StoreError::io(&path.display().to_string(), "list", error))
}

struct TreeWalk<'a> {
    wanted: &'a KeyFilter,
    found: Vec<SourceFile>,
    passed: SkipLog,
}

impl TreeWalk<'_> {
    /// `above` are the real paths of the folder and of those on the way to it; with none, folders in
    /// it are passed over.
    fn look_over(
        &mut self,
        folder: &Path,
        prefix: &str,
        above: Vec<PathBuf>,
    ) -> Result<(), StoreError> {
        let entries = match fs::read_dir(folder) {
            // Nothing in it is to be published: a pattern leaves all out.
            Err(_) if !prefix.is_empty() && !(self.wanted)(&format!("{prefix}/*")) => {
                self.pass(folder, SkipReason::Unreadable);
                return Ok(());
            }
            entries => entries.or_else(|error| failed(folder, error))?,
        };
        for entry in entries {
            let path = entry.or_else(|error| failed(folder, error))?.path();
            let Some(name) = usable_name(&path) else {
                let is_hidden = path.file_name().is_some_and(|n| n.as_bytes().starts_with(b"."));
                self.pass(&path, if is_hidden { SkipReason::Hidden } else { SkipReason::Name });
                continue;
            };
            let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            match why_not_public(&key) {
                // What a writer has not finished is nothing yet.
                Some(_) if is_staged(name) => {}
                Some(why) => self.pass(&path, why),
                None => self.look_at(&path, key, &above)?,
            }
        }
        Ok(())
    }

    fn look_at(&mut self, path: &Path, key: String, above: &[PathBuf]) -> Result<(), StoreError> {
        let odd = |what: String| StoreError::UnsupportedFileType {
            url: path.display().to_string(),
            what,
        };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(_) if !(self.wanted)(&key) => return Ok(()),
            Err(error) if path.is_symlink() => {
                let target = fs::read_link(path).unwrap_or_default();
                return Err(odd(format!("a link to {}: {error}", target.display())));
            }
            Err(error) => return failed(path, error),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let real = path.canonicalize().or_else(|error| failed(path, error))?;
            if above.contains(&real) {
                return Err(odd("a link in a circle, to a folder that it is in".to_owned()));
            }
            if !above.is_empty() {
                let above = above.iter().cloned().chain([real]).collect();
                self.look_over(path, &key, above)?;
            }
        } else if (self.wanted)(&key) {
            if let Some(what) = oddity(kind) {
                return Err(odd(what.to_owned()));
            }
            rustix::fs::access(path, rustix::fs::Access::READ_OK).map_err(|error| {
                StoreError::io(&path.display().to_string(), "read", error.into())
            })?;
            let (size, fingerprint) = (metadata.len(), fingerprint(&metadata));
            self.found.push(SourceFile { key, size, fingerprint });
        }
        Ok(())
    }

    fn pass(&mut self, path: &Path, why: SkipReason) {
        self.passed.push((shown(&path.to_string_lossy()), why));
    }
}

/// The time of the inode cannot be set back, as that of the bytes can.
fn fingerprint(of: &Metadata) -> String {
    let (changed, nanoseconds) = (of.ctime(), of.ctime_nsec());
    format!("{}-{}-{}.{}-{changed}.{nanoseconds}", of.ino(), of.len(), of.mtime(), of.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::{S3Options, StoreRegistry};

    #[test]
    fn some_names_are_nobody_elses_business() {
        for key in ["a/b.nc", "s.zarr/.zmetadata", "0/x/.zarray", "a#b", "name#"] {
            assert!(is_public(key), "{key}");
        }
        for key in [".DS_Store", "a/.git/config", "s/.cases/1.json", "a/b.nc#12", ".zarray/x"] {
            assert!(!is_public(key), "{key}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_published_is_named_and_changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let location = folder.path().display().to_string().parse().unwrap();
        let store = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
        fs::create_dir_all(at("d/.hidden")).unwrap();
        for name in ["d/a", "d/.hidden/b", "d/.zgroup", "d/c#1"] {
            fs::write(at(name), "one").unwrap();
        }
        let first = store.survey("", true, |_| true).await.unwrap();
        assert_eq!(first.iter().map(|f| &*f.key).collect::<Vec<_>>(), ["d/.zgroup", "d/a"]);
        // Other bytes of the same length, and the time of the old ones.
        let time = fs::metadata(at("d/a")).unwrap().modified().unwrap();
        fs::write(at("d/a"), "two").unwrap();
        fs::File::options().write(true).open(at("d/a")).unwrap().set_modified(time).unwrap();
        let second = store.survey("d", true, |_| true).await.unwrap();
        assert_ne!(first[1].fingerprint, second[1].fingerprint);
        assert_eq!(first[0], second[0]);
        for target in ["nowhere", "../d"] {
            symlink(target, at("d/link")).unwrap();
            let error = store.survey("", true, |_| true).await.unwrap_err();
            assert!(matches!(error, StoreError::UnsupportedFileType { .. }), "{error}");
            assert!(error.to_string().contains("d/link: a link"), "{error}");
            fs::remove_file(at("d/link")).unwrap();
        }
        fs::write(at("d/two\nlines"), "").unwrap();
        assert_eq!(store.survey("", true, |_| true).await.unwrap(), second);
        let passed: Vec<_> =
            store.skipped().into_iter().map(|(why, number, _)| (why, number)).collect();
        assert_eq!(passed, [(SkipReason::Hidden, 1), (SkipReason::Name, 2)]);
        assert!(store.survey("absent", true, |_| true).await.unwrap_err().is_not_found());
    }
}
