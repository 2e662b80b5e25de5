//! A plan with the stores to open its locations.

use super::{CampaignPlan, PlanFileError};
use crate::store::{Location, Store, StoreRegistry};

/// A plan with the stores to open its locations.
pub struct OpenPlan {
    /// The file of the plan.
    pub location: Location,
    /// Opens the plan's locations.
    pub stores: StoreRegistry,
    /// The folder of the plan.
    pub store: Store,
    /// Key of the plan in `store`.
    pub key: String,
    /// The plan, with its relative locations resolved.
    pub plan: CampaignPlan,
}

impl OpenPlan {
    /// Reads the plan at a location.
    ///
    /// # Errors
    /// [`PlanFileError::Folder`] for a folder, and the errors of [`CampaignPlan::load`].
    pub async fn load(stores: StoreRegistry, location: Location) -> Result<Self, PlanFileError> {
        let (store, key) = open_folder(&stores, &location)?;
        let mut plan = CampaignPlan::load(&store, &key).await?;
        plan.locations = plan.locations.seen_from(store.location());
        Ok(Self { location, stores, store, key, plan })
    }
}

/// Opens the folder of a plan; returns it with the key of the plan.
pub(super) fn open_folder(
    stores: &StoreRegistry,
    plan: &Location,
) -> Result<(Store, String), PlanFileError> {
    match (plan.parent(), plan.file_name()) {
        (Some(folder), Some(name)) => Ok((stores.open(&folder)?, name.to_owned())),
        _ => Err(PlanFileError::Folder { url: plan.to_string() }),
    }
}
