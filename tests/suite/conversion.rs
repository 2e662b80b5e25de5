//! Conversion of raw files to research-grade files; both are read through netCDF-C and compared.

use std::fs;
use std::path::Path;

use dor_atlas::model::Md5Digest;
use dor_atlas::synthetic::{ClassicFormat, Shape, SyntheticCase};
use netcdf::AttributeValue;
use netcdf::types::{FloatType, NcVariableType};

use super::support::case::{TINY, Workspace, assert_same, case, output_key, set_age};
use super::support::netcdf::{
    BYTE, Char, Contents, Form, INT, SHORT, Variable, contents, copy, put_all,
};
use super::support::s3::{BUCKET, S3Server};

const CASE_DIMS: [&str; 3] = ["polygon_id", "intervention_date", "elapsed_time"];

/// Asserts that a research-grade file has the values and the layout that follow from its raw file.
#[track_caller]
fn assert_research_grade(raw: &Contents, out: &Contents, grid: Option<&Contents>) {
    for name in raw.order.iter().filter(|name| *name != "time_bound") {
        let (before, after) = (&raw.variables[name], &out.variables[name]);
        let of_case = before.dim_names().first() == Some(&"time") && name != "time";
        match name.as_str() {
            "time" => {
                assert_eq!(after.dim_names(), ["elapsed_time"]);
                assert_eq!(after.dtype, NcVariableType::Float(FloatType::F64));
                let bounds = raw.variables["time_bound"].doubles();
                assert_eq!(after.doubles(), [(bounds[0] + bounds[1]) / 2.0]);
                assert_eq!(after.attribute("bounds"), None, "time_bound is not in the output");
                continue;
            }
            "TLAT" | "TLONG" if grid.is_some() => {
                assert_eq!(after.doubles(), grid.unwrap().variables[name].doubles(), "{name}");
            }
            "KMT" => {
                let kmt = before.doubles().into_iter();
                let filled: Vec<_> = kmt.map(|k| if k > 1e30 { 0.0 } else { k }).collect();
                assert_eq!(after.doubles(), filled);
                assert!(filled.contains(&0.0));
            }
            _ => assert!(before.bytes == after.bytes, "the values of {name} differ"),
        }
        assert_eq!(before.dtype, after.dtype, "{name}");
        assert_eq!(before.attributes, after.attributes, "{name}");
        if of_case {
            assert_eq!(after.dim_names()[..3], CASE_DIMS, "{name}");
            assert_eq!(after.dims[3..], before.dims[1..], "{name}");
            assert_eq!(after.shape()[..3], [1, 1, 1]);
        } else {
            assert_eq!(before.dims, after.dims, "{name}");
        }
    }
    for (name, variable) in &out.variables {
        let compressed = variable.is_float() && !variable.dims.is_empty();
        let expected = compressed.then(|| variable.shape());
        assert_eq!(variable.chunk, expected, "{name}");
        let filters = if compressed { (true, Some(4)) } else { (false, None) };
        assert_eq!(variable.filters, filters, "{name}");
    }
    assert!(out.dims.iter().all(|(_, _, unlimited)| !unlimited), "{:?}", out.dims);
    assert_added(raw, out);
}

/// Asserts the variables and global attributes that a conversion adds.
#[track_caller]
fn assert_added(raw: &Contents, out: &Contents) {
    let bounds = raw.variables["time_bound"].doubles();
    let days = bounds[0] - case().first_month().first_day() as f64;
    let integer = |name: &str| match out.variables[name].bytes.as_slice() {
        bytes if bytes.len() == 8 => i64::from_ne_bytes(bytes.try_into().unwrap()),
        bytes => i64::from(i32::from_ne_bytes(bytes.try_into().unwrap())),
    };
    assert_eq!((integer("polygon_id"), out.variables["polygon_id"].bytes.len()), (112, 4));
    assert_eq!(integer("intervention_date"), 0);
    let date = out.variables["intervention_date"].text("units");
    assert!(date.starts_with("days since 1999-04-01"), "{date}");
    assert_eq!(out.variables["intervention_date"].text("calendar"), "noleap");
    assert_eq!(integer("elapsed_time"), days as i64);
    let length = &out.variables["time_delta"];
    assert_eq!(
        (length.doubles(), length.dim_names()),
        (vec![bounds[1] - bounds[0]], vec!["elapsed_time"])
    );
    assert_eq!(length.text("units"), "days");
    let areas = raw.variables["TAREA"].doubles().into_iter();
    let square_metres: Vec<_> = areas.map(|a| if a > 1e30 { a } else { a * 1e-4 }).collect();
    assert_eq!(out.variables["area_m2"].doubles(), square_metres);
    assert_eq!(out.variables["area_m2"].text("units"), "m^2");
    assert!(!out.variables.contains_key("time_bound"));
    let added = ["area_m2", "elapsed_time", "intervention_date", "polygon_id", "time_delta"];
    assert_eq!(out.order.len(), raw.order.len() - 1 + added.len());

    for (name, value) in raw.attributes.iter().filter(|(name, _)| name != "history") {
        assert_eq!(out.attribute(name), Some(value), "{name}");
    }
    let text = |name: &str| match out.attribute(name) {
        Some(AttributeValue::Str(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert!(text("source_file").ends_with(".nc"));
    assert!(text("history").starts_with("2023-11-14T22:13:20Z dor "), "{}", text("history"));
    assert!(text("converted_by").starts_with(concat!("dor ", env!("CARGO_PKG_VERSION"))));
    for name in ["TLAT", "time", "area_m2", "grav", "time_delta"] {
        let named = |list: &str| list.split(' ').any(|n| n == name);
        let by_a_variable = out.variables.values().any(|v| {
            matches!(v.attribute("coordinates"), Some(AttributeValue::Str(list)) if named(list))
        });
        assert!(
            named(&text("coordinates")) != by_a_variable,
            "{name} is in `coordinates` of the file or of a variable, not of both"
        );
    }
}

fn sha256(path: &Path) -> String {
    use sha2::Digest;
    dor_atlas::model::hex(&sha2::Sha256::digest(fs::read(path).unwrap()))
}

/// Asserts that the n-th month is converted, with the grid file and the checksum of its raw file.
#[track_caller]
fn assert_converted(work: &Workspace, n: usize) {
    let out = contents(&work.output(n));
    let raw = contents(&work.raw(n));
    assert_research_grade(&raw, &out, Some(&contents(&work.path("grid.nc"))));
    let digest = AttributeValue::Str(sha256(&work.raw(n)));
    assert_eq!(out.attribute("source_sha256"), Some(&digest));
}

#[test]
fn values_of_every_classic_format_are_unchanged() {
    for format in [ClassicFormat::Cdf1, ClassicFormat::Cdf2, ClassicFormat::Cdf5] {
        let work = Workspace::of(&SyntheticCase::new(case(), TINY, 1).with_format(format), 2);
        work.convert();
        assert_converted(&work, 0);
        assert_converted(&work, 1);
        assert_eq!(work.tree("out").len(), 3, "two files and the case manifest");
    }
}

/// Converts the first month, stored in `form` and extended by `more`; returns raw file and output.
fn convert_as(
    form: Form,
    record: bool,
    more: impl FnOnce(&mut netcdf::FileMut),
) -> (Contents, Contents) {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let work = Workspace::of(&synthetic, 1);
    let plain = contents(&work.raw(0));
    copy(&plain, &work.raw(0), form, record, more);
    set_age(&work.raw(0), 0);
    let raw = contents(&work.raw(0));
    work.convert();
    assert_converted(&work, 0);
    (raw, contents(&work.output(0)))
}

#[test]
fn values_of_files_that_netcdf_c_wrote_are_unchanged() {
    for form in [Form::Cdf1, Form::Cdf2, Form::Cdf5, Form::Deflated(1), Form::Deflated(9)] {
        for record in [true, false] {
            convert_as(form, record, |_| {});
        }
    }
    convert_as(Form::Contiguous, false, |_| {});
}

/// Adds variables of every type of the classic formats, with shapes that other POP runs have.
fn add_variables_of_every_type(file: &mut netcdf::FileMut) {
    file.redef().unwrap();
    file.add_dimension("n", 5).unwrap();
    file.add_dimension("width", 256).unwrap();
    file.add_dimension("z_odd", 3).unwrap();
    file.add_dimension("one", 1).unwrap();
    let double = NcVariableType::Float(FloatType::F64);
    let float = NcVariableType::Float(FloatType::F32);
    let char = NcVariableType::Char;
    for (name, dims, dtype) in [
        ("transport_components", &["n", "width"][..], &char),
        ("basin_index", &["n"], &INT),
        ("flags", &["n"], &BYTE),
        ("moc_like", &["time", "n", "z_odd", "nlat"], &float),
        ("precise", &["time", "z_t", "nlat", "nlon"], &double),
        ("counts", &["time", "nlat", "nlon"], &INT),
        ("short_counts", &["time", "n"], &SHORT),
        ("notes", &["time", "n"], &char),
        ("global_mean", &["time"], &double),
        ("step", &["time"], &INT),
        ("only_one", &["one"], &float),
        ("number", &[], &INT),
    ] {
        let mut variable = file.add_variable_with_type(name, dims, dtype).unwrap();
        variable.put_attribute("long_name", name).unwrap();
    }
    file.enddef().unwrap();
    let mut put = |name: &str| {
        let variable = file.variable(name).unwrap();
        let dtype = variable.vartype();
        let named = variable.dimensions().iter().map(|d| (d.name(), d.len()));
        let shape: Vec<usize> = named.map(|(n, len)| if n == "time" { 1 } else { len }).collect();
        let numbers = 0..shape.iter().product::<usize>();
        let mut target = file.variable_mut(name).unwrap();
        match dtype {
            NcVariableType::Char => {
                let text: Vec<_> = numbers.map(|i| Char(b'a' + (i % 26) as u8)).collect();
                put_all(&mut target, &text, &shape);
            }
            NcVariableType::Float(FloatType::F32) => {
                let value = |i: usize| if i == 3 { f32::NAN } else { i as f32 * 1.1 };
                put_all(&mut target, &numbers.map(value).collect::<Vec<_>>(), &shape);
            }
            NcVariableType::Float(FloatType::F64) => {
                let value = |i: usize| if i == 3 { -0.0 } else { i as f64 / 3.0 };
                put_all(&mut target, &numbers.map(value).collect::<Vec<_>>(), &shape);
            }
            dtype if dtype == SHORT => {
                put_all(&mut target, &numbers.map(|i| -(i as i16)).collect::<Vec<_>>(), &shape);
            }
            dtype if dtype == BYTE => {
                put_all(&mut target, &numbers.map(|i| -(i as i8)).collect::<Vec<_>>(), &shape);
            }
            _ => put_all(
                &mut target,
                &numbers.map(|i| i as i32 - 70_000).collect::<Vec<_>>(),
                &shape,
            ),
        }
    };
    for name in "transport_components basin_index flags moc_like precise counts short_counts notes \
        global_mean step only_one number"
        .split_whitespace()
    {
        put(name);
    }
}

#[test]
fn variables_of_any_type_and_shape_are_converted() {
    for form in [Form::Cdf1, Form::Cdf5, Form::Deflated(4)] {
        let (raw, out) = convert_as(form, true, add_variables_of_every_type);
        let dims = |name: &str| out.variables[name].dim_names().join(" ");
        assert_eq!(dims("transport_components"), "n width", "{form:?}");
        assert_eq!(dims("moc_like"), "polygon_id intervention_date elapsed_time n z_odd nlat");
        assert_eq!(dims("step"), "polygon_id intervention_date elapsed_time");
        assert_eq!(raw.variables["precise"].bytes, out.variables["precise"].bytes);
        assert_ne!(out.variables["notes"].bytes, [0; 5]);
    }
}

#[test]
fn values_of_big_endian_netcdf4_are_unchanged() {
    let work = Workspace::new(1);
    let plain = contents(&work.raw(0));
    copy(&plain, &work.raw(0), Form::Deflated(1), true, |file| {
        file.redef().unwrap();
        let mut variable = file.add_variable::<f32>("big", &["time", "nlat", "nlon"]).unwrap();
        variable.set_endianness(netcdf::Endianness::Big).unwrap();
        let values: Vec<f32> = (0..72).map(|i| i as f32 * 0.7).collect();
        put_all(&mut variable, &values, &[1, 8, 9]);
    });
    set_age(&work.raw(0), 0);
    work.convert();
    assert_converted(&work, 0);
}

#[test]
fn variables_stored_before_time_are_converted() {
    let synthetic = SyntheticCase::new(case(), TINY, 1);
    let work = Workspace::of(&synthetic, 1);
    let mut header = synthetic.header();
    header.variables.reverse();
    let mut bytes = Vec::new();
    synthetic.write_month_as(&header, case().first_month(), &mut bytes).unwrap();
    fs::write(work.raw(0), bytes).unwrap();
    set_age(&work.raw(0), 0);
    work.convert();
    assert_converted(&work, 0);
    assert_eq!(contents(&work.output(0)).order[0], "ALK_FLUX");
}

#[test]
fn output_bytes_do_not_depend_on_workers_part_size_or_order() {
    let synthetic = SyntheticCase::new(case(), Shape { nlat: 12, nlon: 10, nz: 3 }, 1);
    let work = Workspace::of(&synthetic, 5);
    work.convert();
    for (name, workers) in [("one", "1"), ("many", "7")] {
        let mut command =
            work.process_case(&["112-04", "-d", "archive", "-o", name, "--allow-missing"]);
        command.args(["--grid", "grid.nc", "-w", workers]).env("DOR_S3_PART_SIZE", "5242880");
        command.assert().success();
        // The case manifest has the part size, which differs between the runs.
        let mut tree = work.tree(name);
        let manifest = tree.get_mut("112/04/manifest.json").unwrap();
        let text = String::from_utf8(std::mem::take(manifest)).unwrap();
        *manifest =
            text.replace("\"part_size\": 5242880,", "\"part_size\": 16777216,").into_bytes();
        assert!(text.as_bytes() != manifest.as_slice());
        assert_same(&work.tree("out"), &tree);
    }
    // One more month with each run, the last one first.
    for n in 0..5 {
        let (from, to) = (work.raw(n), work.path(&format!("{n}")));
        fs::rename(from, to).unwrap();
    }
    for n in (0..5).rev() {
        fs::rename(work.path(&format!("{n}")), work.raw(n)).unwrap();
        let mut command =
            work.process_case(&["112-04", "-d", "archive", "-o", "slow", "--allow-missing"]);
        command.args(["--grid", "grid.nc"]).assert().success();
    }
    assert_same(&work.tree("out"), &work.tree("slow"));
}

#[test]
fn without_a_grid_file_fill_values_stay_and_a_warning_is_printed() {
    let work = Workspace::new(1);
    let mut command =
        work.process_case(&["112-04", "-d", "archive", "-o", "out", "--allow-missing"]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("WARN") && warning.contains("--grid"), "{warning}");
    let (raw, out) = (contents(&work.raw(0)), contents(&work.output(0)));
    assert_research_grade(&raw, &out, None);
    assert!(out.variables["TLAT"].doubles().iter().any(|lat| *lat > 1e30));
}

#[test]
fn a_multipart_upload_has_the_bytes_of_the_file_on_disk() {
    let server = S3Server::start();
    let synthetic = SyntheticCase::new(case(), Shape { nlat: 200, nlon: 160, nz: 44 }, 1);
    let work = Workspace::of(&synthetic, 1);
    fs::write(work.path("dor.toml"), "[s3]\npart_size = 5242880\n").unwrap();
    work.convert();
    let size = fs::metadata(work.output(0)).unwrap().len();
    assert!(size > 2 * 5_242_880, "{size} bytes make too few parts");
    let manifest = fs::read(work.path("out/112/04/manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let bytes = fs::read(work.output(0)).unwrap();
    let md5: Vec<String> =
        bytes.chunks(5_242_880).map(|part| Md5Digest::of(part).to_string()).collect();
    assert_eq!(manifest["part_size"], 5_242_880);
    let file = &manifest["files"][0];
    assert_eq!((&file["size"], &file["md5"]), (&size.into(), &md5.into()));
    assert_eq!(file["sha256"], sha256(&work.output(0)), "the SHA-256 of the whole file");
    let target = format!("s3://{BUCKET}/out");
    let mut command =
        work.process_case(&["112-04", "-d", "archive", "-o", &target, "--allow-missing"]);
    command.args(["--grid", "grid.nc"]).envs(server.variables()).assert().success();
    let parts = server.requests().iter().filter(|r| r.contains("partNumber=")).count() as u64;
    assert_eq!(parts, size.div_ceil(5_242_880));
    let stored = super::support::case::tree(&server.bucket_folder().join("out"));
    assert_same(&work.tree("out"), &stored);
    assert!(server.unfinished().is_empty());
    assert!(stored.contains_key(&output_key(0)));
    // Raw files and grid file on S3 give the same bytes.
    let mut command = work.process_case(&["112-04", "-o", "again", "--allow-missing", "--grid"]);
    let raw = server.bucket_folder().join("archive");
    let status =
        std::process::Command::new("cp").arg("-a").arg(work.path("archive")).arg(raw).status();
    assert!(status.unwrap().success());
    command.args([&format!("s3://{BUCKET}/grid.nc"), "-d", &format!("s3://{BUCKET}/archive")]);
    fs::copy(work.path("grid.nc"), server.bucket_folder().join("grid.nc")).unwrap();
    command.envs(server.variables()).assert().success();
    let again = work.tree("again").remove(&output_key(0)).unwrap();
    assert!(again == stored[&output_key(0)], "input from S3 gives other bytes");
}

/// Comparisons of [`Variable`] need this: netCDF-C returns the bytes of the file.
#[test]
fn netcdf_c_returns_the_bytes_of_the_file() {
    let work = Workspace::new(1);
    let file = contents(&work.raw(0));
    let Variable { dtype, bytes, .. } = &file.variables["grav"];
    assert_eq!(*dtype, NcVariableType::Float(FloatType::F64));
    assert_eq!(bytes, &980.616f64.to_ne_bytes());
}
