//! Column inventory: the amount of a tracer in each water column.

/// Inventories of columns on (nlat, nlon), mmol/m^2.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnInventory {
    /// Inventory of the experiment, NaN on land.
    pub experimental: Vec<f64>,
    /// Inventory of the experiment minus that of the control, NaN on land.
    pub delta: Vec<f64>,
}

/// Integrates a tracer of `experiment` and `control` over depth; both are in mmol/m^3 on
/// (z, nlat, nlon).
///
/// `thickness` is the thickness of each layer in cm. `height` is the sea surface height in cm, on
/// (nlat, nlon); it adds a layer of that thickness with the concentration of the surface. A column
/// whose surface is NaN is NaN. Other NaN cells are skipped. The function subtracts before it sums:
/// an inventory is 10^7 times larger than the differences that the map shows, so the difference of
/// two inventories in f32 would be noise.
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
    experiment: &[T],
    control: &[T],
    thickness: &[f64],
    height: &[f64],
) -> ColumnInventory {
    let n = height.len();
    let surface = || experiment.iter().zip(control).zip(height);
    let surface_layer = |value: f64, height: f64| value * (height * 0.01);
    let mut experimental: Vec<f64> =
        surface().map(|((&e, _), &h)| surface_layer(e.into(), h)).collect();
    let mut delta: Vec<f64> =
        surface().map(|((&e, &c), &h)| surface_layer(e.into() - c.into(), h)).collect();
    for ((experiment, control), thickness) in
        experiment.chunks(n).zip(control.chunks(n)).zip(thickness)
    {
        let meters = thickness * 0.01;
        let sums = experimental.iter_mut().zip(&mut delta);
        for (((sum, delta), &e), &c) in sums.zip(experiment).zip(control) {
            let (value, difference): (f64, f64) = (e.into(), e.into() - c.into());
            *sum += if value.is_nan() { 0.0 } else { value * meters };
            *delta += if difference.is_nan() { 0.0 } else { difference * meters };
        }
    }
    ColumnInventory { experimental, delta }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f32 = f32::NAN;

    #[test]
    fn an_inventory_is_the_sum_of_the_layers_and_the_surface_layer() {
        // Three columns of two layers, 10 m and 20 m thick: deep, of one layer, land.
        let experiment = [2000.0, 2100.0, NAN, 2200.0, NAN, 2300.0];
        let control = [1999.0, 2100.5, NAN, 2200.0, NAN, 2300.0];
        let columns = columns(&experiment, &control, &[1000.0, 2000.0], &[50.0, -10.0, 0.0]);
        assert_eq!(columns.experimental[0], 2000.0 * 10.0 + 2200.0 * 20.0 + 2000.0 * 0.5);
        assert_eq!(columns.experimental[1], 2100.0 * 10.0 - 2100.0 * 0.1);
        assert_eq!(columns.delta[..2], [10.0 + 0.5, -5.0 + 0.05]);
        assert!(columns.experimental[2].is_nan() && columns.delta[2].is_nan());
    }

    #[test]
    fn a_small_difference_of_large_inventories_keeps_its_digits() {
        let experiment = vec![2345.678_f32; 60];
        let control: Vec<f32> =
            experiment.iter().map(|v| f32::from_bits(v.to_bits() - 1)).collect();
        let step = f64::from(experiment[0]) - f64::from(control[0]);
        let columns = columns(&experiment, &control, &[25_000.0; 60], &[0.0]);
        assert!((columns.delta[0] / (step * 15_000.0) - 1.0).abs() < 1e-12);
    }
}
