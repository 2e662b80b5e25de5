//! Where a campaign reads and writes.

use serde::{Deserialize, Serialize};

use super::{PlanFileError, Product};
use crate::store::{Location, StoreRegistry};

/// Where a campaign reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locations {
    /// The archive of raw history.
    pub data_dir: Option<Location>,
    /// Research-grade files.
    pub output_dir: Option<Location>,
    /// Efficiencies.
    pub store1: Option<Location>,
    /// Maps.
    pub store2: Option<Location>,
    /// Uptake by distance.
    pub store3: Option<Location>,
    /// The full grid.
    pub grid: Option<Location>,
    /// Series of sea surface height.
    pub ssh: Option<Location>,
    /// Centres of the polygons.
    pub centers: Option<Location>,
}

impl Locations {
    /// Where a product goes.
    pub fn of(&self, stage: Product) -> Option<&Location> {
        match stage {
            Product::Research => self.output_dir.as_ref(),
            Product::Store1 => self.store1.as_ref(),
            Product::Store2 => self.store2.as_ref(),
            Product::Store3 => self.store3.as_ref(),
        }
    }

    /// The same, with what lies below `folder` relative to it: so they hold when all is moved together.
    #[must_use]
    pub fn relative_to(self, folder: &Location) -> Self {
        self.map(|place| match place.below(folder).map(|way| way.parse()) {
            Some(Ok(way)) => way,
            _ => place,
        })
    }

    /// The same for whoever reads them in a file in `folder`.
    #[must_use]
    pub fn seen_from(self, folder: &Location) -> Self {
        self.map(|place| place.seen_from(folder))
    }

    fn map(self, change: impl Fn(Location) -> Location) -> Self {
        let Self { data_dir, output_dir, store1, store2, store3, grid, ssh, centers } = self;
        Self {
            data_dir: data_dir.map(&change),
            output_dir: output_dir.map(&change),
            store1: store1.map(&change),
            store2: store2.map(&change),
            store3: store3.map(&change),
            grid: grid.map(&change),
            ssh: ssh.map(&change),
            centers: centers.map(&change),
        }
    }

    /// Makes the folder for research-grade files, on disk: from then on one that is not there was
    /// moved away.
    pub async fn prepare(&self, stores: &StoreRegistry) -> Result<(), PlanFileError> {
        match &self.output_dir {
            Some(place) => Ok(stores.open(place)?.make_root().await?),
            None => Ok(()),
        }
    }

    /// Refuses places that are not there: the archive, where products of `stages` are, and the files that
    /// they depend on. In a bucket there is no folder for research-grade files before the first of them.
    pub async fn refuse_absent(
        &self,
        stages: &[Product],
        stores: &StoreRegistry,
    ) -> Result<(), PlanFileError> {
        let products = stages.iter().map(|stage| (stage.place(), self.of(*stage)));
        for (what, place) in std::iter::once(("data_dir", self.data_dir.as_ref())).chain(products) {
            let Some(place) = place else { continue };
            let store = stores.open(place)?;
            let is_told = store.can_list() && (place.is_local() || what != "output_dir");
            let found = store.check(false).await;
            found.readable?;
            if is_told && !found.exists {
                return Err(PlanFileError::NoPlace { what, url: place.to_string() });
            }
        }
        let files = [("grid", &self.grid), ("ssh", &self.ssh), ("centers", &self.centers)];
        for (what, place) in files {
            let parts =
                place.as_ref().and_then(|place| Some((place.parent()?, place.file_name()?)));
            let Some((folder, name)) = parts else { continue };
            if stores.open(&folder)?.head(name).await?.is_none() {
                let url = folder.join(name).to_string();
                return Err(PlanFileError::NoPlace { what, url });
            }
        }
        Ok(())
    }
}
