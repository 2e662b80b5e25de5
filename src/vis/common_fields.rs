//! Comparison of the months of a case with each other.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::VisError;

/// What all months of a case have in common: the number of points with values of each field, because the
/// model has the same ocean in each month, and the thickness of the layers.
#[derive(Debug, Default)]
pub struct CommonFields(Mutex<BTreeMap<&'static str, (Vec<f64>, String)>>);

impl CommonFields {
    /// Compares a field with that of the other months. `count` is the number of its values that are not NaN.
    ///
    /// # Errors
    /// [`VisError::Mismatch`] when the field has no value, or another number of values than in another month.
    pub fn check_field(&self, name: &'static str, count: usize, url: &str) -> Result<(), VisError> {
        let mismatch = |problem| Err(VisError::Mismatch { url: url.to_owned(), problem });
        if count == 0 {
            return mismatch(format!("has no value in {name}"));
        }
        match self.other(name, vec![count as f64], url) {
            None => Ok(()),
            Some((other, file)) => mismatch(format!(
                "has {count} values in {name}, and {file} has {}: values of the ocean are missing in one of \
                 them",
                other.first().copied().unwrap_or_default()
            )),
        }
    }

    /// Compares the thickness of the layers, cm, with that of the other months.
    ///
    /// # Errors
    /// [`VisError::Mismatch`] when another month has another thickness.
    pub fn check_thickness(&self, thickness: &[f64], url: &str) -> Result<(), VisError> {
        match self.other("dz", thickness.to_vec(), url) {
            None => Ok(()),
            Some((_, file)) => {
                let problem = format!("has another thickness of layers (dz) than {file}");
                Err(VisError::Mismatch { url: url.to_owned(), problem })
            }
        }
    }

    /// The value of another month that differs, with the URL of its file. The first value of a name is kept.
    fn other(&self, name: &'static str, found: Vec<f64>, url: &str) -> Option<(Vec<f64>, String)> {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = first.entry(name).or_insert_with(|| (found.clone(), url.to_owned()));
        (first.0 != found).then(|| first.clone())
    }
}
