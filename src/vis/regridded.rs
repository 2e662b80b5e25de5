//! A month of a case on the map: its fields, differences and columns, regridded onto every level.

use super::VisError;
use super::month::{GridShape, MOST_LAYERS, MonthFile, columns, difference, fits};
use crate::model::YearMonth;
use crate::model::atlas::{FILL, MapVariable};
use crate::read::FieldValues;
use crate::read::ssh::SeaSurfaceHeight;
use crate::regrid::Weights;

/// A regridded month: `maps[level][variable and band]`, row by row, fill where there is none.
pub(super) struct RegriddedMonth {
    pub maps: Vec<Vec<Vec<f32>>>,
    /// Layers of the columns, when there are any, and the file that has them.
    pub layers: Option<usize>,
    pub url: String,
    pub fetched: u64,
}

/// The fields of a month on their way to the map.
pub(super) struct MonthFields<'a> {
    pub file: &'a MonthFile,
    pub grid: &'a str,
    pub shape: GridShape,
    pub weights: &'a [Weights],
    pub compat: bool,
}

impl MonthFields<'_> {
    /// The maps of these variables.
    pub fn regrid(
        &self,
        variables: &[MapVariable],
        ssh: Option<&SeaSurfaceHeight>,
        month: YearMonth,
    ) -> Result<RegriddedMonth, VisError> {
        let points = self.shape.0 * self.shape.1;
        let field = |name: &str| self.file.field(name, self.shape, self.grid);
        let mut layers = None;
        let mut maps: Vec<Vec<Vec<f32>>> = vec![Vec::new(); self.weights.len()];
        let mut carbon: Option<(FieldValues, FieldValues)> = None;
        for &variable in variables {
            let (with, without) = variable.fields();
            let is_carbon = matches!(variable, MapVariable::DicSurf | MapVariable::Dic);
            if is_carbon && carbon.is_none() {
                carbon = Some((field(with)?, field(without)?));
            }
            let (delta, experimental) = match (&carbon, variable) {
                (Some((with, without)), MapVariable::Dic) => {
                    let Some(ssh) = ssh else { continue };
                    // The reference takes the month whose end has the name of this month.
                    fits(ssh.url(), ssh.shape(), self.shape, self.grid)?;
                    let height = ssh.month(if self.compat { month.plus(-1) } else { month })?;
                    self.file.file.at_most("dz", MOST_LAYERS)?;
                    let thickness = self.file.file.values("dz")?;
                    self.layers(with.len() / points.max(1), thickness.len())?;
                    layers = Some(thickness.len());
                    columns(with, without, &thickness, &height)
                }
                (Some((with, without)), MapVariable::DicSurf) => difference(with, without, points),
                _ => difference(&field(with)?, &field(without)?, points),
            };
            for (maps, weights) in maps.iter_mut().zip(self.weights) {
                for values in [&delta, &experimental] {
                    maps.push(self.map(weights, values, variable)?);
                }
            }
        }
        let url = self.file.file.url().to_owned();
        Ok(RegriddedMonth { maps, layers, url, fetched: self.file.file.fetched() })
    }

    /// A field on the map.
    fn map(
        &self,
        weights: &Weights,
        field: &[f64],
        variable: MapVariable,
    ) -> Result<Vec<f32>, VisError> {
        let outside = if self.compat { 0.0 } else { FILL };
        let mut map = vec![outside; weights.targets()];
        let mut infinite = false;
        weights.apply(field, |at, value| {
            infinite |= value.is_infinite();
            map[at] = if value.is_nan() { FILL } else { value };
        });
        if infinite {
            return Err(self.file.infinite(&format!("the fields of {}", variable.name())));
        }
        Ok(map)
    }

    fn layers(&self, found: usize, thickness: usize) -> Result<(), VisError> {
        if found == thickness {
            return Ok(());
        }
        let url = self.file.file.url().to_owned();
        let problem = format!("has {found} layers of DIC and {thickness} of dz");
        Err(VisError::Mismatch { url, problem })
    }
}
