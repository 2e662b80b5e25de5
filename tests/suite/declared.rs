//! Files whose headers declare data that they do not hold are refused: no value is invented.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use dor_atlas::synthetic::SyntheticCase;
use dor_atlas::synthetic::netcdf3::{ClassicFormat, FileHeader, NcType, VariableDef};
use hdf5_metno_sys::{h5, h5f, h5l, h5p};
use netcdf::types::{FloatType, NcVariableType};

use super::support::case::{TINY, Workspace, assert_same, case, set_age, write_dated};
use super::support::dor::fails;
use super::support::netcdf::{Form, contents, copy, put_all};

const BAD_DATA: i32 = 65;
const FLOAT: NcVariableType = NcVariableType::Float(FloatType::F32);

/// Asserts that a run and a dry run exit with code 65 and name the second month and all `words`, and that
/// the output stays unchanged.
#[track_caller]
fn assert_refused(work: &Workspace, words: &[&str]) {
    let before = work.tree("out");
    let file = work.raw(1).file_name().unwrap().to_str().unwrap().to_owned();
    for more in [&["--dry-run"][..], &[]] {
        let error = fails(&mut work.process(more), BAD_DATA);
        for word in words.iter().chain([&file.as_str()]) {
            assert!(error.contains(word), "`{word}` is missing in: {error}");
        }
    }
    assert_same(&before, &work.tree("out"));
}

/// A workspace of two months, of which the second is a NetCDF-4 copy extended by `more`.
fn with_second_month(more: impl FnOnce(&mut netcdf::FileMut)) -> Workspace {
    let work = Workspace::new(2);
    copy(&contents(&work.raw(1)), &work.raw(1), Form::Deflated(1), true, more);
    set_age(&work.raw(1), 0);
    work
}

/// A workspace of two months, of which the second is a NetCDF-4 copy with changed bytes.
fn with_second_month_bytes(change: impl FnOnce(&mut Vec<u8>)) -> Workspace {
    let work = with_second_month(|_| {});
    let mut bytes = fs::read(work.raw(1)).unwrap();
    change(&mut bytes);
    write_dated(&work.raw(1), &bytes);
    work
}

/// A workspace of two months, of which the second has a changed header and zeros for data.
fn with_header(format: ClassicFormat, change: impl FnOnce(&mut FileHeader)) -> Workspace {
    let work = Workspace::new(2);
    let mut header = SyntheticCase::new(case(), TINY, 1).header();
    header.format = format;
    change(&mut header);
    write_dated(&work.raw(1), &header.encode().unwrap());
    fs::File::options().write(true).open(work.raw(1)).unwrap().set_len(header.file_size()).unwrap();
    set_age(&work.raw(1), 0);
    work
}

#[test]
fn a_chunk_missing_from_the_index_is_refused() {
    let work = with_second_month_bytes(|bytes| {
        // The first key of a B-tree node that points to chunks: size, filter mask, offsets.
        let node = bytes.windows(6).rposition(|w| w == b"TREE\x01\x00").unwrap();
        bytes[node + 24 + 8 + 1] ^= 0x10;
    });
    assert_refused(&work, &["chunks", "copy it again, or create it again"]);
}

#[test]
fn a_variable_that_was_never_written_is_refused() {
    let work = with_second_month(|file| {
        file.add_variable_with_type("LATER", &["time", "nlat", "nlon"], &FLOAT).unwrap();
    });
    assert_refused(&work, &["`LATER`", "0 of its 1", "not written to its end"]);
}

#[test]
fn records_that_were_not_written_are_refused() {
    let work = with_second_month(|file| {
        let records: netcdf::Extent = (1..3).into();
        file.variable_mut("time").unwrap().put_values(&[1.0f64; 2], vec![records]).unwrap();
    });
    assert_refused(&work, &["1 of its 3 records along `time`", "not written to its end"]);
}

#[test]
fn a_dimension_scale_whose_length_differs_from_the_data_is_refused() {
    let change = |bytes: &mut Vec<u8>| {
        let file = hdf5_reader::Hdf5File::from_bytes(bytes).unwrap();
        let scale = file.root_group().unwrap().dataset("nlat").unwrap().address() as usize;
        let header = &mut bytes[scale..];
        // The dataspace message has the length and the maximum length.
        let [old, new] = [8u64, 4].map(|len| [len.to_le_bytes(), len.to_le_bytes()].concat());
        let at = header.windows(16).position(|w| w == old).unwrap();
        header[at..at + 16].copy_from_slice(&new);
        // An object header of version 2 ends in a checksum ("HDF5 file format", IV.A.1.b).
        if header.starts_with(b"OHDR") {
            let flags = header[5];
            let times = if flags & 0x20 != 0 { 16 } else { 0 };
            let phases = if flags & 0x10 != 0 { 4 } else { 0 };
            let (size, width) = (6 + times + phases, 1 << (flags & 3));
            let len = (0..width).rev().fold(0, |len, n| len << 8 | usize::from(header[size + n]));
            let end = size + width + len;
            let sum = hdf5_reader::checksum::jenkins_lookup3(&header[..end]);
            header[end..end + 4].copy_from_slice(&sum.to_le_bytes());
        }
    };
    assert_refused(&with_second_month_bytes(change), &["shape", "nlat = 4"]);
}

#[test]
fn a_dimension_of_length_0_is_refused() {
    let work = with_second_month(|file| {
        file.add_unlimited_dimension("obs").unwrap();
        file.add_variable_with_type("OBS", &["obs"], &FLOAT).unwrap();
    });
    assert_refused(&work, &["`OBS`", "`obs` has length 0"]);
}

#[test]
fn a_file_without_records_is_refused_and_not_called_truncated() {
    let work = with_header(ClassicFormat::Cdf2, |header| header.records = 0);
    assert_refused(&work, &["has no record", "ended before it wrote one"]);
    let error = fails(&mut work.process(&[]), BAD_DATA);
    assert!(!error.contains("truncated"), "{error}");
}

#[test]
fn a_variable_of_4_gib_is_refused() {
    let work = with_header(ClassicFormat::Cdf5, |header| {
        header.dimensions.push(("long".to_owned(), Some(1 << 30)));
        let dimensions = vec![header.dimensions.len() - 1];
        let (name, attributes) = ("HUGE".to_owned(), Vec::new());
        header.variables.push(VariableDef { name, kind: NcType::Float, dimensions, attributes });
    });
    assert_refused(&work, &["`HUGE`", "4294967296 bytes", "less than 4 GiB"]);
}

#[test]
fn header_counts_beyond_the_limits_are_refused() {
    for at in [12, 16] {
        let work = Workspace::new(2);
        let mut bytes = fs::read(work.raw(1)).unwrap();
        bytes[at..at + 4].copy_from_slice(&(1u32 << 27).to_be_bytes());
        write_dated(&work.raw(1), &bytes);
        // Long enough to hold a header of that size.
        fs::File::options().write(true).open(work.raw(1)).unwrap().set_len(1 << 30).unwrap();
        assert_refused(&work, &["its header claims", "copy it again"]);
    }
}

#[test]
fn variables_in_groups_are_refused_by_name() {
    let work = with_second_month(|file| {
        let mut group = file.add_group("bgc").unwrap();
        group.add_dimension("x", 2).unwrap();
        let mut variable = group.add_variable_with_type("CHL", &["x"], &FLOAT).unwrap();
        put_all(&mut variable, &[1.0f32, 2.0], &[2]);
    });
    assert_refused(&work, &["groups", "`bgc/CHL`"]);
}

/// Gives a group of an HDF5 file a second name, by a hard link.
fn link(path: &Path, from: &str, to: &str) {
    let [path, from, to] = [path.to_str().unwrap(), from, to].map(|s| CString::new(s).unwrap());
    let _lock = hdf5_metno_sys::LOCK.lock();
    // SAFETY: the lock is held, the texts end in NUL, and the file is closed once.
    unsafe {
        h5::H5open();
        let file = h5f::H5Fopen(path.as_ptr(), h5f::H5F_ACC_RDWR, h5p::H5P_DEFAULT);
        let default = h5p::H5P_DEFAULT;
        let linked = h5l::H5Lcreate_hard(file, from.as_ptr(), file, to.as_ptr(), default, default);
        assert!(file >= 0 && linked >= 0);
        assert!(h5f::H5Fclose(file) >= 0);
    }
}

#[test]
fn a_group_linked_into_itself_is_refused() {
    let work = with_second_month(|file| {
        file.add_group("a").unwrap();
    });
    link(&work.raw(1), "/a", "/a/a");
    set_age(&work.raw(1), 0);
    assert_refused(&work, &["is another name of a group", "remove it"]);
    let work = with_second_month(|_| {});
    link(&work.raw(1), "/", "/loop");
    set_age(&work.raw(1), 0);
    assert_refused(&work, &["is another name of a group", "remove it"]);
}
