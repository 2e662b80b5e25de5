//! Efficiency of a removal: what the sea took up in return, over what was taken out.

/// From the model's air-sea flux (mmol/m^3 cm/s = nmol/cm^2/s) to mol/m^2/yr.
const TO_MOL_PER_M2_YR: f64 = 1e-9 * 1e4 * 86_400.0 * 365.0;
/// From cm^2 to m^2.
const TO_M2: f64 = 1e-4;
/// Days of the noleap year.
const YEAR: f64 = 365.0;

/// A month's exchange of carbon over the whole ocean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CarbonFlux {
    /// Length of the month, days.
    pub days: f64,
    /// Additional flux out of the sea, mol/yr: `-(FG_CO2 - FG_ALT_CO2)` over cells with water.
    pub outgassing: f64,
    /// Flux of the intervention, mol/yr; negative for a removal.
    pub intervention: f64,
}

/// The fields of a month that the exchange is taken from, all on (nlat, nlon).
pub struct Fluxes<'a, T> {
    /// `FG_CO2`, mmol/m^3 cm/s.
    pub with: &'a [T],
    /// `FG_ALT_CO2`, the same.
    pub without: &'a [T],
    /// `DIC_FLUX`, the same.
    pub intervention: &'a [T],
    /// `TAREA`, cm^2.
    pub area: &'a [f64],
    /// `KMT`, number of layers with water.
    pub depth: &'a [f64],
}

/// Adds up a month's exchange.
pub fn exchange<T: Copy + Into<f64>>(fields: &Fluxes<'_, T>, days: f64) -> CarbonFlux {
    let present = |v: f64| if v.is_nan() { 0.0 } else { v };
    let (mut outgassing, mut intervention) = (0.0, 0.0);
    let cells = fields.area.iter().zip(fields.depth);
    let fluxes = fields.with.iter().zip(fields.without).zip(fields.intervention);
    for ((area, depth), ((&with, &without), &flux)) in cells.zip(fluxes) {
        let to_mol_per_year = TO_MOL_PER_M2_YR * area * TO_M2;
        if *depth > 0.0 {
            outgassing -= present((with.into() - without.into()) * to_mol_per_year);
        }
        intervention += present(flux.into() * to_mol_per_year);
    }
    CarbonFlux { days, outgassing, intervention }
}

/// A month in which there is no efficiency, counted from the intervention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoIntervention {
    /// Elapsed months.
    pub month: usize,
}

/// Efficiency at the end of each month, since the intervention.
///
/// ```
/// use dor_atlas::derive::efficiency::{CarbonFlux, efficiency};
///
/// // 100 mol/yr are removed in a month; the sea takes up 20 mol/yr more for two months.
/// let first = CarbonFlux { days: 31.0, outgassing: -20.0, intervention: -100.0 };
/// let second = CarbonFlux { intervention: 0.0, ..first };
/// assert_eq!(efficiency(&[first, second]).unwrap(), [0.2, 0.4]);
/// ```
pub fn efficiency(months: &[CarbonFlux]) -> Result<Vec<f32>, NoIntervention> {
    let (mut added, mut intervention) = (0.0, 0.0);
    let each = months.iter().enumerate().map(|(month, exchange)| {
        added -= exchange.outgassing * exchange.days / YEAR;
        intervention += exchange.intervention * exchange.days / YEAR;
        ratio(added, intervention).ok_or(NoIntervention { month })
    });
    each.collect()
}

/// Efficiency from what was added to the sea and by the intervention so far, both mol; `None`
/// when it is no number.
pub fn ratio(added: f64, intervention: f64) -> Option<f32> {
    Some((-added / intervention) as f32).filter(|ratio| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_removed_comes_back() {
        let fields = Fluxes {
            with: &[1.5, f32::NAN, 9.0],
            without: &[1.0, 1.0, 1.0],
            intervention: &[-1.0, f32::NAN, 0.0],
            area: &[1e14, f64::NAN, 1e14],
            depth: &[5.0, 5.0, 0.0],
        };
        let month = exchange(&fields, 31.0);
        assert_eq!(month.intervention, -3.1536e12);
        assert_eq!(month.outgassing, month.intervention / 2.0);
        assert_eq!(efficiency(&[month, CarbonFlux { days: 28.0, ..month }]), Ok(vec![0.5, 0.5]));
    }

    #[test]
    fn without_an_intervention_there_is_none() {
        let month = CarbonFlux { days: 30.0, outgassing: 1.0, intervention: 0.0 };
        assert_eq!(efficiency(&[month]), Err(NoIntervention { month: 0 }));
        assert_eq!(
            efficiency(&[CarbonFlux { outgassing: 0.0, ..month }]),
            Err(NoIntervention { month: 0 })
        );
    }
}
