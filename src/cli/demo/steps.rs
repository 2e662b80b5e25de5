//! Steps of the demo. Each step prints the command that does the same.

use std::io::Write;
use std::sync::Arc;

use crate::campaign::draft::{self, PlanDraft};
use crate::campaign::run::{ShardOptions, ShardRun};
use crate::campaign::slurm::quoted;
use crate::campaign::{Locations, OpenPlan, Product, Shard};
use crate::cli::Exit;
use crate::cli::campaign::{self, CORES, node_rate, write_plan};
use crate::cli::report::Report;
use crate::cli::stores::grid_file;
use crate::cli::vis::{self, Picture, create, draw, each, finalize_store};
use crate::config::Config;
use crate::demo::{ARCHIVE, CENTERS, GRID, SSH};
use crate::executor::memory;
use crate::model::Case;
use crate::model::atlas::{Band, MapVariable};
use crate::research::GridFile;
use crate::store::{Location, Store, StoreError, StoreRegistry};
use crate::vis::cases::CaseChoice;
use crate::vis::create::OpenStore;
use crate::vis::input::CaseSource;
use crate::vis::maps::MapOptions;
use crate::vis::populate::{FillOptions, UptakeRun};
use crate::vis::query::MapQuery;
use crate::vis::schema::PyramidOptions;
use crate::vis::store3::UptakeContext;
use crate::vis::{RunContext, StoreKind, StoreRecipe, centers, check};

/// Folder of the research-grade files, below the location of the demo.
pub(super) const RESEARCH: &str = "research-grade";
/// Store 1, below the location of the demo.
pub(super) const STORE1: &str = "store1b.zarr";
/// Store 2, below the location of the demo.
pub(super) const STORE2: &str = "store2.zarr";
/// Store 3, below the location of the demo.
pub(super) const STORE3: &str = "cumulative_FG_CO2_percent.zarr";
/// Plan, below the location of the demo.
pub(super) const PLAN: &str = "plan.json";
/// Picture of a map, below the location of the demo.
pub(super) const MAP: &str = "map.png";
/// Picture of the efficiency, below the location of the demo.
pub(super) const EFFICIENCY: &str = "efficiency.png";
/// Picture of the uptake by distance, below the location of the demo.
pub(super) const UPTAKE: &str = "uptake.png";

/// Number of levels of the maps: the default of `dor vis create-template-store2`.
const LEVELS: u8 = 2;

/// The synthetic case, and the inputs of the steps.
pub(super) struct Steps<'a> {
    /// Folder of the demo.
    pub location: &'a Location,
    /// Configuration with the locations of the demo.
    pub config: &'a Config,
    /// Stores whose reads end at once on a stop.
    pub stores: StoreRegistry,
    /// Workers and stop signal.
    pub context: RunContext,
    /// The synthetic case.
    pub case: Case,
    /// Number of months with files, 1 to 180.
    pub months: u16,
}

impl Steps<'_> {
    /// Whether the case has fewer than 180 months.
    pub fn months_are_missing(&self) -> bool {
        self.months < 180
    }

    /// Makes all products with a plan.
    pub async fn all_by_plan(&self, out: &mut Report<'_>) -> anyhow::Result<Exit> {
        self.create_stores(out).await?;
        self.write_command(out, &format!(
            "plan -o @{PLAN} -d @{ARCHIVE} --output-dir @{RESEARCH} --store1 @{STORE1} --store2 @{STORE2} \
             --store3 @{STORE3} {} --ssh @{SSH} --centers @{CENTERS}",
            self.inputs()
        ))?;
        let output = self.at(PLAN).absolute();
        let draft = self.draft();
        let chosen = draft.cases(&self.choice(), &self.stores).await?;
        let plan = draft.plan(chosen.cases, &output, &self.stores, &self.context.stop).await?;
        draft::write(&plan, &output, &self.stores, false).await?;
        write_plan(out, &self.at(PLAN), &plan, node_rate(CORES))?;

        self.write_command(out, &format!("run --plan @{PLAN} --shards 1 --shard 0 --force"))?;
        let options = ShardOptions {
            shard: Shard { index: 0, count: 1 },
            products: plan.products,
            choice: CaseChoice::default(),
            workers: self.config.workers.value.get(),
            memory: memory::budget(),
            force: true,
        };
        let opened = OpenPlan::load(self.stores.clone(), output.clone()).await?;
        let run = ShardRun::begin(opened, options).await?;
        let exit = campaign::work(run, self.context.stop.clone(), out).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }

        self.write_command(out, &format!("finalize --plan @{PLAN}"))?;
        let opened = OpenPlan::load(self.stores.clone(), output).await?;
        let finalized = campaign::finalize(&opened, &self.context.stop, out).await?;
        Ok(if finalized.is_some() { Exit::Done } else { Exit::Incomplete })
    }

    /// Creates the map stores, fills them from the research-grade files, and finalizes them.
    pub async fn maps_from_files(&self, out: &mut Report<'_>) -> anyhow::Result<Exit> {
        self.create_stores(out).await?;
        let inputs = format!("-i @{RESEARCH} {}", self.inputs());
        let input = CaseSource::Research(self.open(RESEARCH)?);
        let cases = [self.case];
        let fill_options =
            FillOptions { allow_missing: self.months_are_missing(), ..FillOptions::default() };

        self.write_command(
            out,
            &format!("vis populate-store2 -o @{STORE2} {inputs} --ssh @{SSH}"),
        )?;
        let (grid, ssh) = (self.grid_file(), Some(self.at(SSH)));
        let map_options = MapOptions { grid, ssh, ..MapOptions::default() };
        let store = self.open(STORE2)?;
        let context = &self.context;
        let atlas =
            map_options.open_map_context(store, &self.stores, (&input, &cases), context).await?;
        let fill = async |case| atlas.fill_from(&input, case, fill_options).await;
        let exit = each(&cases, context, out, fill).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }

        self.write_command(out, &format!(
            "vis populate-store3 -o @{STORE3} --with-store1 @{STORE1} {inputs} --centers @{CENTERS}"
        ))?;
        let context = &self.context;
        let uptakes = self.uptakes(input, fill_options, context).await?;
        let exit = each(&cases, context, out, async |case| uptakes.fill(case).await).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
        for store in [STORE1, STORE2, STORE3] {
            self.write_command(out, &format!("vis finalize @{store}"))?;
            finalize_store(&self.open(store)?, out).await?;
        }
        Ok(Exit::Done)
    }

    /// Checks the map stores and draws pictures of them.
    pub async fn check_and_plot(&self, out: &mut Report<'_>) -> anyhow::Result<Exit> {
        for store in [STORE1, STORE2, STORE3] {
            self.write_command(out, &format!("vis check @{store}"))?;
            let progress = vis::check_progress();
            let context = RunContext { progress, ..self.context.clone() };
            let report = check::check(&self.open(store)?, &context).await?;
            vis::write_as_table(out, &self.at(store), &report)?;
            if !report.is_sound() {
                return Ok(Exit::BadData);
            }
        }
        let (case, options) = (self.case, self.case_options());
        let step = (self.months - 1).min(11);
        let command =
            format!("vis plot @{STORE2} --variable DIC_SURF --step {step} {options} -o @{MAP}");
        self.write_command(out, &command)?;
        let (variable, band) = (MapVariable::DicSurf, Band::Delta);
        let query = MapQuery { variable, band, case, step: step.into() };
        self.draw(STORE2, Picture::Map(query), MAP, out).await?;
        self.write_command(
            out,
            &format!("vis plot @{STORE1} --series {options} -o @{EFFICIENCY}"),
        )?;
        self.draw(STORE1, Picture::Curves(vec![case]), EFFICIENCY, out).await?;
        if !self.months_are_missing() {
            self.write_command(
                out,
                &format!("vis plot @{STORE3} --series {options} -o @{UPTAKE}"),
            )?;
            self.draw(STORE3, Picture::Curves(vec![case]), UPTAKE, out).await?;
        }
        Ok(Exit::Done)
    }

    /// Creates the three map stores, and replaces those of an earlier demo.
    async fn create_stores(&self, out: &mut Report<'_>) -> anyhow::Result<()> {
        let variables = MapVariable::ALL.into_iter().collect();
        let pyramid = PyramidOptions { levels: LEVELS, variables, ..PyramidOptions::default() };
        let kinds = [
            (STORE1, StoreKind::Store1),
            (STORE2, StoreKind::Store2(pyramid)),
            (STORE3, StoreKind::Store3),
        ];
        for (n, (store, kind)) in (1..).zip(kinds) {
            self.write_command(
                out,
                &format!("vis create-template-store{n} -o @{store} --overwrite"),
            )?;
            create(&self.stores, &self.at(store), &kind, true, out).await?;
        }
        Ok(())
    }

    fn draft(&self) -> PlanDraft {
        let at = |name: &str| Some(self.at(name).absolute());
        PlanDraft {
            products: Product::ALL.to_vec(),
            locations: Locations {
                data_dir: at(ARCHIVE),
                output_dir: at(RESEARCH),
                store1: at(STORE1),
                store2: at(STORE2),
                store3: at(STORE3),
                grid: at(GRID),
                ssh: at(SSH),
                centers: at(CENTERS),
            },
            grid: self.grid_file(),
            allow_missing: self.months_are_missing(),
            reference_compat: false,
        }
    }

    /// Prepares the computation of uptake for store 3, and of efficiencies for store 1.
    async fn uptakes<'a>(
        &self,
        input: CaseSource,
        options: FillOptions,
        context: &'a RunContext,
    ) -> anyhow::Result<UptakeRun<'a>> {
        let centers = self.at(CENTERS);
        let centers = (centers::load(&self.stores, &centers).await?, centers.to_string());
        let grid = match self.grid_file() {
            Some(file) => Some(file.load(&self.stores).await?),
            None => None,
        };
        let grid = grid.map(|(grid, sha256)| (Arc::new(grid), sha256));
        let recipe = StoreRecipe::new(false);
        let destination = OpenStore::open(self.open(STORE3)?, "store3", recipe.clone()).await?;
        let store1 = OpenStore::open(self.open(STORE1)?, "store1", recipe).await?;
        let store3 = UptakeContext { destination, centers, grid };
        Ok(UptakeRun { store3, store1: Some(store1), input, options, context })
    }

    /// Draws a picture of a store to the file `name` below the location of the demo.
    async fn draw(
        &self,
        store: &str,
        picture: Picture,
        name: &str,
        out: &mut Report<'_>,
    ) -> anyhow::Result<()> {
        draw(&self.stores, &self.open(store)?, picture, (&self.at(name), false), out).await
    }

    /// Prints the command that does the same as the next step. `@name` stands for the location `name` of the demo.
    fn write_command(&self, out: &mut Report<'_>, command: &str) -> std::io::Result<()> {
        let resolve = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.at(name).to_string(),
            None => word.to_owned(),
        };
        let words = ["dor"].into_iter().chain(command.split(' '));
        let words: Vec<String> = words.map(|word| quoted(&resolve(word))).collect();
        writeln!(out, "\n$ {}", words.join(" "))?;
        out.flush()
    }

    fn at(&self, name: &str) -> Location {
        self.location.join(name)
    }

    fn open(&self, name: &str) -> Result<Store, StoreError> {
        self.stores.open(&self.at(name))
    }

    fn grid_file(&self) -> Option<GridFile> {
        grid_file(self.config)
    }

    fn choice(&self) -> CaseChoice {
        let case = self.case;
        CaseChoice { cases: vec![case], ..CaseChoice::default() }
    }

    /// Options of a command that choose the case.
    fn case_options(&self) -> String {
        format!("-p {} -m {}", self.case.polygon(), self.case.month().number())
    }

    /// Options of a command for the case, its grid file and its missing months.
    fn inputs(&self) -> String {
        let missing = if self.months_are_missing() { " --allow-missing" } else { "" };
        format!("{} --grid @{GRID}{missing}", self.case_options())
    }
}
