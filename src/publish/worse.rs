//! What lies at a destination is not replaced by something worse unless that is asked for by name, and never by
//! something of another kind. What lies there decides, not who put it there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};

use super::arrays::Arrays;
use super::cache::hash;
use super::destination::etag_of;
use super::inventory::Inventory;
use super::manifest::Manifest;
use super::plan::{Plan, stage};
use super::prepare::Options;
use super::record::{Record, read_record};
use super::{Entry, PublishError, is_publishable};
use crate::encode::zarr::chunk;
use crate::ledger::{CASES, COMPLETE, PARTIAL, RULES, SHARED, TOGETHER};
use crate::model::atlas::FILL;
use crate::model::case::in_short;
use crate::model::{Case, Parts};
use crate::store::{ObjectInfo, Store, StoreError};

/// How to publish without what is no longer in the source, and how to replace what is better.
const DELETE: &str = "add --delete to publish without it";
const REPLACE: &str = "replace what is published with --overwrite";
const LEFT_OUT: &str = "publish its record too, which --include or --exclude leaves out";
/// Records that are compared at the same time.
const READS: usize = 32;

/// What a publish would do to what is published.
pub(super) struct Change<'a> {
    pub source: &'a Store,
    pub destination: &'a Store,
    pub inventory: &'a Inventory,
    pub plan: &'a Plan,
    /// What the last publish left, if it has ended.
    pub published: Option<&'a Manifest>,
    /// Whether one has begun and not ended: what lies there may be its own.
    pub is_unfinished: bool,
    /// Whether a publish has sent an object, or was about to.
    pub is_known: &'a (dyn Fn(&str) -> bool + Sync),
    /// Bytes of parts at the destination.
    pub part_size: u64,
}

impl Change<'_> {
    /// Refuses to write into a store of another kind, into a store from something that is none, and a store
    /// among other things.
    pub async fn refuse_other_kind(&self) -> Result<(), PublishError> {
        if self.plan.send.is_empty() {
            return Ok(());
        }
        if let Some(above) = self.destination.parent()
            && let Some(other) = above.within(&TOGETHER).await
        {
            let other = format!("a place in {other}");
            return Err(PublishError::Among {
                url: self.destination.location().to_string(),
                other,
            });
        }
        let roots = Arrays::roots(self.inventory.entries.iter().map(|entry| &*entry.key));
        for root in roots.iter().filter(|root| self.sends(root)) {
            let there = Arrays::load(self.destination, root).await?;
            let own = Arrays::load(self.source, root).await?;
            match (there, own) {
                (Some(there), Some(own)) if there.is_other_kind(&own) => {
                    let (found, wanted) = (there.named(), own.named());
                    return Err(PublishError::OtherKind { url: self.url(root), found, wanted });
                }
                (None, _) => self.refuse_among(root).await?,
                _ => {}
            }
        }
        if roots.contains("") {
            return Ok(());
        }
        if let Some(found) = self.store_at("").await? {
            let wanted = "no such store".to_owned();
            return Err(PublishError::OtherKind { url: self.url(""), found, wanted });
        }
        // Stores that were published, below which something else would be sent.
        let published = self.published.map_or(&[][..], |published| &published.entries);
        let before = Arrays::roots(published.iter().map(|entry| &*entry.key));
        for root in before.difference(&roots).filter(|root| self.sends(root)) {
            let is_part = roots.iter().any(|own| own.starts_with(root.as_str()));
            if let Some(found) = self.store_at(root).await?.filter(|_| !is_part) {
                let wanted = "no such store".to_owned();
                return Err(PublishError::OtherKind { url: self.url(root), found, wanted });
            }
        }
        self.refuse_among_cases().await
    }

    /// The map store at the destination, in words: one that has its metadata, or records of cases.
    async fn store_at(&self, root: &str) -> Result<Option<String>, PublishError> {
        if let Some(there) = Arrays::load(self.destination, root).await? {
            return Ok(Some(there.named()));
        }
        let cases = self.recorded(root).await?.len();
        Ok((cases > 0).then(|| format!("a map store of {cases} case(s) without its metadata")))
    }

    /// Refuses to put the files of a single case among the folders of many.
    async fn refuse_among_cases(&self) -> Result<(), PublishError> {
        if !self.inventory.has(COMPLETE) || self.destination.find(COMPLETE).await?.is_some() {
            return Ok(());
        }
        let is_polygon =
            |name: &String| name.len() == 3 && name.bytes().all(|b| b.is_ascii_digit());
        match self.destination.list_dirs("").await?.into_iter().find(is_polygon) {
            None => Ok(()),
            Some(other) => Err(PublishError::Among { url: self.url(""), other }),
        }
    }

    /// Refuses to put a store into a folder that holds folders of something else. A publish that was interrupted has
    /// left a part.
    async fn refuse_among(&self, root: &str) -> Result<(), PublishError> {
        let folder = root.trim_end_matches('/');
        for name in [COMPLETE, PARTIAL] {
            let record = format!("{root}{name}");
            if !self.inventory.has(&record) && self.destination.find(&record).await?.is_some() {
                return Err(PublishError::Among { url: self.url(root), other: name.to_owned() });
            }
        }
        let below = |key: &str| {
            let name = key.strip_prefix(root)?.split('/').next()?;
            (!name.starts_with('.')).then(|| name.to_owned())
        };
        let own: BTreeSet<String> =
            self.inventory.entries.iter().filter_map(|entry| below(&entry.key)).collect();
        // A file such as a README beside the store harms nobody.
        let found = self.destination.list_dirs(folder).await?.into_iter();
        let foreign = found.filter_map(|key| below(&key)).find(|name| !own.contains(name));
        match foreign {
            None => Ok(()),
            Some(other) => Err(PublishError::Among { url: self.url(root), other }),
        }
    }

    /// Refuses to replace map stores by such with fewer cases, months, arrays or without a grid file, made under
    /// other rules, or that were extended where they are published; research-grade files by such without a
    /// record or a grid file or of fewer months; and anything else that no publish has sent. What is left out of
    /// the source by a pattern is compared all the same.
    pub async fn refuse_worse(&self, options: &Options) -> Result<(), PublishError> {
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

    /// Refuses to delete objects of a case whose record is gone from the source and stays, because a pattern
    /// leaves it out.
    async fn refuse_half_deletes(&self, options: &Options) -> Result<(), PublishError> {
        let published = self.published.map_or(&[][..], |published| &published.entries);
        let stays = |entry: &&Entry| !options.selection.has(&entry.key);
        for record in published.iter().filter(stays) {
            let root = match record.key.rsplit_once('/') {
                _ if is_named(&record.key, COMPLETE) => folder_of(&record.key),
                Some((folder, name)) if name != SHARED && name != RULES => {
                    match folder.strip_suffix(CASES) {
                        Some(root) => root.to_owned(),
                        None => continue,
                    }
                }
                _ => continue,
            };
            let has_gone = self.plan.gone.iter().any(|gone| gone.key.starts_with(&root));
            if has_gone && self.source.find(&record.key).await?.is_none() {
                let url = self.url(&root);
                let what = format!("a record ({}) of what would be deleted", record.key);
                return Err(PublishError::Loses { url, what, advice: LEFT_OUT });
            }
        }
        Ok(())
    }

    /// Records of cases of map stores that are sent, and those of stores of which something is sent that are
    /// left out.
    async fn records_of_stores(&self, options: &Options) -> Result<BTreeSet<String>, PublishError> {
        let is_of_case = |key: &str| {
            let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
            let is_of_store = folder == CASES || folder.ends_with(&format!("/{CASES}"));
            let name = name.strip_suffix(".json");
            is_of_store && name.is_some_and(|name| name.parse::<Case>().is_ok())
        };
        let sent = self.plan.send.iter().map(|(entry, _)| &*entry.key);
        let mut records: BTreeSet<String> =
            sent.filter(|key| is_of_case(key)).map(str::to_owned).collect();
        for root in self.stores() {
            let found = self.source.list(&format!("{root}{CASES}")).await?.into_iter();
            let left_out = found.map(|object| object.key).filter(|key| is_of_case(key));
            records.extend(left_out.filter(|key| !options.selection.has(key)));
        }
        Ok(records)
    }

    /// Folders of the NetCDF files that are sent, each empty or with a slash.
    fn folders_of_files(&self) -> BTreeSet<String> {
        let sent = self.plan.send.iter().map(|(entry, _)| &*entry.key);
        sent.filter(|key| key.ends_with(".nc") || is_named(key, COMPLETE)).map(folder_of).collect()
    }

    fn url(&self, root: &str) -> String {
        self.destination.location().join(root.trim_end_matches('/')).to_string()
    }

    /// Whether something below `root` is sent.
    fn sends(&self, root: &str) -> bool {
        self.plan.send.iter().any(|(entry, _)| entry.key.starts_with(root))
    }

    /// Roots of map stores in the source or published, each empty or with a slash, of which something
    /// is to be sent.
    fn stores(&self) -> BTreeSet<String> {
        let shared = format!("{CASES}/{SHARED}");
        let published = self.published.map_or(&[][..], |published| &published.entries);
        let keys = || self.inventory.entries.iter().chain(published).map(|entry| &*entry.key);
        let mut roots: BTreeSet<String> =
            keys().filter_map(|key| key.strip_suffix(&shared)).map(str::to_owned).collect();
        roots.extend(Arrays::roots(self.inventory.entries.iter().map(|entry| &*entry.key)));
        roots.retain(|root| self.sends(root));
        roots
    }

    async fn refuse_worse_store(
        &self,
        root: &str,
        Options { delete, selection, .. }: &Options,
    ) -> Result<(), PublishError> {
        let key = format!("{root}{CASES}/{SHARED}");
        let url = self.url(root);
        let loses =
            |what: String, advice| Err(PublishError::Loses { url: url.clone(), what, advice });
        let found = self.destination.read(&key).await?;
        let there = found.as_ref().and_then(|(bytes, _)| serde_json::from_slice(bytes).ok());
        let there: Option<Record> = there;
        let own = read_record(self.source, &key, self.part_size).await?;
        let named = |record: Option<&Record>| -> BTreeSet<Case> {
            let cases = record.into_iter().flat_map(|record| &record.cases);
            cases.filter_map(|case| case.parse().ok()).collect()
        };
        let mut cases = named(there.as_ref());
        cases.extend(self.recorded(root).await?);
        let own_cases = named(own.as_ref().map(|(record, _)| record));
        if let (Some((bytes, _)), Some((_, entry))) = (&found, &own) {
            let found = Parts::of(bytes, self.part_size).etag();
            let before = self.published.and_then(|published| published.entry(&key));
            if before.is_some_and(|before| before.etag != found) && found != entry.etag {
                let difference = difference(&cases, &own_cases);
                return Err(PublishError::Extended { url, difference });
            }
            if found != entry.etag && !selection.has(&key) {
                return loses(format!("another record ({key})"), LEFT_OUT);
            }
        }
        let lost: Vec<Case> = cases.difference(&own_cases).copied().collect();
        if found.is_some() && own.is_none() {
            return loses("the records of its cases (.cases)".to_owned(), REPLACE);
        }
        if !lost.is_empty() && !delete {
            return loses(in_short(&lost), DELETE);
        }
        let arrays = Arrays::load(self.destination, root).await?;
        if cases.is_empty() && self.replaces_unrecorded(root, arrays.as_ref()).await? {
            return loses("values of cases without a record (.cases)".to_owned(), REPLACE);
        }
        if let (Some(there), Some(own)) = (arrays, Arrays::load(self.source, root).await?)
            && let Some(path) = there.paths.difference(&own.paths).next()
            && !delete
        {
            let number = there.paths.difference(&own.paths).count();
            return loses(format!("{number} more arrays, such as {path}"), DELETE);
        }
        let rules = |record: &Record| record.recipe.clone();
        match (there.as_ref().map(rules), own.as_ref().map(|(record, _)| rules(record))) {
            (Some(there), Some(own)) if !there.is_null() && there != own => loses(
                format!("results made under other rules ({there}, the source {own})"),
                REPLACE,
            ),
            _ => Ok(()),
        }
    }

    /// Whether a map store without records holds values that the source does not have.
    async fn replaces_unrecorded(
        &self,
        root: &str,
        arrays: Option<&Arrays>,
    ) -> Result<bool, PublishError> {
        if self.is_unfinished {
            return Ok(false);
        }
        let listed = self.destination.list(root.trim_end_matches('/')).await?;
        for info in listed {
            let Some(path) = info.key.strip_prefix(root).and_then(|key| key.rsplit_once('/'))
            else {
                continue;
            };
            if stage(&info.key) > 0 || !is_publishable(&info.key) {
                continue;
            }
            let is_same = match self.entry(&info.key) {
                Some(entry) => self.is_same(entry, &info).await?,
                None => false,
            };
            let floats = arrays.and_then(|arrays| arrays.floats.get(path.0));
            let is_shared = arrays.is_some_and(|arrays| !arrays.is_pyramid());
            let is_empty = match floats.filter(|_| is_shared && !is_same) {
                Some(floats) => self.is_empty_chunk(&info, *floats).await?,
                None => false,
            };
            if !is_same && !is_empty {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a chunk of a map store at the destination has no value.
    async fn is_empty_chunk(&self, info: &ObjectInfo, floats: usize) -> Result<bool, PublishError> {
        let most = (floats as u64).saturating_mul(5).saturating_add(1 << 20);
        let Some((bytes, _)) = self.destination.read_within(&info.key, most).await? else {
            return Ok(true);
        };
        let values = chunk::decode_floats(&bytes, floats);
        Ok(values.is_ok_and(|values| values.iter().all(|value| *value == FILL)))
    }

    /// What the source has of an object.
    fn entry(&self, key: &str) -> Option<&Entry> {
        let entries = &self.inventory.entries;
        entries.binary_search_by(|entry| (*entry.key).cmp(key)).ok().and_then(|at| entries.get(at))
    }

    /// Refuses to replace objects of other bytes that no publish has sent, but for those in folders of which
    /// records were compared.
    async fn refuse_unknown(&self, judged: &BTreeSet<String>) -> Result<(), PublishError> {
        let is_judged = |key: &str| judged.iter().any(|folder| key.starts_with(folder.as_str()));
        let sent = self.plan.send.iter().map(|(entry, _)| entry);
        let is_unknown = |entry: &&Entry| !(self.is_known)(&entry.key) && !is_judged(&entry.key);
        let unknown: Vec<Entry> = sent.filter(is_unknown).cloned().collect();
        let mut folders: BTreeMap<String, Vec<Box<str>>> = BTreeMap::new();
        for entry in &unknown {
            folders.entry(folder_of(&entry.key)).or_default().push(entry.key.clone());
        }
        let list = async |(folder, keys): (String, Vec<Box<str>>)| {
            match self.destination.list_level(folder.trim_end_matches('/')).await {
                // On a disk a file is in its place: that is told elsewhere.
                Err(StoreError::BadLocation(_) | StoreError::NotAFile { .. }) => Ok(Vec::new()),
                // A folder that takes files and shows none.
                Err(StoreError::PermissionDenied { .. }) => {
                    let mut found = Vec::new();
                    for key in keys {
                        found.extend(self.destination.find(&key).await?);
                    }
                    Ok(found)
                }
                listed => listed,
            }
        };
        let listed = stream::iter(folders).map(list).buffer_unordered(READS);
        let listed: Vec<Vec<ObjectInfo>> = listed.try_collect().await?;
        let mut listed: HashMap<String, ObjectInfo> =
            listed.into_iter().flatten().map(|info| (info.key.clone(), info)).collect();
        let found = unknown.into_iter();
        let found = found.filter_map(|entry| Some((listed.remove(&*entry.key)?, entry)));
        let compare = async |(info, entry): (ObjectInfo, Entry)| {
            let is_same = self.is_same(&entry, &info).await?;
            Ok::<_, PublishError>((!is_same).then(|| entry.key.to_string()))
        };
        let others = stream::iter(found.collect::<Vec<_>>()).map(compare).buffered(READS);
        let others: Vec<String> = others.try_filter_map(async |o| Ok(o)).try_collect().await?;
        let Some(first) = others.first() else { return Ok(()) };
        let number = others.len();
        let what =
            format!("other bytes in {number} object(s) that no publish has sent, such as {first}");
        Err(PublishError::Loses { url: self.url(""), what, advice: REPLACE })
    }

    /// Whether an object at the destination has the bytes of an entry: as its listing tells, or else when it is
    /// read.
    async fn is_same(&self, entry: &Entry, info: &ObjectInfo) -> Result<bool, PublishError> {
        if info.size != entry.size {
            return Ok(false);
        }
        let told = etag_of(self.destination, info);
        if let Some(told) = told.filter(|told| told.is_comparable(&entry.etag)) {
            return Ok(told == entry.etag);
        }
        let object = self.destination.object(&entry.key).await?;
        let [found] = hash(&object, [self.part_size]).await?;
        Ok(found.etag() == entry.etag)
    }

    /// Cases that have a record in a map store at the destination.
    async fn recorded(&self, root: &str) -> Result<BTreeSet<Case>, PublishError> {
        let found = self.destination.list(&format!("{root}{CASES}")).await?;
        let case = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        Ok(found.iter().filter_map(|object| case(&object.key)).collect())
    }

    /// Compares the records of a case, wherever the source has one; whether the destination has one.
    async fn refuse_worse_case(
        &self,
        key: &str,
        Options { delete, selection, .. }: &Options,
    ) -> Result<bool, PublishError> {
        let loses = |what: String, advice| {
            let url = self.destination.location().join(key).to_string();
            Err(PublishError::Loses { url, what, advice })
        };
        let Some((bytes, _)) = self.destination.read(key).await? else { return Ok(false) };
        // It may be of something else.
        let Ok(there) = serde_json::from_slice::<Record>(&bytes) else { return Ok(false) };
        let Some((own, entry)) = read_record(self.source, key, self.part_size).await? else {
            return loses("a record of its files".to_owned(), REPLACE);
        };
        let has_grid = |record: &Record| {
            [&record.recipe, &record.settings].iter().any(|of| of["grid_sha256"].is_string())
        };
        if has_grid(&there) && !has_grid(&own) {
            return loses("the full grid (it was made with --grid)".to_owned(), REPLACE);
        }
        let had = |month: &&String| !there.missing_months.contains(month);
        let months = own.missing_months.iter().filter(had).count();
        if months > 0 && !delete {
            return loses(format!("{months} more months"), DELETE);
        }
        let kept: BTreeSet<&str> = own.files.iter().map(|file| file.key.as_str()).collect();
        let lost = there.files.iter().filter(|file| !kept.contains(file.key.as_str())).count();
        if lost > 0 && !delete {
            return loses(format!("{lost} more files"), DELETE);
        }
        if Parts::of(&bytes, self.part_size).etag() != entry.etag && !selection.has(key) {
            return loses("another record of its files".to_owned(), LEFT_OUT);
        }
        Ok(true)
    }
}

/// The folder that an object is in: empty, or with a slash.
fn folder_of(key: &str) -> String {
    key.rfind('/').and_then(|end| key.get(..=end)).unwrap_or_default().to_owned()
}

fn is_named(key: &str, name: &str) -> bool {
    key.rsplit('/').next() == Some(name)
}

/// How the cases of a store at the destination differ from the source's, in words.
fn difference(there: &BTreeSet<Case>, own: &BTreeSet<Case>) -> String {
    let lost: Vec<Case> = there.difference(own).copied().collect();
    let lacks: Vec<Case> = own.difference(there).copied().collect();
    match (lost.is_empty(), lacks.is_empty()) {
        (true, true) => "it has the same cases, made anew".to_owned(),
        (false, true) => format!("it has {}, which the source lacks", in_short(&lost)),
        (true, false) => format!("it lacks {}, which the source has", in_short(&lacks)),
        (false, false) => {
            let [lost, lacks] = [&lost, &lacks].map(|cases| in_short(cases));
            format!("it has {lost}, which the source lacks, and lacks {lacks}")
        }
    }
}
