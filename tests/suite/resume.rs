//! A second run converts only what is missing or has changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command as System;
use std::time::Duration;

use dor_atlas::synthetic::SyntheticCase;

use super::support::case::{TINY, Workspace, assert_same, case, output_key, set_age, write_dated};
use super::support::dor::fails;
use super::support::s3::{BUCKET, S3Server};

/// Runs the conversion, which must succeed; returns standard output.
#[track_caller]
fn run(work: &Workspace, more: &[&str]) -> String {
    let output = work.process(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Inode of each output file, which is another one after the file is written again.
fn inodes(work: &Workspace, months: usize) -> Vec<u64> {
    (0..months).map(|n| fs::metadata(work.output(n)).map_or(0, |meta| meta.ino())).collect()
}

/// The months that a run writes again; its standard output must contain `expected`.
#[track_caller]
fn months_converted_again(work: &Workspace, months: usize, expected: &str) -> Vec<usize> {
    let before = inodes(work, months);
    let printed = run(work, &[]);
    assert!(printed.contains(expected), "{printed}");
    let after = inodes(work, months);
    (0..months).filter(|&n| before[n] != after[n]).collect()
}

#[test]
fn a_finished_case_is_skipped() {
    let work = Workspace::new(4);
    assert!(run(&work, &[]).contains("4 files converted, 0 kept"));
    let before = work.tree("out");
    assert_eq!(months_converted_again(&work, 4, "done before, 4 files"), [0; 0]);
    assert_same(&before, &work.tree("out"));
}

#[test]
fn a_finished_case_takes_four_requests_and_reads_no_raw_file() {
    let (work, server) = (Workspace::new(5), S3Server::start());
    let mut copy = System::new("cp");
    copy.arg("-a").arg(work.path("archive")).arg(server.bucket_folder());
    assert!(copy.status().unwrap().success());
    let locations = [format!("s3://{BUCKET}/archive"), format!("s3://{BUCKET}/out")];
    let run = || {
        let arguments = ["112-04", "-d", &locations[0], "-o", &locations[1], "--allow-missing"];
        let output = work
            .process_case(&arguments)
            .args(["--grid", "grid.nc"])
            .envs(server.variables())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), server.requests())
    };
    assert!(run().0.contains("5 files converted"));
    let (stdout, requests) = run();
    assert!(stdout.contains("done before, 5 files"), "{stdout}");
    assert!(requests.len() <= 4, "{requests:?}");
    let raw = requests.iter().filter(|r| r.contains("archive") && !r.contains("list-type"));
    assert_eq!(raw.count(), 0, "{requests:?}");
}

#[test]
fn missing_and_truncated_outputs_are_converted_again() {
    let work = Workspace::new(5);
    work.convert();
    let before = work.tree("out");
    fs::remove_file(work.output(1)).unwrap();
    fs::write(work.output(3), b"cut").unwrap();
    assert_eq!(months_converted_again(&work, 5, "2 files converted, 3 kept"), [1, 3]);
    assert_same(&before, &work.tree("out"));
}

#[test]
fn changed_raw_files_are_converted_again() {
    let work = Workspace::new(4);
    work.convert();
    let before = work.tree("out");
    // Another size with the same modification time.
    let mut header = SyntheticCase::new(case(), TINY, 1).header();
    header.attributes.pop();
    let mut bytes = Vec::new();
    let synthetic = SyntheticCase::new(case(), TINY, 9);
    synthetic.write_month_as(&header, case().first_month(), &mut bytes).unwrap();
    write_dated(&work.raw(0), &bytes);
    // Another byte with another modification time.
    let mut bytes = fs::read(work.raw(2)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(work.raw(2), bytes).unwrap();
    let plan = run(&work, &["--dry-run"]);
    assert!(plan.contains("2 files: raw file has other bytes than recorded"), "{plan}");
    assert_eq!(months_converted_again(&work, 4, "2 files converted, 2 kept"), [0, 2]);
    let after = work.tree("out");
    for n in 0..4 {
        let same = before[&output_key(n)] == after[&output_key(n)];
        assert_eq!(same, [1, 3].contains(&n), "{n}");
    }
    assert_eq!(months_converted_again(&work, 4, "done before"), [0; 0]);
}

#[test]
fn an_older_version_of_a_raw_file_does_not_replace_its_result() {
    let work = Workspace::new(2);
    work.convert();
    let before = work.tree("out");
    let mut bytes = fs::read(work.raw(1)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(work.raw(1), bytes).unwrap();
    let older = fs::metadata(work.raw(0)).unwrap().modified().unwrap() - Duration::from_secs(60);
    fs::File::options().write(true).open(work.raw(1)).unwrap().set_modified(older).unwrap();
    for more in [&["--dry-run"][..], &[]] {
        let error = fails(&mut work.process(more), 78);
        assert!(error.contains("input file: the case manifest has "), "{error}");
        assert!(error.contains("an older one") && error.contains("--force"), "{error}");
        assert_same(&before, &work.tree("out"));
    }
    assert!(run(&work, &["--force"]).contains("2 files converted"));
}

#[test]
fn a_month_on_other_points_leaves_a_case_unchanged_that_gets_a_grid_file() {
    let work = Workspace::new(3);
    let without_grid = ["112-04", "-d", "archive", "-o", "out", "--allow-missing"];
    work.process_case(&without_grid).assert().success();
    let before = work.tree("out");
    let original = fs::read(work.raw(2)).unwrap();
    let mut file = netcdf::append(work.raw(2)).unwrap();
    let mut variable = file.variable_mut("TLAT").unwrap();
    let mut values = variable.get_values::<f64, _>(..).unwrap();
    values.reverse();
    variable.put_values(&values, ..).unwrap();
    drop(file);
    let error = fails(&mut work.process(&[]), 65);
    assert!(error.contains("0347-06.nc") && error.contains("T point"), "{error}");
    assert_same(&before, &work.tree("out"));
    write_dated(&work.raw(2), &original);
    assert!(run(&work, &[]).contains("3 files converted"));
}

#[test]
fn a_month_whose_raw_file_and_result_are_gone_stays_in_the_manifest() {
    let work = Workspace::new(2);
    work.convert();
    fs::remove_file(work.raw(1)).unwrap();
    fs::remove_file(work.output(1)).unwrap();
    let before = work.tree("out");
    let error = fails(&mut work.process(&[]), 65);
    assert!(error.contains("0347-05") && error.contains("--force"), "{error}");
    assert_same(&before, &work.tree("out"));
}

#[test]
fn a_touched_or_copied_archive_is_not_converted_again() {
    let work = Workspace::new(4);
    work.convert();
    set_age(&work.raw(2), 5);
    let plan = run(&work, &["--dry-run"]);
    assert!(plan.contains("0 files to convert") && plan.contains("4 done"), "{plan}");
    assert_eq!(months_converted_again(&work, 4, "done before, 4 files"), [0; 0]);
    // The new time was recorded, so the content is not compared again.
    let second = work.process(&["--verbose"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&second.stderr).contains("its modification time differs"));

    let server = S3Server::start();
    let mut copy = System::new("cp");
    copy.arg("-r").arg(work.path("archive")).arg(server.bucket_folder());
    assert!(copy.status().unwrap().success());
    let archive = format!("s3://{BUCKET}/archive");
    let before = inodes(&work, 4);
    let mut from_copy = work.process_case(&["112-04", "-d", &archive, "-o", "out"]);
    from_copy.args(["--allow-missing", "--grid", "grid.nc", "--verbose"]);
    let output = from_copy.envs(server.variables()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && stdout.contains("done before, 4 files"), "{stdout}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("its modification time differs, its content is the same").count(), 4);
    assert_eq!(inodes(&work, 4), before);
}

/// Asserts exit code 78, all `words` in the message, and an unchanged output.
#[track_caller]
fn assert_refused(work: &Workspace, more: &[&str], words: &[&str]) {
    let before = work.tree("out");
    let mut command =
        work.process_case(&["112-04", "-d", "archive", "-o", "out", "--allow-missing"]);
    let error = super::support::dor::fails(command.args(more), 78);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert_same(&before, &work.tree("out"));
}

#[test]
fn a_case_converted_with_other_settings_is_refused() {
    let work = Workspace::new(3);
    work.convert();
    let sha256 = |name: &str| {
        let output = System::new("sha256sum").arg(work.path(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()[..12].to_owned()
    };
    let recorded = sha256("grid.nc");
    let other = fs::read(work.path("grid.nc")).unwrap();
    let last = other.len() - 1;
    let other: Vec<u8> =
        other.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == last)).collect();
    fs::write(work.path("other.nc"), other).unwrap();
    // Without the grid file, and with another one.
    for more in [&[][..], &["--dry-run"]] {
        assert_refused(
            &work,
            more,
            &["grid: ", &recorded, "none (--grid is not given)", "--force"],
        );
        let with_other = [&["--grid", "other.nc"], more].concat();
        assert_refused(&work, &with_other, &[&recorded, &sha256("other.nc"), "manifest.json"]);
    }
    // Rules of another version of the program.
    let manifest = work.path("out/112/04/manifest.json");
    let original = fs::read_to_string(&manifest).unwrap();
    let older = original.replacen("\"version\": ", "\"version\": 9", 1);
    assert_ne!(original, older);
    fs::write(&manifest, older).unwrap();
    assert_refused(&work, &["--grid", "grid.nc"], &["rules: ", "version 9", "--force"]);
    fs::write(&manifest, original.replacen("\"format\": 2", "\"format\": 9", 1)).unwrap();
    assert_refused(
        &work,
        &["--grid", "grid.nc"],
        &["case manifest format 9", "newer version of dor"],
    );
    // An interrupted case is refused too.
    fs::write(work.path("out/112/04/manifest.partial.json"), &original).unwrap();
    fs::remove_file(&manifest).unwrap();
    assert_refused(&work, &[], &["grid: ", "manifest.partial.json"]);
    // Files without a case manifest are not replaced.
    fs::remove_file(work.path("out/112/04/manifest.partial.json")).unwrap();
    assert_refused(
        &work,
        &["--grid", "grid.nc"],
        &["3 research-grade files", "no case manifest", "--force"],
    );
    assert!(run(&work, &["--force"]).contains("3 files converted, 0 kept"));
}

#[test]
fn a_case_manifest_of_other_files_is_refused() {
    let (work, bare) = (Workspace::new(3), ["112-04", "-d", "archive", "--allow-missing", "-o"]);
    work.convert();
    work.process_case(&bare).arg("bare").assert().success();
    let manifest = work.path("out/112/04/manifest.json");
    let original = fs::read_to_string(&manifest).unwrap();
    fs::copy(work.path("bare/112/04/manifest.json"), &manifest).unwrap();
    let words = ["3 research-grade files", "manifest.json there does not describe them", "--force"];
    assert_refused(&work, &[], &words);
    assert_refused(&work, &["--grid", "grid.nc"], &words);
    // The manifest of another case.
    let other = original.replacen("_112_1999-04-01_00449", "_113_1999-04-01_00453", 1);
    assert_ne!(original, other);
    fs::write(&manifest, other).unwrap();
    assert_refused(&work, &["--grid", "grid.nc"], &["manifest.json there is of case", "--force"]);
    assert!(run(&work, &["--force"]).contains("3 files converted, 0 kept"));
    assert_eq!(fs::read_to_string(&manifest).unwrap(), original);
    // `check` finds a truncated file and says how to make it again.
    fs::write(work.output(1), b"cut").unwrap();
    let mut check = super::support::dor::dor(work.folder());
    let check = check.args(["research-data", "check", "-o", "out"]).output().unwrap();
    assert_eq!(check.status.code(), Some(65));
    assert!(String::from_utf8(check.stdout).unwrap().contains("`dor research-data process-case`"));
}

#[test]
fn a_case_begun_with_other_settings_is_taken_over_only_with_force() {
    let work = Workspace::new(2);
    work.convert();
    let (manifest, partial) =
        (work.path("out/112/04/manifest.json"), work.path("out/112/04/manifest.partial.json"));
    let original: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    let mut begun = original.clone();
    begun["files"] = serde_json::json!([]);
    fs::remove_file(&manifest).unwrap();
    fs::write(&partial, begun.to_string()).unwrap();
    assert_refused(&work, &[], &["grid: ", "manifest.partial.json", "--force"]);
    for n in 0..2 {
        fs::remove_file(work.output(n)).unwrap();
    }
    // The process that began the case may still run.
    assert_refused(&work, &[], &["grid: ", "manifest.partial.json", "--force"]);
    let bare = ["112-04", "-d", "archive", "-o", "out", "--allow-missing", "--force"];
    work.process_case(&bare).assert().success();
    assert!(manifest.exists() && !partial.exists());
    // A run with the grid file does not take over a begun case either, for the same reason.
    let made = fs::read(&manifest).unwrap();
    fs::rename(&manifest, &partial).unwrap();
    assert_refused(&work, &["--grid", "grid.nc"], &["grid: ", "manifest.partial.json", "--force"]);
    assert_eq!(fs::read(&partial).unwrap(), made);
    let same = ["112-04", "-d", "archive", "-o", "out", "--allow-missing"];
    work.process_case(&same).assert().success();
    assert!(manifest.exists() && !partial.exists());
}

#[test]
fn a_case_without_a_grid_file_is_converted_again_when_one_is_given() {
    let work = Workspace::new(3);
    let arguments = ["112-04", "-d", "archive", "-o", "out", "--allow-missing"];
    work.process_case(&arguments).assert().success();
    let plan = run(&work, &["--dry-run"]);
    assert!(plan.contains("3 files: converted without a grid file before"), "{plan}");
    assert_eq!(months_converted_again(&work, 3, "3 files converted, 0 kept"), [0, 1, 2]);
    assert_eq!(months_converted_again(&work, 3, "done before"), [0; 0]);
}

#[test]
fn force_converts_every_file_again_to_the_same_bytes() {
    let work = Workspace::new(3);
    work.convert();
    let (before, old_inodes) = (work.tree("out"), inodes(&work, 3));
    assert!(run(&work, &["--force"]).contains("3 files converted, 0 kept"));
    assert!(inodes(&work, 3).iter().zip(old_inodes).all(|(new, old)| *new != old));
    assert_same(&before, &work.tree("out"));
}

#[test]
fn a_dry_run_prints_the_plan_and_writes_nothing() {
    let work = Workspace::new(3);
    fs::write(work.archive().join("notes.txt"), b"").unwrap();
    let plan = run(&work, &["--dry-run"]);
    assert!(plan.contains("3 files to convert") && plan.contains("0 done"), "{plan}");
    assert!(plan.contains("  3 files: not converted yet\n"), "{plan}");
    assert!(plan.contains("1 other file in the raw folder skipped"), "{plan}");
    let name = |n| output_key(n).rsplit('/').next().unwrap().to_owned();
    assert!(!plan.contains(&name(0)), "{plan}");
    let plan = run(&work, &["--dry-run", "--verbose"]);
    for n in 0..3 {
        assert!(plan.contains(&format!("\n  {}\n", name(n))), "{plan}");
    }
    assert!(plan.lines().all(|line| line.len() <= 80), "{plan}");
    assert!(!work.path("out").exists());
    work.convert();
    fs::remove_file(work.output(1)).unwrap();
    let before = work.tree("out");
    let plan = run(&work, &["--dry-run", "--verbose"]);
    assert!(plan.contains("  1 file: research-grade file is gone\n"), "{plan}");
    assert!(plan.contains("1 file to convert") && plan.contains("2 done"), "{plan}");
    assert!(plan.contains(&name(1)) && !plan.contains(&name(0)), "{plan}");
    assert_same(&before, &work.tree("out"));
}

#[test]
fn a_partial_manifest_beside_a_complete_one_is_removed() {
    let work = Workspace::new(2);
    work.convert();
    let before = work.tree("out");
    let folder = work.path("out/112/04");
    fs::copy(folder.join("manifest.json"), folder.join("manifest.partial.json")).unwrap();
    run(&work, &[]);
    assert_same(&before, &work.tree("out"));
}

#[test]
fn an_invalid_case_manifest_is_reported() {
    let work = Workspace::new(2);
    work.convert();
    let manifest = work.path("out/112/04/manifest.json");
    fs::write(&manifest, b"{}").unwrap();
    let error = super::support::dor::fails(&mut work.process(&[]), 65);
    assert!(error.contains("manifest.json") && error.contains("--force"), "{error}");
    let before = String::from_utf8(fs::read(&manifest).unwrap()).unwrap();
    assert_eq!(before, "{}", "the manifest was replaced without --force");
    assert!(run(&work, &["--force"]).contains("2 files converted"));
}

#[test]
fn converted_months_without_raw_files_are_kept() {
    let work = Workspace::new(3);
    work.convert();
    let before = work.tree("out");
    fs::remove_file(work.raw(1)).unwrap();
    let error = super::support::dor::fails(&mut work.process(&[]), 65);
    assert!(error.contains("0347-05") && error.contains("--force"), "{error}");
    assert_same(&before, &work.tree("out"));
    assert!(run(&work, &["--force"]).contains("2 files converted"));
}

#[test]
fn a_forced_run_that_was_killed_before_its_first_file_leaves_the_complete_case() {
    let work = Workspace::new(2);
    work.convert();
    let manifest = work.path("out/112/04/manifest.json");
    let before = work.tree("out");
    // The partial manifest of `--force` without a grid file.
    let text = fs::read_to_string(&manifest).unwrap();
    let mut begun: serde_json::Value = serde_json::from_str(&text).unwrap();
    begun["files"] = serde_json::json!([]);
    begun["recipe"]["grid_sha256"] = serde_json::Value::Null;
    fs::write(work.path("out/112/04/manifest.partial.json"), begun.to_string()).unwrap();
    let with_partial = work.tree("out");
    // With the settings of the complete case, there is nothing to do. With those of the killed run, the message
    // names the settings of the complete case.
    assert_eq!(months_converted_again(&work, 2, "done before, 2 files"), [0; 0]);
    assert_same(&with_partial, &work.tree("out"));
    assert_refused(&work, &[], &["grid: ", "manifest.json", "--force"]);
    // Files of the case are not converted while the other process may run.
    fs::remove_file(work.output(1)).unwrap();
    assert_refused(&work, &["--grid", "grid.nc"], &["another process makes", "--force"]);
    run(&work, &["--force"]);
    assert_same(&before, &work.tree("out"));
}

#[test]
fn raw_files_of_another_model_grid_do_not_replace_a_case() {
    let work = Workspace::new(2);
    let bare = ["112-04", "-d", "archive", "-o", "out", "--allow-missing"];
    work.process_case(&bare).assert().success();
    let before = work.tree("out");
    let mut demo = super::support::dor::dor(work.folder());
    demo.args("demo raw other --case 112-04 --shape 10x12x3 --months 2".split(' '));
    demo.assert().success();
    let other = ["112-04", "-d", "other/archive", "-o", "out", "--allow-missing"];
    for more in [&[][..], &["--dry-run"]] {
        let mut command = work.process_case(&other);
        let error = super::support::dor::fails(command.args(more), 78);
        for part in ["model grid: ", "8 x 9 points", "10 x 12 points", "--force"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_same(&before, &work.tree("out"));
    }
    work.process_case(&other).arg("--force").assert().success();
    work.process_case(&other).assert().success();
}
