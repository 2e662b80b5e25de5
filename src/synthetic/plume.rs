//! The intervention: carbon is taken out of one polygon in the first month, the deficit spreads, and
//! the air gives it back.
//!
//! The carbon adds up: what is missing in the water of any month is what was removed less what the air
//! has returned, so that the efficiency worked out from the written fields is [`efficiency`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::grid::{RADIUS, SyntheticGrid, arc};

/// Removal in the polygon, mmol/m^3 cm/s (2.5e-4 mmol/m^2/s).
const REMOVAL: f64 = -0.025;
/// Radius of the polygon, km.
const POLYGON: f32 = 400.0;

/// Distances by sea from the polygon's centre, and what was removed.
pub struct Plume {
    /// Distance by sea, km; infinite on land and in seas without connection.
    distance: Vec<f32>,
    /// Cells of the polygon: within its radius, at least the nearest wet one.
    polygon: Vec<bool>,
    /// Everything that was removed, mmol.
    removed: f64,
    /// Part of the removal that the air returns in the end.
    limit: f64,
}

/// The plume in one month.
pub struct PlumeMonth {
    change: Vec<f32>,
    profile: Vec<f32>,
    uptake: Vec<f64>,
    removal: Vec<f32>,
}

impl Plume {
    /// The intervention at `center` (longitude, latitude) in a month of `days`.
    pub fn new(grid: &SyntheticGrid, center: (f64, f64), days: f64) -> Self {
        let distance = distance_by_sea(grid, center);
        let nearest = distance.iter().copied().fold(f32::INFINITY, f32::min);
        let inside = |d: &f32| *d <= POLYGON.max(nearest);
        let polygon: Vec<bool> = distance.iter().map(inside).collect();
        let area: f64 = (0..grid.cells()).filter(|&n| polygon[n]).map(|n| grid.tarea(n)).sum();
        // Per cm^2: mmol/m^3 cm is 1e-6 mmol/cm^2.
        let removed = -REMOVAL * 1e-6 * area * days * 86_400.0;
        // Cold, deeply mixed water carries some of the deficit away before the air fills it.
        let limit = 0.76 + 0.12 * center.1.to_radians().cos();
        Self { distance, polygon, removed, limit }
    }

    /// The plume `elapsed` months after the intervention began (negative: before it), in a month
    /// of `days`.
    pub fn month(&self, grid: &SyntheticGrid, elapsed: i32, days: f64) -> PlumeMonth {
        let cells = grid.cells();
        if elapsed < 0 {
            let none = vec![0.0; cells];
            let profile = vec![0.0; grid.shape.nz];
            return PlumeMonth {
                change: none.clone(),
                profile,
                uptake: vec![0.0; cells],
                removal: none,
            };
        }
        let years = (f64::from(elapsed) + 0.5) / 12.0;
        let width = (300f64.powi(2) + 4.2e5 * years).sqrt() as f32;
        let depth = (45f64.powi(2) + 8_000.0 * years).sqrt() * 100.0;
        let profile: Vec<f64> =
            grid.middles().iter().map(|z| (-0.5 * (z / depth).powi(2)).exp()).collect();
        let shape: Vec<f32> =
            self.distance.iter().map(|d| (-0.5 * (d / width).powi(2)).exp()).collect();
        // Sums over the sea of the plume's shape: its surface in cm^2 and its volume in m^3.
        let mut below = vec![0.0];
        for (part, dz) in profile.iter().zip(&grid.dz) {
            below.push(below.last().copied().unwrap_or(0.0) + part * dz);
        }
        let (mut surface, mut volume) = (0.0, 0.0);
        for (n, &part) in shape.iter().enumerate().filter(|(_, part)| **part > 0.0) {
            let here = f64::from(part) * grid.tarea(n);
            surface += here;
            volume += here * below[usize::from(grid.kmt[n])] * 1e-6;
        }
        let (before, after) = (self.efficiency(elapsed), self.efficiency(elapsed + 1));
        let missing = self.removed * (1.0 - (before + after) / 2.0) / volume;
        let flux = self.removed * (after - before) / (surface * 1e-6 * days * 86_400.0);
        let removal = |inside: &bool| if *inside && elapsed == 0 { REMOVAL as f32 } else { 0.0 };
        PlumeMonth {
            change: shape.iter().map(|&part| -(missing as f32) * part).collect(),
            profile: profile.iter().map(|&part| part as f32).collect(),
            uptake: shape.iter().map(|&part| flux * f64::from(part)).collect(),
            removal: self.polygon.iter().map(removal).collect(),
        }
    }

    /// Part of the removed carbon that the air has returned after `months` months: rises fast in the
    /// first year, then slowly.
    pub fn efficiency(&self, months: i32) -> f64 {
        let years = f64::from(months) / 12.0;
        self.limit * (1.0 - 0.6 * (-years / 0.9).exp() - 0.4 * (-years / 6.0).exp())
    }
}

impl PlumeMonth {
    /// Change of DIC at the surface of a cell, mmol/m^3.
    #[inline]
    pub fn change(&self, n: usize) -> f32 {
        self.change[n]
    }

    /// Part of the surface's change that is felt at level `k`.
    pub fn profile(&self, k: usize) -> f32 {
        self.profile.get(k).copied().unwrap_or(0.0)
    }

    /// Additional flux of CO2 into a cell, mmol/m^3 cm/s.
    #[inline]
    pub fn uptake(&self, n: usize) -> f64 {
        self.uptake[n]
    }

    /// The intervention's flux of carbon into a cell, mmol/m^3 cm/s.
    #[inline]
    pub fn removal(&self, n: usize) -> f32 {
        self.removal[n]
    }
}

/// Kilometres from `center` to every cell by sea.
///
/// The straight distance where that way is free, longer where land must be rounded: paths along the
/// grid tell which, their own excess (up to 9 % on a grid with diagonals) is taken off.
fn distance_by_sea(grid: &SyntheticGrid, center: (f64, f64)) -> Vec<f32> {
    let nlon = grid.shape.nlon;
    let place = |n: usize| (grid.tlong[n], grid.tlat[n]);
    let km = |a, b| arc(a, b) * RADIUS * 1e-5;
    let wet = |n: usize| grid.kmt[n] > 0;
    let start = (0..grid.cells())
        .filter(|&n| wet(n))
        .min_by(|&a, &b| km(place(a), center).total_cmp(&km(place(b), center)));
    let mut paths = vec![f64::INFINITY; grid.cells()];
    // Whole metres, because a heap wants keys with a total order.
    let mut open = BinaryHeap::new();
    if let Some(start) = start {
        paths[start] = km(place(start), center);
        open.push(Reverse(((paths[start] * 1e3) as u64, start)));
    }
    while let Some(Reverse((metres, n))) = open.pop() {
        if metres > (paths[n] * 1e3) as u64 {
            continue;
        }
        let (j, i) = (n / nlon, n % nlon);
        for (dj, di) in [(0, 1), (0, nlon - 1), (1, 0), (1, 1), (1, nlon - 1)] {
            let column = (i + di) % nlon;
            let rows = if dj == 0 { [Some(j), None] } else { [j.checked_sub(1), Some(j + 1)] };
            for row in rows.into_iter().flatten().filter(|&row| row < grid.shape.nlat) {
                let next = row * nlon + column;
                let path = paths[n] + km(place(n), place(next));
                if wet(next) && path < paths[next] {
                    paths[next] = path;
                    open.push(Reverse(((path * 1e3) as u64, next)));
                }
            }
        }
    }
    let mend = |(n, path): (usize, f64)| {
        let straight = km(place(n), center);
        (straight + (path - 1.09 * straight).max(0.0)) as f32
    };
    paths.into_iter().enumerate().map(mend).collect()
}
