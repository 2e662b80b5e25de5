//! What lies at a destination is not replaced by something worse unless that is asked for by name, and never by
//! something of another kind. What lies there decides, not who put it there.

mod kinds;
mod records;
mod unknown;

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::PublishError;
use super::changes::Changes;
use super::inventory::Inventory;
use super::manifest::Manifest;
use super::options::PublishOptions;
use crate::case_manifest::{CASES, COMPLETE, SHARED};
use crate::encode::zarr::consolidated::{CONSOLIDATED, HierarchySummary};
use crate::store::Store;

/// How to publish without what is no longer in the source, and how to replace what is better.
const DELETE: &str = "add --delete to publish without it";
const REPLACE: &str = "replace what is published with --overwrite";
const LEFT_OUT: &str = "publish its record too, which --include or --exclude leaves out";
/// Records that are compared at the same time.
const READS: usize = 32;
/// Bytes of consolidated metadata, at most.
const METADATA: u64 = 64 << 20;

/// What a publish would do to what is published.
pub(super) struct Guard<'a> {
    pub source: &'a Store,
    pub destination: &'a Store,
    pub inventory: &'a Inventory,
    pub changes: &'a Changes,
    /// What the last complete publish left.
    pub published: Option<&'a Manifest>,
    /// Whether a publish has begun since and is not complete: records that differ from what was published may be
    /// its own.
    pub is_unfinished: bool,
    /// Whether a publish has sent an object, or was about to.
    pub is_known: &'a (dyn Fn(&str) -> bool + Sync),
    /// Bytes of parts at the destination.
    pub part_size: u64,
}

impl Guard<'_> {
    /// Refuses to replace map stores by such with fewer cases, months, arrays or without a grid file, made under
    /// other rules, or that were extended where they are published; research-grade files by such without a
    /// record or a grid file or of fewer months; and anything else that no publish has sent. What is left out of
    /// the source by a pattern is compared all the same.
    pub async fn refuse_worse(&self, options: &PublishOptions) -> Result<(), PublishError> {
        let mut judged = BTreeSet::new();
        // Of a store that nobody has put together, only objects of single cases go out.
        if !options.selection.unfinished {
            for root in self.stores() {
                self.refuse_worse_store(&root, options).await?;
                judged.insert(root);
            }
        }
        let records = self.records_of_stores(options).await?;
        let compare = async |key: String| self.refuse_worse_case(&key, options).await.map(drop);
        let compared = stream::iter(records).map(compare).buffer_unordered(READS);
        compared.try_collect::<()>().await?;
        let compare = async |folder: String| {
            let is_judged = self.refuse_worse_case(&format!("{folder}{COMPLETE}"), options).await?;
            Ok::<_, PublishError>(is_judged.then_some(folder))
        };
        let folders = stream::iter(self.folders_of_files()).map(compare).buffer_unordered(READS);
        let folders: Vec<Option<String>> = folders.try_collect().await?;
        judged.extend(folders.into_iter().flatten());
        if options.delete {
            self.refuse_half_deletes(options).await?;
        }
        self.refuse_unknown(&judged).await
    }

    fn url(&self, root: &str) -> String {
        self.destination.location().join(root.trim_end_matches('/')).to_string()
    }

    /// Whether something below `root` is sent.
    fn sends(&self, root: &str) -> bool {
        self.changes.send.iter().any(|(entry, _)| entry.key.starts_with(root))
    }

    /// Roots of map stores in the source or published, each empty or with a slash, of which something
    /// is to be sent.
    fn stores(&self) -> BTreeSet<String> {
        let shared = format!("{CASES}/{SHARED}");
        let published = self.published.map_or(&[][..], |published| &published.entries);
        let keys = || self.inventory.entries.iter().chain(published).map(|entry| &*entry.key);
        let mut roots: BTreeSet<String> =
            keys().filter_map(|key| key.strip_suffix(&shared)).map(str::to_owned).collect();
        roots.extend(HierarchySummary::roots(
            self.inventory.entries.iter().map(|entry| &*entry.key),
        ));
        roots.retain(|root| self.sends(root));
        roots
    }
}

/// The arrays of the hierarchy at `root`, which is empty or ends with a slash; `None` where there is none.
async fn load_arrays(store: &Store, root: &str) -> Result<Option<HierarchySummary>, PublishError> {
    for (version, name) in CONSOLIDATED {
        let found = store.get_within(&format!("{root}{name}"), METADATA).await?;
        let document = found.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
        if let Some(document) = document {
            return Ok(Some(HierarchySummary::of(version, &document)));
        }
    }
    Ok(None)
}

/// The folder that an object is in: empty, or with a slash.
fn folder_of(key: &str) -> String {
    key.rfind('/').and_then(|end| key.get(..=end)).unwrap_or_default().to_owned()
}
