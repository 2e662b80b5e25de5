//! `dor research-data`: the catalogue of cases, and their conversion.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use futures::StreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::capabilities::Capabilities;
use super::exit::chain;
use super::output::{Table, bytes, duration, write_json};
use super::progress::Terminal;
use super::{Exit, GlobalArgs};
use crate::config::{Config, ConfigError, Setting};
use crate::encode::research::RECIPE;
use crate::ledger::Recipe;
use crate::model::case::MONTHS;
use crate::model::{Case, Grid, InterventionMonth, hex};
use crate::pipeline::{Pool, Stop};
use crate::read::grid;
use crate::research::catalogue::{self, State, Survey};
use crate::research::{self, CaseError, Environment, Plan, PlanOptions, Summary};
use crate::store::{Location, Store, StoreError, Stores};

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
struct Selection {
    /// Polygon, 0 to 689; may be given several times [default: all]
    #[arg(short, long = "polygon", value_name = "ID", value_parser = clap::value_parser!(u16).range(0..690))]
    polygons: Vec<u16>,
    /// Intervention month, 1, 4, 7 or 10; may be given several times [default: all]
    #[arg(long = "month", value_name = "M")]
    months: Vec<InterventionMonth>,
}

impl Selection {
    fn cases(&self) -> impl Iterator<Item = Case> + '_ {
        let chosen = |case: &Case| {
            (self.polygons.is_empty() || self.polygons.contains(&case.polygon()))
                && (self.months.is_empty() || self.months.contains(&case.month()))
        };
        Case::all().filter(chosen)
    }
}

/// Where things are and how they are converted.
#[derive(Args, Debug)]
struct Places {
    /// Where research-grade files go: a path or URL [default: output_dir of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    output_dir: Option<Location>,
    /// The archive of raw history: a path or URL [default: data_dir of the configuration]
    #[arg(short, long, value_name = "LOCATION")]
    data_dir: Option<Location>,
}

impl Places {
    fn config(
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

fn data_dir(config: &Config) -> Result<&Setting<Location>, ConfigError> {
    config.data_dir.as_ref().ok_or(ConfigError::Unset {
        key: "data_dir",
        flag: "--data-dir",
        variable: "OCEAN_CDR_DATA_ARCHIVE_DIR",
    })
}

/// List cases with what exists of each
///
/// Shows for each case its basin, polygon and date, how many of its 180 raw and 180
/// research-grade files exist, and its state: raw (not begun), partial, done, or missing.
#[derive(Args, Debug)]
struct ListCases {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    places: Places,
    /// Cases to show; 0 for all
    #[arg(short, long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Only cases in this state
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArg {
    /// Raw files only
    Raw,
    /// Some research-grade files
    Partial,
    /// Complete
    Done,
    /// No files at all
    Missing,
}

impl StateArg {
    fn state(self) -> State {
        match self {
            Self::Raw => State::Raw,
            Self::Partial => State::Partial,
            Self::Done => State::Done,
            Self::Missing => State::Missing,
        }
    }
}

#[derive(Serialize)]
struct CaseRow {
    case: String,
    index: usize,
    basin: &'static str,
    polygon: u16,
    date: String,
    raw_files: usize,
    output_files: usize,
    state: State,
}

impl CaseRow {
    fn new(survey: &Survey) -> Self {
        let case = survey.case;
        Self {
            case: case.to_string(),
            index: case.index(),
            basin: case.basin().0,
            polygon: case.polygon(),
            date: format!("1999-{:02}-01", case.month().number()),
            raw_files: survey.raw,
            output_files: survey.outputs,
            state: survey.state,
        }
    }
}

impl ListCases {
    async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = self.places.config(global, None)?;
        let stores = Stores::new(config.s3.clone());
        let raw = stores.open(&data_dir(&config)?.value)?;
        let research = config.output_dir.as_ref().map(|o| stores.open(&o.value)).transpose()?;
        let limit = if self.limit == 0 { usize::MAX } else { self.limit };
        // Without a condition on the state there is no need to look at more than is shown.
        let looked_at = if self.state.is_some() { usize::MAX } else { limit };
        let selected: Vec<Case> = self.selection.cases().collect();
        let cases: Vec<Case> = selected.iter().copied().take(looked_at).collect();
        let surveys = catalogue::survey(&raw, research.as_ref(), &cases).await?;
        let state = self.state.map(StateArg::state);
        let matching = surveys.iter().filter(|s| state.is_none_or(|state| s.state == state));
        let count = if state.is_some() { matching.clone().count() } else { selected.len() };
        let rows: Vec<CaseRow> = matching.take(limit).map(CaseRow::new).collect();
        if self.json {
            write_json(out, &rows)?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new(["INDEX", "BASIN", "POLYGON", "DATE", "RAW", "OUTPUT", "STATE"]);
        for row in &rows {
            table.row([
                format!("{:05}", row.index),
                row.basin.to_owned(),
                format!("{:03}", row.polygon),
                row.date.clone(),
                format!("{}/{MONTHS}", row.raw_files),
                format!("{}/{MONTHS}", row.output_files),
                format!("{:?}", row.state).to_lowercase(),
            ]);
        }
        table.write(out)?;
        if rows.len() < count {
            writeln!(out, "{} of {count} cases; --limit 0 shows all", rows.len())?;
        }
        Ok(Exit::Done)
    }
}

/// How cases are converted.
#[derive(Args, Debug, Default)]
struct Conversion {
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
            Some(location) => Some(load_grid(&stores, &location.value).await?),
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

async fn load_grid(stores: &Stores, location: &Location) -> anyhow::Result<(Grid, String)> {
    let not_found = || StoreError::NotFound { url: location.to_string() };
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
