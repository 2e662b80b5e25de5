//! Looking over a tree that is to be published: what would be passed over elsewhere is an error.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::list::usable_name;
use super::open::Store;
use super::read::oddity;
use super::write::blocking;

/// Metadata of Zarr: the only names with a dot in front that others are to read.
const DOTTED: [&str; 4] = [".zarray", ".zattrs", ".zgroup", ".zmetadata"];

/// An object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
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
    let (folders, name) = key.rsplit_once('/').unwrap_or(("", key));
    let left = |name: &str| {
        name.rsplit_once('#')
            .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    !folders.split('/').any(|folder| folder.starts_with('.'))
        && (!name.starts_with('.') || DOTTED.contains(&name))
        && !left(name)
}

impl Store {
    /// The public objects in the folder `prefix` (`""`: the root) that are `wanted`, sorted by key;
    /// with `deep` also those in its folders. On disk, links that lead nowhere or in a circle,
    /// files that cannot be read, and what is no file are errors.
    pub async fn survey(
        &self,
        prefix: &str,
        deep: bool,
        wanted: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<Surveyed>, StoreError> {
        let mut found = match self.folder(prefix)? {
            None => {
                let objects = match deep {
                    true => self.list(prefix).await?,
                    false => self.list_level(prefix).await?,
                };
                let surveyed = objects
                    .into_iter()
                    .filter(|object| is_public(&object.key) && wanted(&object.key));
                let of_etag = |object: super::ObjectInfo| {
                    let version = object.etag.unwrap_or_else(|| object.modified.to_rfc3339());
                    let fingerprint = format!("{}-{version}", object.size);
                    Surveyed { key: object.key, size: object.size, fingerprint }
                };
                surveyed.map(of_etag).collect()
            }
            Some(folder) => {
                let prefix = prefix.trim_end_matches('/').to_owned();
                let url = self.url(&prefix);
                let walk = move || {
                    let mut found = Vec::new();
                    let real = match folder.canonicalize() {
                        Ok(real) => real,
                        Err(error) => return Ok(failed(&folder, error)),
                    };
                    let above = deep.then_some(real).into_iter().collect();
                    Ok(look_over(&folder, &prefix, above, &wanted, &mut found).map(|()| found))
                };
                blocking(&url, "list", walk).await??
            }
        };
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }
}

fn failed<T>(path: &Path, error: io::Error) -> Result<T, StoreError> {
    Err(StoreError::io(&path.display().to_string(), "list", error))
}

/// `above` are the real paths of the folder and of those on the way to it; with none, folders in it
/// are passed over.
fn look_over(
    folder: &Path,
    prefix: &str,
    above: Vec<PathBuf>,
    wanted: &impl Fn(&str) -> bool,
    found: &mut Vec<Surveyed>,
) -> Result<(), StoreError> {
    let entries = fs::read_dir(folder).or_else(|error| failed(folder, error))?;
    for entry in entries {
        let entry = entry.or_else(|error| failed(folder, error))?;
        let path = entry.path();
        let odd = |what: String| StoreError::NotAFile { url: path.display().to_string(), what };
        let name = entry.file_name().to_string_lossy().into_owned();
        let key = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        if !is_public(&key) {
            continue;
        }
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(_) if !wanted(&key) => continue,
            Err(error) if path.is_symlink() => {
                let target = fs::read_link(&path).unwrap_or_default();
                return Err(odd(format!("a link to {}: {error}", target.display())));
            }
            Err(error) => return failed(&path, error),
        };
        let kind = metadata.file_type();
        if kind.is_dir() || wanted(&key) {
            usable_name(&path)?;
        }
        if kind.is_dir() {
            let real = path.canonicalize().or_else(|error| failed(&path, error))?;
            if above.contains(&real) {
                return Err(odd("a link in a circle, to a folder that it is in".to_owned()));
            }
            if !above.is_empty() {
                let above = above.iter().cloned().chain([real]).collect();
                look_over(&path, &key, above, wanted, found)?;
            }
        } else if !wanted(&key) {
            continue;
        } else if kind.is_file() {
            rustix::fs::access(&path, rustix::fs::Access::READ_OK).map_err(|error| {
                StoreError::io(&path.display().to_string(), "read", error.into())
            })?;
            found.push(Surveyed { key, size: metadata.len(), fingerprint: fingerprint(&metadata) });
        } else if let Some(what) = oddity(kind) {
            return Err(odd(what.to_owned()));
        }
    }
    Ok(())
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
    use crate::store::{S3Options, Stores};

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
        let store = Stores::new(S3Options::default()).open(&location).unwrap();
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
            assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
            assert!(error.to_string().contains("d/link: a link"), "{error}");
            fs::remove_file(at("d/link")).unwrap();
        }
        fs::write(at("d/two\nlines"), "").unwrap();
        let error = store.survey("", true, |_| true).await.unwrap_err();
        assert!(error.to_string().contains("line break"), "{error}");
        assert!(store.survey("absent", true, |_| true).await.unwrap_err().is_not_found());
    }
}
