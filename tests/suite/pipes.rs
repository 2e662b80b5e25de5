//! Closed pipes at standard output and standard error, as in `dor ... | head`.

use std::process::{Command, Stdio};

use super::support::case::Workspace;

/// The writing end of a pipe whose reading end is closed.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_closed_pipe_does_not_change_the_exit_code() {
    let work = Workspace::new(1);
    std::fs::create_dir(work.path("site")).unwrap();
    std::fs::write(work.path("site/a"), "a").unwrap();
    let convert =
        "research-data process-case 112-04 -d archive -o out --allow-missing --grid grid.nc";
    for words in [
        "--help",
        "--version",
        "help publish",
        "completions bash",
        "config show",
        "research-data list-cases -d archive -l 0",
        "research-data list-cases -d archive -l 0 --json",
        &format!("{convert} --dry-run"),
        &format!("-vvv {convert} --force"),
        "-vv vis create-template-store1 -o s1.zarr --overwrite",
        "vis check s1.zarr",
        "publish site published --dry-run",
        "-vv publish site published --json",
        "publish status published",
        "setup-environment --help",
    ] {
        let run = |closes_out: bool, closes_error: bool| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
            command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
            command.args(words.split(' ')).stdin(Stdio::null());
            command.stdout(if closes_out { closed_pipe() } else { Stdio::piped() });
            command.stderr(if closes_error { closed_pipe() } else { Stdio::piped() });
            command.output().unwrap()
        };
        let expected = run(false, false).status.code();
        for (closes_out, closes_error) in [(true, false), (false, true), (true, true)] {
            let output = run(closes_out, closes_error);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), expected, "{words}: {stderr}");
            assert!(
                !stderr.contains("panicked") && !stderr.contains("roken pipe"),
                "{words}: {stderr}"
            );
        }
    }
    // Failures keep their exit codes when standard error is closed.
    for (words, code) in [("no-such-command", 2), ("vis check nowhere.zarr", 78)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
        let output = command.args(words.split(' ')).stderr(closed_pipe()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}");
    }
}
