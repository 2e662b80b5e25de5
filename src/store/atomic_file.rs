//! Atomic writes to a local disk: a hidden temporary file in the folder of the target, synced to disk
//! when it is complete, and then renamed to the target.
//!
//! The name of the temporary file, `.NAME.HOST-PID-N.staged`, identifies the writing process.
//! [`remove_stale_temp_files`] uses it to remove the files of dead processes only.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::process::{self, is_alive};
use tracing::{debug, warn};

/// Suffix of temporary files.
const SUFFIX: &str = ".staged";
/// Most bytes in a file name on Linux file systems.
const NAME_MAX: usize = 255;
/// Age at which a temporary file of another host is stale. This host cannot see whether its writer is
/// alive; no write takes a day.
const FOREIGN_AGE: Duration = Duration::from_secs(24 * 3600);

/// Number of the next temporary file of this process.
static COUNTER: AtomicU64 = AtomicU64::new(0);
/// Numbers of the temporary files that this process is writing.
static IN_USE: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn in_use() -> MutexGuard<'static, BTreeSet<u64>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host name with every character other than ASCII letters and digits replaced by `_`. The names
/// of temporary files use the others as separators.
pub(super) fn sanitized_host() -> String {
    let sanitize = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    process::host().chars().map(sanitize).collect()
}

/// Whether a file name is that of a temporary file.
pub(super) fn is_temp_name(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// A temporary file that will replace its target. Dropping it before [`AtomicFile::finish`] removes it.
#[derive(Debug)]
pub(super) struct AtomicFile {
    /// `None` after [`AtomicFile::sync_and_close`].
    file: Option<File>,
    path: PathBuf,
    target: PathBuf,
    number: u64,
    renamed: bool,
}

impl AtomicFile {
    /// Creates the temporary file and the missing parent folders.
    ///
    /// # Errors
    /// The target is a folder, a device or a pipe, or its name is not UTF-8, or the file system fails.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().and_then(OsStr::to_str).ok_or(io::ErrorKind::InvalidInput)?;
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // A rename would remove the device or pipe, which other processes use.
        if fs::symlink_metadata(target).is_ok_and(|meta| !meta.is_file() && !meta.is_symlink()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the target is a device or a pipe, not a file",
            ));
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = target.with_file_name(hidden_name(name, number));
        in_use().insert(number);
        let open = || OpenOptions::new().write(true).create_new(true).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folders(target.parent().unwrap_or(target))
                    .and_then(|()| open().map_err(absent_as_denied))
            }
            result => result,
        };
        match file {
            Ok(file) => {
                let (file, target) = (Some(file), target.to_owned());
                Ok(Self { file, path, target, number, renamed: false })
            }
            Err(error) => {
                in_use().remove(&number);
                Err(error)
            }
        }
    }

    /// Writes buffers one after another, from byte `offset` on.
    pub(super) fn write_at(&self, mut offset: u64, data: &[Bytes]) -> io::Result<()> {
        let file = self.file()?;
        for bytes in data {
            file.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Size of the temporary file in bytes.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file()?.metadata()?.len())
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Syncs the contents, renames the file to its target, and syncs the folder. An existing target is
    /// replaced.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.sync_and_close()?;
        uninterrupted(|| fs::rename(&self.path, &self.target))?;
        self.renamed = true;
        sync_folder(self.target.parent().unwrap_or(&self.target))
    }

    /// Like [`AtomicFile::finish`], but does not replace an existing target.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the target exists.
    pub(super) fn finish_new(mut self) -> io::Result<()> {
        self.sync_and_close()?;
        // Unlike a plain rename, a hard link never replaces its target. Nearly all file systems support
        // it.
        match uninterrupted(|| fs::hard_link(&self.path, &self.target)) {
            Err(error) if is_unsupported(&error) => self.rename_new()?,
            linked => linked?,
        }
        sync_folder(self.target.parent().unwrap_or(&self.target))
    }

    /// Renames the file without replacing an existing target, on a file system without hard links.
    fn rename_new(&mut self) -> io::Result<()> {
        let rename =
            || Ok(renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE)?);
        match uninterrupted(rename) {
            Err(error) if is_unsupported(&error) => reserve_and_rename(&self.path, &self.target)?,
            renamed => renamed?,
        }
        self.renamed = true;
        Ok(())
    }

    /// Syncs the contents to disk and closes the file. Some file systems report only now that no space
    /// is left.
    fn sync_and_close(&mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        match file.sync_all() {
            Err(error) if is_unsupported(&error) => {}
            synced => synced?,
        }
        close(file)
    }
}

/// Creates `target` as an empty file, which fails if it exists, and renames `path` over it. For file
/// systems without hard links and `RENAME_NOREPLACE`.
fn reserve_and_rename(path: &Path, target: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(target)?;
    uninterrupted(|| fs::rename(path, target)).inspect_err(|_| {
        // The reserved file is empty. The caller gets the error of the rename.
        let _ = fs::remove_file(target);
    })
}

/// Closes a file and returns the error of `close`, which the drop of a [`File`] ignores.
fn close(file: File) -> io::Result<()> {
    // SAFETY: `into_raw_fd` gives this function the ownership of the open descriptor.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Linux has closed the descriptor when it returns EINTR.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}

/// Repeats a system call while it fails with EINTR.
fn uninterrupted<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether an error means that the file system does not support or does not permit an operation.
fn is_unsupported(error: &io::Error) -> bool {
    let unsupported = [
        Errno::INVAL,
        Errno::NOSYS,
        Errno::NOTSUP,
        Errno::OPNOTSUPP,
        Errno::NOTTY,
        Errno::ACCESS,
        Errno::PERM,
        Errno::MLINK,
        Errno::XDEV,
        Errno::BADF,
    ];
    Errno::from_io_error(error).is_some_and(|error| unsupported.contains(&error))
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.renamed
            && let Err(error) = uninterrupted(|| fs::remove_file(&self.path))
        {
            warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
        in_use().remove(&self.number);
    }
}

/// `.NAME.HOST-PID-N.staged`, with `NAME` shortened so that the whole fits into [`NAME_MAX`] bytes.
fn hidden_name(name: &str, number: u64) -> String {
    let owner = format!(".{}-{}-{number}{SUFFIX}", sanitized_host(), std::process::id());
    let room = NAME_MAX.saturating_sub(1 + owner.len());
    format!(".{}{owner}", &name[..name.floor_char_boundary(room)])
}

/// Converts "not found" to "permission denied": an existing folder, such as `/proc`, that accepts no
/// new files.
fn absent_as_denied(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "files cannot be created in this folder",
        ),
        _ => error,
    }
}

/// Like [`fs::create_dir_all`], and syncs the parents of the new folders to disk.
pub(super) fn create_folders(folder: &Path) -> io::Result<()> {
    let created: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    uninterrupted(|| fs::create_dir_all(folder))?;
    for folder in created {
        sync_folder(
            folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        )?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems have no sync for folders. A folder may be writable but not readable.
        Err(error) if is_unsupported(&error) => Ok(()),
        result => result,
    }
}

/// Removes the temporary files of dead processes below `folder`. Returns the number of removed files.
pub(super) fn remove_stale_temp_files(folder: &Path) -> io::Result<usize> {
    let host = sanitized_host();
    let mut removed = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // A folder that this user cannot list, such as `lost+found`, has no files of this program,
            // or is writable but not readable.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            result => result?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_stale(&entry, &host) {
                debug!(path = %entry.path().display(), "removing a temporary file of a dead process");
                match uninterrupted(|| fs::remove_file(entry.path())) {
                    // Another process has removed it, or only another user may.
                    Err(error)
                        if is_unsupported(&error) || error.kind() == io::ErrorKind::NotFound => {}
                    result => {
                        result?;
                        removed += 1;
                    }
                }
            }
        }
    }
    Ok(removed)
}

/// Whether a file is a temporary file whose writer no longer runs.
fn is_stale(entry: &fs::DirEntry, this_host: &str) -> bool {
    let name = entry.file_name();
    let Some(name) = name.to_str() else { return false };
    let Some((host, pid, number)) = parse(name) else { return false };
    if host != this_host {
        return is_old(entry);
    }
    if u32::try_from(pid) == Ok(std::process::id()) {
        return !in_use().contains(&number);
    }
    u32::try_from(pid).is_ok_and(|pid| !is_alive(pid))
}

/// Whether a file is older than [`FOREIGN_AGE`].
fn is_old(entry: &fs::DirEntry) -> bool {
    let age = entry.metadata().and_then(|meta| meta.modified());
    age.is_ok_and(|modified| {
        SystemTime::now().duration_since(modified).is_ok_and(|age| age > FOREIGN_AGE)
    })
}

/// Host, process id and number from `.NAME.HOST-PID-N.staged`; `None` for any other name.
fn parse(name: &str) -> Option<(&str, i32, u64)> {
    let mut parts = name.strip_prefix('.')?.strip_suffix(SUFFIX)?.rsplitn(3, '-');
    let number = parts.next()?.parse().ok()?;
    let pid = parts.next()?.parse().ok()?;
    let (_, host) = parts.next()?.rsplit_once('.')?;
    Some((host, pid, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_names_that_it_makes() {
        let folder = tempfile::tempdir().unwrap();
        let temp = AtomicFile::create(&folder.path().join("a-1.b.nc")).unwrap();
        let name = temp.path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(is_temp_name(&name));
        assert_eq!(
            parse(&name).map(|(_, pid, n)| (pid as u32, n)),
            Some((std::process::id(), temp.number))
        );
        for name in [".staged", ".x.staged", ".x.h-1.staged", ".x.h-a-1.staged", "x.h-1-1.staged"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_may_have_the_greatest_length() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x".repeat(255), "ä".repeat(127)] {
            let target = folder.path().join(name);
            AtomicFile::create(&target).unwrap().finish().unwrap();
            assert!(target.is_file());
        }
    }

    #[test]
    fn only_one_writer_gets_a_name_on_a_file_system_without_links() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        for by_rename in [true, false] {
            let written = |text: &'static str| {
                let file = AtomicFile::create(&target).unwrap();
                file.write_at(0, &[Bytes::from_static(text.as_bytes())]).unwrap();
                file
            };
            let (mut first, mut second) = (written("first"), written("second"));
            let finish = |file: &mut AtomicFile| match by_rename {
                true => file.rename_new(),
                false => reserve_and_rename(&file.path, &file.target),
            };
            finish(&mut first).unwrap();
            first.renamed = true;
            let error = finish(&mut second).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
            drop((first, second));
            assert_eq!(fs::read_to_string(&target).unwrap(), "first");
            fs::remove_file(&target).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_socket_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = AtomicFile::create(&socket).unwrap_err().to_string();
        assert!(error.contains("a device or a pipe") && !socket.is_file(), "{error}");
        assert!(AtomicFile::create(folder.path()).is_err());
        let error = AtomicFile::create(Path::new("/proc/file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }

    #[test]
    fn removes_only_stale_files() {
        let folder = tempfile::tempdir().unwrap();
        let mine = AtomicFile::create(&folder.path().join("deep/mine.nc")).unwrap();
        let put = |name: &str| {
            let path = folder.path().join("deep").join(name);
            fs::write(&path, "x").unwrap();
            path
        };
        let put_old = |name: &str| {
            let path = put(name);
            let old_time = SystemTime::now() - Duration::from_secs(25 * 3600);
            File::options().write(true).open(&path).unwrap().set_modified(old_time).unwrap();
            path
        };
        let kept = [
            put("data.nc"),
            put(".x.elsewhere-1-0.staged"),
            put(&format!(".x.{}-1-0.staged", sanitized_host())),
            put(".strange.staged"),
            put_old("data.nc#1"),
        ];
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let stale = [
            put_old(".old.elsewhere-1-0.staged"),
            put(&format!(".x.{}-{dead}-0.staged", sanitized_host())),
            put(&format!(".x.{}-{}-999999.staged", sanitized_host(), std::process::id())),
        ];
        assert_eq!(remove_stale_temp_files(folder.path()).unwrap(), stale.len());
        assert!(kept.iter().all(|path| path.exists()) && mine.path.exists());
        assert!(!stale.iter().any(|path| path.exists()));
        assert_eq!(remove_stale_temp_files(&folder.path().join("absent")).unwrap(), 0);
    }
}
