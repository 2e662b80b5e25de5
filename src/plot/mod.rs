//! Pictures of maps and curves, as PNG.

mod canvas;
mod curves;
mod map;
mod scale;

pub use canvas::{PlotError, is_own_picture};
pub use curves::{Curve, curves};
pub use map::{MapPicture, map};
