//! Recipe of a store: the version and variant of the computation. A store has results of one recipe.

use serde::{Deserialize, Serialize};

/// Version of the computation; it increases whenever results change.
const VERSION: u32 = 1;

/// The version and variant of the computation that all results of a store have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreRecipe {
    /// Version of the computation.
    pub version: u32,
    /// Whether results reproduce the known defects of the published atlas.
    pub reference_compat: bool,
}

impl StoreRecipe {
    /// Creates the recipe of this version of the program.
    pub fn new(reference_compat: bool) -> Self {
        Self { version: VERSION, reference_compat }
    }
}

impl std::fmt::Display for StoreRecipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let variant = match self.reference_compat {
            true => "with the defects of the published atlas (--reference-compat)",
            false => "without the defects of the published atlas",
        };
        write!(f, "version {}, {variant}", self.version)
    }
}
