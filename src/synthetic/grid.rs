//! A horizontal grid similar to gx1v7, and vertical levels, at any size.
//!
//! South of the equator, rows are circles of latitude. North of the equator, rows are circles whose
//! center moves towards Greenland: the last row lies on land, so that the grid pole is not in water.
//! The columns cut the rows at right angles (Smith, Kortas and Meltz, "Curvilinear coordinates for
//! global ocean models", 1995). Formulas give all positions; the spacing imitates the real grid.

use std::f64::consts::PI;
use std::sync::LazyLock;

use rayon::prelude::*;

use super::land::Land;

/// Fill value of the model for doubles.
pub const FILL: f64 = 9.969_209_968_386_87e36;
/// Radius of the Earth in the model, cm.
pub const RADIUS: f64 = 6.371_22e8;
/// Number of rows of the real grid, which determines the spacing.
const ROWS: f64 = 384.0;
/// Row of the real grid on the equator.
const EQUATOR: f64 = 187.0;
/// Longitude of the western edge of the grid, degrees.
const WEST: f64 = 320.0;
/// Rows and columns of a block of the real decomposition; the model does not compute land blocks.
const BLOCK: (usize, usize) = (16, 9);

/// Size of a grid: rows, columns, levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of rows, south to north.
    pub nlat: usize,
    /// Number of columns, west to east.
    pub nlon: usize,
    /// Number of levels; 60 gives the levels of the model, another number gives layers of 10 m.
    pub nz: usize,
}

impl Shape {
    /// The grid of the model, gx1v7.
    pub const FULL: Self = Self { nlat: 384, nlon: 320, nz: 60 };
    /// 1/8 of the rows and columns and the upper 100 m: fields are larger than metadata.
    pub const MEDIUM: Self = Self { nlat: 48, nlon: 40, nz: 10 };
    /// 1/16 of the rows and columns and the upper 50 m, for tests.
    pub const SMALL: Self = Self { nlat: 24, nlon: 20, nz: 5 };
}

/// Positions, cell sizes and depths of a grid; every field is `(nlat, nlon)`, row by row.
pub struct SyntheticGrid {
    /// Numbers of rows, columns and levels.
    pub shape: Shape,
    /// Latitude of T points, degrees.
    pub tlat: Vec<f64>,
    /// Longitude of T points, degrees 0 to 360.
    pub tlong: Vec<f64>,
    /// Latitude of U points, which lie north-east of the T points, degrees.
    pub ulat: Vec<f64>,
    /// Longitude of U points, degrees 0 to 360.
    pub ulong: Vec<f64>,
    /// Lengths of cell sides, cm: HTN, HTE, HUS, HUW.
    pub sides: [Vec<f64>; 4],
    /// Angle between the x axis of the grid and east at U and at T points, radians.
    pub angles: [Vec<f64>; 2],
    /// Number of wet levels of T cells.
    pub kmt: Vec<u8>,
    /// Basin number of T cells in POP; 0 on land.
    pub region: Vec<u8>,
    /// Whether a cell is in a land block that the model does not compute.
    pub eliminated: Vec<bool>,
    /// Thickness of the levels, cm.
    pub dz: Vec<f64>,
}

impl SyntheticGrid {
    /// Creates the grid of a shape.
    pub fn new(shape: Shape) -> Self {
        let Shape { nlat, nlon, nz } = shape;
        let rows = Rows::new();
        let row = |j: f64| rows.at(j * ROWS / nlat as f64);
        let column = |i: f64| i * 360.0 / nlon as f64;
        // Longitudes and latitudes of all cells, at an offset (rows, columns) in the cell.
        let points = |dj: f64, di: f64| -> (Vec<f64>, Vec<f64>) {
            let one = |n: usize| row((n / nlon) as f64 + dj).point(column((n % nlon) as f64 + di));
            (0..nlat * nlon).into_par_iter().map(one).unzip()
        };
        let (tlong, tlat) = points(0.5, 0.5);
        let (ulong, ulat) = points(1.0, 1.0);
        let (west_lon, west_lat) = points(1.0, 0.0);
        let (south_lon, south_lat) = points(0.0, 1.0);
        let (east_t_lon, east_t_lat) = points(0.5, 1.5);
        let (north_t_lon, north_t_lat) = points(1.5, 0.5);
        let distances = |a: (&[f64], &[f64]), b: (&[f64], &[f64])| -> Vec<f64> {
            let one = |n: usize| RADIUS * arc((a.0[n], a.1[n]), (b.0[n], b.1[n]));
            (0..nlat * nlon).into_par_iter().map(one).collect()
        };
        let u = (ulong.as_slice(), ulat.as_slice());
        let t = (tlong.as_slice(), tlat.as_slice());
        let sides = [
            distances((&west_lon, &west_lat), u),
            distances((&south_lon, &south_lat), u),
            distances(t, (&east_t_lon, &east_t_lat)),
            distances(t, (&north_t_lon, &north_t_lat)),
        ];
        let angles_at = |from: (&[f64], &[f64]), dj: f64, di: f64| -> Vec<f64> {
            let (lon, lat) = points(dj, di + 1e-4);
            let one = |n: usize| {
                let east = wrap(lon[n] - from.0[n]) * from.1[n].to_radians().cos();
                (lat[n] - from.1[n]).atan2(east)
            };
            (0..nlat * nlon).into_par_iter().map(one).collect()
        };
        let angles = [angles_at(u, 1.0, 1.0), angles_at(t, 0.5, 0.5)];
        let dz = thicknesses(nz);
        let land = Land::new();
        let is_in_dry_block = |n: usize| {
            let j = ((n / nlon) as f64 + 0.5) * ROWS / nlat as f64;
            let i = ((n % nlon) as f64 + 0.5) * 320.0 / nlon as f64;
            DRY_BLOCKS[(j as usize / BLOCK.0) * BLOCK_COLUMNS + i as usize / BLOCK.1]
        };
        let eliminated: Vec<bool> = (0..nlat * nlon).map(is_in_dry_block).collect();
        let wet_levels = |n: usize| {
            let (lon, lat) = (wrap(tlong[n]), tlat[n]);
            let inland = land.inland(lon, lat);
            if inland > 0.0 || eliminated[n] {
                return 0;
            }
            let depth = land.depth(lon, lat, -inland);
            let mut bottom = 0.0;
            let wet = dz.iter().take_while(|&&d| {
                bottom += d;
                bottom - d / 2.0 <= depth
            });
            wet.count().clamp(nz.min(3), nz) as u8
        };
        let kmt: Vec<u8> = (0..nlat * nlon).into_par_iter().map(wet_levels).collect();
        let basin = |n: usize| if kmt[n] == 0 { 0 } else { region(wrap(tlong[n]), tlat[n]) };
        let region = (0..nlat * nlon).map(basin).collect();
        Self { shape, tlat, tlong, ulat, ulong, sides, angles, kmt, region, eliminated, dz }
    }

    /// Number of cells of one level.
    pub fn cells(&self) -> usize {
        self.tlat.len()
    }

    /// Depth of the middle of each level, cm.
    pub fn middles(&self) -> Vec<f64> {
        let mut top = 0.0;
        let middle = |d: &f64| {
            top += d;
            top - d / 2.0
        };
        self.dz.iter().map(middle).collect()
    }

    /// Width of T cell `n`, cm: the mean of its northern and southern sides.
    pub fn dxt(&self, n: usize) -> f64 {
        let south = n.checked_sub(self.shape.nlon).unwrap_or(n);
        (self.sides[0][n] + self.sides[0][south]) / 2.0
    }

    /// Height of T cell `n`, cm: the mean of its eastern and western sides.
    pub fn dyt(&self, n: usize) -> f64 {
        let nlon = self.shape.nlon;
        let west = n - n % nlon + (n % nlon + nlon - 1) % nlon;
        (self.sides[1][n] + self.sides[1][west]) / 2.0
    }

    /// Width of U cell `n`, cm.
    pub fn dxu(&self, n: usize) -> f64 {
        let north = if n + self.shape.nlon < self.cells() { n + self.shape.nlon } else { n };
        (self.sides[2][n] + self.sides[2][north]) / 2.0
    }

    /// Height of U cell `n`, cm.
    pub fn dyu(&self, n: usize) -> f64 {
        let (sides, east) = (&self.sides[3], self.east(n));
        (sides[n] + sides[east]) / 2.0
    }

    /// Area of T cell `n`, cm^2.
    pub fn tarea(&self, n: usize) -> f64 {
        self.dxt(n) * self.dyt(n)
    }

    /// Number of wet levels of U cell `n`: the smallest of its four T cells.
    pub fn kmu(&self, n: usize) -> u8 {
        let east = self.east(n);
        let north = |n: usize| self.kmt.get(n + self.shape.nlon).copied().unwrap_or(0);
        self.kmt[n].min(self.kmt[east]).min(north(n)).min(north(east))
    }

    /// Depth of the bottom of `levels` levels, cm.
    pub fn bottom(&self, levels: u8) -> f64 {
        self.dz.iter().take(usize::from(levels)).sum()
    }

    fn east(&self, n: usize) -> usize {
        let nlon = self.shape.nlon;
        n - n % nlon + (n % nlon + 1) % nlon
    }
}

/// Normalizes an angle to the range from -180 to less than 180 degrees.
pub fn wrap(degrees: f64) -> f64 {
    (degrees + 180.0).rem_euclid(360.0) - 180.0
}

/// Central angle between two points (longitude and latitude in degrees), radians.
pub fn arc(a: (f64, f64), b: (f64, f64)) -> f64 {
    let half = |x: f64, y: f64| ((y - x).to_radians() / 2.0).sin().powi(2);
    let across = a.1.to_radians().cos() * b.1.to_radians().cos() * half(a.0, b.0);
    2.0 * (half(a.1, b.1) + across).sqrt().min(1.0).asin()
}

/// Thickness of the levels, cm: for 60 levels those of gx1v7 (10 m down to 160 m, then growing to
/// 250 m; 5500 m in total), otherwise 10 m.
fn thicknesses(nz: usize) -> Vec<f64> {
    if nz != 60 {
        return vec![1_000.0; nz];
    }
    let thickness = |k: usize, middle: f64| {
        if k < 16 {
            1_000.0
        } else {
            1_000.0 + 12_000.0 * (1.0 + ((k as f64 - middle) / 6.0).tanh())
        }
    };
    let total = |middle: f64| (0..60).map(|k| thickness(k, middle)).sum::<f64>();
    let (mut low, mut high) = (20.0, 60.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if total(middle) > 550_000.0 { low = middle } else { high = middle }
    }
    (0..60).map(|k| thickness(k, low)).collect()
}

/// One row: a circle of latitude in the south, a displaced circle in the north, on the stereographic
/// plane (projected from the south pole, x axis towards `WEST`).
struct Row {
    /// x coordinate of the center.
    center: f64,
    radius: f64,
    /// Factor by which the columns turn away from the x axis.
    bend: f64,
}

impl Row {
    /// Longitude (0 to 360) and latitude at `column` degrees east of the western edge of the grid.
    fn point(&self, column: f64) -> (f64, f64) {
        let start = wrap(column).to_radians();
        let angle = 2.0 * ((start / 2.0).sin() * self.bend).atan2((start / 2.0).cos());
        let (x, y) = (self.center + self.radius * angle.cos(), self.radius * angle.sin());
        let lon = (WEST + y.atan2(x).to_degrees()).rem_euclid(360.0);
        (lon, 90.0 - 2.0 * x.hypot(y).atan().to_degrees())
    }
}

/// The rows as a function of the (fractional) row number of the real grid.
struct Rows {
    /// Logarithm of the bend in steps of `1 / STEPS` rows from the equator.
    bends: Vec<f64>,
}

/// Number of integration steps for each row.
const STEPS: f64 = 8.0;

impl Rows {
    fn new() -> Self {
        let mut rows = Self { bends: vec![0.0] };
        let mut bend = 0.0;
        for step in 0..((ROWS + 4.0 - EQUATOR) * STEPS) as usize {
            let (a, b) = (step as f64 / STEPS, (step + 1) as f64 / STEPS);
            let (a, b) = (circle(EQUATOR + a), circle(EQUATOR + b));
            bend += (b.0 - a.0) / ((a.1 + b.1) / 2.0);
            rows.bends.push(bend);
        }
        rows
    }

    fn at(&self, y: f64) -> Row {
        // The formula fails beyond this row, which only the size of U cells needs.
        let y = y.min(ROWS + 4.0);
        let (center, radius) = circle(y);
        let step = ((y - EQUATOR) * STEPS).max(0.0);
        let at = |n: usize| self.bends.get(n).or(self.bends.last()).copied().unwrap_or(0.0);
        let (below, part) = (step as usize, step.fract());
        let bend = at(below) * (1.0 - part) + at(below + 1) * part;
        Row { center, radius, bend: bend.exp() }
    }
}

/// Center and radius of the circle of row `y`.
fn circle(y: f64) -> (f64, f64) {
    let softplus = |x: f64| x.exp().ln_1p();
    let latitudes = if y <= EQUATOR {
        let refined = 8.0 * (softplus((110.7 - y) / 8.0) - softplus((110.7 - EQUATOR) / 8.0));
        let south = -0.267 * (EQUATOR - y + refined);
        (south, south)
    } else {
        let grown = 8.0 * (softplus((y - 258.0) / 8.0) - softplus((EQUATOR - 258.0) / 8.0));
        let north = 0.267 * (y - EQUATOR);
        (north + 0.158 * grown, north + 0.374 * grown)
    };
    let near = ((90.0 - latitudes.0) / 2.0).to_radians().tan();
    let far = -((90.0 - latitudes.1) / 2.0).to_radians().tan();
    ((near + far) / 2.0, (near - far) / 2.0)
}

/// Number of rows of blocks.
const BLOCK_ROWS: usize = 24;
/// Number of columns of blocks.
const BLOCK_COLUMNS: usize = 36;

/// Whether each block of the real grid is land only, by 25 probes; the same for every shape.
static DRY_BLOCKS: LazyLock<Vec<bool>> = LazyLock::new(|| {
    let (rows, land) = (Rows::new(), Land::new());
    let is_dry = |block: usize| {
        let (j0, i0) = (block / BLOCK_COLUMNS * BLOCK.0, block % BLOCK_COLUMNS * BLOCK.1);
        (0..25).all(|probe| {
            let j = j0 as f64 + (probe / 5) as f64 * BLOCK.0 as f64 / 4.0;
            let i = i0 as f64 + (probe % 5) as f64 * BLOCK.1 as f64 / 4.0;
            let (lon, lat) = rows.at(j).point(i * 1.125);
            land.inland(wrap(lon), lat) > 0.0
        })
    };
    (0..BLOCK_ROWS * BLOCK_COLUMNS).map(is_dry).collect()
});

/// Basin number in POP of a wet point.
fn region(lon: f64, lat: f64) -> u8 {
    match (lon, lat) {
        (_, ..-34.0) => 1,
        (-5.5..36.5, 30.0..46.0) => 7,
        (-70.0..-43.0, 50.0..68.0) => 8,
        (-95.0..-70.0, 50.0..66.0) => 11,
        (-43.0..20.0, 62.0..78.0) => 9,
        (_, 66.0..) => 10,
        _ if pacific(lon, lat) => 2,
        (20.0..150.0, _) => 3,
        _ => 6,
    }
}

/// Whether a position between 34 S and 66 N is in the Pacific Ocean.
pub fn pacific(lon: f64, lat: f64) -> bool {
    let america = match lat {
        ..9.0 => -70.0,
        9.0..15.0 => -84.0,
        15.0..20.0 => -92.0,
        _ => -100.0,
    };
    let asia = match lat {
        ..-8.0 => 142.0,
        -8.0..9.0 => 117.0,
        _ => 100.0,
    };
    lon < america || lon > asia
}

/// A full turn in radians, for the seasons and rotating patterns.
pub const TURN: f64 = 2.0 * PI;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_resemble_those_of_the_model() {
        let dz = thicknesses(60);
        assert!((dz.iter().sum::<f64>() - 550_000.0).abs() < 1.0);
        assert!(dz.windows(2).all(|w| w[0] <= w[1]));
        assert!((24_000.0..25_100.0).contains(&dz[59]), "{}", dz[59]);
    }

    #[test]
    fn cells_cover_the_sphere_and_columns_cut_rows_at_right_angles() {
        let grid = SyntheticGrid::new(Shape { nlat: 96, nlon: 80, nz: 5 });
        let area: f64 = (0..grid.cells()).map(|n| grid.tarea(n)).sum();
        let sphere = 4.0 * PI * RADIUS * RADIUS;
        // The caps south of 79.5 S and inside Greenland are missing.
        assert!((0.975..1.0).contains(&(area / sphere)), "{}", area / sphere);
        let lat = |j: usize, i: usize| grid.tlat[j * 80 + i];
        assert!((-79.3..-78.0).contains(&lat(0, 0)));
        assert!(grid.tlat.iter().any(|&l| l > 88.0), "the north pole is inside the grid");
        assert!((70.0..76.0).contains(&lat(95, 0)), "the last row is in Greenland");
        for n in (40 * 80..94 * 80).step_by(7) {
            let diagonal =
                arc((grid.tlong[n], grid.tlat[n]), (grid.ulong[n], grid.ulat[n])).powi(2);
            let legs = (grid.dxt(n) / 2.0).powi(2) + (grid.dyt(n) / 2.0).powi(2);
            assert!((diagonal * RADIUS * RADIUS / legs - 1.0).abs() < 0.2, "{n}");
        }
    }

    #[test]
    fn the_land_fraction_is_that_of_the_earth_and_land_blocks_are_eliminated() {
        for shape in [Shape { nlat: 96, nlon: 80, nz: 60 }, Shape::SMALL] {
            let grid = SyntheticGrid::new(shape);
            let cells = grid.cells() as f64;
            let land = grid.kmt.iter().filter(|&&k| k == 0).count() as f64 / cells;
            let eliminated = grid.eliminated.iter().filter(|&&e| e).count() as f64 / cells;
            assert!((0.26..0.33).contains(&land), "{land}");
            assert!((0.11..0.16).contains(&eliminated), "{eliminated}");
            assert!((0..grid.cells()).all(|n| !grid.eliminated[n] || grid.kmt[n] == 0));
            assert!(grid.kmt.iter().any(|&k| k > 0 && usize::from(k) < shape.nz));
        }
    }
}
