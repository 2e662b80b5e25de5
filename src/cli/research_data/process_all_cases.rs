//! `dor research-data process-all-cases`: every case that has raw files.

use std::io::Write;
use std::num::NonZeroUsize;

use clap::Args;
use futures::StreamExt;

use super::arguments::{Conversion, Places, Selection};
use super::places;
use super::run::{Outcome, Reasons, Run, write_reasons};
use crate::cli::arguments::from_one;
use crate::cli::output::{bytes, count, say};
use crate::cli::publish_to::PublishTo;
use crate::cli::{Exit, GlobalArgs, failures, report};
use crate::model::Case;
use crate::pipeline::Stopped;
use crate::research::catalogue::{self, State, Survey};
use crate::research::{self, Environment, Summary};

/// Cases that are worked on at the same time: the next begins while the last files of one are
/// still under way.
const CASES: usize = 2;

/// Convert every case that has raw files
///
/// Cases without any raw file are passed over. Ends with 1 when a case failed, 78 when all that failed
/// did for their settings, such as another grid file than the record has; the failed cases are
/// listed with the cause. A dry run looks at all cases.
#[derive(Args, Debug)]
pub(super) struct ProcessAllCases {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    conversion: Conversion,
    #[command(flatten)]
    publish_to: PublishTo,
    /// Stop after this many cases that were not done before
    #[arg(long, value_name = "N", value_parser = from_one)]
    max_cases: Option<NonZeroUsize>,
    /// Go on with the other cases when one fails
    #[arg(long)]
    keep_going: bool,
}

impl ProcessAllCases {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let run = Run::prepare(&self.places, &self.conversion, global).await?;
        let Environment { raw, out: target, .. } = &run.environment;
        let selected: Vec<Case> = self.selection.cases().collect();
        let surveys = catalogue::survey(raw, Some(target), &selected).await?;
        let present: Vec<&Survey> = surveys.iter().filter(|s| s.raw > 0).collect();
        if present.is_empty() {
            places::refuse_absent(raw, &run.archive, "data_dir").await?;
            anyhow::bail!(research::PlanError::NoCases { archive: raw.location().to_string() });
        }
        let mut left = self.max_cases.map_or(usize::MAX, NonZeroUsize::get);
        let within_limit = |survey: &&&Survey| {
            let counts = survey.state != State::Done || self.conversion.force;
            let fits = !counts || left > 0;
            left -= usize::from(counts && fits);
            fits
        };
        let cases: Vec<Case> = present.iter().filter(within_limit).map(|s| s.case).collect();
        let publishing = run.publishing(&self.publish_to).await?;
        let (mut total, mut reasons) = (Summary::default(), Reasons::new());
        let mut is_misconfigured = true;
        let (mut done, mut failed, mut interrupted) = (0, Vec::new(), Vec::new());
        let stop = &run.environment.stop;
        let mut results = futures::stream::iter(&cases)
            .take_while(|_| std::future::ready(!stop.is_cancelled()))
            .map(|&case| {
                let run = &run;
                async move {
                    let mut text = Vec::new();
                    let result = run.case(case, &mut text).await;
                    (case, text, result)
                }
            })
            .buffered(CASES);
        while let Some((case, text, result)) = results.next().await {
            out.write_all(&text)?;
            match result {
                Ok(Outcome { summary, reasons: of_case }) => {
                    if !run.dry_run {
                        publishing.add(case);
                    }
                    done += 1;
                    total += summary;
                    for (reason, files) in of_case {
                        *reasons.entry(reason).or_default() += files;
                    }
                }
                Err(error) if Exit::of(&error) == Exit::Interrupted => {
                    interrupted.push(error.to_string());
                }
                Err(error) => {
                    report(&error);
                    is_misconfigured &= Exit::of(&error) == Exit::Configuration;
                    failed.push(format!("{case}: {}", failures::cause(&error)));
                    if !self.keep_going && !run.dry_run {
                        break;
                    }
                }
            }
            out.flush()?;
        }
        let not_tried = cases.len() - done - failed.len() - interrupted.len();
        let Summary { converted, kept, bytes_in, bytes_out, .. } = total;
        let (verb, files) = match run.dry_run {
            true => ("planned", format!("to convert ({}), {kept} done", bytes(bytes_in))),
            false => {
                let sizes = (bytes(bytes_in), bytes(bytes_out));
                ("done", format!("converted, {kept} kept, {} in, {} out", sizes.0, sizes.1))
            }
        };
        write!(
            out,
            "{} {verb}, {} failed, {not_tried} not tried",
            count(done, "case"),
            failed.len()
        )?;
        if !interrupted.is_empty() {
            write!(out, ", {} interrupted", interrupted.len())?;
        }
        if self.max_cases.is_some() {
            write!(out, ", {} left by --max-cases", present.len() - cases.len())?;
        }
        if run.dry_run {
            let without = selected.len() - present.len();
            write!(out, ", {without} of those selected without raw files")?;
        }
        writeln!(out, ": {} {files}", count(converted, "file"))?;
        write_reasons(out, &reasons)?;
        for case in &failed {
            writeln!(out, "failed: {case}")?;
        }
        for case in &interrupted {
            writeln!(out, "interrupted: {case}")?;
        }
        if stop.is_cancelled() && done + failed.len() < cases.len() {
            say(&Stopped.to_string());
            return publishing.end(Exit::Interrupted, out).await;
        }
        let exit = match failed.is_empty() {
            true => Exit::Done,
            false if is_misconfigured => Exit::Configuration,
            false => Exit::SomeFailed,
        };
        publishing.end(exit, out).await
    }
}
