//! Kernels: what the map stores show, from fields on the ocean grid.
//!
//! Fields are row by row on (nlat, nlon), NaN where there is none; sums skip NaN unless said
//! otherwise and are taken in f64.

pub mod column;
pub mod efficiency;
pub mod uptake;
