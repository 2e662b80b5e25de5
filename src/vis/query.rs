//! Reading back from a store what people look at: a map, or curves.

use super::schema::{EFFICIENCY, StoreKind, UPTAKE, YEAR, most_bytes, place};
use super::{VisError, create};
use crate::derive::uptake::RADII;
use crate::encode::zarr::{Array, ZarrVersion, chunk, v3};
use crate::model::Case;
use crate::model::atlas::{Band, FILL, MapVariable};
use crate::model::case::{MONTHS, POLYGONS};
use crate::regrid::mercator::{self, TILE};
use crate::store::Store;

/// A map as it is stored, NaN where there is fill.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Cells a side.
    pub size: usize,
    /// Rows north to south, columns west to east.
    pub values: Vec<f32>,
    /// Whether it has the defects of the published atlas.
    pub reference_compat: bool,
}

/// What map to read.
#[derive(Clone, Copy, Debug)]
pub struct MapQuery {
    /// The variable.
    pub variable: MapVariable,
    /// With, or with minus without.
    pub band: Band,
    /// The case.
    pub case: Case,
    /// Months since the intervention.
    pub step: usize,
}

/// Reads a map of the finest level.
pub async fn map(store: &Store, query: MapQuery) -> Result<Map, VisError> {
    let opened = create::open(store, "store2").await?;
    let lacks =
        |what: String| VisError::Mismatch { url: store.location().to_string(), problem: what };
    let StoreKind::Store2(pyramid) = &opened.kind else {
        return Err(lacks(format!("holds curves ({}), no maps: use --series", opened.kind.name())));
    };
    let MapQuery { variable, band, case, step } = query;
    if !pyramid.variables.contains(&variable) {
        let names: Vec<_> = pyramid.variables.iter().map(|v| v.name()).collect();
        return Err(lacks(format!("has no {}; it has {}", variable.name(), names.join(", "))));
    }
    let level = pyramid.levels.saturating_sub(1);
    let size = mercator::size(level);
    let band = Band::ALL.iter().position(|b| *b == band).unwrap_or_default();
    let (month, year) = (step % YEAR, step / YEAR);
    let (polygon, season) = place(case);
    let absent = |key: &str| lacks(format!("has no {key}: case {case} is not in it"));
    let path = format!("{level}/{}", variable.name());
    let mut values = vec![f32::NAN; size * size];
    if pyramid.format == ZarrVersion::V3 {
        let hierarchy = opened.kind.hierarchy(None);
        let array = hierarchy.arrays.iter().find(|array| array.path == path);
        let Some(array) = array else { return Err(absent(&path)) };
        let key = format!("{path}/c/{polygon}/0/{season}/0/0/0/0");
        let most = most_bytes(array.shards.iter().flatten().product());
        let (bytes, _) = store.get_within(&key, most).await?.ok_or_else(|| absent(&key))?;
        let index = [polygon as u64, 0, season as u64, 0, 0, 0, 0];
        let failed = |source| VisError::Shard { key: key.clone(), source };
        let shard = v3::decode(array, &index, bytes).map_err(failed)?;
        let years = array.shape[4];
        let at = ((band * YEAR + month) * years + year) * size * size;
        values.copy_from_slice(&shard[at..at + size * size]);
    } else {
        let tiles = size / TILE;
        for tile in 0..tiles * tiles {
            let (row, column) = (tile / tiles, tile % tiles);
            let key = format!("{path}/{polygon}.{band}.{season}.{month}.0.{row}.{column}");
            let (bytes, _) = store.get(&key).await?.ok_or_else(|| absent(&key))?;
            let chunk = decoded(store, &key, &bytes, crate::model::atlas::YEARS * TILE * TILE)?;
            for (y, line) in chunk[year * TILE * TILE..].chunks(TILE).take(TILE).enumerate() {
                let at = (row * TILE + y) * size + column * TILE;
                values[at..at + TILE].copy_from_slice(line);
            }
        }
    }
    let reference_compat = opened.recipe.is_some_and(|recipe| recipe.reference_compat);
    Ok(Map { size, values: without_fill(values), reference_compat })
}

/// A curve: a value a month, NaN where there is fill.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What it is of.
    pub label: String,
    /// 180 values.
    pub values: Vec<f32>,
}

/// Curves of a store, with what their values are.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// Name of the quantity.
    pub title: &'static str,
    /// Name of the axis, with units.
    pub axis: &'static str,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// Reads the curves of cases.
pub async fn curves(store: &Store, cases: &[Case]) -> Result<Curves, VisError> {
    let opened = create::open(store, "store1").await?;
    let (array, title, axis) = match opened.kind {
        StoreKind::Store1 => {
            (EFFICIENCY, "Efficiency of direct ocean removal", "CO2 taken up / carbon removed")
        }
        StoreKind::Store3 => (
            UPTAKE,
            "Where the sea takes up CO2 after the removal",
            "cumulative uptake within the radius, % of all of 15 years",
        ),
        StoreKind::Store2(_) => {
            let problem = "holds maps, no curves: leave out --series".to_owned();
            return Err(VisError::Mismatch { url: store.location().to_string(), problem });
        }
    };
    let columns = opened.kind.columns();
    let hierarchy = opened.kind.hierarchy(None);
    let len = hierarchy.arrays.iter().find(|a| a.is_data()).map_or(0, Array::chunk_len);
    let mut curves = Vec::new();
    for &case in cases {
        let (polygon, season) = place(case);
        let name = format!("polygon {polygon}, {}", month_name(case.month().number()));
        let last = if columns > 1 { ".0" } else { "" };
        let key = format!("{array}/0.0.{season}{last}");
        let problem = || format!("has no {key}; run dor vis finalize");
        let missing =
            || VisError::Mismatch { url: store.location().to_string(), problem: problem() };
        let (bytes, _) = store.get(&key).await?.ok_or_else(missing)?;
        let chunk = decoded(store, &key, &bytes, len)?;
        for (column, radius) in RADII.iter().enumerate().take(columns) {
            let at = |month: usize| (month * usize::from(POLYGONS) + polygon) * columns + column;
            let values = without_fill((0..MONTHS).map(|month| chunk[at(month)]).collect());
            if values.iter().all(|v| v.is_nan()) {
                let problem = format!(
                    "has no values of case {case}: months of it are missing, or it has not been \
                     populated and finalized"
                );
                return Err(VisError::Mismatch { url: store.location().to_string(), problem });
            }
            let label = match columns {
                1 => name.clone(),
                _ => format!("{name}, {} km", radius / 1e3),
            };
            curves.push(Curve { label, values });
        }
    }
    Ok(Curves { title, axis, curves })
}

fn decoded(store: &Store, key: &str, bytes: &[u8], len: usize) -> Result<Vec<f32>, VisError> {
    chunk::decode_floats(bytes, len).map_err(|error| VisError::Mismatch {
        url: store.location().join(key).to_string(),
        problem: format!("cannot be read: {error}"),
    })
}

/// Name of a month, 1 to 12.
pub fn month_name(month: u8) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    NAMES[usize::from(month + 11) % 12]
}

fn without_fill(mut values: Vec<f32>) -> Vec<f32> {
    values.iter_mut().filter(|v| **v == FILL).for_each(|v| *v = f32::NAN);
    values
}
