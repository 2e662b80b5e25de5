//! What exists of each case: raw files, research-grade files, records.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::plan::{month_in_name, raw_folder};
use crate::encode::research as layout;
use crate::ledger::{COMPLETE, PARTIAL};
use crate::model::case::MONTHS;
use crate::model::{Case, YearMonth};
use crate::store::{ObjectInfo, Store, StoreError};

/// Up to this many cases are listed one by one; more, in a bucket that holds nothing else, by one
/// listing of everything, which takes fewer requests.
const FEW: usize = 24;
/// Cases that are listed at the same time.
const LISTINGS: usize = 16;

/// How far a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Raw files only.
    Raw,
    /// Some research-grade files, or a record without all of them.
    Partial,
    /// The record of the complete case is there, and a file for every raw file that is there.
    Done,
    /// Neither raw nor research-grade files.
    Missing,
}

/// What exists of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The case.
    pub case: Case,
    /// Months with a raw file, of 180.
    pub raw: usize,
    /// Months with a research-grade file, of 180.
    pub outputs: usize,
    /// How far the case is.
    pub state: State,
}

/// Surveys cases by listing, never by asking for single objects, and only below folders that are
/// those of cases.
pub async fn survey(
    raw: &Store,
    out: Option<&Store>,
    cases: &[Case],
) -> Result<Vec<Survey>, StoreError> {
    let mut inputs = Months::default();
    let mut outputs = Months::default();
    let mut records = BTreeMap::new();
    inputs.add(list_cases(raw, cases, raw_folder, is_raw).await?, raw_month);
    if let Some(out) = out {
        let objects = list_cases(out, cases, layout::folder, is_output).await?;
        for object in &objects {
            if let Some((folder, name @ (COMPLETE | PARTIAL))) = object.key.rsplit_once('/') {
                records.insert((folder.to_owned(), name == COMPLETE), ());
            }
        }
        outputs.add(objects, output_month);
    }
    [Some(raw), out].into_iter().flatten().for_each(Store::tell_passed_over);
    let survey = |&case: &Case| {
        let complete = inputs.of(case).is_subset(outputs.of(case));
        let (raw, outputs) = (inputs.of(case).len(), outputs.of(case).len());
        let has = |complete| records.contains_key(&(layout::folder(case), complete));
        let state = match (raw, outputs) {
            (_, 1..) if complete && has(true) => State::Done,
            (_, 1..) => State::Partial,
            _ if has(true) || has(false) => State::Partial,
            (1.., 0) => State::Raw,
            (0, 0) => State::Missing,
        };
        Survey { case, raw, outputs, state }
    };
    Ok(cases.iter().map(survey).collect())
}

/// Months of each case for which there is a file.
#[derive(Default)]
struct Months(BTreeMap<Case, BTreeSet<YearMonth>>);

impl Months {
    fn add(&mut self, objects: Vec<ObjectInfo>, month: fn(&str) -> Option<(Case, YearMonth)>) {
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

/// The objects of cases, each of which has a `folder`; keys that are `ours` are those of objects.
async fn list_cases(
    store: &Store,
    cases: &[Case],
    folder: fn(Case) -> String,
    ours: fn(&str) -> bool,
) -> Result<Vec<ObjectInfo>, StoreError> {
    let mut folders: Vec<String> = cases.iter().map(|&case| folder(case)).collect();
    if cases.len() > FEW {
        let first = |folder: &str| folder.split('/').next().unwrap_or(folder).to_owned();
        let of_any: BTreeSet<String> = Case::all().map(|case| first(&folder(case))).collect();
        let of_case = of_any.clone();
        let there = store.list_dirs_ours("", move |key| of_case.contains(key)).await;
        let there = there.map_err(|error| of_whole(store, error))?;
        // Where nothing else lies, one listing takes fewer requests.
        if !store.location().is_local() && there.iter().all(|folder| of_any.contains(folder)) {
            folders = if there.is_empty() { Vec::new() } else { vec![String::new()] };
        } else {
            let there: BTreeSet<String> = there.into_iter().collect();
            folders.retain(|folder| there.contains(&first(folder)));
        }
    }
    let list = async |folder: String| {
        let listed = store.list_ours(&folder, ours).await;
        listed.map_err(|error| of_whole(store, error))
    };
    let listed = stream::iter(folders).map(list).buffered(LISTINGS);
    Ok(listed.try_collect::<Vec<_>>().await?.into_iter().flatten().collect())
}

/// A bucket that is not there is no matter of the case asked for first.
fn of_whole(store: &Store, error: StoreError) -> StoreError {
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

/// Whether a key is that of a research-grade file or of a record.
fn is_output(key: &str) -> bool {
    output_month(key).is_some()
        || key.rsplit_once('/').is_some_and(|(folder, name)| {
            [COMPLETE, PARTIAL].contains(&name)
                && folder.replace('/', "-").parse().is_ok_and(|c: Case| layout::folder(c) == folder)
        })
}

/// Case and month of a raw file's key.
fn raw_month(key: &str) -> Option<(Case, YearMonth)> {
    let case: Case = key.split('/').next()?.parse().ok()?;
    key.starts_with(&raw_folder(case)).then(|| Some((case, month_in_name(case, key)?)))?
}

/// Case and month of a research-grade file's key.
fn output_month(key: &str) -> Option<(Case, YearMonth)> {
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

    async fn put(store: &Store, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            store.put(&key, Bytes::from_static(b"x")).await.unwrap();
        }
    }

    #[tokio::test]
    async fn states_follow_from_what_is_there() {
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
        // Made when one month was missing.
        put(&out, [layout::key(e, e.first_month()), format!("689/07/{COMPLETE}")]).await;
        put(&out, [format!("112/07/{COMPLETE}"), "112/07/notes.txt".to_owned()]).await;
        let expected = [
            Survey { case: a, raw: 2, outputs: 0, state: State::Raw },
            Survey { case: b, raw: 2, outputs: 1, state: State::Partial },
            Survey { case: c, raw: 2, outputs: 2, state: State::Done },
            Survey { case: d, raw: 0, outputs: 0, state: State::Missing },
            Survey { case: e, raw: 2, outputs: 1, state: State::Partial },
        ];
        assert_eq!(survey(&raw, Some(&out), &[a, b, c, d, e]).await.unwrap(), expected);
        let all: Vec<Case> = Case::all().collect();
        let survey = survey(&raw, Some(&out), &all).await.unwrap();
        assert_eq!(survey.iter().filter(|s| s.state != State::Missing).count(), 4);
        assert_eq!(survey[b.index()], expected[1]);
    }
}
