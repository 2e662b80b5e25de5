//! Preparing a conversion, and saying how it went.

use std::io::Write;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::arguments::{ConversionArgs, ResearchArgs, data_dir};
use super::location_checks;
use crate::case_manifest::ConversionRecipe;
use crate::cli::GlobalArgs;
use crate::cli::output::{bytes, count, duration};
use crate::cli::progress::ConversionBar;
use crate::cli::publish_to::{PublishTo, Publishing};
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

/// A conversion and what is said of it.
pub(super) struct Run {
    pub conversion: Conversion,
    archive: Setting<Location>,
    output: Setting<Location>,
    terminal: Arc<ConversionBar>,
    /// Whether a dry run names the files.
    verbose: bool,
    stores: StoreRegistry,
}

/// Prints numbers of files by reason.
pub(super) fn write_reasons(out: &mut dyn Write, reasons: &Reasons) -> std::io::Result<()> {
    reasons
        .iter()
        .try_for_each(|(reason, files)| writeln!(out, "  {}: {reason}", count(*files, "file")))
}

impl Run {
    pub async fn prepare(
        places: &ResearchArgs,
        arguments: &ConversionArgs,
        global: &GlobalArgs,
    ) -> anyhow::Result<Self> {
        let config = places.config(global, Some(arguments))?;
        Self::new(&config, arguments, global.verbosity() > 0).await
    }

    async fn new(
        config: &Config,
        arguments: &ConversionArgs,
        verbose: bool,
    ) -> anyhow::Result<Self> {
        let unset = ConfigError::Unset {
            key: "output_dir",
            flag: "--output-dir",
            variable: "DOR_OUTPUT_DIR",
        };
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
                    "no grid file (--grid): TLAT and TLONG keep the fill that raw files have over land blocks"
                );
                None
            }
        };
        let (grid, grid_sha256) = grid.unzip();
        let terminal = Arc::new(ConversionBar::new());
        let environment = ConversionContext {
            raw,
            out,
            grid: grid.map(Arc::new),
            pool: Pool::new(config.workers.value.get(), memory::to_use()),
            stop,
            progress: terminal.clone(),
            reader: Reader::default(),
        };
        let recipe =
            ConversionRecipe { product: "research-grade".to_owned(), version: RECIPE, grid_sha256 };
        let &ConversionArgs { force, allow_missing, dry_run, .. } = arguments;
        let options = PlanOptions { force, allow_missing, recipe };
        let conversion = Conversion::new(environment, options, dry_run);
        Ok(Self { conversion, archive, output, terminal, verbose, stores })
    }

    /// Where finished cases go on to.
    pub async fn publishing(&self, to: &PublishTo) -> Result<Publishing, PublishError> {
        let ConversionContext { out, pool, stop, .. } = self.conversion.environment();
        to.queue(&self.stores, out, (pool, stop)).await
    }

    /// Converts a case and says so; when the run is dry, says what would be done.
    pub async fn case(&self, case: Case, out: &mut dyn Write) -> anyhow::Result<()> {
        let done = self.conversion.case(case).await;
        let done = done.map_err(|error| {
            self.write_failures(&error);
            self.named(error)
        })?;
        Ok(self.write(out, case, &done)?)
    }

    /// Prints what was done for a case, or would be.
    pub fn write(
        &self,
        out: &mut dyn Write,
        case: Case,
        done: &CaseOutcome,
    ) -> std::io::Result<()> {
        match done {
            CaseOutcome::Planned(plan) => self.write_plan(out, plan, done),
            CaseOutcome::Converted { summary, missing } => {
                write_summary(out, case, summary)?;
                missing.iter().try_for_each(|missing| writeln!(out, "  {missing}"))
            }
        }
    }

    /// Prints which files of a case failed.
    pub fn write_failures(&self, error: &CaseError) {
        failures::lines(error).iter().for_each(|line| self.terminal.line(line));
    }

    /// The error with the setting that is to be corrected, where it is one.
    pub fn named(&self, error: CaseError) -> anyhow::Error {
        match self.setting_at_fault(&error) {
            Some(error) => error.into(),
            None => error.into(),
        }
    }

    /// What is wrong with a setting, where that made a case fail.
    pub fn setting_at_fault(&self, error: &CaseError) -> Option<ConfigError> {
        match error {
            CaseError::NoArchive { reason, .. } => {
                Some(location_checks::unusable("data_dir", &self.archive, (*reason).to_owned()))
            }
            CaseError::Inside { other } => Some(location_checks::inside(other, &self.output)),
            _ => None,
        }
    }

    /// Prints a plan.
    fn write_plan(
        &self,
        out: &mut dyn Write,
        plan: &CasePlan,
        done: &CaseOutcome,
    ) -> std::io::Result<()> {
        let ConversionContext { raw, out: target, .. } = self.conversion.environment();
        let ConversionSummary { converted, kept, bytes_in, .. } = done.summary();
        writeln!(
            out,
            "case {}: {} to convert ({}), {kept} done",
            plan.case,
            count(converted, "file"),
            bytes(bytes_in),
        )?;
        if let Some(missing) = plan.missing() {
            writeln!(out, "  {missing}")?;
        }
        if plan.skipped > 0 {
            let others = count(plan.skipped, "other file");
            writeln!(out, "  {others} beside the raw files passed over")?;
        }
        write_reasons(out, &done.reasons())?;
        for step in plan.steps.iter().filter(|_| self.verbose) {
            let (from, to) =
                (raw.location().join(&step.input.key), target.location().join(&step.output));
            writeln!(out, "  {from} -> {to}")?;
        }
        Ok(())
    }
}

/// Converts a case as the configuration says, once more if it was done before; for the demo.
pub(crate) async fn convert_case(
    config: &Config,
    case: Case,
    allow_missing: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let arguments = ConversionArgs { allow_missing, force: true, ..ConversionArgs::default() };
    let run = Run::new(config, &arguments, false).await?;
    write!(out, "   ")?;
    run.case(case, out).await
}

fn write_summary(
    out: &mut dyn Write,
    case: Case,
    summary: &ConversionSummary,
) -> std::io::Result<()> {
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
