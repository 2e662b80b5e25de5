//! Stores made by the program, and their chunks.

use std::fs;
use std::io::Read;
use std::path::Path;

use assert_cmd::Command;
use flate2::read::ZlibDecoder;

use super::super::support::dor::dor;

/// Stands for no value.
pub const FILL: f32 = f32::from_bits(0x7cf0_0000);

/// `dor vis` with these arguments, separated by spaces.
pub fn vis(folder: &Path, arguments: &str) -> Command {
    let mut command = dor(folder);
    command.arg("vis").args(arguments.split_whitespace());
    command
}

/// Runs `dor vis`, which must go well; gives what it prints.
#[track_caller]
pub fn runs(folder: &Path, arguments: &str) -> String {
    let output = vis(folder, arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The floats of a chunk in the v2 format.
#[track_caller]
pub fn floats(path: &Path) -> Vec<f32> {
    let mut bytes = Vec::new();
    let packed = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    ZlibDecoder::new(packed.as_slice()).read_to_end(&mut bytes).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}
