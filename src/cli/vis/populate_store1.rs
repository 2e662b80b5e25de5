//! `dor vis populate-store1`: efficiencies.

use std::io::Write;

use clap::Args;

use super::arguments::{Cases, Months, Work, config};
use super::create::store_of;
use super::run::{each, workshop};
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::store::{Location, Stores};
use crate::vis::series::{self, Filled, Wanted};
use crate::vis::template::Destination;
use crate::vis::{Kind, Recipe, VisError, analysis, store1, zarr};

/// Compute the efficiency of cases for store 1
///
/// From analysis stores that exist, or from research-grade or raw files, of which only the
/// two-dimensional fluxes are read. `dor vis finalize` puts the results into the store.
#[derive(Args, Debug)]
pub(super) struct PopulateStore1 {
    /// The store: a path or URL [default: store1 of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    output_store: Option<Location>,
    #[command(flatten)]
    cases: Cases,
    /// Analysis stores, CASE.analysis.zarr, to take the efficiency from
    #[arg(short, long, value_name = "LOCATION", conflicts_with_all = ["input_dir", "data_dir"])]
    analysis_zarr_stores_dir: Option<Location>,
    #[command(flatten)]
    months: Months,
    #[command(flatten)]
    work: Work,
}

impl PopulateStore1 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, Some(&self.work), None)?;
        let stores = Stores::new(config.s3.clone());
        let location = store_of(&Kind::Store1, self.output_store.as_ref(), &config)?;
        let store = stores.open(&location)?;
        let workshop = workshop(&config);
        let force = self.work.force;
        if let Some(analyses) = &self.analysis_zarr_stores_dir {
            let analyses = stores.open(analyses)?;
            let asked = self.cases.asked(None);
            let there = zarr::cases(&analyses, analysis::SUFFIX).await?;
            let cases = chosen(&self.cases, asked, there, &analyses.location().to_string())?;
            let store1 = Destination::open(store, "store1", Recipe::new(false)).await?;
            let fill = async |case: Case| {
                store1::fill_from_analysis(&store1, &analyses, case, force).await
            };
            return each(&cases, &workshop, out, fill).await;
        }
        let input = self.months.open(&stores, &config)?;
        let asked = self.cases.asked(None);
        let cases = chosen(&self.cases, asked, input.cases().await?, &input.url())?;
        let store1 = Destination::open(store, "store1", Recipe::new(false)).await?;
        let wanted = Wanted { efficiency: true, uptake: None };
        let fill = async |case: Case| -> Result<Filled, VisError> {
            let files = input.case(case, self.work.allow_missing).await?;
            let part = store1::part(&store1, &files, force).await?;
            if part.done {
                return Ok(Filled { before: true, ..Filled::default() });
            }
            workshop.progress.begin(case, files.len(), files.size());
            let series = series::read(&workshop, &files, &wanted).await?;
            store1::fill(part, &files, &series).await
        };
        each(&cases, &workshop, out, fill).await
    }
}

/// The cases to work on: those asked for, else those that are there.
///
/// Where only polygons were given, those of their seasons that are there.
pub(super) fn chosen(
    selection: &Cases,
    asked: Vec<Case>,
    there: Vec<Case>,
    url: &str,
) -> anyhow::Result<Vec<Case>> {
    if selection.is_exact() && !asked.is_empty() {
        return Ok(asked);
    }
    let wanted = |case: &Case| {
        selection.has_month(*case)
            && (asked.is_empty() || asked.iter().any(|a| a.polygon() == case.polygon()))
    };
    let cases: Vec<Case> = there.into_iter().filter(wanted).collect();
    let polygons: std::collections::BTreeSet<u16> = asked.iter().map(|c| c.polygon()).collect();
    let absent = polygons.iter().find(|p| !cases.iter().any(|case| case.polygon() == **p));
    if let Some(polygon) = absent {
        return Err(
            VisError::Needs(format!("there are no files of polygon {polygon} in {url}")).into()
        );
    }
    if cases.is_empty() {
        return Err(VisError::Needs(format!("there are no files of any case in {url}")).into());
    }
    Ok(cases)
}
