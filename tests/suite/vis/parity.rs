//! The three map stores of the mini case compared with results of the reference workflow, under both
//! recipes, and the weights compared with those of ESMF.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use dor_atlas::model::Grid;
use dor_atlas::read::{ByteSource, RangeReader, SourceError};
use dor_atlas::regrid::bilinear::bilinear;
use flate2::read::GzDecoder;
use ndarray::{Array1, Array4};
use ndarray_npy::NpzReader;

use super::super::support::shared::{shared, unpacked};
use super::support::{FILL, floats, run_vis};

const VARIABLES: [&str; 5] = ["DIC_SURF", "DIC", "PH", "FG", "pCO2SURF"];
const TILE: usize = 128;

/// A column of `series.csv`, 180 months.
fn expected_series(folder: &Path, column: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(folder.join("mini-expected/series.csv")).unwrap();
    let mut lines = text.lines();
    let at = lines.next().unwrap().split(',').position(|name| name == column).unwrap();
    lines.map(|line| line.split(',').nth(at).unwrap().parse().unwrap()).collect()
}

/// The values of polygon 112 in the chunk of April: `columns` values for each of 180 months.
fn series(path: &Path, columns: usize) -> Vec<Vec<f64>> {
    let chunk = floats(path);
    assert_eq!(chunk.len(), 180 * 690 * columns);
    let row = |month: usize| &chunk[(month * 690 + 112) * columns..][..columns];
    (0..180).map(|month| row(month).iter().map(|&v| v.into()).collect()).collect()
}

/// Creates, fills, finalizes and checks all three stores.
fn make_stores(folder: &Path, input: &str, more: &str) {
    let input = format!("-p 112 -m 4 {input} --grid mini-case/grid.nc");
    run_vis(folder, "create-template-store1 -o s1");
    run_vis(folder, "create-template-store2 -o s2");
    run_vis(folder, "create-template-store3 -o s3");
    run_vis(folder, &format!("populate-store2 -o s2 {input} --ssh mini-case/ssh.nc {more}"));
    let centers = "--centers mini-case/centers.csv --with-store1 s1";
    run_vis(folder, &format!("populate-store3 -o s3 {input} {centers} {more}"));
    for store in ["s1", "s2", "s3"] {
        run_vis(folder, &format!("finalize {store}"));
        run_vis(folder, &format!("check {store}"));
    }
}

/// Asserts efficiency within 1e-6 (relative) and uptake within 1e-4 percent of the expected series.
fn assert_series(folder: &Path, prefix: &str) {
    let efficiency = series(&folder.join("s1/DOR_efficiency/0.0.1"), 1);
    let expected = expected_series(folder, "DOR_efficiency");
    for (month, (found, expected)) in efficiency.iter().zip(expected).enumerate() {
        assert!((found[0] / expected - 1.0).abs() < 1e-6, "efficiency of month {month}");
    }
    let uptake = series(&folder.join("s3/FG_CO2_percent_cumulative/0.0.1.0"), 3);
    for (n, radius) in ["500", "1000", "2000"].iter().enumerate() {
        let expected = expected_series(folder, &format!("{prefix}{radius}"));
        for (month, (found, expected)) in uptake.iter().zip(expected).enumerate() {
            assert!((found[n] - expected).abs() < 1e-4, "uptake in {radius} km, month {month}");
        }
    }
}

/// A map of store 2, assembled from its tiles.
fn read_map(folder: &Path, variable: &str, level: usize, step: usize, band: usize) -> Vec<f32> {
    let tiles = 1 << level;
    let size = tiles * TILE;
    let mut map = vec![0.0; size * size];
    for tile in 0..tiles * tiles {
        let (row, column) = (tile / tiles, tile % tiles);
        let key = format!("s2/{level}/{variable}/112.{band}.1.{}.0.{row}.{column}", step % 12);
        let chunk = floats(&folder.join(key));
        assert_eq!(chunk.len(), 15 * TILE * TILE);
        for y in 0..TILE {
            let from = &chunk[(step / 12 * TILE + y) * TILE..][..TILE];
            map[(row * TILE + y) * size + column * TILE..][..TILE].copy_from_slice(from);
        }
    }
    map
}

/// Asserts fill values and rounding differences of the maps against those in `archive`.
fn assert_maps(folder: &Path, archive: &str) {
    let file = File::open(folder.join("mini-expected").join(archive)).unwrap();
    let mut archive = NpzReader::new(file).unwrap();
    for level in [0, 1] {
        let steps: Array1<i64> = archive.by_name(&format!("steps_{level}")).unwrap();
        for variable in VARIABLES {
            let all: Array4<f32> = archive.by_name(&format!("{variable}_{level}")).unwrap();
            for (n, &step) in steps.iter().enumerate() {
                for band in [0, 1] {
                    let found = read_map(folder, variable, level, step as usize, band);
                    let expected = all.index_axis(ndarray::Axis(0), n);
                    let columns = expected.index_axis(ndarray::Axis(0), 1);
                    let expected = expected.index_axis(ndarray::Axis(0), band);
                    for ((found, expected), column) in found.iter().zip(expected).zip(columns) {
                        let position = || format!("{variable}_{level}, step {step}, band {band}");
                        assert_eq!(*found == FILL, expected.is_nan(), "fill of {}", position());
                        let difference = (f64::from(*found) - f64::from(*expected)).abs();
                        let allowed = match (variable, band) {
                            _ if expected.is_nan() => continue,
                            ("DIC", 0) => 3e-7 * f64::from(column.abs()),
                            _ => 1e-6 * f64::from(expected.abs()),
                        };
                        assert!(difference <= allowed, "{found} {expected} in {}", position());
                    }
                }
            }
        }
    }
}

#[test]
fn the_default_recipe_gives_the_defined_values() {
    let Some(data) = shared("parity of the map stores") else { return };
    let folder = unpacked(&data);
    make_stores(folder.path(), "--data-dir mini-case/archive", "");
    assert_series(folder.path(), "uptake_");
    assert_maps(folder.path(), "pyramid.npz");
}

#[test]
fn reference_compat_gives_the_values_of_the_reference() {
    let Some(data) = shared("parity with the reference's defects") else { return };
    let folder = unpacked(&data);
    make_stores(folder.path(), "--data-dir mini-case/archive", "--reference-compat");
    assert_series(folder.path(), "reference_uptake_");
    assert_maps(folder.path(), "pyramid-reference.npz");
}

#[test]
fn research_grade_files_give_the_same_stores() {
    let Some(data) = shared("the map stores from research-grade files") else { return };
    let folder = unpacked(&data);
    let mut convert = super::super::support::dor::dor(folder.path());
    convert.args(["research-data", "process-case", "112-04", "-d", "mini-case/archive"]);
    convert.args(["-o", "research", "--grid", "mini-case/grid.nc"]).assert().success();
    make_stores(folder.path(), "--input-dir research", "");
    assert_series(folder.path(), "uptake_");
    assert_maps(folder.path(), "pyramid.npz");
}

/// A file in memory.
struct Memory(Vec<u8>);

impl ByteSource for Memory {
    fn url(&self) -> &str {
        "gx1v7-t-grid.nc"
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn next(&mut self) -> Result<Option<bytes::Bytes>, SourceError> {
        Ok(None)
    }

    fn range(&mut self, range: std::ops::Range<u64>) -> Result<bytes::Bytes, SourceError> {
        Ok(self.0[range.start as usize..range.end as usize].to_vec().into())
    }
}

#[test]
fn weights_equal_those_of_esmf() {
    let Some(data) = shared("the weights of ESMF") else { return };
    let bytes = std::fs::read(data.join("gx1v7-t-grid.nc")).unwrap();
    let file = RangeReader::open(Box::new(Memory(bytes))).unwrap();
    let [nlat, nlon] = [0, 1].map(|n| file.header().variable("TLAT").unwrap().dims[n].len);
    let [tlat, tlong] = ["TLAT", "TLONG"].map(|name| file.values(name).unwrap());
    let weights = bilinear(&Grid { nlat, nlon, tlat, tlong }, 0);
    let ours: HashMap<usize, HashMap<usize, f64>> = weights
        .iter()
        .map(|(at, source)| {
            let mut of = HashMap::new();
            for (index, weight) in source.index.iter().zip(source.weight) {
                *of.entry(*index as usize).or_insert(0.0) += weight;
            }
            (at, of)
        })
        .collect();
    let mut text = String::new();
    let packed = File::open(data.join("weights-level0-sample.csv.gz")).unwrap();
    GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let mut targets = std::collections::HashSet::new();
    for line in text.lines().skip(1) {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        let [row, col, j, i, weight] = cells[..] else { panic!("{line}") };
        let target = (row * 128.0 + col) as usize;
        let own = ours[&target].get(&((j * nlon as f64 + i) as usize)).copied().unwrap_or(0.0);
        assert!((own - weight).abs() < 1e-7, "{line}: {own}");
        targets.insert(target);
    }
    assert_eq!(targets.len(), 3000);
}
