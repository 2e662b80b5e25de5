//! Map stores from raw files with other units or packed values: the values are the same, or the file is
//! refused.

use std::path::Path;

use netcdf::AttributeValue;
use netcdf::types::{FloatType, NcVariableType};

use super::super::support::case::Workspace;
use super::super::support::dor::{dor, fails};
use super::super::support::netcdf::{Contents, Form, INT, contents, copy, put_all};
use super::support::{floats, run_vis, vis_command};

const BAD_DATA: i32 = 65;
const CASE: &str = "-p 112 -m 4 --data-dir archive --allow-missing";
const DOUBLE: NcVariableType = NcVariableType::Float(FloatType::F64);

/// A month of a case, and a template of each store.
fn workspace() -> Workspace {
    let work = Workspace::empty(b"");
    let mut raw = dor(work.folder());
    raw.args(["demo", "raw", ".", "--case", "112-04", "--shape", "8x9x3", "--ssh"]);
    raw.args(["--months", "1"]).assert().success();
    for store in ["1", "2", "3"] {
        run_vis(work.folder(), &format!("create-template-store{store} -o s{store}"));
    }
    work
}

/// The commands that fill the stores, without the choice of the case.
const STORES: [&str; 3] = [
    "populate-store1 -o s1",
    "populate-store2 -o s2 --grid grid.nc --ssh ssh.nc",
    "populate-store3 -o s3 --grid grid.nc --centers centers.csv",
];

/// Sets an attribute of variable `name`, or removes it.
fn set_attribute(file: &mut Contents, name: &str, attribute: &str, value: Option<AttributeValue>) {
    let variable = file.variables.get_mut(name).unwrap();
    variable.attributes.retain(|(other, _)| other != attribute);
    variable.attributes.extend(value.map(|value| (attribute.to_owned(), value)));
}

/// All values as doubles; fill values are unchanged.
fn doubles(file: &Contents, name: &str) -> Vec<f64> {
    let variable = &file.variables[name];
    match variable.dtype == DOUBLE {
        true => variable.doubles(),
        false => {
            let floats = variable.bytes.as_chunks::<4>().0.iter();
            floats.map(|b| f64::from(f32::from_ne_bytes(*b))).collect()
        }
    }
}

/// Converts a variable to doubles in other units.
fn convert_units(file: &mut Contents, name: &str, units: &str, factor: f64) {
    const FILL: f64 = -1e34;
    let values = doubles(file, name).into_iter().map(|v| if v > 1e30 { FILL } else { v * factor });
    let bytes = values.flat_map(f64::to_ne_bytes).collect();
    let variable = file.variables.get_mut(name).unwrap();
    (variable.dtype, variable.bytes) = (DOUBLE, bytes);
    for fill in ["_FillValue", "missing_value"] {
        set_attribute(file, name, fill, Some(AttributeValue::Double(FILL)));
    }
    set_attribute(file, name, "units", Some(AttributeValue::Str(units.to_owned())));
}

/// Writes a file again, with changed contents and extended by `more`.
fn rewrite(
    path: &Path,
    change: impl FnOnce(&mut Contents),
    more: impl FnOnce(&mut netcdf::FileMut),
) {
    let mut file = contents(path);
    change(&mut file);
    copy(&file, path, Form::Cdf2, true, more);
}

/// Fills all three stores.
#[track_caller]
fn fill_stores(work: &Workspace) {
    for store in STORES {
        run_vis(work.folder(), &format!("{store} {CASE}"));
    }
}

/// The values of each chunk of store 2 and of the case manifests of stores 1 and 3.
fn stored_values(work: &Workspace) -> Vec<(String, Vec<f32>)> {
    let chunks = work.tree("s2").into_keys().filter(|key| key.contains("/112."));
    let mut all: Vec<_> =
        chunks.map(|key| (key.clone(), floats(&work.path("s2").join(key)))).collect();
    for store in ["s1", "s3"] {
        let manifest = std::fs::read(work.path(&format!("{store}/.cases/112-04.json"))).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let rows = manifest["values"].as_array().unwrap().iter();
        let values = rows.flat_map(|row| row.as_array().unwrap());
        let values = values.map(|v| v.as_f64().map_or(f32::NAN, |v| v as f32));
        all.push((store.to_owned(), values.collect()));
    }
    all
}

#[test]
fn other_units_and_packed_values_give_the_same_values_in_the_stores() {
    let (reference, other) = (workspace(), workspace());
    fill_stores(&reference);
    let change = |raw: &mut Contents| {
        for name in ["DIC", "DIC_ALT_CO2"] {
            convert_units(raw, name, "mol m-3", 1e-3);
        }
        for name in ["FG_CO2", "FG_ALT_CO2", "DIC_FLUX"] {
            convert_units(raw, name, "mol/m^2/yr", 1e-5 * 31_536_000.0);
        }
        for name in ["pCO2SURF", "pCO2SURF_ALT_CO2"] {
            convert_units(raw, name, "1", 1e-6);
        }
        convert_units(raw, "dz", "m", 1e-2);
        convert_units(raw, "TAREA", "m2", 1e-4);
        raw.order.retain(|name| !["PH", "PH_ALT_CO2", "KMT"].contains(&name.as_str()));
    };
    let raw = contents(&other.raw(0));
    rewrite(&other.raw(0), change, |file| {
        file.redef().unwrap();
        for name in ["PH", "PH_ALT_CO2"] {
            let mut ph =
                file.add_variable_with_type(name, &["time", "nlat", "nlon"], &INT).unwrap();
            ph.put_attribute("_FillValue", -1_i32).unwrap();
            ph.put_attribute("missing_value", vec![-1_i32, -2]).unwrap();
            ph.put_attribute("scale_factor", 1e-8).unwrap();
            ph.put_attribute("add_offset", 7.0).unwrap();
        }
        let mut kmt = file.add_variable_with_type("KMT", &["nlat", "nlon"], &INT).unwrap();
        kmt.put_attribute("_FillValue", -1_i32).unwrap();
        file.enddef().unwrap();
        for name in ["PH", "PH_ALT_CO2"] {
            let packed = doubles(&raw, name).into_iter().enumerate().map(|(n, v)| match v < 1e30 {
                true => ((v - 7.0) * 1e8).round() as i32,
                false => -1 - (n % 2) as i32,
            });
            let packed: Vec<i32> = packed.collect();
            put_all(&mut file.variable_mut(name).unwrap(), &packed, &[1, 8, 9]);
        }
        let kmt = doubles(&raw, "KMT").into_iter().map(|v| if v < 1e30 { v as i32 } else { -1 });
        let kmt: Vec<i32> = kmt.collect();
        put_all(&mut file.variable_mut("KMT").unwrap(), &kmt, &[8, 9]);
    });
    rewrite(&other.path("ssh.nc"), |ssh| convert_units(ssh, "SSH", "meters", 1e-2), |_| {});
    fill_stores(&other);
    let (expected, found) = (stored_values(&reference), stored_values(&other));
    assert!(expected.len() > 10);
    for ((key, expected), (name, found)) in expected.iter().zip(&found) {
        assert_eq!((key, expected.len()), (name, found.len()));
        for (expected, found) in expected.iter().zip(found) {
            // Packing rounds pH to eight decimals.
            let tolerance =
                (expected.abs() * 1e-6).max(if key.contains("PH") { 3e-8 } else { 0.0 });
            let is_same = expected.is_nan() && found.is_nan();
            assert!(
                is_same || (expected - found).abs() <= tolerance,
                "{key}: {found} for {expected}"
            );
        }
    }
}

#[test]
fn missing_or_wrong_units_are_refused() {
    let of = |units: &str| Some(AttributeValue::Str(units.to_owned()));
    for (store, name, units) in [
        (1, "DIC", of("umol/kg")),
        (1, "PH", of("mol/L")),
        (1, "pCO2SURF", of("Pa")),
        (1, "dz", None),
        (0, "FG_CO2", None),
        (0, "DIC_FLUX", of("mol")),
        (2, "FG_ALT_CO2", of("kg/m^2/s")),
        (2, "TAREA", of("m")),
    ] {
        let work = workspace();
        rewrite(&work.raw(0), |raw| set_attribute(raw, name, "units", units), |_| {});
        let error =
            fails(&mut vis_command(work.folder(), &format!("{} {CASE}", STORES[store])), BAD_DATA);
        for word in ["0347-04.nc", &format!("`{name}:units`"), "is expected"] {
            assert!(error.contains(word), "`{word}` is missing in: {error}");
        }
        assert!(!work.path(&format!("s{}/.cases/112-04.json", store + 1)).exists());
    }
}

#[test]
fn layers_without_a_positive_thickness_are_refused() {
    for wrong in [0.0, -1000.0, f32::INFINITY] {
        let work = workspace();
        let change = |raw: &mut Contents| {
            let dz = raw.variables.get_mut("dz").unwrap();
            dz.bytes[4..8].copy_from_slice(&wrong.to_ne_bytes());
        };
        rewrite(&work.raw(0), change, |_| {});
        let error =
            fails(&mut vis_command(work.folder(), &format!("{} {CASE}", STORES[1])), BAD_DATA);
        for word in ["0347-04.nc", "(dz)", "not a positive length"] {
            assert!(error.contains(word), "`{word}` is missing in: {error}");
        }
        assert!(!work.path("s2/.cases/112-04.json").exists());
    }
}

#[test]
fn a_file_whose_title_names_another_case_is_refused() {
    let work = workspace();
    let other = "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_113_1999-04-01_00453.001";
    let title = |raw: &mut Contents| {
        raw.attributes.retain(|(name, _)| name != "title");
        raw.attributes.push(("title".to_owned(), AttributeValue::Str(other.to_owned())));
    };
    rewrite(&work.raw(0), title, |_| {});
    for store in STORES {
        let error = fails(&mut vis_command(work.folder(), &format!("{store} {CASE}")), BAD_DATA);
        assert!(error.contains(other) && error.contains("112"), "{error}");
    }
}

#[test]
fn invalid_latitudes_and_longitudes_are_refused_without_a_grid_file_too() {
    let map_ocean = |raw: &mut Contents, names: &[&str], with: fn(f64) -> f64| {
        for name in names {
            let values = doubles(raw, name).into_iter().map(|v| if v > 1e30 { v } else { with(v) });
            let bytes = values.flat_map(f64::to_ne_bytes).collect();
            raw.variables.get_mut(*name).unwrap().bytes = bytes;
        }
    };
    let units = |raw: &mut Contents, name: &str, units: &str| {
        set_attribute(raw, name, "units", Some(AttributeValue::Str(units.to_owned())));
    };
    let swapped = |raw: &mut Contents| {
        let [lat, lon] = ["TLAT", "TLONG"].map(|name| raw.variables[name].bytes.clone());
        raw.variables.get_mut("TLAT").unwrap().bytes = lon;
        raw.variables.get_mut("TLONG").unwrap().bytes = lat;
    };
    type Change<'a> = &'a dyn Fn(&mut Contents);
    let changes: [(Change<'_>, &str); 5] = [
        (&|raw| map_ocean(raw, &["TLAT"], |v| v * 3.0), "outside -90 to 90 degrees"),
        (&|raw| map_ocean(raw, &["TLAT", "TLONG"], f64::to_radians), "look like radians"),
        (&swapped, "`TLAT` is "),
        (
            &|raw| {
                swapped(raw);
                units(raw, "TLAT", "degrees_east");
                units(raw, "TLONG", "degrees_north");
            },
            "`TLAT:units` is `degrees_east` where a unit of degrees_north is expected",
        ),
        (&|raw| units(raw, "TLONG", "degrees_north"), "`TLONG:units` is `degrees_north`"),
    ];
    for (change, expected) in changes {
        let work = workspace();
        rewrite(&work.raw(0), change, |_| {});
        for (store, populate) in ["s2", "s3"].iter().zip(&STORES[1..]) {
            let populate = populate.replace("--grid grid.nc ", "");
            let error =
                fails(&mut vis_command(work.folder(), &format!("{populate} {CASE}")), BAD_DATA);
            assert!(
                error.contains("0347-04.nc") && error.contains(expected),
                "{expected} in: {error}"
            );
            assert!(!work.path(&format!("{store}/.cases/112-04.json")).exists());
        }
    }
    // With --reference-compat, the maps are made from the U points.
    let work = workspace();
    rewrite(&work.raw(0), |raw| map_ocean(raw, &["ULAT"], |v| v * 3.0), |_| {});
    let populate = format!("populate-store2 -o s2 --reference-compat --ssh ssh.nc {CASE}");
    let error = fails(&mut vis_command(work.folder(), &populate), BAD_DATA);
    assert!(error.contains("`ULAT` is ") && error.contains("outside -90 to 90"), "{error}");
}
