//! `dor vis finalize`: writes the chunks that cases share, and the metadata.

use std::io::Write;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::arguments::config;
use super::create::named_or_configured;
use crate::cli::arguments::UsageError;
use crate::cli::output::count;
use crate::cli::publish_to::PublishTo;
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::model::case::in_short;
use crate::store::{Location, Store};
use crate::vis::finalize::{self, Completeness};
use crate::vis::{StoreKind, StoreRecipe, adopt};

/// Write the results of all cases to the chunks that they share, then the metadata
///
/// Stores 1 and 3 have shared chunks; of store 2 only the metadata is written again. Cases without a result get
/// the fill value, and are listed. Fails if the store has values of cases without a record. Safe to run again.
#[derive(Args, Debug)]
pub(super) struct Finalize {
    /// Store to finalize: a path or URL [default: store1, store2 and store3 of the configuration that exist]
    store: Option<Location>,
    /// Make records of cases that have values and no record, because another program or an older version wrote them
    #[arg(long, requires = "store")]
    adopt: bool,
    /// The reference workflow filled the store, with its known defects; only for a store that does not state its rules
    #[arg(long, requires = "adopt")]
    reference_compat: bool,
    #[command(flatten)]
    publish_to: PublishTo,
}

impl Finalize {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        if self.publish_to.is_given() && self.store.is_none() {
            let problem = "--publish-to publishes one store; name the store to finalize".to_owned();
            return Err(UsageError(problem).into());
        }
        let config = config(global, None, None)?;
        let stores = stores(&config);
        let stop = CancellationToken::new();
        for (_, store) in named_or_configured(self.store.as_ref(), &config, &stores).await? {
            if self.adopt {
                self.adopt(&store, out).await?;
            }
            finalize_store(&store, out).await?;
            if self.store.is_some() {
                stop_on_signals(stop.clone());
                self.publish_to.publish(&stores, &store, &stop, out).await?;
            }
        }
        Ok(Exit::Done)
    }

    /// Makes records of the cases that have values and no record, and prints these cases.
    async fn adopt(&self, store: &Store, out: &mut dyn Write) -> anyhow::Result<()> {
        let stated = self.reference_compat.then(|| StoreRecipe::new(true));
        let cases: Vec<Case> = adopt::adopt(store, stated).await?.into_iter().collect();
        match cases.is_empty() {
            true => writeln!(out, "{}: every case with values has a record", store.location())?,
            false => writeln!(out, "made records of {}", in_short(&cases))?,
        }
        Ok(())
    }
}

/// Finalizes a store and prints the number of its cases.
///
/// # Errors
/// The store has values of cases without a record, or it cannot be written.
pub(crate) async fn finalize_store(store: &Store, out: &mut dyn Write) -> anyhow::Result<()> {
    let (kind, cases) = finalize::finalize(store).await?;
    write_completeness(out, store, &kind, &cases)
}

/// Prints the number of cases in a finalized store, and the missing cases and months.
pub(crate) fn write_completeness(
    out: &mut dyn Write,
    store: &Store,
    kind: &StoreKind,
    cases: &Completeness,
) -> anyhow::Result<()> {
    let Completeness { done, missing, partial } = cases;
    writeln!(
        out,
        "{}: {} with {} of {} cases, {} missing",
        store.location(),
        kind.name(),
        done.len(),
        done.len() + missing.len(),
        missing.len()
    )?;
    if !partial.is_empty() {
        writeln!(
            out,
            "{} with months missing: {}",
            count(partial.len(), "case"),
            in_short(partial)
        )?;
    }
    if !missing.is_empty() {
        writeln!(out, "missing: {}", in_short(missing))?;
    }
    Ok(())
}
