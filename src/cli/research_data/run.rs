//! Preparation of a conversion, and output of its results.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::arguments::{ConversionArgs, ResearchArgs, data_dir};
use super::location_checks;
use crate::case_manifest::ConversionRecipe;
use crate::cli::GlobalArgs;
use crate::cli::output::{bytes, count, duration, eprint_line};
use crate::cli::progress::ConversionBar;
use crate::cli::publish_to::{PublishTo, Publishing};
use crate::cli::report::{Report, ReportArgs};
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::{grid_file, stores};
use crate::config::{Config, ConfigError, Setting};
use crate::executor::{Pool, Reader, memory, until};
use crate::model::Case;
use crate::publish::PublishError;
use crate::research::cases::{CaseOutcome, Conversion, Reasons};
use crate::research::{
    CaseError, CasePlan, ConversionContext, ConversionSummary, PlanOptions, RECIPE, failures,
};
use crate::store::{Location, StoreRegistry};

/// A conversion with the settings that its messages need.
pub(super) struct Run {
    /// The conversion.
    pub conversion: Conversion,
    archive: Setting<Location>,
    output: Setting<Location>,
    /// Whether a dry run lists the files.
    verbose: bool,
    stores: StoreRegistry,
}

/// Prints the numbers of files to convert, by reason.
pub(super) fn write_reasons(out: &mut dyn Write, reasons: &Reasons) -> std::io::Result<()> {
    reasons
        .iter()
        .try_for_each(|(reason, files)| writeln!(out, "  {}: {reason}", count(*files, "file")))
}

/// Prints the files of a case that failed.
pub(super) fn write_failures(error: &CaseError) {
    failures::lines(error).iter().for_each(|line| eprint_line(line));
}

impl Run {
    /// Prepares a conversion with the options of a command.
    ///
    /// # Errors
    /// The configuration is not valid, a location cannot be used, or the grid file cannot be read.
    pub async fn prepare(
        locations: &ResearchArgs,
        arguments: &ConversionArgs,
        global: &GlobalArgs,
    ) -> anyhow::Result<Self> {
        let config = locations.config(global, Some(arguments))?;
        Self::new(&config, arguments, global.verbosity() > 0).await
    }

    async fn new(
        config: &Config,
        arguments: &ConversionArgs,
        verbose: bool,
    ) -> anyhow::Result<Self> {
        let unset =
            ConfigError::Unset { key: "output_dir", flag: "--output", variable: "DOR_OUTPUT_DIR" };
        let output = config.output_dir.clone().ok_or(unset)?;
        let archive = data_dir(config)?.clone();
        location_checks::refuse_mixed(&archive, &output)?;
        let stores = stores(config);
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let reading = until(&stop, &stores);
        let raw = reading.open(&archive.value)?;
        let out = reading.open(&output.value)?;
        let grid = match grid_file(config) {
            Some(file) => Some(file.load(&reading).await?),
            None => {
                tracing::warn!(
                    "no grid file is set: TLAT and TLONG keep the fill values of the raw files; give --grid"
                );
                None
            }
        };
        let (grid, grid_sha256) = grid.unzip();
        let context = ConversionContext {
            raw,
            out,
            grid: grid.map(Arc::new),
            pool: Pool::new(config.workers.value.get(), memory::budget()),
            stop,
            progress: Arc::new(ConversionBar::new()),
            reader: Reader::default(),
        };
        let recipe =
            ConversionRecipe { product: "research-grade".to_owned(), version: RECIPE, grid_sha256 };
        let &ConversionArgs { force, allow_missing, report: ReportArgs { dry_run, .. }, .. } =
            arguments;
        let options = PlanOptions { force, allow_missing, recipe };
        let conversion = Conversion::new(context, options, dry_run);
        Ok(Self { conversion, archive, output, verbose, stores })
    }

    /// Creates the publisher of finished cases.
    ///
    /// # Errors
    /// The destination cannot be opened, or cannot be published to.
    pub async fn publishing(&self, to: &PublishTo) -> Result<Publishing, PublishError> {
        let ConversionContext { out, pool, stop, .. } = self.conversion.context();
        to.queue(&self.stores, out, (pool, stop)).await
    }

    /// Converts a case and prints the result. A dry run prints the plan.
    ///
    /// # Errors
    /// The case cannot be converted. The files that failed are printed.
    pub async fn case(&self, case: Case, out: &mut Report<'_>) -> anyhow::Result<()> {
        let outcome = self.conversion.convert_case(case).await.map_err(|error| {
            write_failures(&error);
            self.with_setting(error)
        })?;
        Ok(self.write(out, case, &outcome)?)
    }

    /// Prints the result of a case. A dry run prints the plan.
    pub fn write(
        &self,
        out: &mut Report<'_>,
        case: Case,
        outcome: &CaseOutcome,
    ) -> std::io::Result<()> {
        out.push("cases", document(case, outcome));
        match outcome {
            CaseOutcome::Planned(plan) => self.write_plan(out, plan, outcome),
            CaseOutcome::Converted { summary, missing } => {
                write_summary(out, case, summary)?;
                missing.iter().try_for_each(|missing| writeln!(out, "  {missing}"))
            }
        }
    }

    /// Returns the error of a setting if that made a case fail, else the error of the case.
    pub fn with_setting(&self, error: CaseError) -> anyhow::Error {
        match self.invalid_setting(&error) {
            Some(error) => error.into(),
            None => error.into(),
        }
    }

    /// Returns the error of a setting if that made a case fail.
    pub fn invalid_setting(&self, error: &CaseError) -> Option<ConfigError> {
        match error {
            CaseError::NoArchive { reason, .. } => {
                Some(location_checks::unusable("data_dir", &self.archive, (*reason).to_owned()))
            }
            CaseError::Inside { other } => Some(location_checks::inside(other, &self.output)),
            _ => None,
        }
    }

    /// Prints the plan of a dry run: numbers of files, and with `--verbose` the names of the files to write.
    fn write_plan(
        &self,
        out: &mut dyn Write,
        plan: &CasePlan,
        outcome: &CaseOutcome,
    ) -> std::io::Result<()> {
        let ConversionSummary { converted, kept, bytes_in, .. } = outcome.summary();
        writeln!(
            out,
            "case {}: {} to convert ({}), {kept} done",
            plan.case.short(),
            count(converted, "file"),
            bytes(bytes_in),
        )?;
        write_reasons(out, &outcome.reasons())?;
        if let Some(missing) = plan.missing() {
            writeln!(out, "  {missing}")?;
        }
        if plan.skipped > 0 {
            writeln!(out, "  {} in the raw folder skipped", count(plan.skipped, "other file"))?;
        }
        for step in plan.steps.iter().filter(|_| self.verbose) {
            let name = step.output.rsplit('/').next().unwrap_or(&step.output);
            writeln!(out, "  {name}")?;
        }
        Ok(())
    }
}

/// Converts a case with the given configuration, also if it is done, for the demo.
pub(crate) async fn convert_case(
    config: &Config,
    case: Case,
    allow_missing: bool,
    out: &mut Report<'_>,
) -> anyhow::Result<()> {
    let arguments = ConversionArgs { allow_missing, force: true, ..ConversionArgs::default() };
    let run = Run::new(config, &arguments, false).await?;
    write!(out, "   ")?;
    run.case(case, out).await
}

/// Returns the result of a case as JSON. Of a dry run, the numbers are those that the conversion would have.
fn document(case: Case, outcome: &CaseOutcome) -> Value {
    let ConversionSummary { converted, kept, bytes_in, bytes_out, .. } = outcome.summary();
    let missing = match outcome {
        CaseOutcome::Planned(plan) => plan.missing(),
        CaseOutcome::Converted { missing, .. } => missing.clone(),
    };
    json!({
        "case": case.short(),
        "files_converted": converted,
        "files_kept": kept,
        "bytes_read": bytes_in,
        "bytes_written": bytes_out,
        "reasons": reasons_document(&outcome.reasons()),
        "missing": missing,
    })
}

/// Returns the numbers of files by reason as JSON.
pub(super) fn reasons_document(reasons: &Reasons) -> Value {
    reasons.iter().map(|(reason, files)| (reason.to_string(), json!(files))).collect()
}

/// Prints the numbers of files and bytes of a converted case.
fn write_summary(
    out: &mut dyn Write,
    case: Case,
    summary: &ConversionSummary,
) -> std::io::Result<()> {
    let case = case.short();
    let ConversionSummary { converted, kept, bytes_in, bytes_out, elapsed, timing } = summary;
    if *converted == 0 {
        return writeln!(out, "case {case}: done before, {}", count(*kept, "file"));
    }
    writeln!(
        out,
        "case {case}: {} converted, {kept} kept; {} in, {} out (out/in {:.2}) in {} ({}/s)",
        count(*converted, "file"),
        bytes(*bytes_in),
        bytes(*bytes_out),
        *bytes_out as f64 / (*bytes_in).max(1) as f64,
        duration(*elapsed),
        bytes((*bytes_in as f64 / elapsed.as_secs_f64().max(1e-3)) as u64),
    )?;
    tracing::info!(
        "workers' time: read {}, hash {}, shuffle {}, deflate {}, encode {}, write {}",
        duration(timing.read),
        duration(timing.hash),
        duration(timing.shuffle),
        duration(timing.deflate),
        duration(timing.encode),
        duration(timing.write),
    );
    Ok(())
}
