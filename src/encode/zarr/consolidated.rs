//! The arrays of a Zarr hierarchy, by which stores are told apart: as consolidated metadata names them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Names of the objects that hold consolidated metadata, with the version of the Zarr format.
pub const CONSOLIDATED: [(u8, &str); 2] = [(2, ".zmetadata"), (3, "zarr.json")];

/// The arrays of a hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub struct HierarchySummary {
    /// Version of the Zarr format.
    pub version: u8,
    /// Their paths below the root.
    pub paths: BTreeSet<String>,
    /// Values of a chunk, of arrays of 4-byte floats in version 2.
    pub floats: BTreeMap<String, usize>,
}

impl HierarchySummary {
    /// The arrays that a consolidated metadata document of this version of Zarr names; of version 3 with the
    /// metadata of its root group.
    pub fn of(version: u8, document: &Value) -> Self {
        let entries = document["metadata"].as_object().into_iter().flatten();
        let floats = entries.filter_map(|(key, array)| {
            let path = key.strip_suffix("/.zarray").filter(|_| array["dtype"] == "<f4")?;
            let lengths = array["chunks"].as_array()?.iter();
            let mut floats = lengths.map(|n| usize::try_from(n.as_u64()?).ok());
            let floats = floats.try_fold(1_usize, |all, n| all.checked_mul(n?))?;
            Some((path.to_owned(), floats))
        });
        let floats = if version == 2 { floats.collect() } else { BTreeMap::new() };
        Self { version, paths: paths(version, document), floats }
    }

    /// Whether cases have chunks of their own: in a pyramid of levels.
    pub fn is_pyramid(&self) -> bool {
        self.paths.iter().any(|path| path.contains('/'))
    }

    /// Roots of hierarchies among keys, each empty or with a slash at its end; of nested ones the outermost.
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

    /// Whether one of the two is of another kind: each has arrays that the other lacks, and not both are
    /// pyramids of levels.
    pub fn is_other_kind(&self, other: &Self) -> bool {
        let lacks = |a: &Self, b: &Self| a.paths.difference(&b.paths).next().is_some();
        let differ = lacks(self, other) && lacks(other, self);
        self.version != other.version || differ && !(self.is_pyramid() && other.is_pyramid())
    }

    /// Some of the arrays, in words.
    pub fn named(&self) -> String {
        let mut paths: Vec<&str> = self.paths.iter().map(String::as_str).collect();
        // The first ones are more often coordinates.
        paths.reverse();
        let shown = paths.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = if paths.len() > 3 { ", ..." } else { "" };
        format!("a Zarr v{} store of {shown}{more}", self.version)
    }
}

fn paths(version: u8, document: &Value) -> BTreeSet<String> {
    let of = |value: &Value| value.as_object().cloned().unwrap_or_default();
    match version {
        2 => {
            let keys = of(&document["metadata"]).into_iter().map(|(key, _)| key);
            keys.filter_map(|key| Some(key.strip_suffix("/.zarray")?.to_owned())).collect()
        }
        _ => {
            let nodes = of(&document["consolidated_metadata"]["metadata"]).into_iter();
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
    fn stores_are_told_apart_by_their_arrays() {
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
    fn a_group_below_another_is_no_root() {
        let keys = ["s1/.zmetadata", "s2/zarr.json", "s2/0/zarr.json", "a.nc"];
        let roots = HierarchySummary::roots(keys.into_iter());
        assert_eq!(roots, BTreeSet::from(["s1/".to_owned(), "s2/".to_owned()]));
    }
}
