//! Credentials from a `credential_process`, from the AWS configuration files and from the environment.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dor_atlas::store::{CredentialsProblem, S3Options, StoreError, StoreRegistry};

use super::super::support::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

/// Writes the script `creds.sh` for `credential_process`. It adds a line to the file `calls` at each call;
/// its credentials expire after `seconds`.
fn credential_process(folder: &Path, seconds: u32) {
    let script = folder.join("creds.sh");
    let text = format!(
        "#!/bin/sh\necho call >> '{}'\nsleep 0.2\n\
         printf '{{\"Version\":1,\"AccessKeyId\":\"{ACCESS_KEY}\",\"SecretAccessKey\":\"{SECRET_KEY}\",\
         \"Expiration\":\"%s\"}}' \"$(date -u -d '+{seconds} seconds' +%Y-%m-%dT%H:%M:%SZ)\"\n",
        folder.join("calls").display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
}

/// Number of calls of the script.
fn count_calls(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("calls")).unwrap_or_default().lines().count()
}

/// Runs one of the ignored tests below in a process with its own environment.
fn run_child(name: &str, folder: &Path, server: &S3Server, config: &str, env: &[(&str, &str)]) {
    std::fs::write(folder.join("config"), config).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture"]);
    command.arg(format!("suite::storage::credentials::{name}"));
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("AWS_")) {
        command.env_remove(key);
    }
    let output = command
        .env("AWS_CONFIG_FILE", folder.join("config"))
        .env("AWS_SHARED_CREDENTIALS_FILE", folder.join("absent"))
        .env("DOR_TEST_ENDPOINT", &server.endpoint)
        .env("DOR_TEST_FOLDER", folder)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{name} did not run");
}

/// An AWS configuration file with a profile that uses the script.
fn process_profile(folder: &Path, name: &str) -> String {
    format!("[profile {name}]\ncredential_process = {}\n", folder.join("creds.sh").display())
}

#[test]
fn concurrent_requests_share_one_credential_renewal() {
    let (folder, server) = (tempfile::tempdir().unwrap(), S3Server::start());
    credential_process(folder.path(), 6);
    let config = process_profile(folder.path(), "short");
    run_child("child_sends_many_requests", folder.path(), &server, &config, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by concurrent_requests_share_one_credential_renewal"]
async fn child_sends_many_requests() {
    let folder = std::env::var("DOR_TEST_FOLDER").unwrap();
    let options = S3Options {
        profile: Some("short".into()),
        endpoint_url: std::env::var("DOR_TEST_ENDPOINT").ok(),
        ..S3Options::default()
    };
    let stores = StoreRegistry::new(options);
    let list_all = || async {
        let all = (0..50).map(|n| {
            let store = stores.open(&format!("s3://{BUCKET}/{n}").parse().unwrap()).unwrap();
            async move { store.list("").await.unwrap() }
        });
        futures::future::join_all(all).await;
    };
    list_all().await;
    list_all().await;
    assert_eq!(count_calls(Path::new(&folder)), 1);
    let expiry = stores.credentials_expiry().await.unwrap().unwrap();
    assert!(expiry.duration_since(std::time::SystemTime::now()).unwrap() < Duration::from_secs(6));
    tokio::time::sleep(Duration::from_millis(6_100)).await;
    list_all().await;
    assert_eq!(count_calls(Path::new(&folder)), 2);
}

#[test]
fn endpoints_and_profiles_come_from_aws_configuration_and_environment() {
    let (folder, server) = (tempfile::tempdir().unwrap(), S3Server::start());
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    let run = |config: &str, env: &[(&str, &str)]| {
        run_child("child_lists", folder.path(), &server, config, env);
    };
    let with = |more: &[(&'static str, &'static str)]| [&keys, more].concat();
    let endpoint = server.endpoint.clone().leak();
    run("", &with(&[("AWS_ENDPOINT_URL", endpoint)]));
    run(
        "",
        &with(&[("AWS_ENDPOINT_URL_S3", endpoint), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]),
    );
    run(&format!("[default]\nendpoint_url = {endpoint}\nregion = eu-north-1\n"), &with(&[]));
    let profile_mine = format!(
        "[profile mine]\nendpoint_url = {endpoint}\naws_access_key_id = {ACCESS_KEY}\n\
         aws_secret_access_key = {SECRET_KEY}\n"
    );
    run(&profile_mine, &[("AWS_PROFILE", "mine")]);
    run(&profile_mine, &[("DOR_TEST_PROFILE", "mine")]);
    // The built-in profile `minio`, with the endpoint from the environment.
    run("", &with(&[("DOR_TEST_PROFILE", "minio"), ("AWS_ENDPOINT_URL", endpoint)]));
    // The built-in profile `source-coop`: the AWS profile of that name has priority over keys in the
    // environment, and the explicit endpoint over AWS_ENDPOINT_URL.
    credential_process(folder.path(), 3600);
    let environment = [
        ("DOR_TEST_PROFILE", "source-coop"),
        ("DOR_TEST_EXPLICIT", "1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ACCESS_KEY_ID", "wrong"),
        ("AWS_SECRET_ACCESS_KEY", "wrong"),
    ];
    run(&process_profile(folder.path(), "source-coop"), &environment);
    assert_eq!(count_calls(folder.path()), 1);
    run("", &with(&[("DOR_TEST_PROFILE", "source-coop"), ("DOR_TEST_EXPLICIT", "1")]));
}

#[tokio::test]
#[ignore = "run by endpoints_and_profiles_come_from_aws_configuration_and_environment"]
async fn child_lists() {
    let explicit = std::env::var("DOR_TEST_EXPLICIT").is_ok();
    let options = S3Options {
        profile: std::env::var("DOR_TEST_PROFILE").ok(),
        endpoint_url: std::env::var("DOR_TEST_ENDPOINT").ok().filter(|_| explicit),
        max_retries: Some(0),
        ..S3Options::default()
    };
    let store =
        StoreRegistry::new(options).open(&format!("s3://{BUCKET}").parse().unwrap()).unwrap();
    store.list("").await.unwrap();
}

#[test]
fn missing_credentials_are_reported_within_15_seconds() {
    let (folder, server) = (tempfile::tempdir().unwrap(), S3Server::start());
    // Accepts connections and never answers, like a network that drops packets.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metadata = format!("http://{}", silent.local_addr().unwrap());
    let env = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str())];
    run_child("child_finds_no_credentials", folder.path(), &server, "", &env);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_ok(), "no request to the instance metadata service");
}

#[tokio::test]
#[ignore = "run by missing_credentials_are_reported_within_15_seconds"]
async fn child_finds_no_credentials() {
    let endpoint_url = std::env::var("DOR_TEST_ENDPOINT").ok();
    let options = S3Options { endpoint_url, ..S3Options::default() };
    let store =
        StoreRegistry::new(options).open(&format!("s3://{BUCKET}").parse().unwrap()).unwrap();
    let began = std::time::Instant::now();
    let error = store.list("").await.unwrap_err();
    let missing =
        matches!(&error, StoreError::Credentials { problem: CredentialsProblem::Missing, .. });
    assert!(missing, "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
