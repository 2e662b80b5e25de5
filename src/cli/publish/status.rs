//! `dor publish status`: what is published at a destination.

use std::io::Write;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{size_of, write_orphaned};
use crate::cli::output::{bytes, count, write_json};
use crate::cli::{Exit, GlobalArgs, stores};
use crate::config::Config;
use crate::publish::doubt::Doubt;
use crate::publish::published::Published;
use crate::publish::sign::Sign;
use crate::publish::unfinished::Unfinished;
use crate::publish::{self, Options};
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
        let published = Published::load(&destination).await?;
        let publishing = Sign::find(&destination).await?;
        let doubt = Doubt::load(&destination).await?;
        let unfinished = Unfinished::load(&destination).await?;
        let pending = match &self.source {
            None => None,
            Some(location) => {
                let source = stores.open(location)?;
                let options = Options { overwrite: true, ..Options::default() };
                let stop = CancellationToken::new();
                let would = publish::prepare(&source, &destination, options, &stop).await?;
                Some(would)
            }
        };
        if self.json {
            let document = json!({
                "published": published.as_ref().map(|published| &published.header),
                "publishing": publishing,
                "in_doubt": doubt.objects.len(),
                "unfinished": unfinished.token().is_some(),
                "may_lie_there": unfinished.objects.len(),
                "pending": pending.as_ref().map(|would| json!({
                    "objects": would.plan.send.len(),
                    "bytes": would.plan.bytes(),
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
            Some(Published { header, .. }) => {
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
        if let Some(sign) = publishing {
            writeln!(out, "being published to by {sign}")?;
        }
        if !doubt.is_none() {
            let objects = match doubt.is_all {
                true => "all (a mark is damaged)".to_owned(),
                false => count(doubt.objects.len(), "object"),
            };
            writeln!(
                out,
                "in doubt: {objects}; a publisher that had lost its claim may have changed them: publish again"
            )?;
        }
        if unfinished.token().is_some() && !being_published {
            writeln!(out, "a publish was begun and has not ended: run it again")?;
        } else if !unfinished.objects.is_empty() && !being_published {
            let objects = count(unfinished.objects.len(), "object");
            writeln!(
                out,
                "may lie there, and no longer belong to what is published: {objects}; publish all of it, with --delete where they are to go"
            )?;
        }
        if let Some(would) = pending {
            let (plan, cases) = (&would.plan, &would.inventory.pending);
            let objects = count(plan.send.len(), "object");
            writeln!(out, "pending: {objects}, {}", bytes(plan.bytes()))?;
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
