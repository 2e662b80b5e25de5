//! From the ocean grid to the squares of a web map: bilinear on the sphere.
//!
//! [`mercator`] says where the points of the map are, [`bilinear`] finds the four ocean points around
//! each, [`weights`] applies what was found. ESMF's bilinear weights agree within 5e-8.

pub mod bilinear;
pub mod mercator;
mod vector;
pub mod weights;

pub use weights::{BilinearStencil, Weights};
