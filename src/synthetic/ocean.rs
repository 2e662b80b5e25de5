//! Monthly fields of a plausible marine carbonate system.
//!
//! Each field is a smooth function of position, depth and season, with eddies of a few cells. Noise at
//! grid scale, too small to matter physically, fills the low bytes of the mantissa as the arithmetic of
//! a real model does: after a byte shuffle the two low planes do not compress.
//!
//! With shuffle and zlib level 4, a full-size file is compressed to 38 % of its size, and its ocean
//! values to 61 %. With 60 levels, 63 % of the values are ocean, so that no content could compress to
//! more than 63 %.

use rayon::prelude::*;

use super::grid::{SyntheticGrid, TURN, wrap};
use super::netcdf3::put_floats;
use super::noise::{Waves, key, uniform};
use super::plume::PlumeMonth;
use crate::model::YearMonth;

/// Fill value of the model for floats.
pub const FILL_FLOAT: f32 = 9.969_21e36;
/// Partial pressure of CO2 in the air, ppmv.
const AIR: f32 = 367.0;

/// A quantity of the water; a field and its `*_ALT_CO2` counterpart are the same quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Dissolved inorganic carbon, mmol/m^3.
    Dic,
    /// Alkalinity, meq/m^3.
    Alk,
    /// Carbonate ion, mmol/m^3.
    Co3,
    /// Bicarbonate ion, mmol/m^3.
    Hco3,
    /// Carbonic acid, mmol/m^3.
    H2co3,
    /// pH on the total scale.
    Ph,
    /// Carbonate ion at saturation of aragonite, mmol/m^3.
    Aragonite,
    /// Carbonate ion at saturation of calcite, mmol/m^3.
    Calcite,
    /// Ideal age, years.
    Age,
    /// Partial pressure of CO2 at the surface, ppmv.
    Pco2,
    /// Flux of CO2 into the ocean, mmol/m^3 cm/s.
    Flux,
    /// Flux of carbon by the intervention, mmol/m^3 cm/s.
    DicFlux,
    /// Flux of alkalinity by the intervention, always 0.
    AlkFlux,
}

/// The horizontal fields that do not change from month to month.
pub struct Ocean {
    seed: u64,
    /// Annual mean warmth of the surface, 0 at the poles, 1 in the tropics.
    warm: Vec<f32>,
    /// Relative age of the deep water, 0 in the North Atlantic, 1 in the North Pacific.
    age: Vec<f32>,
    /// Sine of the latitude, the amplitude of the seasons.
    sine: Vec<f32>,
    /// Two independent fields of eddies; the time rotates between them.
    eddies: [Vec<f32>; 2],
}

/// The ocean in one month.
pub struct Sea<'a> {
    ocean: &'a Ocean,
    grid: &'a SyntheticGrid,
    month: YearMonth,
    plume: PlumeMonth,
    season: Vec<f32>,
    eddy: Vec<f32>,
}

/// State of the water at one point, without the intervention.
struct Water {
    dic: f32,
    alk: f32,
    warm: f32,
    age: f32,
    /// Influence of the surface: 1 at the top, 0 in the deep ocean.
    surface: f32,
    eddy: f32,
    depth_m: f32,
}

impl Ocean {
    /// Creates the ocean on a grid; the seed determines eddies and noise.
    pub fn new(grid: &SyntheticGrid, seed: u64) -> Self {
        let gyres = Waves::new(key(&[seed, 1]).into(), 8, 3.0, 9.0);
        let eddies = [2, 3].map(|n| Waves::new(key(&[seed, n]).into(), 20, 14.0, 160.0));
        let map = |f: &(dyn Fn(f64, f64) -> f64 + Sync)| -> Vec<f32> {
            let one = |n: usize| f(wrap(grid.tlong[n]), grid.tlat[n]) as f32;
            (0..grid.cells()).into_par_iter().map(one).collect()
        };
        let warm = |lon: f64, lat: f64| {
            let tongue = 0.12 * (-(lat / 4.0).powi(2) - (wrap(lon + 105.0) / 35.0).powi(2)).exp();
            lat.to_radians().cos().powf(1.6) + 0.03 * gyres.at(lon, lat) - tongue
        };
        let age = |lon: f64, lat: f64| {
            let pacific = 0.5 + 0.5 * wrap(lon + 165.0).to_radians().cos();
            let north = 1.0 / (1.0 + (-(lat + 20.0) / 18.0).exp());
            // The Arctic Ocean has water of the Atlantic.
            let arctic = 1.0 / (1.0 + (-(lat - 66.0) / 2.0).exp());
            let old = pacific * (0.45 + 0.55 * north) + (1.0 - pacific) * 0.35 * (1.0 - north);
            old + (0.1 - old) * arctic
        };
        Self {
            seed,
            warm: map(&warm),
            age: map(&age),
            sine: map(&|_, lat| lat.to_radians().sin()),
            eddies: eddies.each_ref().map(|waves| map(&|lon, lat| waves.at(lon, lat))),
        }
    }

    /// The ocean in `month`, with the plume of that month.
    pub fn month<'a>(
        &'a self,
        grid: &'a SyntheticGrid,
        month: YearMonth,
        plume: PlumeMonth,
    ) -> Sea<'a> {
        let year = (f64::from(month.month) - 8.5) / 12.0 * TURN;
        let season = self.sine.iter().map(|s| s * year.cos() as f32).collect();
        let turn = f64::from(month.year * 12 + i32::from(month.month)) / 17.0 * TURN;
        let (sin, cos) = (turn.sin() as f32, turn.cos() as f32);
        let [a, b] = &self.eddies;
        let eddy = a.iter().zip(b).map(|(a, b)| a * cos + b * sin).collect();
        Sea { ocean: self, grid, month, plume, season, eddy }
    }
}

impl Sea<'_> {
    /// Writes the field of `quantity` to `out`, whose length determines the number of levels from the
    /// top.
    ///
    /// With `altered`, the field includes the effect of the intervention.
    pub fn fill(&self, quantity: Quantity, altered: bool, out: &mut [u8]) {
        let middles = self.grid.middles();
        let level = |(k, out): (usize, &mut [u8])| {
            let depth = middles.get(k).map_or(0.0, |cm| (cm * 0.01) as f32);
            let month = (self.month.year as u64) << 8 | u64::from(self.month.month);
            let key = key(&[self.ocean.seed, month, quantity as u64, k as u64]);
            let response = if altered { quantity.response() * self.plume.profile(k) } else { 0.0 };
            let surface = (-depth / 420.0).exp();
            let middle = (-((depth - 900.0) / 650.0).powi(2)).exp();
            let value = |n: usize| {
                if usize::from(self.grid.kmt[n]) <= k {
                    return FILL_FLOAT;
                }
                let jitter = uniform(key.wrapping_add(n as u32));
                let water = self.water(n, depth, surface, middle);
                let plain = self.value(quantity, n, &water) + quantity.noise() * jitter;
                match quantity {
                    Quantity::Flux if altered => (f64::from(plain) + self.plume.uptake(n)) as f32,
                    _ => plain + response * self.plume.change(n),
                }
            };
            put_floats(out, (0..self.grid.cells()).map(value));
        };
        out.par_chunks_mut(self.grid.cells() * 4).enumerate().for_each(level);
    }

    #[inline]
    fn water(&self, n: usize, depth_m: f32, surface: f32, middle: f32) -> Water {
        let (ocean, eddy) = (self.ocean, self.eddy[n]);
        let (warm, age, season) = (ocean.warm[n], ocean.age[n], self.season[n]);
        // The seasons reach a depth of about 100 m, where `surface` is about 0.8.
        let shallow = (surface * 4.0 - 3.0).max(0.0);
        let warm = warm + 0.05 * season * shallow + 0.012 * eddy;
        let deep = 1.0 - surface;
        let dic = surface * (2165.0 - 205.0 * warm)
            + deep * (2165.0 + 165.0 * age)
            + middle * (15.0 + 40.0 * age)
            - 14.0 * season * shallow
            + eddy * (2.0 + 9.0 * surface);
        let alk = surface * (2275.0 + 55.0 * warm)
            + deep * (2330.0 + 75.0 * age)
            + eddy * (2.0 + 7.0 * surface);
        Water { dic, alk, warm, age, surface, eddy, depth_m }
    }

    #[inline]
    fn value(&self, quantity: Quantity, n: usize, water: &Water) -> f32 {
        let &Water { dic, alk, warm, age, surface, eddy, depth_m } = water;
        let co3 = (42.0 + 0.5 * (alk - dic)).max(25.0);
        let h2co3 = 9.0 + 26.0 * ((dic / alk - 0.85) * 8.0).max(0.0);
        let cold = 0.36 * (1.0 - warm) * surface;
        let pco2 = AIR - 13.0
            + 95.0 * (warm - 0.72) * (warm - 0.15).max(0.0)
            + 10.0 * self.season[n] * (2.0 * warm - 0.9)
            + 6.0 * eddy;
        match quantity {
            Quantity::Dic => dic,
            Quantity::Alk => alk,
            Quantity::Co3 => co3,
            Quantity::H2co3 => h2co3,
            Quantity::Hco3 => dic - co3 - h2co3,
            Quantity::Ph => 7.61 + 0.0020 * co3 + cold,
            Quantity::Aragonite => 62.0 + 0.0105 * depth_m + 3.0 * warm * surface,
            Quantity::Calcite => 40.0 + 0.0082 * depth_m + 2.0 * warm * surface,
            Quantity::Age => (1.0 - surface).powi(2) * (90.0 + 1050.0 * age + 8.0 * eddy) + 0.3,
            Quantity::Pco2 => pco2,
            Quantity::Flux => (AIR - pco2) * 2.4e-4 * (1.5 - 0.8 * warm),
            Quantity::DicFlux => self.plume.removal(n),
            Quantity::AlkFlux => 0.0,
        }
    }
}

impl Quantity {
    /// Amplitude of the noise, in the units of the quantity.
    fn noise(self) -> f32 {
        match self {
            Self::Dic | Self::Alk | Self::Hco3 => 1.0,
            Self::Co3 | Self::Age => 0.5,
            Self::H2co3 => 0.15,
            Self::Aragonite | Self::Calcite => 0.06,
            Self::Ph => 3e-3,
            Self::Pco2 => 0.4,
            Self::Flux => 2e-5,
            Self::DicFlux | Self::AlkFlux => 0.0,
        }
    }

    /// Change of the quantity for a change of DIC by 1 mmol/m^3.
    fn response(self) -> f32 {
        match self {
            Self::Dic => 1.0,
            Self::Co3 => -0.6,
            Self::Hco3 => 1.55,
            Self::H2co3 => 0.05,
            Self::Ph => -0.0018,
            Self::Pco2 => 1.7,
            _ => 0.0,
        }
    }
}
