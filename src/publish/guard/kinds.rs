//! Refusal to write into a store of another kind, and to write a store among unrelated objects.

use std::collections::BTreeSet;

use super::{ReplacementCheck, load_arrays};
use crate::case_manifest::{
    CASE_MANIFEST, CASES_FOLDER, ManifestSummary, PARTIAL_MANIFEST, RESULT_MARKERS,
    enclosing_raw_history,
};
use crate::encode::zarr::consolidated::HierarchySummary;
use crate::publish::inventory::read_record;
use crate::publish::manifest::Manifest;
use crate::publish::{ObjectEntry, PublishError, is_case_manifest};

impl ReplacementCheck<'_> {
    /// Refuses to write into a store of another kind, to write other files into a store, and to write a
    /// store among unrelated objects.
    pub(in crate::publish) async fn refuse_other_kind(&self) -> Result<(), PublishError> {
        if self.changes.send.is_empty() {
            return Ok(());
        }
        if self.destination.location().is_local()
            && let Some(archive) = enclosing_raw_history(self.destination).await
        {
            let (url, other) = (self.url(""), archive.to_string());
            return Err(PublishError::UnrelatedObjects { url, other });
        }
        if let Some(above) = self.destination.parent()
            && let Some(other) = above.enclosing(&RESULT_MARKERS).await
        {
            let other = other.to_string();
            return Err(PublishError::UnrelatedObjects {
                url: self.destination.location().to_string(),
                other,
            });
        }
        let roots = HierarchySummary::roots(self.inventory.entries.iter().map(|entry| &*entry.key));
        for root in roots.iter().filter(|root| self.sends(root)) {
            let published = load_arrays(self.destination, root).await?;
            let own = load_arrays(self.source, root).await?;
            match (published, own) {
                (Some(published), Some(own)) if published.is_other_kind(&own) => {
                    let (found, wanted) = (published.describe(), own.describe());
                    return Err(PublishError::OtherKind { url: self.url(root), found, wanted });
                }
                (None, _) => self.refuse_among(root).await?,
                _ => {}
            }
        }
        if roots.contains("") {
            return Ok(());
        }
        if self.inventory.entries.iter().any(|entry| entry.key.starts_with(CASES_FOLDER)) {
            // The cases of a store that is sent before its metadata.
            self.refuse_among("").await?;
        }
        if let Some(found) = self.store_at("").await? {
            // While a store is filled, only objects of single cases are sent, without the metadata.
            let own = load_arrays(self.source, "").await?;
            let published = load_arrays(self.destination, "").await?;
            let wanted = match (own, published) {
                (Some(own), Some(published)) if !published.is_other_kind(&own) => return Ok(()),
                (own, _) => own.map_or("no such store".to_owned(), |own| own.describe()),
            };
            return Err(PublishError::OtherKind { url: self.url(""), found, wanted });
        }
        // Published stores that the source does not have and into which it would send other objects.
        let published = self.published_entries().iter().map(|entry| &*entry.key);
        let published = HierarchySummary::roots(published);
        for root in published.difference(&roots).filter(|root| self.sends(root)) {
            let is_part = roots.iter().any(|own| own.starts_with(root.as_str()));
            if let Some(found) = self.store_at(root).await?.filter(|_| !is_part) {
                let wanted = "no such store".to_owned();
                return Err(PublishError::OtherKind { url: self.url(root), found, wanted });
            }
        }
        self.refuse_among_cases().await?;
        self.refuse_cases_among_products().await?;
        self.refuse_other_case_folder().await
    }

    /// Refuses to put the files of a case into another folder than `PPP/MM` of the case at the destination, where
    /// no command would find them.
    async fn refuse_other_case_folder(&self) -> Result<(), PublishError> {
        // Only the first folders of the source can complete the name of a folder of the destination.
        let manifests = self.inventory.entries.iter().map(|entry| &*entry.key);
        let near = manifests.filter(|key| {
            key.strip_suffix(CASE_MANIFEST).is_some_and(|folder| folder.matches('/').count() < 2)
        });
        for key in near {
            let Some((bytes, _)) = self.source.get(key).await? else { continue };
            let record = ManifestSummary::parse_any(&bytes);
            let file = record.as_ref().and_then(|record| record.files.first());
            let Some((own, _)) = file.and_then(|file| file.key.rsplit_once('/')) else { continue };
            let folder = self.url(key.strip_suffix(CASE_MANIFEST).unwrap_or(key));
            if !folder.ends_with(&format!("/{own}")) {
                let url = self.source.location().join(key).to_string();
                return Err(PublishError::OtherCase { url, own: own.to_owned(), folder });
            }
        }
        Ok(())
    }

    /// Refuses to put the folders of cases beside map stores or beside a folder of other cases.
    async fn refuse_cases_among_products(&self) -> Result<(), PublishError> {
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        // The manifest of a case in a folder such as `04`; other programs have files of this name too.
        let is_of_case = |key: &str| match key.strip_suffix(CASE_MANIFEST) {
            Some(folder) => folder.rsplit('/').nth(1).is_some_and(is_number),
            None => is_case_manifest(key),
        };
        let is_in_folders = |entry: &ObjectEntry| {
            is_of_case(&entry.key) && entry.key.split('/').rev().skip(1).all(is_number)
        };
        let is_case = self.inventory.has(CASE_MANIFEST)
            && read_record(self.source, CASE_MANIFEST, self.part_size).await.is_ok();
        if !is_case && !self.inventory.entries.iter().any(is_in_folders) {
            return Ok(());
        }
        let published = self.published_entries().iter().filter(|entry| is_of_case(&entry.key));
        let mut folders: BTreeSet<String> =
            published.filter_map(|entry| Some(entry.key.split_once('/')?.0.to_owned())).collect();
        folders.extend(self.destination.list_folders("").await?);
        folders.retain(|folder| !is_number(folder) && !folder.starts_with('.'));
        for other in folders {
            let folder = format!("{other}/");
            let has_cases = || {
                let mut published = self.published_entries().iter();
                published.any(|entry| entry.key.starts_with(&folder) && is_of_case(&entry.key))
            };
            let part = Manifest::load_product(self.destination, &other, self.part_size).await?;
            let is_published = part.is_some_and(|part| !part.entries.is_empty());
            let is_own = self.inventory.entries.iter().any(|entry| entry.key.starts_with(&folder));
            if has_cases() || is_published && !is_own || self.store_at(&folder).await?.is_some() {
                return Err(PublishError::UnrelatedObjects { url: self.url(""), other });
            }
        }
        Ok(())
    }

    /// A description of the map store at the destination, if it has consolidated metadata or records of
    /// cases.
    async fn store_at(&self, root: &str) -> Result<Option<String>, PublishError> {
        if let Some(arrays) = load_arrays(self.destination, root).await? {
            return Ok(Some(arrays.describe()));
        }
        let cases = self.recorded(root).await?.len();
        Ok((cases > 0).then(|| format!("a map store of {cases} case(s) without its metadata")))
    }

    /// Refuses to put the files of a single case beside the folders of polygons.
    async fn refuse_among_cases(&self) -> Result<(), PublishError> {
        if !self.inventory.has(CASE_MANIFEST)
            || self.destination.head(CASE_MANIFEST).await?.is_some()
        {
            return Ok(());
        }
        let mut folders = self.destination.list_folders("").await?.into_iter();
        match folders.find(|name| is_digits(name, 3)) {
            None => Ok(()),
            Some(other) => Err(PublishError::UnrelatedObjects { url: self.url(""), other }),
        }
    }

    /// Refuses to put a store into a folder with other folders or with a case. Folders that the source
    /// also has may be those of an interrupted publish.
    async fn refuse_among(&self, root: &str) -> Result<(), PublishError> {
        let folder = root.trim_end_matches('/');
        for name in [CASE_MANIFEST, PARTIAL_MANIFEST] {
            let record = format!("{root}{name}");
            if !self.inventory.has(&record) && self.destination.head(&record).await?.is_some() {
                return Err(PublishError::UnrelatedObjects {
                    url: self.url(root),
                    other: name.to_owned(),
                });
            }
        }
        let below = |key: &str| {
            let name = key.strip_prefix(root)?.split('/').next()?;
            (!name.starts_with('.')).then(|| name.to_owned())
        };
        let own: BTreeSet<String> =
            self.inventory.entries.iter().filter_map(|entry| below(&entry.key)).collect();
        // Only folders are compared: a file such as a README beside the store is allowed.
        let folders = self.destination.list_folders(folder).await?.into_iter();
        let foreign = folders.filter_map(|key| below(&key)).find(|name| !own.contains(name));
        match foreign {
            None => Ok(()),
            Some(other) => Err(PublishError::UnrelatedObjects { url: self.url(root), other }),
        }
    }
}

/// Whether a name has `number` digits and nothing else.
fn is_digits(name: &str, number: usize) -> bool {
    name.len() == number && name.bytes().all(|byte| byte.is_ascii_digit())
}
