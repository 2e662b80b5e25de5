//! `dor setup-environment`: it exits with 0 only when all locations are ready.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

use super::support::case::tree;
use super::support::dor::{dor, json};
use super::support::s3::{BUCKET, S3Server};

/// Exit code and standard output.
fn run(folder: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = command(folder, variables).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn command(folder: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = dor(folder);
    command.arg("setup-environment").envs(variables.iter().copied());
    command
}

/// The row of a location in the JSON report.
fn row<'a>(report: &'a Value, key: &str) -> &'a Value {
    let rows = report["locations"].as_array().unwrap();
    rows.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn without_settings_the_report_names_the_variables_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = run(folder.path(), &[]);
    assert_eq!(code, Some(78));
    assert!(text.contains("nothing is configured"), "{text}");
    assert!(text.contains("export OCEAN_CDR_DATA_ARCHIVE_DIR="), "{text}");
}

#[test]
fn missing_output_folders_are_created_and_the_report_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("raw/case")).unwrap();
    let variables = [
        ("OCEAN_CDR_DATA_ARCHIVE_DIR", "raw"),
        ("OCEAN_CDR_PARENT_DATA_DIR", "data"),
        ("SCRATCH", "scratch"),
    ];
    let report = json(command(folder.path(), &variables).arg("--json"));
    assert_eq!(report["ready"], true, "{report}");
    for (key, status, writable) in [
        ("data_dir", "exists", Value::Null),
        ("parent_data_dir", "exists", true.into()),
        ("scratch", "created", true.into()),
        ("output_dir", "created", true.into()),
        ("store1", "missing", true.into()),
    ] {
        let row = row(&report, key);
        assert_eq!((&row["status"], &row["writable"]), (&status.into(), &writable), "{row}");
        assert!(row["round_trip_seconds"].as_f64().unwrap() < 10.0);
    }
    assert!(report["capabilities"]["cores"].as_u64().unwrap() >= 1);
    assert_eq!(report["capabilities"]["deflate_filter"], true);
    assert!(!folder.path().join("data/store1b.zarr").exists());
    let left = std::fs::read_dir(folder.path().join("data/research-grade")).unwrap().count();
    assert_eq!(left, 0, "the write test leaves no file");

    let (code, text) = run(folder.path(), &variables);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.lines().last().unwrap().starts_with("ready: "), "{text}");
    let output = text.lines().find(|line| line.starts_with("output_dir")).unwrap();
    let cells: Vec<_> = output.split_whitespace().collect();
    assert_eq!(cells[1..5], ["data/research-grade", "exists", "yes", "yes"]);
}

#[test]
fn a_missing_raw_archive_is_reported_and_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let variables = [("OCEAN_CDR_DATA_ARCHIVE_DIR", "raw"), ("DOR_OUTPUT_DIR", "out")];
    let (code, text) = run(folder.path(), &variables);
    assert_eq!(code, Some(78));
    assert!(text.contains("not ready: data_dir raw does not exist"), "{text}");
    assert!(!folder.path().join("raw").exists());
}

#[test]
fn an_empty_raw_archive_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("raw")).unwrap();
    let variables = [("OCEAN_CDR_DATA_ARCHIVE_DIR", "raw"), ("DOR_OUTPUT_DIR", "out")];
    let (code, text) = run(folder.path(), &variables);
    assert_eq!(code, Some(78));
    assert!(text.contains("not ready: data_dir raw: the folder is empty"), "{text}");
}

#[test]
fn an_output_that_cannot_be_created_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("raw/case")).unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let variables = [("OCEAN_CDR_DATA_ARCHIVE_DIR", "raw"), ("DOR_OUTPUT_DIR", "file/out")];
    let (code, text) = run(folder.path(), &variables);
    assert_eq!(code, Some(78));
    assert!(text.contains("not ready: output_dir file/out cannot be written"), "{text}");
    assert!(text.contains("(environment DOR_OUTPUT_DIR): cannot create the folder: "), "{text}");

    let report = json(command(folder.path(), &variables).arg("--json"));
    assert_eq!(report["ready"], false);
    assert_eq!(row(&report, "output_dir")["writable"], false);
    assert_eq!(row(&report, "data_dir")["readable"], true);
}

#[test]
fn an_incomplete_configuration_names_the_missing_setting() {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = run(folder.path(), &[("DOR_OUTPUT_DIR", "out")]);
    assert_eq!(code, Some(78));
    assert!(text.contains("data_dir is not set; set OCEAN_CDR_DATA_ARCHIVE_DIR"), "{text}");
}

#[test]
fn a_configured_grid_file_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("raw/case")).unwrap();
    let variables =
        [("OCEAN_CDR_DATA_ARCHIVE_DIR", "raw"), ("DOR_OUTPUT_DIR", "out"), ("DOR_GRID", "grid.nc")];
    let (code, text) = run(folder.path(), &variables);
    assert_eq!(code, Some(78));
    assert!(text.contains("not ready: grid grid.nc does not exist"), "{text}");
    std::fs::write(folder.path().join("grid.nc"), "CDF").unwrap();
    assert_eq!(run(folder.path(), &variables).0, Some(0));
}

#[test]
fn a_file_in_place_of_a_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("raw"), "").unwrap();
    let variables = [("OCEAN_CDR_DATA_ARCHIVE_DIR", "raw"), ("DOR_OUTPUT_DIR", "out")];
    let (code, text) = run(folder.path(), &variables);
    assert_eq!(code, Some(78));
    assert!(text.contains("it is a file, and must be a folder"), "{text}");
}

#[test]
fn an_https_archive_has_an_unknown_status() {
    let folder = tempfile::tempdir().unwrap();
    let web = "https://example.invalid/raw";
    let variables = [("OCEAN_CDR_DATA_ARCHIVE_DIR", web), ("DOR_OUTPUT_DIR", "out")];
    let report = json(command(folder.path(), &variables).arg("--json"));
    assert_eq!(
        (&report["ready"], &row(&report, "data_dir")["status"]),
        (&false.into(), &"unknown".into())
    );
}

#[test]
fn a_service_that_refuses_connections_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("raw/case")).unwrap();
    let variables = [
        ("OCEAN_CDR_DATA_ARCHIVE_DIR", "raw"),
        ("DOR_OUTPUT_DIR", "s3://bucket/out"),
        ("DOR_S3_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("DOR_S3_ADDRESSING", "path"),
        ("DOR_S3_MAX_RETRIES", "0"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "hunter2"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
    ];
    let report = json(command(folder.path(), &variables).arg("--json"));
    let output = row(&report, "output_dir");
    assert_eq!((&report["ready"], &output["status"]), (&false.into(), &"unreachable".into()));
    assert_eq!(output["credentials_until"], "no expiry", "{output}");
    assert!(output["problem"].as_str().unwrap().contains("s3://bucket/out"), "{output}");
    assert!(!report.to_string().contains("hunter2"));
}

/// The command with raw data and outputs on `server`; variables of `more` override those of the server.
fn on_s3(server: &S3Server, more: &[(&str, &str)]) -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dor(folder.path());
    command.arg("setup-environment").envs(server.variables());
    command.env("OCEAN_CDR_DATA_ARCHIVE_DIR", format!("s3://{BUCKET}/raw"));
    command.env("DOR_OUTPUT_DIR", format!("s3://{BUCKET}/research"));
    command.envs(more.iter().copied());
    (command, folder)
}

#[test]
fn a_bucket_with_valid_keys_is_ready() {
    let server = S3Server::start();
    std::fs::create_dir(server.bucket_folder().join("raw")).unwrap();
    std::fs::write(server.bucket_folder().join("raw/x"), "x").unwrap();
    let (mut command, _folder) = on_s3(&server, &[]);
    let report = json(command.arg("--json"));
    assert_eq!(report["ready"], true, "{report}");
    for (key, verb) in [("data_dir", "readable"), ("output_dir", "writable")] {
        let row = row(&report, key);
        assert_eq!(row[verb], true, "{row}");
        assert_eq!(row["credentials_until"], "no expiry");
    }
    let (mut command, _folder) = on_s3(&server, &[]);
    command.assert().success();
    assert!(
        tree(&server.bucket_folder().join("research")).is_empty(),
        "the write test leaves no object"
    );
}

#[test]
fn a_wrong_key_or_a_missing_bucket_is_not_ready() {
    let server = S3Server::start();
    for (wrong, word) in [
        (("AWS_SECRET_ACCESS_KEY", "hunter2"), "rejected"),
        (("DOR_OUTPUT_DIR", "s3://nowhere/research"), "no bucket `nowhere`"),
    ] {
        let (mut command, _folder) = on_s3(&server, &[wrong]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("not ready: ") && text.contains(word), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
