//! `dor vis plot`: a map or curves as a picture.

use std::io::Write;

use anyhow::Context;
use clap::Args;

use super::arguments::config;
use super::create::store_of;
use crate::cli::arguments::CaseArgs;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::atlas::{Band, MapVariable};
use crate::model::case::MONTHS;
use crate::model::Case;
use crate::plot::{self, MapPicture, PlottedCurve};
use crate::store::{Location, LocationError, Store, StoreRegistry};
use crate::vis::schema::PyramidOptions;
use crate::vis::{StoreKind, VisError};
use crate::vis::query::{self, MapQuery, month_name};

/// Draw a map of store 2, or with --series the curves of store 1 or 3, as PNG
#[derive(Args, Debug)]
pub(super) struct Plot {
    /// The store: a path or URL [default: store2 of the configuration; with --series, store1]
    store: Option<Location>,
    /// Draw curves of the chosen polygons
    #[arg(long, conflicts_with_all = ["variable", "step", "band"])]
    series: bool,
    /// Variable of the map: DIC_SURF, DIC, PH, FG or pCO2SURF
    #[arg(long, value_name = "V", required_unless_present = "series")]
    variable: Option<MapVariable>,
    #[command(flatten)]
    cases: CaseArgs,
    /// Months since the intervention, 0 to 179
    #[arg(long, value_name = "N", required_unless_present = "series", value_parser = step)]
    step: Option<u16>,
    /// What the map shows: delta (with minus without the intervention) or experimental (with it)
    #[arg(long, default_value = "delta")]
    band: Band,
    /// The picture, a .png: a path or URL
    #[arg(short, long, value_name = "LOCATION", value_parser = png)]
    output: Location,
    /// Replace a file that this program has not drawn
    #[arg(long)]
    overwrite: bool,
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
        let cases = self.cases.choice()?.asked();
        if cases.is_empty() {
            let needed = "name what to draw: --polygon with --month, or --case".to_owned();
            return Err(VisError::Needs(needed).into());
        }
        let what = match (self.variable, self.step, cases.as_slice()) {
            (Some(variable), Some(step), &[case]) => {
                Picture::Map(MapQuery { variable, band: self.band, case, step: step.into() })
            }
            (Some(_), ..) => {
                let needed = "a map is of one case: give one --polygon and one --month, or one --case".to_owned();
                return Err(VisError::Needs(needed).into());
            }
            (None, ..) => Picture::Curves(cases),
        };
        draw(&stores, &store, what, (&self.output, self.overwrite), out).await?;
        Ok(Exit::Done)
    }
}

/// What a picture shows.
pub(crate) enum Picture {
    Map(MapQuery),
    /// Of these cases.
    Curves(Vec<Case>),
}

/// Draws a picture to a location and names it; a file that this program has not drawn is replaced only
/// when that is asked for.
pub(crate) async fn draw(
    stores: &StoreRegistry,
    store: &Store,
    what: Picture,
    (output, overwrite): (&Location, bool),
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let (Some(folder), Some(name)) = (output.parent(), output.file_name()) else {
        anyhow::bail!("{output} names no file; give --output FILE.png");
    };
    let folder = stores.open(&folder)?;
    if let Some((found, _)) = folder.get(name).await?
        && !overwrite
        && !plot::is_own_picture(&found)
    {
        let what = "a file that dor has not drawn".to_owned();
        return Err(VisError::NotEmpty { url: output.to_string(), what }.into());
    }
    let png = match what {
        Picture::Map(query) => map(store, query).await?,
        Picture::Curves(cases) => curves(store, &cases).await?,
    };
    folder.put(name, png.into()).await?;
    Ok(writeln!(out, "{output}")?)
}

fn step(text: &str) -> Result<u16, String> {
    let step = text.parse().ok().filter(|step| usize::from(*step) < MONTHS);
    step.ok_or_else(|| format!("months since the intervention are 0 to {}", MONTHS - 1))
}

fn png(text: &str) -> Result<Location, String> {
    match text.to_ascii_lowercase().ends_with(".png") {
        true => text.parse().map_err(|error: LocationError| error.to_string()),
        false => Err("pictures are PNG: give a name that ends in .png".to_owned()),
    }
}

/// Draws a map.
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
        // Fluxes go both ways.
        diverging: band == Band::Delta || variable == MapVariable::Fg,
    };
    let what = || format!("{}: case {case}, month {step} since the intervention", store.location());
    plot::map(&picture).with_context(what)
}

/// Draws the curves of cases.
async fn curves(store: &Store, cases: &[Case]) -> anyhow::Result<Vec<u8>> {
    let found = query::curves(store, cases).await?;
    let curves: Vec<PlottedCurve<'_>> =
        found.curves.iter().map(|c| PlottedCurve { label: &c.label, values: &c.values }).collect();
    Ok(plot::curves(found.title, found.axis, &curves)?)
}

/// The month of the calendar, such as `September 2004`.
fn calendar_month(case: Case, step: usize) -> String {
    let month = case.first_month().plus(step as i32);
    format!("{} {}", month_name(month.month), month.year - 347 + 1999)
}
