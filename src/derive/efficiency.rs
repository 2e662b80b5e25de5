//! Efficiency of a removal: additional CO2 uptake of the ocean divided by the carbon removed.

/// Factor from the model's air-sea flux (mmol/m^3 cm/s = nmol/cm^2/s) to mol/m^2/yr.
const TO_MOL_PER_M2_YR: f64 = 1e-9 * 1e4 * 86_400.0 * 365.0;
/// Factor from cm^2 to m^2.
const TO_M2: f64 = 1e-4;
/// Days of the noleap year.
const YEAR: f64 = 365.0;

/// Carbon fluxes of one month, integrated over the ocean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CarbonFlux {
    /// Length of the month, days.
    pub days: f64,
    /// Additional flux from sea to air, mol/yr: `-(FG_CO2 - FG_ALT_CO2)` over cells with water.
    pub outgassing: f64,
    /// Flux of carbon into the sea by the intervention, mol/yr; negative for a removal.
    pub intervention: f64,
}

/// The fields of one month that [`integrate_fluxes`] integrates, all on (nlat, nlon).
pub struct Fluxes<'a, T> {
    /// `FG_CO2`: air-sea flux with the intervention, mmol/m^3 cm/s.
    pub experiment: &'a [T],
    /// `FG_ALT_CO2`: air-sea flux without the intervention, mmol/m^3 cm/s.
    pub control: &'a [T],
    /// `DIC_FLUX`: flux of the intervention, mmol/m^3 cm/s.
    pub intervention: &'a [T],
    /// `TAREA`: area of the cells, cm^2.
    pub area: &'a [f64],
    /// `KMT`: number of layers with water, 0 on land.
    pub kmt: &'a [f64],
}

/// Integrates the fluxes of one month over the ocean; `days` is the length of the month.
pub fn integrate_fluxes<T: Copy + Into<f64>>(fields: &Fluxes<'_, T>, days: f64) -> CarbonFlux {
    let or_zero = |v: f64| if v.is_nan() { 0.0 } else { v };
    let (mut outgassing, mut intervention) = (0.0, 0.0);
    let cells = fields.area.iter().zip(fields.kmt);
    let fluxes = fields.experiment.iter().zip(fields.control).zip(fields.intervention);
    for ((area, kmt), ((&experiment, &control), &flux)) in cells.zip(fluxes) {
        let to_mol_per_year = TO_MOL_PER_M2_YR * area * TO_M2;
        if *kmt > 0.0 {
            outgassing -= or_zero((experiment.into() - control.into()) * to_mol_per_year);
        }
        intervention += or_zero(flux.into() * to_mol_per_year);
    }
    CarbonFlux { days, outgassing, intervention }
}

/// Efficiency is undefined: the cumulative intervention of a month is 0, or a sum is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoIntervention {
    /// Months since the intervention, from 0.
    pub month: usize,
}

/// Computes the cumulative efficiency at the end of each month since the intervention.
///
/// # Errors
/// [`NoIntervention`] for the first month in which the ratio is not finite.
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

/// Computes efficiency from two cumulative amounts in mol: `added` by air-sea flux, and added by the
/// `intervention` (negative for a removal). `None` when the ratio is not finite.
pub fn ratio(added: f64, intervention: f64) -> Option<f32> {
    Some((-added / intervention) as f32).filter(|ratio| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uptake_of_half_the_removed_carbon_has_efficiency_one_half() {
        let fields = Fluxes {
            experiment: &[1.5, f32::NAN, 9.0],
            control: &[1.0, 1.0, 1.0],
            intervention: &[-1.0, f32::NAN, 0.0],
            area: &[1e14, f64::NAN, 1e14],
            kmt: &[5.0, 5.0, 0.0],
        };
        let month = integrate_fluxes(&fields, 31.0);
        assert_eq!(month.intervention, -3.1536e12);
        assert_eq!(month.outgassing, month.intervention / 2.0);
        assert_eq!(efficiency(&[month, CarbonFlux { days: 28.0, ..month }]), Ok(vec![0.5, 0.5]));
    }

    #[test]
    fn without_an_intervention_efficiency_is_an_error() {
        let month = CarbonFlux { days: 30.0, outgassing: 1.0, intervention: 0.0 };
        assert_eq!(efficiency(&[month]), Err(NoIntervention { month: 0 }));
        assert_eq!(
            efficiency(&[CarbonFlux { outgassing: 0.0, ..month }]),
            Err(NoIntervention { month: 0 })
        );
    }
}
