//! The store registry and the grid file of a configuration.

use crate::config::Config;
use crate::executor::memory;
use crate::research::GridFile;
use crate::store::StoreRegistry;

/// Creates the store registry with the S3 options of the configuration and the memory limit of the process.
pub(super) fn stores(config: &Config) -> StoreRegistry {
    StoreRegistry::new(config.s3.clone()).with_memory_limit(memory::budget())
}

/// Returns the grid file of the configuration with the setting that names it. `None`: no grid file is set.
pub(super) fn grid_file(config: &Config) -> Option<GridFile> {
    let setting = config.grid.as_ref()?;
    Some(GridFile { location: setting.value.clone(), named_by: setting.source.to_string() })
}
