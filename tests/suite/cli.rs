//! The program as a whole: version, help, completions, manual pages, standard output, and `dor demo`.

use std::process::{Child, Command, Stdio};

use super::support::case::{Workspace, tree};
use super::support::dor::{dor, fails};
use super::support::s3::{BUCKET, Fault, S3Server};

fn stdout_of(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = dor(folder.path()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn version_prints_target_profile_features_commit_and_libraries() {
    for flag in ["--version", "-V"] {
        let text = stdout_of(&[flag]);
        assert!(text.starts_with(concat!("dor ", env!("CARGO_PKG_VERSION"), "\n")), "{text}");
        let fact = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(": ").to_owned()
        };
        assert!(fact("target").contains(std::env::consts::ARCH));
        assert!(["debug", "release"].contains(&fact("profile").as_str()));
        assert!(!fact("features").is_empty() && !fact("commit").is_empty());
        for library in ["netCDF-C", "HDF5"] {
            let version = fact(library);
            assert!(version.split('.').count() >= 3, "{library} {version}");
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{library} {version}");
        }
    }
}

#[test]
fn help_exits_with_0_and_wrong_usage_with_2() {
    let help = stdout_of(&["--help"]);
    assert!(help.contains("setup-environment") && help.contains("\n  man "), "{help}");
    let folder = tempfile::tempdir().unwrap();
    assert!(fails(dor(folder.path()).arg("fly"), 2).contains("unrecognized subcommand 'fly'"));
    fails(&mut dor(folder.path()), 2);
    // Control characters of arguments are escaped in messages.
    let error = fails(dor(folder.path()).arg("a\u{9b}2Jb\u{202e}c"), 2);
    assert!(error.contains("'a\\u009b2Jb\\u202ec'"), "{error}");
}

#[test]
fn shells_accept_the_completion_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout_of(&["completions", shell]);
        assert!(script.contains("DOR_COMPLETE"), "{shell}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        match Command::new(shell).arg("-n").arg(file.path()).output() {
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            Err(_) => eprintln!("SKIPPED: {shell} is not installed, so it cannot read the script"),
        }
    }
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let folder = tempfile::tempdir().unwrap();
    dor(folder.path()).args(["man", "a/man"]).assert().success();
    for name in [
        "dor",
        "dor-setup-environment",
        "dor-config",
        "dor-config-show",
        "dor-completions",
        "dor-man",
    ] {
        let path = folder.path().join("a/man").join(format!("{name}.1"));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name}.1 is missing"));
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    }

    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = fails(dor(folder.path()).args(["man", "file/man"]), 1);
    assert!(error.starts_with("error: cannot write manual pages to file/man\n  caused by: "));
}

#[test]
fn a_full_disk_at_standard_output_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["completions", "zsh"][..], &["--version"], &["--help"], &["config", "show"]]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_dor"))
            .args(arguments)
            .current_dir(folder.path())
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(Child::wait_with_output)
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        let expected = "error: cannot write to standard output: No space left on device";
        assert!(errors.starts_with(expected), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_bad_value_exits_with_2_from_an_option_and_78_from_a_variable() {
    let folder = tempfile::tempdir().unwrap();
    let list = ["research-data", "list-cases", "-d", "s3://bucket/raw"];
    for (flag, variable, value) in [
        ("--output", "DOR_OUTPUT_DIR", "gs://bucket/x"),
        ("--endpoint-url", "DOR_S3_ENDPOINT_URL", "nonsense"),
        ("--addressing", "DOR_S3_ADDRESSING", "odd"),
    ] {
        let error = fails(dor(folder.path()).args(list).args([flag, value]), 2);
        assert!(error.contains(flag) && error.contains(value), "{error}");
        let error = fails(dor(folder.path()).args(list).env(variable, value), 78);
        assert!(error.contains(value), "{error}");
    }
}

#[test]
fn a_closed_standard_output_is_not_a_failure() {
    for arguments in [&["completions", "zsh"][..], &["--version"], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_dor"))
            .args(arguments)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .and_then(Child::wait_with_output)
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*errors), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn verbose_logs_each_file_and_each_retried_request() {
    let (work, server) = (Workspace::new(2), S3Server::start());
    let target = format!("s3://{BUCKET}/out");
    let mut command = work.process_case(&["112-04", "-d", "archive", "-o", &target]);
    command.args(["--grid", "grid.nc", "--allow-missing", "--verbose"]).envs(server.variables());
    server.fail_next(1, Fault::Answer(503, "SlowDown"));
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    for month in ["0347-04", "0347-05"] {
        let line = stderr.lines().find(|line| line.contains(&format!("{month}.nc in "))).unwrap();
        assert!(line.contains("INFO") && line.contains(" bytes in, "), "{line}");
    }
    assert!(stderr.contains("503") && stderr.contains("retry 1 of 1"), "{stderr}");
    let quiet = work.process(&[]).output().unwrap();
    assert!(quiet.status.success() && quiet.stderr.is_empty());
}

#[test]
fn the_demo_prints_how_to_open_its_files_and_the_compression_ratio() {
    let printed = stdout_of(&["demo", "here", "--shape", "4x4x1", "--months", "1"]);
    assert!(
        printed.contains("xarray.open_mfdataset(\"here/research-grade/112/04/*.nc\""),
        "{printed}"
    );
    assert!(printed.contains("(out/in ") && printed.contains("metadata on any grid"), "{printed}");
}

#[test]
fn the_demo_with_a_plan_can_be_run_twice() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut demo = dor(folder.path());
        demo.args(["demo", "my demo", "--plan", "--shape", "4x4x1", "--months", "1"]);
        let output = demo.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let finalize =
            printed.find("\n$ dor finalize --plan 'my demo/plan.json'\n").expect(&printed);
        let check = printed.find("\n$ dor vis check 'my demo/store2.zarr'\n").expect(&printed);
        assert!(
            finalize < check && printed[check..].contains("1 of 2760 cases in the store"),
            "{printed}"
        );
    }
}

#[test]
fn the_demo_does_not_mix_files_of_two_grids_or_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |words: &str| {
        let mut command = dor(folder.path());
        command.args(["demo", "raw", "d", "--months", "1"]).args(words.split(' '));
        command
    };
    demo("--shape 4x4x1").assert().success();
    let before = tree(folder.path());
    for other in [
        "--shape 4x4x2",
        "--shape 4x4x1 --seed 2",
        "--shape 4x4x1 --fields 5",
        "--shape 4x4x1 --case 113-04 --format cdf5",
    ] {
        let error = fails(&mut demo(other), 78);
        assert!(error.contains("was made with --shape 4x4x1 --seed 1"), "{error}");
    }
    assert_eq!(tree(folder.path()), before);
    demo("--shape 4x4x1 --case 113-04").assert().success();
}

#[test]
fn the_demo_never_replaces_files_that_it_did_not_make() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let demo = |words: &[&str]| {
        let mut command = dor(folder.path());
        command.arg("demo").args(words).args(["--shape", "4x4x1", "--months", "1"]);
        command
    };
    let write = |name: &str| {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), "mine").unwrap();
    };
    // `dor demo` and `dor demo raw` refuse a folder with other files; empty folders are accepted.
    for name in ["any/notes.txt", "data/archive/x.nc", "table/centers.csv", "deep/er/.x/thesis.tex"]
    {
        write(name);
        let place = name.split('/').next().unwrap();
        for words in [&[place][..], &["raw", place]] {
            let error = fails(&mut demo(words), 78);
            assert!(error.contains("did not make it") && error.contains(name), "{error}");
        }
        assert_eq!(std::fs::read_to_string(at(name)).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(at(place)).unwrap().count(), 1, "the demo wrote a file");
        std::fs::remove_file(at(name)).unwrap();
    }
    std::fs::create_dir_all(at("any/home/x")).unwrap();
    demo(&["raw", "any"]).assert().success();
    // A file of the demo that was changed is kept and refused; one that was removed is made again.
    let first = "any/archive/smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001\
                 /ocn/hist";
    let first = std::fs::read_dir(at(first)).unwrap().next().unwrap().unwrap().path();
    for name in [at("any/grid.nc"), at("any/centers.csv"), first] {
        let original = std::fs::read(&name).unwrap();
        let mut other = original.clone();
        *other.last_mut().unwrap() ^= 1;
        for mine in [b"mine".to_vec(), other] {
            std::fs::write(&name, &mine).unwrap();
            let error = fails(&mut demo(&["raw", "any"]), 78);
            let file_name = name.file_name().unwrap().to_str().unwrap();
            assert!(error.contains("has other bytes") && error.contains(file_name), "{error}");
            assert_eq!(std::fs::read(&name).unwrap(), mine);
        }
        std::fs::remove_file(&name).unwrap();
        demo(&["raw", "any"]).assert().success();
        assert_eq!(std::fs::read(&name).unwrap(), original);
    }
    write("any/notes.txt");
    // A second run and another case are accepted, but no file that the demo did not write is replaced.
    demo(&["raw", "any"]).assert().success();
    demo(&["raw", "any", "--case", "113-04"]).assert().success();
    let case: dor_atlas::model::Case = "114-04".parse().unwrap();
    let mine = format!("any/archive/{case}/ocn/hist/{case}.pop.h.0347-04.nc");
    write(&mine);
    fails(&mut demo(&["raw", "any", "--case", "114-04"]), 78);
    assert_eq!(std::fs::read_to_string(at(&mine)).unwrap(), "mine");
    // `dor demo` does not replace results that somebody else wrote at a path of its own results.
    write("any/research-grade/112/04/x.nc");
    let error = fails(&mut demo(&["any"]), 78);
    assert!(error.contains("any/research-grade"), "{error}");
}

#[test]
fn values_out_of_range_are_refused_with_the_valid_range() {
    let folder = tempfile::tempdir().unwrap();
    let plot = ["vis", "plot", "s2", "--variable", "PH", "-p", "1", "-m", "1", "-o", "x.png"];
    let error = fails(dor(folder.path()).args(plot).args(["--step", "180"]), 2);
    assert!(error.contains("0 to 179"), "{error}");
    let error = fails(dor(folder.path()).args(["research-data", "list-cases", "-p", "690"]), 2);
    assert!(error.contains("0 to 689"), "{error}");
}
