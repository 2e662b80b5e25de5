//! `dor publish status`: shows the published version of a destination.

use std::io::{self, Write};

use clap::Args;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::lines::{size_of, write_orphaned};
use crate::cli::output::{bytes, count};
use crate::cli::report::JsonArgs;
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::publish::{
    self, Lease, Manifest, ManifestHeader, PublishError, PublishOptions, PublishPlan,
};
use crate::store::{Location, Store, StoreRegistry};

/// Show what is published at a destination: the version, the recipes, and a publish in progress
#[derive(Args, Debug)]
pub(super) struct Status {
    /// Destination: a path or URL
    destination: Location,
    /// Source of the publish; also shows the number of objects that a publish of the whole source would send
    #[arg(long, value_name = "LOCATION")]
    source: Option<Location>,
    #[command(flatten)]
    json: JsonArgs,
}

impl Status {
    pub(super) async fn run(
        self,
        global: &GlobalArgs,
        out: &mut dyn Write,
    ) -> anyhow::Result<Exit> {
        let config = Config::load(&global.overrides())?;
        let report = self.report(&stores(&config)).await?;
        let document = report.document();
        self.json.print(out, &document, |out, _| report.write(out, &self.destination))?;
        Ok(Exit::Done)
    }

    /// Reads the manifest and the lease of the destination, and plans a publish of the source.
    async fn report(&self, stores: &StoreRegistry) -> anyhow::Result<StatusReport> {
        let destination = stores.open(&self.destination)?;
        let published = Manifest::load(&destination).await?;
        let lease = Lease::load(&destination).await?;
        let is_dirty = lease.as_ref().is_some_and(Lease::is_dirty);
        let publishing = lease.filter(Lease::is_held);
        let is_unfinished = Manifest::load_intent(&destination).await?.is_some();
        let pending = match &self.source {
            None => None,
            Some(location) => Some(pending(&stores.open(location)?, &destination).await?),
        };
        Ok(StatusReport { published, publishing, is_dirty, is_unfinished, pending })
    }
}

/// Plans a publish of the whole source, without a lease.
async fn pending(source: &Store, destination: &Store) -> Result<PublishPlan, PublishError> {
    let options = PublishOptions { overwrite: true, ..PublishOptions::default() };
    let stop = CancellationToken::new();
    publish::plan_without_lease(source, destination, options, &stop).await
}

/// State of a destination.
struct StatusReport {
    /// `None`: nothing is published.
    published: Option<Manifest>,
    /// The lease of a publish in progress.
    publishing: Option<Lease>,
    /// Whether a publisher that had lost its lease may have changed objects.
    is_dirty: bool,
    /// Whether a publish has begun and not ended.
    is_unfinished: bool,
    /// Plan of a publish of the source. `None`: no source was given.
    pending: Option<PublishPlan>,
}

impl StatusReport {
    fn document(&self) -> Value {
        json!({
            "published": self.published.as_ref().map(|published| &published.header),
            "publishing": self.publishing,
            "dirty": self.is_dirty,
            "unfinished": self.is_unfinished,
            "pending": self.pending.as_ref().map(|plan| json!({
                "objects": plan.changes.send.len(),
                "bytes": plan.changes.bytes(),
                "arrived_since": plan.arrived_since,
                "not_complete": plan.inventory.unfinished_cases,
                "orphaned": plan.orphans.len(),
            })),
        })
    }

    fn write(&self, out: &mut dyn Write, destination: &Location) -> io::Result<()> {
        match &self.published {
            None => writeln!(out, "nothing is published at {destination}")?,
            Some(Manifest { header, .. }) => write_header(out, header)?,
        }
        self.write_publishers(out)?;
        match &self.pending {
            None => Ok(()),
            Some(plan) => self.write_pending(out, plan),
        }
    }

    fn write_publishers(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(lease) = &self.publishing {
            writeln!(out, "being published to by {lease}")?;
        }
        if self.is_dirty {
            writeln!(
                out,
                "in doubt: a publisher that had lost its lease may have changed objects; publish again"
            )?;
        }
        if self.is_unfinished && self.publishing.is_none() {
            writeln!(out, "a publish has begun and not ended; run dor publish again")?;
        }
        Ok(())
    }

    fn write_pending(&self, out: &mut dyn Write, plan: &PublishPlan) -> io::Result<()> {
        let (changes, cases) = (&plan.changes, &plan.inventory.unfinished_cases);
        let objects = count(changes.send.len(), "object");
        writeln!(out, "pending: {objects}, {}", bytes(changes.bytes()))?;
        write_orphaned(out, size_of(&plan.orphans))?;
        if plan.arrived_since > 0 && self.publishing.is_none() {
            let arrived = count(plan.arrived_since, "object");
            writeln!(
                out,
                "interrupted: {arrived} sent since the last complete publish; run dor publish again"
            )?;
        }
        if !cases.is_empty() {
            writeln!(out, "not complete: {}", cases.join(", "))?;
        }
        Ok(())
    }
}

/// Prints the published version, and the recipe of each folder.
fn write_header(out: &mut dyn Write, header: &ManifestHeader) -> io::Result<()> {
    writeln!(
        out,
        "version {} of {} by {}, from {}: {}, {}",
        header.version,
        header.published.format("%Y-%m-%d %H:%M UTC"),
        header.program,
        header.source,
        count(header.objects, "object"),
        bytes(header.bytes)
    )?;
    for (folder, recipe) in &header.recipes {
        let folder = if folder.is_empty() { "." } else { folder };
        writeln!(out, "{folder}: {recipe}")?;
    }
    Ok(())
}
