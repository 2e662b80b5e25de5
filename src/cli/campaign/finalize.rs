//! `dor finalize`: finalizes the products of a campaign.

use std::io::Write;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::arguments::{PlanArgs, load};
use crate::campaign::OpenPlan;
use crate::campaign::finalize::{self, FinalizeResult, FinalizedProduct};
use crate::campaign::status::Missing;
use crate::cli::output::count;
use crate::cli::publish_to::PublishTo;
use crate::cli::report::{Report, ReportArgs};
use crate::cli::signals::stop_on_signals;
use crate::cli::vis::write_completeness;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::store::Store;

/// Most missing products that are listed.
const MAX_LISTED: usize = 50;

/// Finalize the map stores, after every case of a plan is done
///
/// First checks the case manifest of each case and product. If a product is missing, lists the missing products, writes
/// nothing and ends with 3.
#[derive(Args, Debug)]
pub(crate) struct Finalize {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    publish_to: PublishTo,
    #[command(flatten)]
    report: ReportArgs,
}

impl Finalize {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = Config::load(&self.plan.over(global.overrides()))?;
        let opened = load(&config).await?;
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let mut report = self.report.report(out);
        let products = finalize(&opened, &stop, &mut report).await?;
        let exit = if products.is_some() { Exit::Done } else { Exit::Incomplete };
        for store in products.iter().flatten() {
            let name = store.location().file_name().unwrap_or_default().to_owned();
            self.publish_to.publish_below(&name, &opened.stores, store, &stop, &mut report).await?;
        }
        report.end()?;
        Ok(exit)
    }
}

/// Finalizes the products of a plan, prints the number of cases in each, and returns their stores.
///
/// Returns `None` when products are missing, and lists these. A dry run only checks and prints.
///
/// # Errors
/// A store cannot be read or finalized, or the user stops the program.
pub(crate) async fn finalize(
    opened: &OpenPlan,
    stop: &CancellationToken,
    out: &mut Report<'_>,
) -> anyhow::Result<Option<Vec<Store>>> {
    let dry_run = out.is_dry();
    let report = |store: &Store, product: FinalizedProduct| write_product(out, store, &product);
    match finalize::finalize(opened, dry_run, stop, report).await? {
        FinalizeResult::Finalized(stores) => Ok(Some(stores)),
        FinalizeResult::Missing(missing) => {
            out.set("missing", json!(missing));
            write_missing(out, &missing)?;
            Ok(None)
        }
    }
}

/// Prints the number of cases in a product.
fn write_product(
    out: &mut Report<'_>,
    store: &Store,
    product: &FinalizedProduct,
) -> anyhow::Result<()> {
    match product {
        FinalizedProduct::Research(cases) => {
            let location = store.location();
            let research =
                json!({ "store": location.to_string(), "kind": "research", "cases": cases });
            out.push("stores", research);
            Ok(writeln!(out, "{location}: research-grade files of {}", count(*cases, "case"))?)
        }
        FinalizedProduct::Maps(kind, cases) => write_completeness(out, store, kind, cases),
    }
}

/// Lists the missing products.
fn write_missing(out: &mut dyn Write, missing: &[Missing]) -> std::io::Result<()> {
    let products = count(missing.len(), "product");
    writeln!(
        out,
        "{products} missing or not as planned; nothing was written; see dor status, then dor run"
    )?;
    for Missing { case, stage: product, problem } in missing.iter().take(MAX_LISTED) {
        writeln!(out, "{case}, {product}: {problem}")?;
    }
    if missing.len() > MAX_LISTED {
        writeln!(out, "and {} more", missing.len() - MAX_LISTED)?;
    }
    Ok(())
}
