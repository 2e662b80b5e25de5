//! Comparison of the case manifests and map stores: a poorer result does not replace a richer one.

use std::collections::BTreeSet;

use super::{DELETE, LEFT_OUT, REPLACE, ReplacementCheck, folder_of, load_arrays};
use crate::case_manifest::{
    CASE_MANIFEST, CASES_FOLDER, Loss, ManifestObject, ManifestSummary, RECIPE_FILE,
    SHARED_MANIFEST,
};
use crate::model::case::describe_cases;
use crate::model::{Case, Parts};
use crate::publish::inventory::read_record;
use crate::publish::manifest::{find, versions};
use crate::publish::options::PublishOptions;
use crate::publish::{ObjectEntry, PublishError, is_case_manifest};

impl ReplacementCheck<'_> {
    /// Refuses to delete objects of a case whose record the source no longer has, if a pattern leaves the
    /// record itself out of the deletes.
    pub(super) async fn refuse_partial_deletes(
        &self,
        options: &PublishOptions,
    ) -> Result<(), PublishError> {
        let stays = |entry: &&ObjectEntry| !options.selection.has(&entry.key);
        for record in self.published_entries().iter().filter(stays) {
            let root = match record.key.rsplit_once('/') {
                _ if is_named(&record.key, CASE_MANIFEST) => folder_of(&record.key),
                Some((folder, name)) if name != SHARED_MANIFEST && name != RECIPE_FILE => {
                    match folder.strip_suffix(CASES_FOLDER) {
                        Some(root) => root.to_owned(),
                        None => continue,
                    }
                }
                _ => continue,
            };
            let deletes = self.changes.deletes.iter().any(|deletes| deletes.key.starts_with(&root));
            if deletes && self.source.head(&record.key).await?.is_none() {
                let url = self.url(&root);
                let what =
                    format!("the case manifest {} of objects that would be deleted", record.key);
                return Err(PublishError::WouldLose { url, what, advice: LEFT_OUT });
            }
        }
        Ok(())
    }

    /// Keys of the case records of map stores that are sent, and of those that a pattern leaves out of
    /// stores of which an object is sent.
    pub(super) async fn records_of_stores(
        &self,
        options: &PublishOptions,
    ) -> Result<BTreeSet<String>, PublishError> {
        let is_of_case = |key: &str| is_case_manifest(key) && !is_named(key, CASE_MANIFEST);
        let sent = self.changes.send.iter().map(|(entry, _)| &*entry.key);
        let mut records: BTreeSet<String> =
            sent.filter(|key| is_of_case(key)).map(str::to_owned).collect();
        for root in self.stores() {
            let found = self.source.list(&format!("{root}{CASES_FOLDER}")).await?.into_iter();
            let left_out = found.map(|object| object.key).filter(|key| is_of_case(key));
            records.extend(left_out.filter(|key| !options.selection.has(key)));
        }
        Ok(records)
    }

    /// Folders of the NetCDF files that are sent; each is empty or ends with a slash.
    pub(super) fn folders_of_files(&self) -> BTreeSet<String> {
        let sent = self.changes.send.iter().map(|(entry, _)| &*entry.key);
        sent.filter(|key| key.ends_with(".nc") || is_named(key, CASE_MANIFEST))
            .map(folder_of)
            .collect()
    }

    /// Compares the shared records, cases and arrays of a map store at the destination and in the source.
    /// Returns whether the destination has a map store.
    pub(super) async fn refuse_worse_store(
        &self,
        root: &str,
        options: &PublishOptions,
    ) -> Result<bool, PublishError> {
        let key = format!("{root}{CASES_FOLDER}/{SHARED_MANIFEST}");
        let url = self.url(root);
        let loses =
            |what: String, advice| Err(PublishError::WouldLose { url: url.clone(), what, advice });
        let found = self.destination.get(&key).await?.map(|(bytes, _)| bytes);
        let published = found.as_ref().and_then(|bytes| ManifestSummary::parse_any(bytes));
        let own = read_record(self.source, &key, self.part_size).await?;
        let mut cases = cases_of(published.as_ref());
        cases.extend(self.recorded(root).await?);
        let own_cases = cases_of(own.as_ref().map(|(record, _)| record));
        if let (Some(bytes), Some((_, entry))) = (&found, &own) {
            let etag = Parts::of(bytes, self.part_size).etag();
            let mut sent = self.sent_versions.iter().filter_map(|list| find(list, &key)).peekable();
            let is_sent = sent.peek().is_none() || sent.any(|entry| entry.etag == etag);
            if !is_sent && etag != entry.etag {
                let difference = difference(&cases, &own_cases);
                return Err(PublishError::FinalizedAtDestination { url, difference });
            }
            if etag != entry.etag && !options.selection.has(&key) {
                return loses(format!("another case manifest ({key})"), LEFT_OUT);
            }
        }
        let lost: Vec<Case> = cases.difference(&own_cases).copied().collect();
        if found.is_some() && own.is_none() {
            return loses(
                "the manifests of its cases (.cases), which the source lacks".to_owned(),
                REPLACE,
            );
        }
        if !lost.is_empty() && !options.delete {
            return loses(format!("{}, which the source lacks", describe_cases(&lost)), DELETE);
        }
        let arrays = load_arrays(self.destination, root).await?;
        let is_store = published.is_some() || arrays.is_some();
        if cases.is_empty() && self.replaces_unrecorded(root, arrays.as_ref()).await? {
            return loses(
                "values of cases without a case manifest (.cases), which the source lacks"
                    .to_owned(),
                REPLACE,
            );
        }
        if let (Some(arrays), Some(own)) = (arrays, load_arrays(self.source, root).await?)
            && let Some(path) = arrays.paths.difference(&own.paths).next()
            && !options.delete
        {
            let number = arrays.paths.difference(&own.paths).count();
            return loses(format!("{number} more arrays than the source, such as {path}"), DELETE);
        }
        match (published.map(|record| record.recipe), own.map(|(record, _)| record.recipe)) {
            (Some(rules), Some(own)) if !rules.is_null() && rules != own => loses(
                format!(
                    "results made under other rules than the source ({rules}; the source has {own})"
                ),
                REPLACE,
            ),
            _ => Ok(is_store),
        }
    }

    /// Cases of a map store at the destination that have a record.
    pub(super) async fn recorded(&self, root: &str) -> Result<BTreeSet<Case>, PublishError> {
        let found = self.destination.list(&format!("{root}{CASES_FOLDER}")).await?;
        let case = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
        Ok(found.iter().filter_map(|object| case(&object.key)).collect())
    }

    /// Compares the record of a case at the destination with that of the source. A result that no publish
    /// has sent is replaced only by a better one. Returns whether the destination has a record.
    pub(super) async fn refuse_worse_case(
        &self,
        key: &str,
        options: &PublishOptions,
    ) -> Result<bool, PublishError> {
        let loses = |what: String, advice| {
            let url = self.destination.location().join(key).to_string();
            Err(PublishError::WouldLose { url, what, advice })
        };
        let Some((bytes, _)) = self.destination.get(key).await? else { return Ok(false) };
        let Some(published) = ManifestSummary::parse_any(&bytes) else { return Ok(false) };
        let Some((own, entry)) = read_record(self.source, key, self.part_size).await? else {
            return loses("a case manifest, which the source lacks".to_owned(), REPLACE);
        };
        match published.loss(&own) {
            Some(Loss::Grid) => {
                return loses(
                    "the full grid (it was made with --grid), which the source lacks".to_owned(),
                    REPLACE,
                );
            }
            Some(Loss::Inputs) => {
                let what = "the inputs of the case, which an adopted result lacks".to_owned();
                return loses(what, REPLACE);
            }
            Some(Loss::Months(months)) if !options.delete => {
                return loses(format!("{months} more months than the source"), DELETE);
            }
            Some(Loss::Files(files)) if !options.delete => {
                return loses(format!("{files} more files than the source"), DELETE);
            }
            _ => {}
        }
        let etag = Parts::of(&bytes, self.part_size).etag();
        if etag == entry.etag {
            return Ok(true);
        }
        let older = self.published.map_or(&[][..], |manifest| versions(&manifest.replaced, key));
        if older.iter().any(|older| older.etag == entry.etag) {
            let what =
                "a newer result of this case: a later publish has replaced that of the source";
            return loses(what.to_owned(), REPLACE);
        }
        if !options.selection.has(key) {
            return loses("another case manifest".to_owned(), LEFT_OUT);
        }
        // Of two results with the same months and settings, either may be the newer one.
        // Keys of research-grade files begin with the folder of the case, those of chunks do not.
        let key_of = |file: &ManifestObject| match key.strip_suffix(CASE_MANIFEST) {
            Some(folder) => format!("{folder}{}", file.key.rsplit('/').next().unwrap_or_default()),
            None => {
                let root = key.rsplit_once(CASES_FOLDER).map_or("", |(root, _)| root);
                format!("{root}{}", file.key)
            }
        };
        let has = |list: &[ObjectEntry], key: &str, etag| {
            find(list, key).is_some_and(|entry| entry.etag == etag)
        };
        // Its case manifest is written again where only the times of input files have changed.
        let is_sent = |list: &&[ObjectEntry]| {
            let mut files = published.files.iter();
            has(list, key, etag)
                || !published.files.is_empty()
                    && files.all(|file| has(list, &key_of(file), file.md5.etag()))
        };
        let is_better = own.loss(&published).is_some();
        if !is_better && !self.sent_versions.iter().any(is_sent) {
            return loses(
                "another result of this case, which no publish has sent".to_owned(),
                REPLACE,
            );
        }
        Ok(true)
    }
}

/// The cases that the record of a store names.
fn cases_of(record: Option<&ManifestSummary>) -> BTreeSet<Case> {
    let cases = record.into_iter().flat_map(|record| &record.cases);
    cases.filter_map(|case| case.parse().ok()).collect()
}

/// Whether the last part of a key is `name`.
fn is_named(key: &str, name: &str) -> bool {
    key.rsplit('/').next() == Some(name)
}

/// A description of the difference between the cases of a published store and those of the source.
fn difference(published: &BTreeSet<Case>, own: &BTreeSet<Case>) -> String {
    let lost: Vec<Case> = published.difference(own).copied().collect();
    let lacks: Vec<Case> = own.difference(published).copied().collect();
    match (lost.is_empty(), lacks.is_empty()) {
        (true, true) => "it has the same cases with other contents".to_owned(),
        (false, true) => format!("it has {}, which the source lacks", describe_cases(&lost)),
        (true, false) => format!("it lacks {}, which the source has", describe_cases(&lacks)),
        (false, false) => {
            let [lost, lacks] = [&lost, &lacks].map(|cases| describe_cases(cases));
            format!("it has {lost}, which the source lacks, and lacks {lacks}")
        }
    }
}
