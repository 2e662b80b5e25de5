//! What the demo makes of a synthetic case, each step with the command that does the same.

use std::io::Write;
use std::sync::Arc;

use crate::campaign::draft::{self, PlanDraft};
use crate::campaign::run::{ShardOptions, ShardRun};
use crate::campaign::slurm::quoted;
use crate::campaign::{Locations, OpenPlan, Product, Shard};
use crate::cli::Exit;
use crate::cli::campaign::{self, CORES, node_rate, write_plan};
use crate::cli::progress::ConversionBar;
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

/// Folder of the research-grade files below the demo's location.
pub(super) const RESEARCH: &str = "research-grade";
/// The map stores, the plan and the pictures, below it too.
pub(super) const STORE1: &str = "store1b.zarr";
pub(super) const STORE2: &str = "store2.zarr";
pub(super) const STORE3: &str = "cumulative_FG_CO2_percent.zarr";
pub(super) const PLAN: &str = "plan.json";
pub(super) const MAP: &str = "map.png";
pub(super) const EFFICIENCY: &str = "efficiency.png";
pub(super) const UPTAKE: &str = "uptake.png";

/// Levels of the maps, as `dor vis create-template-store2` has them.
const LEVELS: u8 = 2;

/// The case, and where its products go.
pub(super) struct Steps<'a> {
    pub location: &'a Location,
    pub config: &'a Config,
    /// What is read after a stop ends at once.
    pub stores: StoreRegistry,
    pub workshop: RunContext,
    pub case: Case,
    /// Months that there are files of.
    pub months: u16,
}

impl Steps<'_> {
    pub fn months_are_missing(&self) -> bool {
        self.months < 180
    }

    /// Makes all products by a plan.
    pub async fn all_by_plan(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        self.templates(out).await?;
        self.say(out, &format!(
            "plan -o @{PLAN} -d @{ARCHIVE} --output-dir @{RESEARCH} --store1 @{STORE1} --store2 @{STORE2} \
             --store3 @{STORE3} {} --ssh @{SSH} --centers @{CENTERS}",
            self.inputs()
        ))?;
        let output = self.at(PLAN).absolute();
        let draft = self.draft();
        let chosen = draft.cases(&self.choice(), &self.stores).await?;
        let plan = draft.plan(chosen.cases, &output, &self.stores, &self.workshop.stop).await?;
        draft::write(&plan, &output, &self.stores).await?;
        write_plan(out, &self.at(PLAN), &plan, node_rate(CORES))?;

        self.say(out, &format!("run --plan @{PLAN} --shards 1 --shard 0 --force"))?;
        let options = ShardOptions {
            shard: Shard { index: 0, of: 1 },
            stages: plan.stages,
            choice: CaseChoice::default(),
            workers: self.config.workers.value.get(),
            memory: memory::to_use(),
            force: true,
        };
        let opened = OpenPlan::load(self.stores.clone(), output.clone()).await?;
        let run = ShardRun::begin(opened, options).await?;
        let exit = campaign::work(run, self.workshop.stop.clone(), out).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }

        self.say(out, &format!("finalize --plan @{PLAN}"))?;
        let opened = OpenPlan::load(self.stores.clone(), output).await?;
        let finalized = campaign::finalize(&opened, &self.workshop.stop, out).await?;
        Ok(if finalized.is_some() { Exit::Done } else { Exit::Incomplete })
    }

    /// Makes and fills the map stores from the research-grade files.
    pub async fn maps_from_files(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        self.templates(out).await?;
        let inputs = format!("-i @{RESEARCH} {}", self.inputs());
        let input = CaseSource::Research(self.open(RESEARCH)?);
        let cases = [self.case];
        let work = FillOptions { force: false, allow_missing: self.months_are_missing() };

        self.say(out, &format!("vis populate-store2 -o @{STORE2} {inputs} --ssh @{SSH}"))?;
        let (grid, ssh) = (self.grid_file(), Some(self.at(SSH)));
        let options = MapOptions { grid, ssh, ..MapOptions::default() };
        let store = self.open(STORE2)?;
        let workshop = &self.alone();
        let atlas = options.atlas(store, &self.stores, (&input, &cases), workshop).await?;
        let fill = async |case| atlas.fill_from(&input, case, work).await;
        let exit = each(&cases, workshop, out, fill).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }

        self.say(out, &format!(
            "vis populate-store3 -o @{STORE3} --with-store1 @{STORE1} {inputs} --centers @{CENTERS}"
        ))?;
        let workshop = &self.alone();
        let uptakes = self.uptakes(input, work, workshop).await?;
        let exit = each(&cases, workshop, out, async |case| uptakes.fill(case).await).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
        for store in [STORE1, STORE2, STORE3] {
            self.say(out, &format!("vis finalize @{store}"))?;
            finalize_store(&self.open(store)?, out).await?;
        }
        Ok(Exit::Done)
    }

    /// Checks the map stores and draws from them.
    pub async fn looks(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        for store in [STORE1, STORE2, STORE3] {
            self.say(out, &format!("vis check @{store}"))?;
            let report = check::check(&self.open(store)?, &self.alone()).await?;
            vis::write_as_table(out, &self.at(store), &report)?;
            if !report.is_sound() {
                return Ok(Exit::BadData);
            }
        }
        let (case, of) = (self.case, self.of());
        let step = (self.months - 1).min(11);
        let shown = format!("vis plot @{STORE2} --variable DIC_SURF --step {step} {of} -o @{MAP}");
        self.say(out, &shown)?;
        let (variable, band) = (MapVariable::DicSurf, Band::Delta);
        let query = MapQuery { variable, band, case, step: step.into() };
        self.draw(STORE2, Picture::Map(query), MAP, out).await?;
        self.say(out, &format!("vis plot @{STORE1} --series {of} -o @{EFFICIENCY}"))?;
        self.draw(STORE1, Picture::Curves(vec![case]), EFFICIENCY, out).await?;
        if !self.months_are_missing() {
            self.say(out, &format!("vis plot @{STORE3} --series {of} -o @{UPTAKE}"))?;
            self.draw(STORE3, Picture::Curves(vec![case]), UPTAKE, out).await?;
        }
        Ok(Exit::Done)
    }

    /// The same workers, with the progress of one step.
    fn alone(&self) -> RunContext {
        RunContext { progress: Arc::new(ConversionBar::new()), ..self.workshop.clone() }
    }

    /// Makes the three map stores anew.
    async fn templates(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let variables = MapVariable::ALL.into_iter().collect();
        let pyramid = PyramidOptions { levels: LEVELS, variables, ..PyramidOptions::default() };
        let kinds = [
            (STORE1, StoreKind::Store1),
            (STORE2, StoreKind::Store2(pyramid)),
            (STORE3, StoreKind::Store3),
        ];
        for (n, (store, kind)) in (1..).zip(kinds) {
            self.say(out, &format!("vis create-template-store{n} -o @{store} --overwrite"))?;
            create(&self.stores, &self.at(store), &kind, true, out).await?;
        }
        Ok(())
    }

    fn draft(&self) -> PlanDraft {
        let at = |name: &str| Some(self.at(name).absolute());
        PlanDraft {
            stages: Product::ALL.to_vec(),
            places: Locations {
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

    async fn uptakes<'a>(
        &self,
        input: CaseSource,
        work: FillOptions,
        workshop: &'a RunContext,
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
        Ok(UptakeRun { store3, store1: Some(store1), input, work, workshop })
    }

    async fn draw(
        &self,
        store: &str,
        what: Picture,
        picture: &str,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        draw(&self.stores, &self.open(store)?, what, (&self.at(picture), false), out).await
    }

    /// Says which command does what follows. A word `@name` is that name below the demo's location.
    fn say(&self, out: &mut dyn Write, command: &str) -> std::io::Result<()> {
        let place = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.at(name).to_string(),
            None => word.to_owned(),
        };
        let words = ["dor"].into_iter().chain(command.split(' '));
        let said: Vec<String> = words.map(|word| quoted(&place(word))).collect();
        writeln!(out, "\n$ {}", said.join(" "))?;
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

    /// Words that choose the case.
    fn of(&self) -> String {
        format!("-p {} -m {}", self.case.polygon(), self.case.month().number())
    }

    /// The case, and what populating needs to know of it, whether case by case or by a plan.
    fn inputs(&self) -> String {
        let missing = if self.months_are_missing() { " --allow-missing" } else { "" };
        format!("{} --grid @{GRID}{missing}", self.of())
    }
}
