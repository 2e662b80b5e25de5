//! `dor vis populate-store1`: computes efficiencies.

use std::io::Write;

use clap::Args;

use super::arguments::{InputArgs, WorkArgs, config};
use super::create::store_of;
use super::run::{chosen, each, run_context};
use crate::cli::arguments::CaseArgs;
use crate::cli::report::Report;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::executor::until;
use crate::model::Case;
use crate::store::{Location, Store};
use crate::vis::cases::CaseChoice;
use crate::vis::create::OpenStore;
use crate::vis::input::CaseSource;
use crate::vis::populate::EfficiencyRun;
use crate::vis::{RunContext, StoreKind, StoreRecipe, analysis, store1, zarr};

/// Compute the efficiency of cases for store 1
///
/// Reads analysis stores, or research-grade or raw files, of which only the two-dimensional fluxes are read.
/// `dor vis finalize` then writes the results to the arrays of the store.
#[derive(Args, Debug)]
pub(super) struct PopulateStore1 {
    /// Store to fill: a path or URL [default: store1 of the configuration]
    #[arg(short, long = "output", visible_alias = "output-store", value_name = "LOCATION")]
    output_store: Option<Location>,
    #[command(flatten)]
    cases: CaseArgs,
    /// Read the efficiency from analysis stores, CASE.analysis.zarr, in this folder
    #[arg(short, long, value_name = "LOCATION", conflicts_with_all = ["input_dir", "data_dir"])]
    analysis_zarr_stores_dir: Option<Location>,
    #[command(flatten)]
    months: InputArgs,
    #[command(flatten)]
    work: WorkArgs,
}

impl PopulateStore1 {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = config(global, Some(&self.work), None)?;
        let context = run_context(&config);
        let stores = until(&context.stop, &stores(&config));
        let location = store_of(&StoreKind::Store1, self.output_store.as_ref(), &config)?;
        let store = stores.open(&location)?;
        let choice = self.cases.choice()?;
        let mut report = self.work.report.report(out);
        let out = &mut report;
        let exit = match &self.analysis_zarr_stores_dir {
            Some(analyses) => {
                let analyses = stores.open(analyses)?;
                self.fill_from_analyses(store, &analyses, &choice, &context, out).await
            }
            None => {
                let input = self.months.open(&stores, &config)?;
                self.fill_from_files(store, input, &choice, &context, out).await
            }
        };
        let exit = exit?;
        report.end()?;
        Ok(exit)
    }

    async fn fill_from_analyses(
        &self,
        store: Store,
        analyses: &Store,
        choice: &CaseChoice,
        context: &RunContext,
        out: &mut Report<'_>,
    ) -> anyhow::Result<Exit> {
        let available = zarr::cases(analyses, analysis::SUFFIX).await?;
        let cases = chosen(choice, available, &analyses.location().to_string())?;
        let store1 = OpenStore::open(store, "store1", StoreRecipe::new(false)).await?;
        let options = self.work.options();
        let fill = async |case: Case| {
            store1::fill_from_analysis(&store1, analyses, case, options, context).await
        };
        each(&cases, context, out, fill).await
    }

    async fn fill_from_files(
        &self,
        store: Store,
        input: CaseSource,
        choice: &CaseChoice,
        context: &RunContext,
        out: &mut Report<'_>,
    ) -> anyhow::Result<Exit> {
        let cases = chosen(choice, input.cases().await?, &input.url())?;
        let store1 = OpenStore::open(store, "store1", StoreRecipe::new(false)).await?;
        let options = self.work.options();
        let efficiencies = EfficiencyRun { store1, input, options, context };
        each(&cases, context, out, async |case| efficiencies.fill(case).await).await
    }
}
