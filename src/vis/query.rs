//! Reading of maps and curves from a store, for plots.

use super::record::CaseRecord;
use super::schema::{EFFICIENCY, StoreKind, UPTAKE, YEAR, axis_indices, max_bytes};
use super::{VisError, create};
use crate::derive::uptake::RADII;
use crate::encode::zarr::{Array, ZarrVersion, chunk, v3};
use crate::model::Case;
use crate::model::atlas::{Band, FILL, MapVariable, YEARS};
use crate::model::case::{MONTHS, POLYGONS};
use crate::regrid::mercator::{self, TILE};
use crate::store::Store;

/// A map that was read from store 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Map {
    /// Number of cells along each side.
    pub size: usize,
    /// Values in row-major order, rows from north to south, columns from west to east; NaN for fill.
    pub values: Vec<f32>,
    /// Whether the store reproduces the defects of the published atlas.
    pub reference_compat: bool,
}

/// Selection of one map of store 2.
#[derive(Clone, Copy, Debug)]
pub struct MapQuery {
    /// Variable of the map.
    pub variable: MapVariable,
    /// Whether to read the experiment, or the experiment minus the control.
    pub band: Band,
    /// Case of the map.
    pub case: Case,
    /// Months since the intervention, 0 to 179.
    pub step: usize,
}

/// Reads a map of the finest level.
///
/// # Errors
/// The store is not a store 2, lacks the variable or the case, or cannot be read.
pub async fn map(store: &Store, query: MapQuery) -> Result<Map, VisError> {
    let opened = create::open(store, "store2").await?;
    let wrong =
        |problem: String| VisError::WrongLocation { url: store.location().to_string(), problem };
    let StoreKind::Store2(pyramid) = &opened.kind else {
        let kind = opened.kind.name();
        return Err(wrong(format!("holds curves ({kind}), no maps; use --series")));
    };
    let MapQuery { variable, band, case, step } = query;
    if !pyramid.variables.contains(&variable) {
        let names: Vec<_> = pyramid.variables.iter().map(|v| v.name()).collect();
        return Err(wrong(format!("has no {}; it has {}", variable.name(), names.join(", "))));
    }
    if CaseRecord::load_partial(store, case).await?.is_some() {
        let problem = format!(
            "has only a part of the new maps of case {}: populate-store2 is writing it, or was \
             interrupted; run it again",
            case.short()
        );
        return Err(VisError::Mismatch { url: store.location().to_string(), problem });
    }
    let level = pyramid.levels.saturating_sub(1);
    let position = MapPosition {
        path: format!("{level}/{}", variable.name()),
        case,
        size: mercator::size(level),
        band: Band::ALL.iter().position(|b| *b == band).unwrap_or_default(),
        month: step % YEAR,
        year: step / YEAR,
    };
    let values = match pyramid.format {
        ZarrVersion::V2 => read_tiles(store, &position).await?,
        ZarrVersion::V3 => read_from_shard(store, &opened.kind, &position).await?,
    };
    let reference_compat = opened.recipe.is_some_and(|recipe| recipe.reference_compat);
    Ok(Map { size: position.size, values: without_fill(values), reference_compat })
}

/// Position of a map in an array of store 2.
struct MapPosition {
    /// Path of the array.
    path: String,
    /// Case of the map.
    case: Case,
    /// Number of cells along each side.
    size: usize,
    /// Index on the band axis.
    band: usize,
    /// Index on the month axis.
    month: usize,
    /// Index on the year axis.
    year: usize,
}

/// Reads the values of a map from its tiles (Zarr v2).
async fn read_tiles(store: &Store, position: &MapPosition) -> Result<Vec<f32>, VisError> {
    let MapPosition { path, case, size, band, month, year } = position;
    let (polygon, season) = axis_indices(*case);
    let tiles = size / TILE;
    let mut values = vec![f32::NAN; size * size];
    for tile in 0..tiles * tiles {
        let (row, column) = (tile / tiles, tile % tiles);
        let key = format!("{path}/{polygon}.{band}.{season}.{month}.0.{row}.{column}");
        let (bytes, _) = store.get(&key).await?.ok_or_else(|| absent(store, &key, *case))?;
        let chunk = decode_chunk(store, &key, &bytes, YEARS * TILE * TILE)?;
        for (y, line) in chunk[year * TILE * TILE..].chunks(TILE).take(TILE).enumerate() {
            let at = (row * TILE + y) * size + column * TILE;
            values[at..at + TILE].copy_from_slice(line);
        }
    }
    Ok(values)
}

/// Reads the values of a map from the shard of its case (Zarr v3).
async fn read_from_shard(
    store: &Store,
    kind: &StoreKind,
    position: &MapPosition,
) -> Result<Vec<f32>, VisError> {
    let MapPosition { path, case, size, band, month, year } = position;
    let (polygon, season) = axis_indices(*case);
    let hierarchy = kind.hierarchy(None);
    let array = hierarchy.arrays.iter().find(|array| array.path == *path);
    let Some(array) = array else { return Err(absent(store, path, *case)) };
    let key = format!("{path}/c/{polygon}/0/{season}/0/0/0/0");
    let most = max_bytes(array.shards.iter().flatten().product());
    let object = store.get_within(&key, most).await?;
    let (bytes, _) = object.ok_or_else(|| absent(store, &key, *case))?;
    let index = [polygon as u64, 0, season as u64, 0, 0, 0, 0];
    let failed = |source| VisError::Shard { key: key.clone(), source };
    let shard = v3::decode(array, &index, bytes).map_err(failed)?;
    let years = array.shape[4];
    let at = ((band * YEAR + month) * years + year) * size * size;
    Ok(shard[at..at + size * size].to_vec())
}

/// The error for a case without an object in the store.
fn absent(store: &Store, key: &str, case: Case) -> VisError {
    let problem = format!("has no {key}: case {case} is not in it");
    VisError::Mismatch { url: store.location().to_string(), problem }
}

/// A time series of one case.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Text of the legend: polygon, month and, in store 3, radius.
    pub label: String,
    /// One value for each of the 180 months; NaN for fill.
    pub values: Vec<f32>,
}

/// Curves of a store, with the texts of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Curves {
    /// Title of the chart.
    pub title: &'static str,
    /// Label of the vertical axis, with units.
    pub axis: &'static str,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// Reads the curves of cases from store 1 or 3.
///
/// # Errors
/// The store holds maps, lacks values of a case, or cannot be read.
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
            let problem = "holds maps, no curves; leave out --series".to_owned();
            return Err(VisError::WrongLocation { url: store.location().to_string(), problem });
        }
    };
    let columns = opened.kind.columns();
    let hierarchy = opened.kind.hierarchy(None);
    let len = hierarchy.arrays.iter().find(|a| a.is_data()).map_or(0, Array::chunk_len);
    let mut curves = Vec::new();
    for &case in cases {
        let (polygon, season) = axis_indices(case);
        let name = format!("polygon {polygon}, {}", month_name(case.month().number()));
        let last = if columns > 1 { ".0" } else { "" };
        let key = format!("{array}/0.0.{season}{last}");
        let problem = || format!("has no {key}; run `dor vis finalize`");
        let missing =
            || VisError::Mismatch { url: store.location().to_string(), problem: problem() };
        let (bytes, _) = store.get(&key).await?.ok_or_else(missing)?;
        let chunk = decode_chunk(store, &key, &bytes, len)?;
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

fn decode_chunk(store: &Store, key: &str, bytes: &[u8], len: usize) -> Result<Vec<f32>, VisError> {
    chunk::decode_floats(bytes, len).map_err(|error| VisError::Mismatch {
        url: store.location().join(key).to_string(),
        problem: format!("cannot be read: {error}"),
    })
}

/// English name of a month, 1 to 12.
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
