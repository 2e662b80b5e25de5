//! The horizontal grid.

/// T points of the whole grid, without fill.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Rows.
    pub nlat: usize,
    /// Columns.
    pub nlon: usize,
    /// Latitude of each T point, degrees north, row by row.
    pub tlat: Vec<f64>,
    /// Longitude of each T point, degrees east, 0 to 360, row by row.
    pub tlong: Vec<f64>,
}
