//! Input that cannot be used: what is said of it, with which code, and that nothing is written.

use std::fs;
use std::path::Path;

use dor_atlas::synthetic::{SyntheticCase, netcdf3};

use super::support::case::{TINY, Workspace, assert_same, case, set_age, write_dated};
use super::support::dor::fails;
use super::support::netcdf::{Form, contents, copy};

const BAD_DATA: i32 = 65;
const USAGE: i32 = 2;

/// Holds that the case is refused with `code` and all the `words`, and that `out` stays as it was.
#[track_caller]
fn refused(work: &Workspace, more: &[&str], code: i32, words: &[&str]) {
    let before = work.tree("out");
    let error = fails(&mut work.process(more), code);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert_same(&before, &work.tree("out"));
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Three months, of which the second is replaced.
fn with_second(change: impl FnOnce(&mut Vec<u8>)) -> Workspace {
    let work = Workspace::new(3);
    let mut bytes = fs::read(work.raw(1)).unwrap();
    change(&mut bytes);
    write_dated(&work.raw(1), &bytes);
    work
}

#[test]
fn truncated_files() {
    let whole = Workspace::new(3);
    let len = fs::metadata(whole.raw(1)).unwrap().len() as usize;
    for keep in [3, 4, 20, 700, len / 4, len / 2, len - 4, len - 1] {
        let work = with_second(|bytes| bytes.truncate(keep));
        let file = name(&work.raw(1)).to_owned();
        refused(&work, &[], BAD_DATA, &[&file]);
        if keep > len / 4 {
            refused(&work, &[], BAD_DATA, &["truncated", "copy it again"]);
        }
    }
}

#[test]
fn truncated_netcdf4_files() {
    let work = Workspace::new(3);
    copy(&contents(&work.raw(1)), &work.raw(1), Form::Deflated(1), true, |_| {});
    let whole = fs::read(work.raw(1)).unwrap();
    for keep in [8, 40, whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        write_dated(&work.raw(1), &whole[..keep]);
        refused(&work, &[], BAD_DATA, &[name(&work.raw(1))]);
    }
    write_dated(&work.raw(1), &whole);
    work.convert();
}

#[test]
fn a_file_that_was_converted_before() {
    let work = Workspace::new(3);
    work.convert();
    let converted = fs::read(work.output(1)).unwrap();
    write_dated(&work.raw(1), &converted);
    refused(&work, &[], BAD_DATA, &[name(&work.raw(1)), "converted before"]);
}

#[test]
fn another_calendar_or_epoch() {
    for (old, new, word) in [
        ("noleap", "julian", "time:calendar"),
        ("days since 0000-01-01", "days since 1900-01-01", ":units"),
    ] {
        let work = with_second(|bytes| {
            let place = bytes.windows(old.len()).rposition(|w| w == old.as_bytes()).unwrap();
            bytes[place..place + old.len()].copy_from_slice(new.as_bytes());
        });
        let file = name(&work.raw(1)).to_owned();
        refused(&work, &[], BAD_DATA, &[&file, word, new]);
    }
}

#[test]
fn names_that_netcdf_does_not_allow() {
    for (text, at) in [("z_w_bot", 2), ("z_w_bot", 0), ("long_name", 4), ("time_period_freq", 1)] {
        for byte in [0, 0x7F, b'/'] {
            let work = with_second(|bytes| {
                let text = text.as_bytes();
                let place = bytes.windows(text.len()).position(|w| w == text).unwrap();
                bytes[place + at] = byte;
            });
            let file = name(&work.raw(1)).to_owned();
            refused(
                &work,
                &[],
                BAD_DATA,
                &[&file, "which NetCDF does not allow", "copy the file again"],
            );
        }
    }
}

#[test]
fn files_that_are_no_netcdf() {
    for bytes in [&b""[..], b"<html>404 Not Found</html>", b"CDF\x03 of the future", &[0; 512]] {
        let work = with_second(|old| *old = bytes.to_vec());
        let file = name(&work.raw(1)).to_owned();
        let said = if bytes.is_empty() { "is empty" } else { "not a NetCDF file" };
        refused(&work, &[], BAD_DATA, &[&file, said]);
    }
    let work = with_second(|bytes| bytes[8..600].fill(0xff));
    refused(&work, &[], BAD_DATA, &[name(&work.raw(1))]);
}

#[test]
fn a_variable_shorter_than_its_header_says() {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let work = with_second(|bytes| {
        let mut header = synthetic.header();
        let nlat = header.dimensions.iter_mut().find(|(name, _)| name == "nlat").unwrap();
        nlat.1 = Some(11);
        let promised = header.encode().unwrap();
        bytes.splice(..promised.len(), promised);
    });
    refused(&work, &[], BAD_DATA, &["truncated", "copy it again", name(&work.raw(1))]);
}

#[test]
fn files_outside_the_case() {
    let work = Workspace::new(2);
    for (n, first) in [(-1, "0347-03"), (180, "0362-04")] {
        let month = case().first_month().plus(n);
        assert_eq!(month.to_string(), first);
        let path = work.archive().join(format!("{}.pop.h.{month}.nc", case()));
        fs::copy(work.raw(0), &path).unwrap();
        refused(&work, &[], BAD_DATA, &[name(&path), "0347-04 to 0362-03", "move it away"]);
        fs::remove_file(path).unwrap();
    }
    work.convert();
}

#[test]
fn a_name_that_contradicts_the_content() {
    let work = Workspace::new(3);
    fs::copy(work.raw(0), work.raw(2)).unwrap();
    let file = name(&work.raw(2)).to_owned();
    refused(&work, &[], BAD_DATA, &[&file, "0347-04", "0347-06", "time_bound"]);
}

#[test]
fn bounds_that_are_no_month() {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let header = synthetic.header();
    // `time_bound` is the first of the variables with a record: it lies before all others.
    let fixed = header.file_size() - {
        let records = header.variables.iter().filter(|v| v.dimensions.first() == Some(&1));
        records.map(|v| header.variable_size(v)).sum::<u64>()
    };
    for (start, end) in [(f64::NAN, f64::NAN), (126_745.0, 126_760.0), (1e300, 2e300)] {
        let work = with_second(|bytes| {
            let at = fixed as usize;
            bytes[at..at + 8].copy_from_slice(&start.to_be_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&end.to_be_bytes());
        });
        refused(&work, &[], BAD_DATA, &[name(&work.raw(1)), "time_bound"]);
    }
    let work = with_second(|bytes| {
        let mut header = header.clone();
        header.variables.retain(|v| v.name != "time_bound");
        bytes.clear();
        synthetic.write_month_as(&header, case().first_month().plus(1), bytes).unwrap();
    });
    refused(&work, &[], BAD_DATA, &[name(&work.raw(1)), "`time_bound`"]);
}

#[test]
fn several_times_in_a_file() {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let work = with_second(|bytes| {
        let header = netcdf3::FileHeader { records: 2, ..synthetic.header() };
        bytes.clear();
        synthetic.write_month_as(&header, case().first_month().plus(1), bytes).unwrap();
    });
    refused(&work, &[], BAD_DATA, &[name(&work.raw(1)), "2 times"]);
}

/// Three months, of which those in `months` are written under a changed header.
fn with_headers(months: &[usize], change: impl Fn(&mut netcdf3::FileHeader)) -> Workspace {
    let (work, synthetic) = (Workspace::new(3), SyntheticCase::new(case(), TINY, 1));
    for &n in months {
        let (mut header, mut bytes) = (synthetic.header(), Vec::new());
        change(&mut header);
        let month = case().first_month().plus(n as i32);
        synthetic.write_month_as(&header, month, &mut bytes).unwrap();
        write_dated(&work.raw(n), &bytes);
    }
    work
}

#[test]
fn a_month_with_other_variables_than_the_rest() {
    let without = |name: &'static str| {
        move |header: &mut netcdf3::FileHeader| header.variables.retain(|v| v.name != name)
    };
    let work = with_headers(&[1], without("DIC"));
    let file = name(&work.raw(1)).to_owned();
    let words = [&*file, "lacks `DIC`", "move it away", "1 of the files"];
    refused(&work, &[], BAD_DATA, &words);
    // The first month is the odd one, not the two others.
    let work = with_headers(&[0], without("TAREA"));
    let file = name(&work.raw(0)).to_owned();
    refused(&work, &[], BAD_DATA, &[&file, "lacks `TAREA`", "1 of the files"]);
    // What is done counts.
    let work = Workspace::new(3);
    work.convert();
    let odd = with_headers(&[0, 1], without("ALK"));
    let replace = |n| {
        fs::copy(odd.raw(n), work.raw(n)).unwrap();
        set_age(&work.raw(n), 9);
    };
    replace(0);
    refused(&work, &[], BAD_DATA, &[name(&work.raw(0)), "lacks `ALK`"]);
    replace(1);
    refused(&work, &[], BAD_DATA, &[name(&work.raw(2)), "has also `ALK`"]);
}

#[test]
fn fields_on_no_grid_are_no_history() {
    let work = with_headers(&[1], |header| {
        for (name, _) in &mut header.dimensions {
            if name == "nlat" {
                *name = "y".to_owned();
            }
        }
    });
    let file = name(&work.raw(1)).to_owned();
    refused(&work, &[], BAD_DATA, &[&file, "no field on (time, ..., nlat, nlon)"]);
}

#[test]
fn a_case_without_areas_is_converted_with_a_warning() {
    let work = with_headers(&[0, 1, 2], |h| h.variables.retain(|v| v.name != "TAREA"));
    let output = work.process(&[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no TAREA") && said.contains("area_m2"), "{said}");
}

/// Spoils the last compressed chunk of a NetCDF-4 copy of the second month.
fn spoil_a_chunk(work: &Workspace) {
    copy(&contents(&work.raw(1)), &work.raw(1), Form::Deflated(1), true, |_| {});
    let mut bytes = fs::read(work.raw(1)).unwrap();
    // Every zlib stream of level 1 begins so.
    let chunk = bytes.windows(2).rposition(|w| w == [0x78, 0x01]).unwrap();
    bytes[chunk + 2..chunk + 24].fill(0xEE);
    write_dated(&work.raw(1), &bytes);
}

#[test]
fn a_spoilt_chunk_leaves_a_finished_case_as_it_was() {
    let work = Workspace::new(3);
    work.convert();
    spoil_a_chunk(&work);
    refused(&work, &[], BAD_DATA, &[name(&work.raw(1)), "damaged"]);
}

#[test]
fn a_spoilt_chunk_does_not_cost_the_other_months() {
    let undisturbed = Workspace::new(3);
    undisturbed.convert();
    let work = Workspace::new(3);
    spoil_a_chunk(&work);
    let error = fails(&mut work.process(&[]), BAD_DATA);
    assert!(error.contains(name(&work.raw(1))) && error.contains("damaged"), "{error}");
    assert!(!work.output(1).exists() && !work.path("out/112/04/manifest.json").exists());
    fs::copy(undisturbed.raw(1), work.raw(1)).unwrap();
    set_age(&work.raw(1), 0);
    work.convert();
    assert_same(&undisturbed.tree("out"), &work.tree("out"));
}

#[test]
fn two_files_for_one_month() {
    let work = Workspace::new(3);
    let copy = work.archive().join(format!("{}.pop.h.0347-05 (1).nc", case()));
    fs::copy(work.raw(1), &copy).unwrap();
    let both = (work.raw(1), copy);
    let words = ["0347-05", name(&both.0), name(&both.1), "move one away"];
    refused(&work, &[], BAD_DATA, &words);
}

#[test]
fn all_bad_files_are_named_at_once() {
    let work = Workspace::new(5);
    for n in [1, 3] {
        write_dated(&work.raw(n), b"broken");
    }
    refused(&work, &[], BAD_DATA, &[name(&work.raw(1)), name(&work.raw(3)), "2 of the files"]);
}

#[test]
fn missing_months_are_named_and_may_be_allowed() {
    let work = Workspace::new(6);
    for n in [1, 3, 4] {
        fs::remove_file(work.raw(n)).unwrap();
    }
    let strict = ["112-04", "-d", "archive", "-o", "out", "--grid", "grid.nc"];
    let error = fails(&mut work.process_case(&strict), BAD_DATA);
    let ranges = "0347-05, 0347-07 to 0347-08, 0347-10 to 0362-03";
    assert!(error.contains(&format!("177 of 180 months: {ranges};")), "{error}");
    assert!(error.contains("--allow-missing") && error.contains(&case().to_string()), "{error}");
    assert!(!work.path("out").exists());

    let allowed = ["--grid", "grid.nc", "--allow-missing"];
    for (more, said) in [
        (&["--dry-run"][..], "3 files to convert"),
        (&[], "3 files converted"),
        (&[], "done before"),
    ] {
        let mut command = work.process_case(&strict[..5]);
        let output = command.args(allowed).args(more).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(said), "{printed}");
        assert!(printed.contains(&format!("177 of 180 months missing: {ranges}")), "{printed}");
    }
    let record = work.tree("out").remove("112/04/manifest.json").unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let missing = record["missing_months"].as_array().unwrap();
    assert_eq!(
        (missing.len(), &missing[0], &missing[1]),
        (177, &"0347-05".into(), &"0347-07".into())
    );
    assert_eq!(record["files"].as_array().unwrap().len(), 3);
    assert_eq!(work.tree("out").len(), 4);

    // A month that comes later is added, the others are kept.
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let mut bytes = Vec::new();
    synthetic.write_month(case().first_month().plus(1), &mut bytes).unwrap();
    fs::write(work.raw(1), bytes).unwrap();
    set_age(&work.raw(1), 0);
    let output = work.process(&[]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("1 file converted, 3 kept"), "{said}");
}

#[test]
fn unknown_cases_in_all_three_forms() {
    let work = Workspace::new(1);
    for (text, why) in [
        ("smyle.cdr-atlas-v0.glb-dor_South_112_1999-04-01_00449.001", "the case of that index is"),
        ("smyle.cdr-atlas-v0.control.001", "names no case"),
        ("02760", "names no case"),
        ("690-01", "polygons are 0 to 689"),
        ("112-05", "1, 4, 7 and 10"),
    ] {
        let command = [text, "-d", "archive", "-o", "out"];
        let error = fails(&mut work.process_case(&command), USAGE);
        assert!(error.contains(why), "{text}: {error}");
        assert!(!work.path("out").exists());
    }
    // Known, and without files here.
    let command = ["113-04", "-d", "archive", "-o", "out", "--grid", "grid.nc"];
    let error = fails(&mut work.process_case(&command), BAD_DATA);
    assert!(error.contains("no raw files") && error.contains("--data-dir"), "{error}");
}

#[test]
fn an_earlier_result_outlives_a_bad_replacement() {
    let work = Workspace::new(3);
    work.convert();
    write_dated(&work.raw(1), b"half a file");
    refused(&work, &[], BAD_DATA, &[name(&work.raw(1))]);
    refused(&work, &["--force"], BAD_DATA, &[name(&work.raw(1))]);
}
