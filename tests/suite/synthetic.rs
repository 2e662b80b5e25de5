//! Synthetic cases, read by netCDF-C and `netcdf-reader`, have the structure of raw history.

use dor_atlas::model::{Case, YearMonth};
use dor_atlas::synthetic::netcdf3::{NcType, Value};
use dor_atlas::synthetic::{ClassicFormat, Shape, SyntheticCase};
use netcdf::AttributeValue;
use netcdf_reader::NcFile;

const FILL: f32 = 9.96921e36;

fn case() -> Case {
    "112-04".parse().unwrap()
}

fn first() -> YearMonth {
    case().first_month()
}

fn month_of(case: &SyntheticCase, month: YearMonth) -> Vec<u8> {
    let mut bytes = Vec::new();
    case.write_month(month, &mut bytes).unwrap();
    bytes
}

fn floats(file: &NcFile, name: &str) -> Vec<f32> {
    file.read_variable::<f32>(name).unwrap().into_iter().collect()
}

fn doubles(file: &NcFile, name: &str) -> Vec<f64> {
    file.read_variable::<f64>(name).unwrap().into_iter().collect()
}

/// Opens the file in netCDF-C and calls `look` with it.
fn with_netcdf_c<T>(bytes: &[u8], look: impl FnOnce(&netcdf::File) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.nc");
    std::fs::write(&path, bytes).unwrap();
    look(&netcdf::open(&path).unwrap())
}

#[test]
fn the_header_has_dimensions_variables_and_attributes_of_raw_history() {
    let bytes = month_of(&SyntheticCase::new(case(), Shape::SMALL, 1), first());
    with_netcdf_c(&bytes, |file| {
        let dimensions: Vec<_> = file.dimensions().map(|d| (d.name(), d.len())).collect();
        let expected = [
            ("d2", 2),
            ("time", 1),
            ("z_t", 5),
            ("z_t_150m", 5),
            ("z_w", 5),
            ("z_w_top", 5),
            ("z_w_bot", 5),
            ("nlat", 24),
            ("nlon", 20),
        ];
        assert_eq!(dimensions, expected.map(|(name, length)| (name.to_owned(), length)));
        assert!(file.dimension("time").unwrap().is_unlimited());
        let names: Vec<_> = file.variables().map(|v| v.name()).collect();
        let expected = "time_bound time z_t z_t_150m z_w z_w_top z_w_bot dz dzw ULONG ULAT TLONG \
            TLAT KMT KMU REGION_MASK UAREA TAREA HU HT DXU DYU DXT DYT HTN HTE HUS HUW ANGLE ANGLET \
            days_in_norm_year grav omega radius cp_sw sound vonkar cp_air rho_air rho_sw rho_fw \
            stefan_boltzmann latent_heat_vapor latent_heat_fusion latent_heat_fusion_mks \
            ocn_ref_salinity sea_ice_salinity T0_Kelvin salt_to_ppt ppt_to_salt mass_to_Sv heat_to_PW \
            salt_to_Svppt salt_to_mmday momentum_factor hflux_factor fwflux_factor salinity_factor \
            sflux_factor nsurface_t nsurface_u DIC_ALT_CO2 DIC ALK ALK_ALT_CO2 PH_ALT_CO2 PH \
            pCO2SURF_ALT_CO2 pCO2SURF FG_ALT_CO2 FG_CO2 DIC_FLUX ALK_FLUX";
        assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());

        let text = |s: &str| AttributeValue::Str(s.to_owned());
        let attributes = |name: &str| -> Vec<(String, AttributeValue)> {
            let variable = file.variable(name).unwrap();
            variable.attributes().map(|a| (a.name().to_owned(), a.value().unwrap())).collect()
        };
        let dic = [
            ("_FillValue", AttributeValue::Float(FILL)),
            ("long_name", text("DIC")),
            ("units", text("mmol/m^3")),
            ("coordinates", text("TLONG TLAT z_t time")),
            ("grid_loc", text("3111")),
            ("cell_methods", text("time: mean")),
            ("missing_value", AttributeValue::Float(FILL)),
        ];
        assert_eq!(attributes("DIC"), dic.map(|(name, value)| (name.to_owned(), value)));
        let hus = [
            ("_FillValue", AttributeValue::Double(9.96920996838687e36)),
            ("long_name", text("HUS")),
            ("units", text("centimeters")),
            ("coordinates", text("TLONG TLAT")),
            ("missing_value", AttributeValue::Double(9.96920996838687e36)),
        ];
        assert_eq!(attributes("HUS"), hus.map(|(name, value)| (name.to_owned(), value)));
        let z_w_bot = [
            ("long_name", text("depth from surface to bottom of layer")),
            ("units", text("centimeters")),
            ("positive", text("down")),
            ("valid_min", AttributeValue::Float(1000.0)),
            ("valid_max", AttributeValue::Float(5000.0)),
        ];
        assert_eq!(attributes("z_w_bot"), z_w_bot.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(attributes("FG_CO2")[2].1, text("mmol/m^3 cm/s"));
        let title = file.attribute("title").unwrap().value().unwrap();
        assert_eq!(title, text(&case().to_string()));
        assert_eq!(file.variable("grav").unwrap().get_value::<f64, _>(..).unwrap(), 980.616);
    });
}

#[test]
fn netcdf_c_and_netcdf_reader_return_the_same_values_in_every_format() {
    let mut seen: Vec<Vec<f32>> = Vec::new();
    for format in [ClassicFormat::Cdf1, ClassicFormat::Cdf2, ClassicFormat::Cdf5] {
        let case = SyntheticCase::new(case(), Shape::SMALL, 1).with_format(format);
        let bytes = month_of(&case, first());
        assert_eq!(bytes.len() as u64, case.file_size(), "{format:?}");
        let by_netcdf_reader = NcFile::from_bytes(&bytes).unwrap();
        with_netcdf_c(&bytes, |by_netcdf_c| {
            for variable in by_netcdf_reader.variables().unwrap() {
                let name = variable.name();
                let theirs = by_netcdf_c.variable(name).unwrap().get_values::<f64, _>(..).unwrap();
                let ours = by_netcdf_reader.read_variable_as_f64(name).unwrap();
                assert!(ours.into_iter().eq(theirs), "{format:?} {name}");
            }
        });
        seen.push(floats(&by_netcdf_reader, "DIC"));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn the_bytes_depend_on_seed_and_month_only() {
    let bytes = |seed, month| month_of(&SyntheticCase::new(case(), Shape::SMALL, seed), month);
    assert_eq!(bytes(1, first()), bytes(1, first()));
    assert_ne!(bytes(1, first()), bytes(2, first()));
    assert_ne!(bytes(1, first()), bytes(1, first().plus(12)));
}

#[test]
fn fields_are_fill_exactly_on_land_and_below_the_bottom() {
    let case = SyntheticCase::new(case(), Shape::SMALL, 1).with_3d_fields(13);
    let file = NcFile::from_vec(month_of(&case, first())).unwrap();
    let kmt = doubles(&file, "KMT");
    let eliminated = kmt.iter().filter(|&&k| k > 1e30).count();
    assert!((50..=75).contains(&eliminated), "{eliminated} of 480 points");
    let wet = |n: usize| if kmt[n] > 1e30 { 0 } else { kmt[n] as usize };
    let fields = "DIC DIC_ALT_CO2 ALK ALK_ALT_CO2 CO3 CO3_ALT_CO2 HCO3 H2CO3 pH_3D pH_3D_ALT_CO2 \
        co3_sat_arag co3_sat_calc IAGE FG_CO2 PH pCO2SURF DIC_FLUX";
    for name in fields.split_whitespace() {
        for (place, value) in floats(&file, name).into_iter().enumerate() {
            let (k, n) = (place / 480, place % 480);
            assert_eq!(value == FILL, k >= wet(n), "{name} {k} {n}: {value}");
        }
    }
    for name in ["TLAT", "TLONG", "ULAT", "TAREA", "REGION_MASK", "ANGLE"] {
        let same = doubles(&file, name).iter().zip(&kmt).all(|(a, b)| (*a > 1e30) == (*b > 1e30));
        assert!(same, "{name}");
    }
    let grid = NcFile::from_vec(case.grid_file()).unwrap();
    let (raw, full) = (doubles(&file, "TLAT"), doubles(&grid, "TLAT"));
    assert!(full.iter().all(|lat| lat.abs() <= 90.0));
    assert!(raw.iter().zip(&full).all(|(raw, full)| raw == full || *raw > 1e30));
}

#[test]
fn times_are_the_ends_of_the_months() {
    let case = SyntheticCase::new(case(), Shape::SMALL, 1).with_3d_fields(0);
    assert_eq!(
        case.file_name(first()),
        "smyle.cdr-atlas-v0.glb-dor_North_Atlantic_basin_112_1999-04-01_00449.001.pop.h.0347-04.nc"
    );
    let file = NcFile::from_vec(month_of(&case, first())).unwrap();
    assert_eq!(doubles(&file, "time"), [126_775.0]);
    assert_eq!(doubles(&file, "time_bound"), [126_745.0, 126_775.0]);

    let mut ssh = Vec::new();
    case.write_ssh(&mut ssh).unwrap();
    assert_eq!(ssh.len() as u64, case.ssh_size());
    let file = NcFile::from_vec(ssh).unwrap();
    let time = doubles(&file, "time");
    assert_eq!((time.len(), time[0], time[755]), (756, 111_721.0, 134_685.0));
    assert_eq!(doubles(&file, "time_bound")[..2], [111_690.0, 111_721.0]);
    let height = floats(&file, "SSH");
    assert!(height.iter().all(|h| *h == FILL || (-300.0..0.0).contains(h)));
}

#[test]
fn efficiency_of_the_written_fields_rises_to_between_0_7_and_0_9() {
    for (name, shape) in
        [("112-04", Shape { nlat: 48, nlon: 40, nz: 10 }), ("660-10", Shape::SMALL)]
    {
        let which: Case = name.parse().unwrap();
        let case = SyntheticCase::new(which, shape, 3);
        let (mut added, mut removed, mut last) = (0.0, 0.0, 0.0);
        for month in which.months() {
            let file = NcFile::from_vec(month_of(&case, month)).unwrap();
            let weight = 1e-9 * 1e4 * 86_400.0 * f64::from(month.days());
            let (experiment, control) = (floats(&file, "FG_CO2"), floats(&file, "FG_ALT_CO2"));
            let flux = floats(&file, "DIC_FLUX");
            for (n, area) in doubles(&file, "TAREA").into_iter().enumerate() {
                if flux[n] != FILL {
                    added +=
                        (f64::from(experiment[n]) - f64::from(control[n])) * weight * area * 1e-4;
                    removed += f64::from(flux[n]) * weight * area * 1e-4;
                }
            }
            let efficiency = -added / removed;
            assert!(
                (last - 1e-4..1.0).contains(&efficiency),
                "{name} {month}: {last} {efficiency}"
            );
            if month == which.first_month() {
                assert!((0.0..0.15).contains(&efficiency), "{efficiency}");
                let (experiment, control) = (floats(&file, "DIC"), floats(&file, "DIC_ALT_CO2"));
                let most = experiment.iter().zip(&control).map(|(a, b)| a - b).fold(0.0, f32::min);
                assert!((-60.0..-0.5).contains(&most), "{most}");
                assert_eq!(floats(&file, "ALK"), floats(&file, "ALK_ALT_CO2"));
            }
            last = efficiency;
        }
        assert!((0.7..0.9).contains(&last), "{last}");
    }
}

#[test]
fn only_the_high_byte_planes_of_ocean_values_compress() {
    let shape = Shape { nlat: 96, nlon: 80, nz: 10 };
    let file = NcFile::from_vec(month_of(&SyntheticCase::new(case(), shape, 1), first())).unwrap();
    let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(4).unwrap());
    for name in ["DIC", "ALK"] {
        let values = floats(&file, name);
        let wet: Vec<f32> = values.iter().copied().filter(|v| *v != FILL).collect();
        let mut ratio = |values: &[f32], planes: std::ops::Range<usize>| {
            let shuffled: Vec<u8> =
                planes.flat_map(|p| values.iter().map(move |v| v.to_le_bytes()[p])).collect();
            let mut room = vec![0; compressor.zlib_compress_bound(shuffled.len())];
            let size = compressor.zlib_compress(&shuffled, &mut room).unwrap();
            size as f64 / shuffled.len() as f64
        };
        assert!(ratio(&wet, 0..2) > 0.97, "{name}: the low byte planes compress");
        assert!(ratio(&wet, 2..4) < 0.30, "{name}: the high byte planes do not compress");
        let whole = ratio(&values, 0..4);
        assert!((0.38..0.55).contains(&whole), "{name}: {whole}");
    }
}

#[test]
fn polygon_centers_lie_inside_their_basins() {
    let case = SyntheticCase::new(case(), Shape::SMALL, 1);
    let csv = case.centers_csv();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("polygon_id,lon,lat"));
    let rows: Vec<Vec<f64>> =
        lines.map(|l| l.split(',').map(|x| x.parse().unwrap()).collect()).collect();
    assert_eq!(rows.len(), 690);
    for (id, row) in rows.iter().enumerate() {
        let [polygon, lon, lat] = row[..] else { panic!("{row:?}") };
        assert_eq!(polygon, id as f64);
        assert!((0.0..360.0).contains(&lon));
        let inside = match id {
            0..150 => (0.0..75.0).contains(&lat) && !(20.0..260.0).contains(&lon),
            150..350 => (0.0..66.0).contains(&lat) && (99.0..290.0).contains(&lon),
            350..650 => (-50.0..25.0).contains(&lat),
            _ => (-75.0..-50.0).contains(&lat),
        };
        assert!(inside, "{id} {lon} {lat}");
    }
}

#[test]
fn files_with_a_changed_header_can_be_written() {
    let case = SyntheticCase::new(case(), Shape::SMALL, 1);
    let mut header = case.header();
    header.attributes.push(("note".to_owned(), Value::Double(1.0)));
    header.variables.retain(|v| v.name != "PH");
    for variable in &mut header.variables {
        if variable.name == "DIC_FLUX" {
            variable.name = "DIC_FLUX_OLD".to_owned();
            variable.kind = NcType::Double;
        }
    }
    let mut bytes = Vec::new();
    case.write_month_as(&header, first(), &mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, header.file_size());
    let file = NcFile::from_vec(bytes).unwrap();
    assert!(file.variable("PH").is_err());
    assert!(doubles(&file, "DIC_FLUX_OLD").iter().all(|&v| v == 0.0));
    assert_eq!(floats(&file, "DIC").len(), 5 * 24 * 20);
}
