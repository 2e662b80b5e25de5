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

/// Small enough for whole cases; 3 levels of 9 columns.
pub const TINY: Shape = Shape { nlat: 8, nlon: 9, nz: 3 };

/// The case of all tests.
pub fn case() -> Case {
    "112-04".parse().unwrap()
}

/// Files of one name and their bytes, by path below a folder; hidden ones too.
pub type Tree = BTreeMap<String, Vec<u8>>;

/// A folder with `archive`, `grid.nc` and, after a conversion, `out`.
pub struct Workspace {
    folder: TempDir,
}

impl Workspace {
    /// The first months of a tiny case.
    pub fn new(months: usize) -> Self {
        Self::of(&SyntheticCase::new(case(), TINY, 1), months)
    }

    /// The first months of `synthetic`, which must be of [`case`].
    pub fn of(synthetic: &SyntheticCase, months: usize) -> Self {
        let this = Self::empty(&synthetic.grid_file());
        for (n, month) in case().months().take(months).enumerate() {
            let mut bytes = Vec::new();
            synthetic.write_month(month, &mut bytes).unwrap();
            write_dated(&this.raw(n), &bytes);
        }
        this
    }

    /// No month yet; without a grid file, if that has no bytes.
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

    /// Folder of the raw files.
    pub fn archive(&self) -> PathBuf {
        self.path(&format!("archive/{}/ocn/hist", case()))
    }

    /// The raw file of the n-th month, counted from 0.
    pub fn raw(&self, n: usize) -> PathBuf {
        let month = case().first_month().plus(n as i32);
        self.archive().join(format!("{}.pop.h.{month}.nc", case()))
    }

    /// Below `out`: the research-grade file of the n-th month.
    pub fn output(&self, n: usize) -> PathBuf {
        self.path("out").join(output_key(n))
    }

    /// `dor research-data process-case` with nothing but these arguments.
    pub fn process_case(&self, arguments: &[&str]) -> Command {
        let mut command = dor(self.folder());
        command.args(["research-data", "process-case"]).args(arguments);
        command
    }

    /// The same for the case as it lies here, converted into `out`.
    pub fn process(&self, more: &[&str]) -> Command {
        let mut command = self.process_case(&["112-04", "-d", "archive", "-o", "out"]);
        command.args(["--grid", "grid.nc", "--allow-missing"]).args(more);
        command
    }

    /// Converts into `out`, which must go well.
    pub fn convert(&self) {
        self.process(&[]).assert().success();
    }

    /// What lies below a folder of the workspace; empty when it is not there.
    pub fn tree(&self, name: &str) -> Tree {
        tree(&self.path(name))
    }
}

/// Key of the research-grade file of the n-th month.
pub fn output_key(n: usize) -> String {
    let month = case().first_month().plus(n as i32);
    format!("112/04/smyle.cdr-atlas-v0.glb-dor.112-1999-04.pop.h.{month}.nc")
}

/// Writes a file that is as old as all others: the time of a raw file stands in its output.
pub fn write_dated(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    set_age(path, 0);
}

/// Dates a file some seconds after the others.
pub fn set_age(path: &Path, later: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + later);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// All files below a folder.
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

/// Fails with the names of the files that differ, not with their bytes.
#[track_caller]
pub fn assert_same(left: &Tree, right: &Tree) {
    let mut names: Vec<_> = left.keys().chain(right.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| left.get(*name) != right.get(*name));
    assert!(names.is_empty(), "these differ or are in one tree only: {names:?}");
}
