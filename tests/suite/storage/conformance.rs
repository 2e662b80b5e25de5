//! One set of requirements, which is tested with every backend: memory, disk and S3.

use bytes::Bytes;
use dor_atlas::model::Md5Digest;
use dor_atlas::store::{
    Location, PartBody, PutMode, PutOptions, S3Options, Store, StoreError, StoreRegistry,
};
use futures::{StreamExt, TryStreamExt};

use super::super::support::minio::Minio;
use super::super::support::s3::{BUCKET, S3Server};

/// Pseudo-random bytes, the same in every call.
fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect::<Vec<_>>().into()
}

/// The bytes of an object; `None` if it is absent.
async fn get_bytes(store: &Store, key: &str) -> Option<Bytes> {
    store.get(key).await.unwrap().map(|(data, _)| data)
}

/// The keys below a prefix, in the order of the listing.
async fn keys(store: &Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|info| info.key).collect()
}

async fn small_objects(store: &Store) {
    assert_eq!(get_bytes(store, "small/a").await, None);
    let info = store.put("small/a", Bytes::from_static(b"one")).await.unwrap();
    assert_eq!((info.key.as_str(), info.size), ("small/a", 3));
    assert_eq!(get_bytes(store, "small/a").await.unwrap(), "one");
    store.put("small/a", Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(get_bytes(store, "small/a").await.unwrap(), "second");
    store.put("small/empty", Bytes::new()).await.unwrap();
    assert_eq!(get_bytes(store, "small/empty").await.unwrap(), "");
    let empty = store.open("small/empty").await.unwrap();
    assert_eq!(empty.range(0..0).await.unwrap(), "");
    assert_eq!(empty.stream(10, 2).count().await, 0);
    assert_eq!(keys(store, "small").await, ["small/a", "small/empty"]);
    store.delete("small/a").await.unwrap();
    store.delete("small/a").await.unwrap();
    assert_eq!(keys(store, "small").await, ["small/empty"]);
}

async fn absent_objects(store: &Store) {
    match store.open("no/such.nc").await.unwrap_err() {
        StoreError::NotFound { url } => {
            assert_eq!(url, store.location().join("no/such.nc").to_string());
        }
        error => panic!("{error}"),
    }
    assert!(store.list("no/such/folder").await.unwrap().is_empty());
    assert!(store.list_folders("no/such/folder").await.unwrap().is_empty());
    assert!(matches!(store.get("../out").await, Err(StoreError::BadKey { .. })));
}

async fn keys_with_special_characters(store: &Store) {
    let odd =
        ["a b", "ünï", "50%", "a%20b", "x#y", "p+q=r&s", "~tilde", "br[1]{2}", ".hidden", "q'\"?*"];
    for name in odd {
        let key = format!("odd/{name}");
        store.put(&key, Bytes::from(name)).await.unwrap();
        assert_eq!(get_bytes(store, &key).await.unwrap(), name);
        assert_eq!(
            store.open(&key).await.unwrap().range(0..1).await.unwrap(),
            name.as_bytes()[..1]
        );
    }
    let mut expected = odd.map(|name| format!("odd/{name}"));
    expected.sort();
    assert_eq!(keys(store, "odd").await, expected);
}

async fn ranges(store: &Store) {
    let data = noise(300_000);
    store.put("read/x", data.clone()).await.unwrap();
    let listed = store.list("read").await.unwrap().remove(0);
    for object in [store.open("read/x").await.unwrap(), store.object_known("read/x", listed)] {
        assert_eq!(object.info().size, 300_000);
        assert_eq!(object.range(7..20).await.unwrap(), data[7..20]);
        assert_eq!(object.range(299_999..300_000).await.unwrap(), data[299_999..]);
        let wanted = [200_000..200_010, 0..5, 3..9, 299_990..300_000, 50..50];
        let got = object.ranges(&wanted).await.unwrap();
        for (range, got) in wanted.into_iter().zip(got) {
            assert_eq!(got, data[range.start as usize..range.end as usize], "{range:?}");
        }
        let beyond = object.range(0..300_001).await.unwrap_err();
        assert!(matches!(beyond, StoreError::OutOfRange { .. }), "{beyond}");
        let pieces: Vec<Bytes> = object.stream(70_000, 3).try_collect().await.unwrap();
        assert_eq!(
            pieces.iter().map(Bytes::len).collect::<Vec<_>>(),
            [70_000, 70_000, 70_000, 70_000, 20_000]
        );
        assert_eq!(pieces.concat(), data);
        let add = |all: &mut Vec<u8>, piece: &mut Vec<u8>| all.append(piece);
        let folded = object.fold(10..299_990, Vec::new(), add).await.unwrap();
        assert_eq!(folded, data[10..299_990]);
    }
}

async fn changes_are_detected(store: &Store) {
    store.put("change/x", Bytes::from_static(b"before")).await.unwrap();
    let object = store.open("change/x").await.unwrap();
    assert_eq!(object.range(0..3).await.unwrap(), "bef");
    store.put("change/x", Bytes::from_static(b"after!")).await.unwrap();
    let error = object.range(0..3).await.unwrap_err();
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    let error = object.stream(2, 2).try_collect::<Vec<_>>().await.unwrap_err();
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    let error = object.fold(0..6, (), |(), _| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
    store.delete("change/x").await.unwrap();
    let error = object.range(0..3).await.unwrap_err();
    assert!(matches!(error, StoreError::Changed { .. }), "{error}");
}

async fn conditional_writes(store: &Store) {
    let send = async |condition| {
        let options = PutOptions { condition, ..PutOptions::default() };
        store.send("condition/x", Bytes::from_static(b"x"), &options).await
    };
    let first = send(PutMode::Absent).await.unwrap();
    let second = send(PutMode::Is(first.etag.clone().unwrap())).await.unwrap();
    // On disk, the second write of the same bytes has another ETag than the first.
    let other = PutMode::Is("0123456789abcdef0123456789abcdef".to_owned());
    for condition in [PutMode::Absent, other] {
        let error = send(condition).await.unwrap_err();
        assert!(matches!(error, StoreError::PreconditionFailed { .. }), "{error}");
        assert!(error.to_string().contains("another writer changed it first"), "{error}");
    }
    assert_eq!(store.head("condition/x").await.unwrap().unwrap().etag, second.etag);
}

async fn many_keys(store: &Store) {
    let puts = (0..1_234).map(|n| async move {
        store.put(&format!("many/{:02}/{n:04}", n % 12), Bytes::from_static(b"x")).await
    });
    futures::stream::iter(puts).buffer_unordered(16).try_collect::<Vec<_>>().await.unwrap();
    let found = keys(store, "many").await;
    assert_eq!(found.len(), 1_234);
    assert!(found.is_sorted());
    let folders = store.list_folders("many").await.unwrap();
    assert_eq!(folders.len(), 12);
    assert_eq!((folders[0].as_str(), folders[11].as_str()), ("many/00", "many/11"));
    assert_eq!(keys(store, "many/03").await.len(), 103);
    assert!(keys(store, "man").await.is_empty(), "a prefix must match whole path segments");
}

async fn uploads(store: &Store) {
    let full = store.create("up/probe").await.unwrap().part_size();
    let data = noise(2 * full + 12_345);
    let part = |index: usize| data.slice(index * full..data.len().min((index + 1) * full));
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        store.put("up/x", Bytes::from_static(b"old")).await.unwrap();
        let upload = store.create("up/x").await.unwrap();
        for index in order {
            let part = part(index);
            let (a, b) = (part.slice(..1000), part.slice(1000..));
            upload.part(index, vec![a, b]).await.unwrap();
        }
        assert_eq!(
            get_bytes(store, "up/x").await.unwrap(),
            "old",
            "an upload is visible before it is complete"
        );
        assert_eq!(keys(store, "up").await, ["up/x"]);
        let info = upload.complete().await.unwrap();
        assert_eq!(info.size, data.len() as u64);
        assert_eq!(get_bytes(store, "up/x").await.unwrap(), data, "{order:?}");
    }
    let upload = store.create("up/together").await.unwrap();
    futures::future::try_join_all((0..3).rev().map(|i| upload.part(i, vec![part(i)])))
        .await
        .unwrap();
    upload.complete().await.unwrap();
    assert_eq!(get_bytes(store, "up/together").await.unwrap(), data);

    let single = store.create("up/single").await.unwrap();
    single.part(0, vec![Bytes::from_static(b"all of it")]).await.unwrap();
    assert_eq!(single.complete().await.unwrap().size, 9);
    assert_eq!(get_bytes(store, "up/single").await.unwrap(), "all of it");
    assert_eq!(store.create("up/none").await.unwrap().complete().await.unwrap().size, 0);
    store.delete("up/none").await.unwrap();

    let before = keys(store, "up").await;
    let gap = store.create("up/gap").await.unwrap();
    gap.part(0, vec![part(0)]).await.unwrap();
    gap.part(2, vec![part(2)]).await.unwrap();
    let error = gap.complete().await.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error}");
    let short = store.create("up/short").await.unwrap();
    short.part(1, vec![part(2)]).await.unwrap();
    short.part(0, vec![part(2)]).await.unwrap();
    let error = short.complete().await.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error}");
    let big = store.create("up/big").await.unwrap();
    let error = big.part(0, vec![part(0), part(2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error}");
    let aborted = store.create("up/x").await.unwrap();
    aborted.part(1, vec![part(1)]).await.unwrap();
    aborted.abort().await.unwrap();
    let dropped = store.create("up/x").await.unwrap();
    dropped.part(1, vec![part(1)]).await.unwrap();
    drop(dropped);
    drop(big);
    assert_eq!(keys(store, "up").await, before);
    assert_eq!(get_bytes(store, "up/x").await.unwrap(), data);
}

async fn parts_from_files(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let disk = StoreRegistry::new(S3Options::default())
        .open(&location(folder.path().to_str().unwrap()))
        .unwrap();
    let full = store.create("up/probe").await.unwrap().part_size();
    let data = noise(2 * full + 12_345);
    disk.put("file", data.clone()).await.unwrap();
    let file = disk.open("file").await.unwrap();
    let upload = store.create("up/file").await.unwrap();
    let part = async |index: usize| {
        let range = index * full..data.len().min((index + 1) * full);
        let md5 = Md5Digest::of(&data[range.clone()]);
        let body = PartBody::Range(file.clone(), range.start as u64..range.end as u64);
        upload.part_with_md5(index, body, md5).await
    };
    for index in [1, 0, 2] {
        part(index).await.unwrap();
    }
    // A file that has changed since it was opened is not sent.
    disk.put("file", noise(data.len())).await.unwrap();
    let error = part(2).await.unwrap_err();
    assert!(matches!(&error, StoreError::Changed { url, .. } if url.ends_with("/file")), "{error}");
    upload.complete().await.unwrap();
    assert_eq!(get_bytes(store, "up/file").await.unwrap(), data);
}

/// Copies the object that `parts_from_files` has written to disk, part by part.
async fn parts_to_files(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let disk = StoreRegistry::new(S3Options::default())
        .open(&location(folder.path().to_str().unwrap()))
        .unwrap();
    let object = store.open("up/file").await.unwrap();
    let (data, full) = (get_bytes(store, "up/file").await.unwrap(), 5 << 20);
    let (size, part_size) = (data.len() as u64, Some(full));
    let options = PutOptions { size, part_size, ..PutOptions::default() };
    let upload = disk.create_as("file", options).await.unwrap();
    assert!(!upload.holds(&object));
    let part = async |start: u64, known: Option<Md5Digest>| {
        let range = start..size.min(start + full);
        let md5 = Md5Digest::of(&data[range.start as usize..range.end as usize]);
        let body = PartBody::Range(object.clone(), range);
        upload.part_with_md5((start / full) as usize, body, known.unwrap_or(md5)).await
    };
    let error = part(0, Some(Md5Digest::of(b"other"))).await.unwrap_err();
    assert!(matches!(&error, StoreError::Differs { start: 0, .. }), "{error}");
    for start in (0..size).step_by(full as usize) {
        part(start, None).await.unwrap();
    }
    upload.complete().await.unwrap();
    assert_eq!(get_bytes(&disk, "file").await.unwrap(), data);
}

async fn probe(store: &Store) {
    let check = store.check(true).await;
    check.readable.unwrap();
    check.writable.unwrap().unwrap();
    assert!(check.exists);
}

async fn assert_conforms(store: Store) {
    small_objects(&store).await;
    absent_objects(&store).await;
    keys_with_special_characters(&store).await;
    ranges(&store).await;
    changes_are_detected(&store).await;
    conditional_writes(&store).await;
    uploads(&store).await;
    parts_from_files(&store).await;
    parts_to_files(&store).await;
    many_keys(&store).await;
    probe(&store).await;
}

/// Parses a location.
fn location(text: &str) -> Location {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_conforms() {
    assert_conforms(Store::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_disk_conforms_and_keeps_no_temporary_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("with space/new");
    let stores = StoreRegistry::new(S3Options { part_size: Some(5 << 20), ..S3Options::default() });
    let store = stores.open(&location(root.to_str().unwrap())).unwrap();
    assert_conforms(store).await;
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            assert!(
                !name.ends_with(".staged") && !name.contains("#1"),
                "{name} is a temporary file that was not removed"
            );
            folders.extend(entry.file_type().unwrap().is_dir().then(|| entry.path()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_s3_server_conforms_and_keeps_no_unfinished_uploads() {
    let server = S3Server::start();
    assert_conforms(
        server.stores().open(&location(&format!("s3://{BUCKET}/some/prefix"))).unwrap(),
    )
    .await;
    // Uploads that are dropped are aborted in the background.
    for _ in 0..100 {
        if server.unfinished().is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(server.unfinished(), [""; 0]);
}

#[tokio::test]
async fn objects_have_the_content_type_of_their_name() {
    let server = S3Server::start();
    let store = server.stores().open(&location(&format!("s3://{BUCKET}/p"))).unwrap();
    for (name, expected) in [
        ("a.b.nc", "application/x-netcdf"),
        ("manifest.json", "application/json"),
        ("x/.zattrs", "application/json"),
        ("x/c/0.0", "application/octet-stream"),
        ("nc", "application/octet-stream"),
    ] {
        store.put(name, Bytes::from_static(b"x")).await.unwrap();
        let content_type = server.content_type(&format!("PUT /{BUCKET}/p/{name}"));
        assert_eq!(content_type.as_deref(), Some(expected), "{name}");
    }
    let upload = store.create("large.nc").await.unwrap();
    let part = noise(upload.part_size());
    for index in 0..2 {
        upload.part(index, vec![part.clone()]).await.unwrap();
    }
    upload.complete().await.unwrap();
    let content_type = server.content_type(&format!("POST /{BUCKET}/p/large.nc"));
    assert_eq!(content_type.as_deref(), Some("application/x-netcdf"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn minio_conforms_and_rejects_a_part_with_a_wrong_content_md5() {
    if let Some(minio) = Minio::start() {
        let url = format!("s3://{}/some/prefix", minio.bucket);
        let store = minio.stores().open(&location(&url)).unwrap();
        assert_conforms(store.clone()).await;
        // MinIO compares `Content-MD5` with the body.
        let upload = store.create("x").await.unwrap();
        let body = PartBody::Bytes(vec![noise(1000)]);
        let refused = upload.part_with_md5(1, body, Md5Digest::of(b"other")).await;
        assert!(refused.unwrap_err().to_string().contains("/x"));
        upload.abort().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_without_prefix_and_a_relative_path_are_valid_locations() {
    let server = S3Server::start();
    let store = server.stores().open(&location(&format!("s3://{BUCKET}"))).unwrap();
    small_objects(&store).await;
    ranges(&store).await;
    let folder = tempfile::tempdir_in("target").unwrap();
    let relative =
        folder.path().strip_prefix(std::env::current_dir().unwrap()).unwrap_or(folder.path());
    let store = StoreRegistry::new(S3Options::default())
        .open(&location(relative.to_str().unwrap()))
        .unwrap();
    small_objects(&store).await;
}
