//! Running the program with nothing of the environment but what a test gives it.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

/// `dor` in `folder`, which is also its home.
pub fn dor(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
    command.env_clear().current_dir(folder).env("HOME", folder);
    // Looking for credentials must not wait for a metadata service that is not there.
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

/// What a command prints as JSON, whatever its exit code.
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

/// What a command prints on standard error, which it must end with `code`.
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("runs");
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}
