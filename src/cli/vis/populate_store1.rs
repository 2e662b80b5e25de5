//! `dor vis populate-store1`: efficiencies.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;

use super::arguments::{Months, Work, config};
use super::create::store_of;
use super::run::{each, workshop};
use crate::cli::arguments::Cases;
use crate::cli::output::say;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::pipeline::until;
use crate::store::Location;
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
        let workshop = workshop(&config);
        let stores = until(&workshop.stop, &stores(&config));
        let location = store_of(&Kind::Store1, self.output_store.as_ref(), &config)?;
        let store = stores.open(&location)?;
        let force = self.work.force;
        if let Some(analyses) = &self.analysis_zarr_stores_dir {
            let analyses = stores.open(analyses)?;
            let there = zarr::cases(&analyses, analysis::SUFFIX).await?;
            let cases = chosen(&self.cases, None, there, &analyses.location().to_string())?;
            let store1 = Destination::open(store, "store1", Recipe::new(false)).await?;
            let fill = async |case: Case| {
                store1::fill_from_analysis(&store1, &analyses, case, force, &workshop).await
            };
            return each(&cases, &workshop, out, fill).await;
        }
        let input = self.months.open(&stores, &config)?;
        let cases = chosen(&self.cases, None, input.cases().await?, &input.url())?;
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
            let missing = files.missing.clone();
            Ok(Filled { missing, ..store1::fill(part, &files, &series).await? })
        };
        each(&cases, &workshop, out, fill).await
    }
}

/// The cases to work on: those asked for by polygon (and `range` of polygons), else those that are
/// there.
///
/// Polygons that were named must be there; of a range, and of the seasons where no month was
/// named, those count that are there.
pub(crate) fn chosen(
    selection: &Cases,
    range: Option<&[u16]>,
    there: Vec<Case>,
    url: &str,
) -> anyhow::Result<Vec<Case>> {
    let asked = selection.asked(range);
    let is_named = |case: &Case| selection.polygon_ids.contains(&case.polygon());
    // Where there is no listing, all that were asked for are tried.
    let by_name = |case: &&Case| selection.is_exact() && (is_named(case) || there.is_empty());
    let mut cases: BTreeSet<Case> = asked.iter().filter(by_name).copied().collect();
    let polygons: BTreeSet<u16> = asked.iter().map(|case| case.polygon()).collect();
    let wanted = |case: &Case| {
        selection.has_month(*case) && (asked.is_empty() || polygons.contains(&case.polygon()))
    };
    cases.extend(there.into_iter().filter(wanted));
    let has = |polygon: &u16| cases.iter().any(|case| case.polygon() == *polygon);
    let (absent, hint) = (|what: String| VisError::Needs(what), "is it the right location?");
    if let Some(polygon) = selection.polygon_ids.iter().find(|polygon| !has(polygon)) {
        return Err(
            absent(format!("there are no files of polygon {polygon} in {url}; {hint}")).into()
        );
    }
    if cases.is_empty() {
        let which = if asked.is_empty() { "any case" } else { "the cases that were asked for" };
        return Err(absent(format!("there are no files of {which} in {url}; {hint}")).into());
    }
    let without = polygons.iter().filter(|polygon| !has(polygon)).count();
    if without > 0 {
        say(&format!("of {} polygons, {without} have no files in {url}", polygons.len()));
    }
    Ok(cases.into_iter().collect())
}
