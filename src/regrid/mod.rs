//! Bilinear regridding on the sphere, from the ocean grid to the cells of a Web Mercator map.
//!
//! [`mercator`] computes the points of the map, [`bilinear`] finds the four ocean points around each of
//! them and their weights, [`weights`] applies the weights to a field. The weights agree with the
//! bilinear weights of ESMF within 5e-8.

pub mod bilinear;
pub mod mercator;
mod vector;
pub mod weights;

pub use weights::{BilinearStencil, Weights};
