//! A plan, and what its places are opened with.

use super::{Plan, PlanFileError};
use crate::store::{Location, Store, Stores};

/// A plan, and what its places are opened with.
pub struct Opened {
    /// Where the plan is.
    pub location: Location,
    /// What its places are opened with.
    pub stores: Stores,
    /// What the plan lies in.
    pub store: Store,
    /// Its key there.
    pub key: String,
    /// The plan, with its places as they are seen from here.
    pub plan: Plan,
}

impl Opened {
    /// Reads the plan at a location.
    ///
    /// # Errors
    /// Those of [`Plan::load`], and a location that is a folder.
    pub async fn load(stores: Stores, location: Location) -> Result<Self, PlanFileError> {
        let (store, key) = place(&stores, &location)?;
        let mut plan = Plan::load(&store, &key).await?;
        plan.places = plan.places.seen_from(store.location());
        Ok(Self { location, stores, store, key, plan })
    }
}

/// The store and the key of a plan's location.
pub(super) fn place(stores: &Stores, plan: &Location) -> Result<(Store, String), PlanFileError> {
    match (plan.parent(), plan.file_name()) {
        (Some(folder), Some(name)) => Ok((stores.open(&folder)?, name.to_owned())),
        _ => Err(PlanFileError::Folder { url: plan.to_string() }),
    }
}
