//! Colour scales: the colour of a value, and round numbers along the scale.

use colorous::{Gradient, RED_BLUE, VIRIDIS};

/// Fraction of the values that may lie beyond the scale at each end.
const BEYOND: f64 = 0.0002;

/// A linear scale from values to colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorScale {
    /// Value of the first colour.
    pub low: f64,
    /// Value of the last colour.
    pub high: f64,
    diverging: bool,
}

impl ColorScale {
    /// Creates a scale over the finite values. A `diverging` scale is symmetric with white at 0.
    /// `None` when no value is finite.
    pub fn over(values: &[f32], diverging: bool) -> Option<Self> {
        let magnitude = |v: f64| if diverging { v.abs() } else { v };
        let mut known: Vec<f64> =
            values.iter().filter(|v| v.is_finite()).map(|&v| magnitude(v.into())).collect();
        known.sort_unstable_by(f64::total_cmp);
        let at = |fraction: f64| known.get(((known.len() - 1) as f64 * fraction).round() as usize);
        if known.is_empty() {
            return None;
        }
        let (first, last) = (*at(BEYOND)?, *at(1.0 - BEYOND)?);
        // When nearly all values are 0, the largest one is the end of the scale.
        let last = if last == 0.0 { *known.last()? } else { last };
        let (low, high) = if diverging { (-last, last) } else { (first, last) };
        let margin = if low == high { low.abs().max(1.0) * 0.5 } else { 0.0 };
        Some(Self { low: low - margin, high: high + margin, diverging })
    }

    /// Whether a value lies beyond an end of the scale.
    pub fn is_beyond(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }

    /// Colour (red, green, blue) of a value. A value beyond an end has the colour of that end.
    pub fn color(&self, value: f64) -> [u8; 3] {
        let fraction = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        let (gradient, fraction): (Gradient, f64) =
            if self.diverging { (RED_BLUE, 1.0 - fraction) } else { (VIRIDIS, fraction) };
        let color = gradient.eval_continuous(fraction);
        [color.r, color.g, color.b]
    }

    /// About `count` round values along the scale, each with its label.
    pub fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let step = round_step((self.high - self.low) / count.max(1) as f64);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let largest = self.low.abs().max(self.high.abs());
        let text = |value: f64| match largest {
            1e5.. | ..1e-3 if value != 0.0 => format!("{value:.1e}"),
            _ => format!("{value:.decimals$}"),
        };
        let plain = |text: String| {
            if text.trim_start_matches('-').chars().all(|c| "0.".contains(c)) {
                "0".to_owned()
            } else {
                text
            }
        };
        (first..=last).map(|n| n as f64 * step).map(|v| (v, plain(text(v)))).collect()
    }
}

/// Rounds up to 1, 2, 5 or 10 times a power of ten.
fn round_step(raw: f64) -> f64 {
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= raw * 0.999);
    factor.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diverging_scales_have_white_at_0() {
        let scale = ColorScale::over(&[-1.0, f32::NAN, 0.0, 3.0], true).unwrap();
        assert_eq!((scale.low, scale.high), (-3.0, 3.0));
        assert!(scale.color(0.0).iter().all(|c| *c > 235));
        let [red, blue] = [scale.color(3.0), scale.color(-3.0)];
        assert!(red[0] > red[2] && blue[2] > blue[0]);
        assert_eq!(ColorScale::over(&[f32::NAN], true), None);
    }

    #[test]
    fn ticks_are_round_numbers() {
        let scale = ColorScale { low: -0.31, high: 0.31, diverging: true };
        let texts: Vec<String> = scale.ticks(6).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["-0.2", "0", "0.2"]);
        let scale = ColorScale { low: 0.0, high: 2.4e6, diverging: false };
        assert_eq!(scale.ticks(5)[1].1, "5.0e5");
    }

    #[test]
    fn the_scale_of_a_constant_surrounds_it() {
        let scale = ColorScale::over(&[8.0; 10], false).unwrap();
        assert!(scale.low < 8.0 && scale.high > 8.0);
        assert!(ColorScale::over(&[0.0; 10], true).unwrap().high > 0.0);
    }
}
