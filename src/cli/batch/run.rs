//! `dor run`: the cases of a shard, each in one pass.

use std::io::Write;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::arguments::{Opened, PlanArgs};
use crate::batch::mark::{Failure, Reporter};
use crate::batch::one_pass::{Distances, Outcome, Products};
use crate::batch::{Plan, PlanFileError, Shard, Stage};
use crate::cli::arguments::{from_one, in_order, polygon, size};
use crate::cli::grid::load_grid;
use crate::cli::output::{bytes, count, duration, say};
use crate::cli::progress::Terminal;
use crate::cli::signals::stop_on_signals;
use crate::cli::vis::Maps;
use crate::cli::{Exit, GlobalArgs, failures, report};
use crate::config::{Config, Overrides, Setting, Source};
use crate::ledger;
use crate::model::{Case, Grid};
use crate::pipeline::{Pool, Reader, memory, unless_stopped, until};
use crate::research::{Environment, PlanOptions, Progress, RECIPE};
use crate::store::{Location, Stores};
use crate::vis::input::Input;
use crate::vis::template::Destination;
use crate::vis::{VisError, Workshop};

/// Cases at the same time: the second begins while the last files of the first are worked on.
const CASES: usize = 2;
/// How long a stop waits for what is under way.
const GRACE: Duration = Duration::from_secs(30);

/// Make all products of the cases of a shard, reading each raw file once
///
/// What is done already is passed over; a case that fails does not stop the others. Case i of the plan
/// belongs to shard i mod N. How far it is lies beside the plan, for `dor status`, with a log of one
/// line of JSON an event. Ends with 65 when all that failed is in the input, 78 when it is in the configuration
/// (permissions, credentials), 1 when something else did, 75 when it was told to stop.
#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    plan: PlanArgs,
    /// Number of shards
    #[arg(long, value_name = "N", value_parser = from_one)]
    shards: NonZeroUsize,
    /// This shard, from 0 [default: from the Slurm, Kubernetes or AWS Batch array]
    #[arg(long, value_name = "K")]
    shard: Option<usize>,
    /// Of the plan's products, only these [default: all]
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    stages: Vec<Stage>,
    /// Of its cases, only those of polygons A to B
    #[arg(long, num_args = 2, value_names = ["A", "B"], value_parser = polygon)]
    polygon_range: Option<Vec<u16>>,
    /// Files worked on at the same time [default: workers of the configuration, or all cores]
    #[arg(long, value_name = "N", value_parser = from_one)]
    workers: Option<NonZeroUsize>,
    /// Memory to stay under, such as 400GB [default: the limit of the Slurm job, control group or machine]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    memory: Option<u64>,
    /// Make what is done once more
    #[arg(long)]
    force: bool,
}

/// The work on the cases of a shard.
struct Shift<'a> {
    products: &'a Products<'a>,
    reporter: &'a Reporter,
    /// Cases there are, and those that are done.
    all: usize,
    done: usize,
    /// Bytes that were read.
    read: u64,
    /// Whether something failed because of the configuration.
    is_misconfigured: bool,
}

/// A case and the number of its files in the plan.
type Planned = (Case, usize);

impl Shift<'_> {
    /// Makes the products of cases, until a stop; what failed.
    async fn work(
        &mut self,
        cases: &[Planned],
        out: &mut dyn Write,
    ) -> anyhow::Result<Vec<(Planned, Vec<Failure>)>> {
        let (products, reporter) = (self.products, self.reporter);
        let stop = &products.workshop.stop;
        let make = async |(case, files): Planned| {
            let begun = Instant::now();
            reporter.case_begun(case);
            ((case, files), products.make(case, files).await, begun.elapsed())
        };
        let running = stream::iter(cases).take_while(|_| {
            let goes_on = !stop.is_cancelled();
            async move { goes_on }
        });
        let mut running = std::pin::pin!(running.map(|case| make(*case)).buffer_unordered(CASES));
        let mut failed = Vec::new();
        let given_up = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let mut given_up = std::pin::pin!(given_up);
        while let Some((planned, outcome, elapsed)) = tokio::select! {
            ended = running.next() => ended,
            () = &mut given_up => None,
        } {
            let (case, _) = planned;
            let Outcome { stages, size, fetched } = outcome;
            self.read += fetched;
            let all: usize = stages.iter().map(|(stages, _)| stages.len()).sum();
            let made: Vec<_> = stages.iter().filter_map(|(_, made)| made.as_ref().ok()).collect();
            // Each that was made was made by itself.
            let (is_done, n) = (made.len() == all, made.len());
            self.done += usize::from(is_done);
            let written = made.iter().map(|made| made.written).sum();
            let of = format!("case {case} ({} of {})", self.done, self.all);
            if is_done && made.iter().all(|made| made.before) {
                writeln!(out, "{of}: done before")?;
            } else {
                writeln!(
                    out,
                    "{of}: {n} of {}, {} read of {}, {} and {} written in {}",
                    count(all, "product"),
                    bytes(fetched),
                    bytes(size),
                    count(made.iter().map(|made| made.objects).sum(), "object"),
                    bytes(written),
                    duration(elapsed)
                )?;
            }
            out.flush()?;
            let mut failures = Vec::new();
            for (stages, error) in
                stages.into_iter().filter_map(|(stages, made)| Some((stages, made.err()?)))
            {
                let error = anyhow::Error::from(error);
                // What a stop cuts short has not failed.
                if !stop.is_cancelled() {
                    failures::lines(&error).iter().for_each(|line| say(line));
                    report(&error);
                    let exit = Exit::of(&error);
                    self.is_misconfigured |= exit == Exit::Configuration;
                    let permanent = matches!(exit, Exit::BadData | Exit::Configuration);
                    let error = failures::cause(&error);
                    failures.push(Failure { stages, error, permanent });
                }
            }
            reporter.case_ended(case, (fetched, written), &failures, elapsed.as_secs_f64());
            if !failures.is_empty() {
                failed.push((planned, failures));
            }
        }
        Ok(failed)
    }
}

/// Makes the products of cases, and tells how that went.
async fn work(
    products: &Products<'_>,
    reporter: &Reporter,
    planned: &[Planned],
    out: &mut dyn Write,
) -> anyhow::Result<Exit> {
    let mut shift =
        Shift { products, reporter, all: planned.len(), done: 0, read: 0, is_misconfigured: false };
    let began = Instant::now();
    let mut failed = shift.work(planned, out).await?;
    // What may go better next time is tried once more.
    let passing = |(_, failures): &(Planned, Vec<Failure>)| failures.iter().all(|f| !f.permanent);
    let again: Vec<(Planned, Vec<Failure>)>;
    (again, failed) = failed.into_iter().partition(passing);
    let again: Vec<Planned> = again.into_iter().map(|(case, _)| case).collect();
    failed.extend(shift.work(&again, out).await?);
    let Shift { done, read, is_misconfigured, .. } = shift;
    let rate = bytes((read as f64 / began.elapsed().as_secs_f64().max(1e-3)) as u64);
    writeln!(
        out,
        "{done} of {} done, {} failed, {} read, {rate}/s",
        count(planned.len(), "case"),
        failed.len(),
        bytes(read)
    )?;
    for ((case, _), Failure { stages, error, .. }) in
        failed.iter().flat_map(|(case, all)| all.iter().map(move |failure| (case, failure)))
    {
        let stages: Vec<_> = stages.iter().map(|stage| stage.name()).collect();
        writeln!(out, "failed: {}, {}: {error}", case.short(), stages.join(" and "))?;
    }
    let mut failures = failed.iter().flat_map(|(_, failures)| failures);
    let exit = match () {
        () if products.workshop.stop.is_cancelled() && done < planned.len() => Exit::Interrupted,
        () if failed.is_empty() => Exit::Done,
        // Nothing is gained by running again.
        () if is_misconfigured && failures.clone().all(|failure| failure.permanent) => {
            Exit::Configuration
        }
        () if failures.all(|failure| failure.permanent) => Exit::BadData,
        () => Exit::SomeFailed,
    };
    Ok(exit)
}

/// Progress of what reads along.
struct Silent;

impl Progress for Silent {
    fn begin(&self, _: Case, _: usize, _: u64) {}
    fn advance(&self, _: u64) {}
    fn file_done(&self) {}
    fn end(&self, _: Case) {}
}

impl Run {
    pub async fn run(self, global: &GlobalArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let stop = CancellationToken::new();
        stop_on_signals(stop.clone());
        let overrides = Overrides { workers: self.workers, ..self.plan.over(global.overrides()) };
        let mut config = Config::load(&overrides)?;
        let opening = unless_stopped(&stop, Opened::load(&config));
        let Opened { stores, store, key, plan, .. } = opening.await??;
        // What the plan says holds on every node, whatever its own settings are.
        let of_plan = |value| Setting { value, source: Source::Plan };
        config.grid = plan.places.grid.clone().map(of_plan);
        let stages = self.stages_of(&plan)?;
        let shard = Shard::find(self.shards.get(), self.shard, |name| std::env::var(name).ok())?;
        let range = self.polygon_range.as_deref();
        in_order(range)?;
        let is_asked = |(case, _): &Planned| match range {
            Some([a, b]) => (*a..=*b).contains(&case.polygon()),
            _ => true,
        };
        let own = plan.cases().zip(&plan.cases).filter(|((n, _), _)| shard.has(*n));
        let own = own.map(|((_, case), planned)| (case, planned.files));
        let planned: Vec<Planned> = own.filter(is_asked).collect();
        let cases: Vec<Case> = planned.iter().map(|(case, _)| *case).collect();
        let memory = self.memory.map_or_else(memory::to_use, |memory| memory / 5 * 4);
        let pool = Pool::new(config.workers.value.get(), memory);
        let stores = stores.within(memory);
        let terminal = Arc::new(Terminal::new());
        let has_research = stages.contains(&Stage::Research);
        let progress: Arc<dyn Progress> =
            if has_research { Arc::new(Silent) } else { terminal.clone() };
        let workshop = Workshop { pool, stop, progress };
        let reporter = Reporter::begin(store, &key, &plan, shard).await?;
        let work = async {
            plan.places.refuse_absent(&stages, &stores).await?;
            if cases.is_empty() {
                writeln!(out, "this shard has none of the cases")?;
                return Ok(Exit::Done);
            }
            let products =
                self.products((&plan, &stages), &config, &stores, terminal, &cases, &workshop);
            work(&products.await?, &reporter, &planned, out).await
        };
        let done = work.await;
        reporter.end(done.as_ref().map_or_else(Exit::of, |exit| *exit) as u8).await;
        done
    }

    /// The plan's products that are asked for.
    fn stages_of(&self, plan: &Plan) -> Result<Vec<Stage>, VisError> {
        if let Some(other) = self.stages.iter().find(|stage| !plan.stages.contains(stage)) {
            let problem =
                format!("the plan is not for {other}; `dor plan --stages` makes one that is");
            return Err(VisError::Needs(problem));
        }
        let is_asked = |stage: &Stage| self.stages.is_empty() || self.stages.contains(stage);
        Ok(plan.stages.iter().copied().filter(is_asked).collect())
    }

    async fn products<'a>(
        &self,
        (plan, stages): (&Plan, &[Stage]),
        config: &Config,
        stores: &Stores,
        terminal: Arc<Terminal>,
        cases: &[Case],
        workshop: &'a Workshop,
    ) -> anyhow::Result<Products<'a>> {
        let places = &plan.places;
        let stores = &until(&workshop.stop, stores);
        let open = |place: &Option<Location>, what: &str| {
            let needed = || VisError::Needs(format!("the plan names no {what}"));
            Ok::<_, VisError>(stores.open(place.as_ref().ok_or_else(needed)?)?)
        };
        let raw = open(&places.data_dir, "data_dir")?;
        let needs_grid = stages.iter().any(|stage| *stage != Stage::Store1);
        let grid: Option<(Arc<Grid>, String)> = match config.grid.as_ref().filter(|_| needs_grid) {
            None => None,
            Some(at) => {
                let (grid, sha256) = load_grid(stores, at).await?;
                if plan.givens.grid_sha256.as_ref() != Some(&sha256) {
                    return Err(PlanFileError::Changed { url: at.value.to_string() }.into());
                }
                Some((Arc::new(grid), sha256))
            }
        };
        let mut products = Products {
            raw: raw.clone(),
            research: None,
            store1: None,
            store2: None,
            store3: None,
            workshop,
            allow_missing: plan.allow_missing,
            force: self.force,
        };
        for stage in stages {
            match stage {
                Stage::Research => {
                    let environment = Environment {
                        raw: raw.clone(),
                        out: open(&places.output_dir, "output_dir")?,
                        grid: grid.as_ref().map(|(grid, _)| grid.clone()),
                        pool: workshop.pool.clone(),
                        stop: workshop.stop.clone(),
                        progress: terminal.clone(),
                        reader: Reader::default(),
                    };
                    let recipe = ledger::Recipe {
                        product: "research-grade".to_owned(),
                        version: RECIPE,
                        grid_sha256: grid.as_ref().map(|(_, sha256)| sha256.clone()),
                    };
                    let (force, allow_missing) = (self.force, plan.allow_missing);
                    let options = PlanOptions { force, allow_missing, recipe };
                    products.research = Some((environment, options));
                }
                Stage::Store1 => {
                    let store = open(&places.store1, "store1")?;
                    let open = Destination::open(store, "store1", plan.recipe(*stage));
                    products.store1 = Some(open.await?);
                }
                Stage::Store2 => {
                    let maps = Maps {
                        ssh: places.ssh.clone(),
                        reference_compat: plan.reference_compat,
                        ..Maps::default()
                    };
                    let (store, input) = (open(&places.store2, "store2")?, Input::Raw(raw.clone()));
                    let atlas = maps.atlas(store, (stores, config), (&input, cases), workshop);
                    let atlas = atlas.await?;
                    let is_planned = match (&atlas.ssh, &plan.givens.ssh) {
                        (Some((_, file)), Some(planned)) => planned.is_content(file),
                        (found, planned) => found.is_none() && planned.is_none(),
                    };
                    if !is_planned {
                        let url = places.ssh.as_ref().map(Location::to_string).unwrap_or_default();
                        return Err(PlanFileError::Changed { url }.into());
                    }
                    products.store2 = Some(atlas);
                }
                Stage::Store3 => {
                    let store = open(&places.store3, "store3")?;
                    products.store3 = Some(Distances {
                        destination: Destination::open(store, "store3", plan.recipe(*stage))
                            .await?,
                        centers: (plan.centers(), "the plan".to_owned()),
                        grid: grid.clone(),
                    });
                }
            }
        }
        Ok(products)
    }
}
