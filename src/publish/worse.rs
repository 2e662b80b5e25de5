//! What lies at a destination is not replaced by something worse unless that is asked for by name, and never by
//! something of another kind. What lies there decides, not who put it there.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};

use super::arrays::Arrays;
use super::audit::md5_of;
use super::hashes::hash;
use super::inventory::{Inventory, Record, read_record};
use super::plan::{Plan, stage};
use super::prepare::{Options, names};
use super::published::Published;
use super::{Digest, PublishError};
use crate::encode::zarr::chunk;
use crate::ledger::{CASES, COMPLETE, SHARED, TOGETHER};
use crate::model::Case;
use crate::model::atlas::FILL;
use crate::model::case::in_short;
use crate::store::{ObjectInfo, Store};

/// How to publish without what is no longer in the source, and how to replace what is better.
const DELETE: &str = "add --delete to publish without it";
const REPLACE: &str = "replace what is published with --overwrite";
/// Records that are compared at the same time.
const READS: usize = 32;

/// What a publish would do to what is published.
pub(super) struct Change<'a> {
    pub source: &'a Store,
    pub destination: &'a Store,
    pub inventory: &'a Inventory,
    pub plan: &'a Plan,
    /// What the last publish left, if it has ended.
    pub published: Option<&'a Published>,
    /// Whether one has begun and not ended: what lies there may be its own.
    pub is_unfinished: bool,
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
        let is_store = roots.contains("");
        if !is_store && let Some(there) = Arrays::load(self.destination, "").await? {
            return Err(PublishError::OtherKind {
                url: self.url(""),
                found: there.named(),
                wanted: "no such store".to_owned(),
            });
        }
        Ok(())
    }

    /// Refuses to put a store into a folder that holds folders of something else. A publish that was interrupted has
    /// left a part.
    async fn refuse_among(&self, root: &str) -> Result<(), PublishError> {
        let folder = root.trim_end_matches('/');
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
    /// other rules, or that were extended where they are published; and research-grade files by such without a
    /// grid file or of fewer months.
    pub async fn refuse_worse(&self, options: &Options) -> Result<(), PublishError> {
        // Of a store that nobody has put together, only objects of single cases go out.
        if !options.selection.unfinished {
            for root in self.stores() {
                if options.selection.has(&format!("{root}{CASES}/{SHARED}")) {
                    self.refuse_worse_store(&root, options.delete).await?;
                }
            }
        }
        let is_record = |key: &&str| {
            let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
            let is_of_store = folder == CASES || folder.ends_with(&format!("/{CASES}"));
            name == COMPLETE || is_of_store && name != SHARED
        };
        let sent = self.plan.send.iter().map(|(entry, _)| &*entry.key);
        let records: Vec<String> = sent.filter(is_record).map(str::to_owned).collect();
        let compare = async |key: String| self.refuse_worse_case(&key, options.delete).await;
        stream::iter(records).map(compare).buffer_unordered(READS).try_collect().await
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

    async fn refuse_worse_store(&self, root: &str, delete: bool) -> Result<(), PublishError> {
        let key = format!("{root}{CASES}/{SHARED}");
        let url = self.url(root);
        let loses =
            |what: String, advice| Err(PublishError::Loses { url: url.clone(), what, advice });
        let found = self.destination.read(&key).await?;
        let there = found.as_ref().and_then(|(bytes, _)| serde_json::from_slice(bytes).ok());
        let there: Option<Record> = there;
        let own = match self.inventory.has(&key) {
            true => read_record(self.source, &key).await?,
            false => None,
        };
        let named = |record: Option<&Record>| -> BTreeSet<Case> {
            let cases = record.into_iter().flat_map(|record| &record.cases);
            cases.filter_map(|case| case.parse().ok()).collect()
        };
        let mut cases = named(there.as_ref());
        cases.extend(self.recorded(root).await?);
        let own_cases = named(own.as_ref().map(|(record, _)| record));
        let lost: Vec<Case> = cases.difference(&own_cases).copied().collect();
        if let (Some((bytes, _)), Some((_, entry))) = (&found, &own) {
            let found = Digest::of(bytes);
            let before = names(self.published, &key).map(|before| before.md5);
            if before.is_some_and(|before| before != found) && found != entry.md5 {
                let difference = difference(&lost, &cases, &own_cases);
                return Err(PublishError::Extended { url, difference });
            }
        }
        if found.is_some() && own.is_none() {
            return loses("the records of its cases (.cases)".to_owned(), REPLACE);
        }
        if !lost.is_empty() && !delete {
            return loses(in_short(&lost), DELETE);
        }
        let arrays = Arrays::load(self.destination, root).await?;
        if let Some(arrays) = arrays.as_ref().filter(|_| cases.is_empty())
            && self.replaces_unrecorded(root, arrays).await?
        {
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

    /// Whether values of a map store without records would be replaced.
    async fn replaces_unrecorded(&self, root: &str, arrays: &Arrays) -> Result<bool, PublishError> {
        if arrays.is_pyramid() {
            return self
                .replaces_others(root, |key| stage(key) == 0)
                .await
                .map(|number| number > 0);
        }
        for (entry, _) in self.plan.send.iter().filter(|(entry, _)| stage(&entry.key) == 0) {
            let path = entry.key.strip_prefix(root).and_then(|key| key.rsplit_once('/'));
            let Some(floats) = path.and_then(|(path, _)| arrays.floats.get(path)) else { continue };
            let most = (*floats as u64).saturating_mul(5).saturating_add(1 << 20);
            let Some((bytes, _)) = self.destination.read_within(&entry.key, most).await? else {
                continue;
            };
            let is_empty = || {
                let values = chunk::decode_floats(&bytes, *floats);
                values.is_ok_and(|values| values.iter().all(|value| *value == FILL))
            };
            if Digest::of(&bytes) != entry.md5 && !is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many of the objects below `folder` that are sent would replace others there.
    async fn replaces_others(
        &self,
        folder: &str,
        concerns: impl Fn(&str) -> bool,
    ) -> Result<usize, PublishError> {
        if self.is_unfinished {
            return Ok(0);
        }
        let listed = self.destination.list(folder.trim_end_matches('/')).await?;
        let listed: HashMap<&str, &ObjectInfo> =
            listed.iter().map(|info| (info.key.as_str(), info)).collect();
        let mut number = 0;
        for (entry, _) in &self.plan.send {
            let is_below = entry.key.starts_with(folder) && concerns(&entry.key);
            let Some(info) = listed.get(&*entry.key).filter(|_| is_below) else { continue };
            let is_same = info.size == entry.size
                && match md5_of(self.destination, info) {
                    Some(md5) => md5 == entry.md5,
                    None => hash(&self.destination.object(&entry.key).await?).await? == entry.md5,
                };
            number += usize::from(!is_same);
        }
        Ok(number)
    }

    /// Cases that have a record in a map store at the destination.
    async fn recorded(&self, root: &str) -> Result<BTreeSet<Case>, PublishError> {
        let found = self.destination.list(&format!("{root}{CASES}")).await?;
        let case = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        Ok(found.iter().filter_map(|object| case(&object.key)).collect())
    }

    async fn refuse_worse_case(&self, key: &str, delete: bool) -> Result<(), PublishError> {
        let loses = |what: String, advice| {
            let url = self.destination.location().join(key).to_string();
            Err(PublishError::Loses { url, what, advice })
        };
        let Some((bytes, _)) = self.destination.read(key).await? else {
            let Some(folder) = key.strip_suffix(COMPLETE) else { return Ok(()) };
            return match self.replaces_others(folder, |key| key.ends_with(".nc")).await? {
                0 => Ok(()),
                others => loses(format!("{others} other files, without a record"), REPLACE),
            };
        };
        let Ok(there) = serde_json::from_slice::<Record>(&bytes) else { return Ok(()) };
        let Some((own, _)) = read_record(self.source, key).await? else { return Ok(()) };
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
        match lost == 0 || delete {
            true => Ok(()),
            false => loses(format!("{lost} more files"), DELETE),
        }
    }
}

/// How the cases of a store at the destination differ from the source's, in words.
fn difference(lost: &[Case], there: &BTreeSet<Case>, own: &BTreeSet<Case>) -> String {
    let lacks: Vec<Case> = own.difference(there).copied().collect();
    match (lost.is_empty(), lacks.is_empty()) {
        (true, true) => "it has the same cases, made anew".to_owned(),
        (false, true) => format!("it has {}, which the source lacks", in_short(lost)),
        (true, false) => format!("it lacks {}, which the source has", in_short(&lacks)),
        (false, false) => {
            let [lost, lacks] = [lost, &lacks].map(in_short);
            format!("it has {lost}, which the source lacks, and lacks {lacks}")
        }
    }
}
