//! Temporary files that a killed writer leaves on disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dor_atlas::store::{S3Options, Store, StoreRegistry};

/// Opens a folder as a store.
fn open(folder: &Path) -> Store {
    StoreRegistry::new(S3Options::default())
        .open(&folder.to_str().unwrap().parse().unwrap())
        .unwrap()
}

/// The names of all files in a folder, temporary ones included.
fn file_names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn remove_stale_temp_files_removes_the_file_of_a_killed_writer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "suite::storage::atomic_file::child_writes_until_killed"])
        .env("DOR_TEST_FOLDER", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while file_names(folder.path()).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "no temporary file after 30 seconds");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(
        store.remove_stale_temp_files("").await.unwrap(),
        0,
        "a file is not stale while its writer runs"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(file_names(folder.path()).len(), 1);
    assert!(store.list("").await.unwrap().is_empty(), "listings must not contain temporary files");

    let own_upload = store.create("mine.nc").await.unwrap();
    assert_eq!(store.remove_stale_temp_files("").await.unwrap(), 1);
    own_upload.part(0, vec![Bytes::from_static(b"mine")]).await.unwrap();
    own_upload.complete().await.unwrap();
    assert_eq!(file_names(folder.path()), ["mine.nc"]);
}

#[tokio::test]
#[ignore = "run, and killed, by remove_stale_temp_files_removes_the_file_of_a_killed_writer"]
async fn child_writes_until_killed() {
    let store = open(Path::new(&std::env::var("DOR_TEST_FOLDER").unwrap()));
    let upload = store.create("big.nc").await.unwrap();
    upload.part(1, vec![Bytes::from_static(b"x")]).await.unwrap();
    std::thread::sleep(Duration::from_secs(60));
}
