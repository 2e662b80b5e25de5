//! Preparing a conversion, carrying it out, saying how it went.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use tokio::sync::OnceCell;

use super::arguments::{Conversion, Places, data_dir};
use super::places;
use crate::cli::grid::load_grid;
use crate::cli::output::{bytes, count, duration};
use crate::cli::progress::Terminal;
use crate::cli::publish_to::{PublishTo, Publishing};
use crate::cli::signals::stop_on_signals;
use crate::cli::stores::stores;
use crate::cli::{GlobalArgs, failures};
use crate::config::{Config, ConfigError, Setting};
use crate::encode::research::RECIPE;
use crate::ledger::Recipe;
use crate::model::Case;
use crate::pipeline::{Pool, Reader, memory, unless_stopped, until};
use crate::publish::PublishError;
use crate::research::plan::Reason;
use crate::research::{self, CaseError, Environment, Plan, PlanError, PlanOptions, Summary};
use crate::store::{Location, Stores};

/// A prepared run: what all its cases share.
pub(super) struct Run {
    pub environment: Environment,
    pub archive: Setting<Location>,
    output: Setting<Location>,
    /// Whether the output was found to lie among no other results.
    is_apart: OnceCell<()>,
    terminal: Arc<Terminal>,
    options: PlanOptions,
    pub dry_run: bool,
    /// Whether a dry run names the files.
    verbose: bool,
    stores: Stores,
}

/// What was done for a case or would be, and why.
pub(super) struct Outcome {
    pub summary: Summary,
    /// Files to convert by reason, when the run is dry.
    pub reasons: Reasons,
}

/// Numbers of files by the reason why they are to be converted.
pub(super) type Reasons = BTreeMap<Reason, usize>;

/// Prints numbers of files by reason.
pub(super) fn write_reasons(out: &mut dyn Write, reasons: &Reasons) -> std::io::Result<()> {
    reasons
        .iter()
        .try_for_each(|(reason, files)| writeln!(out, "  {}: {reason}", count(*files, "file")))
}

impl Run {
    pub async fn prepare(
        places: &Places,
        conversion: &Conversion,
        global: &GlobalArgs,
    ) -> anyhow::Result<Self> {
        let config = places.config(global, Some(conversion))?;
        Self::new(&config, conversion, global.verbosity() > 0).await
    }

    async fn new(config: &Config, conversion: &Conversion, verbose: bool) -> anyhow::Result<Self> {
        let unset = ConfigError::Unset {
            key: "output_dir",
            flag: "--output-dir",
            variable: "DOR_OUTPUT_DIR",
        };
        let output = config.output_dir.as_ref().ok_or(unset)?;
        let archive = data_dir(config)?;
        places::refuse_mixed(archive, output)?;
        let stores = stores(config);
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let reading = until(&stop, &stores);
        let raw = reading.open(&archive.value)?;
        let out = reading.open(&output.value)?;
        let grid = match &config.grid {
            Some(setting) => Some(load_grid(&reading, setting).await?),
            None => {
                tracing::warn!(
                    "no grid file (--grid): TLAT and TLONG keep the fill that raw files have over land blocks"
                );
                None
            }
        };
        let (grid, grid_sha256) = grid.unzip();
        let memory = memory::to_use();
        let terminal = Arc::new(Terminal::new());
        let environment = Environment {
            raw,
            out,
            grid: grid.map(Arc::new),
            pool: Pool::new(config.workers.value.get(), memory),
            stop,
            progress: terminal.clone(),
            reader: Reader::default(),
        };
        let recipe = Recipe { product: "research-grade".to_owned(), version: RECIPE, grid_sha256 };
        let options = PlanOptions {
            force: conversion.force,
            allow_missing: conversion.allow_missing,
            recipe,
        };
        let (archive, output) = (archive.clone(), output.clone());
        let (is_apart, dry_run) = (OnceCell::new(), conversion.dry_run);
        Ok(Self {
            environment,
            archive,
            output,
            is_apart,
            terminal,
            options,
            dry_run,
            verbose,
            stores,
        })
    }

    /// Where finished cases go on to.
    pub async fn publishing(&self, to: &PublishTo) -> Result<Publishing, PublishError> {
        let Environment { out, pool, stop, .. } = &self.environment;
        to.queue(&self.stores, out, (pool, stop)).await
    }

    /// Converts a case and says so; when the run is dry, says what would be done.
    pub async fn case(&self, case: Case, out: &mut dyn Write) -> anyhow::Result<Outcome> {
        let Environment { raw, out: target, stop, .. } = &self.environment;
        let plan = unless_stopped(stop, research::plan(raw, target, case, &self.options)).await?;
        if let Err(PlanError::NoFiles { .. }) = plan {
            places::refuse_absent(raw, &self.archive, "data_dir").await?;
        }
        let plan = plan.map_err(CaseError::from)?;
        if !plan.complete {
            // A case that is done costs no request more.
            let apart = || places::refuse_inside(target, &self.output);
            self.is_apart.get_or_try_init(apart).await?;
        }
        if self.dry_run {
            // Nobody should learn from the run that a file cannot be converted.
            research::check_inputs(&self.environment, &plan).await.map_err(|e| self.told(e))?;
            return Ok(self.write_plan(out, &plan)?);
        }
        let missing = plan.missing();
        let summary = research::run(&self.environment, plan).await.map_err(|e| self.told(e))?;
        write_summary(out, case, &summary)?;
        if let Some(missing) = missing {
            writeln!(out, "  {missing}")?;
        }
        Ok(Outcome { summary, reasons: Reasons::new() })
    }

    /// Tells which files of a case failed.
    fn told(&self, error: CaseError) -> anyhow::Error {
        let error = error.into();
        failures::lines(&error).iter().for_each(|line| self.terminal.line(line));
        error
    }
}

impl Run {
    /// Prints a plan; gives what it would come to.
    fn write_plan(&self, out: &mut dyn Write, plan: &Plan) -> std::io::Result<Outcome> {
        let Environment { raw, out: target, .. } = &self.environment;
        let summary = Summary {
            converted: plan.steps.len(),
            kept: plan.record.files.len(),
            bytes_in: plan.steps.iter().map(|s| s.input.size).sum(),
            ..Summary::default()
        };
        writeln!(
            out,
            "case {}: {} to convert ({}), {} done",
            plan.case,
            count(summary.converted, "file"),
            bytes(summary.bytes_in),
            summary.kept,
        )?;
        if let Some(missing) = plan.missing() {
            writeln!(out, "  {missing}")?;
        }
        if plan.passed_over > 0 {
            let others = count(plan.passed_over, "other file");
            writeln!(out, "  {others} beside the raw files passed over")?;
        }
        let mut reasons = Reasons::new();
        for step in &plan.steps {
            *reasons.entry(step.reason).or_default() += 1;
        }
        write_reasons(out, &reasons)?;
        for step in plan.steps.iter().filter(|_| self.verbose) {
            let (from, to) =
                (raw.location().join(&step.input.key), target.location().join(&step.output));
            writeln!(out, "  {from} -> {to}")?;
        }
        Ok(Outcome { summary, reasons })
    }
}

/// Converts a case as the configuration says, once more if it was done before; for the demo.
pub(crate) async fn convert_case(
    config: &Config,
    case: Case,
    allow_missing: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let conversion = Conversion { allow_missing, force: true, ..Conversion::default() };
    let run = Run::new(config, &conversion, false).await?;
    write!(out, "   ")?;
    run.case(case, out).await?;
    Ok(())
}

fn write_summary(out: &mut dyn Write, case: Case, summary: &Summary) -> std::io::Result<()> {
    let Summary { converted, kept, bytes_in, bytes_out, elapsed, timing } = summary;
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
