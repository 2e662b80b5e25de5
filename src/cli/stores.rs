//! The stores and the grid file that are configured.

use crate::config::Config;
use crate::executor::memory;
use crate::research::GridFile;
use crate::store::StoreRegistry;

/// Stores as they are configured, for the memory that there is.
pub(super) fn stores(config: &Config) -> StoreRegistry {
    StoreRegistry::new(config.s3.clone()).within(memory::to_use())
}

/// The grid file that is configured, and who names it.
pub(super) fn grid_file(config: &Config) -> Option<GridFile> {
    let setting = config.grid.as_ref()?;
    Some(GridFile { location: setting.value.clone(), named_by: setting.source.to_string() })
}
