//! `dor config show`: the effective settings and the source of each.

use std::path::Path;

use assert_cmd::Command;
use dor_atlas::config::{Config, KEYS, Overrides, ProcessEnv, s3_keys};
use serde_json::{Value, json};

use super::support::dor::{dor, fails, json};

fn show(command: &mut Command) -> Value {
    json(command.args(["config", "show", "--json"]))
}

/// Value and source of a key.
fn setting(shown: &Value, key: &str) -> (Value, Value) {
    let settings = shown["settings"].as_array().unwrap();
    let entry = settings.iter().find(|entry| entry["key"] == key).unwrap();
    (entry["value"].clone(), entry["source"].clone())
}

/// Writes `dor.toml`.
fn write_config(folder: &Path, toml: &str) {
    std::fs::write(folder.join("dor.toml"), toml).unwrap();
}

#[test]
fn flags_override_variables_which_override_the_file_and_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let region = |command: &mut Command| setting(&show(command), "s3.region");
    assert_eq!(region(&mut dor(folder.path())), (json!("us-east-1"), json!("default")));
    let default = setting(&show(&mut dor(folder.path())), "workers");
    assert_eq!(default.1, "default");
    assert!(default.0.as_u64().unwrap() >= 1);

    write_config(folder.path(), "workers = 7\n\n[s3]\nregion = 'file-1'\n");
    assert_eq!(
        setting(&show(&mut dor(folder.path())), "workers"),
        (7.into(), json!("file dor.toml:1"))
    );
    assert_eq!(region(&mut dor(folder.path())), (json!("file-1"), json!("file dor.toml:4")));

    let aws = |folder| {
        let mut command = dor(folder);
        command.env("AWS_REGION", "env-1").env("DOR_WORKERS", "8");
        command
    };
    let shown = show(&mut aws(folder.path()));
    assert_eq!(setting(&shown, "workers"), (8.into(), json!("environment DOR_WORKERS")));
    assert_eq!(
        region(&mut aws(folder.path())),
        (json!("env-1"), json!("environment AWS_REGION (read by storage)"))
    );
    assert_eq!(
        region(aws(folder.path()).args(["--region", "flag-1"])),
        (json!("flag-1"), json!("flag --region"))
    );
}

#[test]
fn every_s3_flag_is_shown_with_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let shown = show(dor(folder.path()).args([
        "--profile",
        "minio",
        "--endpoint-url",
        "http://localhost:9",
        "--region",
        "r",
        "--addressing",
        "virtual",
        "--no-sign-request",
    ]));
    let expected = [
        ("profile", json!("minio")),
        ("endpoint_url", json!("http://localhost:9")),
        ("region", json!("r")),
        ("addressing", json!("virtual")),
        ("no_sign_request", json!(true)),
    ];
    for (key, value) in expected {
        let flag = format!("flag --{}", key.replace('_', "-"));
        assert_eq!(setting(&shown, &format!("s3.{key}")), (value, flag.into()));
    }
}

#[test]
fn values_from_profiles_and_aws_files_are_shown_with_their_source() {
    let folder = tempfile::tempdir().unwrap();
    let of = |shown: &Value, key: &str| setting(shown, &format!("s3.{key}"));
    let shown = show(&mut dor(folder.path()));
    assert_eq!(of(&shown, "endpoint_url"), (json!("AWS"), "default".into()));
    assert_eq!(of(&shown, "region"), (json!("us-east-1"), "default".into()));
    assert_eq!(of(&shown, "addressing"), (json!("virtual"), "default".into()));
    assert_eq!(of(&shown, "max_retries"), (json!(10), "default".into()));
    let shown = show(dor(folder.path()).args(["--profile", "minio"]));
    let minio = (json!("http://127.0.0.1:9000"), "profile minio".into());
    assert_eq!(of(&shown, "endpoint_url"), minio);
    assert_eq!(of(&shown, "addressing"), (json!("path"), "profile minio".into()));
    // Profile source-coop has a fixed region: AWS_REGION, which is set for other tools, does not change it.
    let mut command = dor(folder.path());
    command.args(["--profile", "source-coop"]).env("AWS_REGION", "eu-west-1");
    let shown = show(&mut command);
    assert_eq!(of(&shown, "endpoint_url").0, json!("https://data.source.coop"));
    assert_eq!(of(&shown, "region"), (json!("us-east-1"), "default".into()));
    std::fs::create_dir(folder.path().join(".aws")).unwrap();
    std::fs::write(folder.path().join(".aws/config"), "[profile lab]\nregion = eu-north-1\n")
        .unwrap();
    let shown = show(dor(folder.path()).env("AWS_PROFILE", "lab"));
    assert_eq!(of(&shown, "region"), (json!("eu-north-1"), "AWS configuration file".into()));
    let shown = show(dor(folder.path()).env("AWS_REGION", "eu-west-1"));
    let environment = "environment AWS_REGION (read by storage)";
    assert_eq!(of(&shown, "region"), (json!("eu-west-1"), environment.into()));
    let shown = show(dor(folder.path()).env("AWS_REGION", "us-east-1"));
    assert_eq!(of(&shown, "region"), (json!("us-east-1"), environment.into()));
}

#[test]
fn every_location_variable_accepts_paths_and_urls() {
    let folder = tempfile::tempdir().unwrap();
    let locations: Vec<_> = KEYS.iter().filter(|key| key.name != "workers").collect();
    for key in &locations {
        for value in ["/data/a b", "s3://bucket/prefix", "https://example.org/data"] {
            let shown = show(dor(folder.path()).env(key.variable, value));
            let source = format!("environment {}", key.variable);
            assert_eq!(setting(&shown, key.name), (value.into(), source.into()), "{}", key.name);
        }
    }
    let reference = [
        ("scratch", "SCRATCH"),
        ("parent_data_dir", "OCEAN_CDR_PARENT_DATA_DIR"),
        ("data_dir", "OCEAN_CDR_DATA_ARCHIVE_DIR"),
        ("store1", "OCEAN_CDR_STORE_1_PATH"),
        ("store2", "OCEAN_CDR_STORE_2_PATH"),
        ("store3", "OCEAN_CDR_CUMULATIVE_FG_CO2_PERCENT_STORE_PATH"),
    ];
    for (key, variable) in reference {
        assert!(locations.iter().any(|known| known.name == key && known.variable == variable));
    }
}

#[test]
fn unknown_keys_exit_with_78_and_a_suggestion() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), "# mine\noutputdir = '/x'\n");
    assert_eq!(
        fails(dor(folder.path()).args(["config", "show"]), 78),
        "error: dor.toml:2: unknown key `outputdir`; did you mean `output_dir`?\n"
    );
}

#[test]
fn a_misspelled_variable_or_profile_is_told_with_the_known_one() {
    let folder = tempfile::tempdir().unwrap();
    let show = ["config", "show"];
    for (variable, known) in [
        ("DOR_OUPUT_DIR", "DOR_OUTPUT_DIR"),
        ("DOR_S3_REGOIN", "DOR_S3_REGION"),
        ("OCEAN_CDR_STORE1_PATH", "OCEAN_CDR_STORE_1_PATH"),
    ] {
        let said = fails(dor(folder.path()).args(show).env(variable, "x"), 0);
        let expected = format!("the variable {variable} has no effect; did you mean `{known}`?");
        assert!(said.contains(&expected), "{said}");
    }
    let others = [("DOR_SHARED", "x"), ("DOR_STATE_DIR", "x"), ("SLURM_JOB_ID", "1")];
    assert_eq!(fails(dor(folder.path()).args(show).envs(others), 0), "");
    let error = fails(dor(folder.path()).args(show).args(["--profile", "minoi"]), 78);
    assert!(error.contains("did you mean `minio`?"), "{error}");
}

#[test]
fn a_bad_value_names_its_layer() {
    let folder = tempfile::tempdir().unwrap();
    let show = ["config", "show"];
    let error = fails(dor(folder.path()).args(show).args(["--addressing", "sideways"]), 2);
    assert!(error.contains("--addressing") && error.contains("path, virtual"), "{error}");
    let error = fails(dor(folder.path()).args(show).env("DOR_WORKERS", "0"), 78);
    assert!(error.starts_with("error: `workers` from environment DOR_WORKERS: `0`"), "{error}");
    write_config(folder.path(), "\nworkers = -1\n");
    let error = fails(dor(folder.path()).args(show), 78);
    assert!(error.starts_with("error: `workers` from file dor.toml:2: `-1`"), "{error}");
    let error = fails(dor(folder.path()).args(show).args(["--config", "absent.toml"]), 78);
    assert!(error.contains("absent.toml (from --config)\n  caused by: No such file"), "{error}");
}

#[test]
fn secrets_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), "[s3]\nendpoint_url = 'https://me:hunter2@host'\n");
    for format in [&["config", "show"][..], &["config", "show", "--json"]] {
        let output = dor(folder.path())
            .args(format)
            .env("AWS_ACCESS_KEY_ID", "hunter2")
            .env("AWS_SECRET_ACCESS_KEY", "hunter2")
            .env("AWS_SESSION_TOKEN", "hunter2")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(!text.contains("hunter2") && text.contains("AWS_SESSION_TOKEN"), "{text}");
        assert!(text.contains("https://***@host"), "{text}");
    }
    let error =
        fails(dor(folder.path()).args(["config", "show"]).env("SCRATCH", "x://me:hunter2@h"), 78);
    assert!(error.contains("***") && !error.contains("hunter2"), "{error}");
}

#[test]
fn the_documentation_has_every_key_and_its_example_works() {
    let page = include_str!("../../docs/configuration.md");
    for key in KEYS {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", key.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not documented", key.name));
        assert!(row.contains(&format!("`{}`", key.variable)), "{row}");
    }
    for key in s3_keys() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("s3.{key} is not documented"));
        assert!(row.contains(&format!("`DOR_S3_{}`", key.to_ascii_uppercase())), "{row}");
    }
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), example);
    let variables = [("HOME".to_owned(), folder.path().into())].into();
    let environment = ProcessEnv { folder: folder.path().to_owned(), variables };
    let config = Config::load_in(&Overrides::default(), &environment).unwrap();
    assert_eq!(config.locations().count(), 8);
    assert_eq!(config.s3.profile.as_deref(), Some("source-coop"));
}

#[test]
fn default_workers_do_not_exceed_the_slurm_task_or_the_cpu_affinity() {
    let folder = tempfile::tempdir().unwrap();
    let workers = |task: &str| {
        let mut command = dor(folder.path());
        setting(&show(command.env("SLURM_CPUS_PER_TASK", task)), "workers")
    };
    let (all, _) = setting(&show(&mut dor(folder.path())), "workers");
    assert_eq!(workers("1"), (1.into(), json!("default")));
    for unusable in ["", "0", "-1", "many", "99999"] {
        assert_eq!(workers(unusable).0, all, "{unusable}");
    }
    // The CPU affinity of the process limits them too; taskset is part of util-linux.
    let mut bound = std::process::Command::new("taskset");
    bound.args(["-c", "0", env!("CARGO_BIN_EXE_dor"), "config", "show", "--json"]);
    match bound.current_dir(folder.path()).env("HOME", folder.path()).output() {
        Ok(output) => {
            let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(setting(&shown, "workers").0, 1);
        }
        Err(_) => super::support::skipped("there is no taskset"),
    }
}
