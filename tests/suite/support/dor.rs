//! Runs `dor` in an empty environment, to which a test adds what it needs.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

/// The command `dor` with `folder` as working directory and as home.
pub fn dor(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().current_dir(folder).env("HOME", folder);
    // Without this, the search for credentials waits for an instance metadata service.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// Runs a command and parses its standard output as one JSON value; its exit code is not checked.
pub fn json(command: &mut Command) -> Value {
    let output = command.output().expect("runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error} in {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Runs a command that must end with exit code `code`; returns its standard error.
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}
