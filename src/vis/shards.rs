//! Buffers for the maps of a case in Zarr v3, where one shard holds all chunks of a variable and level.

use super::StoreKind;
use super::regridded::RegriddedMonth;
use super::schema::{PyramidOptions, YEAR};
use crate::encode::zarr::{Array, ZarrVersion};
use crate::model::atlas::{Band, FILL, YEARS};

/// All maps of a case in memory, because a shard can only be encoded as a whole.
pub(super) struct WholeMaps {
    /// The arrays of the store in order of level and variable, each with the values of its shard.
    pub arrays: Vec<(Array, Vec<f32>)>,
}

impl WholeMaps {
    /// Creates maps of fill; none in Zarr v2.
    pub fn new(pyramid: &PyramidOptions) -> Self {
        let filled = |(array, len)| (array, vec![FILL; len]);
        Self { arrays: Self::sharded_arrays(pyramid).map(filled).collect() }
    }

    /// Memory of the maps, bytes; 0 in Zarr v2.
    pub fn bytes(pyramid: &PyramidOptions) -> u64 {
        Self::sharded_arrays(pyramid).map(|(_, len)| 4 * len as u64).sum()
    }

    /// The arrays with shards, each with the number of values in a shard; none in Zarr v2.
    fn sharded_arrays(pyramid: &PyramidOptions) -> impl Iterator<Item = (Array, usize)> {
        let hierarchy = (pyramid.format == ZarrVersion::V3)
            .then(|| StoreKind::Store2(pyramid.clone()).hierarchy(None).arrays);
        let arrays = hierarchy.into_iter().flatten().filter(Array::is_data);
        arrays.map(|array| {
            let len = array.shards.iter().flatten().product();
            (array, len)
        })
    }

    /// Copies the maps of one month of 15 years into the shards. `month_of_year` is 0 to 11, counted from
    /// the intervention.
    pub fn insert(&mut self, years: &[Option<RegriddedMonth>], month_of_year: usize) {
        let fields = years.iter().flatten().next().map_or(0, |month| month.maps[0].len());
        let variables = fields / Band::ALL.len();
        for (n, (_, values)) in self.arrays.iter_mut().enumerate() {
            let (level, variable) = (n / variables.max(1), n % variables.max(1));
            for (year, month) in years.iter().enumerate() {
                let Some(month) = month else { continue };
                for band in 0..Band::ALL.len() {
                    let map = &month.maps[level][variable * Band::ALL.len() + band];
                    let at = ((band * YEAR + month_of_year) * YEARS + year) * map.len();
                    values[at..at + map.len()].copy_from_slice(map);
                }
            }
        }
    }
}
