//! `--publish-to`: publishes the finished cases of a command while the command continues.

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::count;
use super::progress::TransferBar;
use super::report::Report;
use super::{Exit, report};
use crate::executor::{Pool, memory};
use crate::model::Case;
use crate::publish::{self, IncrementalPublisher, PublishError, PublishOptions};
use crate::store::{Location, Store, StoreRegistry};

/// The option `--publish-to`.
#[derive(Args, Debug, Default)]
pub(super) struct PublishTo {
    /// Publish finished results to this destination: a path or URL
    #[arg(long, value_name = "LOCATION")]
    publish_to: Option<Location>,
}

impl PublishTo {
    /// Whether the option is given.
    pub fn is_given(&self) -> bool {
        self.publish_to.is_some()
    }

    /// Creates the publisher of finished cases of `source`. It does nothing without `--publish-to`.
    ///
    /// # Errors
    /// The destination cannot be opened, or cannot be published to.
    pub async fn queue(
        &self,
        stores: &StoreRegistry,
        source: &Store,
        (pool, stop): (&Pool, &CancellationToken),
    ) -> Result<Publishing, PublishError> {
        let Some(location) = &self.publish_to else { return Ok(Publishing(None)) };
        let destination = stores.open(location)?;
        publish::preflight(source, &destination).await?;
        let progress = Arc::new(TransferBar::without_bar());
        let queue = IncrementalPublisher::new(
            source.clone(),
            destination,
            progress,
            pool.clone(),
            stop.clone(),
        );
        Ok(Publishing(Some((queue, location.clone()))))
    }

    /// Publishes all of `source`. Does nothing without `--publish-to`, and in a dry run.
    ///
    /// # Errors
    /// The publish fails.
    pub async fn publish(
        &self,
        stores: &StoreRegistry,
        source: &Store,
        stop: &CancellationToken,
        out: &mut Report<'_>,
    ) -> anyhow::Result<()> {
        self.publish_below("", stores, source, stop, out).await
    }

    /// Publishes all of `source` to the folder `name` of the destination. Does nothing without `--publish-to`, and in a
    /// dry run.
    ///
    /// # Errors
    /// The publish fails.
    pub async fn publish_below(
        &self,
        name: &str,
        stores: &StoreRegistry,
        source: &Store,
        stop: &CancellationToken,
        out: &mut Report<'_>,
    ) -> anyhow::Result<()> {
        let Some(location) = self.publish_to.as_ref().filter(|_| !out.is_dry()) else {
            return Ok(());
        };
        let location = location.join(name);
        let destination = stores.open(&location)?;
        let pool = Some(Pool::new(1, memory::budget()));
        let options = PublishOptions { pool, ..PublishOptions::default() };
        let prepared = publish::prepare(source, &destination, options, stop).await?;
        let report = publish::publish(prepared, Arc::new(TransferBar::without_bar())).await?;
        let (objects, version) = (report.sent, report.version);
        out.push(
            "published",
            json!({ "destination": location.to_string(), "objects": objects, "version": version }),
        );
        Ok(writeln!(
            out,
            "published to {location}: {}, version {version}",
            count(objects, "object")
        )?)
    }
}

/// Publisher of the finished cases of a command; it is empty without `--publish-to`.
pub(super) struct Publishing(Option<(IncrementalPublisher, Location)>);

impl Publishing {
    /// Queues a finished case.
    pub fn add(&self, case: Case) {
        if let Some((queue, _)) = &self.0 {
            queue.add(case);
        }
    }

    /// Waits for the queued cases and prints the number of published objects; does nothing in a dry run. Returns the
    /// exit code `exit` of the command.
    ///
    /// # Errors
    /// The publish fails and the command itself did not. When both fail, the error of the publish is printed.
    pub async fn end(self, exit: Exit, out: &mut Report<'_>) -> anyhow::Result<Exit> {
        let Some((queue, location)) = self.0.filter(|_| !out.is_dry()) else { return Ok(exit) };
        match queue.end().await {
            Ok(sent) => {
                let published = json!({ "destination": location.to_string(), "objects": sent });
                out.push("published", published);
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
