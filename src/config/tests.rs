//! Tests of the layers: precedence, sources, and errors that name them.

use std::path::PathBuf;

use serde_json::json;

use super::*;

/// A folder with a `dor.toml`, and an environment.
struct TestEnv {
    folder: tempfile::TempDir,
    env: ProcessEnv,
}

fn test_env(dor_toml: &str, variables: &[(&str, &str)]) -> TestEnv {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("dor.toml"), dor_toml).expect("dor.toml");
    let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), v.into())).collect();
    let env = ProcessEnv { variables, folder: folder.path().to_owned() };
    TestEnv { folder, env }
}

impl TestEnv {
    fn load(&self, overrides: &Overrides) -> Result<Config, ConfigError> {
        Config::load_in(overrides, &self.env)
    }

    fn config(&self) -> Config {
        self.load(&Overrides::default()).expect("a good configuration")
    }

    fn error(&self) -> String {
        self.load(&Overrides::default()).expect_err("a bad configuration").to_string()
    }
}

fn text(setting: &Option<Setting<Location>>) -> String {
    setting.as_ref().map_or("none".to_owned(), |s| format!("{} ({})", s.value, s.source))
}

#[test]
fn without_anything_only_workers_has_a_value() {
    let config = test_env("", &[]).config();
    assert_eq!(config.locations().count(), 0);
    assert_eq!(config.workers.source, SettingProvenance::Default);
    assert_eq!(config.s3, S3Options::default());
    let set: Vec<_> = config.entries().iter().filter(|e| e.value.is_some()).collect();
    let keys: Vec<_> = set.iter().map(|entry| entry.key.as_str()).collect();
    let numbers = ["connect_timeout_seconds", "max_retries", "no_sign_request", "part_size"];
    assert_eq!(keys[0], "workers");
    assert!(numbers.iter().all(|key| keys.contains(&format!("s3.{key}").as_str())), "{keys:?}");
    assert!(set.iter().all(|entry| entry.source == Some(SettingProvenance::Default)));
}

#[test]
fn numbers_of_s3_have_limits() {
    for (key, value, limits) in [
        ("part_size", "1", "5242880 to 5368709120"),
        ("part_size", "99999999999", "5242880 to 5368709120"),
        ("timeout_seconds", "0", "1 to 86400"),
        ("connect_timeout_seconds", "0", "1 to 600"),
        ("max_retries", "101", "0 to 100"),
        ("max_retries", "-1", "0 to 100"),
    ] {
        let variable = format!("DOR_S3_{}", key.to_uppercase());
        let error = test_env("", &[(&variable, value)]).error();
        assert!(error.contains(&variable) && error.contains(limits), "{error}");
        let error = test_env(&format!("[s3]\n{key} = {value}\n"), &[]).error();
        assert!(error.contains("dor.toml:2") && error.contains(limits), "{error}");
    }
}

#[test]
fn the_error_of_text_for_a_number_names_the_limits() {
    for text in ["abc", "1.5", ""] {
        let test_env = test_env(&format!("[s3]\ntimeout_seconds = '{text}'\n"), &[]);
        assert!(test_env.error().contains("1 to 86400"), "{}", test_env.error());
    }
}

#[test]
fn a_boolean_variable_may_be_a_digit() {
    for (text, expected) in [("1", true), ("true", true), ("TRUE", true), ("0", false)] {
        let config = test_env("", &[("DOR_S3_NO_SIGN_REQUEST", text)]).config();
        assert_eq!(config.s3.no_sign_request, Some(expected), "{text}");
    }
    assert!(test_env("", &[("DOR_S3_NO_SIGN_REQUEST", "2")]).error().contains("boolean"));
    assert!(test_env("[s3]\nno_sign_request = 1\n", &[]).error().contains("boolean"));
}

#[test]
fn a_tilde_without_a_home_is_an_error() {
    let file = "output_dir = '~/out'\n";
    let config = test_env(file, &[("HOME", "/home/me")]).config();
    assert_eq!(text(&config.output_dir).split(' ').next(), Some("/home/me/out"));
    for (file, variables) in
        [(file, &[][..]), ("output_dir = '~other/out'\n", &[("HOME", "/home/me")])]
    {
        let error = test_env(file, variables).error();
        assert!(error.contains("dor.toml:1") && error.contains("write the path out"), "{error}");
    }
}

#[test]
fn each_layer_overrides_the_one_below() {
    let file = "output_dir = '/file'\nworkers = 2\n[s3]\nregion = 'file-1'\n";
    let variables = [("DOR_OUTPUT_DIR", "/env"), ("DOR_WORKERS", "3"), ("DOR_S3_REGION", "env-1")];
    let flags = Overrides {
        output_dir: Some("/flag".parse().expect("a location")),
        workers: NonZeroUsize::new(4),
        s3: S3Options { region: Some("flag-1".to_owned()), ..S3Options::default() },
        ..Overrides::default()
    };
    let values = |config: Config| {
        (text(&config.output_dir), config.workers, config.s3.region.unwrap_or_default())
    };
    let line = |line| SettingProvenance::File { path: "dor.toml".into(), line };
    let workers = |n, source| Setting { value: NonZeroUsize::new(n).expect("not 0"), source };

    assert_eq!(
        values(test_env(file, &[]).config()),
        ("/file (file dor.toml:1)".to_owned(), workers(2, line(2)), "file-1".to_owned())
    );
    let env = SettingProvenance::Environment("DOR_WORKERS".to_owned());
    assert_eq!(
        values(test_env(file, &variables).config()),
        ("/env (environment DOR_OUTPUT_DIR)".to_owned(), workers(3, env), "env-1".to_owned())
    );
    let flag = SettingProvenance::Flag("--workers".to_owned());
    assert_eq!(
        values(test_env(file, &variables).load(&flags).expect("good")),
        ("/flag (flag --output-dir)".to_owned(), workers(4, flag), "flag-1".to_owned())
    );
}

#[test]
fn aws_variables_override_the_file_and_are_left_to_the_storage_layer() {
    let file = "[s3]\nregion = 'file-1'\nprofile = 'minio'\n";
    let config =
        test_env(file, &[("AWS_REGION", "aws-1"), ("AWS_DEFAULT_REGION", "aws-2")]).config();
    assert_eq!(config.s3.region, None);
    assert_eq!(config.s3.profile.as_deref(), Some("minio"));
    let region = config.entries().iter().find(|entry| entry.key == "s3.region").expect("shown");
    assert_eq!(region.value, Some(json!("aws-1")));
    assert_eq!(region.source, Some(SettingProvenance::AwsEnvironment("AWS_REGION".to_owned())));
}

#[test]
fn default_locations_are_derived_from_the_parent() {
    let config =
        test_env("store2 = '/own'\n", &[("OCEAN_CDR_PARENT_DATA_DIR", "s3://b/p")]).config();
    assert_eq!(text(&config.output_dir), "s3://b/p/research-grade (derived from parent_data_dir)");
    assert_eq!(text(&config.store1), "s3://b/p/store1b.zarr (derived from parent_data_dir)");
    assert_eq!(text(&config.store2), "/own (file dor.toml:1)");
    assert_eq!(
        text(&config.store3),
        "s3://b/p/cumulative_FG_CO2_percent.zarr (derived from parent_data_dir)"
    );
    assert_eq!(text(&config.data_dir), "none");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let config = test_env("grid = '/g.nc'\n", &[("DOR_GRID", "")]).config();
    assert_eq!(text(&config.grid), "/g.nc (file dor.toml:1)");
}

#[test]
fn paths_in_a_file_are_relative_to_its_folder_or_home() {
    let test_env = test_env("", &[("HOME", "/home/me"), ("DOR_CONFIG", "conf/atlas.toml")]);
    std::fs::create_dir(test_env.folder.path().join("conf")).expect("folder");
    let toml = "data_dir = '~/raw'\noutput_dir = 'out'\ngrid = '/g'\nstore1 = 's3://b/1'\n";
    std::fs::write(test_env.folder.path().join("conf/atlas.toml"), toml).expect("file");
    let config = test_env.config();
    let values: Vec<_> = config.locations().map(|(_, s)| s.value.to_string()).collect();
    assert_eq!(values, ["/home/me/raw", "conf/out", "/g", "s3://b/1"]);
}

#[test]
fn the_file_is_searched_in_four_locations_in_order() {
    let home = tempfile::tempdir().expect("temporary folder");
    let user = home.path().join(".config/dor/dor.toml");
    std::fs::create_dir_all(user.parent().expect("a parent")).expect("folder");
    std::fs::write(&user, "").expect("file");
    let other = home.path().join("other.toml");
    std::fs::write(&other, "").expect("file");
    let mut test_env = test_env("", &[("HOME", &home.path().display().to_string())]);

    assert_eq!(test_env.config().file, Some(PathBuf::from("dor.toml")));
    std::fs::remove_file(test_env.folder.path().join("dor.toml")).expect("removed");
    assert_eq!(test_env.config().file, Some(user.clone()));
    test_env.env.variables.insert("XDG_CONFIG_HOME".to_owned(), "/nowhere".into());
    assert_eq!(test_env.config().file, None);
    test_env.env.variables.insert("DOR_CONFIG".to_owned(), other.clone().into());
    assert_eq!(test_env.config().file, Some(other));
    let flags = Overrides { config: Some(user.clone()), ..Overrides::default() };
    assert_eq!(test_env.load(&flags).expect("good").file, Some(user));
}

#[test]
fn a_file_that_is_named_must_exist() {
    let test_env = test_env("", &[("DOR_CONFIG", "/absent.toml")]);
    assert_eq!(
        test_env.error(),
        "cannot read the configuration file /absent.toml (from environment DOR_CONFIG)"
    );
}

#[test]
fn unknown_keys_name_their_line_and_the_nearest_key() {
    let cases = [
        ("\nouput_dir = 'x'\n", "dor.toml:2: unknown key `ouput_dir`; did you mean `output_dir`?"),
        ("data-dir = 'x'", "dor.toml:1: unknown key `data-dir`; did you mean `data_dir`?"),
        ("[s3]\n\nregoin = 'x'", "dor.toml:3: unknown key `s3.regoin`; did you mean `s3.region`?"),
        (
            "endpoint_url = 'x'",
            "dor.toml:1: unknown key `endpoint_url`; did you mean `s3.endpoint_url`?",
        ),
        ("[s4]\na = 1", "dor.toml:1: unknown key `s4`; did you mean `s3`?"),
        ("zzzzzzz = 1", "dor.toml:1: unknown key `zzzzzzz`; `dor config show` lists the keys"),
    ];
    for (toml, expected) in cases {
        assert_eq!(test_env(toml, &[]).error(), expected);
    }
}

#[test]
fn bad_values_name_their_layer() {
    let cases = [
        ("workers = 0", &[][..], "`workers` from file dor.toml:1: `0`"),
        ("workers = 1.5", &[], "`workers` from file dor.toml:1: `float`"),
        ("grid = 7", &[], "`grid` from file dor.toml:1: `7`"),
        ("grid = 'ftp://x/y'", &[], "`grid` from file dor.toml:1: `ftp://x/y`"),
        ("s3 = 'x'", &[], "`s3` from file dor.toml:1: `string`"),
        ("[s3]\naddressing = 'up'", &[], "`s3.addressing` from file dor.toml:2: `up`"),
        ("[s3]\nmax_retries = '3'", &[], "`s3.max_retries` from file dor.toml:2: `3`"),
        ("", &[("DOR_WORKERS", "many")], "`workers` from environment DOR_WORKERS: `many`"),
        ("", &[("SCRATCH", "ftp://x")], "`scratch` from environment SCRATCH: `ftp://x`"),
        (
            "",
            &[("DOR_S3_MAX_RETRIES", "x")],
            "`s3.max_retries` from environment DOR_S3_MAX_RETRIES",
        ),
    ];
    for (toml, variables, expected) in cases {
        let error = test_env(toml, variables).error();
        assert!(error.starts_with(expected), "{error}\nshould start with\n{expected}");
    }
    assert!(test_env("a = 1\nb = = 2", &[]).error().starts_with("dor.toml:2: not valid TOML"));
}

#[test]
fn variables_give_numbers_and_booleans_to_s3() {
    let variables =
        [("DOR_S3_MAX_RETRIES", "3"), ("DOR_S3_NO_SIGN_REQUEST", "true"), ("DOR_S3_REGION", "7")];
    let s3 = test_env("", &variables).config().s3;
    assert_eq!((s3.max_retries, s3.no_sign_request), (Some(3), Some(true)));
    assert_eq!(s3.region.as_deref(), Some("7"));
}

#[test]
fn errors_hide_secrets() {
    let error = test_env("", &[("SCRATCH", "ftp://me:hunter2@host/x")]).error();
    assert!(error.contains("ftp://***@host/x"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    assert!(!test_env("a = 'hunter2\n", &[]).error().contains("hunter2"));
}
