//! CF metadata of raw files that other tools have rewritten: packing, fill values, units, times, names
//! and texts are interpreted, or the file is refused.

use std::ffi::CString;
use std::fs;
use std::path::Path;

use dor_atlas::synthetic::SyntheticCase;
use dor_atlas::synthetic::netcdf3::{FileHeader, Value};
use netcdf::AttributeValue;
use netcdf::types::{IntType, NcVariableType};

use super::support::case::{TINY, Workspace, case, set_age};
use super::support::dor::fails;
use super::support::netcdf::{Contents, Form, SHORT, contents, copy, put_all};

const BAD_DATA: i32 = 65;

/// A workspace of one month that netCDF-C wrote again in `form`, changed by `change` and `more`.
fn rewritten(
    form: Form,
    change: impl FnOnce(&mut Contents),
    more: impl FnOnce(&mut netcdf::FileMut),
) -> Workspace {
    let work = Workspace::new(1);
    let mut raw = contents(&work.raw(0));
    change(&mut raw);
    copy(&raw, &work.raw(0), form, true, more);
    set_age(&work.raw(0), 0);
    work
}

/// A workspace of one month in CDF-2 whose contents are changed.
fn with_contents(change: impl FnOnce(&mut Contents)) -> Workspace {
    rewritten(Form::Cdf2, change, |_| {})
}

/// A workspace of one month whose header is changed, also in ways that netCDF-C does not write.
fn with_header(change: impl FnOnce(&mut FileHeader)) -> Workspace {
    let (synthetic, work) = (SyntheticCase::new(case(), TINY, 1), Workspace::new(1));
    let mut header = synthetic.header();
    change(&mut header);
    let mut bytes = Vec::new();
    synthetic.write_month_as(&header, case().first_month(), &mut bytes).unwrap();
    fs::write(work.raw(0), bytes).unwrap();
    set_age(&work.raw(0), 0);
    work
}

/// Sets an attribute of variable `name`, or removes it.
fn set_attribute(file: &mut Contents, name: &str, attribute: &str, value: Option<AttributeValue>) {
    let variable = file.variables.get_mut(name).unwrap();
    variable.attributes.retain(|(other, _)| other != attribute);
    variable.attributes.extend(value.map(|value| (attribute.to_owned(), value)));
}

/// The value of a text attribute.
fn text(text: &str) -> Option<AttributeValue> {
    Some(AttributeValue::Str(text.to_owned()))
}

/// Replaces each value of a variable by `with(value)`.
fn map_values(file: &mut Contents, name: &str, with: impl Fn(f64) -> f64) {
    let variable = file.variables.get_mut(name).unwrap();
    let values = variable.doubles().into_iter().map(with);
    variable.bytes = values.flat_map(f64::to_ne_bytes).collect();
}

/// Asserts exit code 65, all `words` in the message, and no output.
#[track_caller]
fn assert_refused(work: &Workspace, words: &[&str]) {
    let error = fails(&mut work.process(&[]), BAD_DATA);
    for word in words {
        assert!(error.contains(word), "`{word}` is missing in: {error}");
    }
    assert!(work.tree("out").is_empty(), "something was written");
}

/// Converts the month; returns the output file and the messages on standard error.
#[track_caller]
fn convert(work: &Workspace) -> (Contents, String) {
    let output = work.process(&[]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    (contents(&work.output(0)), stderr)
}

/// Values of a variable of the output for an unchanged month.
fn reference_values(name: &str) -> Vec<f64> {
    convert(&Workspace::new(1)).0.variables[name].doubles()
}

#[test]
fn area_is_converted_to_square_metres_from_any_area_unit() {
    let expected = reference_values("area_m2");
    for (units, factor) in [("m^2", 1e-4), ("km2", 1e-10), ("cm**2", 1.0), ("centimeters^2", 1.0)] {
        let work = with_contents(|raw| {
            map_values(raw, "TAREA", |area| if area < 1e30 { area * factor } else { area });
            set_attribute(raw, "TAREA", "units", text(units));
        });
        let out = convert(&work).0;
        let area = &out.variables["area_m2"];
        assert_eq!(area.text("units"), "m^2");
        for (found, expected) in area.doubles().into_iter().zip(&expected) {
            assert!((found / expected - 1.0).abs() < 1e-12, "{units}: {found} for {expected}");
        }
    }
    for units in [text("m"), text("acres"), text(""), None] {
        let work = with_contents(|raw| set_attribute(raw, "TAREA", "units", units));
        assert_refused(&work, &["0347-04.nc", "`TAREA:units`", "a unit of m^2 is expected"]);
    }
}

#[test]
fn packed_variables_stay_packed_and_are_unpacked_for_computations() {
    let expected = reference_values("area_m2");
    let largest = expected.iter().copied().filter(|area| *area < 1e30).fold(0.0, f64::max);
    let step = largest * 1e4 / 30_000.0;
    let packed = |file: &mut netcdf::FileMut| {
        file.redef().unwrap();
        for (name, dims, units) in
            [("TAREA", &["nlat", "nlon"][..], "cm^2"), ("PH", &["time", "nlat", "nlon"], "1")]
        {
            let mut variable = file.add_variable_with_type(name, dims, &SHORT).unwrap();
            variable.put_attribute("_FillValue", -1_i16).unwrap();
            variable.put_attribute("scale_factor", step).unwrap();
            variable.put_attribute("units", units).unwrap();
        }
        file.enddef().unwrap();
        let area = |area: &f64| if *area > 1e30 { -1 } else { (area * 1e4 / step).round() as i16 };
        let area: Vec<i16> = expected.iter().map(area).collect();
        put_all(&mut file.variable_mut("TAREA").unwrap(), &area, &[8, 9]);
        put_all(&mut file.variable_mut("PH").unwrap(), &[7_i16; 72], &[1, 8, 9]);
    };
    let without = |raw: &mut Contents| raw.order.retain(|name| name != "TAREA" && name != "PH");
    let out = convert(&rewritten(Form::Cdf2, without, packed)).0;
    let area = &out.variables["area_m2"];
    assert_eq!(area.attribute("scale_factor"), None);
    for (found, expected) in area.doubles().into_iter().zip(&expected) {
        let is_near = (found - expected).abs() <= step * 1e-4;
        assert!(if *expected > 1e30 { found.is_nan() } else { is_near }, "{found} {expected}");
    }
    let ph = &out.variables["PH"];
    assert_eq!((&ph.dtype, ph.bytes.clone()), (&SHORT, [7_i16; 72].map(i16::to_ne_bytes).concat()));
    assert_eq!(ph.attribute("scale_factor"), Some(&AttributeValue::Double(step)));
    let no_number = with_contents(|raw| set_attribute(raw, "TAREA", "scale_factor", text("0.1")));
    assert_refused(&no_number, &["`TAREA:scale_factor` is `0.1`", "one number"]);
}

#[test]
fn a_fill_value_of_another_type_is_cast_or_the_file_is_refused() {
    let fill = |value: f64| {
        with_header(|header| {
            let dic = header.variables.iter_mut().find(|v| v.name == "DIC").unwrap();
            dic.attributes.retain(|(name, _)| name != "_FillValue");
            dic.attributes.push(("_FillValue".to_owned(), Value::Double(value)));
        })
    };
    let out = convert(&fill(-999.0)).0;
    let found = out.variables["DIC"].attribute("_FillValue");
    assert_eq!(found, Some(&AttributeValue::Float(-999.0)));
    assert_refused(&fill(9.96921e36), &["`DIC:_FillValue`", "own type, f4"]);
}

#[test]
fn reserved_attributes_of_netcdf_hdf5_and_nczarr_are_left_out() {
    let work = with_header(|header| {
        let text = |name: &str| (name.to_owned(), Value::Text("IMAGE".to_owned()));
        header.attributes.extend([text("_NCProperties"), text("_nc3_strict"), text("CLASS")]);
        let dic = header.variables.iter_mut().find(|v| v.name == "DIC").unwrap();
        dic.attributes.extend(["CLASS", "NAME", "DIMENSION_LIST", "_Netcdf4Dimid"].map(text));
        let of_zarr = ["_ARRAY_DIMENSIONS", "_nczarr_array", "_nczarr_attr", "_nczarr_group"];
        dic.attributes.extend(of_zarr.map(text));
        header.attributes.extend(["_ARRAY_DIMENSIONS", "_nczarr_superblock"].map(text));
    });
    let (out, stderr) = convert(&work);
    assert_eq!(stderr.matches("only the NetCDF library may write").count(), 1, "{stderr}");
    assert_eq!(out.variables["DIC"].text("units"), "mmol/m^3");
    for name in ["CLASS", "_ARRAY_DIMENSIONS", "_nczarr_array"] {
        assert_eq!(out.variables["DIC"].attribute(name), None, "{name}");
    }
    assert_eq!(out.attribute("_ARRAY_DIMENSIONS"), None);
    let work = with_header(|header| {
        header.attributes.push(("-name".to_owned(), Value::Float(1.0)));
    });
    assert_refused(&work, &["\"-name\"", "begins with a letter"]);
}

/// Sets a text attribute to any bytes, valid UTF-8 or not.
fn put_bytes(path: &Path, variable: &str, attribute: &str, bytes: &[u8]) {
    let [path, variable, attribute] =
        [path.to_str().unwrap(), variable, attribute].map(|text| CString::new(text).unwrap());
    let (mut file, mut id) = (0, 0);
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: the lock is held, the texts end in NUL, the bytes are valid for their length.
    unsafe {
        assert_eq!(netcdf_sys::nc_open(path.as_ptr(), netcdf_sys::NC_WRITE, &mut file), 0);
        assert_eq!(netcdf_sys::nc_inq_varid(file, variable.as_ptr(), &mut id), 0);
        netcdf_sys::nc_redef(file);
        let text = bytes.as_ptr().cast();
        let put = netcdf_sys::nc_put_att_text(file, id, attribute.as_ptr(), bytes.len(), text);
        assert_eq!(put, 0);
        assert_eq!(netcdf_sys::nc_close(file), 0);
    }
}

#[test]
fn text_in_latin_1_is_written_as_utf_8_from_every_format() {
    for form in [Form::Cdf2, Form::Cdf5, Form::Deflated(1)] {
        let work = rewritten(form, |_| {}, |_| {});
        // Edits a copy: a process that another test starts may have inherited the HDF5 lock of the raw file.
        let other = work.path("other.nc");
        fs::copy(work.raw(0), &other).unwrap();
        put_bytes(&other, "DIC", "comment", b"temp \xb0C, \xc3\xa9t\xe9");
        put_bytes(&other, "PH", "comment", "in \u{b0}C".as_bytes());
        fs::copy(&other, work.raw(0)).unwrap();
        set_age(&work.raw(0), 0);
        let (out, stderr) = convert(&work);
        assert_eq!(out.variables["DIC"].text("comment"), "temp °C, été", "{form:?}");
        assert_eq!(out.variables["PH"].text("comment"), "in °C");
        let last = out.variables["DIC"].attributes.last().map(|(name, _)| name.as_str());
        assert_eq!(last, Some("comment"));
        assert_eq!(stderr.matches("Latin-1").count(), 1, "{stderr}");
    }
}

/// All bytes of a text attribute. The `netcdf` crate cuts them at the first NUL.
fn bytes_of(path: &Path, variable: &str, attribute: &str) -> Vec<u8> {
    let [path, variable, attribute] =
        [path.to_str().unwrap(), variable, attribute].map(|text| CString::new(text).unwrap());
    let (mut file, mut id, mut len) = (0, 0, 0);
    let _lock = netcdf_sys::libnetcdf_lock.lock();
    // SAFETY: the lock is held, the texts end in NUL, the buffer is as long as the attribute.
    unsafe {
        assert_eq!(netcdf_sys::nc_open(path.as_ptr(), netcdf_sys::NC_NOWRITE, &mut file), 0);
        assert_eq!(netcdf_sys::nc_inq_varid(file, variable.as_ptr(), &mut id), 0);
        assert_eq!(netcdf_sys::nc_inq_attlen(file, id, attribute.as_ptr(), &mut len), 0);
        let mut bytes = vec![0_u8; len];
        let room = bytes.as_mut_ptr().cast();
        assert_eq!(netcdf_sys::nc_get_att_text(file, id, attribute.as_ptr(), room), 0);
        assert_eq!(netcdf_sys::nc_close(file), 0);
        bytes
    }
}

#[test]
fn text_after_a_nul_is_kept_from_every_format() {
    for form in [Form::Cdf2, Form::Cdf5, Form::Deflated(1)] {
        let work = rewritten(form, |_| {}, |_| {});
        let other = work.path("other.nc");
        fs::copy(work.raw(0), &other).unwrap();
        put_bytes(&other, "DIC", "comment", b"one\0two\0");
        put_bytes(&other, "PH", "comment", b"\xb0C\0\xe9t\xe9");
        fs::copy(&other, work.raw(0)).unwrap();
        set_age(&work.raw(0), 0);
        convert(&work);
        let out = |variable: &str| bytes_of(&work.output(0), variable, "comment");
        assert_eq!(out("DIC"), b"one\0two", "{form:?}");
        assert_eq!(out("PH"), "°C\0été".as_bytes(), "{form:?}");
    }
}

#[test]
fn unsigned_integers_and_string_arrays_keep_their_types() {
    let strings = ["one", "", "drei µ"].map(str::to_owned).to_vec();
    let values = [
        ("texts", AttributeValue::Strs(strings)),
        ("one_text", AttributeValue::Strs(vec!["alone".to_owned()])),
        ("bytes", AttributeValue::Uchars(vec![0, 255])),
        ("shorts", AttributeValue::Ushort(65_535)),
        ("ints", AttributeValue::Uint(4_294_967_295)),
        ("longs", AttributeValue::Ulonglong(u64::MAX)),
        ("signed", AttributeValue::Longlong(i64::MIN)),
    ];
    let added = values.clone();
    let kinds = [IntType::U8, IntType::U16, IntType::U32, IntType::U64];
    let work = rewritten(
        Form::Deflated(1),
        |_| {},
        |file| {
            file.redef().unwrap();
            for (name, value) in added {
                file.variable_mut("DIC").unwrap().put_attribute(name, value).unwrap();
            }
            for (n, kind) in kinds.into_iter().enumerate() {
                let (name, kind) = (format!("count_{n}"), NcVariableType::Int(kind));
                file.add_variable_with_type(&name, &["time", "nlat"], &kind).unwrap();
            }
            file.enddef().unwrap();
            for n in 0..kinds.len() {
                let mut target = file.variable_mut(&format!("count_{n}")).unwrap();
                put_all(&mut target, &[1_u8, 2, 3, 4, 5, 6, 7, 255], &[1, 8]);
            }
        },
    );
    let raw = contents(&work.raw(0));
    let out = convert(&work).0;
    for (name, value) in &values {
        assert_eq!(out.variables["DIC"].attribute(name), Some(value), "{name}");
    }
    for n in 0..kinds.len() {
        let [before, after] = [&raw, &out].map(|file| &file.variables[&format!("count_{n}")]);
        assert_eq!((&before.dtype, &before.bytes), (&after.dtype, &after.bytes));
    }
}

#[test]
fn time_units_and_calendars_are_read_in_every_spelling() {
    let expected = reference_values("time");
    let assert_times_read_from = |units: &str, calendar: &str, scale: fn(f64) -> f64| {
        let work = with_contents(|raw| {
            for name in ["time", "time_bound"] {
                set_attribute(raw, name, "units", text(units));
                map_values(raw, name, scale);
            }
            set_attribute(raw, "time", "calendar", text(calendar));
        });
        let out = convert(&work).0;
        assert_eq!(out.variables["time"].doubles(), expected, "{units}");
        let kept = out.variables["time"].text("units").to_owned();
        assert!(kept.starts_with("days since 0"), "{kept}");
    };
    assert_times_read_from("days since 0-1-1 00:00:00", "NOLEAP", |days| days);
    assert_times_read_from("days since 0000-01-01 00:00:00.0", "365_day", |days| days);
    assert_times_read_from("hours since 0000-01-01", "noleap", |days| days * 24.0);
    assert_times_read_from("days since 1850-01-01", "NoLeap", |days| days - 1850.0 * 365.0);
    assert_times_read_from("seconds since 0001-01-01T00:00:00Z", "noleap", |days| {
        (days - 365.0) * 86_400.0
    });
    let named = with_contents(|raw| {
        let bounds = raw.variables.remove("time_bound").unwrap();
        raw.variables.insert("time_bnds".to_owned(), bounds);
        raw.order.iter_mut().filter(|n| *n == "time_bound").for_each(|n| *n = "time_bnds".into());
        set_attribute(raw, "time", "bounds", text("time_bnds"));
    });
    let out = convert(&named).0;
    assert_eq!(out.variables["time"].doubles(), expected);
    assert!(!out.variables.contains_key("time_bnds"));
    for (name, value) in [
        ("calendar", "gregorian"),
        ("calendar", "360_day"),
        ("units", "months since 0000-01-01"),
        ("units", "days since 1900-01-01"),
    ] {
        let work = with_contents(|raw| set_attribute(raw, "time", name, text(value)));
        assert_refused(&work, &["0347-04.nc", &format!("`time:{name}`"), value]);
    }
    for name in ["calendar", "units", "bounds"] {
        let work =
            with_contents(|raw| set_attribute(raw, "time", name, Some(AttributeValue::Int(5))));
        assert_refused(
            &work,
            &["0347-04.nc", &format!("`time:{name}` is 5 where one text is expected")],
        );
    }
}

#[test]
fn a_file_with_no_time_or_two_times_is_refused() {
    let none = with_header(|header| header.records = 0);
    assert_refused(&none, &["has no record"]);
    let two = with_header(|header| header.records = 2);
    assert_refused(&two, &["has 2 times where a monthly file has one"]);
}

#[test]
fn a_title_that_names_another_case_is_refused() {
    let title = |title: &str| {
        with_contents(|raw| {
            raw.attributes.retain(|(name, _)| name != "title");
            raw.attributes.push(("title".to_owned(), AttributeValue::Str(title.to_owned())));
        })
    };
    let other = "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_113_1999-04-01_00453.001";
    assert_refused(&title(other), &["0347-04.nc", "folder of case smyle", "00449", other]);
    assert_refused(&title(&format!("{other}.pop.h.0347-04")), &[other]);
    convert(&title("a run of POP2"));
    convert(&title(&format!("{} ", case())));
}

#[test]
fn a_variable_whose_first_dimension_is_not_time_is_refused() {
    let turned = |raw: &mut Contents| raw.variables.get_mut("PH").unwrap().dims.rotate_left(1);
    let work = rewritten(Form::Deflated(1), turned, |_| {});
    assert_refused(&work, &["`PH` on (nlat, nlon, time)", "ncpdq"]);
}

#[test]
fn invalid_latitudes_and_longitudes_are_refused_without_a_grid_file_too() {
    let assert_refused = |change: &dyn Fn(&mut Contents), in_header: bool, words: &[&str]| {
        let work = with_contents(|raw| change(raw));
        let run = |more: &[&str]| {
            let mut run = work.process_case(&["112-04", "-d", "archive", "-o", "out"]);
            run.arg("--allow-missing").args(more);
            run
        };
        if in_header {
            let error = fails(&mut run(&["--dry-run"]), BAD_DATA);
            assert!(words.iter().all(|word| error.contains(word)), "{words:?} in: {error}");
        }
        let error = fails(&mut run(&[]), BAD_DATA);
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} in: {error}");
        assert!(!work.output(0).exists());
    };
    let map_ocean = |raw: &mut Contents, names: &[&str], with: fn(f64) -> f64| {
        names.iter().for_each(|name| map_values(raw, name, |v| if v > 1e30 { v } else { with(v) }));
    };
    for (lat, lon) in [("TLAT", "TLONG"), ("ULAT", "ULONG")] {
        let is_latitude = format!("`{lat}` is ");
        let out_of_range = |raw: &mut Contents| map_ocean(raw, &[lat], |v| v * 3.0);
        assert_refused(
            &out_of_range,
            false,
            &["0347-04.nc", &is_latitude, "outside -90 to 90 degrees"],
        );
        let out_of_range = |raw: &mut Contents| map_ocean(raw, &[lon], |v| v + 360e6);
        assert_refused(&out_of_range, false, &["outside -720 to 720 degrees"]);
        let radians = |raw: &mut Contents| map_ocean(raw, &[lat, lon], f64::to_radians);
        assert_refused(&radians, false, &[&format!("`{lat}` and `{lon}` look like radians")]);
        let none = |raw: &mut Contents| map_ocean(raw, &[lat], |_| 9.969_209_968_386_869e36);
        assert_refused(&none, false, &["0347-04.nc", &format!("`{lat}` ")]);
        for (name, units) in [(lat, "degrees_east"), (lon, "degrees_north"), (lat, "radians")] {
            let other = |raw: &mut Contents| set_attribute(raw, name, "units", text(units));
            assert_refused(&other, true, &["0347-04.nc", &format!("`{name}:units` is `{units}`")]);
        }
    }
}

#[test]
fn longitudes_are_converted_to_the_range_of_the_model() {
    let expected = reference_values("TLONG");
    for shift in [-360.0, 360.0] {
        let work = with_contents(|raw| {
            map_values(raw, "TLONG", |lon| if lon < 1e30 { lon + shift } else { lon })
        });
        assert_eq!(convert(&work).0.variables["TLONG"].doubles(), expected);
        let work = Workspace::new(1);
        let mut grid = contents(&work.path("grid.nc"));
        map_values(&mut grid, "TLONG", |lon| lon + shift);
        copy(&grid, &work.path("grid.nc"), Form::Cdf2, false, |_| {});
        for (found, expected) in convert(&work).0.variables["TLONG"].doubles().iter().zip(&expected)
        {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }
}
