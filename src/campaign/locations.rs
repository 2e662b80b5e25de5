//! Locations of a campaign's inputs and outputs.

use serde::{Deserialize, Serialize};

use super::{PlanFileError, Product};
use crate::store::{Location, StoreRegistry};

/// Locations of a campaign's inputs and outputs. Absent ones are not used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locations {
    /// Folder of the archive of raw history.
    pub data_dir: Option<Location>,
    /// Folder of research-grade files.
    pub output_dir: Option<Location>,
    /// Store 1, efficiencies.
    pub store1: Option<Location>,
    /// Store 2, maps.
    pub store2: Option<Location>,
    /// Store 3, uptake by distance.
    pub store3: Option<Location>,
    /// Grid file with the full `TLAT` and `TLONG`.
    pub grid: Option<Location>,
    /// File with the series of sea surface height.
    pub ssh: Option<Location>,
    /// File with the centers of the polygons.
    pub centers: Option<Location>,
}

impl Locations {
    /// The output location of a product.
    pub fn of(&self, product: Product) -> Option<&Location> {
        match product {
            Product::Research => self.output_dir.as_ref(),
            Product::Store1 => self.store1.as_ref(),
            Product::Store2 => self.store2.as_ref(),
            Product::Store3 => self.store3.as_ref(),
        }
    }

    /// Makes the locations below `folder` relative to it, so that they stay valid when the folder is moved.
    #[must_use]
    pub fn relative_to(self, folder: &Location) -> Self {
        self.map(|location| match location.below(folder).map(|path| path.parse()) {
            Some(Ok(relative)) => relative,
            _ => location,
        })
    }

    /// Resolves relative locations against `folder`, the folder of the file that contains them.
    #[must_use]
    pub fn seen_from(self, folder: &Location) -> Self {
        self.map(|location| location.seen_from(folder))
    }

    /// Applies `change` to every location.
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

    /// Creates the local folder for research-grade files. If it is absent later, it was moved away.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub async fn prepare(&self, stores: &StoreRegistry) -> Result<(), PlanFileError> {
        match &self.output_dir {
            Some(location) => Ok(stores.open(location)?.make_root().await?),
            None => Ok(()),
        }
    }

    /// Checks that the archive, the outputs of `products` and the input files exist. In a bucket the folder
    /// of research-grade files does not exist before the first of them, so it is not checked there.
    ///
    /// # Errors
    /// [`PlanFileError::NoLocation`] for the first location that is absent, or the store's error.
    pub async fn ensure_present(
        &self,
        products: &[Product],
        stores: &StoreRegistry,
    ) -> Result<(), PlanFileError> {
        let outputs = products.iter().map(|product| (product.setting(), self.of(*product)));
        let archive = std::iter::once(("data_dir", self.data_dir.as_ref()));
        for (what, location) in archive.chain(outputs) {
            let Some(location) = location else { continue };
            let store = stores.open(location)?;
            let must_exist = store.can_list() && (location.is_local() || what != "output_dir");
            let is_absent = match what {
                "data_dir" => store.absence().await?.is_some(),
                _ => {
                    let report = store.check(false).await;
                    report.readable?;
                    !report.exists
                }
            };
            if must_exist && is_absent {
                return Err(PlanFileError::NoLocation { what, url: location.to_string() });
            }
        }
        let files = [("grid", &self.grid), ("ssh", &self.ssh), ("centers", &self.centers)];
        for (what, location) in files {
            let Some(location) = location else { continue };
            let parts = location.parent().zip(location.file_name());
            let Some((folder, name)) = parts else { continue };
            if stores.open(&folder)?.head(name).await?.is_none() {
                let url = folder.join(name).to_string();
                return Err(PlanFileError::NoLocation { what, url });
            }
        }
        Ok(())
    }
}
