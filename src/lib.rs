//! dor-atlas converts CESM/POP history to the research dataset and the map stores of the DOR atlas,
//! on any object store.
//!
//! The `dor` program is a thin [`cli`] over this library. Data flows in one direction:
//!
//! ```text
//!   archive of raw history                                    research dataset
//!         |                                                          ^
//!      [store]  ranged reads, with prefetch      parts, in any order [store]
//!         |                                                          |
//!       [read]  bytes -> model                       model -> bytes [encode]
//!         |                                                          ^
//!         +---> [research::convert]  one file in, one file out ------+
//!                       ^
//!                  [executor]  bounds workers and memory; separates async I/O from CPU work
//!                       ^
//!                  [research]  plans a case, then runs the plan; [case_manifest] records results
//! ```
//!
//! The stores of the public map are computed from the same files, raw or research-grade, which are
//! read by range:
//!
//! ```text
//!   [read] -> [derive]  inventories, anomalies, efficiency, uptake -> [regrid]  onto the map
//!                 \__________________ [vis]  a case's chunks of each store _/
//!                                        |
//!                          [encode::zarr] -> [store]; [plot] draws previews
//! ```
//!
//! [`campaign`] makes all products, reads each raw file once, and runs many cases on many nodes.
//!
//! [`model`] defines cases, the calendar, grids and NetCDF metadata, and does no I/O. Only [`store`]
//! uses the crate `object_store`. [`config`] resolves settings. [`synthetic`] and `demo` generate
//! input.
//!
//! # Convert a case between any two stores
//!
//! ```
//! use std::sync::Arc;
//!
//! use dor_atlas::case_manifest::ConversionRecipe;
//! use dor_atlas::model::Case;
//! use dor_atlas::executor::{Pool, Reader};
//! use dor_atlas::research::{self, ConversionContext, NoProgress, PlanOptions, RECIPE};
//! use dor_atlas::store::Store;
//! use tokio_util::sync::CancellationToken;
//!
//! # use dor_atlas::synthetic::{Shape, SyntheticCase};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let case: Case = "112-04".parse()?;
//! // `store::StoreRegistry` opens paths, s3:// and https:// URLs; these two are in memory.
//! let (raw, out) = (Store::memory(), Store::memory());
//! # let synthetic = SyntheticCase::new(case, Shape { nlat: 8, nlon: 9, nz: 3 }, 1);
//! # let mut file = Vec::new();
//! # synthetic.write_month(case.first_month(), &mut file)?;
//! # let name = synthetic.file_name(case.first_month());
//! # raw.put(&format!("{}/{name}", research::plan::raw_folder(case)), file.into()).await?;
//! let product = "research-grade".to_owned();
//! let recipe = ConversionRecipe { product, version: RECIPE, grid_sha256: None };
//! let options = PlanOptions { force: false, allow_missing: true, recipe };
//! let plan = research::plan(&raw, &out, case, &options).await?;
//! let environment = ConversionContext {
//!     raw,
//!     out: out.clone(),
//!     grid: None,
//!     pool: Pool::new(2, 1 << 30),
//!     stop: CancellationToken::new(),
//!     progress: Arc::new(NoProgress),
//!     reader: Reader::default(),
//! };
//! let summary = research::run(&environment, plan).await?;
//! assert_eq!(summary.converted, 1);
//! assert_eq!(out.list("112/04").await?.len(), 2, "a NetCDF-4 file and the manifest of the case");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Read a case's efficiency
//!
//! ```
//! use std::sync::Arc;
//!
//! use dor_atlas::model::Case;
//! use dor_atlas::executor::Pool;
//! use dor_atlas::research::NoProgress;
//! use dor_atlas::store::Store;
//! use dor_atlas::vis::finalize::finalize;
//! use dor_atlas::vis::input::CaseSource;
//! use dor_atlas::vis::populate::{EfficiencyRun, FillOptions};
//! use dor_atlas::vis::create::{self, OpenStore};
//! use dor_atlas::vis::{RunContext, StoreKind, StoreRecipe, query};
//! use tokio_util::sync::CancellationToken;
//!
//! # use dor_atlas::synthetic::{Shape, SyntheticCase};
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let case: Case = "112-04".parse()?;
//! let (raw, store) = (Store::memory(), Store::memory());
//! # let synthetic = SyntheticCase::new(case, Shape { nlat: 8, nlon: 9, nz: 3 }, 1);
//! # let mut file = Vec::new();
//! # synthetic.write_month(case.first_month(), &mut file)?;
//! # let name = synthetic.file_name(case.first_month());
//! # let folder = dor_atlas::research::plan::raw_folder(case);
//! # raw.put(&format!("{folder}/{name}"), file.into()).await?;
//! create::create(&store, &StoreKind::Store1, false).await?;
//! let context = RunContext {
//!     pool: Pool::new(2, 1 << 30),
//!     stop: CancellationToken::new(),
//!     progress: Arc::new(NoProgress),
//! };
//! let efficiencies = EfficiencyRun {
//!     store1: OpenStore::open(store.clone(), "store1", StoreRecipe::new(false)).await?,
//!     input: CaseSource::Raw(raw),
//!     options: FillOptions { allow_missing: true, ..FillOptions::default() },
//!     context: &context,
//! };
//! efficiencies.fill(case).await?;
//! finalize(&store).await?;
//! let curves = query::curves(&store, &[case]).await?;
//! let efficiency = &curves.curves[0].values;
//! assert!(efficiency[0].is_finite() && efficiency[1].is_nan(), "the input is one month of 180");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Regrid a field
//!
//! ```
//! use dor_atlas::model::Grid;
//! use dor_atlas::regrid::bilinear::bilinear;
//!
//! // 3 rows of 4 points; the field is the cosine of the longitude.
//! let tlat: Vec<f64> = [-60.0, 0.0, 60.0].into_iter().flat_map(|lat| [lat; 4]).collect();
//! let tlong = [0.0, 90.0, 180.0, 270.0].repeat(3);
//! let field: Vec<f64> = tlong.iter().map(|lon: &f64| lon.to_radians().cos()).collect();
//! let weights = bilinear(&Grid { nlat: 3, nlon: 4, tlat, tlong }, 0);
//! let mut map = vec![f32::NAN; weights.targets()];
//! weights.apply(&field, |pixel, value| map[pixel] = value);
//! let center = 64 * 128 + 64;
//! assert!((map[center] - 1.0).abs() < 0.05, "the center of the map is 0 N, 0 E");
//! ```

pub mod campaign;
pub mod case_manifest;
pub mod cli;
pub mod config;
mod demo;
pub mod derive;
pub mod encode;
pub mod executor;
pub mod model;
pub mod plot;
pub mod publish;
pub mod read;
pub mod regrid;
pub mod research;
pub mod store;
pub mod synthetic;
pub mod vis;

/// Version of this program, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
