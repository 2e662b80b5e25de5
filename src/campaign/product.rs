//! The products of a case: research-grade files and results in three map stores.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the products of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// One research-grade file for each month.
    Research,
    /// Efficiency, in store 1.
    Store1,
    /// Maps, in store 2.
    Store2,
    /// Uptake by distance, in store 3.
    Store3,
}

impl Product {
    /// All products, in order.
    pub const ALL: [Self; 4] = [Self::Research, Self::Store1, Self::Store2, Self::Store3];

    /// Name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Research => "research",
            Self::Store1 => "store1",
            Self::Store2 => "store2",
            Self::Store3 => "store3",
        }
    }
}

impl Product {
    /// Name of the setting with the output location.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Research => "output_dir",
            store => store.name(),
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Product {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|product| product.name() == text);
        named.ok_or_else(|| "products are research, store1, store2 and store3".to_owned())
    }
}
