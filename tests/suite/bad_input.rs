//! Raw files that cannot be converted: the message, the exit code, and that the output stays unchanged.

use std::fs;
use std::path::Path;

use dor_atlas::synthetic::{SyntheticCase, netcdf3};

use super::support::case::{TINY, Workspace, assert_same, case, set_age, write_dated};
use super::support::dor::fails;
use super::support::netcdf::{Form, contents, copy};

const BAD_DATA: i32 = 65;
const USAGE: i32 = 2;

/// Asserts exit code `code`, all `words` in the message, and that `out` stays unchanged.
#[track_caller]
fn assert_refused(work: &Workspace, more: &[&str], code: i32, words: &[&str]) {
    let before = work.tree("out");
    let error = fails(&mut work.process(more), code);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert_same(&before, &work.tree("out"));
}

fn file_name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// A workspace of three months; `change` edits the bytes of the second.
fn with_second_month_changed(change: impl FnOnce(&mut Vec<u8>)) -> Workspace {
    let work = Workspace::new(3);
    let mut bytes = fs::read(work.raw(1)).unwrap();
    change(&mut bytes);
    write_dated(&work.raw(1), &bytes);
    work
}

#[test]
fn truncated_files_are_refused() {
    let original = Workspace::new(3);
    let len = fs::metadata(original.raw(1)).unwrap().len() as usize;
    for keep in [3, 4, 20, 700, len / 4, len / 2, len - 4, len - 1] {
        let work = with_second_month_changed(|bytes| bytes.truncate(keep));
        let file = file_name(&work.raw(1)).to_owned();
        assert_refused(&work, &[], BAD_DATA, &[&file]);
        if keep > len / 4 {
            assert_refused(&work, &[], BAD_DATA, &["truncated", "copy it again"]);
        }
    }
}

#[test]
fn truncated_netcdf4_files_are_refused() {
    let work = Workspace::new(3);
    copy(&contents(&work.raw(1)), &work.raw(1), Form::Deflated(1), true, |_| {});
    let original = fs::read(work.raw(1)).unwrap();
    for keep in [8, 40, original.len() / 4, original.len() / 2, original.len() - 1] {
        write_dated(&work.raw(1), &original[..keep]);
        assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1))]);
    }
    write_dated(&work.raw(1), &original);
    work.convert();
}

#[test]
fn a_research_grade_file_in_the_archive_is_refused() {
    let work = Workspace::new(3);
    work.convert();
    let converted = fs::read(work.output(1)).unwrap();
    write_dated(&work.raw(1), &converted);
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1)), "converted before"]);
}

#[test]
fn another_calendar_or_epoch_is_refused() {
    for (old, new, word) in [
        ("noleap", "julian", "time:calendar"),
        ("days since 0000-01-01", "days since 1900-01-01", ":units"),
    ] {
        let work = with_second_month_changed(|bytes| {
            let offset = bytes.windows(old.len()).rposition(|w| w == old.as_bytes()).unwrap();
            bytes[offset..offset + old.len()].copy_from_slice(new.as_bytes());
        });
        let file = file_name(&work.raw(1)).to_owned();
        assert_refused(&work, &[], BAD_DATA, &[&file, word, new]);
    }
}

#[test]
fn names_with_bytes_that_netcdf_forbids_are_refused() {
    for (text, at) in [("z_w_bot", 2), ("z_w_bot", 0), ("long_name", 4), ("time_period_freq", 1)] {
        for byte in [0, 0x7F, b'/'] {
            let work = with_second_month_changed(|bytes| {
                let text = text.as_bytes();
                let offset = bytes.windows(text.len()).position(|w| w == text).unwrap();
                bytes[offset + at] = byte;
            });
            let file = file_name(&work.raw(1)).to_owned();
            assert_refused(
                &work,
                &[],
                BAD_DATA,
                &[&file, "which NetCDF does not allow", "copy the file again"],
            );
        }
    }
}

#[test]
fn files_that_are_not_netcdf_are_refused() {
    for bytes in [&b""[..], b"<html>404 Not Found</html>", b"CDF\x03 of the future", &[0; 512]] {
        let work = with_second_month_changed(|old| *old = bytes.to_vec());
        let file = file_name(&work.raw(1)).to_owned();
        let message = if bytes.is_empty() { "is empty" } else { "not a NetCDF file" };
        assert_refused(&work, &[], BAD_DATA, &[&file, message]);
    }
    let work = with_second_month_changed(|bytes| bytes[8..600].fill(0xff));
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1))]);
}

#[test]
fn a_file_shorter_than_its_header_states_is_refused() {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let work = with_second_month_changed(|bytes| {
        let mut header = synthetic.header();
        let nlat = header.dimensions.iter_mut().find(|(name, _)| name == "nlat").unwrap();
        nlat.1 = Some(11);
        let promised = header.encode().unwrap();
        bytes.splice(..promised.len(), promised);
    });
    assert_refused(&work, &[], BAD_DATA, &["truncated", "copy it again", file_name(&work.raw(1))]);
}

#[test]
fn months_before_or_after_the_case_are_refused() {
    let work = Workspace::new(2);
    for (n, first) in [(-1, "0347-03"), (180, "0362-04")] {
        let month = case().first_month().plus(n);
        assert_eq!(month.to_string(), first);
        let path = work.archive().join(format!("{}.pop.h.{month}.nc", case()));
        fs::copy(work.raw(0), &path).unwrap();
        assert_refused(
            &work,
            &[],
            BAD_DATA,
            &[file_name(&path), "0347-04 to 0362-03", "move it away"],
        );
        fs::remove_file(path).unwrap();
    }
    work.convert();
}

#[test]
fn a_file_name_that_contradicts_time_bound_is_refused() {
    let work = Workspace::new(3);
    fs::copy(work.raw(0), work.raw(2)).unwrap();
    let file = file_name(&work.raw(2)).to_owned();
    assert_refused(&work, &[], BAD_DATA, &[&file, "0347-04", "0347-06", "time_bound"]);
}

#[test]
fn time_bounds_that_are_not_one_month_are_refused() {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let header = synthetic.header();
    // `time_bound` is the first record variable, so its data comes before that of all others.
    let fixed = header.file_size() - {
        let records = header.variables.iter().filter(|v| v.dimensions.first() == Some(&1));
        records.map(|v| header.variable_size(v)).sum::<u64>()
    };
    for (start, end) in [(f64::NAN, f64::NAN), (126_745.0, 126_760.0), (1e300, 2e300)] {
        let work = with_second_month_changed(|bytes| {
            let at = fixed as usize;
            bytes[at..at + 8].copy_from_slice(&start.to_be_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&end.to_be_bytes());
        });
        assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1)), "time_bound"]);
    }
    let work = with_second_month_changed(|bytes| {
        let mut header = header.clone();
        header.variables.retain(|v| v.name != "time_bound");
        bytes.clear();
        synthetic.write_month_as(&header, case().first_month().plus(1), bytes).unwrap();
    });
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1)), "`time_bound`"]);
}

#[test]
fn a_file_with_two_times_is_refused() {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let work = with_second_month_changed(|bytes| {
        let header = netcdf3::FileHeader { records: 2, ..synthetic.header() };
        bytes.clear();
        synthetic.write_month_as(&header, case().first_month().plus(1), bytes).unwrap();
    });
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1)), "2 times"]);
}

/// A workspace of three months; those in `months` are written with a changed header.
fn with_changed_headers(months: &[usize], change: impl Fn(&mut netcdf3::FileHeader)) -> Workspace {
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
fn a_month_with_other_variables_than_the_others_is_refused() {
    let without = |name: &'static str| {
        move |header: &mut netcdf3::FileHeader| header.variables.retain(|v| v.name != name)
    };
    let work = with_changed_headers(&[1], without("DIC"));
    let file = file_name(&work.raw(1)).to_owned();
    let words = [&*file, "lacks `DIC`", "move it away", "1 of the files"];
    assert_refused(&work, &[], BAD_DATA, &words);
    // The message names the first month, because the two others agree.
    let work = with_changed_headers(&[0], without("TAREA"));
    let file = file_name(&work.raw(0)).to_owned();
    assert_refused(&work, &[], BAD_DATA, &[&file, "lacks `TAREA`", "1 of the files"]);
    // Months that are already converted count too.
    let work = Workspace::new(3);
    work.convert();
    let odd = with_changed_headers(&[0, 1], without("ALK"));
    let replace = |n| {
        fs::copy(odd.raw(n), work.raw(n)).unwrap();
        set_age(&work.raw(n), 9);
    };
    replace(0);
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(0)), "lacks `ALK`"]);
    replace(1);
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(2)), "has also `ALK`"]);
}

#[test]
fn a_file_without_fields_on_nlat_and_nlon_is_refused() {
    let work = with_changed_headers(&[1], |header| {
        for (name, _) in &mut header.dimensions {
            if name == "nlat" {
                *name = "y".to_owned();
            }
        }
    });
    let file = file_name(&work.raw(1)).to_owned();
    assert_refused(&work, &[], BAD_DATA, &[&file, "no field on (time, ..., nlat, nlon)"]);
}

#[test]
fn a_case_without_tarea_is_converted_with_a_warning() {
    let work = with_changed_headers(&[0, 1, 2], |h| h.variables.retain(|v| v.name != "TAREA"));
    let output = work.process(&[]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("no TAREA") && stderr.contains("area_m2"), "{stderr}");
}

/// Replaces the second month by a NetCDF-4 copy whose last compressed chunk is damaged.
fn damage_a_chunk(work: &Workspace) {
    copy(&contents(&work.raw(1)), &work.raw(1), Form::Deflated(1), true, |_| {});
    let mut bytes = fs::read(work.raw(1)).unwrap();
    // The first bytes of a zlib stream of level 1.
    let chunk = bytes.windows(2).rposition(|w| w == [0x78, 0x01]).unwrap();
    bytes[chunk + 2..chunk + 24].fill(0xEE);
    write_dated(&work.raw(1), &bytes);
}

#[test]
fn a_damaged_chunk_leaves_a_finished_case_unchanged() {
    let work = Workspace::new(3);
    work.convert();
    damage_a_chunk(&work);
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1)), "damaged"]);
}

#[test]
fn a_case_with_a_damaged_chunk_is_completed_after_its_repair() {
    let expected = Workspace::new(3);
    expected.convert();
    let work = Workspace::new(3);
    damage_a_chunk(&work);
    let error = fails(&mut work.process(&[]), BAD_DATA);
    assert!(error.contains(file_name(&work.raw(1))) && error.contains("damaged"), "{error}");
    assert!(!work.output(1).exists() && !work.path("out/112/04/manifest.json").exists());
    fs::copy(expected.raw(1), work.raw(1)).unwrap();
    set_age(&work.raw(1), 0);
    work.convert();
    assert_same(&expected.tree("out"), &work.tree("out"));
}

#[test]
fn two_files_for_one_month_are_refused() {
    let work = Workspace::new(3);
    let copy = work.archive().join(format!("{}.pop.h.0347-05 (1).nc", case()));
    fs::copy(work.raw(1), &copy).unwrap();
    let both = (work.raw(1), copy);
    let words = ["0347-05", file_name(&both.0), file_name(&both.1), "move one away"];
    assert_refused(&work, &[], BAD_DATA, &words);
}

#[test]
fn all_bad_files_are_named_in_one_run() {
    let work = Workspace::new(5);
    for n in [1, 3] {
        write_dated(&work.raw(n), b"broken");
    }
    assert_refused(
        &work,
        &[],
        BAD_DATA,
        &[file_name(&work.raw(1)), file_name(&work.raw(3)), "2 of the files"],
    );
}

#[test]
fn missing_months_are_named_and_accepted_with_allow_missing() {
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
    for (more, expected) in [
        (&["--dry-run"][..], "3 files to convert"),
        (&[], "3 files converted"),
        (&[], "done before"),
    ] {
        let mut command = work.process_case(&strict[..5]);
        let output = command.args(allowed).args(more).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(printed.contains(expected), "{printed}");
        assert!(printed.contains(&format!("177 of 180 months missing: {ranges}")), "{printed}");
    }
    let manifest = work.tree("out").remove("112/04/manifest.json").unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let missing = manifest["missing_months"].as_array().unwrap();
    assert_eq!(
        (missing.len(), &missing[0], &missing[1]),
        (177, &"0347-05".into(), &"0347-07".into())
    );
    assert_eq!(manifest["files"].as_array().unwrap().len(), 3);
    assert_eq!(work.tree("out").len(), 4);

    // A month that arrives later is converted; the others are kept.
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let mut bytes = Vec::new();
    synthetic.write_month(case().first_month().plus(1), &mut bytes).unwrap();
    fs::write(work.raw(1), bytes).unwrap();
    set_age(&work.raw(1), 0);
    let output = work.process(&[]).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("1 file converted, 3 kept"), "{stdout}");
}

#[test]
fn unknown_cases_are_refused_in_every_spelling() {
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
    // A known case without raw files in the archive.
    let command = ["113-04", "-d", "archive", "-o", "out", "--grid", "grid.nc"];
    let error = fails(&mut work.process_case(&command), BAD_DATA);
    assert!(error.contains("no raw files") && error.contains("--data-dir"), "{error}");
}

#[test]
fn a_bad_raw_file_never_replaces_an_earlier_result() {
    let work = Workspace::new(3);
    work.convert();
    write_dated(&work.raw(1), b"half a file");
    assert_refused(&work, &[], BAD_DATA, &[file_name(&work.raw(1))]);
    assert_refused(&work, &["--force"], BAD_DATA, &[file_name(&work.raw(1))]);
}
