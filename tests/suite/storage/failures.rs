//! Failures of servers and disks, and the errors that the storage layer returns for them.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use bytes::Bytes;
use dor_atlas::store::{CredentialsProblem, S3Options, Store, StoreError, StoreRegistry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::support::s3::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY};
use super::super::support::skipped;

const BUSY: Fault = Fault::Answer(503, "SlowDown");

/// The whole bucket of the server as a store.
fn bucket_store(server: &S3Server) -> Store {
    server.stores().open(&format!("s3://{BUCKET}").parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_listing_needs_one_request_per_thousand_keys() {
    let server = S3Server::start();
    let store = bucket_store(&server);
    for n in 0..2_760 {
        let case = server.bucket_folder().join(format!("cases/{n:05}"));
        std::fs::create_dir_all(&case).unwrap();
        std::fs::write(case.join("done.json"), "{}").unwrap();
    }
    server.requests();
    let found = store.list("cases").await.unwrap();
    assert_eq!(found.len(), 2_760);
    let requests = server.requests();
    assert!(requests.len() <= 3, "{requests:?}");
    assert!(requests.iter().all(|request| request.starts_with("GET ")), "{requests:?}");
    // An object that is known from a listing is read without another HEAD.
    store.object_known(&found[0].key.clone(), found[0].clone()).range(0..1).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
}

#[tokio::test]
async fn transient_failures_are_retried() {
    let server = S3Server::start();
    let store = bucket_store(&server);
    for fault in [BUSY, Fault::Answer(500, "InternalError"), Fault::Answer(429, "TooManyRequests")]
    {
        server.fail_next(2, fault);
        store.put("x", Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(server.requests().len(), 3);
    }
}

#[tokio::test]
async fn an_error_after_exhausted_retries_names_request_attempts_and_cause() {
    let server = S3Server::start();
    server.fail_always(BUSY);
    let error = bucket_store(&server).put("a/x", Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(server.requests().len(), 4);
    let text = error.to_string();
    let StoreError::RetriesExhausted { url, attempts, elapsed, request, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((url.as_str(), attempts), ("s3://bucket/a/x", 4));
    assert!(request.starts_with("PUT http://127.0.0.1:") && !elapsed.is_zero(), "{request}");
    for part in ["s3://bucket/a/x", "4 times over ", "SlowDown: as ordered", "try again"] {
        assert!(text.contains(part), "{text}");
    }
    let error = bucket_store(&server).list("").await.unwrap_err();
    assert!(matches!(error, StoreError::RetriesExhausted { .. }), "{error}");
}

#[tokio::test]
async fn a_refused_connection_is_retried_and_then_reported_with_the_endpoint() {
    let options = S3Options {
        endpoint_url: Some("http://127.0.0.1:9".into()),
        max_retries: Some(1),
        no_sign_request: Some(true),
        ..S3Options::default()
    };
    let store = StoreRegistry::new(options).open(&"s3://b".parse().unwrap()).unwrap();
    let error = store.open("x").await.unwrap_err();
    assert!(matches!(error, StoreError::RetriesExhausted { attempts: 2, .. }), "{error}");
    for part in ["Connection refused", "--endpoint-url", "http://127.0.0.1:9/b/x"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn absent_buckets_rejected_credentials_and_unsigned_requests_have_different_errors() {
    let server = S3Server::start();
    let absent = server.stores().open(&"s3://nowhere/p".parse().unwrap()).unwrap();
    let errors = [
        absent.open("x").await.unwrap_err(),
        absent.list("").await.unwrap_err(),
        absent.check(false).await.readable.unwrap_err(),
    ];
    for error in errors {
        assert!(
            matches!(&error, StoreError::NoSuchBucket { bucket, .. } if bucket == "nowhere"),
            "{error}"
        );
        assert!(error.to_string().contains(&server.endpoint), "{error}");
    }
    for (access, secret) in [("nobody", "x"), ("test-access", "wrong")] {
        let store = server.stores_as(access, secret).open(&"s3://bucket".parse().unwrap()).unwrap();
        let errors = [
            store.list("").await.unwrap_err(),
            store.open("x").await.unwrap_err(),
            store.get("x").await.unwrap_err(),
            store.put("x", Bytes::new()).await.unwrap_err(),
        ];
        for error in errors {
            let rejected = matches!(
                &error,
                StoreError::Credentials { problem: CredentialsProblem::Rejected, .. }
            );
            assert!(rejected, "{access}: {error:?}");
        }
    }
    let options = S3Options { no_sign_request: Some(true), ..server.options() };
    let anonymous = StoreRegistry::new(options).open(&"s3://bucket".parse().unwrap()).unwrap();
    let error = anonymous.list("").await.unwrap_err();
    assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error}");
    assert!(error.to_string().contains("not signed"), "{error}");
}

#[tokio::test]
async fn the_error_for_expired_credentials_tells_how_to_renew_them() {
    let server = S3Server::start();
    server.fail_always(Fault::Answer(400, "ExpiredToken"));
    let error = bucket_store(&server).open("x").await.unwrap_err();
    let expired =
        matches!(&error, StoreError::Credentials { problem: CredentialsProblem::Expired, .. });
    assert!(expired, "{error:?}");
    assert!(error.to_string().contains("AWS_SESSION_TOKEN"), "{error}");
}

#[tokio::test]
async fn renewable_credentials_are_renewed_when_the_server_rejects_them_as_expired() {
    let server = S3Server::start();
    let later = SystemTime::now() + Duration::from_secs(3600);
    let source = Credentials::new(ACCESS_KEY, SECRET_KEY, None, Some(later), "test");
    let stores = StoreRegistry::with_credentials(server.options(), source);
    let store = stores.open(&format!("s3://{BUCKET}").parse().unwrap()).unwrap();
    server.fail_next(1, Fault::Answer(400, "ExpiredToken"));
    store.put("x", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(server.requests().len(), 2);
    assert_eq!(stores.credentials_expiry().await.unwrap(), Some(later));
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused() {
    let options = S3Options {
        endpoint_url: Some("http://example.org".into()),
        no_sign_request: Some(true),
        ..S3Options::default()
    };
    let store = StoreRegistry::new(options).open(&"s3://b".parse().unwrap()).unwrap();
    let error = store.list("").await.unwrap_err();
    assert!(error.to_string().contains("plain http"), "{error}");
}

#[tokio::test]
async fn web_locations_are_read_only() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/data", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let length = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let head = match request.split(' ').take(2).collect::<Vec<_>>()[..] {
                    ["HEAD", "/data/a%20b"] => "200 OK\r\nContent-Length: 10",
                    ["GET", "/data/a%20b"] => {
                        "206 Partial Content\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3"
                    }
                    _ => "404 Not Found\r\nContent-Length: 0",
                };
                let body = if head.starts_with("206") { "cde" } else { "" };
                let response = format!(
                    "HTTP/1.1 {head}\r\nETag: \"v1\"\r\n\
                     Last-Modified: Tue, 01 Jul 2025 00:00:00 GMT\r\n\
                     Connection: close\r\n\r\n{body}"
                );
                socket.write_all(response.as_bytes()).await.unwrap();
            });
        }
    });
    let store = StoreRegistry::new(S3Options::default()).open(&location.parse().unwrap()).unwrap();
    assert_eq!(store.open("a b").await.unwrap().range(2..5).await.unwrap(), "cde");
    assert!(store.open("absent").await.unwrap_err().is_not_found());
    assert!(matches!(store.put("x", Bytes::new()).await, Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.create("x").await.map(drop), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.list("").await, Err(StoreError::Unsupported { .. })));
}

#[tokio::test]
async fn failed_writes_to_a_folder_name_the_path_and_leave_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreRegistry::new(S3Options::default())
        .open(&folder.path().to_str().unwrap().parse().unwrap())
        .unwrap();
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let under_a_file = store.put("file/x", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(under_a_file.to_string().contains("file/x"), "{under_a_file}");
    store.put("dir/x", Bytes::from_static(b"x")).await.unwrap();
    let over_a_folder = store.put("dir", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(over_a_folder.to_string().contains("a folder where a file"), "{over_a_folder}");
    if rustix::process::geteuid().is_root() {
        skipped("file permissions do not restrict root");
    } else {
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
        let error = store.put("y", Bytes::new()).await.unwrap_err();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error}");
    }
    let procfs = StoreRegistry::new(S3Options::default()).open(&"/proc".parse().unwrap()).unwrap();
    assert!(procfs.put("dor/x", Bytes::new()).await.is_err());
    assert!(procfs.check(true).await.writable.unwrap().is_err());
    let names: Vec<_> = store.list("").await.unwrap().into_iter().map(|info| info.key).collect();
    assert_eq!(names, ["dir/x", "file"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_file_overwritten_in_place_is_detected_even_if_its_modification_time_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().display().to_string().parse().unwrap();
    let store = StoreRegistry::new(S3Options::default()).open(&location).unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, [1; 8]).unwrap();
    let object = store.open("file").await.unwrap();
    assert_eq!(object.range(0..4).await.unwrap(), [1; 4][..]);
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, [2; 8]).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    let error = object.range(4..8).await.unwrap_err();
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    let sum = |sum: &mut u64, piece: &mut Vec<u8>| {
        *sum += piece.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    };
    assert!(object.fold(0..8, 0, sum).await.is_err());
    assert_eq!(store.open("file").await.unwrap().fold(0..8, 0, sum).await.unwrap(), 16);
}

#[tokio::test]
async fn a_failed_write_at_the_file_size_limit_leaves_no_file() {
    // `ulimit -f` stands for a full disk, because it needs no privilege. It applies to a whole process,
    // hence the child.
    let folder = tempfile::tempdir().unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 1024; exec '{}' --exact --ignored \
         suite::storage::failures::child_writes_8_mib",
        std::env::current_exe().unwrap().display()
    );
    let child = std::process::Command::new("sh")
        .args(["-c", &script])
        .env("DOR_TEST_FOLDER", folder.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
#[ignore = "run by a_failed_write_at_the_file_size_limit_leaves_no_file"]
async fn child_writes_8_mib() {
    let folder = std::env::var("DOR_TEST_FOLDER").unwrap();
    let store = StoreRegistry::new(S3Options::default()).open(&folder.parse().unwrap()).unwrap();
    let error = store.put("x.nc", vec![1; 8 << 20].into()).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::FileLimit { url, .. } if url.ends_with("x.nc")),
        "{error:?}"
    );
}
