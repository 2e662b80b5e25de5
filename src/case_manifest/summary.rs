//! What the records of all products have in common: the objects that belong to a result, and what tells
//! whether one result is poorer than another.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::Error;
use serde_json::Value;

use super::FORMAT;
use crate::model::Parts;
use crate::store::is_public;

/// A record of any product.
#[derive(Clone, Debug, Deserialize)]
pub struct ManifestSummary {
    #[serde(default)]
    format: u32,
    /// The rules that the result was made under.
    pub recipe: Value,
    /// Bytes of the parts of which it has the MD5s.
    #[serde(default)]
    pub part_size: u64,
    /// Its own objects; none where cases share them.
    #[serde(default)]
    pub files: Vec<ManifestObject>,
    /// Which map store: `store1`, `store2` or `store3`; empty for research-grade files.
    #[serde(default)]
    pub store: String,
    /// Cases whose values are in the shared chunks of a map store.
    #[serde(default)]
    pub cases: Vec<String>,
    #[serde(default)]
    missing_months: Vec<String>,
    #[serde(default)]
    settings: Value,
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
}

/// What a result has that another one lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The coordinates of the full grid file.
    Grid,
    /// So many months.
    Months(usize),
    /// So many files.
    Files(usize),
}

impl ManifestSummary {
    /// Reads a record.
    ///
    /// # Errors
    ///
    /// It is not JSON of this form, has another format, names an object that is never published, or has MD5s
    /// of other parts than the object has.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = serde_json::from_slice(bytes)?;
        let refused = |problem: String| Err(serde_json::Error::custom(problem));
        if record.format != FORMAT {
            return refused(format!(
                "it has format {}, this program knows {FORMAT}",
                record.format
            ));
        }
        let is_path = |key: &str| !key.split('/').any(|part| ["", ".", ".."].contains(&part));
        let is_odd = |file: &&ManifestObject| !is_path(&file.key) || !is_public(&file.key);
        if let Some(ManifestObject { key, .. }) = record.files.iter().find(is_odd) {
            return refused(format!("it names {key:?}, which nobody would publish"));
        }
        let is_unfit = |file: &&ManifestObject| !file.md5.fit(record.part_size, file.size);
        if let Some(ManifestObject { key, md5, .. }) = record.files.iter().find(is_unfit) {
            let number = md5.digests().len();
            return refused(format!("of {key} it has {number} MD5s, and there are other parts"));
        }
        Ok(record)
    }

    /// The same of a record that is only looked at: `None` when it is of something else.
    pub fn parse_any(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What this result has that `other`, of the same case, lacks; the worst of it.
    pub fn loss(&self, other: &Self) -> Option<Loss> {
        if self.has_grid() && !other.has_grid() {
            return Some(Loss::Grid);
        }
        let had = |month: &&String| !self.missing_months.contains(month);
        let months = other.missing_months.iter().filter(had).count();
        let kept: BTreeSet<&str> = other.files.iter().map(|file| file.key.as_str()).collect();
        let files = self.files.iter().filter(|file| !kept.contains(file.key.as_str())).count();
        match (months, files) {
            (0, 0) => None,
            (0, files) => Some(Loss::Files(files)),
            (months, _) => Some(Loss::Months(months)),
        }
    }

    fn has_grid(&self) -> bool {
        [&self.recipe, &self.settings].iter().any(|of| of["grid_sha256"].is_string())
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
    fn the_worst_loss_is_told() {
        let rich = summary(Some("1"), &[], &["a", "b"]);
        assert_eq!(rich.loss(&rich), None);
        assert_eq!(rich.loss(&summary(None, &["0001-01"], &["a"])), Some(Loss::Grid));
        assert_eq!(rich.loss(&summary(Some("2"), &["0001-01"], &["a"])), Some(Loss::Months(1)));
        assert_eq!(rich.loss(&summary(Some("1"), &[], &["a"])), Some(Loss::Files(1)));
        assert_eq!(summary(None, &["0001-01"], &["a"]).loss(&rich), None);
    }
}
