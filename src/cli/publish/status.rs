//! `dor publish status`: what is published at a destination.

use std::io::Write;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::lines::{size_of, write_orphaned};
use crate::cli::output::{bytes, count, write_json};
use crate::cli::stores::stores;
use crate::cli::{Exit, GlobalArgs};
use crate::config::Config;
use crate::publish::{self, Lease, Manifest, PublishOptions};
use crate::store::{Location, Store};

/// Tell what is published at a destination: version, recipes, and whether somebody publishes now
#[derive(Args, Debug)]
pub(super) struct Status {
    /// The destination: a path or URL
    destination: Location,
    /// What is published there from: tells what is pending, of all that it holds
    #[arg(long, value_name = "LOCATION")]
    source: Option<Location>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) async fn run(
        self,
        global: &GlobalArgs,
        out: &mut dyn Write,
    ) -> anyhow::Result<Exit> {
        let config = Config::load(&global.overrides())?;
        let stores = stores(&config);
        let destination: Store = stores.open(&self.destination)?;
        let published = Manifest::load(&destination).await?;
        let lease = Lease::load(&destination).await?;
        let is_dirty = lease.as_ref().is_some_and(Lease::is_dirty);
        let publishing = lease.filter(Lease::is_held);
        let intent = Manifest::load_intent(&destination).await?;
        let pending = match &self.source {
            None => None,
            Some(location) => {
                let source = stores.open(location)?;
                let options = PublishOptions { overwrite: true, ..PublishOptions::default() };
                let stop = CancellationToken::new();
                let would =
                    publish::plan_without_lease(&source, &destination, options, &stop).await?;
                Some(would)
            }
        };
        if self.json {
            let document = json!({
                "published": published.as_ref().map(|published| &published.header),
                "publishing": publishing,
                "dirty": is_dirty,
                "unfinished": intent.is_some(),
                "pending": pending.as_ref().map(|would| json!({
                    "objects": would.changes.send.len(),
                    "bytes": would.changes.bytes(),
                    "arrived_since": would.arrived_since,
                    "not_complete": would.inventory.pending,
                    "orphaned": would.orphans.len(),
                })),
            });
            write_json(out, &document)?;
            return Ok(Exit::Done);
        }
        match &published {
            None => writeln!(out, "nothing is published at {}", self.destination)?,
            Some(Manifest { header, .. }) => {
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
            }
        }
        let being_published = publishing.is_some();
        if let Some(lease) = publishing {
            writeln!(out, "being published to by {lease}")?;
        }
        if is_dirty {
            writeln!(
                out,
                "in doubt: a publisher that had lost its lease may have changed objects: publish again"
            )?;
        }
        if intent.is_some() && !being_published {
            writeln!(out, "a publish was begun and has not ended: run it again")?;
        }
        if let Some(would) = pending {
            let (changes, cases) = (&would.changes, &would.inventory.pending);
            let objects = count(changes.send.len(), "object");
            writeln!(out, "pending: {objects}, {}", bytes(changes.bytes()))?;
            write_orphaned(out, size_of(&would.orphans))?;
            if would.arrived_since > 0 && !being_published {
                let arrived = count(would.arrived_since, "object");
                writeln!(out, "interrupted: {arrived} arrived since; run dor publish again")?;
            }
            if !cases.is_empty() {
                writeln!(out, "not complete: {}", cases.join(", "))?;
            }
        }
        Ok(Exit::Done)
    }
}
