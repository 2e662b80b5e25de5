//! The inventory of a source: the objects to publish and their checksums.
//!
//! The checksums of converted results come from the case records that conversions write, without
//! reading the data. Files without a record are listed and hashed once.

mod misplaced;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::checksum_cache::{ChecksumCache, RecordedByKey, RecordedParts};
use super::options::{FolderKind, Selection};
use super::{ObjectEntry, PublishError};
use crate::case_manifest::{
    CASE_MANIFEST, CASES_FOLDER, ManifestObject, ManifestSummary, PARTIAL_MANIFEST, RECIPE_FILE,
    SHARED_MANIFEST,
};
use crate::encode::research::folder as case_folder;
use crate::model::checksums::has_same_parts;
use crate::model::{Case, ETag};
use crate::store::{SourceFile, Store, StoreError};

/// Records that are read at the same time.
const READS: usize = 64;

/// The objects that a source has to publish.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Objects, ordered by key.
    pub entries: Vec<ObjectEntry>,
    /// Conversion rules of each product, by the folder of the product.
    pub recipes: BTreeMap<String, Value>,
    /// Cases that are not complete; their objects at the destination stay as they are. For
    /// research-grade files the folder of the case, for map stores the root of the store and the name
    /// of the case.
    pub unfinished_cases: Vec<String>,
    /// Objects that do not match their record, by key, with the difference. They are not sent.
    pub(super) mismatched: BTreeMap<String, String>,
    /// Checksums of the results of cases, by the key of the case manifest.
    pub(super) results: BTreeMap<String, ETag>,
    /// Objects that case manifests name and that patterns leave out, ordered by key.
    pub(super) excluded: Vec<ObjectEntry>,
    /// Cases that the source has, complete or not.
    cases: BTreeSet<Case>,
}

impl Inventory {
    /// Whether the inventory has an object with this key.
    pub fn has(&self, key: &str) -> bool {
        self.entries.binary_search_by(|entry| (*entry.key).cmp(key)).is_ok()
    }

    /// Whether an object belongs to a case that is not complete.
    pub fn is_of_unfinished_case(&self, key: &str) -> bool {
        let is_in = |folder: &String| key.strip_prefix(folder).is_some_and(|r| r.starts_with('/'));
        // In a map store, only the record belongs to a single case.
        let record = key.strip_suffix(".json").and_then(|key| key.rsplit_once('/'));
        let is_record = |name: &String| {
            let Some((folder, case)) = record else { return false };
            folder.strip_suffix(CASES_FOLDER).is_some_and(|root| *name == format!("{root}{case}"))
        };
        self.unfinished_cases.iter().any(|name| is_in(name) || is_record(name))
    }
}

/// A case of a map store that has a record.
struct RecordedCase {
    /// Key of the record.
    key: String,
    /// Name of the case, as the record is named.
    name: String,
    case: Case,
}

struct InventoryBuilder<'a> {
    source: &'a Store,
    selection: &'a Selection,
    state: &'a Path,
    part_size: u64,
    stop: &'a CancellationToken,
    inventory: Inventory,
    /// Objects whose records have MD5s of parts of another size, by folder of the product.
    other_part_size: BTreeMap<String, RecordedByKey>,
}

/// Makes the inventory of a source, with checksums for parts of `part_size` bytes. `state` is the local
/// folder of the checksum cache.
///
/// # Errors
/// The source has nothing to publish, lacks a selected case, or cannot be read.
pub async fn inventory(
    source: &Store,
    selection: &Selection,
    state: &Path,
    part_size: u64,
    stop: &CancellationToken,
) -> Result<Inventory, PublishError> {
    let empty =
        |why: &str| PublishError::Empty { url: source.location().to_string(), why: why.to_owned() };
    match source.location().local_path() {
        Some(path) if path.is_file() => return Err(empty(": it is a file")),
        Some(path) if !path.exists() => return Err(empty(": it does not exist")),
        _ => {}
    }
    let mut builder = InventoryBuilder {
        source,
        selection,
        state,
        part_size,
        stop,
        inventory: Inventory::default(),
        other_part_size: BTreeMap::new(),
    };
    match builder.kind_of("").await? {
        FolderKind::Other => builder.add_folders().await?,
        part => builder.add("", part).await?,
    }
    builder.hash_recorded().await?;
    let mut inventory = builder.inventory;
    let is_left_out = |entry: &mut ObjectEntry| !selection.has(&entry.key);
    inventory.excluded = inventory.entries.extract_if(.., is_left_out).collect();
    inventory.excluded.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    inventory.entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    inventory.entries.dedup_by(|a, b| a.key == b.key);
    let is_missing = |case: &&Case| !selection.single_cases_only && !inventory.cases.contains(case);
    if let Some(case) = selection.cases.iter().find(is_missing) {
        return Err(PublishError::NoCase { url: source.location().to_string(), case: *case });
    }
    if !inventory.entries.is_empty() {
        return Ok(inventory);
    }
    Err(match inventory.unfinished_cases.first() {
        Some(case) => empty(&format!(": {case} is not complete")),
        None if selection.is_whole() && !selection.has_patterns() => empty(""),
        None => empty(": nothing in it matches the selection"),
    })
}

/// Reads a record. Returns its content and the entry of the record itself, with a checksum for parts
/// of `part_size` bytes; `None` when there is no such object.
pub(super) async fn read_record(
    source: &Store,
    key: &str,
    part_size: u64,
) -> Result<Option<(ManifestSummary, ObjectEntry)>, PublishError> {
    let Some((bytes, _)) = source.get(key).await? else { return Ok(None) };
    let record = ManifestSummary::parse(&bytes).map_err(|error| PublishError::Record {
        url: source.location().join(key).to_string(),
        source: error,
    })?;
    Ok(Some((record, ObjectEntry::of(key, &bytes, part_size))))
}

fn join(folder: &str, key: &str) -> String {
    if folder.is_empty() { key.to_owned() } else { format!("{folder}/{key}") }
}

/// Whether the last part of a folder has `digits` digits, as that of a polygon (3) or a month (2).
fn is_number(folder: &str, digits: usize) -> bool {
    let name = folder.rsplit('/').next().unwrap_or(folder);
    name.len() == digits && name.bytes().all(|byte| byte.is_ascii_digit())
}

impl InventoryBuilder<'_> {
    /// The kind of product that a folder holds.
    async fn kind_of(&self, folder: &str) -> Result<FolderKind, PublishError> {
        let folders = match self.source.list_folders(folder).await {
            // The walk of the files reports this folder, unless a pattern leaves it out.
            Err(StoreError::PermissionDenied { .. }) if !folder.is_empty() => {
                return Ok(FolderKind::Other);
            }
            folders => folders?,
        };
        let shared = join(folder, &format!("{CASES_FOLDER}/{SHARED_MANIFEST}"));
        if let Some((record, _)) = self.read_record(&shared).await? {
            return Ok(FolderKind::Store(record.store));
        }
        if folders.iter().any(|f| f.rsplit('/').next() == Some(CASES_FOLDER)) {
            if self.selection.single_cases_only {
                return Ok(FolderKind::Store(String::new()));
            }
            let url = self.source.location().join(folder).to_string();
            let problem = "its cases are not combined yet".to_owned();
            return Err(PublishError::NotFinalized { url, problem });
        }
        for polygon in folders.iter().filter(|folder| is_number(folder, 3)) {
            for month in self.source.list_folders(polygon).await? {
                let record = |name: &str| format!("{month}/{name}");
                if is_number(&month, 2)
                    && (self.source.head(&record(CASE_MANIFEST)).await?.is_some()
                        || self.source.head(&record(PARTIAL_MANIFEST)).await?.is_some()
                        || self.has_history(&month).await?)
                {
                    return Ok(FolderKind::Research);
                }
            }
        }
        Ok(FolderKind::Other)
    }

    /// Whether a folder has files named as monthly history files, of a case without a record.
    async fn has_history(&self, folder: &str) -> Result<bool, PublishError> {
        let files = self.source.list_with_delimiter(folder).await?;
        Ok(files.iter().any(|file| file.key.contains(".pop.h.") && file.key.ends_with(".nc")))
    }

    /// Adds the products in the folders of a source that is not a product itself, and its other files.
    async fn add_folders(&mut self) -> Result<(), PublishError> {
        let (mut has_product, mut other_folders) = (false, Vec::new());
        for folder in self.source.list_folders("").await? {
            if folder.starts_with('.') {
                continue;
            }
            match self.kind_of(&folder).await? {
                FolderKind::Other => other_folders.push(folder),
                part => {
                    has_product = true;
                    self.add(&folder, part).await?;
                }
            }
        }
        if !self.selection.has_part(&FolderKind::Other) {
            return Ok(());
        }
        if !has_product {
            return self.add("", FolderKind::Other).await;
        }
        let files = self.source.list_publishable("", false, self.is_selected()).await?;
        self.add_other(files).await?;
        for folder in other_folders {
            self.add(&folder, FolderKind::Other).await?;
        }
        Ok(())
    }

    async fn add(&mut self, folder: &str, part: FolderKind) -> Result<(), PublishError> {
        if !self.selection.has_part(&part) {
            return Ok(());
        }
        match part {
            FolderKind::Research => self.add_research(folder).await,
            FolderKind::Store(_) => self.add_store(folder).await,
            FolderKind::Other => {
                let files = self.source.list_publishable(folder, true, self.is_selected()).await?;
                self.add_other(files).await
            }
        }
    }

    /// Adds files of no product. Refuses research-grade files in a folder that was renamed.
    async fn add_other(&mut self, files: Vec<SourceFile>) -> Result<(), PublishError> {
        for file in &files {
            let (folder, CASE_MANIFEST) = file.key.rsplit_once('/').unwrap_or(("", &file.key))
            else {
                continue;
            };
            if let Some(record) = self.refuse_renamed(folder).await? {
                self.inventory.results.insert(file.key.to_string(), record.result_etag());
            }
        }
        self.hash_and_compare(files, &RecordedByKey::new()).await
    }

    /// Adds research-grade files, from the records of complete cases.
    async fn add_research(&mut self, root: &str) -> Result<(), PublishError> {
        let mut months = Vec::new();
        // Their files may be published already: a dangling link is an error, not an absent folder.
        let polygons = self.source.list_expecting_folders(root, |key| is_number(key, 3)).await?;
        self.refuse_mixed(root, &polygons).await?;
        for polygon in &polygons {
            months.extend(
                self.source.list_expecting_folders(polygon, |key| is_number(key, 2)).await?,
            );
        }
        let mut cases = Vec::new();
        for folder in months {
            let short = folder.strip_prefix(root).unwrap_or(&folder).trim_start_matches('/');
            let case = short.replace('/', "-").parse::<Case>().ok();
            match case.filter(|case| case_folder(*case) == short) {
                Some(case) if !self.selection.has_case(&case) => {}
                Some(case) => {
                    self.inventory.cases.insert(case);
                    cases.push(folder);
                }
                None => self.refuse_renamed(&folder).await.map(drop)?,
            }
        }
        let (source, part_size) = (self.source, self.part_size);
        let records: Vec<_> = stream::iter(cases)
            .map(async |folder| {
                let key = format!("{folder}/{CASE_MANIFEST}");
                let record = read_record(source, &key, part_size).await?;
                Ok::<_, PublishError>((folder, key, record))
            })
            .buffered(READS)
            .try_collect()
            .await?;
        for (folder, key, record) in records {
            match record {
                None => self.inventory.unfinished_cases.push(folder),
                Some((record, entry)) => {
                    self.refuse_misplaced(root, &folder, &record)?;
                    self.inventory.results.insert(key.clone(), record.result_etag());
                    self.inventory.entries.push(ObjectEntry { key: key.into(), ..entry });
                    self.add_files(root, record);
                }
            }
        }
        Ok(())
    }

    /// Adds a map store, from its shared record and the records of its cases.
    async fn add_store(&mut self, root: &str) -> Result<(), PublishError> {
        let folder = join(root, CASES_FOLDER);
        let shared = self.read_record(&format!("{folder}/{SHARED_MANIFEST}")).await?;
        let shared = shared.filter(|_| !self.selection.single_cases_only);
        let case_of = |key: &str| {
            let name = key.rsplit('/').next()?.strip_suffix(".json")?;
            Some((name.to_owned(), name.parse::<Case>().ok()?))
        };
        let found =
            self.source.list_expecting_files(&folder, move |key| case_of(key).is_some()).await?;
        let mut cases: Vec<RecordedCase> = found
            .into_iter()
            .filter_map(|object| {
                let (name, case) = case_of(&object.key)?;
                Some(RecordedCase { key: object.key, name, case })
            })
            .collect();
        if let Some((shared, _)) = &shared {
            self.compare_with_shared(root, shared, &cases)?;
        }
        let rules = format!("{folder}/{RECIPE_FILE}");
        if let Some((bytes, _)) = self.source.get(&rules).await? {
            self.inventory.entries.push(ObjectEntry::of(&rules, &bytes, self.part_size));
        }
        cases.retain(|recorded| self.selection.has_case(&recorded.case));
        self.inventory.cases.extend(cases.iter().map(|recorded| recorded.case));
        let (source, part_size) = (self.source, self.part_size);
        let records: Vec<Option<(ManifestSummary, ObjectEntry)>> = stream::iter(cases)
            .map(async |recorded: RecordedCase| read_record(source, &recorded.key, part_size).await)
            .buffered(READS)
            .try_collect()
            .await?;
        let records: Vec<_> = records.into_iter().flatten().collect();
        if let Some((shared, _)) = &shared {
            self.refuse_newer_values(root, shared, &records)?;
        }
        let results = records.iter().map(|(record, e)| (e.key.to_string(), record.result_etag()));
        self.inventory.results.extend(results);
        for (record, entry) in shared.into_iter().chain(records) {
            // Before the store is finalized, only cases with objects of their own are published.
            if !self.selection.single_cases_only || !record.files.is_empty() {
                self.inventory.entries.push(entry);
            }
            self.add_files(root, record);
        }
        Ok(())
    }

    /// Compares the cases of the shared record with the cases that have a record. Adds those without
    /// one to `pending`.
    ///
    /// # Errors
    /// The shared chunks of store 1 or 3 lack a case that has a record, or have values of a case that
    /// has none.
    fn compare_with_shared(
        &mut self,
        root: &str,
        shared: &ManifestSummary,
        recorded: &[RecordedCase],
    ) -> Result<(), PublishError> {
        let url = || self.source.location().join(root).to_string();
        let has_record = |name: &str| recorded.iter().any(|case| case.name == name);
        // Cases of store 2 share no chunks.
        if shared.store != "store2" {
            if let Some(case) = recorded.iter().find(|case| !shared.cases.contains(&case.name)) {
                let problem = format!("case {} has been added since", case.name);
                return Err(PublishError::NotFinalized { url: url(), problem });
            }
            if let Some(name) = shared.cases.iter().find(|name| !has_record(name)) {
                let problem = format!(
                    "its shared chunks have values of {name}, which has no case manifest; add this case again"
                );
                return Err(PublishError::NotFinalized { url: url(), problem });
            }
        }
        for name in shared.cases.iter().filter(|name| !has_record(name)) {
            if let Ok(case) = name.parse::<Case>()
                && self.selection.has_case(&case)
            {
                self.inventory.cases.insert(case);
                self.inventory.unfinished_cases.push(join(root, name));
            }
        }
        Ok(())
    }

    /// Refuses a store whose shared chunks have earlier values of a case than its record.
    fn refuse_newer_values(
        &self,
        root: &str,
        shared: &ManifestSummary,
        records: &[(ManifestSummary, ObjectEntry)],
    ) -> Result<(), PublishError> {
        let has_newer = |(record, entry): &&(ManifestSummary, ObjectEntry)| {
            let name = entry.key.rsplit('/').next().and_then(|name| name.strip_suffix(".json"));
            let combined = name.and_then(|name| shared.values_sha256.get(name));
            combined.is_some_and(|combined| *combined != record.own_values_sha256())
        };
        let Some((_, entry)) = records.iter().find(has_newer) else { return Ok(()) };
        let url = self.source.location().join(root).to_string();
        let problem = format!("{} has been made again since", entry.key);
        Err(PublishError::NotFinalized { url, problem })
    }

    /// A predicate for keys that pass the patterns of the selection.
    fn is_selected(&self) -> impl Fn(&str) -> bool + Send + use<> {
        let selection = self.selection.clone();
        move |key| selection.has(key)
    }

    /// Adds files with checksums from the cache, and compares them with their records.
    async fn hash_and_compare(
        &mut self,
        files: Vec<SourceFile>,
        recorded: &RecordedByKey,
    ) -> Result<(), PublishError> {
        let cache = ChecksumCache::load(self.state, self.part_size)?;
        let (entries, mismatched) = cache.entries(self.source, files, recorded, self.stop).await?;
        self.inventory.entries.extend(entries);
        self.inventory.mismatched.extend(mismatched);
        Ok(())
    }

    /// Adds objects whose records have MD5s of parts of another size.
    async fn hash_recorded(&mut self) -> Result<(), PublishError> {
        for (folder, mut recorded) in std::mem::take(&mut self.other_part_size) {
            recorded.retain(|key, _| self.selection.has(key));
            if recorded.is_empty() {
                continue;
            }
            let keys: BTreeSet<String> = recorded.keys().cloned().collect();
            let files =
                self.source.list_publishable(&folder, true, move |key| keys.contains(key)).await?;
            let is_missing = |key: &str| files.binary_search_by(|f| (*f.key).cmp(key)).is_err();
            for (key, parts) in recorded.iter().filter(|(key, _)| is_missing(key)) {
                self.inventory.entries.push(parts.entry(key));
                self.inventory.mismatched.insert(key.clone(), "it is missing".to_owned());
            }
            self.hash_and_compare(files, &recorded).await?;
        }
        Ok(())
    }

    /// Adds the objects that a record names, and its conversion rules.
    fn add_files(&mut self, root: &str, record: ManifestSummary) {
        for ManifestObject { key, size, md5, .. } in record.files {
            let key = join(root, &key);
            if has_same_parts(size, record.part_size, self.part_size) {
                self.inventory.entries.push(ObjectEntry::new(&key, size, md5));
            } else {
                let recorded = self.other_part_size.entry(root.to_owned()).or_default();
                recorded.insert(key, RecordedParts { size, md5, part_size: record.part_size });
            }
        }
        self.inventory.recipes.entry(root.to_owned()).or_insert(record.recipe);
    }

    async fn read_record(
        &self,
        key: &str,
    ) -> Result<Option<(ManifestSummary, ObjectEntry)>, PublishError> {
        read_record(self.source, key, self.part_size).await
    }
}
