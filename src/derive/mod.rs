//! Kernels that compute the quantities of the map stores from fields on the ocean grid.
//!
//! A field is a slice in row-major order on (nlat, nlon), with NaN on land. Sums are computed in f64
//! and skip NaN, except where a function says otherwise. The experiment is the model run with the
//! intervention, the control the run without it.

pub mod column;
pub mod efficiency;
pub mod uptake;
