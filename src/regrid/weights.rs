//! Regridding weights of a level, and their application to a field.

use super::mercator;
use super::vector::Vector;
use crate::model::{Grid, LatLon};

/// Tolerance of the sum of the weights of a point, which is 1 for exact weights.
const SUM_TOLERANCE: f64 = 1e-6;
/// Tolerance of the regridded position of a point, in radii of the Earth. It exceeds the rounding
/// error of coordinates that are stored as 4-byte floats.
const DISTANCE_TOLERANCE: f64 = 1e-4;

/// The ocean points and weights that the value of one point of the map is computed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BilinearStencil {
    /// Indices of the ocean points in row-major order.
    pub index: [u32; 4],
    /// Weights of these points; their sum is 1.
    pub weight: [f64; 4],
}

/// Weights of one level. Points of the map are numbered in row-major order, rows from north to south,
/// columns from west to east.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    level: u8,
    points: usize,
    targets: Vec<u32>,
    sources: Vec<BilinearStencil>,
}

impl Weights {
    /// Creates weights from one optional stencil for each point of the map. `points` is the number of
    /// points of the ocean grid.
    ///
    /// An ocean point with weight 0 could be NaN, and 0 times NaN is NaN. The function therefore
    /// replaces its index by that of a point with another weight.
    pub fn new(level: u8, points: usize, sources: Vec<Option<BilinearStencil>>) -> Self {
        let present = sources.into_iter().enumerate().filter_map(|(at, s)| Some((at as u32, s?)));
        let (targets, mut sources): (Vec<u32>, Vec<BilinearStencil>) = present.unzip();
        for BilinearStencil { index, weight } in &mut sources {
            let nonzero = (0..4).find(|&n| weight[n] != 0.0).unwrap_or(0);
            for n in (0..4).filter(|&n| weight[n] == 0.0).collect::<Vec<_>>() {
                index[n] = index[nonzero];
            }
        }
        Self { level, points, targets, sources }
    }

    /// Level of the map pyramid, 0 for the coarsest.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Number of points of the ocean grid.
    pub fn points(&self) -> usize {
        self.points
    }

    /// Number of points of the map, including those without a value.
    pub fn targets(&self) -> usize {
        mercator::size(self.level).pow(2)
    }

    /// Iterates over the points of the map that have a value, with the stencil of each.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &BilinearStencil)> {
        self.targets.iter().map(|&at| at as usize).zip(&self.sources)
    }

    /// Checks the weights against a grid by regridding the positions of its points. Returns the first
    /// point of the map whose regridded position is another one, or `None` when the weights belong to
    /// the grid.
    pub fn first_invalid(&self, grid: &Grid) -> Option<usize> {
        let (x, y) = (mercator::x(self.level), mercator::y(self.level));
        let vector = |at: usize| Vector::of(LatLon { lat: grid.tlat[at], lon: grid.tlong[at] });
        let fits = |target: usize, source: &BilinearStencil| {
            let corners = source.index.iter().zip(&source.weight);
            let corners = corners.filter(|(_, weight)| **weight != 0.0);
            let start = Vector([0.0; 3]);
            let sum = corners.fold(start, |sum, (&at, &w)| sum + vector(at as usize) * w);
            let point = mercator::inverse(x[target % x.len()], y[target / x.len()]);
            let off = sum.unit() - Vector::of(point);
            // Both comparisons are false for NaN.
            (source.weight.iter().sum::<f64>() - 1.0).abs() < SUM_TOLERANCE
                && off.dot(off).sqrt() < DISTANCE_TOLERANCE
        };
        self.iter().find(|(target, source)| !fits(*target, source)).map(|(target, _)| target)
    }

    /// The weights as bytes, little-endian, for checksums: one item for each point with a value.
    pub fn bytes(&self) -> impl Iterator<Item = [u8; 52]> {
        self.targets.iter().zip(&self.sources).map(|(at, source)| {
            let mut bytes = [0; 52];
            let words = source.index.iter().flat_map(|index| index.to_le_bytes());
            let weights = source.weight.iter().flat_map(|weight| weight.to_le_bytes());
            let all = at.to_le_bytes().into_iter().chain(words).chain(weights);
            bytes.iter_mut().zip(all).for_each(|(target, byte)| *target = byte);
            bytes
        })
    }

    /// Applies the weights to a field of [`Self::points`] values. Calls `put` with the index and value of
    /// each point of the map that has a stencil. The value is NaN when an ocean point with a nonzero
    /// weight is NaN.
    pub fn apply<T: Copy + Into<f64>>(&self, field: &[T], mut put: impl FnMut(usize, f32)) {
        for (&at, BilinearStencil { index, weight }) in self.targets.iter().zip(&self.sources) {
            let value = |n: usize| -> f64 { field[index[n] as usize].into() * weight[n] };
            put(at as usize, (value(0) + value(1) + value(2) + value(3)) as f32);
        }
    }
}
