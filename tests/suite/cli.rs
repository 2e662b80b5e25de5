//! The program as a whole: version, completions, manual pages, a closed pipe.

use std::process::{Child, Command, Stdio};

use super::support::dor::{dor, fails};

fn stdout(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = dor(folder.path()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn version_states_the_facts_of_the_build() {
    for flag in ["--version", "-V"] {
        let text = stdout(&[flag]);
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
fn help_and_wrong_use_end_with_their_codes() {
    assert!(stdout(&["--help"]).contains("setup-environment"));
    let folder = tempfile::tempdir().unwrap();
    assert!(fails(dor(folder.path()).arg("fly"), 2).contains("unrecognized subcommand 'fly'"));
    fails(&mut dor(folder.path()), 2);
}

#[test]
fn shells_accept_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&["completions", shell]);
        assert!(script.contains("setup-environment"), "{shell}");
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
    for name in ["dor", "dor-setup-environment", "dor-config", "dor-config-show", "dor-completions"]
    {
        let path = folder.path().join("a/man").join(format!("{name}.1"));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name}.1 is missing"));
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(!folder.path().join("a/man/dor-man.1").exists());

    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = fails(dor(folder.path()).args(["man", "file/man"]), 1);
    assert!(error.starts_with("error: cannot write manual pages to file/man\n  caused by: "));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
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
