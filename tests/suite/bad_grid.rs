//! Grid files that would put fields in wrong places.

use std::fs;

use netcdf::AttributeValue;

use dor_atlas::synthetic::{Shape, SyntheticCase};

use super::support::case::{TINY, Workspace, case};
use super::support::dor::fails;
use super::support::netcdf::{Contents, Form, contents, copy};

const BAD_DATA: i32 = 65;
const CONFIGURATION: i32 = 78;

/// Holds that the case is refused with all the `words` and that nothing is written.
#[track_caller]
fn refused(work: &Workspace, words: &[&str]) {
    refused_with(work, BAD_DATA, words);
}

#[track_caller]
fn refused_with(work: &Workspace, code: i32, words: &[&str]) {
    let error = fails(&mut work.process(&[]), code);
    for word in ["--grid"].iter().chain(words) {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert!(!work.path("out").exists());
}

/// Two months with a grid file whose values are changed.
fn with_grid(change: impl FnOnce(&mut Contents)) -> Workspace {
    let work = Workspace::new(2);
    let mut grid = contents(&work.path("grid.nc"));
    change(&mut grid);
    copy(&grid, &work.path("grid.nc"), Form::Cdf2, false, |_| {});
    work
}

/// Changes the values of a variable in place.
fn change(grid: &mut Contents, name: &str, with: impl Fn(usize, f64) -> f64) {
    let variable = grid.variables.get_mut(name).unwrap();
    let values = variable.doubles().into_iter().enumerate().map(|(n, v)| with(n, v));
    variable.bytes = values.flat_map(f64::to_ne_bytes).collect();
}

#[test]
fn another_shape_than_the_data() {
    let work = Workspace::new(2);
    let other = SyntheticCase::new(case(), Shape { nlon: 12, ..TINY }, 1);
    fs::write(work.path("grid.nc"), other.grid_file()).unwrap();
    let raw = work.raw(0);
    refused(&work, &["8 x 9", "8 x 12", raw.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn many_files_with_one_cause_are_told_together() {
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
fn other_places_than_those_of_the_data() {
    let work = with_grid(|grid| change(grid, "TLAT", |n, lat| lat + f64::from(n == 40) * 0.5));
    let words = ["nlat 4, nlon 4 at", "give the grid file of this model grid"];
    refused(&work, &words);
    // All columns turned by one: as many points, and each of them a place.
    let work = with_grid(|grid| {
        let turned = grid.variables["TLONG"].doubles();
        change(grid, "TLONG", |n, _| turned[n / 9 * 9 + (n + 1) % 9]);
    });
    refused(&work, &words[1..]);
}

#[test]
fn values_that_are_no_degrees() {
    let one = |value: f64| move |n: usize, v: f64| if n == 10 { value } else { v };
    for (name, value, words) in [
        ("TLAT", f64::NAN, "`TLAT` is NaN at nlat 1, nlon 1, a fill value"),
        ("TLONG", 9.969_209_968_386_869e36, "`TLONG` is NaN at nlat 1, nlon 1, a fill value"),
        ("TLAT", 90.5, "outside -90 to 90 degrees"),
        ("TLONG", -721.0, "outside -720 to 720 degrees"),
    ] {
        refused(&with_grid(|grid| change(grid, name, one(value))), &[words]);
    }
    let work = with_grid(|grid| {
        change(grid, "TLAT", |_, v| v.to_radians());
        change(grid, "TLONG", |_, v| v.to_radians());
    });
    refused(&work, &["look like radians"]);
}

#[test]
fn fill_that_looks_like_a_place_and_units_that_say_radians() {
    let attribute = |grid: &mut Contents, name: &str, value: AttributeValue| {
        let variable = grid.variables.get_mut("TLAT").unwrap();
        variable.attributes.retain(|(other, _)| other != name);
        variable.attributes.push((name.to_owned(), value));
    };
    let work = with_grid(|grid| {
        change(grid, "TLAT", |n, v| if n == 10 { -1.0 } else { v });
        attribute(grid, "missing_value", AttributeValue::Double(-1.0));
    });
    refused(&work, &["`TLAT` is NaN at nlat 1, nlon 1, a fill value"]);
    let radians = AttributeValue::Str("radians".to_owned());
    refused(&with_grid(|grid| attribute(grid, "units", radians)), &["`TLAT:units` is `radians`"]);
}

#[test]
fn a_later_file_on_other_points_is_refused() {
    let work = Workspace::new(3);
    let mut raw = contents(&work.raw(2));
    change(&mut raw, "TLAT", |_, v| if v.abs() < 90.0 { v * 0.9 } else { v });
    copy(&raw, &work.raw(2), Form::Cdf2, true, |_| {});
    let error = fails(&mut work.process(&[]), BAD_DATA);
    assert!(error.contains("0347-06.nc has the T point"), "{error}");
    assert!(!work.output(2).exists() && !work.path("out/112/04/manifest.json").exists());
}

#[test]
fn a_history_file_in_its_place() {
    let work = Workspace::new(2);
    fs::copy(work.raw(0), work.path("grid.nc")).unwrap();
    refused(&work, &["a fill value, as in history files", "name a file with the full grid"]);
}

#[test]
fn longitudes_west_of_greenwich_are_brought_to_those_of_the_model() {
    let (usual, work) = (Workspace::new(1), Workspace::new(1));
    usual.convert();
    let mut grid = contents(&work.path("grid.nc"));
    change(&mut grid, "TLONG", |_, lon| if lon > 180.0 { lon - 360.0 } else { lon });
    copy(&grid, &work.path("grid.nc"), Form::Cdf2, false, |_| {});
    work.convert();
    let of = |work: &Workspace| contents(&work.output(0)).variables["TLONG"].doubles();
    for (a, b) in of(&usual).into_iter().zip(of(&work)) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }
}

#[test]
fn a_file_that_is_no_grid() {
    let work = Workspace::new(2);
    let start = fs::read(work.raw(0)).unwrap()[..900].to_vec();
    for (bytes, word) in [
        (
            b"hello".to_vec(),
            "grid.nc cannot be the grid file (--grid): it is neither NetCDF nor the binary grid",
        ),
        (Vec::new(), "it is empty"),
        // As long as the binary grid, and noise.
        (
            (0..7 * 8 * 384 * 320).map(|n: u32| n.wrapping_mul(2_654_435_761) as u8).collect(),
            "ULAT",
        ),
    ] {
        fs::write(work.path("grid.nc"), bytes).unwrap();
        refused(&work, &[word]);
    }
    fs::write(work.path("grid.nc"), start).unwrap();
    let error = fails(&mut work.process(&[]), BAD_DATA);
    assert!(error.contains("grid.nc") && error.contains("copy it again"), "{error}");
    let work = with_grid(|grid| grid.order.retain(|name| name != "TLONG"));
    refused(&work, &["no variable `TLONG`"]);
}

#[test]
fn a_file_that_is_not_there_or_a_folder() {
    let work = Workspace::new(2);
    fs::remove_file(work.path("grid.nc")).unwrap();
    refused_with(&work, CONFIGURATION, &["grid.nc", "there is no such file"]);
    fs::create_dir(work.path("grid.nc")).unwrap();
    fs::copy(work.raw(0), work.path("grid.nc/a.nc")).unwrap();
    refused_with(&work, CONFIGURATION, &["it is a folder"]);
}
