//! `dor vis plot`: draws a map, or curves, as a PNG picture.

use std::io::Write;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::arguments::config;
use super::create::store_of;
use crate::case_manifest::enclosing_results;
use crate::cli::arguments::{CaseArgs, band, variable};
use crate::cli::exit::UsageError;
use crate::cli::report::{Report, ReportArgs};
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::model::atlas::{Band, MapVariable};
use crate::model::case::MONTHS;
use crate::plot::{self, MapPicture, PlottedCurve};
use crate::store::{Location, LocationError, Store, StoreRegistry};
use crate::vis::query::{self, MapQuery, month_name};
use crate::vis::schema::PyramidOptions;
use crate::vis::{StoreKind, VisError};

/// Draw a map of store 2, or with --series the curves of store 1 or 3, as PNG
#[derive(Args, Debug)]
pub(super) struct Plot {
    /// Store to draw from: a path or URL [default: store2 of the configuration; with --series, store1]
    store: Option<Location>,
    /// Draw curves of the chosen cases
    #[arg(long, conflicts_with_all = ["variable", "step", "band"])]
    series: bool,
    /// Variable of the map
    #[arg(long, value_name = "V", required_unless_present = "series", value_parser = variable())]
    variable: Option<MapVariable>,
    #[command(flatten)]
    cases: CaseArgs,
    /// Months since the intervention, 0 to 179
    #[arg(long, value_name = "N", required_unless_present = "series", value_parser = step)]
    step: Option<u16>,
    /// Band of the map: delta (with minus without the intervention) or experimental (with the intervention)
    #[arg(long, default_value = "delta", value_parser = band())]
    band: Band,
    /// Picture to write, with a name that ends in .png: a path or URL
    #[arg(short, long, value_name = "LOCATION", value_parser = png)]
    output: Location,
    /// Replace a file even if dor has not drawn it
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    report: ReportArgs,
}

impl Plot {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, None, None)?;
        let stores = stores(&config);
        let kind = match self.series {
            true => StoreKind::Store1,
            false => StoreKind::Store2(PyramidOptions::default()),
        };
        let store = stores.open(&store_of(&kind, self.store.as_ref(), &config)?)?;
        let cases = self.cases.choice()?.named_cases();
        if cases.is_empty() {
            let problem = "no case is chosen; give --polygon with --month, or --case".to_owned();
            return Err(UsageError(problem).into());
        }
        let picture = match (self.variable, self.step, cases.as_slice()) {
            (Some(variable), Some(step), &[case]) => {
                Picture::Map(MapQuery { variable, band: self.band, case, step: step.into() })
            }
            (Some(_), ..) => {
                let needed =
                    "a map is of one case: give one --polygon and one --month, or one --case"
                        .to_owned();
                return Err(UsageError(needed).into());
            }
            (None, ..) => Picture::Curves(cases),
        };
        let mut report = self.report.report(out);
        draw(&stores, &store, picture, (&self.output, self.overwrite), &mut report).await?;
        report.end()?;
        Ok(Exit::Done)
    }
}

/// Content of a picture.
pub(crate) enum Picture {
    /// A map of one case and month.
    Map(MapQuery),
    /// Curves of these cases.
    Curves(Vec<Case>),
}

/// Draws a picture to the location `output` and prints the location. A dry run does not write the picture.
///
/// # Errors
/// The store cannot be read, the picture cannot be written, `output` lies in a store or among the files of a case,
/// or `overwrite` is `false` and `output` is a file that `dor` has not drawn.
pub(crate) async fn draw(
    stores: &StoreRegistry,
    store: &Store,
    picture: Picture,
    (output, overwrite): (&Location, bool),
    out: &mut Report<'_>,
) -> anyhow::Result<()> {
    let (Some(folder), Some(name)) = (output.parent(), output.file_name()) else {
        anyhow::bail!("{output} does not name a file; give --output FILE.png");
    };
    let folder = stores.open(&folder)?;
    if let Some(other) = enclosing_results(&folder).await {
        let problem = format!("{output} lies in {other}, which holds data; give another --output");
        return Err(VisError::Settings(problem).into());
    }
    if let Some((existing, _)) = folder.get(name).await?
        && !overwrite
        && !plot::is_own_picture(&existing)
    {
        let what = "a file that dor has not drawn".to_owned();
        return Err(VisError::NotEmpty { url: output.to_string(), what }.into());
    }
    let png = match picture {
        Picture::Map(query) => map(store, query).await?,
        Picture::Curves(cases) => curves(store, &cases).await?,
    };
    out.set("picture", json!(output.to_string()));
    out.set("bytes", json!(png.len()));
    if out.is_dry() {
        return Ok(writeln!(out, "would write {output}")?);
    }
    folder.put(name, png.into()).await?;
    Ok(writeln!(out, "{output}")?)
}

/// Parses a number of months since the intervention.
fn step(text: &str) -> Result<u16, String> {
    let step = text.parse().ok().filter(|step| usize::from(*step) < MONTHS);
    step.ok_or_else(|| format!("months since the intervention are 0 to {}", MONTHS - 1))
}

/// Parses the location of a PNG picture.
fn png(text: &str) -> Result<Location, String> {
    let location: Location = text.parse().map_err(|error: LocationError| error.to_string())?;
    let is_png = |name: &str| name.to_ascii_lowercase().ends_with(".png");
    match location.file_name().is_some_and(is_png) {
        true => Ok(location),
        false => Err("pictures are PNG; give a name that ends in .png".to_owned()),
    }
}

/// Draws a map and returns the PNG bytes.
async fn map(store: &Store, query: MapQuery) -> anyhow::Result<Vec<u8>> {
    let map = query::map(store, query).await?;
    let MapQuery { variable, band, case, step } = query;
    let change = match band {
        Band::Delta => ", change by the removal",
        Band::Experimental => ", with the removal",
    };
    let (year, month) = (step / 12 + 1, step % 12 + 1);
    let picture = MapPicture {
        size: map.size,
        values: &map.values,
        title: format!("{}{change}", variable.long_name()),
        subtitle: format!(
            "polygon {}, removal in {} 1999; month {month} of year {year} ({}){}",
            case.polygon(),
            month_name(case.month().number()),
            calendar_month(case, step),
            if map.reference_compat { "; with the defects of the published atlas" } else { "" },
        ),
        units: if variable.units() == "1" { variable.long_name() } else { variable.units() },
        // Fluxes have both signs.
        diverging: band == Band::Delta || variable == MapVariable::Fg,
    };
    plot::map(&picture).with_context(|| {
        let (url, case) = (store.location(), case.short());
        format!("{url}: case {case}, month {step} since the intervention")
    })
}

/// Draws the curves of cases and returns the PNG bytes.
async fn curves(store: &Store, cases: &[Case]) -> anyhow::Result<Vec<u8>> {
    let series = query::curves(store, cases).await?;
    let curves: Vec<PlottedCurve<'_>> =
        series.curves.iter().map(|c| PlottedCurve { label: &c.label, values: &c.values }).collect();
    Ok(plot::curves(series.title, series.axis, &curves)?)
}

/// Returns the calendar month of a step, such as `September 2004`.
fn calendar_month(case: Case, step: usize) -> String {
    let month = case.first_month().plus(step as i32);
    format!("{} {}", month_name(month.month), month.year - 347 + 1999)
}
