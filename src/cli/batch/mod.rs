//! `dor plan`, `run`, `status`, `finalize` and `slurm`: many cases on many nodes.

mod finalize;
mod plan;
mod run;
mod slurm;
mod status;

pub(super) use finalize::Finalize;
pub(super) use plan::Plan;
pub(super) use run::Run;
pub(super) use slurm::Slurm;
pub(super) use status::Status;

use clap::Args;

use crate::cli::stores;
use crate::config::{Config, ConfigError, Overrides};
use crate::store::{Location, Store, StoreError, Stores};
use crate::vis::VisError;

/// Which plan.
#[derive(Args, Debug)]
struct PlanArgs {
    /// The plan: a path or URL that every node can read [default: plan of the configuration]
    #[arg(long, value_name = "PLAN")]
    plan: Option<Location>,
}

impl PlanArgs {
    /// With its flag over what else is configured.
    fn over(&self, overrides: Overrides) -> Overrides {
        Overrides { plan: self.plan.clone(), ..overrides }
    }
}

/// A plan, and what its places are opened with.
struct Opened {
    location: Location,
    stores: Stores,
    /// What the plan lies in, and its key there.
    store: Store,
    key: String,
    plan: crate::batch::Plan,
}

impl Opened {
    async fn load(config: &Config) -> anyhow::Result<Self> {
        let unset = || ConfigError::Unset { key: "plan", flag: "--plan", variable: "DOR_PLAN" };
        let location = config.plan.as_ref().ok_or_else(unset)?.value.absolute();
        let stores = stores(config);
        let (store, key) = plan_file(&stores, &location)?;
        let mut plan = crate::batch::Plan::load(&store, &key).await?;
        plan.places = plan.places.seen_from(store.location());
        Ok(Self { location, stores, store, key, plan })
    }
}

/// The store and the key of a plan's location.
fn plan_file(stores: &Stores, plan: &Location) -> Result<(Store, String), VisError> {
    match (plan.parent(), plan.file_name()) {
        (Some(folder), Some(name)) => {
            let open = || -> Result<_, StoreError> { Ok((stores.open(&folder)?, name.to_owned())) };
            Ok(open()?)
        }
        _ => Err(VisError::Needs(format!("{plan} is a folder: name the file of the plan"))),
    }
}
