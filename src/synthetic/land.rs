//! Coarse outlines of the continents with a rough coast, and the depth of the ocean between them.
//!
//! The outlines are drawn by hand for this program; no coastline data set is used.

use super::noise::Waves;

/// Corners of one land mass: longitude and latitude, degrees.
type Outline = &'static [(f32, f32)];

#[rustfmt::skip]
const OUTLINES: &[Outline] = &[
    // North and Central America
    &[(-168., 66.), (-162., 60.), (-157., 57.5), (-163., 55.), (-152., 59.), (-145., 60.5), (-137., 58.5), (-131., 54.),
      (-124., 48.), (-124., 40.), (-118., 33.5), (-112., 26.), (-110., 23.), (-112.5, 31.), (-106., 23.), (-105., 20.),
      (-96., 15.5), (-91., 14.), (-86., 11.5), (-83., 8.5), (-79.5, 7.2), (-76.5, 7.), (-76.5, 9.), (-80., 9.7), (-83., 10.8),
      (-83.3, 15.), (-88.5, 16.), (-87., 21.3), (-90.5, 21.), (-91., 18.7), (-95., 18.7), (-97.5, 22.5), (-97., 28.),
      (-91., 29.3), (-84., 30.), (-82.5, 27.5), (-81., 25.2), (-80.2, 27.), (-81.3, 31.), (-76., 35.), (-74., 40.),
      (-70., 42.), (-66., 44.5), (-61., 46.), (-65., 48.5), (-60., 50.), (-56., 52.5), (-61., 56.), (-65., 60.),
      (-70., 61.), (-78., 62.4), (-77., 57.), (-79.5, 52.), (-82.5, 55.), (-92., 57.), (-94.5, 61.), (-87., 65.),
      (-82., 68.), (-92., 71.5), (-97., 71.), (-105., 68.), (-115., 68.5), (-127., 70.2), (-141., 69.7), (-156., 71.2), (-166., 68.3)],
    // Baffin, Victoria and Ellesmere Islands
    &[(-62., 66.), (-66., 62.3), (-73., 64.5), (-73., 68.), (-89., 70.5), (-89., 73.5), (-80., 73.7), (-68., 70.)],
    &[(-120., 73.), (-105., 73.5), (-101., 69.5), (-115., 69.8)],
    &[(-92., 75.5), (-80., 75.), (-76., 79.), (-62., 82.3), (-70., 83.), (-90., 81.5), (-97., 79.)],
    // South America
    &[(-77.5, 8.7), (-72., 12.), (-62., 10.5), (-52., 5.), (-50., 0.), (-44., -2.7), (-35., -5.5), (-35., -9.), (-39., -14.),
      (-39.5, -20.), (-42., -23.), (-48., -26.), (-52., -33.), (-57., -36.5), (-62., -39.), (-65., -43.), (-66., -47.),
      (-69., -51.), (-65.5, -55.), (-70., -55.5), (-75., -51.), (-74., -44.), (-73., -37.), (-71.5, -30.), (-70.3, -19.),
      (-76., -14.), (-81., -6.), (-80., -2.5), (-78., 2.), (-77.5, 7.)],
    // Greenland
    &[(-45., 60.), (-52., 64.5), (-54., 68.), (-52., 70.), (-58., 75.5), (-70., 76.3), (-67., 79.5), (-58., 82.2), (-33., 83.6),
      (-18., 81.5), (-19., 76.), (-22., 71.), (-28., 68.3), (-38., 66.), (-42., 62.)],
    // Africa and Eurasia
    &[(18., -34.5), (25., -34.), (31., -29.5), (35.5, -23.5), (35., -19.5), (40.5, -15.), (39.3, -7.), (43., -1.), (51., 11.5),
      (43.5, 11.5), (39., 16.), (35., 25.), (32.5, 29.8), (34.8, 29.), (39.5, 21.5), (43.5, 13.), (52., 15.8), (59.5, 22.), (56.5, 25.),
      (51.5, 25.), (50., 29.5), (57., 27.), (66.5, 25.2), (70., 21.), (73., 17.), (76., 9.), (77.5, 8.), (80., 14.5), (87., 21.),
      (91.5, 22.5), (94., 17.), (98., 14.), (98.5, 8.5), (101.5, 2.5), (104., 1.5), (103., 5.), (100., 12.5), (105., 9.),
      (109., 12.), (106., 18.), (109., 21.3), (117., 23.5), (121.5, 29.), (119.5, 35.), (122., 37.3), (118., 39.), (121.5, 40.5),
      (125., 39.5), (126.5, 34.5), (129.3, 36.), (128., 40.), (133., 43.), (140., 48.5), (140., 53.), (136., 54.5), (143., 59.),
      (155., 59.3), (163., 62.3), (156., 57.), (156.5, 51.), (162., 56.), (163.5, 60.), (170., 60.), (179., 62.5), (190., 66.),
      (180., 69.), (160., 69.7), (140., 72.5), (128., 73.), (113., 74.), (104., 77.5), (90., 75.5), (80., 72.8), (68., 68.5),
      (60., 69.), (44., 68.), (41., 66.5), (33., 69.5), (25., 71.), (14., 67.), (5.5, 62.), (6., 58.3), (10.5, 59.), (10., 57.5),
      (8.2, 57.), (8.5, 54.), (3., 51.5), (-1.5, 49.5), (-4.5, 48.4), (-1.2, 46.), (-1.5, 43.4), (-9., 43.3), (-9., 37.),
      (-6., 36.5), (-2., 36.9), (0., 39.), (3.3, 42.), (6., 43.), (10., 44.), (12.3, 41.7), (15.7, 40.), (16., 38.), (18.4, 40.),
      (13.7, 43.5), (13.5, 45.5), (19., 42.), (21.5, 37.), (24., 38.), (24., 40.5), (27., 40.), (27., 37.), (36., 36.5),
      (34.5, 31.5), (30., 31.3), (20., 31.), (19., 30.3), (11., 33.5), (10., 37.), (0., 35.8), (-5.5, 35.), (-9.5, 31.),
      (-17., 21.), (-17.3, 14.7), (-13., 8.5), (-8., 4.5), (2., 6.3), (8.5, 4.5), (9.5, 1.), (13., -8.), (12., -17.), (15., -27.)],
    // Australia, New Guinea, the Sunda islands, the Philippines
    &[(114., -22.), (113.5, -26.), (115.5, -34.), (124., -33.), (131., -31.5), (138., -35.), (144., -38.5), (150., -37.5),
      (153.3, -28.5), (149., -20.5), (145.5, -15.), (142.5, -10.8), (140.5, -17.5), (136., -15.), (136.5, -12.), (131., -12.),
      (126., -14.5), (122., -18.)],
    &[(131., -1.), (138., -1.7), (147., -6.), (150.5, -10.5), (143., -9.), (138., -8.2), (133., -4.)],
    &[(109., 1.5), (117., 7.), (119., 5.), (117.5, 1.), (116., -4.), (110.5, -3.)],
    &[(95.5, 5.5), (104., -1.), (106., -6.), (114.5, -7.3), (114., -8.8), (106., -7.7), (102., -5.)],
    &[(120., 18.5), (122.5, 18.), (126.5, 7.), (122.5, 7.)],
    // Japan, New Zealand, Madagascar
    &[(130., 32.), (136., 36.8), (140., 41.), (141.5, 45.7), (145.5, 43.3), (142., 39.5), (140.8, 35.3), (135., 33.3)],
    &[(172.7, -34.3), (178.5, -37.8), (175., -41.7), (171., -46.), (166.5, -46.7), (171., -41.7)],
    &[(49.3, -12.), (50.5, -15.5), (47., -25.5), (43.7, -24.), (44., -17.)],
    // Britain and Ireland, Iceland, Svalbard, Novaya Zemlya, Severnaya Zemlya
    &[(-5.5, 50.), (1.3, 51.3), (0., 53.), (-2., 57.5), (-5.5, 58.7), (-10.3, 52.)],
    &[(-23.5, 63.6), (-13.5, 64.3), (-15., 66.6), (-23.5, 66.5)],
    &[(11., 79.), (17., 76.5), (26., 79.7), (15., 80.3)],
    &[(52., 71.), (58., 70.3), (69., 76.8), (60., 76.3)],
    &[(93., 79.), (105., 77.5), (100., 81.3)],
    // Cuba, Hispaniola, Newfoundland
    &[(-84.8, 22.), (-80., 23.5), (-74., 20.2), (-78., 19.7)],
    &[(-74.5, 18.), (-72., 20.2), (-68.3, 18.5)],
    &[(-59.5, 47.5), (-52.7, 46.5), (-55.5, 51.7)],
    // Antarctica, with both ends carried past the date line
    &[(-195., -77.5), (-180., -78.), (-165., -78.), (-150., -76.5), (-130., -74.), (-105., -74.5), (-85., -73.), (-72., -71.),
      (-67., -67.), (-57., -63.3), (-61., -68.), (-63., -74.5), (-50., -77.5), (-35., -77.5), (-20., -73.), (0., -70.),
      (15., -69.5), (35., -69.), (50., -66.7), (70., -68.5), (90., -66.5), (115., -66.5), (135., -66.), (150., -68.5),
      (165., -71.), (165., -77.5), (180., -78.), (195., -78.), (195., -100.), (-195., -100.)],
];

/// The land and the ocean floor, the same for every seed.
pub struct Land {
    /// Outlines with their bounding box: west, east, south, north.
    outlines: Vec<(Outline, [f32; 4])>,
    /// Roughness of the coast.
    coast: Waves,
    /// Roughness of the ocean floor.
    bottom: Waves,
}

/// Largest distance from land, degrees; larger distances are cut to it.
const FAR: f32 = 25.0;

impl Land {
    /// Creates the land of all synthetic cases.
    pub fn new() -> Self {
        let bounds = |outline: Outline| {
            outline.iter().fold([f32::MAX, f32::MIN, f32::MAX, f32::MIN], |b, &(x, y)| {
                [b[0].min(x), b[1].max(x), b[2].min(y), b[3].max(y)]
            })
        };
        Self {
            outlines: OUTLINES.iter().map(|&o| (o, bounds(o))).collect(),
            coast: Waves::new(11, 14, 40.0, 220.0),
            bottom: Waves::new(12, 24, 8.0, 110.0),
        }
    }

    /// Approximate distance from the coast in degrees of a great circle, positive on land, negative in
    /// the ocean. `lon` is -180 to 180.
    pub fn inland(&self, lon: f64, lat: f64) -> f64 {
        let (lon32, lat32) = (lon as f32, lat as f32);
        let shifted = if lon < 0.0 { lon + 360.0 } else { lon - 360.0 };
        let smooth = self.smooth_inland(lon32, lat32);
        let smooth = smooth.max(self.smooth_inland(shifted as f32, lat32));
        f64::from(smooth) + 0.55 * self.coast.at(lon, lat)
    }

    /// Depth of the ocean in cm at a distance of `offshore` degrees from the coast.
    pub fn depth(&self, lon: f64, lat: f64, offshore: f64) -> f64 {
        let roughness = self.bottom.at(lon, lat);
        let shelf = 3_000.0 + 14_000.0 * (offshore / 0.9).min(1.0);
        let slope = ((offshore - 0.8) / 2.0).clamp(0.0, 1.0);
        // The Mid-Atlantic Ridge follows the S shape of the coasts; the East Pacific Rise and the
        // ridges around Antarctica and in the Indian Ocean are arcs.
        let atlantic = lon + 30.0 + 14.0 * ((lat - 15.0) / 28.0).sin();
        let pacific = lon + 112.0 + 6.0 * (lat / 30.0).sin();
        let indian = lon - 72.0 + 9.0 * (lat / 14.0).cos();
        let antarctic = lat + 54.0 - 4.0 * (lon / 40.0).sin();
        let hump = |distance: f64, width: f64| (-(distance / width).powi(2)).exp();
        let ridge = hump(atlantic, 6.0)
            + hump(pacific, 7.0) * hump(lat + 20.0, 40.0)
            + hump(indian, 6.0) * hump(lat + 25.0, 30.0)
            + 0.7 * hump(antarctic, 4.0) * hump((lon.abs() - 180.0).min(0.0) + 40.0, 90.0);
        let abyss = 550_000.0 - 200_000.0 * ridge.min(1.0) + 45_000.0 * roughness;
        let smooth = slope * slope * (3.0 - 2.0 * slope);
        (shelf + (abyss - shelf) * smooth).clamp(3_000.0, 549_000.0)
    }

    /// Distance from the outlines in degrees, without roughness.
    fn smooth_inland(&self, lon: f32, lat: f32) -> f32 {
        let lon_scale = lat.to_radians().cos().max(0.05);
        let mut inland = -FAR;
        for (outline, [west, east, south, north]) in &self.outlines {
            let reach = -inland.min(0.0);
            let dx = (west - lon).max(lon - east) * lon_scale;
            let dy = (south - lat).max(lat - north);
            if dx > reach || dy > reach {
                continue;
            }
            let distance = signed_distance(outline, lon, lat, lon_scale);
            inland = inland.max(distance);
        }
        inland
    }
}

/// Distance to an outline in degrees, positive inside, on a plane that is true to scale at the point.
fn signed_distance(outline: Outline, lon: f32, lat: f32, lon_scale: f32) -> f32 {
    let mut nearest = f32::MAX;
    let mut inside = false;
    let Some(&last) = outline.last() else { return -FAR };
    let mut a = last;
    for &b in outline {
        let (px, py) = ((lon - a.0) * lon_scale, lat - a.1);
        let (ex, ey) = ((b.0 - a.0) * lon_scale, b.1 - a.1);
        let along = ((px * ex + py * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (dx, dy) = (px - along * ex, py - along * ey);
        nearest = nearest.min(dx * dx + dy * dy);
        if (a.1 > lat) != (b.1 > lat) && lon < a.0 + (lat - a.1) / (b.1 - a.1) * (b.0 - a.0) {
            inside = !inside;
        }
        a = b;
    }
    if inside { nearest.sqrt() } else { -nearest.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_positions_are_wet_or_dry() {
        let land = Land::new();
        let dry = [
            (-100., 45.),
            (-60., -10.),
            (20., 5.),
            (100., 60.),
            (135., -25.),
            (-40., 73.),
            (0., -85.),
        ];
        let wet = [(-40., 30.), (-150., 10.), (80., -20.), (180., 0.), (-140., 85.), (0., -55.)];
        for (lon, lat) in dry {
            assert!(land.inland(lon, lat) > 0.0, "{lon} {lat} is in the ocean");
        }
        for (lon, lat) in wet {
            assert!(land.inland(lon, lat) < 0.0, "{lon} {lat} is on land");
        }
    }
}
