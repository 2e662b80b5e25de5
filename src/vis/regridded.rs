//! Regridding of one month of a case onto every level: fields, differences and column inventories.

use futures::{Stream, TryStreamExt};

use super::VisError;
use super::common_fields::{CommonFields, Fingerprint, check_pair};
use super::month::{GridShape, MAX_LAYERS, MonthFile, columns, difference, fits};
use crate::model::YearMonth;
use crate::model::atlas::{FILL, MapVariable, YEARS};
use crate::read::FieldValues;
use crate::read::grid::MOST_POINTS;
use crate::read::ssh::SeaSurfaceHeight;
use crate::regrid::Weights;

/// The maps of one month of a case.
pub(super) struct RegriddedMonth {
    /// Maps by level and then by variable and band, each in row-major order; fill on land.
    pub maps: Vec<Vec<Vec<f32>>>,
    /// Number of layers of the columns; `None` without the variable `DIC`.
    pub layers: Option<usize>,
    /// URL of the input file.
    pub url: String,
    /// Number of bytes read from the input file.
    pub fetched: u64,
}

/// The file of one month, with everything that is needed to regrid it.
pub(super) struct MonthFields<'a> {
    pub file: &'a MonthFile,
    /// Name of the grid for messages.
    pub grid: &'a str,
    /// Rows and columns of the grid.
    pub shape: GridShape,
    /// Regridding weights, one item for each level.
    pub weights: &'a [Weights],
    /// Whether to reproduce the defects of the published atlas.
    pub compat: bool,
    /// What the months of the case have in common.
    pub common: &'a CommonFields,
}

impl MonthFields<'_> {
    /// Regrids these variables; `ssh` is needed for the variable `DIC`.
    pub fn regrid(
        &self,
        variables: &[MapVariable],
        ssh: Option<&SeaSurfaceHeight>,
        month: YearMonth,
    ) -> Result<RegriddedMonth, VisError> {
        let points = self.shape.0 * self.shape.1;
        let url = self.file.file.url();
        self.check_same_points()?;
        let field = |name: &'static str| {
            let values = self.file.field(name, self.shape, self.grid)?;
            let positions =
                Fingerprint::of_positions((0..values.len()).map(|at| !values.has_value(at)));
            self.common.check_field(name, positions, url)?;
            Ok::<_, VisError>((values, positions))
        };
        // The fields of the experiment and of the control.
        let fields = |variable: MapVariable| {
            let names = variable.fields();
            let ((experiment, own), (control, other)) = (field(names.0)?, field(names.1)?);
            check_pair(names, [own, other], url)?;
            Ok::<_, VisError>((experiment, control))
        };
        let mut layers = None;
        let mut maps: Vec<Vec<Vec<f32>>> = vec![Vec::new(); self.weights.len()];
        let mut carbon: Option<(FieldValues, FieldValues)> = None;
        for &variable in variables {
            let is_carbon = matches!(variable, MapVariable::DicSurf | MapVariable::Dic);
            if is_carbon && carbon.is_none() {
                carbon = Some(fields(variable)?);
            }
            let (delta, experimental) = match (&carbon, variable) {
                (Some((experiment, control)), MapVariable::Dic) => {
                    let Some(ssh) = ssh else { continue };
                    // The reference program selects by time stamp, which is the end of a month, and
                    // therefore uses the month before.
                    fits(ssh.url(), ssh.shape(), self.shape, self.grid)?;
                    let height = ssh.month(if self.compat { month.plus(-1) } else { month })?;
                    let has_both = |at: usize| !experiment.has_value(at) || !height[at].is_nan();
                    if !(0..points.min(height.len())).all(has_both) {
                        let problem =
                            format!("has no sea surface height of {month} at points of the ocean");
                        return Err(VisError::Mismatch { url: ssh.url().to_owned(), problem });
                    }
                    self.file.file.check_value_count("dz", MAX_LAYERS)?;
                    let thickness = self.file.file.values("dz")?;
                    self.check_thickness(&thickness)?;
                    self.common.check_grid_values("dz", &thickness, url)?;
                    self.check_layers(experiment.len() / points.max(1), thickness.len())?;
                    layers = Some(thickness.len());
                    columns(experiment, control, &thickness, &height)
                }
                (Some((experiment, control)), MapVariable::DicSurf) => {
                    difference(experiment, control, points)
                }
                _ => {
                    let (experiment, control) = fields(variable)?;
                    difference(&experiment, &control, points)
                }
            };
            for (maps, weights) in maps.iter_mut().zip(self.weights) {
                for values in [&delta, &experimental] {
                    maps.push(self.regrid_field(weights, values, variable)?);
                }
            }
        }
        let url = self.file.file.url().to_owned();
        Ok(RegriddedMonth { maps, layers, url, fetched: self.file.file.fetched() })
    }

    /// Regrids a field onto one level. Points outside the grid are fill, or 0 with `compat`.
    fn regrid_field(
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

    /// Checks that the file has the same T points as the other files of the case.
    fn check_same_points(&self) -> Result<(), VisError> {
        let file = &self.file.file;
        for name in ["TLAT", "TLONG"].into_iter().filter(|n| file.header().variable(n).is_some()) {
            file.check_value_count(name, MOST_POINTS)?;
            self.common.check_grid_values(name, &file.values(name)?, file.url())?;
        }
        Ok(())
    }

    /// Checks that layers have a positive thickness.
    fn check_thickness(&self, thickness: &[f64]) -> Result<(), VisError> {
        let Some(wrong) = thickness.iter().find(|t| !(**t > 0.0 && t.is_finite())) else {
            return Ok(());
        };
        let url = self.file.file.url().to_owned();
        let problem =
            format!("has a layer thickness (dz) of {wrong}, which is not a positive length");
        Err(VisError::Mismatch { url, problem })
    }

    /// Checks that DIC has as many layers as `dz`.
    fn check_layers(&self, found: usize, thickness: usize) -> Result<(), VisError> {
        if found == thickness {
            return Ok(());
        }
        let url = self.file.file.url().to_owned();
        let problem = format!("has {found} layers of DIC and {thickness} of dz");
        Err(VisError::Mismatch { url, problem })
    }
}

/// Groups the regridded months of a stream in reading order by month of the year.
pub(super) struct MonthReader<S> {
    months: S,
    /// Number of layers in the first file; `None` before it, or without the variable `DIC`.
    layers: Option<usize>,
    /// Number of bytes read.
    pub fetched: u64,
}

impl<S: Stream<Item = Result<Option<RegriddedMonth>, VisError>> + Unpin> MonthReader<S> {
    /// Creates a reader of a stream of months.
    pub fn new(months: S) -> Self {
        Self { months, layers: None, fetched: 0 }
    }

    /// Returns the next month of the year, of all years.
    pub async fn next_years(&mut self) -> Result<Vec<Option<RegriddedMonth>>, VisError> {
        let mut years = Vec::with_capacity(YEARS);
        while years.len() < YEARS {
            let Some(month) = self.months.try_next().await? else { break };
            if let Some(month) = &month {
                self.check_layers(month)?;
                self.fetched += month.fetched;
            }
            years.push(month);
        }
        Ok(years)
    }

    /// Checks that a month has as many layers as the first one.
    fn check_layers(&mut self, month: &RegriddedMonth) -> Result<(), VisError> {
        let Some(found) = month.layers else { return Ok(()) };
        let first = *self.layers.get_or_insert(found);
        if found == first {
            return Ok(());
        }
        let problem = format!("has {found} layers, the first file of the case has {first}");
        Err(VisError::Mismatch { url: month.url.clone(), problem })
    }
}
