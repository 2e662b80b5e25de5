//! Drawing of maps and line charts as PNG.

mod canvas;
mod color_scale;
mod line_chart;
mod map;

pub use canvas::{PlotError, is_own_picture};
pub use line_chart::{PlottedCurve, curves};
pub use map::{MapPicture, map};
