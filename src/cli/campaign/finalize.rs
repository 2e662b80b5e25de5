//! `dor finalize`: the end of a campaign.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::arguments::{PlanArgs, load};
use crate::campaign::status::{Missing, archive, missing, outputs};
use crate::campaign::{OpenPlan, Product};
use crate::cli::output::count;
use crate::cli::publish_to::PublishTo;
use crate::cli::signals::stop_on_signals;
use crate::cli::vis::finalize_store;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::executor::unless_stopped;
use crate::store::Store;

/// Cases that are named.
const SHOWN: usize = 50;

/// Put the map stores together, once every case of a plan is done
///
/// Looks at the record of each case and product first: when one is missing, it is named, nothing is
/// written, and the exit code is 3.
#[derive(Args, Debug)]
pub(crate) struct Finalize {
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    publish_to: PublishTo,
}

impl Finalize {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = Config::load(&self.plan.over(global.overrides()))?;
        let opened = load(&config).await?;
        let stop = CancellationToken::new();
        let Some(outputs) = finalize(&opened, &stop, out).await? else {
            return Ok(Exit::Incomplete);
        };
        for (_, store) in &outputs {
            let name = store.location().file_name().unwrap_or_default().to_owned();
            self.publish_to.publish_below(&name, &opened.stores, store, &stop, out).await?;
        }
        Ok(Exit::Done)
    }
}

/// Puts the products of a plan together and says what they hold; `None` when some are missing, which are
/// named. A signal stops it from the moment on that all places are known to be there.
pub(crate) async fn finalize(
    OpenPlan { stores, plan, .. }: &OpenPlan,
    stop: &CancellationToken,
    out: &mut dyn Write,
) -> anyhow::Result<Option<Vec<(Product, Store)>>> {
    plan.places.refuse_absent(&plan.stages, stores).await?;
    let (raw, outputs) = (archive(plan, stores)?, outputs(plan, stores)?);
    stop_on_signals(stop.clone());
    let missing =
        unless_stopped(stop, missing(plan, &raw, &outputs, &mut BTreeSet::new())).await??;
    if !missing.is_empty() {
        write_missing(out, &missing)?;
        return Ok(None);
    }
    for (stage, store) in &outputs {
        match stage {
            Product::Research => {
                // Of writers that were killed beside others who then ended the case.
                unless_stopped(stop, store.remove_stale_temp_files("")).await??;
                let cases = count(plan.cases.len(), "case");
                writeln!(out, "{}: research-grade files of {cases}", store.location())?;
            }
            _ => unless_stopped(stop, finalize_store(store, out)).await??,
        }
    }
    Ok(Some(outputs))
}

/// Names the products that are missing.
fn write_missing(out: &mut dyn Write, missing: &[Missing]) -> std::io::Result<()> {
    let products = count(missing.len(), "product");
    writeln!(
        out,
        "{products} missing or not as planned; nothing was written; see dor status, then dor run"
    )?;
    for Missing { case, stage, problem } in missing.iter().take(SHOWN) {
        writeln!(out, "{case}, {stage}: {problem}")?;
    }
    if missing.len() > SHOWN {
        writeln!(out, "and {} more", missing.len() - SHOWN)?;
    }
    Ok(())
}
