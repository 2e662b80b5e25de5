//! Schema of the three stores: groups, arrays, axes and attributes.
//!
//! `create` writes empty stores from this schema, and `check` compares stores with it.

use serde_json::{Map, Value, json};

use super::StoreRecipe;
use crate::derive::uptake::RADII;
use crate::encode::zarr::{Array, Content, Hierarchy, ZarrVersion};
use crate::model::atlas::{Band, MapVariable, YEARS};
use crate::model::case::{MONTHS, POLYGONS};
use crate::model::{Case, InterventionMonth};
use crate::regrid::mercator::{self, TILE};

/// Version of the schema, an attribute of the root group.
const VERSION: &str = "1.0.0";
/// Path of the data array of store 1.
pub const EFFICIENCY: &str = "DOR_efficiency";
/// Path of the data array of store 3.
pub const UPTAKE: &str = "FG_CO2_percent_cumulative";
/// Attribute of the root group with the recipe of the store.
pub const RECIPE: &str = "recipe";
/// Months in a year.
pub const YEAR: usize = 12;

/// Iterates over the months of a case, counted from the intervention, in the order of the chunks of
/// store 2: the same month of all years together.
pub fn reading_order() -> impl Iterator<Item = usize> {
    (0..YEAR).flat_map(|month| (0..YEARS).map(move |year| year * YEAR + month))
}

/// Index of a case along the polygon axis and along the axis of intervention months.
pub fn axis_indices(case: Case) -> (usize, usize) {
    let season = InterventionMonth::ALL.iter().position(|month| *month == case.month());
    (case.polygon().into(), season.unwrap_or_default())
}

/// Keys of the objects of one case in an array of store 2.
pub fn case_keys(array: &Array, format: ZarrVersion, case: Case) -> Vec<String> {
    let (polygon, season) = axis_indices(case);
    if format == ZarrVersion::V3 {
        return vec![format!("{}/c/{polygon}/0/{season}/0/0/0/0", array.path)];
    }
    // The part of the array for one polygon and one intervention month.
    let shape = [1, Band::ALL.len(), 1].into_iter().chain(array.shape.iter().skip(3).copied());
    let one = Array { shape: shape.collect(), path: String::new(), ..array.clone() };
    let keys = one.chunk_keys().into_iter().map(|key| {
        let mut parts: Vec<String> =
            key.trim_start_matches('/').split('.').map(str::to_owned).collect();
        for (at, index) in [(0, polygon), (2, season)] {
            if let Some(part) = parts.get_mut(at) {
                *part = index.to_string();
            }
        }
        format!("{}/{}", array.path, parts.join("."))
    });
    keys.collect()
}

/// Upper bound of the size of a chunk or shard of `floats` 4-byte values, in bytes. It allows for data
/// that does not compress.
pub fn max_bytes(floats: usize) -> u64 {
    (floats as u64).saturating_mul(5) + (1 << 20)
}

/// Index in [`reading_order`] of the month that is `elapsed` months after the intervention.
pub fn reading_index(elapsed: usize) -> usize {
    elapsed % YEAR * YEARS + elapsed / YEAR
}

/// Largest number of levels. A cell of level 5 is 10 km wide; finer levels only interpolate.
pub const MAX_LEVELS: u8 = 6;

const POLYGON_COUNT: usize = POLYGONS as usize;
const SEASONS: usize = InterventionMonth::ALL.len();

/// One of the three stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Efficiency over time.
    Store1,
    /// Pyramid of maps.
    Store2(PyramidOptions),
    /// Uptake by distance over time.
    Store3,
}

/// Options of a map pyramid, fixed when the store is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PyramidOptions {
    /// Number of levels; level 0 has 128 x 128 cells, each further level twice as many in each
    /// direction.
    pub levels: u8,
    /// Variables in the order of their arrays.
    pub variables: Vec<MapVariable>,
    /// Version of the Zarr format.
    pub format: ZarrVersion,
}

impl Default for PyramidOptions {
    fn default() -> Self {
        Self { levels: 2, variables: MapVariable::ALL.to_vec(), format: ZarrVersion::V2 }
    }
}

impl StoreKind {
    /// The groups, arrays and attributes of the store. `recipe` is `None` for an empty store.
    pub fn hierarchy(&self, recipe: Option<&StoreRecipe>) -> Hierarchy {
        let mut hierarchy = match self {
            Self::Store1 => store1(),
            Self::Store2(pyramid) => store2(pyramid),
            Self::Store3 => store3(),
        };
        hierarchy.attributes.insert("version".to_owned(), VERSION.into());
        if let Some(recipe) = recipe {
            hierarchy.attributes.insert(RECIPE.to_owned(), json!(recipe));
        }
        hierarchy
    }

    /// Version of the Zarr format; only store 2 can have version 3.
    pub fn format(&self) -> ZarrVersion {
        match self {
            Self::Store2(pyramid) => pyramid.format,
            Self::Store1 | Self::Store3 => ZarrVersion::V2,
        }
    }

    /// Name of the store in messages and records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Store1 => "store1",
            Self::Store2(_) => "store2",
            Self::Store3 => "store3",
        }
    }

    /// Number of values of a case and month in stores 1 and 3, whose chunks hold all polygons of an
    /// intervention month; 0 for store 2.
    pub fn columns(&self) -> usize {
        match self {
            Self::Store1 => 1,
            Self::Store2(_) => 0,
            Self::Store3 => RADII.len(),
        }
    }
}

fn attributes<const N: usize>(pairs: [(&str, &str); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn integers(values: impl IntoIterator<Item = usize>) -> Content {
    Content::Integers(values.into_iter().map(|v| v as i32).collect())
}

fn seasons() -> Content {
    integers(InterventionMonth::ALL.map(|month| month.number().into()))
}

/// Coordinate arrays that stores 1 and 3 have in common.
fn series_axes() -> Vec<Array> {
    let axis = |name: &'static str, content| Array::coordinate(name.to_owned(), name, content);
    vec![
        axis("elapsed_time", integers(0..MONTHS))
            .with_attributes([("units", "months"), ("long_name", "months since the intervention")]),
        axis("polygon_id", integers(0..POLYGON_COUNT))
            .with_attributes([("long_name", "ocean polygon")]),
        axis("intervention_month", seasons()).with_attributes([
            ("units", "month of 1999"),
            ("long_name", "month of the intervention"),
        ]),
    ]
}

fn store1() -> Hierarchy {
    let mut arrays = vec![Array {
        path: EFFICIENCY.to_owned(),
        dimensions: vec!["elapsed_time", "polygon_id", "intervention_month"],
        shape: vec![MONTHS, POLYGON_COUNT, SEASONS],
        chunks: vec![MONTHS, POLYGON_COUNT, 1],
        shards: None,
        attributes: attributes([
            ("long_name", "efficiency: additional CO2 uptake over carbon removed"),
            ("units", "1"),
        ]),
        content: Content::Data,
    }];
    arrays.extend(series_axes());
    let title = "Efficiency of direct ocean removal";
    Hierarchy { attributes: attributes([("title", title)]), groups: Vec::new(), arrays }
}

fn store3() -> Hierarchy {
    let mut arrays = vec![Array {
        path: UPTAKE.to_owned(),
        dimensions: vec!["elapsed_time", "polygon_id", "intervention_month", "dist2center"],
        shape: vec![MONTHS, POLYGON_COUNT, SEASONS, RADII.len()],
        chunks: vec![MONTHS, POLYGON_COUNT, 1, RADII.len()],
        shards: None,
        attributes: attributes([
            (
                "long_name",
                "cumulative additional CO2 uptake within a distance of the polygon's centre",
            ),
            ("units", "percent"),
        ]),
        content: Content::Data,
    }];
    arrays.extend(series_axes());
    let radii = integers(RADII.map(|radius| radius as usize));
    arrays.push(
        Array::coordinate("dist2center".to_owned(), "dist2center", radii)
            .with_attributes([("units", "m"), ("long_name", "distance to the polygon's centre")]),
    );
    let title = "Spread of the CO2 uptake after direct ocean removal";
    Hierarchy { attributes: attributes([("title", title)]), groups: Vec::new(), arrays }
}

fn store2(pyramid: &PyramidOptions) -> Hierarchy {
    let mut arrays = Vec::new();
    let mut datasets = Vec::new();
    for level in 0..pyramid.levels {
        arrays.extend(pyramid.variables.iter().map(|&variable| map_array(variable, level)));
        arrays.extend(map_axes(level));
        datasets.push(json!({
            "path": level.to_string(),
            "level": level,
            "crs": "EPSG:3857",
            "pixels_per_tile": TILE,
        }));
    }
    let mut root = attributes([("title", "Maps of direct ocean removal")]);
    let method = json!({
        "method": "bilinear on the sphere",
        "tool": "dor-atlas",
        "version": crate::VERSION,
    });
    root.insert(
        "multiscales".to_owned(),
        json!([{"datasets": datasets, "type": "reduce", "metadata": method}]),
    );
    let groups = (0..pyramid.levels).map(|level| level.to_string()).collect();
    Hierarchy { attributes: root, groups, arrays }
}

fn map_array(variable: MapVariable, level: u8) -> Array {
    let n = mercator::size(level);
    Array {
        path: format!("{level}/{}", variable.name()),
        dimensions: vec!["polygon_id", "band", "injection_date", "month", "year", "y", "x"],
        shape: vec![POLYGON_COUNT, Band::ALL.len(), SEASONS, YEAR, YEARS, n, n],
        chunks: vec![1, 1, 1, 1, YEARS, TILE, TILE],
        shards: Some(vec![1, Band::ALL.len(), 1, YEAR, YEARS, n, n]),
        attributes: attributes([("long_name", variable.long_name()), ("units", variable.units())]),
        content: Content::Data,
    }
}

fn map_axes(level: u8) -> Vec<Array> {
    let axis =
        |name: &'static str, content| Array::coordinate(format!("{level}/{name}"), name, content);
    let meters = |name: &'static str, values: Vec<f64>, standard: &str| {
        let values = Content::Floats(values.into_iter().map(|v| v as f32).collect());
        axis(name, values).with_attributes([("units", "m"), ("standard_name", standard)])
    };
    let elapsed = (1..=YEAR).flat_map(|month| (1..=YEARS).map(move |y| (y - 1) * YEAR + month - 1));
    let bands = Content::Names(Band::ALL.map(Band::name).to_vec());
    let of_year = "month of the year since the intervention, not of the calendar";
    let since = [("units", "months"), ("long_name", "months since the intervention")];
    vec![
        axis("band", bands).with_attributes([(
            "long_name",
            "delta: with minus without the intervention; experimental: with it",
        )]),
        axis("polygon_id", integers(0..POLYGON_COUNT))
            .with_attributes([("long_name", "ocean polygon")]),
        axis("injection_date", seasons()).with_attributes([
            ("units", "month of 1999"),
            ("long_name", "month of the intervention"),
        ]),
        axis("month", integers(1..=YEAR)).with_attributes([("long_name", of_year)]),
        axis("year", integers(1..=YEARS))
            .with_attributes([("long_name", "year since the intervention")]),
        Array {
            dimensions: vec!["month", "year"],
            shape: vec![YEAR, YEARS],
            chunks: vec![YEAR, YEARS],
            ..axis("elapsed_time", integers(elapsed)).with_attributes(since)
        },
        meters("x", mercator::x(level), "projection_x_coordinate"),
        meters("y", mercator::y(level), "projection_y_coordinate"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pyramid_of_two_levels_has_600_chunks_for_a_case() {
        let hierarchy = StoreKind::Store2(PyramidOptions::default()).hierarchy(None);
        let data = hierarchy.arrays.iter().filter(|array| array.is_data());
        let mut chunks = 0;
        for array in data {
            let n = array.shape[5];
            assert_eq!(array.shape, [690, 2, 4, 12, 15, n, n]);
            chunks += 2 * 12 * (n / TILE).pow(2);
        }
        assert_eq!(chunks, 600);
    }

    #[test]
    fn coordinates_are_those_that_the_map_reads() {
        let hierarchy = StoreKind::Store2(PyramidOptions::default()).hierarchy(None);
        let of = |path: &str| hierarchy.arrays.iter().find(|a| a.path == path).unwrap();
        assert_eq!(of("0/injection_date").content, Content::Integers(vec![1, 4, 7, 10]));
        assert_eq!(of("1/band").content, Content::Names(vec!["delta", "experimental"]));
        let Content::Integers(elapsed) = &of("0/elapsed_time").content else { panic!() };
        // Month 2 of year 3.
        assert_eq!(elapsed[15 + 2], 25);
        let Content::Floats(y) = &of("1/y").content else { panic!() };
        assert!(y.len() == 256 && y[0] > y[255]);
    }
}
