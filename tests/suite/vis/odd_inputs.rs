//! Inputs that are no files, that are large files of something else, or whose chunks are larger than
//! they say: named at once, and within bounds.

use std::fs;
use std::io::Write;
use std::process::Command as System;
use std::time::{Duration, Instant};

use super::super::support::case::{Workspace, case};
use super::super::support::dor::{dor, fails};
use super::support::{runs, vis, workspace};

const BAD_DATA: i32 = 65;
const CASE: &str = "-p 112 -m 4 --data-dir archive --allow-missing";
/// What reading all of takes much longer than the tests wait.
const LARGE: u64 = 64 << 30;
const SOON: Duration = Duration::from_secs(20);

fn with_stores() -> Workspace {
    let work = workspace(1);
    for store in ["1", "2", "3"] {
        runs(work.folder(), &format!("create-template-store{store} -o s{store}"));
    }
    work
}

fn pipe(work: &Workspace, name: &str) {
    let path = work.path(name);
    let _ = fs::remove_file(&path);
    assert!(System::new("mkfifo").arg(path).status().unwrap().success());
}

/// Says of each command that it stops with this code, naming `name` and what it is.
#[track_caller]
fn names(work: &Workspace, arguments: &str, code: i32, words: &[&str]) {
    let begun = Instant::now();
    let mut command = dor(work.folder());
    command.args(arguments.split_whitespace()).timeout(3 * SOON);
    let said = fails(&mut command, code);
    for word in words {
        assert!(said.contains(word), "{arguments}: `{word}` is missing in: {said}");
    }
    assert!(!said.contains("is not a location"), "{arguments}: {said}");
    assert!(begun.elapsed() < SOON, "{arguments}: {:?}", begun.elapsed());
}

#[test]
fn a_pipe_in_place_of_an_input_is_named() {
    let work = with_stores();
    let process = "research-data process-case 112-04 -d archive -o out --allow-missing";
    let store2 = format!("vis populate-store2 -o s2 {CASE}");
    let store3 = format!("vis populate-store3 -o s3 {CASE} --grid grid.nc");
    pipe(&work, "pipe");
    let is_pipe = ["pipe", "a named pipe (FIFO), not a file"];
    names(&work, &format!("{process} --grid pipe"), BAD_DATA, &is_pipe);
    names(&work, &format!("{process} --grid /dev/zero"), BAD_DATA, &["/dev/zero", "a device"]);
    names(&work, &format!("{store2} --grid pipe --ssh ssh.nc"), BAD_DATA, &is_pipe);
    names(&work, &format!("{store2} --grid grid.nc --ssh pipe"), BAD_DATA, &is_pipe);
    names(
        &work,
        &format!("{store2} --grid grid.nc --ssh ssh.nc --weights-store pipe"),
        BAD_DATA,
        &is_pipe,
    );
    names(&work, &format!("{store3} --centers pipe"), BAD_DATA, &is_pipe);
    names(&work, &format!("{store3} --centers /dev/null"), BAD_DATA, &["/dev/null", "a device"]);
    names(&work, "vis check pipe", BAD_DATA, &is_pipe);
    names(&work, "research-data check -o pipe", BAD_DATA, &is_pipe);
    names(&work, "vis populate-store1 -o s1 -p 112 -m 4 -a pipe", BAD_DATA, &is_pipe);
    names(&work, "run --plan pipe --shards 1", 78, &is_pipe);
    names(&work, "--config pipe config show", 78, &is_pipe);
    let archive = "research-data process-case 112-04 -d pipe -o out --allow-missing";
    names(&work, archive, BAD_DATA, &is_pipe);
    // A folder with one of the arrays.
    fs::create_dir(work.path("centers")).unwrap();
    pipe(&work, "centers/Atlantic_final_cluster_centers.npy");
    let words = ["Atlantic_final_cluster_centers.npy", is_pipe[1]];
    names(&work, &format!("{store3} --centers centers"), BAD_DATA, &words);
}

#[test]
fn a_pipe_in_place_of_what_a_store_knows_of_itself_is_named() {
    let work = with_stores();
    let populate = format!("vis populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc");
    let said = dor(work.folder()).args(populate.split_whitespace()).output().unwrap();
    assert!(said.status.success());
    for name in ["s2/.cases/112-04.json", "s2/.zmetadata"] {
        pipe(&work, name);
        let words = [name, "a named pipe (FIFO), not a file"];
        names(&work, &populate, BAD_DATA, &words);
        names(&work, "vis check s2", BAD_DATA, &words);
    }
    for name in ["s1/.cases", "s3/.cases"] {
        let _ = fs::remove_dir_all(work.path(name));
        pipe(&work, name);
    }
    let words = ["s1/.cases", "a named pipe (FIFO)"];
    names(&work, &format!("vis populate-store1 -o s1 {CASE}"), BAD_DATA, &words);
}

#[test]
fn a_large_file_of_something_else_is_judged_by_its_beginning() {
    let work = with_stores();
    fs::File::create(work.path("large")).unwrap().set_len(LARGE).unwrap();
    let process = "research-data process-case 112-04 -d archive -o out --allow-missing";
    let store2 = format!("vis populate-store2 -o s2 {CASE}");
    let store3 = format!("vis populate-store3 -o s3 {CASE} --grid grid.nc");
    names(&work, &format!("{process} --grid large"), BAD_DATA, &["large", "neither NetCDF"]);
    let ssh = format!("{store2} --grid grid.nc --ssh large");
    names(&work, &ssh, BAD_DATA, &["large", "is not a NetCDF file"]);
    names(&work, &format!("{store3} --centers large"), BAD_DATA, &["large", "--centers"]);
    let plan = "plan -o plan.json -d archive --output-dir out --store1 s1 --stages store1";
    names(&work, &format!("{plan} -p 112 -m 4 --grid large"), BAD_DATA, &["large", "neither"]);
    // So that it can be told which file is meant.
    fs::remove_file(work.raw(0)).unwrap();
    fs::rename(work.path("large"), work.raw(0)).unwrap();
    let raw = case().first_month().to_string();
    let words = [raw.as_str(), "is not a NetCDF file"];
    names(&work, &format!("{process} --grid grid.nc"), BAD_DATA, &words);
    names(&work, &format!("{process} --grid grid.nc --dry-run"), BAD_DATA, &words);
    names(&work, &format!("{store2} --grid grid.nc --ssh ssh.nc"), BAD_DATA, &words);
    names(&work, &format!("{store3} --centers centers.csv"), BAD_DATA, &words);
    names(&work, &format!("vis populate-store1 -o s1 {CASE}"), BAD_DATA, &words);
}

/// Arrays of an analysis store with this metadata, of which the first has a chunk.
fn analysis(work: &Workspace, (file, metadata): (&str, &str), (name, chunk): (&str, &[u8])) {
    for array in ["DIC_ADD_TOTAL", "DIC_FLUX"] {
        let folder = work.path(&format!("a/{}.analysis.zarr/{array}", case()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), metadata).unwrap();
        let chunk_at = folder.join(name);
        fs::create_dir_all(chunk_at.parent().unwrap()).unwrap();
        fs::write(chunk_at, chunk).unwrap();
    }
}

/// Holds that the program refuses the array in little memory.
#[track_caller]
fn refuses_in_bounds(work: &Workspace, words: &[&str]) {
    let populate = "populate-store1 -o s1 -p 112 -m 4 -a a";
    let said = fails(&mut vis(work.folder(), populate), BAD_DATA);
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
    let mut command = System::new("/bin/sh");
    command.current_dir(work.folder()).env_clear().env("HOME", work.folder());
    let limited = format!(
        "ulimit -d {} && exec {} vis {populate} --workers 1",
        MOST_KIB,
        env!("CARGO_BIN_EXE_dor")
    );
    let output = command.args(["-c", &limited]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(BAD_DATA), "{said}");
}

/// Less than what a bomb comes to, more than the program takes by itself.
const MOST_KIB: u64 = 1 << 20;
const BOMB: usize = 3 << 30;

fn gzip_bomb() -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 16 << 20];
    for _ in 0..BOMB / zeros.len() {
        gzip.write_all(&zeros).unwrap();
    }
    gzip.finish().unwrap()
}

#[test]
fn chunks_that_come_to_more_than_they_should_are_given_up_in_time() {
    let work = with_stores();
    let v2 = |compressor: &str| {
        format!(
            r#"{{"zarr_format": 2, "shape": [180], "chunks": [180], "dtype": "<f8",
                "compressor": {compressor}, "fill_value": 0.0, "filters": null, "order": "C"}}"#
        )
    };
    let gzip = gzip_bomb();
    let metadata = v2(r#"{"id": "gzip", "level": 1}"#);
    analysis(&work, (".zarray", &metadata), ("0", &gzip));
    refuses_in_bounds(&work, &["DIC_ADD_TOTAL", "more than its 1440 bytes"]);
    // A frame of blosc that says 2 GiB, and one that says too little of what is in it.
    let blosc =
        v2(r#"{"id": "blosc", "cname": "zlib", "clevel": 5, "shuffle": 1, "blocksize": 0}"#);
    for (claims, block) in [(2 << 30, 1 << 20), (1440, 1 << 30)] {
        let mut frame = vec![2, 1, 0x61, 8];
        for number in [claims, block, 16 + 4 + 4 + gzip.len() as u32] {
            frame.extend(u32::to_le_bytes(number));
        }
        frame.extend(20_u32.to_le_bytes());
        frame.extend((gzip.len() as u32).to_le_bytes());
        frame.extend(&gzip);
        analysis(&work, (".zarray", &blosc), ("0", &frame));
        refuses_in_bounds(&work, &["DIC_ADD_TOTAL"]);
    }
    // In a shard, whose index stands at its end.
    let inner = |chunk: u32| {
        format!(
            r#"{{"zarr_format": 3, "node_type": "array", "shape": [180], "data_type": "float64",
                "chunk_grid": {{"name": "regular", "configuration": {{"chunk_shape": [180]}}}},
                "chunk_key_encoding": {{"name": "default", "configuration": {{"separator": "/"}}}},
                "fill_value": 0.0, "attributes": {{}}, "codecs": [{{"name": "sharding_indexed",
                "configuration": {{"chunk_shape": [{chunk}], "codecs": [
                {{"name": "bytes", "configuration": {{"endian": "little"}}}},
                {{"name": "gzip", "configuration": {{"level": 1}}}}],
                "index_codecs": [{{"name": "bytes", "configuration": {{"endian": "little"}}}}],
                "index_location": "end"}}}}]}}"#
        )
    };
    for (offset, size, words) in [
        (0, gzip.len() as u64, &["more than its 1440 bytes"][..]),
        (0, 1 << 40, &[]),
        (1 << 62, 1 << 62, &[]),
    ] {
        let mut shard = gzip.clone();
        shard.extend(u64::to_le_bytes(offset));
        shard.extend(u64::to_le_bytes(size));
        analysis(&work, ("zarr.json", &inner(180)), ("c/0", &shard));
        let _ = fs::remove_file(
            work.path(&format!("a/{}.analysis.zarr/DIC_ADD_TOTAL/.zarray", case())),
        );
        let said = [&["DIC_ADD_TOTAL"][..], words].concat();
        refuses_in_bounds(&work, &said);
    }
}
