//! What a source holds: from the records that conversions left, without looking at the data; what
//! has no records is listed, and hashed once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::checksum_cache::{ChecksumCache, RecordedByKey, RecordedParts};
use super::options::{Selection, SourcePart};
use super::{ObjectEntry, PublishError};
use crate::case_manifest::{
    CASES, COMPLETE, ManifestObject, ManifestSummary, PARTIAL, RULES, SHARED,
};
use crate::model::Case;
use crate::model::checksums::has_same_parts;
use crate::store::{SourceFile, Store, StoreError};

/// Records that are read at the same time.
const READS: usize = 64;

/// What a source holds.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Objects, ordered by key.
    pub entries: Vec<ObjectEntry>,
    /// The rules that each part was made under, by its folder.
    pub recipes: BTreeMap<String, Value>,
    /// Cases that are not complete, and stay as they are at the destination.
    pub pending: Vec<String>,
    /// Objects that are not what their records tell, by key, and why: they are not sent.
    pub(super) damaged: BTreeMap<String, String>,
    /// Cases that the source knows of, complete or not.
    cases: BTreeSet<Case>,
}

impl Inventory {
    /// Whether there is an object.
    pub fn has(&self, key: &str) -> bool {
        self.entries.binary_search_by(|entry| (*entry.key).cmp(key)).is_ok()
    }

    /// Whether an object is of a case that is not complete.
    pub fn is_pending(&self, key: &str) -> bool {
        let is_in = |folder: &String| key.strip_prefix(folder).is_some_and(|r| r.starts_with('/'));
        // Of a map store the name of the case stands for its record.
        let record = key.strip_suffix(".json").and_then(|key| key.rsplit_once('/'));
        let is_record = |name: &String| {
            let Some((folder, case)) = record else { return false };
            folder.strip_suffix(CASES).is_some_and(|root| *name == format!("{root}{case}"))
        };
        self.pending.iter().any(|name| is_in(name) || is_record(name))
    }
}

struct InventoryBuilder<'a> {
    source: &'a Store,
    selection: &'a Selection,
    state: &'a Path,
    part_size: u64,
    stop: &'a CancellationToken,
    inventory: Inventory,
    /// Objects with records that tell the MD5s of parts of another size, by folder.
    otherwise: BTreeMap<String, RecordedByKey>,
}

/// Finds out what a source holds, in parts of `part_size`; `state` is the local folder that hashes are kept
/// in.
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
    let (inventory, otherwise) = Default::default();
    let mut survey =
        InventoryBuilder { source, selection, state, part_size, stop, inventory, otherwise };
    match survey.part("").await? {
        SourcePart::Other => survey.parts().await?,
        part => survey.take("", part).await?,
    }
    survey.hash_otherwise().await?;
    let mut inventory = survey.inventory;
    inventory.entries.retain(|entry| selection.has(&entry.key));
    inventory.entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    inventory.entries.dedup_by(|a, b| a.key == b.key);
    let is_missing = |case: &&Case| !selection.unfinished && !inventory.cases.contains(case);
    if let Some(case) = selection.cases.iter().find(is_missing) {
        return Err(PublishError::NoCase { url: source.location().to_string(), case: *case });
    }
    if !inventory.entries.is_empty() {
        return Ok(inventory);
    }
    Err(match inventory.pending.first() {
        Some(case) => empty(&format!(": {case} is not complete")),
        None if selection.is_whole() && !selection.has_patterns() => empty(""),
        None => empty(" of what was asked for"),
    })
}

/// A record, and the entry of the object that it is, in parts of `part_size`.
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

fn below(folder: &str, key: &str) -> String {
    if folder.is_empty() { key.to_owned() } else { format!("{folder}/{key}") }
}

/// Whether a folder's last part is that of a polygon, 000 to 689, or of a month.
fn is_number(folder: &str, digits: usize) -> bool {
    let name = folder.rsplit('/').next().unwrap_or(folder);
    name.len() == digits && name.bytes().all(|byte| byte.is_ascii_digit())
}

impl InventoryBuilder<'_> {
    /// What a folder is.
    async fn part(&self, folder: &str) -> Result<SourcePart, PublishError> {
        let folders = match self.source.list_prefixes(folder).await {
            // Whether it is left out is seen when it is looked over.
            Err(StoreError::PermissionDenied { .. }) if !folder.is_empty() => {
                return Ok(SourcePart::Other);
            }
            folders => folders?,
        };
        let shared = below(folder, &format!("{CASES}/{SHARED}"));
        if let Some((record, _)) = self.record(&shared).await? {
            return Ok(SourcePart::Store(record.store));
        }
        if folders.iter().any(|f| f.rsplit('/').next() == Some(CASES)) {
            if self.selection.unfinished {
                return Ok(SourcePart::Store(String::new()));
            }
            let url = self.source.location().join(folder).to_string();
            let problem = "it has results that nobody has put together".to_owned();
            return Err(PublishError::Unfinished { url, problem });
        }
        for polygon in folders.iter().filter(|folder| is_number(folder, 3)) {
            for month in self.source.list_prefixes(polygon).await? {
                let record = |name: &str| format!("{month}/{name}");
                if is_number(&month, 2)
                    && (self.source.head(&record(COMPLETE)).await?.is_some()
                        || self.source.head(&record(PARTIAL)).await?.is_some()
                        || self.has_history(&month).await?)
                {
                    return Ok(SourcePart::Research);
                }
            }
        }
        Ok(SourcePart::Other)
    }

    /// Whether a folder has files with names of monthly history: of a case without a record yet.
    async fn has_history(&self, folder: &str) -> Result<bool, PublishError> {
        let files = self.source.list_with_delimiter(folder).await?;
        Ok(files.iter().any(|file| file.key.contains(".pop.h.") && file.key.ends_with(".nc")))
    }

    /// The parts of a folder that is none itself.
    async fn parts(&mut self) -> Result<(), PublishError> {
        let mut others = true;
        for folder in self.source.list_prefixes("").await? {
            if folder.starts_with('.') {
                continue;
            }
            let part = self.part(&folder).await?;
            others &= part == SourcePart::Other;
            if part != SourcePart::Other {
                self.take(&folder, part).await?;
            }
        }
        if !self.selection.has_part(&SourcePart::Other) {
            return Ok(());
        }
        if others {
            return self.take("", SourcePart::Other).await;
        }
        // What lies beside products.
        let found = self.source.survey("", false, self.wanted()).await?;
        self.hash(found).await?;
        for folder in self.source.list_prefixes("").await? {
            if !folder.starts_with('.') && self.part(&folder).await? == SourcePart::Other {
                self.take(&folder, SourcePart::Other).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, folder: &str, part: SourcePart) -> Result<(), PublishError> {
        if !self.selection.has_part(&part) {
            return Ok(());
        }
        match part {
            SourcePart::Research => self.research(folder).await,
            SourcePart::Store(_) => self.store(folder).await,
            SourcePart::Other => self.other(folder).await,
        }
    }

    async fn research(&mut self, root: &str) -> Result<(), PublishError> {
        let mut months = Vec::new();
        // What they hold may have been published: one that leads nowhere is not taken for absent.
        let polygons = self.source.list_dirs_ours(root, |key| is_number(key, 3)).await?;
        for polygon in polygons.iter().filter(|folder| is_number(folder, 3)) {
            months.extend(self.source.list_dirs_ours(polygon, |key| is_number(key, 2)).await?);
        }
        let mut cases = Vec::new();
        for folder in months.into_iter().filter(|month| is_number(month, 2)) {
            let short = folder.strip_prefix(root).unwrap_or(&folder).trim_start_matches('/');
            let case = short.replace('/', "-").parse::<Case>();
            if let Some(case) = case.ok().filter(|case| self.selection.has_case(case)) {
                self.inventory.cases.insert(case);
                cases.push(folder);
            }
        }
        let (source, part_size) = (self.source, self.part_size);
        let records: Vec<_> = stream::iter(cases)
            .map(async |folder| {
                let key = format!("{folder}/{}", COMPLETE);
                let record = read_record(source, &key, part_size).await?;
                Ok::<_, PublishError>((folder, key, record))
            })
            .buffered(READS)
            .try_collect()
            .await?;
        for (folder, key, record) in records {
            match record {
                None => self.inventory.pending.push(folder),
                Some((record, own)) => {
                    self.inventory.entries.push(ObjectEntry { key: key.into(), ..own });
                    self.add(root, record);
                }
            }
        }
        Ok(())
    }

    async fn store(&mut self, root: &str) -> Result<(), PublishError> {
        let folder = below(root, CASES);
        let shared = self.record(&format!("{folder}/{SHARED}")).await?;
        let shared = shared.filter(|_| !self.selection.unfinished);
        let case_of = |key: &str| {
            let name = key.rsplit('/').next()?.strip_suffix(".json")?;
            Some((name.to_owned(), name.parse::<Case>().ok()?))
        };
        let found = self.source.list_ours(&folder, move |key| case_of(key).is_some()).await?;
        let keys: Vec<_> = found
            .iter()
            .filter_map(|object| Some((object.key.clone(), case_of(&object.key)?)))
            .collect();
        // Chunks that cases share must have their numbers.
        let late = |shared: &ManifestSummary| {
            let lacks = |(_, (name, _)): &&(String, (String, Case))| !shared.cases.contains(name);
            keys.iter().find(lacks).filter(|_| shared.store != "store2")
        };
        if let Some((_, (name, _))) = shared.as_ref().and_then(|(shared, _)| late(shared)) {
            let url = self.source.location().join(root).to_string();
            let problem = format!("case {name} has been added since");
            return Err(PublishError::Unfinished { url, problem });
        }
        // Put together once, and lost since, or being made again.
        let has_record = |case: &str| keys.iter().any(|(_, (name, _))| name == case);
        // What others share with it cannot be published without it.
        let of_shared =
            |shared: &ManifestSummary| shared.cases.iter().find(|name| !has_record(name)).cloned();
        let lost = shared.as_ref().filter(|(shared, _)| shared.store != "store2");
        if let Some(name) = lost.and_then(|(shared, _)| of_shared(shared)) {
            let url = self.source.location().join(root).to_string();
            let problem = format!(
                "chunks that cases share hold values of {name}, which has no record: nothing of the store is sent before it is added again"
            );
            return Err(PublishError::Unfinished { url, problem });
        }
        let named = shared.iter().flat_map(|(shared, _)| &shared.cases);
        let without = named.filter_map(|name| {
            let case = name.parse::<Case>().ok().filter(|case| self.selection.has_case(case))?;
            (!has_record(name)).then(|| (case, below(root, name)))
        });
        let without: Vec<_> = without.collect();
        for (case, name) in without {
            self.inventory.cases.insert(case);
            self.inventory.pending.push(name);
        }
        let (source, part_size) = (self.source, self.part_size);
        let rules = format!("{folder}/{RULES}");
        if let Some((bytes, _)) = source.get(&rules).await? {
            self.inventory.entries.push(ObjectEntry::of(&rules, &bytes, self.part_size));
        }
        let mut wanted = keys;
        wanted.retain(|(_, (_, case))| self.selection.has_case(case));
        self.inventory.cases.extend(wanted.iter().map(|(_, (_, case))| *case));
        let records: Vec<Option<(ManifestSummary, ObjectEntry)>> = stream::iter(wanted)
            .map(async |(key, _)| read_record(source, &key, part_size).await)
            .buffered(READS)
            .try_collect()
            .await?;
        for (record, own) in shared.into_iter().chain(records.into_iter().flatten()) {
            // Of a store that nobody has put together, only what belongs to one case goes out.
            if !self.selection.unfinished || !record.files.is_empty() {
                self.inventory.entries.push(own);
            }
            self.add(root, record);
        }
        Ok(())
    }

    async fn other(&mut self, folder: &str) -> Result<(), PublishError> {
        let found = self.source.survey(folder, true, self.wanted()).await?;
        self.hash(found).await
    }

    /// Which objects are to be looked at.
    fn wanted(&self) -> impl Fn(&str) -> bool + Send + use<> {
        let selection = self.selection.clone();
        move |key| selection.has(key)
    }

    async fn hash(&mut self, found: Vec<SourceFile>) -> Result<(), PublishError> {
        self.hash_as(found, &RecordedByKey::new()).await
    }

    async fn hash_as(
        &mut self,
        found: Vec<SourceFile>,
        recorded: &RecordedByKey,
    ) -> Result<(), PublishError> {
        let hashes = ChecksumCache::load(self.state, self.part_size)?;
        let (entries, damaged) = hashes.entries(self.source, found, recorded, self.stop).await?;
        self.inventory.entries.extend(entries);
        self.inventory.damaged.extend(damaged);
        Ok(())
    }

    /// Hashes what has records of parts of another size.
    async fn hash_otherwise(&mut self) -> Result<(), PublishError> {
        for (folder, mut recorded) in std::mem::take(&mut self.otherwise) {
            recorded.retain(|key, _| self.selection.has(key));
            if recorded.is_empty() {
                continue;
            }
            let keys: BTreeSet<String> = recorded.keys().cloned().collect();
            let found = self.source.survey(&folder, true, move |key| keys.contains(key)).await?;
            let is_gone = |key: &str| found.binary_search_by(|f| (*f.key).cmp(key)).is_err();
            for (key, otherwise) in recorded.iter().filter(|(key, _)| is_gone(key)) {
                self.inventory.entries.push(otherwise.entry(key));
                self.inventory.damaged.insert(key.clone(), "it is gone".to_owned());
            }
            self.hash_as(found, &recorded).await?;
        }
        Ok(())
    }

    fn add(&mut self, root: &str, record: ManifestSummary) {
        for ManifestObject { key, size, md5 } in record.files {
            let key = below(root, &key);
            if has_same_parts(size, record.part_size, self.part_size) {
                self.inventory.entries.push(ObjectEntry::new(&key, size, md5));
            } else {
                let recorded = self.otherwise.entry(root.to_owned()).or_default();
                recorded.insert(key, RecordedParts { size, md5, part_size: record.part_size });
            }
        }
        self.inventory.recipes.entry(root.to_owned()).or_insert(record.recipe);
    }

    async fn record(
        &self,
        key: &str,
    ) -> Result<Option<(ManifestSummary, ObjectEntry)>, PublishError> {
        read_record(self.source, key, self.part_size).await
    }
}
