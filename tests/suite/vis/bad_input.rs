//! Inputs that `dor vis` refuses: the message, the exit code, and that the stores stay unchanged.

use std::fs;
use std::io::Write;

use super::super::support::case::{Workspace, assert_same, case};
use super::super::support::dor::{dor, fails};
use super::support::{run_vis, vis_command};

const BAD_DATA: i32 = 65;
const CONFIGURATION: i32 = 78;
const CASE: &str = "-p 112 -m 4 --data-dir archive --allow-missing";

/// Two months of a case, and a template of each store.
fn workspace() -> Workspace {
    let work = Workspace::empty(b"");
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "8x9x3", "--ssh"]);
    raw.args(["--months", "2"]).assert().success();
    for store in ["1", "2", "3"] {
        run_vis(work.folder(), &format!("create-template-store{store} -o s{store}"));
    }
    work
}

/// Asserts exit code `code`, all `words` in the message, and unchanged stores.
#[track_caller]
fn assert_refused(work: &Workspace, command: &str, code: i32, words: &[&str]) {
    let stores = || ["s1", "s2", "s3"].map(|store| work.tree(store));
    let before = stores();
    let error = fails(&mut vis_command(work.folder(), command), code);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    for (before, after) in before.iter().zip(stores()) {
        assert_same(before, &after);
    }
}

#[test]
fn missing_stores_and_stores_of_another_kind_are_refused() {
    let work = workspace();
    assert_refused(
        &work,
        &format!("populate-store1 -o none {CASE}"),
        CONFIGURATION,
        &["none", "create-template-store1"],
    );
    assert_refused(
        &work,
        &format!("populate-store1 -o s3 {CASE}"),
        CONFIGURATION,
        &["is store3, not store1"],
    );
    assert_refused(&work, "check none", CONFIGURATION, &["there is no store"]);
    fs::create_dir(work.path("foreign")).unwrap();
    fs::write(work.path("foreign/.zmetadata"), r#"{"metadata": {"x/.zarray": {}}}"#).unwrap();
    assert_refused(&work, "check foreign", BAD_DATA, &["foreign", "none of the data arrays"]);
    let text = fs::read_to_string(work.path("s2/.zmetadata")).unwrap();
    let other = text.replace("\"zlib\"", "\"blosc\"");
    fs::write(work.path("foreign/.zmetadata"), other).unwrap();
    let populate = format!("populate-store2 -o foreign {CASE} --grid grid.nc --ssh ssh.nc");
    assert_refused(
        &work,
        &populate,
        BAD_DATA,
        &["not a store of this program", "compressor", "blosc"],
    );
    fs::write(work.path("foreign/.zmetadata"), text.replace("9.969209968386869e", "NaN")).unwrap();
    assert_refused(&work, &populate, BAD_DATA, &[".zmetadata is not JSON"]);
}

#[test]
fn recipes_are_not_mixed() {
    let work = workspace();
    let store2 = format!("populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc");
    let store3 = format!("populate-store3 -o s3 {CASE} --grid grid.nc --centers centers.csv");
    run_vis(work.folder(), &format!("{store2} --reference-compat"));
    run_vis(work.folder(), &store3);
    assert_refused(&work, &store2, CONFIGURATION, &["s2", "--reference-compat", "must not mix"]);
    let mixed = format!("{store3} --reference-compat");
    assert_refused(&work, &mixed, CONFIGURATION, &["without the defects", "must not mix"]);
    // A case manifest with another recipe.
    let manifest = work.path("s3/.cases/112-04.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"reference_compat\": false", "\"reference_compat\": true"))
        .unwrap();
    assert_refused(&work, "finalize s3", CONFIGURATION, &["112", "must not mix"]);
    fs::write(&manifest, "{").unwrap();
    assert_refused(&work, "finalize s3", BAD_DATA, &["112-04.json", "populate its case again"]);
}

#[test]
fn grid_and_ssh_files_of_another_shape_are_refused() {
    let work = workspace();
    let mut other = dor(work.folder());
    other.args(["demo", "raw", "other", "--case", "112-04", "--shape", "10x12x3", "--ssh"]);
    other.args(["--months", "1"]).assert().success();
    let with = |more: &str| format!("populate-store2 -o s2 {CASE} {more}");
    assert_refused(
        &work,
        &with("--grid other/grid.nc --ssh ssh.nc"),
        BAD_DATA,
        &["8 x 9 points", "10 x 12", "other/grid.nc"],
    );
    assert_refused(
        &work,
        &with("--grid grid.nc --ssh other/ssh.nc"),
        BAD_DATA,
        &["other/ssh.nc", "10 x 12 points", "8 x 9"],
    );
    assert_refused(&work, &with("--grid grid.nc"), CONFIGURATION, &["--ssh"]);
    assert_refused(&work, &with("--grid grid.nc --ssh none.nc"), CONFIGURATION, &["--ssh none.nc"]);
    assert_refused(&work, &with("--grid grid.nc --ssh grid.nc"), BAD_DATA, &["grid.nc", "SSH"]);
    let with = format!("populate-store3 -o s3 {CASE} --centers centers.csv --grid other/grid.nc");
    assert_refused(&work, &with, BAD_DATA, &["8 x 9 points", "10 x 12"]);
}

#[test]
fn grid_and_ssh_files_with_wrong_values_are_refused() {
    let work = workspace();
    let with =
        |grid: &str, ssh: &str| format!("populate-store2 -o s2 {CASE} --grid {grid} --ssh {ssh}");
    // All T points three degrees farther north.
    fs::copy(work.path("grid.nc"), work.path("moved.nc")).unwrap();
    let mut file = netcdf::append(work.path("moved.nc")).unwrap();
    let mut tlat = file.variable_mut("TLAT").unwrap();
    let moved: Vec<f64> = tlat.get_values::<f64, _>(..).unwrap();
    let moved: Vec<f64> = moved.iter().map(|lat| (lat + 3.0).min(89.9)).collect();
    tlat.put_values(&moved, ..).unwrap();
    drop(file);
    assert_refused(&work, &with("moved.nc", "ssh.nc"), BAD_DATA, &["T point", "--grid"]);
    let spread = format!("populate-store3 -o s3 {CASE} --grid moved.nc --centers centers.csv");
    assert_refused(&work, &spread, BAD_DATA, &["T point", "--grid"]);
    // A weights store without weights.
    let weights =
        format!("populate-store2 -o s2 -m 4 --data-dir archive --weights-store {}", "archive");
    assert_refused(&work, &weights, BAD_DATA, &["archive", "no weights"]);
    for (name, height, word) in
        [("endless.nc", f32::INFINITY, "infinite"), ("empty.nc", f32::NAN, "no heights")]
    {
        fs::copy(work.path("ssh.nc"), work.path(name)).unwrap();
        let mut file = netcdf::append(work.path(name)).unwrap();
        let mut ssh = file.variable_mut("SSH").unwrap();
        let count: usize = ssh.dimensions().iter().map(|d| d.len()).product();
        ssh.put_values(&vec![height; count], ..).unwrap();
        drop(file);
        assert_refused(&work, &with("grid.nc", name), BAD_DATA, &[name, word, "--ssh"]);
    }
    fs::copy(work.path("ssh.nc"), work.path("bars.nc")).unwrap();
    let mut file = netcdf::append(work.path("bars.nc")).unwrap();
    file.variable_mut("SSH").unwrap().put_attribute("units", "bar").unwrap();
    drop(file);
    let words = ["bars.nc", "`SSH:units` is `bar`", "a unit of cm"];
    assert_refused(&work, &with("grid.nc", "bars.nc"), BAD_DATA, &words);
    // Another epoch is read: the file then has other months.
    fs::copy(work.path("ssh.nc"), work.path("later.nc")).unwrap();
    let mut file = netcdf::append(work.path("later.nc")).unwrap();
    let mut time = file.variable_mut("time").unwrap();
    time.put_attribute("units", "days since 1850-01-01").unwrap();
    drop(file);
    assert_refused(
        &work,
        &with("grid.nc", "later.nc"),
        BAD_DATA,
        &["later.nc", "no `SSH` of 0347-04"],
    );
}

#[test]
fn an_ssh_file_with_a_duplicate_month_is_refused() {
    let work = workspace();
    // Day on which April 347 begins, the first month of the case.
    let first = (347 * 365 + 90) as f64;
    for offset in [-1_isize, 1] {
        fs::copy(work.path("ssh.nc"), work.path("twice.nc")).unwrap();
        let mut file = netcdf::append(work.path("twice.nc")).unwrap();
        let bounds = file.variable("time_bound").unwrap().get_values::<f64, _>(..).unwrap();
        let april = bounds.chunks(2).position(|pair| pair[0] == first).unwrap();
        let other = april.checked_add_signed(offset).unwrap();
        for (name, width) in [("time", 1), ("time_bound", 2)] {
            let mut variable = file.variable_mut(name).unwrap();
            let mut values = variable.get_values::<f64, _>(..).unwrap();
            values.copy_within(april * width..(april + 1) * width, other * width);
            variable.put_values(&values, ..).unwrap();
        }
        drop(file);
        let populate = format!("populate-store2 -o s2 {CASE} --grid grid.nc --ssh twice.nc");
        let records = format!("records {} and {}", april.min(other), april.max(other));
        assert_refused(&work, &populate, BAD_DATA, &["twice.nc", &records, "are both 0347-04"]);
    }
}

#[test]
fn centers_levels_and_selections_that_do_not_fit_are_refused() {
    let work = workspace();
    fs::write(work.path("few.csv"), "polygon_id,lon,lat\n7,1,2\n").unwrap();
    let with =
        |centers: &str| format!("populate-store3 -o s3 {CASE} --grid grid.nc --centers {centers}");
    assert_refused(&work, &with("few.csv"), BAD_DATA, &["few.csv", "polygon 112"]);
    assert_refused(&work, &with("none.csv"), CONFIGURATION, &["none.csv", "it is not a file"]);
    assert_refused(&work, &with("grid.nc"), BAD_DATA, &["grid.nc", "--centers"]);
    let levels = format!("populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc --levels 3");
    assert_refused(&work, &levels, CONFIGURATION, &["has 2 levels"]);
    assert_refused(
        &work,
        "populate-store1 -o s1 -p 113 --data-dir archive",
        BAD_DATA,
        &["polygon 113"],
    );
    assert_refused(
        &work,
        "populate-store1 -o s1 -p 113 -m 4 --data-dir archive",
        BAD_DATA,
        &["no raw files of case"],
    );
    assert_refused(&work, "create-template-store2 -o x --variables SALT", 2, &["DIC_SURF"]);
    let reversed = "populate-store2 -o s2 --polygon-range 120 100 --data-dir archive";
    assert_refused(&work, reversed, 2, &["120 100 is empty", "give 100 120"]);
    let picture = "plot s2 --variable PH -p 112 -m 4 --step 0 -o map.jpg";
    assert_refused(&work, picture, 2, &["ends in .png"]);
}

#[test]
fn https_stores_are_refused() {
    let work = workspace();
    let https = "populate-store1 -o https://127.0.0.1:1/s1";
    assert_refused(&work, &format!("{https} {CASE}"), 1, &["127.0.0.1"]);
    assert_refused(
        &work,
        "create-template-store1 -o https://127.0.0.1:1/s1",
        CONFIGURATION,
        &["https"],
    );
}

/// Writes an analysis store of the case with this shape, chunk length and compressor.
fn write_analysis_store(work: &Workspace, shape: u64, chunk: u64, compressor: &str) {
    for array in ["DIC_ADD_TOTAL", "DIC_FLUX"] {
        let folder = work.path(&format!("a/{}.analysis.zarr/{array}", case()));
        fs::create_dir_all(&folder).unwrap();
        let metadata = format!(
            r#"{{"zarr_format": 2, "shape": [{shape}], "chunks": [{chunk}], "dtype": "<f8",
                "compressor": {compressor}, "fill_value": 0.0, "filters": null, "order": "C"}}"#
        );
        fs::write(folder.join(".zarray"), metadata).unwrap();
    }
}

#[test]
fn analysis_arrays_larger_than_expected_are_refused() {
    let work = workspace();
    let populate = "populate-store1 -o s1 -p 112 -m 4 -a a";
    for (shape, chunk) in [(1 << 27, 1 << 20), (1 << 40, 180), (1 << 62, 180), (180, 1 << 40)] {
        write_analysis_store(&work, shape, chunk, "null");
        assert_refused(&work, populate, BAD_DATA, &["DIC_ADD_TOTAL", "shape"]);
    }
    // A chunk of 180 values that decompresses to 64 MiB, with each compressor.
    let zeros = vec![0; 64 << 20];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&zeros).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&zeros).unwrap();
    let zstd = zstd::encode_all(&zeros[..], 1).unwrap();
    for (name, packed) in
        [("gzip", gzip.finish().unwrap()), ("zlib", zlib.finish().unwrap()), ("zstd", zstd)]
    {
        write_analysis_store(&work, 180, 180, &format!(r#"{{"id": "{name}", "level": 1}}"#));
        let chunk = work.path(&format!("a/{}.analysis.zarr/DIC_ADD_TOTAL/0", case()));
        fs::write(&chunk, packed).unwrap();
        assert_refused(&work, populate, BAD_DATA, &["DIC_ADD_TOTAL", "more than its 1440 bytes"]);
    }
}

#[test]
fn a_case_without_intervention_or_with_infinite_ph_is_refused() {
    let work = workspace();
    // The flux of the intervention is 0.
    let path = work.raw(0);
    let file = netcdf::append(&path);
    let mut file = file.unwrap();
    let mut variable = file.variable_mut("DIC_FLUX").unwrap();
    variable.put_values(&[0_f32; 72], ..).unwrap();
    drop(file);
    let populate = format!("populate-store1 -o s1 {CASE}");
    assert_refused(&work, &populate, BAD_DATA, &["no efficiency", "DIC_FLUX"]);
    let mut file = netcdf::append(&path).unwrap();
    file.variable_mut("PH").unwrap().put_value(f32::INFINITY, [0, 4, 4]).unwrap();
    drop(file);
    let populate = format!("populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc");
    let error = fails(&mut vis_command(work.folder(), &populate), BAD_DATA);
    assert!(error.contains("infinite") && error.contains("PH"), "{error}");
    assert!(!work.path("s2/.cases/112-04.json").exists());
}

#[test]
fn infinite_or_missing_fluxes_are_refused() {
    let work = workspace();
    let mut file = netcdf::append(work.raw(0)).unwrap();
    file.variable_mut("FG_CO2").unwrap().put_value(f32::INFINITY, [0, 4, 4]).unwrap();
    drop(file);
    let words = ["infinite", "FG_CO2", "0347-04"];
    assert_refused(&work, &format!("populate-store1 -o s1 {CASE}"), BAD_DATA, &words);
    let spread = format!("populate-store3 -o s3 {CASE} --grid grid.nc --centers centers.csv");
    assert_refused(&work, &spread, BAD_DATA, &words);
    let mut file = netcdf::append(work.raw(0)).unwrap();
    file.variable_mut("FG_CO2").unwrap().put_values(&[f32::NAN; 72], ..).unwrap();
    drop(file);
    assert_refused(&work, &spread, BAD_DATA, &["no value in FG_CO2", "0347-04"]);
}

#[test]
fn months_that_contradict_each_other_are_refused() {
    let work = workspace();
    let populate = [
        format!("populate-store1 -o s1 {CASE}"),
        format!("populate-store3 -o s3 {CASE} --grid grid.nc --centers centers.csv"),
        format!("populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc"),
    ];
    let [first, original] = [0, 1].map(|n| fs::read(work.raw(n)).unwrap());
    let change = |variables: &[&str], change: &dyn Fn(&mut Vec<f32>)| {
        fs::write(work.raw(1), &original).unwrap();
        let mut file = netcdf::append(work.raw(1)).unwrap();
        for name in variables {
            let mut variable = file.variable_mut(name).unwrap();
            let mut values = variable.get_values::<f32, _>(..).unwrap();
            change(&mut values);
            variable.put_values(&values, ..).unwrap();
        }
    };
    let refused = |stores: &[&String], words: &[&str]| {
        for command in stores {
            let error = fails(&mut vis_command(work.folder(), command), BAD_DATA);
            assert!(words.iter().all(|word| error.contains(word)), "{command}: {error}");
        }
        for store in ["s1", "s2", "s3"] {
            assert!(!work.path(&format!("{store}/.cases/112-04.json")).exists());
        }
    };
    let [one, three, maps] = &populate;
    // Half of the ocean has no values in one month, as in a file that was not written to its end.
    let half = |values: &mut Vec<f32>| {
        let half = values.len() / 2;
        values[half..].fill(f32::NAN);
    };
    change(&["FG_CO2", "FG_ALT_CO2"], &half);
    refused(&[one, three, maps], &["values in FG_CO2", "displaced in one of them", "0347-0"]);
    change(&["FG_ALT_CO2"], &half);
    refused(&[one, three, maps], &["FG_ALT_CO2"]);
    fs::write(work.raw(1), &original).unwrap();
    let ssh = fs::read(work.path("ssh.nc")).unwrap();
    let mut file = netcdf::append(work.path("ssh.nc")).unwrap();
    let mut heights = file.variable_mut("SSH").unwrap();
    // May of year 347; the series begins in January of year 306.
    let may = 41 * 12 + 4;
    let mut values = heights.get_values::<f32, _>((may, .., ..)).unwrap();
    half(&mut values);
    heights.put_values(&values, (may, .., ..)).unwrap();
    drop(file);
    refused(&[maps], &["no sea surface height of 0347-05 at points of the ocean"]);
    fs::write(work.path("ssh.nc"), ssh).unwrap();
    change(&["DIC"], &|values| values.fill(f32::NAN));
    refused(&[maps], &["no value in DIC"]);
    change(&["dz"], &|values| values.iter_mut().for_each(|value| *value *= 3.0));
    refused(&[maps], &["other values of dz than"]);
    // Areas are read from the first file.
    fs::write(work.raw(1), &original).unwrap();
    let mut file = netcdf::append(work.raw(0)).unwrap();
    let mut area = file.variable_mut("TAREA").unwrap();
    let len = area.len();
    area.put_values(&vec![f64::NAN; len / 2], (..4, ..)).unwrap();
    drop(file);
    refused(&[one, three], &["no value in TAREA at points with a value in FG_CO2"]);
    let grid = |n: usize, name: &str, change: &dyn Fn(&mut Vec<f64>)| {
        fs::write(work.raw(0), &first).unwrap();
        fs::write(work.raw(1), &original).unwrap();
        let mut file = netcdf::append(work.raw(n)).unwrap();
        let mut variable = file.variable_mut(name).unwrap();
        let mut values = variable.get_values::<f64, _>(..).unwrap();
        change(&mut values);
        variable.put_values(&values, ..).unwrap();
    };
    grid(0, "TAREA", &|values| values[..36].iter_mut().for_each(|area| *area *= 10.0));
    refused(&[one, three], &["other values of TAREA than"]);
    // A month that is stored from north to south.
    grid(1, "TLAT", &|values| values.reverse());
    refused(&[maps], &["other values of TLAT than"]);
    change(&["DIC", "DIC_ALT_CO2"], &|values| values.rotate_right(3));
    refused(&[maps], &["values in DIC", "at other points"]);
}

#[test]
fn a_raw_file_with_unknown_units_does_not_replace_a_filled_case() {
    let work = workspace();
    let populate = format!("populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc");
    run_vis(work.folder(), &populate);
    // The first file has other values, so that its maps would be replaced.
    let mut file = netcdf::append(work.raw(0)).unwrap();
    file.variable_mut("PH").unwrap().put_value(7.5_f32, [0, 4, 4]).unwrap();
    drop(file);
    let mut file = netcdf::append(work.raw(1)).unwrap();
    file.variable_mut("FG_CO2").unwrap().put_attribute("units", "furlong").unwrap();
    drop(file);
    for dry in ["", " --dry-run"] {
        let words = ["0347-05.nc", "FG_CO2", "furlong"];
        assert_refused(&work, &format!("{populate}{dry}"), BAD_DATA, &words);
    }
}

#[test]
fn a_truncated_raw_file_does_not_replace_a_filled_case() {
    let work = workspace();
    let populate = format!("populate-store2 -o s2 {CASE} --grid grid.nc --ssh ssh.nc");
    run_vis(work.folder(), &populate);
    let raw = fs::read(work.raw(1)).unwrap();
    fs::write(work.raw(1), &raw[..raw.len() / 2]).unwrap();
    assert_refused(&work, &populate, BAD_DATA, &["0347-05.nc", "truncated"]);
    fs::write(work.raw(1), &raw).unwrap();
    vis_command(work.folder(), "check s2").assert().success();
}
