//! A plan, and what its places are opened with.

use super::{CampaignPlan, PlanFileError};
use crate::store::{Location, Store, StoreRegistry};

/// A plan, and what its places are opened with.
pub struct OpenPlan {
    /// Where the plan is.
    pub location: Location,
    /// What its places are opened with.
    pub stores: StoreRegistry,
    /// What the plan lies in.
    pub store: Store,
    /// Its key there.
    pub key: String,
    /// The plan, with its places as they are seen from here.
    pub plan: CampaignPlan,
}

impl OpenPlan {
    /// Reads the plan at a location.
    ///
    /// # Errors
    /// Those of [`CampaignPlan::load`], and a location that is a folder.
    pub async fn load(stores: StoreRegistry, location: Location) -> Result<Self, PlanFileError> {
        let (store, key) = place(&stores, &location)?;
        let mut plan = CampaignPlan::load(&store, &key).await?;
        plan.places = plan.places.seen_from(store.location());
        Ok(Self { location, stores, store, key, plan })
    }
}

/// The store and the key of a plan's location.
pub(super) fn place(
    stores: &StoreRegistry,
    plan: &Location,
) -> Result<(Store, String), PlanFileError> {
    match (plan.parent(), plan.file_name()) {
        (Some(folder), Some(name)) => Ok((stores.open(&folder)?, name.to_owned())),
        _ => Err(PlanFileError::Folder { url: plan.to_string() }),
    }
}
