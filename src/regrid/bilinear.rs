//! Bilinear weights: the four ocean points around each point of the map, and their weights.
//!
//! A quad is the area between four neighbouring ocean points. It has the corners A (j,i), B (j,i+1),
//! C (j+1,i+1), D (j+1,i) as unit vectors; i is periodic. A point p of the sphere lies in the quad if
//! u, v and t exist with
//!
//! ```text
//! (1-u)(1-v) A + u(1-v) B + uv C + (1-u)v D = t p     with 0 <= u,v <= 1, t > 0
//! ```
//!
//! The edges of a quad are arcs of great circles, so p is inside if it is on the same side of all four.
//! Two quads that share an edge compute the side of that edge with the same operands. No point
//! therefore falls between two quads. A point on an edge belongs to the first quad that contains it.

use super::mercator;
use super::vector::Vector;
use super::weights::{BilinearStencil, Weights};
use crate::model::{Grid, LatLon};

/// Largest number of Newton steps; three or four suffice because quads are nearly flat.
const STEPS: usize = 20;
/// Change of u and v below which the iteration has converged.
const CONVERGED: f64 = 1e-14;
/// Margin around the cap of a quad for rounding errors, radians.
const CAP_MARGIN: f64 = 1e-9;

/// Computes the weights from the T points of a grid to the points of a level. A quad with a NaN corner
/// is skipped.
///
/// ```
/// use dor_atlas::model::Grid;
/// use dor_atlas::regrid::bilinear::bilinear;
///
/// // A field that is the latitude, on a grid of 3 rows of 4 points.
/// let tlat: Vec<f64> = [-60.0, 0.0, 60.0].into_iter().flat_map(|lat| [lat; 4]).collect();
/// let tlong = [0.0, 90.0, 180.0, 270.0].repeat(3);
/// let grid = Grid { nlat: 3, nlon: 4, tlat: tlat.clone(), tlong };
/// let weights = bilinear(&grid, 0);
/// let mut map = vec![f32::NAN; weights.targets()];
/// weights.apply(&tlat, |at, value| map[at] = value);
/// assert!(map[0].is_nan(), "nothing lies north of the grid");
/// assert!(map[64 * 128].abs() < 2.0, "the middle row is the equator");
/// ```
pub fn bilinear(grid: &Grid, level: u8) -> Weights {
    let n = mercator::size(level);
    let targets = Targets::new(level);
    let positions = grid.tlat.iter().zip(&grid.tlong);
    let points: Vec<Vector> =
        positions.map(|(&lat, &lon)| Vector::of(LatLon { lat, lon })).collect();
    let mut sources: Vec<Option<BilinearStencil>> = vec![None; n * n];
    for j in 0..grid.nlat.saturating_sub(1) {
        for i in 0..grid.nlon {
            let east = (i + 1) % grid.nlon;
            let (row, above) = (j * grid.nlon, (j + 1) * grid.nlon);
            let index = [row + i, row + east, above + east, above + i];
            let corners = index.map(|at| points[at]);
            if corners.iter().any(|corner| corner.is_nan()) {
                continue;
            }
            let quad = Quad { index, corners };
            targets.for_each_near(&quad, |target, p| {
                if sources[target].is_none() && quad.contains(p) {
                    sources[target] = quad.weights(p);
                }
            });
        }
    }
    Weights::new(level, grid.tlat.len(), sources)
}

/// The area between four neighbouring ocean points.
struct Quad {
    index: [usize; 4],
    corners: [Vector; 4],
}

impl Quad {
    /// Whether p lies inside the quad or on an edge.
    fn contains(&self, p: Vector) -> bool {
        let (mut left, mut right) = (true, true);
        for n in 0..4 {
            let m = (n + 1) % 4;
            // Always from the lower index to the higher, so that both quads of an edge compute the
            // same side.
            let flip = self.index[n] > self.index[m];
            let (from, to) = if flip { (m, n) } else { (n, m) };
            let side = self.corners[from].cross(self.corners[to]).dot(p);
            let side = if flip { -side } else { side };
            left &= side >= 0.0;
            right &= side <= 0.0;
        }
        // The same planes also bound an area on the opposite side of the Earth.
        (left || right) && self.center().dot(p) > 0.0
    }

    fn center(&self) -> Vector {
        let [a, b, c, d] = self.corners;
        (a + b + c + d).unit()
    }

    /// Solves for u, v and t by Newton's method, starting in the middle of the quad. `None` for a quad
    /// without area.
    fn weights(&self, p: Vector) -> Option<BilinearStencil> {
        let [a, b, c, d] = self.corners;
        let twist = a - b + c - d;
        let (mut u, mut v, mut t) = (0.5, 0.5, 1.0);
        for _ in 0..STEPS {
            let residual = a + (b - a) * u + (d - a) * v + twist * (u * v) - p * t;
            let by_u = b - a + twist * v;
            let by_v = d - a + twist * u;
            let by_t = p * -1.0;
            let determinant = by_u.dot(by_v.cross(by_t));
            if determinant == 0.0 {
                return None;
            }
            let du = residual.dot(by_v.cross(by_t)) / determinant;
            let dv = by_u.dot(residual.cross(by_t)) / determinant;
            let dt = by_u.dot(by_v.cross(residual)) / determinant;
            (u, v, t) = (u - du, v - dv, t - dt);
            if du.abs().max(dv.abs()) < CONVERGED {
                break;
            }
        }
        // The point is inside the quad, so values outside 0 to 1 are rounding errors.
        let (u, v) = (u.clamp(0.0, 1.0), v.clamp(0.0, 1.0));
        let weight = [(1.0 - u) * (1.0 - v), u * (1.0 - v), u * v, (1.0 - u) * v];
        let finite = u.is_finite() && v.is_finite() && t > 0.0;
        finite.then_some(BilinearStencil { index: self.index.map(|at| at as u32), weight })
    }
}

/// The points of a level, with the sines and cosines that their unit vectors are computed from.
struct Targets {
    level: u8,
    /// sin and cos of the latitude of each row.
    rows: Vec<(f64, f64)>,
    /// sin and cos of the longitude of each column.
    columns: Vec<(f64, f64)>,
}

impl Targets {
    fn new(level: u8) -> Self {
        let (x, y) = (mercator::x(level), mercator::y(level));
        let lat = |y: f64| mercator::inverse(0.0, y).lat.to_radians().sin_cos();
        let lon = |x: f64| mercator::inverse(x, 0.0).lon.to_radians().sin_cos();
        Self {
            level,
            rows: y.into_iter().map(lat).collect(),
            columns: x.into_iter().map(lon).collect(),
        }
    }

    /// Calls `visit` with the index and vector of each point in a box of latitudes and longitudes around
    /// the quad.
    ///
    /// The box contains the spherical cap around the center of the quad that reaches its corners, and
    /// this cap contains the quad.
    fn for_each_near(&self, quad: &Quad, mut visit: impl FnMut(usize, Vector)) {
        let n = self.rows.len();
        let center = quad.center();
        let nearest = quad.corners.iter().map(|corner| corner.dot(center)).fold(1.0, f64::min);
        let reach = nearest.clamp(-1.0, 1.0).acos() + CAP_MARGIN;
        let [x, y, z] = center.0;
        let (lat, lon) = (z.clamp(-1.0, 1.0).asin(), y.atan2(x));
        let row = |lat: f64| mercator::row_at(lat.to_degrees(), self.level);
        let first = if lat + reach < 1.57 { row(lat + reach).ceil().max(0.0) } else { 0.0 };
        let last = if lat - reach > -1.57 { row(lat - reach).floor() } else { f64::INFINITY };
        let last = last.min(n as f64 - 1.0);
        // A cap that contains a pole has every longitude.
        let width = reach.sin() / lat.cos();
        let (west, east) = if reach + lat.abs() >= 1.57 || width >= 1.0 {
            (0, n as i64 - 1)
        } else {
            let width = width.asin();
            let column = |lon: f64| mercator::column_at(lon.to_degrees(), self.level);
            let (west, east) = (column(lon - width).ceil(), column(lon + width).floor());
            (west as i64, east as i64)
        };
        let mut row = first;
        while row <= last {
            let (sin_lat, cos_lat) = self.rows[row as usize];
            for column in west..=east.min(west + n as i64 - 1) {
                let column = column.rem_euclid(n as i64) as usize;
                let (sin_lon, cos_lon) = self.columns[column];
                let p = Vector([cos_lon * cos_lat, sin_lon * cos_lat, sin_lat]);
                visit(row as usize * n + column, p);
            }
            row += 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A regular grid with its first column at `first` degrees east.
    fn regular(nlat: usize, nlon: usize, first: f64) -> Grid {
        let (mut tlat, mut tlong) = (Vec::new(), Vec::new());
        for j in 0..nlat {
            for i in 0..nlon {
                tlat.push(-80.0 + 160.0 * j as f64 / (nlat - 1) as f64);
                tlong.push((first + 360.0 * i as f64 / nlon as f64).rem_euclid(360.0));
            }
        }
        Grid { nlat, nlon, tlat, tlong }
    }

    /// The regular grid rotated by 20 degrees: its poles, each with a hole around it, lie elsewhere.
    fn displaced() -> Grid {
        let mut grid = regular(60, 80, 3.0);
        for (lat, lon) in grid.tlat.iter_mut().zip(&mut grid.tlong) {
            let Vector([x, y, z]) = Vector::of(LatLon { lat: *lat, lon: *lon });
            let (sin, cos) = 20f64.to_radians().sin_cos();
            let [x, z] = [x * cos + z * sin, z * cos - x * sin];
            (*lat, *lon) = (z.asin().to_degrees(), y.atan2(x).to_degrees().rem_euclid(360.0));
        }
        grid
    }

    fn target(weights: &Weights, at: usize) -> Vector {
        let n = mercator::size(weights.level());
        let (x, y) = (mercator::x(weights.level())[at % n], mercator::y(weights.level())[at / n]);
        Vector::of(mercator::inverse(x, y))
    }

    fn fields(grid: &Grid) -> [Vec<f64>; 3] {
        let points = grid.tlat.iter().zip(&grid.tlong);
        let points: Vec<Vector> =
            points.map(|(&lat, &lon)| Vector::of(LatLon { lat, lon })).collect();
        [0, 1, 2].map(|n| points.iter().map(|p| p.0[n]).collect())
    }

    #[test]
    fn weights_are_a_partition_of_one() {
        let weights = bilinear(&displaced(), 1);
        for (_, source) in weights.iter() {
            assert!((source.weight.iter().sum::<f64>() - 1.0).abs() < 4e-16);
            assert!(source.weight.iter().all(|w| (0.0..=1.0).contains(w)));
        }
    }

    #[test]
    fn a_constant_stays_constant_and_points_stay_on_the_sphere() {
        let grid = displaced();
        let weights = bilinear(&grid, 1);
        let mut out = vec![0.0_f32; 256 * 256];
        weights.apply(&vec![1234.567; grid.tlat.len()], |at, value| out[at] = value);
        let ulp = 1234.567_f32.next_up() - 1234.567_f32;
        for (at, _) in weights.iter() {
            assert!((out[at] - 1234.567).abs() <= ulp);
        }
        // A cell is 4.5 degrees wide: `bound` is the largest distance between its arc and its chord.
        let bound = 1.0 - (4.5f64.to_radians() / 2.0).cos();
        let mut sums = vec![[0.0; 3]; 256 * 256];
        for (n, field) in fields(&grid).iter().enumerate() {
            weights.apply(field, |at, value: f32| sums[at][n] = f64::from(value));
        }
        for (at, _) in weights.iter() {
            let error = Vector(sums[at]) - target(&weights, at);
            assert!(error.dot(error).sqrt() < 2.0 * bound, "{at}");
        }
    }

    #[test]
    fn there_is_no_seam_no_hole_and_no_overlap() {
        for level in [0, 1] {
            // The points of the regular grid fall on rows and columns of the map.
            for grid in [regular(33, 64, 0.0), regular(33, 64, 2.8125), displaced()] {
                let weights = bilinear(&grid, level);
                let axis = match grid.tlat[0] == -80.0 {
                    true => Vector([0.0, 0.0, 1.0]),
                    false => Vector::of(LatLon { lat: 70.0, lon: 0.0 }),
                };
                let covered: std::collections::HashMap<usize, _> = weights.iter().collect();
                let n = mercator::size(level);
                for at in 0..n * n {
                    let from_equator = target(&weights, at).dot(axis).abs().asin().to_degrees();
                    // Between 79.8 and 80.2 degrees a point may lie on either side of the last edges,
                    // which are arcs of great circles.
                    if from_equator < 79.8 {
                        assert!(covered.contains_key(&at), "hole at {at} of level {level}");
                    } else if from_equator > 80.2 {
                        assert!(!covered.contains_key(&at), "{at} of level {level}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_point_on_an_edge_is_in_a_quad_of_that_edge() {
        let grid = displaced();
        let points: Vec<Vector> = fields(&grid)[0]
            .iter()
            .zip(&fields(&grid)[1])
            .zip(&fields(&grid)[2])
            .map(|((x, y), z)| Vector([*x, *y, *z]))
            .collect();
        let quad = |j: usize, i: usize| {
            let east = (i + 1) % grid.nlon;
            let index = [
                j * grid.nlon + i,
                j * grid.nlon + east,
                (j + 1) * grid.nlon + east,
                (j + 1) * grid.nlon + i,
            ];
            Quad { index, corners: index.map(|at| points[at]) }
        };
        // A point on a shared edge is in at least one of the two quads.
        for i in 0..grid.nlon {
            let shared =
                (points[10 * grid.nlon + i] + points[10 * grid.nlon + (i + 1) % grid.nlon]).unit();
            let containing =
                [quad(9, i), quad(10, i)].iter().filter(|q| q.contains(shared)).count();
            assert!(containing >= 1, "{i}");
            assert!(!quad(20, i).contains(shared));
            assert!(!quad(9, (i + 40) % grid.nlon).contains(shared));
        }
    }

    #[test]
    fn a_quad_with_a_nan_corner_is_skipped() {
        let mut grid = regular(33, 64, 0.0);
        grid.tlat[16 * 64 + 10] = f64::NAN;
        let (all, some) = (bilinear(&regular(33, 64, 0.0), 0), bilinear(&grid, 0));
        let lost = all.iter().count() - some.iter().count();
        assert!((10..40).contains(&lost), "{lost}");
        for (_, source) in some.iter() {
            assert!(!source.index.contains(&(16 * 64 + 10)));
        }
    }
}
