//! `dor research-data process-all-cases`: every case that has raw files.

use std::io::Write;

use clap::Args;
use futures::StreamExt;

use super::arguments::{Conversion, Places, Selection};
use super::run::{Run, write_summary};
use crate::cli::output::bytes;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;
use crate::research::catalogue::{self, State, Survey};
use crate::research::{self, Environment, Summary};

/// Cases that are worked on at the same time: the next begins while the last files of one are
/// still under way.
const CASES: usize = 2;

/// Convert every case that has raw files
///
/// Cases without any raw file are passed over. Ends with 1 when a case failed; the failed cases
/// are listed with the cause.
#[derive(Args, Debug)]
pub(super) struct ProcessAllCases {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    conversion: Conversion,
    /// Stop after this many cases that were not done before
    #[arg(long, value_name = "N")]
    max_cases: Option<usize>,
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
        let present = surveys.iter().filter(|s| s.raw > 0);
        let mut left = self.max_cases.unwrap_or(usize::MAX);
        let within_limit = |survey: &&Survey| {
            let counts = survey.state != State::Done || self.conversion.force;
            let fits = !counts || left > 0;
            left -= usize::from(counts && fits);
            fits
        };
        let cases: Vec<Case> = present.filter(within_limit).map(|s| s.case).collect();
        if cases.is_empty() {
            anyhow::bail!(research::PlanError::NoCases { archive: raw.location().to_string() });
        }
        let mut total = Summary::default();
        let (mut done, mut failed) = (0, Vec::new());
        let mut results = futures::stream::iter(&cases)
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
                Ok(summary) => {
                    done += 1;
                    if let Some(summary) = summary {
                        write_summary(out, case, &summary)?;
                        total += summary;
                    }
                }
                Err(error) if Exit::of(&error) == Exit::Interrupted => return Err(error),
                Err(error) => {
                    crate::cli::report(&error);
                    failed.push(case);
                    if !self.keep_going {
                        break;
                    }
                }
            }
            out.flush()?;
        }
        let not_tried = cases.len() - done - failed.len();
        writeln!(
            out,
            "{done} cases done, {} failed, {not_tried} not tried: {} files converted, {} kept, {} in, {} out",
            failed.len(),
            total.converted,
            total.kept,
            bytes(total.bytes_in),
            bytes(total.bytes_out),
        )?;
        for case in &failed {
            writeln!(out, "failed: {case}")?;
        }
        Ok(if failed.is_empty() { Exit::Done } else { Exit::SomeFailed })
    }
}
