//! A raw case on disk, and conversions of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use dor_atlas::model::Case;
use dor_atlas::synthetic::{Shape, SyntheticCase};
use tempfile::TempDir;

use super::dor::dor;

/// A grid small enough for tests that convert whole cases.
pub const TINY: Shape = Shape { nlat: 8, nlon: 9, nz: 3 };

/// The case that all tests use.
pub fn case() -> Case {
    "112-04".parse().unwrap()
}

/// The files below a folder, hidden ones included: relative path and bytes.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// A temporary folder with `archive` (raw history), `grid.nc` and, after a conversion, `out`.
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// Writes the first `months` files of a synthetic case of shape [`TINY`], and its grid file.
    pub fn new(months: usize) -> Self {
        Self::of(&SyntheticCase::new(case(), TINY, 1), months)
    }

    /// Writes the first `months` files of `synthetic`, whose case must be [`case`].
    pub fn of(synthetic: &SyntheticCase, months: usize) -> Self {
        let this = Self::empty(&synthetic.grid_file());
        for (n, month) in case().months().take(months).enumerate() {
            let mut bytes = Vec::new();
            synthetic.write_month(month, &mut bytes).unwrap();
            write_dated(&this.raw(n), &bytes);
        }
        this
    }

    /// Creates an empty archive, and a grid file if `grid` is not empty.
    pub fn empty(grid: &[u8]) -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(this.archive()).unwrap();
        if !grid.is_empty() {
            fs::write(this.path("grid.nc"), grid).unwrap();
        }
        this
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of the raw files of [`case`].
    pub fn archive(&self) -> PathBuf {
        self.path(&format!("archive/{}/ocn/hist", case()))
    }

    /// The raw file of the n-th month, counted from 0.
    pub fn raw(&self, n: usize) -> PathBuf {
        let month = case().first_month().plus(n as i32);
        self.archive().join(format!("{}.pop.h.{month}.nc", case()))
    }

    /// The research-grade file of the n-th month, counted from 0, below `out`.
    pub fn output(&self, n: usize) -> PathBuf {
        self.path("out").join(output_key(n))
    }

    /// `dor research-data process-case` with exactly these arguments.
    pub fn process_case(&self, arguments: &[&str]) -> Command {
        let mut command = dor(self.folder());
        command.args(["research-data", "process-case"]).args(arguments);
        command
    }

    /// `process-case` that converts [`case`] from `archive` into `out`, with additional arguments.
    pub fn process(&self, more: &[&str]) -> Command {
        let mut command = self.process_case(&["112-04", "-d", "archive", "-o", "out"]);
        command.args(["--grid", "grid.nc", "--allow-missing"]).args(more);
        command
    }

    /// Converts [`case`] into `out`; panics if the conversion fails.
    pub fn convert(&self) {
        self.process(&[]).assert().success();
    }

    /// The files below a folder of the workspace; empty if the folder does not exist.
    pub fn tree(&self, name: &str) -> Tree {
        tree(&self.path(name))
    }
}

/// The key of the research-grade file of the n-th month, counted from 0.
pub fn output_key(n: usize) -> String {
    let month = case().first_month().plus(n as i32);
    format!("112/04/smyle.cdr-atlas-v0.glb-dor.112-1999-04.pop.h.{month}.nc")
}

/// Writes a file with a fixed modification time: the output records the time of its raw file, so raw
/// files must have the same time in every run.
pub fn write_dated(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    set_age(path, 0);
}

/// Sets the modification time of a file to `later` seconds after that of [`write_dated`].
pub fn set_age(path: &Path, later: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + later);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Reads all files below a folder; empty if the folder does not exist.
pub fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, bytes);
            }
        }
    }
    found
}

/// Panics if two trees differ, with the names (not the bytes) of the files that differ.
#[track_caller]
pub fn assert_same(left: &Tree, right: &Tree) {
    let mut names: Vec<_> = left.keys().chain(right.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| left.get(*name) != right.get(*name));
    assert!(names.is_empty(), "these files differ, or are in one tree only: {names:?}");
}
