//! `dor vis finalize`: writes the chunks that cases share, and the metadata.

use std::io::Write;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::arguments::config;
use super::create::named_or_configured;
use crate::cli::exit::UsageError;
use crate::cli::output::{count, short_names};
use crate::cli::publish_to::PublishTo;
use crate::cli::report::{Report, ReportArgs};
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::model::case::describe_cases;
use crate::store::{Location, Store};
use crate::vis::finalize::{self, Completeness};
use crate::vis::{StoreKind, StoreRecipe, adopt};

/// Write the results of all cases to the chunks that they share, then the metadata
///
/// Stores 1 and 3 have shared chunks; of store 2 only the metadata is written again. Cases without a result get
/// the fill value, and are listed. Fails if the store has values of cases without a case manifest. Safe to run again.
#[derive(Args, Debug)]
pub(super) struct Finalize {
    /// Store to finalize: a path or URL [default: store1, store2 and store3 of the configuration that exist]
    store: Option<Location>,
    /// Make case manifests of the cases that have values and none, because another program or an older version wrote them
    #[arg(long, requires = "store")]
    adopt: bool,
    /// The reference workflow filled the store, with its known defects; only for a store that does not state its rules
    #[arg(long, requires = "adopt")]
    reference_compat: bool,
    #[command(flatten)]
    publish_to: PublishTo,
    #[command(flatten)]
    report: ReportArgs,
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
        let mut report = self.report.report(out);
        let out = &mut report;
        for (_, store) in named_or_configured(self.store.as_ref(), &config, &stores).await? {
            let adopts = self.adopt && self.adopt(&store, out).await?;
            // Without their records, which a dry run does not make, the cases could not be finalized.
            if !(adopts && out.is_dry()) {
                finalize_store(&store, out).await?;
            }
            if self.store.is_some() {
                stop_on_signals(stop.clone());
                self.publish_to.publish(&stores, &store, &stop, out).await?;
            }
        }
        report.end()?;
        Ok(Exit::Done)
    }

    /// Makes case manifests of the cases that have values and none, and prints these cases. Returns whether there
    /// are any.
    async fn adopt(&self, store: &Store, out: &mut Report<'_>) -> anyhow::Result<bool> {
        let stated = self.reference_compat.then(|| StoreRecipe::new(true));
        let cases: Vec<Case> =
            adopt::adopt(store, stated, out.is_dry()).await?.into_iter().collect();
        match cases.is_empty() {
            true => {
                writeln!(out, "{}: every case with values has a case manifest", store.location())?
            }
            false if out.is_dry() => {
                writeln!(out, "would make case manifests of {}", describe_cases(&cases))?
            }
            false => writeln!(out, "made case manifests of {}", describe_cases(&cases))?,
        }
        out.set("adopted", json!(short_names(&cases)));
        Ok(!cases.is_empty())
    }
}

/// Finalizes a store and prints the number of its cases. A dry run only checks and prints.
///
/// # Errors
/// The store has values of cases without a case manifest, or it cannot be written.
pub(crate) async fn finalize_store(store: &Store, out: &mut Report<'_>) -> anyhow::Result<()> {
    let (kind, cases) = match out.is_dry() {
        true => finalize::preview(store).await?,
        false => finalize::finalize(store).await?,
    };
    write_completeness(out, store, &kind, &cases)
}

/// Prints the number of cases in a finalized store, and the missing cases and months.
pub(crate) fn write_completeness(
    out: &mut Report<'_>,
    store: &Store,
    kind: &StoreKind,
    cases: &Completeness,
) -> anyhow::Result<()> {
    let Completeness { done, missing, partial, unfinished } = cases;
    out.push(
        "stores",
        json!({
            "store": store.location().to_string(),
            "kind": kind.name(),
            "done": short_names(done),
            "missing": short_names(missing),
            "months_missing": short_names(partial),
            "unfinished": short_names(unfinished),
        }),
    );
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
            describe_cases(partial)
        )?;
    }
    Ok(write_open_cases(out, cases)?)
}

/// Prints the cases that are not filled to their end, and those that are missing.
pub(super) fn write_open_cases(out: &mut dyn Write, cases: &Completeness) -> std::io::Result<()> {
    let Completeness { missing, unfinished, .. } = cases;
    if !unfinished.is_empty() {
        writeln!(
            out,
            "not filled to their end: {}; populate them again",
            describe_cases(unfinished)
        )?;
    }
    if !missing.is_empty() {
        writeln!(out, "missing: {}", describe_cases(missing))?;
    }
    Ok(())
}
