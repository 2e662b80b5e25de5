//! `dor publish`: copies results to a public destination.

mod lines;
mod plan;
mod status;

use std::io::{self, Write};
use std::sync::Arc;

use clap::{Args, Subcommand};
use globset::Glob;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::lines::{MAX_LISTED, write_meanwhile, write_summary};
use self::plan::write_plan;
use super::output::count;
use super::progress::TransferBar;
use super::{Exit, GlobalArgs};
use crate::cli::arguments::{bytes_of, case, from_one};
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::stores;
use crate::config::Config;
use crate::executor::{Pool, memory, unless_stopped, until};
use crate::model::Case;
use crate::publish::{
    self, Concurrency, LeasedPlan, PublishError, PublishOptions, PublishReport, Selection,
    SentObject, VerifyScope, pattern, patterns,
};
use crate::store::{Location, Store};

/// Publish results to a destination: new and changed objects, data before metadata
///
/// Reads the case manifests that conversions leave, and prints the plan before it sends the first object. After a stop
/// of any kind, run the same command again: it does not send again what has arrived.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Command {
    #[command(subcommand)]
    about: Option<About>,
    #[command(flatten)]
    publish: Publish,
}

#[derive(Debug, Subcommand)]
enum About {
    Status(status::Status),
}

#[derive(Args, Debug)]
struct Publish {
    /// Source: a folder of research-grade files, a map store, a folder with both, or any other tree
    #[arg(required = true)]
    source: Option<Location>,
    /// Destination: a path or s3:// URL
    #[arg(required = true)]
    destination: Option<Location>,
    /// Only objects that match this pattern, or lie below a folder of this name: `*` within a folder, `**` across folders; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = pattern)]
    include: Vec<Glob>,
    /// No objects that match this pattern, or lie below a folder of this name; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = pattern)]
    exclude: Vec<Glob>,
    /// Only these products; may be repeated
    #[arg(long = "products", aliases = ["only", "stages"], value_name = "PRODUCT", value_delimiter = ',', value_parser = ["research", "store1", "store2", "store3"])]
    only: Vec<String>,
    /// Only these cases: polygon and month (112-04), index (449 or 00449), or the full name; may be repeated
    #[arg(long = "case", value_name = "CASE", value_delimiter = ',', value_parser = case)]
    cases: Vec<Case>,
    /// Delete, at the end, published objects that the source no longer has; objects that the patterns exclude stay. If the source has none of the published objects, --overwrite is needed too
    #[arg(long, conflicts_with_all = ["only", "cases"])]
    delete: bool,
    /// Refuse to publish when more objects than this would be deleted
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "delete")]
    max_delete: usize,
    /// Print the plan, and do nothing else
    #[arg(long)]
    dry_run: bool,
    /// Print a line of JSON for the plan, for each object and for the summary
    #[arg(long)]
    json: bool,
    /// Publish even if the source has less than the destination (cases, months, the grid, or objects added there) or an earlier result; also sends lost objects again, as --audit does
    #[arg(long)]
    overwrite: bool,
    /// Compare with a listing of the destination, not only with its manifest, and send lost objects again; with --verify all, read every object
    #[arg(long)]
    audit: bool,
    /// Read objects of the destination back, after the publish: metadata and a sample, or all
    #[arg(long, value_name = "EXTENT", num_args = 0..=1, default_missing_value = "sample", value_parser = ["sample", "all"])]
    verify: Option<String>,
    /// Limit the average rate in bytes per second, such as 50M; each object, or part of a large object, is sent without a pause
    #[arg(long, value_name = "RATE", value_parser = rate)]
    bwlimit: Option<u64>,
    /// Number of concurrent requests, or auto: adapts to the responses of the server
    #[arg(long, value_name = "N", default_value = "auto", value_parser = concurrency)]
    concurrency: Concurrency,
    /// `Cache-Control` of all objects, such as `public, max-age=3600`
    #[arg(long, value_name = "VALUE", value_parser = header)]
    cache_control: Option<String>,
    /// `Content-Type` of all objects [default: from the name]
    #[arg(long, value_name = "TYPE", value_parser = header)]
    content_type: Option<String>,
}

/// Parses a rate in bytes per second, with an optional k, M, G, Ki, Mi or Gi.
fn rate(text: &str) -> Result<u64, String> {
    bytes_of(text).ok_or_else(|| "give bytes per second, such as 500k, 50M or 1Gi".to_owned())
}

/// Parses the value of an HTTP header: printable ASCII characters, not empty.
fn header(text: &str) -> Result<String, String> {
    match !text.trim().is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        true => Ok(text.trim().to_owned()),
        false => Err("give printable ASCII characters".to_owned()),
    }
}

/// Parses a number of concurrent requests, or `auto`.
fn concurrency(text: &str) -> Result<Concurrency, String> {
    match text {
        "auto" => Ok(Concurrency::Auto),
        number => from_one(number)
            .map(|number| Concurrency::Fixed(number.get()))
            .map_err(|error| format!("{error}, or auto")),
    }
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        match self.about {
            Some(About::Status(status)) => status.run(global, out).await,
            None => self.publish.run(global, out).await,
        }
    }
}

impl Publish {
    async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = Config::load(&global.overrides())?;
        let stores = stores(&config);
        let options = self.options()?;
        let (Some(source), Some(destination)) = (&self.source, &self.destination) else {
            return Ok(Exit::Usage);
        };
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let source = until(&stop, &stores).open(source)?;
        let destination = stores.open(destination)?;
        if self.dry_run {
            let plan = publish::plan_without_lease(&source, &destination, options, &stop).await?;
            let left_out = unless_stopped(&stop, plan.left_out()).await??;
            write_plan(out, &plan, Some(&left_out), self.json)?;
            return Ok(Exit::Done);
        }
        let prepared = publish::prepare(&source, &destination, options, &stop).await?;
        write_plan(out, &prepared.plan, None, self.json)?;
        out.flush()?;
        let report = self.carry_out(prepared, out).await?;
        refuse_wrong(&destination, &report)?;
        Ok(Exit::Done)
    }

    /// Carries out a plan and prints its report.
    async fn carry_out(
        &self,
        prepared: LeasedPlan,
        out: &mut dyn Write,
    ) -> anyhow::Result<PublishReport> {
        let (sender, lines) = mpsc::unbounded_channel();
        let progress = Arc::new(TransferBar::new(self.json.then_some(sender)));
        let publishing = publish::publish(prepared, progress.clone());
        let result = write_meanwhile(out, lines, publishing).await;
        progress.end();
        let report = match result? {
            Err(error) if self.json => {
                write_summary(out, &progress, &json!({ "error": error.to_string() }))?;
                return Err(error.into());
            }
            result => result?,
        };
        match self.json {
            true => write_json_report(out, &progress, &report)?,
            false => write_report(out, &progress, &report)?,
        }
        Ok(report)
    }

    /// Returns the options of the publish.
    ///
    /// # Errors
    /// A pattern is not valid.
    fn options(&self) -> Result<PublishOptions, PublishError> {
        let selection = Selection {
            include: patterns(&self.include)?,
            exclude: patterns(&self.exclude)?,
            only: self.only.iter().cloned().collect(),
            cases: self.cases.iter().copied().collect(),
            single_cases_only: false,
        };
        let verify = self.verify.as_deref().map(|extent| match extent {
            "all" => VerifyScope::All,
            _ => VerifyScope::Sample,
        });
        Ok(PublishOptions {
            selection,
            delete: self.delete,
            max_delete: self.max_delete,
            overwrite: self.overwrite,
            audit: self.audit,
            verify,
            concurrency: self.concurrency,
            rate: self.bwlimit,
            pool: Some(Pool::new(1, memory::budget())),
            cache_control: self.cache_control.clone(),
            content_type: self.content_type.clone(),
        })
    }
}

/// Prints the report of a publish as a line of JSON.
fn write_json_report(
    out: &mut dyn Write,
    progress: &TransferBar,
    report: &PublishReport,
) -> io::Result<()> {
    let verified =
        report.verified.as_ref().map(|(read, wrong)| json!({ "read": read, "wrong": wrong }));
    let more = json!({
        "version": report.version,
        "deleted": report.deleted,
        "forgotten": report.dropped,
        "verified": verified,
    });
    write_summary(out, progress, &more)
}

/// Prints the report of a publish.
fn write_report(
    out: &mut dyn Write,
    progress: &TransferBar,
    report: &PublishReport,
) -> io::Result<()> {
    let PublishReport { version, sent, deleted, dropped, verified } = report;
    match (*sent, *deleted) {
        (0, 0) => writeln!(out, "version {version}: nothing to send")?,
        (0, _) => writeln!(out, "version {version}: {deleted} deleted")?,
        _ => {
            let (objects, summary) = (count(*sent, "object"), progress.summary());
            writeln!(out, "version {version}: {objects} sent in {summary}, {deleted} deleted")?;
        }
    }
    if *dropped > 0 {
        let objects = count(*dropped, "object");
        writeln!(
            out,
            "{objects} outside this selection were changed or removed by another writer and no longer count as \
             published; publish everything to send them again"
        )?;
    }
    write_retried(out, &progress.retried())?;
    if let Some((read, wrong)) = verified {
        writeln!(out, "{} read back, {} wrong", count(*read, "object"), wrong.len())?;
        wrong.iter().try_for_each(|w| writeln!(out, "wrong: {}: {}", w.key, w.problem))?;
    }
    Ok(())
}

/// Prints the objects that were sent after more than one attempt.
fn write_retried(out: &mut dyn Write, retried: &[SentObject]) -> io::Result<()> {
    if retried.is_empty() {
        return Ok(());
    }
    writeln!(out, "{} needed more than one attempt:", count(retried.len(), "object"))?;
    for SentObject { key, attempts, .. } in retried.iter().take(MAX_LISTED) {
        writeln!(out, "  {key}: {attempts} attempts")?;
    }
    if retried.len() > MAX_LISTED {
        writeln!(out, "  and {} more; --json lists all", retried.len() - MAX_LISTED)?;
    }
    Ok(())
}

/// Returns an error if objects that were read back are wrong.
fn refuse_wrong(destination: &Store, report: &PublishReport) -> Result<(), PublishError> {
    match &report.verified {
        Some((read, wrong)) if !wrong.is_empty() => Err(PublishError::NotVerified {
            url: destination.location().to_string(),
            count: wrong.len(),
            looked_at: *read,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        for (text, bytes) in [("10", 10), ("1.5k", 1500), ("50M", 50_000_000), ("1MiB", 1 << 20)] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "0", "5 apples", "-1"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(header("public, max-age=60").as_deref(), Ok("public, max-age=60"));
        assert!(header("bad\nvalue").is_err() && header(" ").is_err() && header("ü").is_err());
        assert_eq!(concurrency("7"), Ok(Concurrency::Fixed(7)));
        assert!(concurrency("0").is_err() && concurrency("many").is_err());
    }
}
