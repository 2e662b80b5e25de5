//! The maps of a case in memory, where its chunks lie together in shards (Zarr v3).

use super::StoreKind;
use super::regridded::RegriddedMonth;
use super::schema::{PyramidOptions, YEAR};
use crate::encode::zarr::{Array, ZarrVersion};
use crate::model::atlas::{Band, FILL, YEARS};

/// All maps of a case in memory: what a shard needs.
pub(super) struct WholeMaps {
    pub arrays: Vec<(Array, Vec<f32>)>,
}

impl WholeMaps {
    pub fn new(pyramid: &PyramidOptions) -> Self {
        let filled = |(array, len)| (array, vec![FILL; len]);
        Self { arrays: Self::parts(pyramid).map(filled).collect() }
    }

    /// Memory that the maps take.
    pub fn bytes(pyramid: &PyramidOptions) -> u64 {
        Self::parts(pyramid).map(|(_, len)| 4 * len as u64).sum()
    }

    /// The arrays that have shards, with the numbers in one.
    fn parts(pyramid: &PyramidOptions) -> impl Iterator<Item = (Array, usize)> {
        let hierarchy = (pyramid.format == ZarrVersion::V3)
            .then(|| StoreKind::Store2(pyramid.clone()).hierarchy(None).arrays);
        let arrays = hierarchy.into_iter().flatten().filter(Array::is_data);
        arrays.map(|array| {
            let len = array.shards.iter().flatten().product();
            (array, len)
        })
    }

    /// Takes over a month of 15 years.
    pub fn take(&mut self, years: &[Option<RegriddedMonth>], of_year: usize) {
        let fields = years.iter().flatten().next().map_or(0, |month| month.maps[0].len());
        let variables = fields / Band::ALL.len();
        for (n, (_, values)) in self.arrays.iter_mut().enumerate() {
            let (level, variable) = (n / variables.max(1), n % variables.max(1));
            for (year, month) in years.iter().enumerate() {
                let Some(month) = month else { continue };
                for band in 0..Band::ALL.len() {
                    let map = &month.maps[level][variable * Band::ALL.len() + band];
                    let at = ((band * YEAR + of_year) * YEARS + year) * map.len();
                    values[at..at + map.len()].copy_from_slice(map);
                }
            }
        }
    }
}
