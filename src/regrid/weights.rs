//! Weights of a level, and their use.

use super::mercator;
use super::vector::Vector;
use crate::model::{Grid, LatLon};

/// How far the sum of weights may be from 1, and a point from its place, in radii of the Earth:
/// well above what 4-byte coordinates leave.
const SUM: f64 = 1e-6;
const DISTANCE: f64 = 1e-4;

/// Where the value of a point of the map comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BilinearStencil {
    /// Points of the ocean grid, row by row.
    pub index: [u32; 4],
    /// How much each counts; together 1.
    pub weight: [f64; 4],
}

/// Weights of a level, point by point of the map (rows north to south, columns west to east).
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    level: u8,
    points: usize,
    targets: Vec<u32>,
    sources: Vec<BilinearStencil>,
}

impl Weights {
    /// From a source for each point of the map that has one; `points` of the ocean grid.
    ///
    /// A point that counts nothing must not spoil a value by being NaN: one that counts takes its
    /// place.
    pub fn new(level: u8, points: usize, sources: Vec<Option<BilinearStencil>>) -> Self {
        let found = sources.into_iter().enumerate().filter_map(|(at, s)| Some((at as u32, s?)));
        let (targets, mut sources): (Vec<u32>, Vec<BilinearStencil>) = found.unzip();
        for BilinearStencil { index, weight } in &mut sources {
            let counts = (0..4).find(|&n| weight[n] != 0.0).unwrap_or(0);
            for n in (0..4).filter(|&n| weight[n] == 0.0).collect::<Vec<_>>() {
                index[n] = index[counts];
            }
        }
        Self { level, points, targets, sources }
    }

    /// Level of the map.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Points of the ocean grid.
    pub fn points(&self) -> usize {
        self.points
    }

    /// Points of the map.
    pub fn targets(&self) -> usize {
        mercator::size(self.level).pow(2)
    }

    /// Each point of the map that has a value, with where it comes from.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &BilinearStencil)> {
        self.targets.iter().map(|&at| at as usize).zip(&self.sources)
    }

    /// The first point of the map that these weights, applied to the places of a grid, put somewhere
    /// else: `None` when they are those of bilinear interpolation on it.
    pub fn first_misplaced(&self, grid: &Grid) -> Option<usize> {
        let (x, y) = (mercator::x(self.level), mercator::y(self.level));
        let vector = |at: usize| Vector::of(LatLon { lat: grid.tlat[at], lon: grid.tlong[at] });
        let fits = |target: usize, source: &BilinearStencil| {
            let corners = source.index.iter().zip(&source.weight);
            let corners = corners.filter(|(_, weight)| **weight != 0.0);
            let start = Vector([0.0; 3]);
            let sum = corners.fold(start, |sum, (&at, &w)| sum + vector(at as usize) * w);
            let place = mercator::place(x[target % x.len()], y[target / x.len()]);
            let off = sum.unit() - Vector::of(place);
            // Of NaN neither holds.
            (source.weight.iter().sum::<f64>() - 1.0).abs() < SUM && off.dot(off).sqrt() < DISTANCE
        };
        self.iter().find(|(target, source)| !fits(*target, source)).map(|(target, _)| target)
    }

    /// All of it as bytes, for telling weights apart.
    pub fn bytes(&self) -> impl Iterator<Item = [u8; 52]> {
        self.targets.iter().zip(&self.sources).map(|(at, source)| {
            let mut bytes = [0; 52];
            let words = source.index.iter().flat_map(|index| index.to_le_bytes());
            let weights = source.weight.iter().flat_map(|weight| weight.to_le_bytes());
            let all = at.to_le_bytes().into_iter().chain(words).chain(weights);
            bytes.iter_mut().zip(all).for_each(|(room, byte)| *room = byte);
            bytes
        })
    }

    /// Hands out the value of each point of the map that has a source; NaN when any of the points
    /// that count is. `field` must have [`Self::points`].
    pub fn apply<T: Copy + Into<f64>>(&self, field: &[T], mut put: impl FnMut(usize, f32)) {
        for (&at, BilinearStencil { index, weight }) in self.targets.iter().zip(&self.sources) {
            let value = |n: usize| -> f64 { field[index[n] as usize].into() * weight[n] };
            put(at as usize, (value(0) + value(1) + value(2) + value(3)) as f32);
        }
    }
}
