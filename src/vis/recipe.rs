//! Under which rules a store is filled: stores must not mix them.

use serde::{Deserialize, Serialize};

/// Version of the rules by which results are made; a change of numbers needs a new one.
const VERSION: u32 = 1;

/// The rules that results were made under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreRecipe {
    /// Version of the rules.
    pub version: u32,
    /// Whether the known defects of the published atlas are reproduced.
    pub reference_compat: bool,
}

impl StoreRecipe {
    /// The present rules, with or without the defects of the published atlas.
    pub fn new(reference_compat: bool) -> Self {
        Self { version: VERSION, reference_compat }
    }
}

impl std::fmt::Display for StoreRecipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules = match self.reference_compat {
            true => "with the defects of the published atlas (--reference-compat)",
            false => "without the defects of the published atlas",
        };
        write!(f, "version {}, {rules}", self.version)
    }
}
