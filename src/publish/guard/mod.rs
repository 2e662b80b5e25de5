//! Protection of the objects at a destination.
//!
//! A publish does not replace a result by a poorer one, unless the user asks for it with `--overwrite` or
//! `--delete`, and never by one of another kind. Only the objects at the destination decide, not the
//! program that sent them.

mod kinds;
mod records;
mod unmanaged;

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::changes::Changes;
use super::inventory::Inventory;
use super::manifest::{Manifest, entries};
use super::options::PublishOptions;
use super::{ObjectEntry, PublishError};
use crate::case_manifest::{CASE_MANIFEST, CASES_FOLDER, SHARED_MANIFEST};
use crate::encode::zarr::consolidated::{CONSOLIDATED, HierarchySummary};
use crate::store::Store;

/// The advice for a result of which the source has lost a part.
const ADVICE_DELETE: &str = "publish without it with `dor publish --delete`";
/// The advice for a result that is better than that of the source.
const ADVICE_REPLACE: &str = "replace what is published with `dor publish --overwrite`";
/// The advice for a result whose record is left out by a pattern.
const ADVICE_MANIFEST: &str =
    "publish its case manifest too, which --include or --exclude leaves out";
/// The advice for metadata whose data is left out by a pattern.
const ADVICE_DATA: &str = "publish it with its metadata and case manifests";
/// Records that are compared at the same time.
const READS: usize = 32;
/// Largest size of consolidated metadata in bytes.
const MAX_METADATA: u64 = 64 << 20;

/// The comparison of the changes of a publish with the objects at the destination.
pub(super) struct ReplacementCheck<'a> {
    pub source: &'a Store,
    pub destination: &'a Store,
    pub inventory: &'a Inventory,
    pub changes: &'a Changes,
    /// The manifest of the last complete publish.
    pub published: Option<&'a Manifest>,
    /// The lists of objects that publishes may have sent: those of the last complete publish, and of an
    /// interrupted one its own and those that it found.
    pub sent_versions: [&'a [ObjectEntry]; 3],
    /// Whether a publish has sent an object with this key, or may have.
    pub is_known: &'a (dyn Fn(&str) -> bool + Sync),
    /// Whether the object at the destination with this key is known to be of another program.
    pub is_foreign: &'a (dyn Fn(&str) -> bool + Sync),
    /// Size in bytes of the parts of objects at the destination.
    pub part_size: u64,
}

impl ReplacementCheck<'_> {
    /// Refuses to replace published results by poorer ones. Results that a pattern leaves out of the
    /// publish are compared too.
    ///
    /// # Errors
    /// - A map store of the source has fewer cases, months or arrays, no grid file, or other rules; or
    ///   the published store was finalized at the destination.
    /// - Research-grade files of the source have no record, no grid file, or fewer months.
    /// - Another object at the destination has other bytes, and no publish has sent it.
    pub async fn refuse_worse(&self, options: &PublishOptions) -> Result<(), PublishError> {
        let mut compared_folders = BTreeSet::new();
        // Before a store is finalized, only objects of single cases are sent.
        if !options.selection.single_cases_only {
            for root in self.stores() {
                if self.refuse_worse_store(&root, options).await? {
                    compared_folders.insert(root);
                }
            }
        }
        let records = self.records_of_stores(options).await?;
        let compare = async |key: String| self.refuse_worse_case(&key, options).await.map(drop);
        let compared = stream::iter(records).map(compare).buffer_unordered(READS);
        compared.try_collect::<()>().await?;
        let compare = async |folder: String| {
            let key = format!("{folder}{CASE_MANIFEST}");
            let has_record = self.refuse_worse_case(&key, options).await?;
            Ok::<_, PublishError>(has_record.then_some(folder))
        };
        let folders = stream::iter(self.folders_of_files()).map(compare).buffer_unordered(READS);
        let folders: Vec<Option<String>> = folders.try_collect().await?;
        compared_folders.extend(folders.into_iter().flatten());
        if options.delete {
            self.refuse_partial_deletes(options).await?;
        }
        self.refuse_without_data()?;
        self.refuse_unmanaged(&compared_folders).await
    }

    /// The URL of a folder at the destination.
    fn url(&self, root: &str) -> String {
        self.destination.location().join(root.trim_end_matches('/')).to_string()
    }

    /// Objects of the last complete publish.
    fn published_entries(&self) -> &[ObjectEntry] {
        entries(self.published)
    }

    /// Whether an object below `root` is sent.
    fn sends(&self, root: &str) -> bool {
        self.changes.send.iter().any(|(entry, _)| entry.key.starts_with(root))
    }

    /// Roots of map stores of which an object is sent, or of which the source has some objects and others
    /// are deleted; each is empty or ends with a slash.
    fn stores(&self) -> BTreeSet<String> {
        let shared = format!("{CASES_FOLDER}/{SHARED_MANIFEST}");
        let keys = self.inventory.entries.iter().chain(self.published_entries());
        let mut roots: BTreeSet<String> =
            keys.filter_map(|entry| entry.key.strip_suffix(&shared)).map(str::to_owned).collect();
        roots.extend(HierarchySummary::roots(
            self.inventory.entries.iter().map(|entry| &*entry.key),
        ));
        let deletes =
            |root: &str| self.changes.deletes.iter().any(|entry| entry.key.starts_with(root));
        let has = |root: &str| self.inventory.entries.iter().any(|e| e.key.starts_with(root));
        roots.retain(|root| self.sends(root) || deletes(root) && has(root));
        roots
    }
}

/// Loads the consolidated metadata of the Zarr hierarchy at `root`, which is empty or ends with a slash.
/// `None`: there is no hierarchy, or its metadata cannot be parsed.
async fn load_arrays(store: &Store, root: &str) -> Result<Option<HierarchySummary>, PublishError> {
    for (version, name) in CONSOLIDATED {
        let found = store.get_within(&format!("{root}{name}"), MAX_METADATA).await?;
        let document = found.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
        if let Some(document) = document {
            return Ok(Some(HierarchySummary::of(version, &document)));
        }
    }
    Ok(None)
}

/// The folder of an object: empty, or with a slash at the end.
fn folder_of(key: &str) -> String {
    key.rfind('/').and_then(|end| key.get(..=end)).unwrap_or_default().to_owned()
}
