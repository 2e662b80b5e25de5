//! Status of cases, from listings of raw and research-grade files and from the case manifests.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::plan::{month_in_name, raw_folder};
use crate::case_manifest::{CASE_MANIFEST, CaseManifest, CaseManifestError, PARTIAL_MANIFEST};
use crate::encode::research as layout;
use crate::model::case::MONTHS;
use crate::model::{Case, YearMonth};
use crate::store::{ObjectMeta, Store, StoreError};

/// Largest number of cases with one listing each. For more cases, a bucket that holds nothing else is listed
/// as a whole, which takes fewer requests.
const MAX_SINGLE_LISTINGS: usize = 24;
/// Listings at the same time.
const CONCURRENT_LISTINGS: usize = 16;
/// Case manifests that are read at the same time.
const CONCURRENT_READS: usize = 32;

/// Progress of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CaseState {
    /// Raw files only.
    Raw,
    /// Some research-grade files, or a partial manifest.
    Partial,
    /// The manifest of the complete case, and a research-grade file for every raw file.
    Done,
    /// Research-grade files that the manifest lists are absent or of another size.
    Damaged,
    /// Neither raw nor research-grade files.
    Missing,
}

/// Files of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseStatus {
    /// The surveyed case.
    pub case: Case,
    /// Number of months with a raw file, at most 180.
    pub raw: usize,
    /// Number of months with a research-grade file, at most 180.
    pub outputs: usize,
    /// Progress of the conversion.
    pub state: CaseState,
    /// Differences of the research-grade files from the manifest that a listing shows.
    pub problems: Vec<String>,
}

/// Differences between a manifest and the listing of its folder: absent files, and files of another size.
pub fn wrong_outputs(record: &CaseManifest, listed: &[ObjectMeta]) -> Vec<String> {
    let sizes: BTreeMap<&str, u64> = listed.iter().map(|o| (o.key.as_str(), o.size)).collect();
    let difference = |file: &crate::case_manifest::FileRecord| match sizes.get(file.key.as_str()) {
        None => Some(format!("{} is gone", file.key)),
        Some(size) if *size == file.content.size => None,
        Some(size) => {
            Some(format!("{} has {size} bytes, recorded {}", file.key, file.content.size))
        }
    };
    record.files.iter().filter_map(difference).collect()
}

/// Surveys cases by listings of their folders. The only objects read are the case manifests.
///
/// # Errors
/// A folder cannot be listed, or a manifest cannot be read.
pub async fn case_states(
    raw: &Store,
    out: Option<&Store>,
    cases: &[Case],
) -> Result<Vec<CaseStatus>, StoreError> {
    let mut inputs = MonthsByCase::default();
    let mut outputs = MonthsByCase::default();
    let mut records = BTreeSet::new();
    let mut listed: BTreeMap<Case, Vec<ObjectMeta>> = BTreeMap::new();
    inputs.add(list_cases(raw, cases, raw_folder, is_raw).await?, raw_month);
    if let Some(out) = out {
        let objects = list_cases(out, cases, layout::folder, is_output).await?;
        for object in &objects {
            if let Some((folder, name @ (CASE_MANIFEST | PARTIAL_MANIFEST))) =
                object.key.rsplit_once('/')
            {
                records.insert((folder.to_owned(), name == CASE_MANIFEST));
            }
            if let Some((case, _)) = output_month(&object.key) {
                listed.entry(case).or_default().push(object.clone());
            }
        }
        outputs.add(objects, output_month);
    }
    [Some(raw), out].into_iter().flatten().for_each(Store::log_skipped);
    let problems = async |&case: &Case| {
        let exists =
            |name: &&str| records.contains(&(layout::folder(case), *name == CASE_MANIFEST));
        match (out, [CASE_MANIFEST, PARTIAL_MANIFEST].into_iter().find(exists)) {
            (Some(out), Some(name)) => {
                let listed = listed.get(&case).map_or(&[][..], Vec::as_slice);
                problems_of(out, case, name, listed).await
            }
            _ => Ok(Vec::new()),
        }
    };
    let problems: Vec<Vec<String>> =
        stream::iter(cases).map(problems).buffered(CONCURRENT_READS).try_collect().await?;
    let survey = |(&case, problems): (&Case, Vec<String>)| {
        let complete = inputs.of(case).is_subset(outputs.of(case));
        let (raw, outputs) = (inputs.of(case).len(), outputs.of(case).len());
        let has = |complete| records.contains(&(layout::folder(case), complete));
        let state = match (raw, outputs) {
            _ if !problems.is_empty() => CaseState::Damaged,
            (_, 1..) if complete && has(true) => CaseState::Done,
            (_, 1..) => CaseState::Partial,
            _ if has(true) || has(false) => CaseState::Partial,
            (1.., 0) => CaseState::Raw,
            (0, 0) => CaseState::Missing,
        };
        CaseStatus { case, raw, outputs, state, problems }
    };
    Ok(cases.iter().zip(problems).map(survey).collect())
}

/// Differences of the files of a case from its manifest `name`. A manifest that is not valid is a difference.
async fn problems_of(
    out: &Store,
    case: Case,
    name: &str,
    listed: &[ObjectMeta],
) -> Result<Vec<String>, StoreError> {
    match CaseManifest::load(out, &layout::folder(case), name).await {
        Ok(record) => Ok(record.map_or_else(Vec::new, |record| wrong_outputs(&record, listed))),
        Err(CaseManifestError::Store(error)) => Err(error),
        Err(error) => Ok(vec![error.to_string()]),
    }
}

/// Months of each case that have a file.
#[derive(Default)]
struct MonthsByCase(BTreeMap<Case, BTreeSet<YearMonth>>);

impl MonthsByCase {
    /// Adds the months that `month` finds in the keys of objects, if they are months of the case.
    fn add(&mut self, objects: Vec<ObjectMeta>, month: fn(&str) -> Option<(Case, YearMonth)>) {
        for object in objects {
            if let Some((case, month)) = month(&object.key)
                && (0..MONTHS as i32).contains(&month.months_since(case.first_month()))
            {
                self.0.entry(case).or_default().insert(month);
            }
        }
    }

    fn of(&self, case: Case) -> &BTreeSet<YearMonth> {
        const NONE: &BTreeSet<YearMonth> = &BTreeSet::new();
        self.0.get(&case).unwrap_or(NONE)
    }
}

/// Lists the objects of cases. `folder` is the folder of a case, and `ours` recognizes keys of its objects.
async fn list_cases(
    store: &Store,
    cases: &[Case],
    folder: fn(Case) -> String,
    ours: fn(&str) -> bool,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let mut folders: Vec<String> = cases.iter().map(|&case| folder(case)).collect();
    if cases.len() > MAX_SINGLE_LISTINGS {
        let first = |folder: &str| folder.split('/').next().unwrap_or(folder).to_owned();
        let case_folders: BTreeSet<String> = Case::all().map(|case| first(&folder(case))).collect();
        let is_ours = {
            let case_folders = case_folders.clone();
            move |key: &str| case_folders.contains(key)
        };
        let present = store.list_expecting_folders("", is_ours).await;
        let present = present.map_err(|error| with_store_url(store, error))?;
        if !store.location().is_local()
            && present.iter().all(|folder| case_folders.contains(folder))
        {
            folders = if present.is_empty() { Vec::new() } else { vec![String::new()] };
        } else {
            let present: BTreeSet<String> = present.into_iter().collect();
            folders.retain(|folder| present.contains(&first(folder)));
        }
    }
    let list = async |folder: String| {
        let listed = store.list_expecting_files(&folder, ours).await;
        listed.map_err(|error| with_store_url(store, error))
    };
    let listed = stream::iter(folders).map(list).buffered(CONCURRENT_LISTINGS);
    Ok(listed.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

/// Replaces the URL of an absent bucket, which is that of the first case, by the URL of the store.
fn with_store_url(store: &Store, error: StoreError) -> StoreError {
    match error {
        StoreError::NoSuchBucket { bucket, endpoint, .. } => {
            StoreError::NoSuchBucket { url: store.location().to_string(), bucket, endpoint }
        }
        other => other,
    }
}

/// Whether a key is that of a raw file.
fn is_raw(key: &str) -> bool {
    raw_month(key).is_some()
}

/// Whether a key is that of a research-grade file or of a case manifest.
fn is_output(key: &str) -> bool {
    output_month(key).is_some()
        || key.rsplit_once('/').is_some_and(|(folder, name)| {
            [CASE_MANIFEST, PARTIAL_MANIFEST].contains(&name)
                && folder.replace('/', "-").parse().is_ok_and(|c: Case| layout::folder(c) == folder)
        })
}

/// Case and month of a raw file's key.
fn raw_month(key: &str) -> Option<(Case, YearMonth)> {
    let case: Case = key.split('/').next()?.parse().ok()?;
    key.starts_with(&raw_folder(case)).then(|| Some((case, month_in_name(case, key)?)))?
}

/// Case and month of a research-grade file's key.
pub(super) fn output_month(key: &str) -> Option<(Case, YearMonth)> {
    let mut parts = key.splitn(3, '/');
    let (polygon, month) = (parts.next()?, parts.next()?);
    let case: Case = format!("{polygon}-{month}").parse().ok()?;
    let stem = key.strip_suffix(".nc")?;
    let month: YearMonth = stem.get(stem.len().checked_sub(7)?..)?.parse().ok()?;
    (layout::key(case, month) == key).then_some((case, month))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::case_manifest::{ConversionRecipe, FileRecord, InputRecord};
    use crate::model::Checksums;

    async fn put(store: &Store, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            store.put(&key, Bytes::from_static(b"x")).await.unwrap();
        }
    }

    /// Writes the manifest of a complete case with files of these months and sizes.
    async fn write_manifest(out: &Store, case: Case, files: &[(i32, u64)]) {
        let recipe = ConversionRecipe {
            product: "research-grade".to_owned(),
            version: 1,
            grid_sha256: None,
        };
        let mut record = CaseManifest::new(case.to_string(), recipe, Vec::new(), 16 << 20);
        for &(month, size) in files {
            let key = layout::key(case, case.first_month().plus(month));
            let modified = chrono::DateTime::UNIX_EPOCH;
            let info = ObjectMeta { key: "raw".to_owned(), size: 1, modified, etag: None };
            let input = InputRecord::new(&info, None);
            let content = Checksums { size, ..Checksums::of(b"", record.part_size) };
            record.insert(FileRecord { key, content, input });
        }
        record.save(out, &layout::folder(case), CASE_MANIFEST).await.unwrap();
    }

    #[tokio::test]
    async fn the_state_of_a_case_follows_from_its_files_and_its_manifest() {
        let (raw, out) = (Store::memory(), Store::memory());
        let [a, b, c, d, e]: [Case; 5] =
            ["000-01", "112-04", "112-07", "689-10", "689-07"].map(|c| c.parse().unwrap());
        for case in [a, b, c, e] {
            let names =
                case.months().take(2).map(|m| format!("{}/{case}.pop.h.{m}.nc", raw_folder(case)));
            put(&raw, names).await;
        }
        put(&raw, ["control/ocn/hist/x.nc".to_owned(), "junk".to_owned()]).await;
        put(&out, b.months().take(1).map(|m| layout::key(b, m))).await;
        put(&out, c.months().take(2).map(|m| layout::key(c, m))).await;
        // Converted when one month was missing.
        put(&out, [layout::key(e, e.first_month())]).await;
        put(&out, ["112/07/notes.txt".to_owned()]).await;
        write_manifest(&out, c, &[(0, 1), (1, 1)]).await;
        write_manifest(&out, e, &[(0, 1)]).await;
        let of =
            |case, raw, outputs, state| CaseStatus { case, raw, outputs, state, problems: vec![] };
        let expected = [
            of(a, 2, 0, CaseState::Raw),
            of(b, 2, 1, CaseState::Partial),
            of(c, 2, 2, CaseState::Done),
            of(d, 0, 0, CaseState::Missing),
            of(e, 2, 1, CaseState::Partial),
        ];
        assert_eq!(case_states(&raw, Some(&out), &[a, b, c, d, e]).await.unwrap(), expected);
        let all: Vec<Case> = Case::all().collect();
        let survey = case_states(&raw, Some(&out), &all).await.unwrap();
        assert_eq!(survey.iter().filter(|s| s.state != CaseState::Missing).count(), 4);
        assert_eq!(survey[b.index()], expected[1]);
    }

    #[tokio::test]
    async fn a_case_with_truncated_or_absent_files_is_damaged() {
        let (raw, out) = (Store::memory(), Store::memory());
        let [a, b]: [Case; 2] = ["112-04", "112-07"].map(|c| c.parse().unwrap());
        for case in [a, b] {
            put(&out, case.months().take(2).map(|m| layout::key(case, m))).await;
        }
        write_manifest(&out, a, &[(0, 1), (1, 2), (2, 1)]).await;
        put(&out, [format!("{}/{CASE_MANIFEST}", layout::folder(b))]).await;
        let found = case_states(&raw, Some(&out), &[a, b]).await.unwrap();
        assert!(found.iter().all(|survey| survey.state == CaseState::Damaged), "{found:?}");
        let problems: Vec<&str> = found[0].problems.iter().map(|p| &p[p.len() - 30..]).collect();
        assert!(problems[0].ends_with("has 1 bytes, recorded 2"), "{problems:?}");
        assert!(problems[1].ends_with("0347-06.nc is gone"), "{problems:?}");
        assert!(found[1].problems[0].contains("not a valid case manifest"), "{found:?}");
    }
}
