//! `dor research-data process-case`: one case to the research-grade dataset.

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
/// A case that was stopped continues with the files it lacks; one that is done is skipped unless
/// the content of its input has changed. One that was made with other settings (grid file, rules)
/// is refused with 78, unless it had no grid file and there is one now.
#[derive(Args, Debug)]
pub(super) struct ProcessCase {
    /// The case: polygon and month (112-04), index (449 or 00449), or the full name
    #[arg(value_parser = case)]
    case: Case,
    #[command(flatten)]
    places: ResearchArgs,
    #[command(flatten)]
    conversion: ConversionArgs,
    #[command(flatten)]
    publish_to: PublishTo,
}

impl ProcessCase {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let run = Run::prepare(&self.places, &self.conversion, global).await?;
        let publishing = run.publishing(&self.publish_to).await?;
        run.case(self.case, out).await?;
        if !run.conversion.is_dry() {
            publishing.add(self.case);
        }
        publishing.end(Exit::Done, out).await
    }
}
