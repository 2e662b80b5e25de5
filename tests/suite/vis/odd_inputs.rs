//! Pipes, devices, large files of another format and chunks that are larger than declared: they are
//! refused within seconds and in little memory.

use std::fs;
use std::io::Write;
use std::process::Command as System;
use std::time::{Duration, Instant};

use super::super::support::case::{Workspace, case};
use super::super::support::dor::{dor, fails};
use super::support::{run_vis, vis_command, workspace};

const BAD_DATA: i32 = 65;
const CASE: &str = "-p 112 -m 4 --data-dir archive --allow-missing";
/// Length in bytes of a file that cannot be read to its end while the tests wait.
const LARGE: u64 = 64 << 30;
/// The longest time until a command must have refused its input.
const SOON: Duration = Duration::from_secs(20);

/// A workspace of one month and a template of each store.
fn workspace_with_stores() -> Workspace {
    let work = workspace(1);
    for store in ["1", "2", "3"] {
        run_vis(work.folder(), &format!("create-template-store{store} -o s{store}"));
    }
    work
}

/// Replaces a file of the workspace by a named pipe.
fn make_pipe(work: &Workspace, name: &str) {
    let path = work.path(name);
    let _ = fs::remove_file(&path);
    assert!(System::new("mkfifo").arg(path).status().unwrap().success());
}

/// Asserts that `dor` exits with `code` within [`SOON`] and prints all `words`.
#[track_caller]
fn assert_refused_soon(work: &Workspace, arguments: &str, code: i32, words: &[&str]) {
    let begun = Instant::now();
    let mut command = dor(work.folder());
    command.args(arguments.split_whitespace()).timeout(3 * SOON);
    let error = fails(&mut command, code);
    for word in words {
        assert!(error.contains(word), "{arguments}: `{word}` is missing in: {error}");
    }
    assert!(!error.contains("is not a location"), "{arguments}: {error}");
    assert!(begun.elapsed() < SOON, "{arguments}: {:?}", begun.elapsed());
}

#[test]
fn a_pipe_or_device_in_place_of_an_input_is_refused() {
    let work = workspace_with_stores();
    let process = "research-data process-case 112-04 -d archive -o out --allow-missing";
    let store2 = format!("vis populate-store2 -o s2 {CASE}");
    let store3 = format!("vis populate-store3 -o s3 {CASE} --grid grid.nc");
    make_pipe(&work, "pipe");
    let is_pipe = ["pipe", "a named pipe (FIFO), not a file"];
    assert_refused_soon(&work, &format!("{process} --grid pipe"), BAD_DATA, &is_pipe);
    assert_refused_soon(
        &work,
        &format!("{process} --grid /dev/zero"),
        BAD_DATA,
        &["/dev/zero", "a device"],
    );
    assert_refused_soon(&work, &format!("{store2} --grid pipe --ssh ssh.nc"), BAD_DATA, &is_pipe);
    assert_refused_soon(&work, &format!("{store2} --grid grid.nc --ssh pipe"), BAD_DATA, &is_pipe);
    assert_refused_soon(
        &work,
        &format!("{store2} --grid grid.nc --ssh ssh.nc --weights-store pipe"),
        BAD_DATA,
        &is_pipe,
    );
    assert_refused_soon(&work, &format!("{store3} --centers pipe"), BAD_DATA, &is_pipe);
    assert_refused_soon(
        &work,
        &format!("{store3} --centers /dev/null"),
        BAD_DATA,
        &["/dev/null", "a device"],
    );
    assert_refused_soon(&work, "vis check pipe", BAD_DATA, &is_pipe);
    assert_refused_soon(&work, "research-data check -o pipe", BAD_DATA, &is_pipe);
    assert_refused_soon(&work, "vis populate-store1 -o s1 -p 112 -m 4 -a pipe", BAD_DATA, &is_pipe);
    assert_refused_soon(&work, "run --plan pipe --shards 1", 78, &is_pipe);
    assert_refused_soon(&work, "--config pipe config show", 78, &is_pipe);
    let archive = "research-data process-case 112-04 -d pipe -o out --allow-missing";
    assert_refused_soon(&work, archive, BAD_DATA, &is_pipe);
    // A folder with centers in NumPy files, one of which is a pipe.
    fs::create_dir(work.path("centers")).unwrap();
    make_pipe(&work, "centers/Atlantic_final_cluster_centers.npy");
    let words = ["Atlantic_final_cluster_centers.npy", is_pipe[1]];
    assert_refused_soon(&work, &format!("{store3} --centers centers"), BAD_DATA, &words);
}

#[test]
fn a_pipe_in_place_of_store_metadata_or_a_case_manifest_is_refused() {
    let work = workspace_with_stores();
    let populate = format!("vis populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc");
    let output = dor(work.folder()).args(populate.split_whitespace()).output().unwrap();
    assert!(output.status.success());
    for name in ["s2/.cases/112-04.json", "s2/.zmetadata"] {
        make_pipe(&work, name);
        let words = [name, "a named pipe (FIFO), not a file"];
        assert_refused_soon(&work, &populate, BAD_DATA, &words);
        assert_refused_soon(&work, "vis check s2", BAD_DATA, &words);
    }
    for name in ["s1/.cases", "s3/.cases"] {
        let _ = fs::remove_dir_all(work.path(name));
        make_pipe(&work, name);
    }
    let words = ["s1/.cases", "a named pipe (FIFO)"];
    assert_refused_soon(&work, &format!("vis populate-store1 -o s1 {CASE}"), BAD_DATA, &words);
}

#[test]
fn a_large_file_of_another_format_is_refused_by_its_first_bytes() {
    let work = workspace_with_stores();
    fs::File::create(work.path("large")).unwrap().set_len(LARGE).unwrap();
    let process = "research-data process-case 112-04 -d archive -o out --allow-missing";
    let store2 = format!("vis populate-store2 -o s2 {CASE}");
    let store3 = format!("vis populate-store3 -o s3 {CASE} --grid grid.nc");
    assert_refused_soon(
        &work,
        &format!("{process} --grid large"),
        BAD_DATA,
        &["large", "neither NetCDF"],
    );
    let ssh = format!("{store2} --grid grid.nc --ssh large");
    assert_refused_soon(&work, &ssh, BAD_DATA, &["large", "is not a NetCDF file"]);
    assert_refused_soon(
        &work,
        &format!("{store3} --centers large"),
        BAD_DATA,
        &["large", "--centers"],
    );
    let plan = "plan -o plan.json -d archive --output-dir out --store1 s1 --stages store1";
    assert_refused_soon(
        &work,
        &format!("{plan} -p 112 -m 4 --grid large"),
        BAD_DATA,
        &["large", "neither"],
    );
    // The same file in place of a raw file: the message names the month.
    fs::remove_file(work.raw(0)).unwrap();
    fs::rename(work.path("large"), work.raw(0)).unwrap();
    let raw = case().first_month().to_string();
    let words = [raw.as_str(), "is not a NetCDF file"];
    assert_refused_soon(&work, &format!("{process} --grid grid.nc"), BAD_DATA, &words);
    assert_refused_soon(&work, &format!("{process} --grid grid.nc --dry-run"), BAD_DATA, &words);
    assert_refused_soon(&work, &format!("{store2} --grid grid.nc --ssh ssh.nc"), BAD_DATA, &words);
    assert_refused_soon(&work, &format!("{store3} --centers centers.csv"), BAD_DATA, &words);
    assert_refused_soon(&work, &format!("vis populate-store1 -o s1 {CASE}"), BAD_DATA, &words);
}

/// Writes an analysis store whose arrays have this metadata file and this chunk.
fn write_analysis_store(
    work: &Workspace,
    (file, metadata): (&str, &str),
    (name, chunk): (&str, &[u8]),
) {
    for array in ["DIC_ADD_TOTAL", "DIC_FLUX"] {
        let folder = work.path(&format!("a/{}.analysis.zarr/{array}", case()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), metadata).unwrap();
        let chunk_at = folder.join(name);
        fs::create_dir_all(chunk_at.parent().unwrap()).unwrap();
        fs::write(chunk_at, chunk).unwrap();
    }
}

/// Asserts that `populate-store1` refuses the array, also under a memory limit.
#[track_caller]
fn assert_refused_in_little_memory(work: &Workspace, words: &[&str]) {
    let populate = "populate-store1 -o s1 -p 112 -m 4 -a a";
    let error = fails(&mut vis_command(work.folder(), populate), BAD_DATA);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    let mut command = System::new("/bin/sh");
    command.current_dir(work.folder()).env_clear().env("HOME", work.folder());
    let limited = format!(
        "ulimit -d {} && exec {} vis {populate} --workers 1",
        MEMORY_LIMIT_KIB,
        env!("CARGO_BIN_EXE_dor")
    );
    let output = command.args(["-c", &limited]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(BAD_DATA), "{stderr}");
}

/// Memory limit in KiB: less than [`BOMB`], more than the program needs by itself.
const MEMORY_LIMIT_KIB: u64 = 1 << 20;
/// Decompressed size in bytes of the test's chunks.
const BOMB: usize = 3 << 30;

/// A small gzip stream that decompresses to [`BOMB`] zeros.
fn gzip_bomb() -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 16 << 20];
    for _ in 0..BOMB / zeros.len() {
        gzip.write_all(&zeros).unwrap();
    }
    gzip.finish().unwrap()
}

#[test]
fn chunks_that_decompress_to_more_than_declared_are_refused_in_little_memory() {
    let work = workspace_with_stores();
    let v2 = |compressor: &str| {
        format!(
            r#"{{"zarr_format": 2, "shape": [180], "chunks": [180], "dtype": "<f8",
                "compressor": {compressor}, "fill_value": 0.0, "filters": null, "order": "C"}}"#
        )
    };
    let gzip = gzip_bomb();
    let metadata = v2(r#"{"id": "gzip", "level": 1}"#);
    write_analysis_store(&work, (".zarray", &metadata), ("0", &gzip));
    assert_refused_in_little_memory(&work, &["DIC_ADD_TOTAL", "more than its 1440 bytes"]);
    // A blosc frame that declares 2 GiB, and one that declares less than it has.
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
        write_analysis_store(&work, (".zarray", &blosc), ("0", &frame));
        assert_refused_in_little_memory(&work, &["DIC_ADD_TOTAL"]);
    }
    // A shard with its index at the end.
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
        write_analysis_store(&work, ("zarr.json", &inner(180)), ("c/0", &shard));
        let _ = fs::remove_file(
            work.path(&format!("a/{}.analysis.zarr/DIC_ADD_TOTAL/.zarray", case())),
        );
        let all_words = [&["DIC_ADD_TOTAL"][..], words].concat();
        assert_refused_in_little_memory(&work, &all_words);
    }
}
