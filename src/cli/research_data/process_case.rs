//! `dor research-data process-case`: converts one case to the research-grade dataset.

use std::io::Write;

use clap::Args;

use super::arguments::{ConversionArgs, ResearchArgs};
use super::run::Run;
use crate::cli::arguments::case;
use crate::cli::publish_to::PublishTo;
use crate::cli::{Exit, GlobalArgs};
use crate::model::Case;

/// Convert one case to the research-grade dataset
///
/// Continues a case that was stopped, and skips a case that is done, unless the content of its raw files has changed.
/// Ends with 78 if the case was made with other settings (grid file, rules); a case without a grid file is converted
/// again when one is given. With --verbose, a dry run lists the files.
#[derive(Args, Debug)]
pub(super) struct ProcessCase {
    /// Case: polygon and month (112-04), index (449 or 00449), or the full name
    #[arg(value_parser = case)]
    case: Case,
    #[command(flatten)]
    locations: ResearchArgs,
    #[command(flatten)]
    conversion: ConversionArgs,
    #[command(flatten)]
    publish_to: PublishTo,
}

impl ProcessCase {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let run = Run::prepare(&self.locations, &self.conversion, global).await?;
        let publishing = run.publishing(&self.publish_to).await?;
        let mut report = self.conversion.report.report(out);
        run.case(self.case, &mut report).await?;
        if !run.conversion.is_dry() {
            publishing.add(self.case);
        }
        let exit = publishing.end(Exit::Done, &mut report).await?;
        report.end()?;
        Ok(exit)
    }
}
