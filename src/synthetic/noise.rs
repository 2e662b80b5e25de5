//! Deterministic pseudo-random numbers: hashes, and smooth patterns on the sphere.

/// The 32-bit integer hash "lowbias32" of Chris Wellons.
#[inline]
pub fn hash(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// A uniform pseudo-random number from -1 to 1.
#[inline]
pub fn uniform(key: u32) -> f32 {
    (hash(key) >> 8) as f32 * (2.0 / 16_777_216.0) - 1.0
}

/// Combines several numbers into one key.
pub fn key(parts: &[u64]) -> u32 {
    parts.iter().fold(0x9e37_79b9, |k, &p| hash(k ^ hash(p as u32) ^ hash((p >> 32) as u32 ^ k)))
}

/// A sum of plane waves on the unit sphere, smooth everywhere, including the poles and the date line.
///
/// The values have a mean of about 0 and a standard deviation of about 1. Each wave is a wave vector
/// (x, y, z), a phase and an amplitude.
pub struct Waves(Vec<[f64; 5]>);

impl Waves {
    /// Creates `count` waves with wave numbers from `low` to `high`, radians per Earth radius.
    pub fn new(seed: u64, count: u64, low: f64, high: f64) -> Self {
        let draw = |i: u64, n: u64| f64::from(uniform(key(&[seed, i, n])));
        let wave = |i: u64| {
            let z = draw(i, 0);
            let azimuth = draw(i, 1) * std::f64::consts::PI;
            let number = low * (high / low).powf((i as f64 + 0.5) / count as f64);
            let ring = (1.0 - z * z).sqrt();
            [
                number * ring * azimuth.cos(),
                number * ring * azimuth.sin(),
                number * z,
                draw(i, 2) * std::f64::consts::PI,
                // The energy decreases with the wave number, as in the ocean.
                (low / number).sqrt(),
            ]
        };
        let mut waves: Vec<_> = (0..count).map(wave).collect();
        let power: f64 = waves.iter().map(|w| w[4] * w[4] / 2.0).sum();
        for wave in &mut waves {
            wave[4] /= power.sqrt();
        }
        Self(waves)
    }

    /// The value at a position in degrees.
    pub fn at(&self, lon: f64, lat: f64) -> f64 {
        let (sin_lon, cos_lon) = lon.to_radians().sin_cos();
        let (sin_lat, cos_lat) = lat.to_radians().sin_cos();
        let (x, y, z) = (cos_lat * cos_lon, cos_lat * sin_lon, sin_lat);
        self.0
            .iter()
            .map(|[a, b, c, phase, size]| size * (a * x + b * y + c * z + phase).sin())
            .sum()
    }
}
