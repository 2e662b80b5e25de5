//! Benchmarks of the kernels on full-size fields: `cargo bench`.
//!
//! Every kernel's result is checked before it is timed. `docs/benchmarks.md` explains the figures.

#![allow(clippy::expect_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dor_atlas::encode::deflate;
use dor_atlas::encode::shuffle::Shuffler;
use dor_atlas::model::dataset::ByteOrder;
use dor_atlas::read::grid;
use dor_atlas::read::history::History;
use dor_atlas::read::{ByteSource, SourceError};
use dor_atlas::regrid::mercator;
use dor_atlas::synthetic::{Shape, SyntheticCase};
use dor_atlas::vis::weights;
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use md5::Md5;
use sha2::{Digest, Sha256};

/// A file in memory: the bytes that are not yet read, and the length of the whole file.
struct Memory(bytes::Bytes, u64);

impl ByteSource for Memory {
    fn url(&self) -> &str {
        "synthetic"
    }

    fn len(&self) -> u64 {
        self.1
    }

    fn next(&mut self) -> Result<Option<bytes::Bytes>, SourceError> {
        let piece = self.0.split_to(self.0.len().min(4 << 20));
        Ok((!piece.is_empty()).then_some(piece))
    }

    fn range(&mut self, range: std::ops::Range<u64>) -> Result<bytes::Bytes, SourceError> {
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

/// The bytes of DIC of a full-size month, big-endian.
fn field() -> Vec<u8> {
    let case = "112-04".parse().expect("a case");
    let synthetic = SyntheticCase::new(case, Shape::FULL, 1).with_3d_fields(2);
    let mut file = Vec::new();
    synthetic.write_month(case.first_month(), &mut file).expect("memory");
    let len = file.len() as u64;
    let mut history = History::open(Box::new(Memory(file.into(), len))).expect("history");
    let index = history.header().variables.iter().position(|v| v.name == "DIC").expect("DIC");
    let mut field = Vec::new();
    history.read(index, false, |bytes| field.extend_from_slice(bytes)).expect("DIC");
    field
}

/// The byte planes of a field.
fn shuffled(field: &[u8]) -> Vec<u8> {
    let mut shuffler = Shuffler::new(field.len() / 4, 4, ByteOrder::Big);
    shuffler.push(field);
    shuffler.finish().expect("whole")
}

/// The planes compressed by libdeflate at dor's level.
fn libdeflate(planes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::new(deflate::LEVEL).expect("level"));
    let mut out = vec![0; compressor.zlib_compress_bound(planes.len())];
    let len = compressor.zlib_compress(planes, &mut out).expect("bound");
    out.truncate(len);
    out
}

/// Shuffle, deflate and checksums of one field.
fn kernels(criterion: &mut Criterion) {
    let field = field();
    let planes = shuffled(&field);
    for (element, i) in field.chunks_exact(4).zip(0..) {
        assert_eq!([3, 2, 1, 0].map(|k| planes[k * field.len() / 4 + i]), element);
    }
    let ours = deflate::zlib(&planes, 4);
    let mut inflated = vec![0; planes.len()];
    Decompressor::new().zlib_decompress(&ours, &mut inflated).expect("a zlib stream");
    assert!(inflated == planes);
    println!(
        "one field: {} bytes, deflated {} by dor, {} by libdeflate level {}",
        planes.len(),
        ours.len(),
        libdeflate(&planes).len(),
        deflate::LEVEL
    );

    let mut group = criterion.benchmark_group("field");
    group.sample_size(10).throughput(Throughput::Bytes(field.len() as u64));
    group.bench_function("copy", |b| b.iter(|| black_box(field.to_vec())));
    group.bench_function("shuffle", |b| b.iter(|| shuffled(black_box(&field))));
    group.bench_function("deflate dor", |b| b.iter(|| deflate::zlib(black_box(&planes), 4)));
    group.bench_function("deflate libdeflate", |b| b.iter(|| libdeflate(black_box(&planes))));
    group.bench_function("sha256", |b| b.iter(|| Sha256::digest(black_box(&field))));
    group.bench_function("md5", |b| b.iter(|| Md5::digest(black_box(&field))));
    group.finish();
}

/// Weights of the full-size grid for both levels of the map, and their application.
fn regridding(criterion: &mut Criterion) {
    let case = "112-04".parse().expect("a case");
    let file = SyntheticCase::new(case, Shape::FULL, 1).grid_file();
    let len = file.len() as u64;
    let grid = grid::read(Box::new(Memory(file.into(), len))).expect("a grid");
    let weights = weights::compute(&grid, 2);
    let field: Vec<f32> = grid.tlat.iter().map(|lat| *lat as f32).collect();
    let mut map = vec![0_f32; weights[1].targets()];
    weights[1].apply(&field, |at, value| map[at] = value);
    let rows = mercator::y(1).into_iter().map(|y| mercator::inverse(0.0, y).lat);
    for (row, lat) in map.chunks(mercator::size(1)).zip(rows) {
        let known = row.iter().filter(|value| **value != 0.0);
        assert!(known.into_iter().all(|value| (f64::from(*value) - lat).abs() < 1.0), "{lat}");
    }

    let mut group = criterion.benchmark_group("map");
    group.sample_size(10);
    group.bench_function("weights of levels 0 and 1", |b| {
        b.iter(|| weights::compute(black_box(&grid), 2));
    });
    // Bytes that are read from the field and written to the map.
    group.throughput(Throughput::Bytes(4 * (field.len() + map.len()) as u64));
    group.bench_function("apply at level 1", |b| {
        b.iter(|| weights[1].apply(black_box(&field), |at, value| map[at] = value));
    });
    let (mut field_copy, mut map_copy) = (field.clone(), map.clone());
    group.bench_function("copy of both", |b| {
        b.iter(|| {
            field_copy.copy_from_slice(black_box(&field));
            map_copy.copy_from_slice(black_box(&map));
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    // Plots need a system font, and the plotting library is built without support for these.
    config = Criterion::default().without_plots();
    targets = kernels, regridding
}
criterion_main!(benches);
