//! How much carbon a water column holds.

/// Inventory of a column and what it differs by from the reference's, both mmol/m^2.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnInventory {
    /// With the intervention.
    pub experimental: Vec<f64>,
    /// With it minus without.
    pub delta: Vec<f64>,
}

/// Columns of a tracer `with` and `without` the intervention, mmol/m^3 on (z, nlat, nlon).
///
/// `thickness` of the layers is in cm; `height` of the sea surface, cm, adds a layer of surface
/// water. A column whose surface is NaN is NaN; other cells that are NaN are passed over. The
/// difference is taken before the sum: columns are 10^7 times larger than what the map shows of
/// their difference, and two of them in f32 would leave noise.
///
/// ```
/// use dor_atlas::derive::column::columns;
///
/// // One column of two layers, 10 m and 20 m thick, under a sea surface that is 50 cm high.
/// let columns = columns(&[2000.0, 2100.0], &[1999.0, 2100.0], &[1000.0, 2000.0], &[50.0]);
/// assert_eq!(columns.experimental, [2000.0 * 10.5 + 2100.0 * 20.0]);
/// assert_eq!(columns.delta, [10.5]);
/// ```
pub fn columns<T: Copy + Into<f64>>(
    with: &[T],
    without: &[T],
    thickness: &[f64],
    height: &[f64],
) -> ColumnInventory {
    let n = height.len();
    let surface = || with.iter().zip(without).zip(height);
    let raised = |value: f64, height: f64| value * (height * 0.01);
    let mut experimental: Vec<f64> = surface().map(|((&w, _), &h)| raised(w.into(), h)).collect();
    let mut delta: Vec<f64> =
        surface().map(|((&w, &o), &h)| raised(w.into() - o.into(), h)).collect();
    for ((with, without), thickness) in with.chunks(n).zip(without.chunks(n)).zip(thickness) {
        let meters = thickness * 0.01;
        let sums = experimental.iter_mut().zip(&mut delta);
        for (((sum, change), &w), &o) in sums.zip(with).zip(without) {
            let (value, difference): (f64, f64) = (w.into(), w.into() - o.into());
            *sum += if value.is_nan() { 0.0 } else { value * meters };
            *change += if difference.is_nan() { 0.0 } else { difference * meters };
        }
    }
    ColumnInventory { experimental, delta }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f32 = f32::NAN;

    #[test]
    fn layers_and_the_raised_surface_are_added_up() {
        // Two columns of two layers: 10 m and 20 m; the second is shallow; the third is land.
        let with = [2000.0, 2100.0, NAN, 2200.0, NAN, 2300.0];
        let without = [1999.0, 2100.5, NAN, 2200.0, NAN, 2300.0];
        let columns = columns(&with, &without, &[1000.0, 2000.0], &[50.0, -10.0, 0.0]);
        assert_eq!(columns.experimental[0], 2000.0 * 10.0 + 2200.0 * 20.0 + 2000.0 * 0.5);
        assert_eq!(columns.experimental[1], 2100.0 * 10.0 - 2100.0 * 0.1);
        assert_eq!(columns.delta[..2], [10.0 + 0.5, -5.0 + 0.05]);
        assert!(columns.experimental[2].is_nan() && columns.delta[2].is_nan());
    }

    #[test]
    fn a_small_difference_of_large_columns_keeps_its_digits() {
        let with = vec![2345.678_f32; 60];
        let without: Vec<f32> = with.iter().map(|v| f32::from_bits(v.to_bits() - 1)).collect();
        let step = f64::from(with[0]) - f64::from(without[0]);
        let columns = columns(&with, &without, &[25_000.0; 60], &[0.0]);
        assert!((columns.delta[0] / (step * 15_000.0) - 1.0).abs() < 1e-12);
    }
}
