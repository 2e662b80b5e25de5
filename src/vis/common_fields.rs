//! Comparison of the months of a case with each other.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Mutex, PoisonError};

use super::VisError;

/// What all months of a case have in common: the points of each field that have a value, because the model has
/// the same ocean in each month, and the grid. Of each name the first one is kept, with the URL of its file.
#[derive(Debug, Default)]
pub struct CommonFields {
    positions: FirstOfEach<Fingerprint>,
    grid: FirstOfEach<Vec<f64>>,
}

type FirstOfEach<T> = Mutex<BTreeMap<&'static str, (T, String)>>;

/// The number of values of a field that are not NaN, and a hash of their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    count: usize,
    hash: u64,
}

impl Fingerprint {
    /// Computes the fingerprint of a field from whether each of its values is NaN.
    pub fn of_positions(is_nan: impl Iterator<Item = bool>) -> Self {
        let (mut count, mut word, mut bits, mut hash) = (0, 0, 0, DefaultHasher::new());
        for is_nan in is_nan {
            count += usize::from(!is_nan);
            word = word << 1 | u64::from(is_nan);
            bits += 1;
            if bits == u64::BITS {
                hash.write_u64(word);
                (word, bits) = (0, 0);
            }
        }
        hash.write_u64(word);
        Self { count, hash: hash.finish() }
    }
}

impl CommonFields {
    /// Compares the positions of the values of a field with those of the other months.
    ///
    /// # Errors
    /// [`VisError::Mismatch`] when the field has no value, or values at other points than in another month.
    pub fn check_field(
        &self,
        name: &'static str,
        found: Fingerprint,
        url: &str,
    ) -> Result<(), VisError> {
        let mismatch = |problem| Err(VisError::Mismatch { url: url.to_owned(), problem });
        if found.count == 0 {
            return mismatch(format!("has no value in {name}"));
        }
        let mut first = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let (other, file) = first.entry(name).or_insert_with(|| (found, url.to_owned()));
        match *other == found {
            true => Ok(()),
            false => mismatch(format!(
                "has {} values in {name}, and {file} has {} at other points: values of the ocean are missing or \
                 displaced in one of them",
                found.count, other.count
            )),
        }
    }

    /// Compares the values of a variable of the grid with those of the other months. A point that is NaN in one of
    /// them is passed over: the model leaves out blocks without ocean.
    ///
    /// # Errors
    /// [`VisError::Mismatch`] when another month has other values.
    pub fn check_grid_values(
        &self,
        name: &'static str,
        values: &[f64],
        url: &str,
    ) -> Result<(), VisError> {
        let mut first = self.grid.lock().unwrap_or_else(PoisonError::into_inner);
        let (other, file) = first.entry(name).or_insert_with(|| (values.to_vec(), url.to_owned()));
        let differs = |(a, b): (&f64, &f64)| a != b && !a.is_nan() && !b.is_nan();
        if other.len() == values.len() && !values.iter().zip(other.iter()).any(differs) {
            return Ok(());
        }
        let problem = format!("has other values of {name} than {file}");
        Err(VisError::Mismatch { url: url.to_owned(), problem })
    }
}

/// Checks that the fields of the experiment and of the control have values at the same points.
///
/// # Errors
/// [`VisError::Mismatch`].
pub fn check_pair(
    names: (&str, &str),
    [experiment, control]: [Fingerprint; 2],
    url: &str,
) -> Result<(), VisError> {
    if experiment == control {
        return Ok(());
    }
    let problem = format!(
        "has {} values in {} and {} in {}, at different points: both have values in the whole ocean",
        experiment.count, names.0, control.count, names.1
    );
    Err(VisError::Mismatch { url: url.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displaced_values_differ_from_the_same_number_elsewhere() {
        let positions = |nan: usize| Fingerprint::of_positions((0..130).map(move |at| at == nan));
        assert_eq!(positions(7), positions(7));
        assert_eq!(positions(7).count, positions(129).count);
        assert_ne!(positions(7), positions(129));
        assert_ne!(positions(129), positions(128));
    }
}
