//! Which plan a command is about.

use clap::Args;

use crate::cli::stores::stores;
use crate::config::{Config, ConfigError, Overrides};
use crate::store::{Location, Store, StoreError, Stores};
use crate::vis::VisError;

/// Which plan.
#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    /// The plan: a path or URL that every node can read [default: plan of the configuration]
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<Location>,
}

impl PlanArgs {
    /// With its flag over what else is configured.
    pub fn over(&self, overrides: Overrides) -> Overrides {
        Overrides { plan: self.plan.clone(), ..overrides }
    }
}

/// A plan, and what its places are opened with.
pub(super) struct Opened {
    pub location: Location,
    pub stores: Stores,
    /// What the plan lies in, and its key there.
    pub store: Store,
    pub key: String,
    pub plan: crate::batch::Plan,
}

impl Opened {
    pub async fn load(config: &Config) -> anyhow::Result<Self> {
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
pub(super) fn plan_file(stores: &Stores, plan: &Location) -> Result<(Store, String), VisError> {
    match (plan.parent(), plan.file_name()) {
        (Some(folder), Some(name)) => {
            let open = || -> Result<_, StoreError> { Ok((stores.open(&folder)?, name.to_owned())) };
            Ok(open()?)
        }
        _ => Err(VisError::Needs(format!("{plan} is a folder: name the file of the plan"))),
    }
}
