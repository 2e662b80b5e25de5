//! Listing: whole trees by pages of 1000 keys, or one level.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use object_store::ObjectMeta;

use super::error::StoreError;
use super::open::{Backend, Store};
use super::read::{ObjectInfo, oddity};
use super::staged;
use super::write::blocking;

impl Store {
    /// All objects below the folder `prefix` (`""`: the root), sorted by key. One request for
    /// every 1000 of them, and none for each. An absent folder is empty. Files that a writer has
    /// not finished are not listed. On disk, what is no file but has the name of a
    /// NetCDF file or of a folder is an error: the library would pass over it.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.listable("list").await?;
        let path = self.prefix(prefix)?;
        if let Some(folder) = self.folder(prefix)? {
            blocking(&self.url(prefix), "list", move || Ok(inspect(&folder))).await??;
        }
        let found: Vec<ObjectMeta> =
            self.attempt(prefix, "list", || objects.list(Some(&path)).try_collect()).await?;
        let mut infos: Vec<_> = found
            .into_iter()
            .filter(|meta| !self.is_staged(meta))
            .filter_map(|meta| Some(ObjectInfo::new(self.key(&meta.location)?, meta)))
            .collect();
        infos.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(infos)
    }

    /// The folders directly in the folder `prefix`, as keys, sorted. An absent folder has none. On
    /// disk, links that lead nowhere are passed over.
    pub async fn list_dirs(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        if let Some(folder) = self.folder(prefix)? {
            let prefix = prefix.trim_end_matches('/').to_owned();
            let url = self.url(&prefix);
            let list = move || Ok(folders_in(&folder, &prefix));
            return blocking(&url, "list folders", list).await?;
        }
        let objects = self.listable("list folders").await?;
        let path = self.prefix(prefix)?;
        let found = self
            .attempt(prefix, "list folders", || objects.list_with_delimiter(Some(&path)))
            .await?;
        let mut folders: Vec<_> =
            found.common_prefixes.iter().filter_map(|path| self.key(path)).collect();
        folders.sort_unstable();
        Ok(folders)
    }

    /// The objects directly in the folder `prefix`, sorted by key.
    pub async fn list_level(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.listable("list").await?;
        let path = self.prefix(prefix)?;
        let found =
            self.attempt(prefix, "list", || objects.list_with_delimiter(Some(&path))).await?;
        let mut infos: Vec<_> = found
            .objects
            .into_iter()
            .filter(|meta| !self.is_staged(meta))
            .filter_map(|meta| Some(ObjectInfo::new(self.key(&meta.location)?, meta)))
            .collect();
        infos.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(infos)
    }

    /// Whether there are listings: over https there are none.
    pub fn can_list(&self) -> bool {
        !matches!(self.backend(), Backend::Http(_))
    }

    async fn listable(
        &self,
        action: &'static str,
    ) -> Result<std::sync::Arc<dyn object_store::ObjectStore>, StoreError> {
        if !self.can_list() {
            return Err(StoreError::Unsupported { url: self.location().to_string(), action });
        }
        self.objects().await
    }

    fn is_staged(&self, meta: &ObjectMeta) -> bool {
        matches!(self.backend(), Backend::Local(_))
            && meta.location.filename().is_some_and(staged::is_staged)
    }
}

fn folders_in(folder: &Path, prefix: &str) -> Result<Vec<String>, StoreError> {
    let failed =
        |path: &Path, error| StoreError::io(&path.display().to_string(), "list folders", error);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed(folder, error))?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if !path.is_dir() {
            continue;
        }
        let is_hidden = |path: &Path| {
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        match usable_name(&path) {
            Ok(name) if prefix.is_empty() => folders.push(name.to_owned()),
            Ok(name) => folders.push(format!("{prefix}/{name}")),
            Err(_) if is_hidden(&path) => {}
            Err(error) => return Err(error),
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

/// The name of what lies on disk, when it can be one of an object.
pub(super) fn usable_name(path: &Path) -> Result<&str, StoreError> {
    let reason = match path.file_name().unwrap_or_default().to_str() {
        Some(name) if !name.contains(char::is_control) => return Ok(name),
        Some(_) => "it has a line break or another control character",
        None => "it is not UTF-8",
    };
    let visible = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    let url = path.to_string_lossy().chars().map(visible).collect();
    Err(StoreError::BadKey { url, reason: reason.to_owned() })
}

/// Refuses a tree on disk in which a NetCDF file or a folder is none, or leads to none.
fn inspect(folder: &Path) -> Result<(), StoreError> {
    match folder.canonicalize() {
        Ok(real) => inspect_below(folder, &mut vec![real]),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_circle(&error) => {
            // Absent, unless the folder or one above it is a link that leads nowhere.
            let leads_nowhere = |path: &&Path| path.is_symlink() && fs::metadata(path).is_err();
            folder.ancestors().find(leads_nowhere).map_or(Ok(()), |link| follow(link).map(drop))
        }
        Err(error) => Err(StoreError::io(&folder.display().to_string(), "list", error)),
    }
}

/// `above` are the real paths of the folder and of those on the way to it.
fn inspect_below(folder: &Path, above: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let failed = |path: &Path, error| StoreError::io(&path.display().to_string(), "list", error);
    let odd = |path: &Path, what: &str| {
        Err(StoreError::NotAFile { url: path.display().to_string(), what: what.to_owned() })
    };
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let path = entry.path();
        if is_other_file(&path) && !path.is_dir() {
            continue;
        }
        let (kind, real) = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => match follow(&path)? {
                Some(led) => led,
                None => continue,
            },
            Ok(kind) => (kind, above.last().map_or(path.clone(), |r| r.join(entry.file_name()))),
            // Renamed or removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&path, error)),
        };
        if let Some(what) = oddity(kind) {
            return odd(&path, what);
        } else if !kind.is_dir() {
            continue;
        } else if path.extension().is_some_and(|extension| extension == "nc") {
            return odd(&path, "a folder where a file is expected");
        } else if above.iter().any(|folder| folder.starts_with(&real)) {
            return odd(&path, "a link in a circle, to a folder that it is in");
        }
        above.push(real);
        inspect_below(&path, above)?;
        above.pop();
    }
    Ok(())
}

/// Whether a name is that of a file that is no NetCDF file. Names of folders may have dots, too,
/// before numbers.
fn is_other_file(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy());
    extension.is_some_and(|e| e != "nc" && e.contains(|c: char| c.is_ascii_alphabetic()))
}

/// What a link leads to, and where that really is; `None` when the link has gone meanwhile.
fn follow(link: &Path) -> Result<Option<(FileType, PathBuf)>, StoreError> {
    let led = fs::metadata(link).and_then(|led| Ok((led.file_type(), link.canonicalize()?)));
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
    Err(StoreError::NotAFile { url, what })
}

fn is_circle(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_unless_they_lead_nowhere_or_in_a_circle() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        fs::create_dir_all(at("listed/deep")).unwrap();
        fs::create_dir_all(at("aside")).unwrap();
        fs::write(at("aside/x.nc"), "x").unwrap();
        symlink(at("aside"), at("listed/deep/folder")).unwrap();
        symlink(at("aside/x.nc"), at("listed/deep/file.nc")).unwrap();
        symlink(at("gone"), at("listed/deep/notes.txt")).unwrap();
        for folder in ["listed", "aside", "absent", "absent/deeper"] {
            inspect(&at(folder)).unwrap();
        }
        for (target, link) in [
            (at("gone"), "listed/deep/file"),
            (at("gone"), "listed/case_00449.001"),
            (at("listed"), "listed/deep/up"),
            (at("listed/deep/self"), "listed/deep/self"),
            // Two links that lead into each other's folder.
            (at("listed/deep"), "aside/back"),
        ] {
            symlink(&target, at(link)).unwrap();
            let error = inspect(&at("listed")).unwrap_err();
            assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
            let name = Path::new(link).file_name().unwrap().to_str().unwrap();
            assert!(error.to_string().contains(&format!("/{name}: a link ")), "{error}");
            fs::remove_file(at(link)).unwrap();
        }
        symlink(at("gone"), at("archive")).unwrap();
        for folder in ["archive", "archive/deeper"] {
            let error = inspect(&at(folder)).unwrap_err().to_string();
            assert!(error.contains("/archive: a link to ") && error.contains("gone"), "{error}");
        }
    }
}
