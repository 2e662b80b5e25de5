//! Map stores: creation, filling, finalizing, checking and plotting.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::support::case::{assert_same, tree};
use super::super::support::dor::json;
use super::super::support::s3::{BUCKET, S3Server};
use super::support::{FILL, add_polygon_113, floats, run_vis, vis_command, workspace};

/// Arguments that choose the case of a workspace.
const CASE: &str = "-p 112 -m 4 --data-dir archive --allow-missing";
/// The variables that need no sea surface height.
const SURFACE: &str = "--variables DIC_SURF PH FG pCO2SURF";

#[test]
fn a_template_is_sound_and_has_all_arrays() {
    let work = workspace(1);
    for (store, arrays) in [("1", 4), ("2", 26), ("3", 5)] {
        let at = format!("s{store}");
        let printed = run_vis(work.folder(), &format!("create-template-store{store} -o {at}"));
        assert!(printed.contains("polygon_id 690") && printed.contains("CHUNKS"), "{printed}");
        let report = json(&mut vis_command(work.folder(), &format!("check {at} --json")));
        assert_eq!(report["sound"], true, "{report}");
        assert_eq!(report["cases"]["missing"].as_array().unwrap().len(), 2760);
        let metadata: Value =
            serde_json::from_slice(&fs::read(work.path(&at).join(".zmetadata")).unwrap()).unwrap();
        let documents = metadata["metadata"].as_object().unwrap();
        assert_eq!(documents.keys().filter(|key| key.ends_with(".zarray")).count(), arrays);
        for (key, document) in documents {
            let own = fs::read(work.path(&at).join(key)).unwrap();
            assert_eq!(&serde_json::from_slice::<Value>(&own).unwrap(), document, "{key}");
        }
    }
    // All four seasons have chunks of fill values.
    for season in 0..4 {
        let chunk = floats(&work.path(&format!("s1/DOR_efficiency/0.0.{season}")));
        assert!(chunk.len() == 180 * 690 && chunk.iter().all(|v| *v == FILL));
    }
    // An empty store can be created again and has the same bytes.
    let before = work.tree("s2");
    run_vis(work.folder(), "create-template-store2 -o s2");
    assert_same(&before, &work.tree("s2"));
}

#[test]
fn a_store_with_results_is_replaced_only_with_overwrite() {
    let work = workspace(1);
    run_vis(work.folder(), &format!("create-template-store2 -o s2 {SURFACE} -l 1"));
    run_vis(work.folder(), &format!("populate-store2 -o s2 {CASE} --grid grid.nc"));
    let before = work.tree("s2");
    let refused = vis_command(work.folder(), "create-template-store2 -o s2").assert().code(78);
    let error = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(error.contains("--overwrite") && error.contains("s2"), "{error}");
    assert_same(&before, &work.tree("s2"));
    run_vis(work.folder(), "create-template-store2 -o s2 --overwrite");
    run_vis(work.folder(), "create-template-store2 -o fresh");
    assert_same(&work.tree("fresh"), &work.tree("s2"));
    // A store with a foreign file is not replaced, even with --overwrite.
    fs::write(work.path("s2/notes.txt"), "mine").unwrap();
    vis_command(work.folder(), "create-template-store1 -o s2 --overwrite").assert().code(78);
    vis_command(work.folder(), "create-template-store2 -o s2 --overwrite").assert().code(78);
    assert!(work.path("s2/notes.txt").exists() && work.path("s2/.zmetadata").exists());
    fs::create_dir(work.path("home")).unwrap();
    fs::write(work.path("home/.zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    fs::write(work.path("home/thesis.nc"), "years of work").unwrap();
    let before = work.tree("home");
    vis_command(work.folder(), "create-template-store1 -o home --overwrite").assert().code(78);
    assert_same(&before, &work.tree("home"));
    // A store is not created in a polygon's folder of research-grade files.
    fs::create_dir_all(work.path("research/112/04")).unwrap();
    fs::write(work.path("research/112/04/manifest.json"), "{}").unwrap();
    let inside =
        vis_command(work.folder(), "create-template-store1 -o research/112/s1").assert().code(78);
    let error = String::from_utf8_lossy(&inside.get_output().stderr).into_owned();
    assert!(error.contains("research/112"), "{error}");
    assert!(!work.path("research/112/s1").exists());
    // A folder with other files is never emptied.
    let before = work.tree("archive");
    vis_command(work.folder(), "create-template-store2 -o archive --overwrite").assert().code(78);
    assert_same(&before, &work.tree("archive"));
}

#[test]
fn missing_months_are_refused_or_become_fill_values() {
    let work = workspace(14);
    run_vis(work.folder(), "create-template-store1 -o s1");
    run_vis(work.folder(), "create-template-store3 -o s3");
    run_vis(work.folder(), &format!("create-template-store2 -o s2 {SURFACE} -l 1"));
    let strict = "-p 112 -m 4 --data-dir archive --grid grid.nc";
    for populate in [
        format!("populate-store1 -o s1 {}", "-p 112 -m 4 --data-dir archive"),
        format!("populate-store2 -o s2 {strict}"),
        format!("populate-store3 -o s3 {strict} --centers centers.csv"),
    ] {
        let refused = vis_command(work.folder(), &populate).assert().code(65);
        let error = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(error.contains("166 of 180") && error.contains("--allow-missing"), "{error}");
    }
    assert!(!work.path("s2/.cases").exists());
    fs::remove_file(work.raw(12)).unwrap();
    let printed = run_vis(work.folder(), &format!("populate-store1 -o s1 {CASE}"));
    assert!(printed.contains("months missing: ") && printed.contains(" to "), "{printed}");
    run_vis(work.folder(), &format!("populate-store2 -o s2 {CASE} --grid grid.nc"));
    run_vis(
        work.folder(),
        &format!("populate-store3 -o s3 {CASE} --grid grid.nc --centers centers.csv"),
    );
    // A case manifest with too few values is not written into the shared chunks.
    let manifest = work.path("s1/.cases/112-04.json");
    let original = fs::read(&manifest).unwrap();
    let mut truncated: serde_json::Value = serde_json::from_slice(&original).unwrap();
    truncated["values"].as_array_mut().unwrap().pop();
    fs::write(&manifest, truncated.to_string()).unwrap();
    let refused = vis_command(work.folder(), "finalize s1").assert().code(65);
    let error = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(error.contains("112-04") && error.contains("--force"), "{error}");
    fs::write(&manifest, original).unwrap();
    for store in ["s1", "s2", "s3"] {
        let printed = run_vis(work.folder(), &format!("finalize {store}"));
        assert!(
            printed.contains("1 case with months missing: polygons 112 (month 4)"),
            "{printed}"
        );
        run_vis(work.folder(), &format!("check {store}"));
    }
    let efficiency = floats(&work.path("s1/DOR_efficiency/0.0.1"));
    let known = |month: usize| efficiency[month * 690 + 112] != FILL;
    assert!((0..12).all(known) && !(12..180).any(known));
    let uptake = floats(&work.path("s3/FG_CO2_percent_cumulative/0.0.1.0"));
    assert!(uptake.iter().all(|v| *v == FILL));
    // Of the second year, the first month is missing and the second is not.
    for (month, expected) in [(0, [true, false]), (1, [true, true]), (2, [true, false])] {
        let chunk = floats(&work.path(&format!("s2/0/PH/112.1.1.{month}.0.0.0")));
        let has = |year: usize| chunk[year * 128 * 128..][..128 * 128].iter().any(|v| *v != FILL);
        assert_eq!([has(0), has(1)], expected, "month {month}");
    }
    // Months in the stores are kept when their raw files are gone.
    fs::remove_file(work.raw(3)).unwrap();
    for populate in [
        format!("populate-store1 -o s1 {CASE}"),
        format!("populate-store2 -o s2 {CASE} --grid grid.nc"),
    ] {
        let refused = vis_command(work.folder(), &populate).assert().code(65);
        let error = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(error.contains("gone: 0347-07") && error.contains("--force"), "{error}");
        run_vis(work.folder(), &format!("{populate} --force"));
    }
}

#[test]
fn concurrent_killed_and_repeated_fills_give_the_same_bytes() {
    let work = workspace(26);
    // A second case.
    add_polygon_113(&work);
    let fill = |store: &str, polygons: &str| {
        format!(
            "populate-store2 -o {store} -p {polygons} -m 4 --data-dir archive --allow-missing \
             --grid grid.nc --ssh ssh.nc"
        )
    };
    for store in ["one", "both", "killed"] {
        run_vis(work.folder(), &format!("create-template-store2 -o {store}"));
    }
    run_vis(work.folder(), &fill("one", "112 113"));
    let expected = work.tree("one");
    assert!(expected.len() > 1200);

    let start = |store: &str, polygons: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dor"));
        command.env_clear().env("HOME", work.folder()).current_dir(work.folder());
        command.arg("vis").args(fill(store, polygons).split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let both = [start("both", "112"), start("both", "113")];
    for mut process in both {
        assert!(process.wait().unwrap().success());
    }
    assert_same(&expected, &work.tree("both"));

    let mut process = start("killed", "112");
    let began = Instant::now();
    while !work.path("killed/1/PH").join("112.0.1.2.0.0.0").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no chunk is written");
        std::thread::sleep(Duration::from_millis(2));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!work.path("killed/.cases/112-04.json").exists());
    run_vis(work.folder(), &fill("killed", "112 113"));
    run_vis(work.folder(), "check killed");
    // `finalize` removes what the killed process left.
    for store in ["one", "killed"] {
        run_vis(work.folder(), &format!("finalize {store}"));
    }
    let finished = work.tree("one");
    assert_same(&finished, &work.tree("killed"));

    let printed = run_vis(work.folder(), &fill("one", "112 113"));
    assert_eq!(printed.matches("done before").count(), 2, "{printed}");
    assert_same(&finished, &work.tree("one"));
}

#[test]
fn a_weights_store_is_written_once_and_gives_the_same_maps() {
    let work = workspace(2);
    for store in ["a", "b", "c"] {
        run_vis(work.folder(), &format!("create-template-store2 -o {store} {SURFACE}"));
    }
    let fill = |store: &str| format!("populate-store2 -o {store} {CASE} --grid grid.nc");
    run_vis(work.folder(), &fill("a"));
    run_vis(work.folder(), &(fill("b") + " --weights-store w"));
    let written = work.tree("w");
    assert!(written.contains_key("1/S/0") && written.contains_key(".zmetadata"));
    // This time the weights are read, not written.
    run_vis(work.folder(), &(fill("c") + " --weights-store w"));
    assert_same(&written, &work.tree("w"));
    assert_same(&work.tree("a"), &work.tree("b"));
    assert_same(&work.tree("a"), &work.tree("c"));
}

#[test]
fn check_finds_wrong_chunks_manifests_and_metadata() {
    let work = workspace(1);
    run_vis(work.folder(), &format!("create-template-store2 -o s2 {SURFACE}"));
    run_vis(work.folder(), &format!("populate-store2 -o s2 {CASE} --grid grid.nc"));
    run_vis(work.folder(), "check s2");
    let chunk = work.path("s2/1/PH/112.0.1.3.0.1.0");
    let nan = vec![f32::NAN; 15 * 128 * 128];
    let raw: Vec<u8> = nan.iter().flat_map(|v| v.to_le_bytes()).collect();
    let zlib = |raw: &[u8]| {
        use std::io::Write;
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(raw).unwrap();
        out.finish().unwrap()
    };
    let good = fs::read(&chunk).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (bytes, problem) in [
        (flipped, "damaged"),
        (good[..good.len() - 9].to_vec(), "damaged"),
        ([&good[..], b"more"].concat(), "SHA-256 differs"),
        (zlib(&raw[4..]), "full chunk shape"),
        (zlib(&raw), "NaN"),
    ] {
        fs::write(&chunk, bytes).unwrap();
        let found = vis_command(work.folder(), "check s2").assert().code(65);
        let printed = String::from_utf8_lossy(&found.get_output().stdout).into_owned();
        assert!(printed.contains("1/PH/112.0.1.3.0.1.0") && printed.contains(problem), "{printed}");
    }
    fs::remove_file(&chunk).unwrap();
    let report = json(&mut vis_command(work.folder(), "check s2 --json"));
    assert_eq!(report["chunks"]["problems"].as_array().unwrap().len(), 1);
    fs::write(&chunk, &good).unwrap();
    let stray = work.path("s2/0/PH/5.0.0.0.0.0.0");
    fs::write(&stray, &good).unwrap();
    let report = json(&mut vis_command(work.folder(), "check s2 --json"));
    let problem = report["records"]["problems"][0].as_str().unwrap().to_owned();
    assert!(
        problem.starts_with("polygons 5 (month 1) have values and no case manifest"),
        "{problem}"
    );
    fs::remove_file(stray).unwrap();
    // `finalize` writes missing consolidated metadata again.
    let consolidated = fs::read(work.path("s2/.zmetadata")).unwrap();
    fs::remove_file(work.path("s2/.zmetadata")).unwrap();
    let report = json(&mut vis_command(work.folder(), "check s2 --json"));
    assert_eq!(report["metadata"]["problems"][0], ".zmetadata is missing");
    run_vis(work.folder(), "finalize s2");
    assert_eq!(fs::read(work.path("s2/.zmetadata")).unwrap(), consolidated);
    fs::write(work.path("s2/0/year/0"), zlib(&[0; 60])).unwrap();
    let report = json(&mut vis_command(work.folder(), "check s2 --json"));
    assert!(report["coordinates"]["problems"][0].as_str().unwrap().contains("0/year/0"));
    vis_command(work.folder(), "check s2 --complete").assert().code(65);
}

#[test]
fn a_store_in_a_bucket_has_the_bytes_of_one_on_disk() {
    let work = workspace(2);
    let server = S3Server::start();
    for store in ["s2".to_owned(), format!("s3://{BUCKET}/s2")] {
        for command in [
            format!("create-template-store2 -o {store} {SURFACE}"),
            format!("populate-store2 -o {store} {CASE} --grid grid.nc"),
            format!("finalize {store}"),
            format!("check {store}"),
        ] {
            vis_command(work.folder(), &command).envs(server.variables()).assert().success();
        }
    }
    // The test server keeps metadata of objects in hidden files beside them.
    let mut bucket = tree(&server.bucket_folder().join("s2"));
    bucket.retain(|name, _| !name.contains(".internal.json") && !name.contains(".bucket-"));
    assert_same(&work.tree("s2"), &bucket);
}

#[test]
fn a_sharded_store_can_be_filled_checked_and_filled_again() {
    let work = workspace(2);
    run_vis(work.folder(), "create-template-store2 -o v3 --zarr-format 3");
    run_vis(work.folder(), &format!("populate-store2 -o v3 {CASE} --grid grid.nc --ssh ssh.nc"));
    run_vis(work.folder(), "finalize v3");
    let printed = run_vis(work.folder(), "check v3");
    assert!(printed.contains("1 of 2760"), "{printed}");
    assert!(work.path("v3/1/DIC/c/112/0/1/0/0/0/0").exists());
    let root: Value =
        serde_json::from_slice(&fs::read(work.path("v3/zarr.json")).unwrap()).unwrap();
    let array = &root["consolidated_metadata"]["metadata"]["1/DIC"];
    assert_eq!(array["fill_value"], 9.969_209_968_386_869e36);
    assert_eq!(array["dimension_names"][2], "injection_date");
    // A shard that is written again has the same bytes.
    let before = work.tree("v3");
    let again = format!("populate-store2 -o v3 {CASE} --grid grid.nc --ssh ssh.nc --force");
    run_vis(work.folder(), &again);
    assert_same(&before, &work.tree("v3"));
}

#[test]
fn plots_are_drawn_of_maps_and_curves() {
    let work = workspace(14);
    for store in ["1", "2"] {
        run_vis(work.folder(), &format!("create-template-store{store} -o s{store}"));
    }
    run_vis(work.folder(), "create-template-store2 -o v3 --zarr-format 3");
    run_vis(work.folder(), &format!("populate-store1 -o s1 {CASE}"));
    for store in ["s2", "v3"] {
        run_vis(
            work.folder(),
            &format!("populate-store2 -o {store} {CASE} --grid grid.nc --ssh ssh.nc"),
        );
    }
    run_vis(work.folder(), "finalize s1");
    let map = "--variable DIC --step 13 -p 112 -m 4";
    run_vis(work.folder(), &format!("plot s2 {map} -o map.png"));
    run_vis(work.folder(), &format!("plot v3 {map} -o v3.png"));
    run_vis(work.folder(), &format!("plot s2 {map} --band experimental -o experimental.png"));
    run_vis(work.folder(), "plot s1 --series -p 112 -m 4 -o curves.png");
    let plot = |name: &str| fs::read(work.path(name)).unwrap();
    for name in ["map.png", "experimental.png", "curves.png"] {
        assert!(plot(name).starts_with(b"\x89PNG") && plot(name).len() > 10_000, "{name}");
    }
    assert_eq!(plot("map.png"), plot("v3.png"));
    assert_ne!(plot("map.png"), plot("experimental.png"));
    for (command, words) in [
        ("plot s2 --variable DIC --step 100 -p 112 -m 4 -o x.png", "fill"),
        ("plot s2 --variable DIC --step 1 -p 113 -m 4 -o x.png", "not in it"),
        ("plot s1 --variable DIC --step 1 -p 112 -m 4 -o x.png", "--series"),
        ("plot s2 --series -p 112 -m 4 -o x.png", "--series"),
        ("plot s1 --series -p 113 -m 4 -o x.png", "no values of case"),
    ] {
        let refused = vis_command(work.folder(), command).assert().failure();
        let error = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        assert!(error.contains(words) && !work.path("x.png").exists(), "{error}");
    }
}
