//! Comparison of the case manifests and map stores: a poorer result does not replace a richer one.

use std::collections::BTreeSet;

use chrono::SecondsFormat;

use super::{
    ADVICE_DATA, ADVICE_DELETE, ADVICE_MANIFEST, ADVICE_REPLACE, ReplacementCheck, folder_of,
    load_arrays,
};
use crate::case_manifest::{
    CASE_MANIFEST, CASES_FOLDER, Loss, ManifestSummary, RECIPE_FILE, SHARED_MANIFEST,
};
use crate::model::case::describe_cases;
use crate::model::{Case, ETag, Parts};
use crate::publish::changes::upload_phase;
use crate::publish::inventory::read_record;
use crate::publish::manifest::{Manifest, find};
use crate::publish::options::PublishOptions;
use crate::publish::{ObjectEntry, PublishError, is_case_manifest};

/// The loss when the source has an earlier result than the destination.
const LATER: &str = "a later result of this case: a publish has replaced that of the source by it";
/// The loss when the source has an earlier result than the one that was deleted at the destination.
const REMOVED: &str = "a later result of this case in its history, which a publish has deleted: that of the source is earlier";

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
                return Err(PublishError::WouldLose { url, what, advice: ADVICE_MANIFEST });
            }
        }
        Ok(())
    }

    /// Refuses to send the case manifests or the metadata of data that patterns leave out, unless the
    /// destination has this data.
    pub(super) fn refuse_without_data(&self) -> Result<(), PublishError> {
        let left_out = self.inventory.excluded.iter().filter(|entry| upload_phase(&entry.key) == 0);
        let absent = left_out.filter(|e| find(self.published_entries(), &e.key) != Some(*e));
        let sent = self.changes.send.iter().map(|(entry, _)| &*entry.key);
        let sent: BTreeSet<String> =
            sent.filter(|key| upload_phase(key) > 0).map(folder_of).collect();
        let stores = self.stores();
        let mut absent = absent.filter(|entry| {
            // Of a store, each case manifest and all metadata; of research-grade files, those of the case.
            match stores.iter().find(|root| entry.key.starts_with(root.as_str())) {
                Some(root) => sent.iter().any(|folder| folder.starts_with(root.as_str())),
                None => sent.contains(&folder_of(&entry.key)),
            }
        });
        let Some(first) = absent.next() else { return Ok(()) };
        let url = self.source.location().to_string();
        let what = format!("data that patterns leave out, such as {}", first.key);
        Err(PublishError::WouldLose { url, what, advice: ADVICE_DATA })
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
                return loses(format!("another case manifest ({key})"), ADVICE_MANIFEST);
            }
        }
        if let (Some(published), Some((own, _))) = (&published, &own)
            && let Some(case) = other_values(published, own, options)
        {
            let what = format!("other values of case {case}, which --case leaves out");
            return loses(what, "publish the whole store");
        }
        let lost: Vec<Case> = cases.difference(&own_cases).copied().collect();
        if found.is_some() && own.is_none() {
            return loses(
                "the manifests of its cases (.cases), which the source lacks".to_owned(),
                ADVICE_REPLACE,
            );
        }
        if !lost.is_empty() && !options.delete {
            return loses(
                format!("{}, which the source lacks", describe_cases(&lost)),
                ADVICE_DELETE,
            );
        }
        let arrays = load_arrays(self.destination, root).await?;
        let is_store = published.is_some() || arrays.is_some();
        if cases.is_empty() && self.replaces_unrecorded(root, arrays.as_ref()).await? {
            return loses(
                "values of cases without a case manifest (.cases), which the source lacks"
                    .to_owned(),
                ADVICE_REPLACE,
            );
        }
        if let (Some(arrays), Some(own)) = (arrays, load_arrays(self.source, root).await?)
            && let Some(path) = arrays.paths.difference(&own.paths).next()
            && !options.delete
        {
            let number = arrays.paths.difference(&own.paths).count();
            return loses(
                format!("{number} more arrays than the source, such as {path}"),
                ADVICE_DELETE,
            );
        }
        match (published.map(|record| record.recipe), own.map(|(record, _)| record.recipe)) {
            (Some(rules), Some(own)) if !rules.is_null() && rules != own => loses(
                format!(
                    "results made under other rules than the source ({rules}; the source has {own})"
                ),
                ADVICE_REPLACE,
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
        let results = self.published.and_then(|manifest| manifest.results.get(key));
        let results = results.map_or(&[][..], Vec::as_slice);
        let is_earlier = |own: &ManifestSummary| {
            results.split_last().is_some_and(|(_, earlier)| earlier.contains(&own.result_etag()))
        };
        let found = self.destination.get(key).await?;
        let published = found.as_ref().and_then(|(bytes, _)| ManifestSummary::parse_any(bytes));
        let (Some((bytes, _)), Some(published)) = (found, published) else {
            // Other programs write files of this name too.
            let own = match results {
                [] => None,
                _ => self.source.get(key).await?,
            };
            let own = own.and_then(|(bytes, _)| ManifestSummary::parse_any(&bytes));
            return match own.is_some_and(|own| is_earlier(&own)) {
                true => loses(REMOVED.to_owned(), ADVICE_REPLACE),
                false => Ok(false),
            };
        };
        let Some((own, entry)) = read_record(self.source, key, self.part_size).await? else {
            return loses("a case manifest, which the source lacks".to_owned(), ADVICE_REPLACE);
        };
        match published.loss(&own) {
            Some(Loss::Grid) => {
                return loses(
                    "the full grid (it was made with --grid), which the source lacks".to_owned(),
                    ADVICE_REPLACE,
                );
            }
            Some(Loss::Inputs) => {
                let what = "the inputs of the case, which an adopted result lacks".to_owned();
                return loses(what, ADVICE_REPLACE);
            }
            Some(Loss::Shape) => {
                let [had, has] = [&published, &own].map(ManifestSummary::shape_text);
                return loses(
                    format!("this case on another model grid, of {had} (the source has {has})"),
                    ADVICE_REPLACE,
                );
            }
            Some(Loss::Months(months)) if !options.delete => {
                return loses(format!("{months} more months than the source"), ADVICE_DELETE);
            }
            Some(Loss::Files(files)) if !options.delete => {
                return loses(format!("{files} more files than the source"), ADVICE_DELETE);
            }
            _ => {}
        }
        let etag = Parts::of(&bytes, self.part_size).etag();
        if etag == entry.etag {
            return Ok(true);
        }
        // Where only the times of input files differ, the result is the same.
        let [own_result, published_result] = [&own, &published].map(|record| record.result_etag());
        if own_result == published_result {
            return Ok(true);
        }
        if is_earlier(&own) {
            return loses(LATER.to_owned(), ADVICE_REPLACE);
        }
        if let Some((input, times)) = published.newer_input(&own) {
            let [newer, older] = times.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true));
            let what = format!(
                "a result of a newer version of {input} (of {newer}; that of the source is of {older})"
            );
            return loses(what, ADVICE_REPLACE);
        }
        if !options.selection.has(key) {
            return loses("another case manifest".to_owned(), ADVICE_MANIFEST);
        }
        // Of two results with the same months and settings, either may be the newer one.
        let is_sent = |list: &&[ObjectEntry]| find(list, key).is_some_and(|e| e.etag == etag);
        let is_last_sent = results.last() == Some(&published_result);
        let is_better = own.loss(&published).is_some();
        let is_sent = is_better || is_last_sent || self.sent_versions.iter().any(is_sent);
        if !is_sent && !self.is_sent_to_a_part(key, published_result).await? {
            return loses(
                "another result of this case, which no publish has sent".to_owned(),
                ADVICE_REPLACE,
            );
        }
        Ok(true)
    }

    /// Whether a publish to the folder of the case, or of its polygon, has sent this result last.
    async fn is_sent_to_a_part(&self, key: &str, result: ETag) -> Result<bool, PublishError> {
        let folders = key.match_indices('/').filter_map(|(end, _)| key.get(..end));
        for folder in folders {
            let part = Manifest::load_product(self.destination, folder, self.part_size).await?;
            let results = part.and_then(|part| part.results.get(key).cloned());
            if results.is_some_and(|results| results.last() == Some(&result)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A case that is not selected, and whose values in the shared chunks of a store would change.
fn other_values(
    published: &ManifestSummary,
    own: &ManifestSummary,
    options: &PublishOptions,
) -> Option<String> {
    if options.selection.cases.is_empty() || published.values_sha256.is_empty() {
        return None;
    }
    let is_other = |name: &&String| {
        let is_selected = name.parse().is_ok_and(|case| options.selection.has_case(&case));
        !is_selected && published.values_sha256.get(*name) != own.values_sha256.get(*name)
    };
    published.values_sha256.keys().chain(own.values_sha256.keys()).find(is_other).cloned()
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
