//! Commands that make map stores, and their chunks.

use std::fs;
use std::io::Read;
use std::path::Path;

use assert_cmd::Command;
use flate2::read::ZlibDecoder;

use super::super::support::case::Workspace;
use super::super::support::dor::dor;

/// The fill value of the map stores.
pub const FILL: f32 = f32::from_bits(0x7cf0_0000);

/// `dor vis` with these arguments, separated by spaces.
pub fn vis_command(folder: &Path, arguments: &str) -> Command {
    let mut command = dor(folder);
    command.arg("vis").args(arguments.split_whitespace());
    command
}

/// Runs `dor vis`, which must succeed; returns standard output.
#[track_caller]
pub fn run_vis(folder: &Path, arguments: &str) -> String {
    let output = vis_command(folder, arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The values of a chunk of a Zarr 2 store.
#[track_caller]
pub fn floats(path: &Path) -> Vec<f32> {
    let mut bytes = Vec::new();
    let packed = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// A workspace with the first months of case 112-04, a grid file, sea surface height and centers.
pub fn workspace(months: u16) -> Workspace {
    let work = Workspace::empty(b"");
    let months = months.to_string();
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "8x9x3", "--ssh"]);
    raw.args(["--months", &months]).assert().success();
    work
}

/// Adds case 113-04 to the archive, with as many months as case 112-04 has.
pub fn add_polygon_113(work: &Workspace) {
    let months = fs::read_dir(work.archive()).unwrap().count().to_string();
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", "more", "--case", "113-04", "--shape", "8x9x3", "--months", &months]);
    raw.assert().success();
    let other = "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_113_1999-04-01_00453.001";
    let from = work.path(&format!("more/archive/{other}"));
    fs::rename(from, work.path(&format!("archive/{other}"))).unwrap();
}
