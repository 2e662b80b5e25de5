//! The stores of a command.

use crate::config::Config;
use crate::pipeline::memory;
use crate::store::Stores;

/// Stores as they are configured, for the memory that there is.
pub(super) fn stores(config: &Config) -> Stores {
    Stores::new(config.s3.clone()).within(memory::to_use())
}
