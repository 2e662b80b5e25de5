//! The intervention: it removes carbon from one polygon in the first month; the deficit spreads, and
//! the atmosphere replaces the carbon over the years.
//!
//! Carbon is conserved: in any month the deficit of the water is the removed carbon minus the uptake from
//! the atmosphere. The efficiency that follows from the written fields is [`Plume::efficiency`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::grid::{RADIUS, SyntheticGrid, arc};

/// Removal in the polygon, mmol/m^3 cm/s (2.5e-4 mmol/m^2/s).
const REMOVAL: f64 = -0.025;
/// Radius of the polygon, km.
const POLYGON: f32 = 400.0;

/// The intervention of a case: distances from the polygon, and the removed carbon.
pub struct Plume {
    /// Distance by sea from the center, km; infinite on land and in seas without a connection.
    distance: Vec<f32>,
    /// Whether a cell is in the polygon: within its radius; at least the nearest wet cell is.
    polygon: Vec<bool>,
    /// Removed carbon, mmol.
    removed: f64,
    /// Fraction of the removed carbon that the atmosphere replaces in the end.
    limit: f64,
}

/// The plume in one month; units as in the methods.
pub struct PlumeMonth {
    change: Vec<f32>,
    profile: Vec<f32>,
    uptake: Vec<f64>,
    removal: Vec<f32>,
}

impl Plume {
    /// Creates the intervention at `center` (longitude, latitude in degrees) in a month of `days`.
    pub fn new(grid: &SyntheticGrid, center: (f64, f64), days: f64) -> Self {
        let distance = distance_by_sea(grid, center);
        let nearest = distance.iter().copied().fold(f32::INFINITY, f32::min);
        let is_inside = |d: &f32| *d <= POLYGON.max(nearest);
        let polygon: Vec<bool> = distance.iter().map(is_inside).collect();
        let area: f64 = (0..grid.cells()).filter(|&n| polygon[n]).map(|n| grid.tarea(n)).sum();
        // 1 mmol/m^3 cm is 1e-6 mmol/cm^2.
        let removed = -REMOVAL * 1e-6 * area * days * 86_400.0;
        // Cold, deeply mixed water carries a part of the deficit away from the surface.
        let limit = 0.76 + 0.12 * center.1.to_radians().cos();
        Self { distance, polygon, removed, limit }
    }

    /// The plume `elapsed` months after the start of the intervention (negative: before the start), in a
    /// month of `days`.
    pub fn month(&self, grid: &SyntheticGrid, elapsed: i32, days: f64) -> PlumeMonth {
        let cells = grid.cells();
        if elapsed < 0 {
            return PlumeMonth {
                change: vec![0.0; cells],
                profile: vec![0.0; grid.shape.nz],
                uptake: vec![0.0; cells],
                removal: vec![0.0; cells],
            };
        }
        let years = (f64::from(elapsed) + 0.5) / 12.0;
        let width = (300f64.powi(2) + 4.2e5 * years).sqrt() as f32;
        let depth = (45f64.powi(2) + 8_000.0 * years).sqrt() * 100.0;
        let profile: Vec<f64> =
            grid.middles().iter().map(|z| (-0.5 * (z / depth).powi(2)).exp()).collect();
        let shape: Vec<f32> =
            self.distance.iter().map(|d| (-0.5 * (d / width).powi(2)).exp()).collect();
        // Integrals of the plume's shape over the ocean: surface in cm^2 and volume in m^3.
        let mut below = vec![0.0];
        for (part, dz) in profile.iter().zip(&grid.dz) {
            below.push(below.last().copied().unwrap_or(0.0) + part * dz);
        }
        let (mut surface, mut volume) = (0.0, 0.0);
        for (n, &part) in shape.iter().enumerate().filter(|(_, part)| **part > 0.0) {
            let area = f64::from(part) * grid.tarea(n);
            surface += area;
            volume += area * below[usize::from(grid.kmt[n])] * 1e-6;
        }
        let (before, after) = (self.efficiency(elapsed), self.efficiency(elapsed + 1));
        let missing = self.removed * (1.0 - (before + after) / 2.0) / volume;
        let flux = self.removed * (after - before) / (surface * 1e-6 * days * 86_400.0);
        let removal = |is_inside: &bool| match *is_inside && elapsed == 0 {
            true => REMOVAL as f32,
            false => 0.0,
        };
        PlumeMonth {
            change: shape.iter().map(|&part| -(missing as f32) * part).collect(),
            profile: profile.iter().map(|&part| part as f32).collect(),
            uptake: shape.iter().map(|&part| flux * f64::from(part)).collect(),
            removal: self.polygon.iter().map(removal).collect(),
        }
    }

    /// Fraction of the removed carbon that the atmosphere has replaced after `months` months: it rises
    /// fast in the first year, then slowly.
    pub fn efficiency(&self, months: i32) -> f64 {
        let years = f64::from(months) / 12.0;
        self.limit * (1.0 - 0.6 * (-years / 0.9).exp() - 0.4 * (-years / 6.0).exp())
    }
}

impl PlumeMonth {
    /// Change of DIC at the surface of cell `n`, mmol/m^3.
    #[inline]
    pub fn change(&self, n: usize) -> f32 {
        self.change[n]
    }

    /// Change at level `k` as a fraction of the change at the surface.
    pub fn profile(&self, k: usize) -> f32 {
        self.profile.get(k).copied().unwrap_or(0.0)
    }

    /// Additional flux of CO2 into cell `n`, mmol/m^3 cm/s.
    #[inline]
    pub fn uptake(&self, n: usize) -> f64 {
        self.uptake[n]
    }

    /// Flux of carbon into cell `n` by the intervention, mmol/m^3 cm/s.
    #[inline]
    pub fn removal(&self, n: usize) -> f32 {
        self.removal[n]
    }
}

/// Distance by sea from `center` to every cell, km.
///
/// It is the great-circle distance, plus the detour around land. Dijkstra's algorithm finds the paths
/// along the grid, whose excess of up to 9 % on a grid with diagonals is subtracted.
fn distance_by_sea(grid: &SyntheticGrid, center: (f64, f64)) -> Vec<f32> {
    let nlon = grid.shape.nlon;
    let position = |n: usize| (grid.tlong[n], grid.tlat[n]);
    let km = |a, b| arc(a, b) * RADIUS * 1e-5;
    let is_wet = |n: usize| grid.kmt[n] > 0;
    let start = (0..grid.cells())
        .filter(|&n| is_wet(n))
        .min_by(|&a, &b| km(position(a), center).total_cmp(&km(position(b), center)));
    let mut paths = vec![f64::INFINITY; grid.cells()];
    // The keys are whole meters, because a heap needs keys with a total order.
    let mut queue = BinaryHeap::new();
    if let Some(start) = start {
        paths[start] = km(position(start), center);
        queue.push(Reverse(((paths[start] * 1e3) as u64, start)));
    }
    while let Some(Reverse((meters, n))) = queue.pop() {
        if meters > (paths[n] * 1e3) as u64 {
            continue;
        }
        let (j, i) = (n / nlon, n % nlon);
        for (dj, di) in [(0, 1), (0, nlon - 1), (1, 0), (1, 1), (1, nlon - 1)] {
            let column = (i + di) % nlon;
            let rows = if dj == 0 { [Some(j), None] } else { [j.checked_sub(1), Some(j + 1)] };
            for row in rows.into_iter().flatten().filter(|&row| row < grid.shape.nlat) {
                let next = row * nlon + column;
                let path = paths[n] + km(position(n), position(next));
                if is_wet(next) && path < paths[next] {
                    paths[next] = path;
                    queue.push(Reverse(((path * 1e3) as u64, next)));
                }
            }
        }
    }
    let corrected = |(n, path): (usize, f64)| {
        let straight = km(position(n), center);
        (straight + (path - 1.09 * straight).max(0.0)) as f32
    };
    paths.into_iter().enumerate().map(corrected).collect()
}
