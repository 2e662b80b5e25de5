//! Grid files that are invalid or do not match the raw files are refused.

use std::fs;

use netcdf::AttributeValue;

use dor_atlas::synthetic::{Shape, SyntheticCase};

use super::support::case::{TINY, Workspace, case};
use super::support::dor::fails;
use super::support::netcdf::{Contents, Form, contents, copy};

const BAD_DATA: i32 = 65;
const CONFIGURATION: i32 = 78;

/// Asserts exit code 65, all `words` in the message, and no output.
#[track_caller]
fn assert_refused(work: &Workspace, words: &[&str]) {
    assert_refused_with_code(work, BAD_DATA, words);
}

/// Asserts exit code `code`, `--grid` and all `words` in the message, and no output.
#[track_caller]
fn assert_refused_with_code(work: &Workspace, code: i32, words: &[&str]) {
    let error = fails(&mut work.process(&[]), code);
    for word in ["--grid"].iter().chain(words) {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert!(!work.path("out").exists());
}

/// A workspace of two months with a changed grid file.
fn with_grid(change: impl FnOnce(&mut Contents)) -> Workspace {
    let work = Workspace::new(2);
    let mut grid = contents(&work.path("grid.nc"));
    change(&mut grid);
    copy(&grid, &work.path("grid.nc"), Form::Cdf2, false, |_| {});
    work
}

/// Replaces each value of a variable by `with(index, value)`.
fn change(grid: &mut Contents, name: &str, with: impl Fn(usize, f64) -> f64) {
    let variable = grid.variables.get_mut(name).unwrap();
    let values = variable.doubles().into_iter().enumerate().map(|(n, v)| with(n, v));
    variable.bytes = values.flat_map(f64::to_ne_bytes).collect();
}

#[test]
fn a_grid_of_another_shape_than_the_data_is_refused() {
    let work = Workspace::new(2);
    let other = SyntheticCase::new(case(), Shape { nlon: 12, ..TINY }, 1);
    fs::write(work.path("grid.nc"), other.grid_file()).unwrap();
    let raw = work.raw(0);
    assert_refused(&work, &["8 x 9", "8 x 12", raw.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn files_that_fail_for_the_same_cause_are_reported_together() {
    let work = Workspace::new(20);
    let other = SyntheticCase::new(case(), Shape { nlon: 12, ..TINY }, 1);
    fs::write(work.path("grid.nc"), other.grid_file()).unwrap();
    fs::write(work.raw(4), b"CDF").unwrap();
    let error = fails(&mut work.process(&[]), BAD_DATA);
    let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("failed: ")).collect();
    assert_eq!(lines.len(), 5, "{error}");
    for (line, month) in lines.iter().zip(["0347-04", "0347-05", "0347-06"]) {
        assert!(line.contains(&format!("{month}.nc")) && line.contains("8 x 12"), "{line}");
    }
    assert_eq!(lines[3], "failed: and 16 more with the same cause: 0347-07, 0347-09 to 0348-11");
    assert!(lines[4].contains("0347-08.nc"), "{}", lines[4]);
    assert!(error.contains(" failed; 0 converted, 0 not tried"), "{error}");
}

#[test]
fn grid_coordinates_that_differ_from_the_data_are_refused() {
    let work = with_grid(|grid| change(grid, "TLAT", |n, lat| lat + f64::from(n == 40) * 0.5));
    let words = ["nlat 4, nlon 4 at", "give the grid file of this model grid"];
    assert_refused(&work, &words);
    // All longitudes shifted by one column: the shape and the range are right, the cells are not.
    let work = with_grid(|grid| {
        let turned = grid.variables["TLONG"].doubles();
        change(grid, "TLONG", |n, _| turned[n / 9 * 9 + (n + 1) % 9]);
    });
    assert_refused(&work, &words[1..]);
}

#[test]
fn coordinates_that_are_not_degrees_are_refused() {
    let one = |value: f64| move |n: usize, v: f64| if n == 10 { value } else { v };
    for (name, value, words) in [
        ("TLAT", f64::NAN, "`TLAT` is NaN at nlat 1, nlon 1, a fill value"),
        ("TLONG", 9.969_209_968_386_869e36, "`TLONG` is NaN at nlat 1, nlon 1, a fill value"),
        ("TLAT", 90.5, "outside -90 to 90 degrees"),
        ("TLONG", -721.0, "outside -720 to 720 degrees"),
    ] {
        assert_refused(&with_grid(|grid| change(grid, name, one(value))), &[words]);
    }
    let work = with_grid(|grid| {
        change(grid, "TLAT", |_, v| v.to_radians());
        change(grid, "TLONG", |_, v| v.to_radians());
    });
    assert_refused(&work, &["look like radians"]);
}

#[test]
fn coordinates_with_missing_values_or_units_of_radians_are_refused() {
    let attribute = |grid: &mut Contents, name: &str, value: AttributeValue| {
        let variable = grid.variables.get_mut("TLAT").unwrap();
        variable.attributes.retain(|(other, _)| other != name);
        variable.attributes.push((name.to_owned(), value));
    };
    let work = with_grid(|grid| {
        change(grid, "TLAT", |n, v| if n == 10 { -1.0 } else { v });
        attribute(grid, "missing_value", AttributeValue::Double(-1.0));
    });
    assert_refused(&work, &["`TLAT` is NaN at nlat 1, nlon 1, a fill value"]);
    let radians = AttributeValue::Str("radians".to_owned());
    assert_refused(
        &with_grid(|grid| attribute(grid, "units", radians)),
        &["`TLAT:units` is `radians`"],
    );
}

#[test]
fn a_later_month_with_other_coordinates_is_refused() {
    let work = Workspace::new(3);
    let mut raw = contents(&work.raw(2));
    change(&mut raw, "TLAT", |_, v| if v.abs() < 90.0 { v * 0.9 } else { v });
    copy(&raw, &work.raw(2), Form::Cdf2, true, |_| {});
    let error = fails(&mut work.process(&[]), BAD_DATA);
    assert!(error.contains("0347-06.nc has the T point"), "{error}");
    assert!(!work.output(2).exists() && !work.path("out/112/04/manifest.json").exists());
}

#[test]
fn a_history_file_as_grid_file_is_refused() {
    let work = Workspace::new(2);
    fs::copy(work.raw(0), work.path("grid.nc")).unwrap();
    assert_refused(&work, &["a fill value, as in history files", "name a file with the full grid"]);
}

#[test]
fn negative_longitudes_are_converted_to_the_range_of_the_model() {
    let (reference, work) = (Workspace::new(1), Workspace::new(1));
    reference.convert();
    let mut grid = contents(&work.path("grid.nc"));
    change(&mut grid, "TLONG", |_, lon| if lon > 180.0 { lon - 360.0 } else { lon });
    copy(&grid, &work.path("grid.nc"), Form::Cdf2, false, |_| {});
    work.convert();
    let longitudes = |work: &Workspace| contents(&work.output(0)).variables["TLONG"].doubles();
    for (a, b) in longitudes(&reference).into_iter().zip(longitudes(&work)) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }
}

#[test]
fn a_file_that_is_not_a_grid_is_refused() {
    let work = Workspace::new(2);
    let start = fs::read(work.raw(0)).unwrap()[..900].to_vec();
    for (bytes, word) in [
        (
            b"hello".to_vec(),
            "grid.nc cannot be the grid file (--grid): it is neither NetCDF nor the binary grid",
        ),
        (Vec::new(), "it is empty"),
        // Noise with the length of the binary grid file.
        (
            (0..7 * 8 * 384 * 320).map(|n: u32| n.wrapping_mul(2_654_435_761) as u8).collect(),
            "ULAT",
        ),
    ] {
        fs::write(work.path("grid.nc"), bytes).unwrap();
        assert_refused(&work, &[word]);
    }
    fs::write(work.path("grid.nc"), start).unwrap();
    let error = fails(&mut work.process(&[]), BAD_DATA);
    assert!(error.contains("grid.nc") && error.contains("copy it again"), "{error}");
    let work = with_grid(|grid| grid.order.retain(|name| name != "TLONG"));
    assert_refused(&work, &["no variable `TLONG`"]);
}

#[test]
fn a_missing_grid_file_or_a_folder_is_refused() {
    let work = Workspace::new(2);
    fs::remove_file(work.path("grid.nc")).unwrap();
    assert_refused_with_code(&work, CONFIGURATION, &["grid.nc", "there is no such file"]);
    fs::create_dir(work.path("grid.nc")).unwrap();
    fs::copy(work.raw(0), work.path("grid.nc/a.nc")).unwrap();
    assert_refused_with_code(&work, CONFIGURATION, &["it is a folder"]);
}
