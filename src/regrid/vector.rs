//! Three-dimensional vectors for points on the unit sphere.

use std::ops::{Add, Mul, Sub};

use crate::model::LatLon;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector(pub [f64; 3]);

impl Vector {
    pub fn of(LatLon { lat, lon }: LatLon) -> Self {
        let (lat, lon) = (lat.to_radians(), lon.to_radians());
        Self([lon.cos() * lat.cos(), lon.sin() * lat.cos(), lat.sin()])
    }

    pub fn dot(self, other: Self) -> f64 {
        self.0[0] * other.0[0] + self.0[1] * other.0[1] + self.0[2] * other.0[2]
    }

    pub fn cross(self, other: Self) -> Self {
        let ([a, b, c], [d, e, f]) = (self.0, other.0);
        Self([b * f - c * e, c * d - a * f, a * e - b * d])
    }

    /// The vector of length 1 in the same direction.
    pub fn unit(self) -> Self {
        self * (1.0 / self.dot(self).sqrt())
    }

    pub fn is_nan(self) -> bool {
        self.0.iter().any(|c| c.is_nan())
    }
}

impl Add for Vector {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] + other.0[n]))
    }
}

impl Sub for Vector {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|n| self.0[n] - other.0[n]))
    }
}

impl Mul<f64> for Vector {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self(self.0.map(|c| c * factor))
    }
}
