//! A MinIO server for tests: one that runs already (`DOR_TEST_MINIO` is its endpoint, its keys are in
//! `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`), or a `minio` process on a free port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dor_atlas::model::hex;
use dor_atlas::store::{S3Options, StoreRegistry};
use md5::Md5;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::s3::keys;
use super::skipped;

const KEYS: (&str, &str) = ("minio-test", "minio-test-secret");

/// A MinIO with an empty bucket. A process that [`Minio::start`] started ends when this is dropped.
pub struct Minio {
    pub endpoint: String,
    pub bucket: String,
    keys: (String, String),
    server: Option<(Child, TempDir)>,
}

impl Minio {
    /// Starts MinIO. Without a `minio` binary, prints `SKIPPED` and returns `None`, or panics if
    /// `DOR_REQUIRE_MINIO` is `1`.
    pub fn start() -> Option<Self> {
        if let Ok(endpoint) = std::env::var("DOR_TEST_MINIO") {
            return Some(Self::connect_to_running(endpoint));
        }
        let Some(binary) = binary() else {
            assert_ne!(std::env::var("DOR_REQUIRE_MINIO").as_deref(), Ok("1"), "no minio found");
            skipped("no `minio` on PATH or in ~/go/bin; nothing was tested against it");
            return None;
        };
        // Another process may take the free port before MinIO binds it.
        let started = (0..10).find_map(|_| Self::start_on_free_port(&binary));
        Some(started.expect("minio starts"))
    }

    fn start_on_free_port(binary: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // MinIO serves each folder below its own as a bucket.
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Command::new(binary)
            .args(["server", "--quiet", "--address", &address.to_string()])
            .args(["--console-address", "127.0.0.1:0"])
            .arg(folder.path())
            .env("MINIO_ROOT_USER", KEYS.0)
            .env("MINIO_ROOT_PASSWORD", KEYS.1)
            .env("MINIO_UPDATE", "off")
            // For `Minio::encrypt`.
            .env("MINIO_KMS_SECRET_KEY", "key:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while !is_alive(address) {
            if server.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "minio does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self {
            endpoint: format!("http://{address}"),
            bucket: "bucket".into(),
            keys: (KEYS.0.into(), KEYS.1.into()),
            server: Some((server, folder)),
        })
    }

    fn connect_to_running(endpoint: String) -> Self {
        let key = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let keys = (key("AWS_ACCESS_KEY_ID"), key("AWS_SECRET_ACCESS_KEY"));
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let bucket = format!("dor-test-{}-{count}", std::process::id());
        let minio = Self { endpoint, bucket, keys, server: None };
        minio.curl(&["--request", "PUT"], &minio.bucket);
        minio
    }

    /// The environment variables with which `dor` uses this server.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DOR_S3_ENDPOINT_URL", self.endpoint.clone()),
            ("DOR_S3_ADDRESSING", "path".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", self.keys.0.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.keys.1.clone()),
        ]
    }

    /// Access key and secret key, with all permissions.
    pub fn keys(&self) -> (&str, &str) {
        (&self.keys.0, &self.keys.1)
    }

    /// Upload ids of the multipart uploads of an object that are neither completed nor aborted.
    pub fn unfinished(&self, key: &str) -> Vec<String> {
        let target = format!("{}?prefix={}&uploads=", self.bucket, key.replace('/', "%2F"));
        let response = self.curl(&["--request", "GET"], &target);
        let ids = response.split("<UploadId>").skip(1);
        ids.map(|rest| rest.split('<').next().unwrap_or_default().to_owned()).collect()
    }

    /// Makes SSE-KMS encryption the default of the bucket: the ETags of new objects are no MD5s.
    pub fn encrypt(&self) {
        let rule = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
            <SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>key</KMSMasterKeyID>\
            </ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
        let sha256 = format!("x-amz-content-sha256: {}", hex(&Sha256::digest(rule)));
        let md5 = format!("Content-MD5: {}", BASE64_STANDARD.encode(Md5::digest(rule)));
        let request = ["--request", "PUT", "--data-binary", rule, "--header", &sha256];
        let request = [&request[..], &["--header", &md5]].concat();
        self.curl(&request, &format!("{}?encryption=", self.bucket));
        // MinIO applies the new default only after a moment.
        let sha256 = format!("x-amz-content-sha256: {}", hex(&Sha256::digest("x")));
        let put = ["--include", "--request", "PUT", "--data-binary", "x", "--header", &sha256];
        let probe = format!("{}/probe", self.bucket);
        let began = std::time::Instant::now();
        while !self.curl(&put, &probe).contains("aws:kms") {
            assert!(
                began.elapsed() < std::time::Duration::from_secs(20),
                "MinIO does not encrypt new objects"
            );
        }
        self.curl(&["--request", "DELETE"], &probe);
    }

    /// Sends a signed request with curl and returns its output.
    fn curl(&self, arguments: &[&str], target: &str) -> String {
        let (access, secret) = &self.keys;
        let output = Command::new("curl")
            // Under load, MinIO answers 503 to requests about a bucket that is new.
            .args(["--silent", "--show-error", "--fail", "--retry", "5"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &format!("{access}:{secret}")])
            .args(arguments)
            .arg(format!("{}/{target}", self.endpoint))
            .output()
            .unwrap();
        assert!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A store registry with profile `minio`, this endpoint and these keys.
    pub fn stores(&self) -> StoreRegistry {
        let options = S3Options {
            profile: Some("minio".into()),
            endpoint_url: Some(self.endpoint.clone()),
            part_size: Some(5 << 20),
            ..S3Options::default()
        };
        StoreRegistry::with_credentials(options, keys(&self.keys.0, &self.keys.1))
    }
}

impl Drop for Minio {
    fn drop(&mut self) {
        if let Some((server, _)) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Whether the server that listens at `address` is a MinIO.
fn is_alive(address: SocketAddr) -> bool {
    let Ok(mut socket) = TcpStream::connect(address) else { return false };
    let request = format!("GET /minio/health/live HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let mut response = String::new();
    let read = socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .and_then(|()| socket.write_all(request.as_bytes()))
        .and_then(|()| socket.read_to_string(&mut response));
    read.is_ok() && response.contains(" 200 ") && response.to_lowercase().contains("server: minio")
}

/// The `minio` binary on PATH or in `~/go/bin`.
fn binary() -> Option<PathBuf> {
    let mut folders: Vec<_> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    folders.extend(std::env::home_dir().map(|home| home.join("go/bin")));
    folders.into_iter().map(|folder| folder.join("minio")).find(|path| path.is_file())
}
