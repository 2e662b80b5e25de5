//! The fields that the records of all products have: the objects of a result, and the fields by which a
//! poorer result is recognized.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::Error;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::FORMAT;
use super::difference::shape_text;
use crate::model::{ETag, Parts, hex};
use crate::store::is_public;

/// The common fields of a record of any product.
#[derive(Clone, Debug, Deserialize)]
pub struct ManifestSummary {
    #[serde(default)]
    format: u32,
    /// Rules of the conversion.
    pub recipe: Value,
    /// Size in bytes of the parts whose MD5s are recorded.
    #[serde(default)]
    pub part_size: u64,
    /// Objects of this result alone. Empty where cases share all objects.
    #[serde(default)]
    pub files: Vec<ManifestObject>,
    /// The map store: `store1`, `store2` or `store3`; empty for research-grade files.
    #[serde(default)]
    pub store: String,
    /// Names of the cases whose values are in the shared chunks of a map store.
    #[serde(default)]
    pub cases: Vec<String>,
    /// Of the record that the cases of store 1 or 3 share: SHA-256 of the values of each case, as
    /// [`values_sha256`] computes it.
    #[serde(default)]
    pub values_sha256: BTreeMap<String, String>,
    /// Number of points of the model grid, `[nlat, nlon]`, of research-grade files.
    #[serde(default)]
    grid_shape: Option<[usize; 2]>,
    #[serde(default)]
    values: CaseValues,
    #[serde(default)]
    missing_months: Vec<String>,
    #[serde(default)]
    settings: Value,
    /// Inputs of the result of a case in a map store.
    #[serde(default)]
    inputs: Vec<Input>,
}

/// Values of a case of store 1 or 3, by month and column; `None` for fill.
pub type CaseValues = Vec<Vec<Option<f32>>>;

/// SHA-256 of the values of a case, in hexadecimal.
pub fn values_sha256(values: &CaseValues) -> String {
    let mut digest = Sha256::new();
    for row in values {
        for value in row {
            // No value has the bytes of the NaN that stands for fill.
            digest.update(value.unwrap_or(f32::NAN).to_le_bytes());
        }
        digest.update(b"\n");
    }
    hex(&digest.finalize())
}

/// An object that a record names.
#[derive(Clone, Debug, Deserialize)]
pub struct ManifestObject {
    /// Key, relative to the output location or the root of the map store.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// MD5 of each part.
    pub md5: Parts,
    /// The raw file of a research-grade file.
    #[serde(default)]
    input: Option<Input>,
}

/// An input of a result.
#[derive(Clone, Debug, Deserialize)]
struct Input {
    key: String,
    modified: String,
    #[serde(default)]
    sha256: Option<String>,
}

/// The most important part of a result that another result of the same case lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The coordinates of the full grid file.
    Grid,
    /// The names and checksums of the input files.
    Inputs,
    /// The number of points of the model grid.
    Shape,
    /// A number of months.
    Months(usize),
    /// A number of files.
    Files(usize),
}

impl ManifestSummary {
    /// Parses and checks a record.
    ///
    /// # Errors
    ///
    /// The bytes are not a record, the format is another one, a key is never published, or the number of MD5s
    /// does not match the size of an object.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = serde_json::from_slice(bytes)?;
        let refused = |problem: String| Err(serde_json::Error::custom(problem));
        if record.format != FORMAT {
            return refused(format!(
                "it has format {}, this program reads {FORMAT}",
                record.format
            ));
        }
        let is_path = |key: &str| !key.split('/').any(|part| ["", ".", ".."].contains(&part));
        let is_invalid = |file: &&ManifestObject| !is_path(&file.key) || !is_public(&file.key);
        if let Some(ManifestObject { key, .. }) = record.files.iter().find(is_invalid) {
            return refused(format!("it has the invalid key {key:?}"));
        }
        let does_not_fit = |file: &&ManifestObject| !file.md5.fit(record.part_size, file.size);
        if let Some(ManifestObject { key, size, md5, .. }) = record.files.iter().find(does_not_fit)
        {
            let (number, part_size) = (md5.digests().len(), record.part_size);
            return refused(format!(
                "it has {number} MD5s of {key}, which do not match {size} bytes in parts of {part_size}"
            ));
        }
        Ok(record)
    }

    /// Parses a record without checking its format and its objects. `None`: it is not a record.
    pub fn parse_any(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The most important part of this result that `other`, of the same case, lacks.
    pub fn loss(&self, other: &Self) -> Option<Loss> {
        if self.has_grid() && !other.has_grid() {
            return Some(Loss::Grid);
        }
        if !self.is_adopted() && other.is_adopted() {
            return Some(Loss::Inputs);
        }
        if self.grid_shape().zip(other.grid_shape()).is_some_and(|(own, other)| own != other) {
            return Some(Loss::Shape);
        }
        let has_month = |month: &&String| !self.missing_months.contains(month);
        let months = other.missing_months.iter().filter(has_month).count();
        let kept: BTreeSet<&str> = other.files.iter().map(|file| file.key.as_str()).collect();
        let files = self.files.iter().filter(|file| !kept.contains(file.key.as_str())).count();
        match (months, files) {
            (0, 0) => None,
            (0, files) => Some(Loss::Files(files)),
            (months, _) => Some(Loss::Months(months)),
        }
    }

    /// A checksum of the result: its settings, months, files and values, without the times of its inputs.
    pub fn result_etag(&self) -> ETag {
        let mut settings = self.settings.clone();
        if let Some(ssh) = settings.get_mut("ssh").and_then(Value::as_object_mut) {
            ssh.remove("modified");
        }
        // Research-grade files have the time of their raw file in `history`, so that their own bytes differ.
        let content = |file: &ManifestObject| match file.input.as_ref().map(|input| &input.sha256) {
            Some(Some(sha256)) => sha256.clone(),
            _ => file.md5.etag().to_string(),
        };
        let files: Vec<_> = self.files.iter().map(|file| (&file.key, content(file))).collect();
        let result = (&self.recipe, settings, &self.missing_months, files, &self.values);
        // Text and numbers always have a JSON form.
        Parts::of(&serde_json::to_vec(&result).unwrap_or_default(), u64::MAX).etag()
    }

    /// An input of which this result has a newer version with other content than `other`: its key, and the
    /// times of both versions. Where a checksum is not recorded, the content counts as another one.
    pub fn newer_input(&self, other: &Self) -> Option<(String, [DateTime<Utc>; 2])> {
        fn inputs(summary: &ManifestSummary) -> BTreeMap<&str, &Input> {
            let of_files = summary.files.iter().filter_map(|file| file.input.as_ref());
            of_files.chain(&summary.inputs).map(|input| (&*input.key, input)).collect()
        }
        let (own, others) = (inputs(self), inputs(other));
        own.into_iter().find_map(|(key, own)| {
            let other = others.get(key)?;
            let times = [own.modified.parse().ok()?, other.modified.parse().ok()?];
            let is_same = own.sha256.is_some() && own.sha256 == other.sha256;
            (!is_same && times[0] > times[1]).then(|| (key.to_owned(), times))
        })
    }

    /// SHA-256 of the values of a case of store 1 or 3, in hexadecimal.
    pub fn own_values_sha256(&self) -> String {
        values_sha256(&self.values)
    }

    /// Number of points of the model grid, for messages.
    pub fn shape_text(&self) -> String {
        self.grid_shape().map(shape_text).unwrap_or_default()
    }

    /// Number of points of the model grid: map stores have it in `settings`.
    fn grid_shape(&self) -> Option<[usize; 2]> {
        self.grid_shape.or_else(|| serde_json::from_value(self.settings["grid_shape"].clone()).ok())
    }

    /// Whether the record was made from values in the store, without their inputs.
    fn is_adopted(&self) -> bool {
        self.settings["adopted"] == true
    }

    /// Whether a grid file was used: research-grade records have it in `recipe`, map stores in `settings`.
    fn has_grid(&self) -> bool {
        [&self.recipe, &self.settings].iter().any(|fields| fields["grid_sha256"].is_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(grid: Option<&str>, missing: &[&str], files: &[&str]) -> ManifestSummary {
        let file = |key: &&str| json!({ "key": key, "size": 0, "md5": Parts::of(&[], 1) });
        let files: Vec<Value> = files.iter().map(file).collect();
        let recipe = json!({ "grid_sha256": grid });
        let record = json!({ "format": FORMAT, "recipe": recipe, "missing_months": missing,
            "part_size": 1, "files": files });
        ManifestSummary::parse(record.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_most_important_loss_is_returned() {
        let rich = summary(Some("1"), &[], &["a", "b"]);
        assert_eq!(rich.loss(&rich), None);
        assert_eq!(rich.loss(&summary(None, &["0001-01"], &["a"])), Some(Loss::Grid));
        assert_eq!(rich.loss(&summary(Some("2"), &["0001-01"], &["a"])), Some(Loss::Months(1)));
        assert_eq!(rich.loss(&summary(Some("1"), &[], &["a"])), Some(Loss::Files(1)));
        assert_eq!(summary(None, &["0001-01"], &["a"]).loss(&rich), None);
    }
}
