//! The option `--plan`, and loading of the plan.

use clap::Args;

use crate::campaign::OpenPlan;
use crate::cli::stores::stores;
use crate::config::{Config, ConfigError, Overrides};
use crate::store::Location;

/// The option `--plan`.
#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    /// Plan file: a path or URL that every node can read [default: plan of the configuration]
    #[arg(long, value_name = "PLAN")]
    pub plan: Option<Location>,
}

impl PlanArgs {
    /// Returns `overrides` with the option `--plan`.
    pub fn over(&self, overrides: Overrides) -> Overrides {
        Overrides { plan: self.plan.clone(), ..overrides }
    }
}

/// Loads the plan of the configuration.
///
/// # Errors
/// No plan is configured, or it cannot be read.
pub(super) async fn load(config: &Config) -> anyhow::Result<OpenPlan> {
    let unset = || ConfigError::Unset { key: "plan", flag: "--plan", variable: "DOR_PLAN" };
    let location = config.plan.as_ref().ok_or_else(unset)?.value.absolute();
    Ok(OpenPlan::load(stores(config), location).await?)
}
