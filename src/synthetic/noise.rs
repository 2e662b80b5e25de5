//! Numbers that look random and are not: hashes, and smooth patterns on the sphere.

/// A well mixed hash of 32 bits ("lowbias32" of Chris Wellons).
#[inline]
pub fn hash(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// Uniform in -1 to 1.
#[inline]
pub fn uniform(key: u32) -> f32 {
    (hash(key) >> 8) as f32 * (2.0 / 16_777_216.0) - 1.0
}

/// One key out of several numbers.
pub fn key(parts: &[u64]) -> u32 {
    parts.iter().fold(0x9e37_79b9, |k, &p| hash(k ^ hash(p as u32) ^ hash((p >> 32) as u32 ^ k)))
}

/// A sum of plane waves seen on the unit sphere: smooth everywhere, poles and date line included.
///
/// Its values have mean 0 and standard deviation 1, about.
pub struct Waves(Vec<[f64; 5]>);

impl Waves {
    /// `count` waves with wave numbers between `low` and `high` (radians a unit).
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
                // Energy falls with the wave number, as it does in the sea.
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

    /// The pattern at a place given in degrees.
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
