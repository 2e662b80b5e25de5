//! What exists of each case: raw files, research-grade files, records.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::plan::{month_in_name, raw_folder};
use crate::encode::research as layout;
use crate::ledger::{COMPLETE, PARTIAL};
use crate::model::case::MONTHS;
use crate::model::{Case, YearMonth};
use crate::store::{ObjectInfo, Store, StoreError};

/// Up to this many cases are listed one by one; more by one listing of everything, which takes
/// fewer requests.
const FEW: usize = 24;

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

/// Surveys cases by listing, never by asking for single objects.
pub async fn survey(
    raw: &Store,
    out: Option<&Store>,
    cases: &[Case],
) -> Result<Vec<Survey>, StoreError> {
    let mut inputs = Months::default();
    let mut outputs = Months::default();
    let mut records = BTreeMap::new();
    let few = cases.len() <= FEW;
    let folders = |folder: fn(Case) -> String| -> Vec<String> {
        if few { cases.iter().map(|&c| folder(c)).collect() } else { vec![String::new()] }
    };
    for folder in folders(raw_folder) {
        inputs.add(list(raw, &folder).await?, raw_month);
    }
    if let Some(out) = out {
        for folder in folders(layout::folder) {
            let objects = list(out, &folder).await?;
            for object in &objects {
                if let Some((folder, name @ (COMPLETE | PARTIAL))) = object.key.rsplit_once('/') {
                    records.insert((folder.to_owned(), name == COMPLETE), ());
                }
            }
            outputs.add(objects, output_month);
        }
    }
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

/// The listing of a folder. A bucket that is not there is no matter of the case asked for first.
async fn list(store: &Store, folder: &str) -> Result<Vec<ObjectInfo>, StoreError> {
    store.list(folder).await.map_err(|error| match error {
        StoreError::NoSuchBucket { bucket, endpoint, .. } => {
            StoreError::NoSuchBucket { url: store.location().to_string(), bucket, endpoint }
        }
        other => other,
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
