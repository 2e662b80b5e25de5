//! Network settings of sites: proxies, private certificate authorities, empty variables; and messages
//! that must contain neither passwords nor control characters.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;

use super::support::dor::{dor, fails};
use super::support::scripted::{Answer, Scripted, error};
use super::support::skipped;

const USAGE: i32 = 2;
const CONFIGURATION: i32 = 78;
const PASSWORD: &str = "pass-w0rd";

/// `dor` with these arguments and `server` as the S3 endpoint.
fn command_with_server(server: &Scripted, folder: &Path, words: &[&str]) -> Command {
    let mut command = dor(folder);
    command.envs(server.variables()).args(words);
    command
}

/// An S3 server whose buckets are empty.
fn empty_s3_server() -> Scripted {
    Scripted::start(|asked| match asked.line().contains("list-type") {
        true => super::support::scripted::xml("200 OK", "<ListBucketResult/>"),
        false => error("404 Not Found", "NoSuchKey"),
    })
}

#[test]
fn requests_to_the_loopback_interface_bypass_proxies() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Scripted::start(|_| error("503 Busy", "SlowDown"));
    let server = empty_s3_server();
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"] {
        let mut command =
            command_with_server(&server, folder.path(), &["publish", "status", "s3://b/p"]);
        command.env(name, &proxy.endpoint).output().unwrap();
        let mut command = dor(folder.path());
        let plan = format!("{}/plan.json", server.endpoint);
        command.args(["status", "--plan", &plan]).env(name, &proxy.endpoint).output().unwrap();
    }
    assert!(proxy.asked().is_empty(), "{:?}", proxy.asked());
    assert!(server.asked().len() >= 10, "{:?}", server.asked());
}

#[test]
fn empty_variables_count_as_unset() {
    let folder = tempfile::tempdir().unwrap();
    let server = empty_s3_server();
    let names = [
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_DEFAULT_REGION",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ROLE_ARN",
        "AWS_CA_BUNDLE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SESSION_TOKEN",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "ALL_PROXY",
        "DOR_S3_PROFILE",
        "DOR_S3_REGION",
        "DOR_S3_ADDRESSING",
        "DOR_S3_NO_SIGN_REQUEST",
        "DOR_WORKERS",
        "DOR_GRID",
        "DOR_CONFIG",
        "DOR_S3_PART_SIZE",
        "OCEAN_CDR_DATA_ARCHIVE_DIR",
        "SLURM_ARRAY_TASK_ID",
        "SLURM_JOB_ID",
        "SLURM_CPUS_PER_TASK",
        "SLURM_MEM_PER_NODE",
    ];
    let words = ["publish", "status", "s3://b/p"];
    let plain = command_with_server(&server, folder.path(), &words).output().unwrap();
    let mut empty = command_with_server(&server, folder.path(), &words);
    for name in names {
        empty.env(name, "");
    }
    let empty = empty.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&empty.stderr), text(&plain.stderr));
    assert_eq!(
        (empty.status.code(), text(&empty.stdout)),
        (plain.status.code(), text(&plain.stdout))
    );
}

#[test]
fn a_profile_of_aws_login_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let server = empty_s3_server();
    std::fs::create_dir(folder.path().join(".aws")).unwrap();
    let text = "[profile l]\nlogin_session = arn:aws:iam::1:user/x\nregion = us-west-2\n";
    std::fs::write(folder.path().join(".aws/config"), text).unwrap();
    for by_flag in [true, false] {
        let mut command =
            command_with_server(&server, folder.path(), &["publish", "status", "s3://b/p"]);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            command.env_remove(name);
        }
        match by_flag {
            true => command.args(["--profile", "l"]),
            false => command.env("AWS_PROFILE", "l"),
        };
        let stderr = fails(&mut command, CONFIGURATION);
        assert!(stderr.contains("aws configure export-credentials --profile l"), "{stderr}");
        assert!(!stderr.contains("feature") && !stderr.contains("sso login"), "{stderr}");
    }
    // Keys of the environment take precedence over the profile.
    let mut command =
        command_with_server(&server, folder.path(), &["publish", "status", "s3://b/p"]);
    command.env("AWS_PROFILE", "l").assert().success();
}

#[test]
fn passwords_of_urls_are_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://somebody:{PASSWORD}@127.0.0.1:1");
    let location = format!("https://somebody:{PASSWORD}@127.0.0.1:1/plan.json");
    let only_password = format!("https://:{PASSWORD}@127.0.0.1:1/plan.json");
    let slash = format!("https://somebody:x/{PASSWORD}@127.0.0.1/plan.json");
    let in_s3 = format!("s3://somebody:{PASSWORD}@bucket/plan.json");
    let file = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    file("endpoint.toml", format!("[s3]\nendpoint_url = \"{endpoint}\"\n"));
    file("place.toml", format!("plan = \"{only_password}\"\n"));
    file("broken.toml", format!("plan = \"{location}\n"));
    file("key.toml", format!("\"{location}\" = 1\n"));
    file("config", format!("[default]\nendpoint_url = {endpoint}\n"));
    let status = ["status", "--plan", "s3://b/plan.json"];
    let with = |more: &[&str]| [&status[..], more].concat().join("\n");
    let commands = [
        (with(&["--endpoint-url", &endpoint]), USAGE),
        (with(&["--config", "endpoint.toml"]), CONFIGURATION),
        (with(&["--config", "place.toml"]), CONFIGURATION),
        (with(&["--config", "broken.toml"]), CONFIGURATION),
        (with(&["--config", "key.toml"]), CONFIGURATION),
        (with(&["--config", &location]), CONFIGURATION),
        (format!("status\n--plan\n{location}"), USAGE),
        (format!("status\n--plan\n{only_password}"), USAGE),
        (format!("status\n--plan\n{slash}"), USAGE),
        (format!("status\n--plan\n{in_s3}"), USAGE),
        (format!("publish\n.\n{only_password}"), USAGE),
        (format!("nonsense\n{location}"), USAGE),
        (format!("status\n{location}"), USAGE),
        (format!("slurm\nscript\n--nodes\n1\n--plan\ns3://b/p\n--endpoint-url\n{endpoint}"), USAGE),
        ("config\nshow\n--config\nendpoint.toml".to_owned(), 0),
        ("config\nshow\n--json\n--config\nendpoint.toml".to_owned(), 0),
        ("setup-environment\n--config\nendpoint.toml".to_owned(), CONFIGURATION),
    ];
    for (words, code) in commands {
        let output = dor(folder.path()).args(words.split('\n')).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(!printed.contains(PASSWORD), "{words}: {printed}");
        assert_eq!(output.status.code(), Some(code), "{words}: {printed}");
    }
    // From variables and from AWS files, with all log messages.
    for (name, value) in [
        ("DOR_S3_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ENDPOINT_URL_S3", &endpoint),
        ("AWS_CONFIG_FILE", "config"),
        ("DOR_GRID", &only_password),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &endpoint),
        ("https_proxy", &endpoint),
    ] {
        for words in [&status[..], &["config", "show"], &["publish", "status", "s3://b/p"]] {
            let mut command = dor(folder.path());
            command.args(words).arg("-v").arg("--verbose").arg("--verbose");
            command.env(name, value).env("DOR_S3_MAX_RETRIES", "0");
            let output = command.timeout(Duration::from_secs(60)).output().unwrap();
            let printed = [output.stdout, output.stderr].concat();
            let printed = String::from_utf8_lossy(&printed);
            assert!(!printed.contains(PASSWORD), "{name}, {words:?}: {printed}");
        }
    }
}

#[test]
fn control_characters_from_servers_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let code = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}1m\r\nerror: all is well";
    for status in ["400 Bad", "403 Forbidden", "500 Wrong"] {
        let server = Scripted::start(move |_| error(status, code));
        let mut command =
            command_with_server(&server, folder.path(), &["publish", "status", "s3://b/p"]);
        let output = command.output().unwrap();
        let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let is_harmless = |c: char| c == '\n' || !c.is_control();
        assert!(printed.chars().all(is_harmless), "{status}: {printed:?}");
        assert!(printed.contains("\\u001b[2J"), "{status}: {printed}");
        assert!(!printed.contains("\nerror: all is well"), "{status}: {printed}");
    }
}

#[test]
fn sigterm_stops_commands_that_wait_for_a_silent_server() {
    let folder = tempfile::tempdir().unwrap();
    for words in [
        "research-data process-case 112-04 -d s3://b/raw -o out",
        "research-data process-all-cases -d s3://b/raw -o out",
        "publish s3://b/raw s3://b/there",
        "run --plan s3://b/plan.json --shards 1 --shard 0",
        "status --plan s3://b/plan.json",
        "vis check s3://b/maps.zarr",
        "vis check WEB/maps.zarr",
        "research-data check -o s3://b/out",
        "research-data check 112-04 -o s3://b/out",
        "research-data check 112-04 -o WEB/out",
    ] {
        let server = Scripted::start(|_| Answer::Nothing);
        let words = words.replace("WEB", &server.endpoint);
        let mut command = Process::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        command.envs(server.variables()).args(words.split(' '));
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while server.asked().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "{words}: no request arrives");
            std::thread::sleep(Duration::from_millis(20));
        }
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let stopped = Instant::now();
        let output = child.wait_with_output().unwrap();
        // One second, and more for a busy machine.
        assert!(stopped.elapsed() < Duration::from_secs(3), "{words}");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        // `None`: the signal killed the program, because no handler was installed yet.
        assert!(matches!(output.status.code(), Some(75) | None), "{words}: {stderr}");
        assert!(!stderr.contains("cannot read"), "{words}: {stderr}");
    }
}

/// An https server for `localhost` with its own certificate authority; dropping the value stops it.
struct TlsServer {
    endpoint: String,
    server: Child,
}

impl TlsServer {
    fn start(folder: &Path) -> Option<Self> {
        let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 9 \
            -subj /CN=ca -addext basicConstraints=critical,CA:TRUE && \
            openssl req -newkey rsa:2048 -nodes -keyout s.key -out s.csr -subj /CN=localhost && \
            printf 'subjectAltName=DNS:localhost\\n' >x && \
            openssl x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s.pem -days 9 \
            -extfile x";
        let made = Process::new("sh").args(["-c", script]).current_dir(folder).output();
        if !made.is_ok_and(|made| made.status.success()) {
            skipped("no openssl: private certificate authorities were not tested");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Process::new("openssl")
            .args(["s_server", "-quiet", "-www", "-cert", "s.pem", "-key", "s.key", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "openssl does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { endpoint: format!("https://localhost:{port}"), server })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn configured_certificate_authorities_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = TlsServer::start(folder.path()) else { return };
    std::fs::create_dir(folder.path().join(".aws")).unwrap();
    let profile = "[profile own]\nca_bundle = ca.pem\n[profile other]\nca_bundle = absent.pem\n";
    std::fs::write(folder.path().join(".aws/config"), profile).unwrap();
    std::fs::write(folder.path().join("none.pem"), "no certificate").unwrap();
    let plan = format!("{}/plan.json", server.endpoint);
    let run_status = |in_s3: bool, variables: &[(&str, &str)]| {
        let mut command = dor(folder.path());
        command.env("DOR_S3_MAX_RETRIES", "0").env("AWS_REGION", "us-east-1");
        match in_s3 {
            true => command
                .args(["status", "--plan", "s3://b/plan.json", "--endpoint-url", &server.endpoint])
                .env("AWS_ACCESS_KEY_ID", "key")
                .env("AWS_SECRET_ACCESS_KEY", "secret"),
            false => command.args(["status", "--plan", &plan]),
        };
        let output = command.envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for in_s3 in [true, false] {
        let (code, stderr) = run_status(in_s3, &[]);
        assert_eq!(code, Some(CONFIGURATION), "{stderr}");
        assert!(stderr.contains("not trusted") && stderr.contains("AWS_CA_BUNDLE"), "{stderr}");
        for trusted in [
            &[("SSL_CERT_FILE", "ca.pem")][..],
            &[("AWS_CA_BUNDLE", "ca.pem")],
            &[("SSL_CERT_FILE", ""), ("AWS_CA_BUNDLE", "ca.pem")],
        ] {
            // The answer was read: the command fails because it is not a plan.
            let (code, stderr) = run_status(in_s3, trusted);
            assert!(!stderr.contains("certificate"), "{trusted:?}: {code:?} {stderr}");
        }
        for (name, value) in [("SSL_CERT_FILE", "none.pem"), ("AWS_CA_BUNDLE", "absent.pem")] {
            let (code, stderr) = run_status(in_s3, &[(name, value)]);
            assert_eq!(code, Some(CONFIGURATION), "{stderr}");
            assert!(stderr.contains(name) && stderr.contains(value), "{stderr}");
        }
    }
    let (_, stderr) = run_status(true, &[("AWS_PROFILE", "own")]);
    assert!(!stderr.contains("certificate"), "{stderr}");
    let (code, stderr) = run_status(true, &[("AWS_PROFILE", "other")]);
    assert_eq!(code, Some(CONFIGURATION), "{stderr}");
    assert!(stderr.contains("ca_bundle") && stderr.contains("absent.pem"), "{stderr}");
}

#[test]
fn configured_certificate_authorities_add_to_those_of_the_system() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let folder = folders[1].path();
    let [Some(system_server), Some(own_server)] =
        [0, 1].map(|n| TlsServer::start(folders[n].path()))
    else {
        return;
    };
    // A folder of trusted certificates as systems have it: file names are hashes of the subjects.
    let ca = folders[0].path().join("ca.pem");
    let hash = Process::new("openssl").args(["x509", "-hash", "-noout", "-in"]).arg(&ca).output();
    let hash = String::from_utf8(hash.unwrap().stdout).unwrap();
    let system = folder.join("system");
    std::fs::create_dir(&system).unwrap();
    std::fs::copy(&ca, system.join(format!("{}.0", hash.trim()))).unwrap();
    std::fs::create_dir(folder.join(".aws")).unwrap();
    let profile = "[profile own]\nca_bundle = ca.pem\nregion = us-east-1\n";
    std::fs::write(folder.join(".aws/config"), profile).unwrap();
    std::fs::write(folder.join("token"), "a-web-identity").unwrap();
    let of_role = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/dor"),
    ];
    let run_status = |endpoint: &str, by_sts: bool, variables: &[(&str, &str)]| {
        let mut command = dor(folder);
        command.args(["status", "--plan", "s3://b/plan.json"]).env("DOR_S3_MAX_RETRIES", "0");
        command.env("AWS_REGION", "us-east-1").env("SSL_CERT_DIR", &system);
        match by_sts {
            true => command.envs(of_role).env("AWS_ENDPOINT_URL_STS", endpoint),
            false => command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "s"),
        };
        command.env("DOR_S3_ENDPOINT_URL", endpoint).envs(variables.iter().copied());
        let output = command.timeout(Duration::from_secs(60)).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for by_sts in [false, true] {
        let stderr = run_status(&own_server.endpoint, by_sts, &[]);
        assert!(stderr.contains("certificate"), "{by_sts}: {stderr}");
        for named in [&[("AWS_CA_BUNDLE", "ca.pem")][..], &[("DOR_S3_PROFILE", "own")]] {
            if by_sts && named[0].0 == "DOR_S3_PROFILE" {
                // With this profile, credentials come from the profile as well.
                let of_profile = "role_arn = arn:aws:iam::123456789012:role/dor\n\
                                  web_identity_token_file = token\n";
                std::fs::write(folder.join(".aws/config"), format!("{profile}{of_profile}"))
                    .unwrap();
            }
            for endpoint in [&system_server.endpoint, &own_server.endpoint] {
                let stderr = run_status(endpoint, by_sts, named);
                assert!(
                    !stderr.contains("certificate"),
                    "{by_sts}, {named:?}, {endpoint}: {stderr}"
                );
            }
        }
    }
}
