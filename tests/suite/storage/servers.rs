//! Servers with invalid or hostile responses: the storage layer checks what they claim, and limits the
//! memory for what they send.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dor_atlas::store::{PutMode, PutOptions, S3Options, Store, StoreError, StoreRegistry};

use super::super::support::scripted::{Answer, Scripted, error, xml};

/// A store registry with this number of retries.
fn stores(server: &Scripted, retries: u32) -> StoreRegistry {
    let options = S3Options {
        endpoint_url: Some(server.endpoint.clone()),
        region: Some("us-east-1".into()),
        max_retries: Some(retries),
        part_size: Some(5 << 20),
        timeout_seconds: Some(20),
        ..S3Options::default()
    };
    let token = Some("the-session-token".to_owned());
    let keys = aws_credential_types::Credentials::new("key", "secret", token, None, "test");
    StoreRegistry::with_credentials(options, keys)
}

/// A store without retries.
fn store(server: &Scripted, location: &str) -> Store {
    stores(server, 0).open(&location.parse().unwrap()).unwrap()
}

/// A page of a listing with these keys and sizes; `token` is the continuation token of the next page.
fn page(keys: &[(&str, &str)], token: &str) -> Answer {
    let entries: String = keys
        .iter()
        .map(|(key, size)| {
            format!(
                "<Contents><Key>{key}</Key><Size>{size}</Size>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        })
        .collect();
    xml(
        "200 OK",
        &format!(
            "<ListBucketResult>{entries}<NextContinuationToken>{token}</NextContinuationToken>\
             </ListBucketResult>"
        ),
    )
}

#[tokio::test]
async fn redirects_are_reported_and_not_followed() {
    let other = Scripted::start(|_| xml("200 OK", "<ok/>"));
    let elsewhere = other.endpoint.replace("127.0.0.1", "localhost");
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let to = format!("Location: {elsewhere}/b/x?X-Amz-Signature=f00\r\n");
        let script = to.clone();
        let server = Scripted::start(move |_| Answer::Whole(status, script.clone(), Vec::new()));
        let store = store(&server, "s3://b");
        let errors = [
            store.open("x").await.unwrap_err(),
            store.get("x").await.unwrap_err(),
            store.list("").await.unwrap_err(),
            store.put("x", Bytes::from_static(b"x")).await.unwrap_err(),
            store.delete("x").await.unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(matches!(error, StoreError::Redirected { .. }), "{status}: {error:?}");
            assert!(text.contains(&elsewhere) && !text.contains("f00"), "{text}");
        }
        // The same for https locations, which need no credentials.
        let web = StoreRegistry::new(S3Options::default());
        let web = web.open(&format!("{}/data", server.endpoint).parse().unwrap()).unwrap();
        let error = web.get("x").await.unwrap_err();
        assert!(matches!(error, StoreError::Redirected { .. }), "{error:?}");
    }
    assert!(other.asked().is_empty(), "{:?}", other.asked());
    let server = Scripted::start(|_| {
        let body = "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3.eu-west-1.amazonaws.com\
                    </Endpoint></Error>";
        let region = "x-amz-bucket-region: eu-west-1\r\n".to_owned();
        Answer::Whole("301 Moved Permanently", region, body.into())
    });
    let error = store(&server, "s3://b").list("").await.unwrap_err();
    assert!(matches!(error, StoreError::WrongRegion { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("eu-west-1 at b.s3.eu-west-1.amazonaws.com"), "{text}");
}

#[tokio::test]
async fn a_listing_with_a_repeated_continuation_token_is_an_error() {
    // One token on every page, and two tokens in turn.
    for tokens in [&["same"][..], &["one", "two"]] {
        let server = Scripted::start(move |request| {
            let next = match request.line().contains("continuation-token=one") {
                true => tokens[tokens.len() - 1],
                false => tokens[0],
            };
            page(&[("data/x", "1")], next)
        });
        let store = store(&server, "s3://b/data");
        for error in [store.list("").await.unwrap_err(), store.list_folders("").await.unwrap_err()]
        {
            assert!(matches!(error, StoreError::BadListing { .. }), "{error:?}");
            assert!(error.to_string().contains("the same continuation token twice"), "{error}");
        }
        assert!(server.asked().len() < 10);
    }
}

#[tokio::test]
async fn listed_keys_outside_of_the_requested_prefix_are_ignored() {
    let server = Scripted::start(|_| {
        page(&[("data/x/1", "1"), ("database/2", "2"), ("data/xy/3", "3"), ("other", "4")], "")
    });
    let store = store(&server, "s3://b/data");
    let keys = async |prefix: &str| -> Vec<String> {
        store.list(prefix).await.unwrap().into_iter().map(|found| found.key).collect()
    };
    assert_eq!(keys("").await, ["x/1", "xy/3"]);
    assert_eq!(keys("x").await, ["x/1"]);
    assert!(server.asked()[1].line().contains("prefix=data%2Fx%2F"), "{:?}", server.asked());
}

#[tokio::test]
async fn implausible_sizes_in_a_listing_are_an_error() {
    let huge = "18446744073709551615";
    for keys in [vec![("a", huge)], vec![("a", "1125899906842624"); 1025]] {
        let server = Scripted::start(move |_| page(&keys, ""));
        let error = store(&server, "s3://b").list("").await.unwrap_err();
        assert!(matches!(error, StoreError::BadListing { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn not_implemented_and_precondition_failed_are_reported_without_retries() {
    let server = Scripted::start(|_| error("501 Not Implemented", "NotImplemented"));
    let store = stores(&server, 10).open(&"s3://b".parse().unwrap()).unwrap();
    let began = Instant::now();
    let options = PutOptions { condition: PutMode::Absent, ..PutOptions::default() };
    let refused = store.send("x", Bytes::from_static(b"x"), &options).await.unwrap_err();
    let errors = [refused, store.list("").await.unwrap_err()];
    for error in errors {
        assert!(matches!(error, StoreError::NotImplemented { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("does not support") && !text.contains("try again"), "{text}");
    }
    assert_eq!(server.asked().len(), 2);
    assert!(began.elapsed() < Duration::from_secs(5));
    let server = Scripted::start(|_| error("412 Precondition Failed", "PreconditionFailed"));
    let store = stores(&server, 10).open(&"s3://b".parse().unwrap()).unwrap();
    let error = store.send("x", Bytes::from_static(b"x"), &options).await.unwrap_err();
    assert!(matches!(error, StoreError::PreconditionFailed { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("another writer changed it first") && !message.contains("read"),
        "{message}"
    );
    assert_eq!(server.asked().len(), 1);
    // If the request was a read, the message says that the object changed.
    let reading = Scripted::start(|request| match request.line().starts_with("HEAD") {
        true => Answer::Whole("200 OK", "ETag: \"1\"\r\n".to_owned(), vec![0; 9]),
        false => Answer::Whole("412 Precondition Failed", String::new(), Vec::new()),
    });
    let store = stores(&reading, 10).open(&reading.endpoint.parse().unwrap()).unwrap();
    let error = store.open("x").await.unwrap().range(0..3).await.unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[tokio::test]
async fn an_error_in_the_body_of_a_200_response_is_a_failure_and_retried_if_transient() {
    const RETRIES: u32 = 2;
    for (code, attempts) in [("InternalError", 1 + RETRIES as usize), ("AccessDenied", 1)] {
        let server = Scripted::start(move |request| match request.line() {
            line if line.contains("uploads=") => xml(
                "200 OK",
                "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
            ),
            line if line.starts_with("PUT") => {
                Answer::Whole("200 OK", "ETag: \"e\"\r\n".to_owned(), Vec::new())
            }
            line if line.starts_with("POST") => error("200 OK", code),
            _ => Answer::Whole("204 No Content", String::new(), Vec::new()),
        });
        let store = stores(&server, RETRIES).open(&"s3://b".parse().unwrap()).unwrap();
        let upload = store.create("x").await.unwrap();
        for index in 0..2 {
            upload.part(index, vec![vec![1; 5 << 20].into()]).await.unwrap();
        }
        let error = upload.complete().await.unwrap_err();
        assert!(error.to_string().contains(code), "{error}");
        match attempts {
            1 => assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error:?}"),
            _ => assert!(
                matches!(error, StoreError::RetriesExhausted { late: true, .. }),
                "{error:?}"
            ),
        }
        let completions =
            server.asked().iter().filter(|a| a.line().contains("POST /b/x?uploadId")).count();
        assert_eq!(completions, attempts);
    }
    // The same for a single PUT, even if the response has an ETag.
    let server = Scripted::start(|_| {
        let body = "<Error><Code>InvalidRequest</Code></Error>";
        Answer::Whole("200 OK", "ETag: \"e\"\r\n".to_owned(), body.into())
    });
    let error = store(&server, "s3://b").put("x", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(error.to_string().contains("InvalidRequest"), "{error}");
}

#[tokio::test]
async fn a_response_larger_than_requested_is_not_held_in_memory() {
    // An implausible `Content-Length` for an object that must be small.
    let server = Scripted::start(|_| {
        let head = "Content-Length: 1152921504606846976\r\nETag: \"e\"\r\n".to_owned();
        Answer::Whole("200 OK", head, vec![b'x'; 1 << 20])
    });
    let small = store(&server, "s3://b").get("plan.json").await.unwrap_err();
    assert!(matches!(small, StoreError::TooLarge { .. }), "{small:?}");
    let object = store(&server, "s3://b").open("x").await;
    if let Ok(object) = object {
        assert!(object.range(0..1 << 40).await.is_err());
    }
    // Listing pages and error bodies that never end.
    for (status, bytes) in [
        ("200 OK", &b"<ListBucketResult>"[..]),
        ("403 Forbidden", b"<Error>no end"),
        ("404 Not Found", &[0xff; 1000]),
    ] {
        let server = Scripted::start(move |_| Answer::Endless(status, bytes.to_vec()));
        let began = Instant::now();
        store(&server, "s3://b").list("").await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(10), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_are_cut_from_whole_responses_if_a_server_ignores_range_headers() {
    let data: Vec<u8> = (0..20u32 << 20).map(|n| (n % 251) as u8).collect();
    let (body, length) = (data.clone(), data.len() as u64);
    let server = Scripted::start(move |_| Answer::Whole("200 OK", String::new(), body.clone()));
    let location = server.endpoint.parse().unwrap();
    let object =
        StoreRegistry::new(S3Options::default()).open(&location).unwrap().open("x").await.unwrap();
    let part = |range: std::ops::Range<u64>| &data[range.start as usize..range.end as usize];
    for range in [0..1, 7_000_000..7_000_100, length - 3..length, 0..length] {
        let read = object.range(range.clone()).await.unwrap();
        assert!(read == part(range.clone()), "{range:?}");
    }
    let ranges = [length - 9..length, 5..9, 9_000_000..9_000_001];
    let read = object.ranges(&ranges).await.unwrap();
    assert!(read.iter().zip(ranges).all(|(read, range)| read == part(range)));
    // `fold` reads in order: the number of requests does not depend on the size of its pieces.
    let before = server.asked().len();
    let keep = |kept: &mut Vec<u8>, piece: &mut Vec<u8>| kept.append(piece);
    assert!(object.fold(0..length, Vec::new(), keep).await.unwrap() == data);
    assert!(object.fold(100..length - 1, Vec::new(), keep).await.unwrap() == part(100..length - 1));
    assert!(server.asked().len() - before <= 4, "{}", server.asked().len() - before);
    // A response that is too short, and one without a length that never ends.
    let short = Scripted::start(|request| match request.line().starts_with("HEAD") {
        true => Answer::Whole("200 OK", "Content-Length: 100\r\n".to_owned(), vec![0; 100]),
        false => Answer::Whole("200 OK", String::new(), vec![0; 50]),
    });
    let endless = Scripted::start(|request| match request.line().starts_with("HEAD") {
        true => Answer::Whole("200 OK", "Content-Length: 100\r\n".to_owned(), vec![0; 100]),
        false => Answer::Endless("200 OK", vec![0; 1000]),
    });
    for server in [short, endless] {
        let store = StoreRegistry::new(S3Options { max_retries: Some(0), ..S3Options::default() });
        let store = store.open(&server.endpoint.parse().unwrap()).unwrap();
        let object = store.open("x").await.unwrap();
        let error = object.range(40..80).await.unwrap_err();
        assert!(error.to_string().contains("/x"), "{error}");
    }
}

#[tokio::test]
async fn a_listing_that_needs_too_much_memory_is_an_error() {
    let number = std::sync::atomic::AtomicUsize::new(0);
    let server = Scripted::start(move |_| {
        let page_number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let names: Vec<String> =
            (0..1000).map(|n| format!("data/{page_number}/{n:0900}")).collect();
        let keys: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        page(&keys, &format!("token-{page_number}"))
    });
    // A listing may take a quarter of the memory: 8 MiB, about 2 KiB for each key.
    let stores = stores(&server, 0).with_memory_limit(32 << 20);
    let store = stores.open(&"s3://b/data".parse().unwrap()).unwrap();
    for error in
        [store.list("").await.unwrap_err(), store.list_with_delimiter("").await.unwrap_err()]
    {
        assert!(matches!(error, StoreError::ListingTooLong { most: 8_388_608, .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("s3://b/data") && message.contains("--memory"), "{message}");
    }
    assert!(server.asked().len() <= 12, "{}", server.asked().len());
}

#[tokio::test]
async fn a_stop_ends_listings_and_reads_that_wait_for_a_response() {
    let server = Scripted::start(|_| Answer::Nothing);
    let stop = std::sync::Arc::new(tokio::sync::Notify::new());
    let stopped = stop.clone();
    let stores = stores(&server, 10).until(move || {
        let stopped = stopped.clone();
        async move { stopped.notified().await }
    });
    let store = stores.open(&"s3://b".parse().unwrap()).unwrap();
    let began = Instant::now();
    let waiting = async { tokio::join!(store.list(""), store.get("x"), store.open("x")) };
    let send_stop = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..3 {
            stop.notify_waiters();
            tokio::task::yield_now().await;
        }
    };
    let ((list, read, object), ()) = tokio::join!(waiting, send_stop);
    let errors = [list.unwrap_err(), read.unwrap_err(), object.unwrap_err()];
    for error in errors {
        assert!(matches!(error, StoreError::Stopped), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}
