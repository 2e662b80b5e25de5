//! `dor research-data`: the catalogue of cases, and their conversion.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::{Args, Subcommand};
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::capabilities::Capabilities;
use super::exit::chain;
use super::list_cases::ListCases;
use super::output::{bytes, duration};
use super::progress::Terminal;
use super::{Exit, GlobalArgs};
use crate::config::{Config, ConfigError, Setting};
use crate::encode::research::RECIPE;
use crate::ledger::Recipe;
use crate::model::{Case, Grid, InterventionMonth, hex};
use crate::pipeline::{Pool, Stop};
use crate::read::grid;
use crate::research::catalogue::{self, State, Survey};
use crate::research::{self, CaseError, Environment, Plan, PlanOptions, Summary};
use crate::store::{Location, Store, Stores};

/// Cases that are worked on at the same time: the next begins while the last files of one are
/// still under way.
const CASES: usize = 2;

/// The research-grade dataset: list the cases, convert them
#[derive(Args, Debug)]
pub(super) struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    ListCases(ListCases),
    ProcessCase(ProcessCase),
    ProcessAllCases(ProcessAllCases),
}

impl Command {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        match self.verb {
            Verb::ListCases(command) => command.run(global, out).await,
            Verb::ProcessCase(command) => command.run(global, out).await,
            Verb::ProcessAllCases(command) => command.run(global, out).await,
        }
    }
}

/// Which cases of the catalogue.
#[derive(Args, Debug)]
pub(super) struct Selection {
    /// Polygon, 0 to 689; may be given several times [default: all]
    #[arg(short, long = "polygon", value_name = "ID", value_parser = clap::value_parser!(u16).range(0..690))]
    polygons: Vec<u16>,
    /// Intervention month, 1, 4, 7 or 10; may be given several times [default: all]
    #[arg(long = "month", value_name = "M")]
    months: Vec<InterventionMonth>,
}

impl Selection {
    pub fn cases(&self) -> impl Iterator<Item = Case> + '_ {
        let chosen = |case: &Case| {
            (self.polygons.is_empty() || self.polygons.contains(&case.polygon()))
                && (self.months.is_empty() || self.months.contains(&case.month()))
        };
        Case::all().filter(chosen)
    }
}

/// Where things are and how they are converted.
#[derive(Args, Debug)]
pub(super) struct Places {
    /// Where research-grade files go: a path or URL [default: output_dir of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    output_dir: Option<Location>,
    /// The archive of raw history: a path or URL [default: data_dir of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    data_dir: Option<Location>,
}

impl Places {
    pub fn config(
        &self,
        global: &GlobalArgs,
        conversion: Option<&Conversion>,
    ) -> Result<Config, ConfigError> {
        let mut overrides = global.overrides();
        overrides.data_dir = self.data_dir.clone();
        overrides.output_dir = self.output_dir.clone();
        overrides.workers = conversion.and_then(|c| c.workers);
        overrides.grid = conversion.and_then(|c| c.grid.clone());
        Config::load(&overrides)
    }
}

pub(super) fn data_dir(config: &Config) -> Result<&Setting<Location>, ConfigError> {
    config.data_dir.as_ref().ok_or(ConfigError::Unset {
        key: "data_dir",
        flag: "--data-dir",
        variable: "OCEAN_CDR_DATA_ARCHIVE_DIR",
    })
}

/// How cases are converted.
#[derive(Args, Debug, Default)]
pub(super) struct Conversion {
    /// Files converted at the same time [default: workers of the configuration, or all cores]
    #[arg(short, long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Grid file with the full TLAT and TLONG: NetCDF, or CESM's horiz_grid_*.ieeer8
    #[arg(long, value_name = "LOCATION")]
    grid: Option<Location>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Convert files again that are done
    #[arg(long)]
    force: bool,
    /// Convert the months that are there when others are missing
    #[arg(long)]
    allow_missing: bool,
}

/// Convert one case to the research-grade dataset
///
/// A case that was stopped continues with the files it lacks; one that is done is skipped unless
/// its input has changed.
#[derive(Args, Debug)]
struct ProcessCase {
    /// Full name, five-digit index (00449), or polygon and month (112-04)
    case: String,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    conversion: Conversion,
}

impl ProcessCase {
    async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let case: Case = self.case.parse()?;
        let run = Run::prepare(&self.places, &self.conversion, global).await?;
        let summary = run.case(case, out).await?;
        if let Some(summary) = summary {
            write_summary(out, case, &summary)?;
        }
        Ok(Exit::Done)
    }
}

/// Convert every case that has raw files
///
/// Cases without any raw file are passed over. Ends with 1 when a case failed; the failed cases
/// are listed with the cause.
#[derive(Args, Debug)]
struct ProcessAllCases {
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
    async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
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
                    super::report(&error);
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

/// A prepared run: what all its cases share.
struct Run {
    environment: Environment,
    terminal: Arc<Terminal>,
    options: PlanOptions,
    dry_run: bool,
}

impl Run {
    async fn prepare(
        places: &Places,
        conversion: &Conversion,
        global: &GlobalArgs,
    ) -> anyhow::Result<Self> {
        let config = places.config(global, Some(conversion))?;
        Self::new(&config, conversion).await
    }

    async fn new(config: &Config, conversion: &Conversion) -> anyhow::Result<Self> {
        let unset = ConfigError::Unset {
            key: "output_dir",
            flag: "--output-dir",
            variable: "DOR_OUTPUT_DIR",
        };
        let output = config.output_dir.as_ref().ok_or(unset)?;
        let stores = Stores::new(config.s3.clone());
        let raw = stores.open(&data_dir(config)?.value)?;
        let out = stores.open(&output.value)?;
        let grid = match &config.grid {
            Some(setting) => Some(load_grid(&stores, setting).await?),
            None => {
                tracing::warn!(
                    "no grid file (--grid): TLAT and TLONG keep the fill that raw files have over land blocks"
                );
                None
            }
        };
        let (grid, grid_sha256) = grid.unzip();
        let stop = Stop::default();
        super::stop_on_signals(stop.clone());
        let memory = Capabilities::memory_to_use();
        let terminal = Arc::new(Terminal::new());
        let environment = Environment {
            raw,
            out,
            grid: grid.map(Arc::new),
            pool: Pool::new(config.workers.value.get(), memory),
            stop,
            progress: terminal.clone(),
        };
        let recipe = Recipe { product: "research-grade".to_owned(), version: RECIPE, grid_sha256 };
        let options = PlanOptions {
            force: conversion.force,
            allow_missing: conversion.allow_missing,
            recipe,
        };
        Ok(Self { environment, terminal, options, dry_run: conversion.dry_run })
    }

    /// Converts a case; no summary when the run is dry.
    async fn case(&self, case: Case, out: &mut dyn Write) -> anyhow::Result<Option<Summary>> {
        let Environment { raw, out: target, .. } = &self.environment;
        let plan = research::plan(raw, target, case, &self.options).await;
        let plan = plan.map_err(CaseError::from)?;
        if self.dry_run {
            write_plan(out, &plan, target)?;
            return Ok(None);
        }
        match research::run(&self.environment, plan).await {
            Ok(summary) => Ok(Some(summary)),
            Err(error) => {
                if let CaseError::Files { failures, .. } = &error {
                    for (_, failure) in failures {
                        let causes: Vec<_> = chain(failure).map(ToString::to_string).collect();
                        self.terminal.line(&format!("failed: {}", causes.join(": ")));
                    }
                }
                Err(error.into())
            }
        }
    }
}

/// Converts a case as the configuration says, for the demo.
pub(super) async fn convert_case(
    config: &Config,
    case: Case,
    allow_missing: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let run = Run::new(config, &Conversion { allow_missing, ..Conversion::default() }).await?;
    if let Some(summary) = run.case(case, out).await? {
        write!(out, "   ")?;
        write_summary(out, case, &summary)?;
    }
    Ok(())
}

async fn load_grid(
    stores: &Stores,
    Setting { value: location, source }: &Setting<Location>,
) -> anyhow::Result<(Grid, String)> {
    let not_found = || ConfigError::BadValue {
        key: "grid".to_owned(),
        origin: source.clone(),
        value: location.to_string(),
        reason: "there is no such file".to_owned(),
    };
    let folder = location.parent().ok_or_else(not_found)?;
    let name = location.file_name().ok_or_else(not_found)?;
    let (data, _) = stores.open(&folder)?.read(name).await?.ok_or_else(not_found)?;
    Ok((grid::parse(&data, &location.to_string())?, hex(&Sha256::digest(&data))))
}

fn write_plan(out: &mut dyn Write, plan: &Plan, target: &Store) -> std::io::Result<()> {
    let size = plan.steps.iter().map(|s| s.input.size).sum();
    writeln!(
        out,
        "case {}: {} files to convert ({}), {} done, {} months missing",
        plan.case,
        plan.steps.len(),
        bytes(size),
        plan.record.files.len(),
        plan.record.missing_months.len(),
    )?;
    for step in &plan.steps {
        writeln!(out, "  {} -> {}", step.input.key, target.location().join(&step.output))?;
    }
    Ok(())
}

fn write_summary(out: &mut dyn Write, case: Case, summary: &Summary) -> std::io::Result<()> {
    let Summary { converted, kept, bytes_in, bytes_out, elapsed, timing } = summary;
    if *converted == 0 {
        return writeln!(out, "case {case}: done before, {kept} files");
    }
    writeln!(
        out,
        "case {case}: {converted} files converted, {kept} kept; {} in, {} out ({:.2}) in {} ({}/s)",
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
