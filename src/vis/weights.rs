//! Regridding weights of all levels: computation, and storage in the layout of xESMF.
//!
//! The layout has one Zarr group for each level, with the arrays `S` (weight), `row` (point of the map)
//! and `col` (point of the ocean grid). Points are counted from 1.

use serde_json::{Map, json};

use super::VisError;
use super::zarr::{self, numbers};
use crate::encode::zarr::{Array, Content, Hierarchy, StoreObject, v2, v3};
use crate::model::Grid;
use crate::regrid::{BilinearStencil, Weights, bilinear, mercator};
use crate::store::Store;

/// Computes the weights of the first `levels` levels.
pub fn compute(grid: &Grid, levels: u8) -> Vec<Weights> {
    (0..levels).map(|level| bilinear::bilinear(grid, level)).collect()
}

/// Reads the weights of the first `levels` levels; `None` when the store is empty.
///
/// # Errors
/// [`VisError::Zarr`] when the store holds something else, or weights of another grid.
pub async fn load(
    store: &Store,
    levels: u8,
    grid: &Grid,
) -> Result<Option<Vec<Weights>>, VisError> {
    let names = [v2::CONSOLIDATED, ".zgroup", v3::METADATA];
    let mut exists = false;
    for name in names {
        exists = exists || store.head(name).await?.is_some();
    }
    if !exists {
        let files = if store.can_list() { store.list("").await?.len() } else { 0 };
        let problem =
            format!("it holds {files} other files, and no weights; choose an empty folder");
        let url = store.location().to_string();
        return if files == 0 { Ok(None) } else { Err(VisError::Zarr { url, problem }) };
    }
    // `save` writes the consolidated metadata last: without it other objects can be missing.
    let is_complete = store.head(v2::CONSOLIDATED).await?.is_some();
    let failed = |error: VisError| match is_complete {
        true => error,
        false => VisError::Zarr {
            url: store.location().to_string(),
            problem: format!("{error}; remove the store, and run again to compute it"),
        },
    };
    let storage = store.zarr("", zarr::longest(max_entries(levels.saturating_sub(1)))).await?;
    let mut weights = Vec::new();
    for level in 0..levels {
        let url = |name: &str| store.location().join(&format!("{level}/{name}")).to_string();
        let path = |name: &str| format!("/{level}/{name}");
        let most = max_entries(level);
        let read = async |name: &str| {
            numbers(&storage, &path(name), url(name), 0..=most).await.map_err(failed)
        };
        let (s, row, col) = (read("S").await?, read("row").await?, read("col").await?);
        let assembled = assemble(level, grid.tlat.len(), &s, &row, &col);
        let verified = assembled.and_then(|weights| verify(weights, grid));
        weights.push(verified.map_err(|problem| VisError::Zarr { url: url("S"), problem })?);
    }
    Ok(Some(weights))
}

/// Memory to load the weights of `levels` levels, bytes: the three arrays of the largest level, and the
/// memory to read one of them.
pub fn memory(levels: u8) -> u64 {
    let most = max_entries(levels.saturating_sub(1));
    zarr::memory(most).saturating_add(3 * 8 * most as u64)
}

/// Largest number of entries of a level: four for each point of the map.
fn max_entries(level: u8) -> usize {
    mercator::size(level).pow(2).saturating_mul(4)
}

/// Builds the weights of a level from its arrays; the error is the text of a message.
fn assemble(
    level: u8,
    points: usize,
    s: &[f64],
    row: &[f64],
    col: &[f64],
) -> Result<Weights, String> {
    if s.len() != row.len() || s.len() != col.len() {
        return Err("S, row and col have different lengths".to_owned());
    }
    let targets = mercator::size(level).pow(2);
    let mut sources: Vec<Option<BilinearStencil>> = vec![None; targets];
    let mut counts = vec![0; targets];
    let index = |value: f64, len: usize, name: &str| {
        let inside = value >= 1.0 && value <= len as f64 && value.fract() == 0.0;
        let outside = || format!("{name} has {value}, outside 1 to {len}: made for another grid");
        if inside { Ok(value as usize - 1) } else { Err(outside()) }
    };
    for ((&s, &row), &col) in s.iter().zip(row).zip(col) {
        let (target, source) = (index(row, targets, "row")?, index(col, points, "col")?);
        let n: usize = counts[target];
        let empty = || BilinearStencil { index: [source as u32; 4], weight: [0.0; 4] };
        let entry = sources[target].get_or_insert_with(empty);
        let (Some(index), Some(weight)) = (entry.index.get_mut(n), entry.weight.get_mut(n)) else {
            return Err(format!("point {} of level {level} has over 4 sources", target + 1));
        };
        (*index, *weight) = (source as u32, s);
        counts[target] += 1;
    }
    Ok(Weights::new(level, points, sources))
}

/// Checks that weights are those of bilinear interpolation on the grid; the error is the text of a
/// message.
fn verify(weights: Weights, grid: &Grid) -> Result<Weights, String> {
    let level = weights.level();
    if weights.iter().next().is_none() {
        return Err(format!("it has no weights for level {level}"));
    }
    match weights.first_invalid(grid) {
        None => Ok(weights),
        Some(target) => Err(format!(
            "the weights of point {} of level {level} are not those of this grid; remove the \
             store, and run again to compute it",
            target + 1
        )),
    }
}

/// Writes the weights in the layout of xESMF, the consolidated metadata last.
pub async fn save(store: &Store, weights: &[Weights]) -> Result<(), VisError> {
    let mut arrays = Vec::new();
    for weights in weights {
        let path = |name: &str| format!("{}/{name}", weights.level());
        let (mut s, mut row, mut col) = (Vec::new(), Vec::new(), Vec::new());
        for (target, source) in weights.iter() {
            for (&index, &weight) in source.index.iter().zip(&source.weight) {
                if weight != 0.0 {
                    s.push(weight);
                    row.push(target as i32 + 1);
                    col.push(index as i32 + 1);
                }
            }
        }
        for (name, content) in [
            ("S", Content::Doubles(s)),
            ("row", Content::Integers(row)),
            ("col", Content::Integers(col)),
        ] {
            arrays.push(Array::coordinate(path(name), "n_s", content));
        }
    }
    let sizes: Vec<_> = weights
        .iter()
        .map(|w| json!({"level": w.level(), "n_in": w.points(), "n_out": w.targets()}))
        .collect();
    let mut attributes = Map::new();
    attributes.insert("regrid_method".to_owned(), "bilinear".into());
    attributes.insert("levels".to_owned(), sizes.into());
    let groups = weights.iter().map(|w| w.level().to_string()).collect();
    let hierarchy = Hierarchy { attributes, groups, arrays };
    let mut objects = v2::metadata(&hierarchy);
    objects.extend(v2::coordinates(&hierarchy));
    objects.push(v2::consolidated(&hierarchy));
    for StoreObject { key, bytes } in objects {
        store.put(&key, bytes).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let (nlat, nlon) = (20, 24);
        let tlat = (0..nlat * nlon).map(|n| -75.0 + 150.0 * (n / nlon) as f64 / 19.0).collect();
        let tlong = (0..nlat * nlon).map(|n| 15.0 * (n % nlon) as f64).collect();
        Grid { nlat, nlon, tlat, tlong }
    }

    #[tokio::test]
    async fn weights_are_read_as_written() {
        let store = Store::memory();
        assert!(load(&store, 2, &grid()).await.unwrap().is_none());
        let computed = compute(&grid(), 2);
        save(&store, &computed).await.unwrap();
        let read = load(&store, 2, &grid()).await.unwrap().unwrap();
        for (read, computed) in read.iter().zip(&computed) {
            let field: Vec<f64> = (0..480).map(f64::from).collect();
            let apply = |weights: &Weights| {
                let mut out = vec![f32::NAN; weights.targets()];
                weights.apply(&field, |at, value| out[at] = value);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(apply(read), apply(computed));
        }
        let mut other = grid();
        other.tlong.iter_mut().for_each(|lon| *lon += 1.0);
        let error = load(&store, 2, &other).await.unwrap_err().to_string();
        assert!(error.contains("not those of this grid"), "{error}");
        let small = Grid { nlat: 4, nlon: 25, tlat: vec![0.0; 100], tlong: vec![0.0; 100] };
        let error = load(&store, 2, &small).await.unwrap_err().to_string();
        assert!(error.contains("made for another grid"), "{error}");
        store.delete("1/S/0").await.unwrap();
        let error = load(&store, 2, &grid()).await.unwrap_err().to_string();
        assert!(error.contains("1/S") && error.contains("not those of this grid"), "{error}");
        store.delete(".zgroup").await.unwrap();
        store.delete(".zmetadata").await.unwrap();
        let error = load(&store, 2, &grid()).await.unwrap_err().to_string();
        assert!(error.contains("other files"), "{error}");
        // A store as a killed process leaves it.
        save(&store, &computed).await.unwrap();
        store.delete(".zmetadata").await.unwrap();
        store.delete("1/S/.zarray").await.unwrap();
        let error = load(&store, 2, &grid()).await.unwrap_err().to_string();
        assert!(error.contains("1/S") && error.contains("remove the store"), "{error}");
        save(&store, &computed).await.unwrap();
        let error = load(&store, 3, &grid()).await.unwrap_err().to_string();
        assert!(error.contains("2/S"), "{error}");
    }
}
