//! `--publish-to`: what a command finishes is published while it goes on.

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::output::count;
use super::progress::TransferBar;
use super::{Exit, report};
use crate::executor::{Pool, memory};
use crate::model::Case;
use crate::publish::{self, IncrementalPublisher, PublishError, PublishOptions};
use crate::store::{Location, Store, StoreRegistry};

/// Where finished cases are published to.
#[derive(Args, Debug, Default)]
pub(super) struct PublishTo {
    /// Publish what is finished here as well: a path or URL
    #[arg(long, value_name = "LOCATION")]
    publish_to: Option<Location>,
}

impl PublishTo {
    /// A queue from `source`, if there is to be one.
    pub async fn queue(
        &self,
        stores: &StoreRegistry,
        source: &Store,
        (pool, stop): (&Pool, &CancellationToken),
    ) -> Result<Publishing, PublishError> {
        let Some(location) = &self.publish_to else { return Ok(Publishing(None)) };
        let destination = stores.open(location)?;
        publish::preflight(source, &destination).await?;
        let progress = Arc::new(TransferBar::beside());
        let queue = IncrementalPublisher::new(
            source.clone(),
            destination,
            progress,
            pool.clone(),
            stop.clone(),
        );
        Ok(Publishing(Some((queue, location.clone()))))
    }

    /// Publishes all of `source`, if it is to be.
    pub async fn publish(
        &self,
        stores: &StoreRegistry,
        source: &Store,
        stop: &CancellationToken,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        self.publish_below("", stores, source, stop, out).await
    }

    /// The same, to what is called `name` below the destination.
    pub async fn publish_below(
        &self,
        name: &str,
        stores: &StoreRegistry,
        source: &Store,
        stop: &CancellationToken,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let Some(location) = &self.publish_to else { return Ok(()) };
        let location = location.join(name);
        let destination = stores.open(&location)?;
        let pool = Some(Pool::new(1, memory::to_use()));
        let options = PublishOptions { pool, ..PublishOptions::default() };
        let prepared = publish::prepare(source, &destination, options, stop).await?;
        let outcome = publish::publish(prepared, Arc::new(TransferBar::beside())).await?;
        let sent = count(outcome.sent, "object");
        Ok(writeln!(out, "published to {location}: {sent}, version {}", outcome.version)?)
    }
}

/// Publishing that goes on beside a command.
pub(super) struct Publishing(Option<(IncrementalPublisher, Location)>);

impl Publishing {
    /// A case is finished.
    pub fn add(&self, case: Case) {
        if let Some((queue, _)) = &self.0 {
            queue.add(case);
        }
    }

    /// Waits for the rest and says so; the exit code of the command when all is well, else ours.
    pub async fn end(self, exit: Exit, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let Some((queue, location)) = self.0 else { return Ok(exit) };
        match queue.end().await {
            Ok(sent) => {
                writeln!(out, "published to {location}: {}", count(sent, "object"))?;
                Ok(exit)
            }
            Err(error) if exit == Exit::Done => Err(error.into()),
            Err(error) => {
                report(&error);
                Ok(exit)
            }
        }
    }
}
