//! Files on local disk that are being written: hidden beside their target until they are whole
//! and on the platter, then renamed onto it.
//!
//! `.NAME.HOST-PID-N.staged` tells whose they are, so that what a killed writer left can be
//! removed without touching what a live one is writing.

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

const SUFFIX: &str = ".staged";
/// Bytes in the name of a file.
const NAME_MAX: usize = 255;
/// Whether a writer that is not known, or of another host, still lives cannot be known; a day is beyond any write.
const FOREIGN_AGE: Duration = Duration::from_secs(24 * 3600);

static COUNTER: AtomicU64 = AtomicU64::new(0);
static IN_USE: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

fn in_use() -> MutexGuard<'static, BTreeSet<u64>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This host's name, without the characters that the form of the name needs.
pub(super) fn plain_host() -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    process::host().chars().map(plain).collect()
}

/// Whether a file of this name is being written.
pub(super) fn is_staged(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// A file being written; unlinked when dropped before [`AtomicFile::finish`].
#[derive(Debug)]
pub(super) struct AtomicFile {
    /// `None` once it has ended.
    file: Option<File>,
    path: PathBuf,
    target: PathBuf,
    number: u64,
    renamed: bool,
}

impl AtomicFile {
    /// Makes the file, and its folders as far as they are missing.
    pub(super) fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().and_then(OsStr::to_str).ok_or(io::ErrorKind::InvalidInput)?;
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        // A file put in the place of a device or a pipe would take it away from everybody else.
        if fs::symlink_metadata(target).is_ok_and(|there| !there.is_file() && !there.is_symlink()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a device or a pipe, not a file",
            ));
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = target.with_file_name(hidden_name(name, number));
        in_use().insert(number);
        let open = || OpenOptions::new().write(true).create_new(true).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folders(target.parent().unwrap_or(target))
                    .and_then(|()| open().map_err(no_place))
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

    pub(super) fn write_at(&self, mut offset: u64, data: &[Bytes]) -> io::Result<()> {
        let file = self.file()?;
        for bytes in data {
            file.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file()?.metadata()?.len())
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Puts the file under its name, on the platter: contents first, then the name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.end()?;
        uninterrupted(|| fs::rename(&self.path, &self.target))?;
        self.renamed = true;
        sync_folder(self.target.parent().unwrap_or(&self.target))
    }

    /// The same where nothing has this name yet, else [`io::ErrorKind::AlreadyExists`].
    pub(super) fn finish_first(mut self) -> io::Result<()> {
        self.end()?;
        // Unlike a plain rename, these never replace anything; the first is the one that nearly all file
        // systems have.
        match uninterrupted(|| fs::hard_link(&self.path, &self.target)) {
            Err(error) if cannot(&error) => self.rename_first()?,
            linked => linked?,
        }
        sync_folder(self.target.parent().unwrap_or(&self.target))
    }

    /// The same on a file system without hard links.
    fn rename_first(&mut self) -> io::Result<()> {
        let rename =
            || Ok(renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE)?);
        match uninterrupted(rename) {
            Err(error) if cannot(&error) => take_name(&self.path, &self.target)?,
            renamed => renamed?,
        }
        self.renamed = true;
        Ok(())
    }

    /// Ends the file: its bytes are on the platter. Some file systems tell only now that they had no
    /// room for them.
    fn end(&mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        match file.sync_all() {
            Err(error) if cannot(&error) => {}
            synced => synced?,
        }
        close(file)
    }
}

/// Renames a file where its name can only be taken first: who makes the empty file has it, and nobody
/// else then gets it.
fn take_name(path: &Path, target: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(target)?;
    uninterrupted(|| fs::rename(path, target)).inspect_err(|_| {
        // It holds nothing, and that the file did not come to be there is told.
        let _ = fs::remove_file(target);
    })
}

/// Closes a file, and tells what the system says of that.
fn close(file: File) -> io::Result<()> {
    // SAFETY: the descriptor is this file's own, which gives it up here.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // It is closed all the same.
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}

/// Repeats a call of the system that a signal has cut short.
fn uninterrupted<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a file system does not know an operation, or does not grant it to anybody.
fn cannot(error: &io::Error) -> bool {
    let unknown = [
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
    Errno::from_io_error(error).is_some_and(|error| unknown.contains(&error))
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.renamed
            && let Err(error) = uninterrupted(|| fs::remove_file(&self.path))
        {
            warn!(path = %self.path.display(), %error, "cannot remove an unfinished file");
        }
        in_use().remove(&self.number);
    }
}

/// `.NAME.HOST-PID-N.staged`, of a long name only the beginning: what follows is nobody else's.
fn hidden_name(name: &str, number: u64) -> String {
    let whose = format!(".{}-{}-{number}{SUFFIX}", plain_host(), std::process::id());
    let room = NAME_MAX.saturating_sub(1 + whose.len());
    format!(".{}{whose}", &name[..name.floor_char_boundary(room)])
}

/// What it means that nothing is found in a folder that is there, such as /proc.
fn no_place(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(io::ErrorKind::PermissionDenied, "no files can be made in this folder")
        }
        _ => error,
    }
}

/// Like `create_dir_all`, with the new names on the platter.
pub(super) fn create_folders(folder: &Path) -> io::Result<()> {
    let new: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    uninterrupted(|| fs::create_dir_all(folder))?;
    for made in new {
        sync_folder(made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot, and need not; a folder may take files and show none.
        Err(error) if cannot(&error) => Ok(()),
        result => result,
    }
}

/// Removes what dead writers left below `folder`; how many files those were.
pub(super) fn remove_stale_temp_files(folder: &Path) -> io::Result<usize> {
    let host = plain_host();
    let mut removed = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Somebody else's, where we have written nothing: such as lost+found. Or one that takes
            // files and shows none.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            result => result?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_abandoned(&entry, &host) {
                debug!(path = %entry.path().display(), "removing what a dead writer left");
                match uninterrupted(|| fs::remove_file(entry.path())) {
                    // Somebody else has removed it, or is the one who may.
                    Err(error) if cannot(&error) || error.kind() == io::ErrorKind::NotFound => {}
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

fn is_abandoned(entry: &fs::DirEntry, this_host: &str) -> bool {
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

fn is_old(entry: &fs::DirEntry) -> bool {
    let age = entry.metadata().and_then(|meta| meta.modified());
    age.is_ok_and(|modified| {
        SystemTime::now().duration_since(modified).is_ok_and(|age| age > FOREIGN_AGE)
    })
}

/// Host, process and number of `.NAME.HOST-PID-N.staged`.
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
    fn reads_its_own_names() {
        let folder = tempfile::tempdir().unwrap();
        let staged = AtomicFile::create(&folder.path().join("a-1.b.nc")).unwrap();
        let name = staged.path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(is_staged(&name));
        assert_eq!(
            parse(&name).map(|(_, pid, n)| (pid as u32, n)),
            Some((std::process::id(), staged.number))
        );
        for name in [".staged", ".x.staged", ".x.h-1.staged", ".x.h-a-1.staged", "x.h-1-1.staged"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_name_may_be_as_long_as_the_disk_takes() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x".repeat(255), "ä".repeat(127)] {
            let target = folder.path().join(name);
            AtomicFile::create(&target).unwrap().finish().unwrap();
            assert!(target.is_file());
        }
    }

    #[test]
    fn a_name_is_taken_once_on_a_file_system_that_knows_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("x");
        for by_rename in [true, false] {
            let staged = |text: &'static str| {
                let staged = AtomicFile::create(&target).unwrap();
                staged.write_at(0, &[Bytes::from_static(text.as_bytes())]).unwrap();
                staged
            };
            let (mut first, mut second) = (staged("first"), staged("second"));
            let finish = |staged: &mut AtomicFile| match by_rename {
                true => staged.rename_first(),
                false => take_name(&staged.path, &staged.target),
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
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = AtomicFile::create(&socket).unwrap_err().to_string();
        assert!(error.contains("a device or a pipe") && !socket.is_file(), "{error}");
        assert!(AtomicFile::create(folder.path()).is_err());
        let error = AtomicFile::create(Path::new("/proc/file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }

    #[test]
    fn sweeps_only_what_is_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let mine = AtomicFile::create(&folder.path().join("deep/mine.nc")).unwrap();
        let put = |name: &str| {
            let path = folder.path().join("deep").join(name);
            fs::write(&path, "x").unwrap();
            path
        };
        let put_long_ago = |name: &str| {
            let path = put(name);
            let long_ago = SystemTime::now() - Duration::from_secs(25 * 3600);
            File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
            path
        };
        let stay = [
            put("data.nc"),
            put(".x.elsewhere-1-0.staged"),
            put(&format!(".x.{}-1-0.staged", plain_host())),
            put(".strange.staged"),
            put_long_ago("data.nc#1"),
        ];
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let go = [
            put_long_ago(".old.elsewhere-1-0.staged"),
            put(&format!(".x.{}-{dead}-0.staged", plain_host())),
            put(&format!(".x.{}-{}-999999.staged", plain_host(), std::process::id())),
        ];
        assert_eq!(remove_stale_temp_files(folder.path()).unwrap(), go.len());
        assert!(stay.iter().all(|path| path.exists()) && mine.path.exists());
        assert!(!go.iter().any(|path| path.exists()));
        assert_eq!(remove_stale_temp_files(&folder.path().join("absent")).unwrap(), 0);
    }
}
