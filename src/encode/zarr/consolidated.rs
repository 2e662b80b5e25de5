//! Reads the arrays of a store from its consolidated metadata, to distinguish kinds of stores.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Versions of the Zarr format with the name of the object that holds the consolidated metadata.
pub const CONSOLIDATED: [(u8, &str); 2] = [(2, ".zmetadata"), (3, "zarr.json")];

/// The arrays of a store.
#[derive(Debug, PartialEq, Eq)]
pub struct HierarchySummary {
    /// Version of the Zarr format, 2 or 3.
    pub version: u8,
    /// Paths of all arrays below the root.
    pub paths: BTreeSet<String>,
    /// Number of values of a chunk, by path, for the arrays of 4-byte floats; empty in version 3.
    pub floats: BTreeMap<String, usize>,
}

impl HierarchySummary {
    /// The arrays in the document with the consolidated metadata of a store; `version` is that of the
    /// Zarr format.
    pub fn of(version: u8, document: &Value) -> Self {
        let entries = document["metadata"].as_object().into_iter().flatten();
        let floats = entries.filter_map(|(key, array)| {
            let path = key.strip_suffix("/.zarray").filter(|_| array["dtype"] == "<f4")?;
            let lengths = array["chunks"].as_array()?.iter();
            let mut floats = lengths.map(|n| usize::try_from(n.as_u64()?).ok());
            let floats = floats.try_fold(1_usize, |product, n| product.checked_mul(n?))?;
            Some((path.to_owned(), floats))
        });
        let floats = if version == 2 { floats.collect() } else { BTreeMap::new() };
        Self { version, paths: paths(version, document), floats }
    }

    /// Whether the store is a pyramid of levels, in which each case has its own chunks.
    pub fn is_pyramid(&self) -> bool {
        self.paths.iter().any(|path| path.contains('/'))
    }

    /// The roots of all stores among the keys of objects: each is empty or ends with a slash; nested
    /// roots are left out.
    pub fn roots<'a>(keys: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        let root = |key: &'a str| {
            let name = key.rsplit('/').next()?;
            let root = key
                .strip_suffix(name)
                .filter(|_| CONSOLIDATED.iter().any(|(_, known)| *known == name));
            root.map(str::to_owned)
        };
        let all: BTreeSet<String> = keys.filter_map(root).collect();
        let is_nested = |root: &&String| {
            all.iter().any(|other| other != *root && root.starts_with(other.as_str()))
        };
        let outermost = all.iter().filter(|root| !is_nested(root));
        outermost.cloned().collect()
    }

    /// Whether the stores are of different kinds: in their version, or each has arrays that the other
    /// lacks and they are not both pyramids.
    pub fn is_other_kind(&self, other: &Self) -> bool {
        let lacks = |a: &Self, b: &Self| a.paths.difference(&b.paths).next().is_some();
        let differ = lacks(self, other) && lacks(other, self);
        self.version != other.version || differ && !(self.is_pyramid() && other.is_pyramid())
    }

    /// A description of the store for messages, with up to three arrays.
    pub fn describe(&self) -> String {
        let mut paths: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        // The names of data have capital letters, those of coordinates have none.
        paths.sort_by_key(|path| !path.contains(|c: char| c.is_ascii_uppercase()));
        let shown = paths.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = if paths.len() > 3 { ", ..." } else { "" };
        format!("a Zarr v{} store of {shown}{more}", self.version)
    }
}

fn paths(version: u8, document: &Value) -> BTreeSet<String> {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    match version {
        2 => {
            let keys = object(&document["metadata"]).into_iter().map(|(key, _)| key);
            keys.filter_map(|key| Some(key.strip_suffix("/.zarray")?.to_owned())).collect()
        }
        _ => {
            let nodes = object(&document["consolidated_metadata"]["metadata"]).into_iter();
            let arrays = nodes.filter(|(_, node)| node["node_type"] == "array");
            arrays.map(|(path, _)| path).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stores_are_distinguished_by_their_arrays() {
        let of = |names: &[&str]| {
            let metadata: serde_json::Map<_, _> =
                names.iter().map(|name| (format!("{name}/.zarray"), json!({}))).collect();
            HierarchySummary::of(2, &json!({ "metadata": metadata }))
        };
        let [one, three] = [of(&["time", "efficiency"]), of(&["time", "uptake"])];
        let [maps, others] = [of(&["0/PH", "1/PH"]), of(&["0/DIC"])];
        assert!(one.is_other_kind(&three) && one.is_other_kind(&maps));
        assert!(!maps.is_other_kind(&others) && !one.is_other_kind(&of(&["time"])));
        let v3 = json!({ "consolidated_metadata": { "metadata": {
            "0": { "node_type": "group" }, "0/PH": { "node_type": "array" } } } });
        let v3 = HierarchySummary::of(3, &v3);
        assert_eq!(v3.paths, BTreeSet::from(["0/PH".to_owned()]));
        assert!(maps.is_other_kind(&v3));
        let of_floats =
            json!({ "metadata": { "a/.zarray": { "dtype": "<f4", "chunks": [2, 3] } } });
        assert_eq!(
            HierarchySummary::of(2, &of_floats).floats,
            BTreeMap::from([("a".to_owned(), 6)])
        );
    }

    #[test]
    fn a_group_inside_a_store_is_not_a_root() {
        let keys = ["s1/.zmetadata", "s2/zarr.json", "s2/0/zarr.json", "a.nc"];
        let roots = HierarchySummary::roots(keys.into_iter());
        assert_eq!(roots, BTreeSet::from(["s1/".to_owned(), "s2/".to_owned()]));
    }
}
