//! Reading research-grade files against their records.

use futures::{StreamExt, TryStreamExt, stream};

use super::plan::probe_each;
use super::status::{output_month, wrong_outputs};
use crate::case_manifest::{
    COMPLETE, CaseManifest, CaseManifestError, FileRecord, PARTIAL, sha256,
};
use crate::encode::research as layout;
use crate::model::Case;
use crate::store::{ObjectMeta, Store, StoreError};

/// Files that are read at the same time.
const READS: usize = 4;

/// What was found of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files in its record.
    pub files: usize,
    /// Files that were read to the end.
    pub read: usize,
    /// Bytes of those.
    pub bytes: u64,
    /// What is wrong, each with the name of its file.
    pub problems: Vec<String>,
}

/// Compares the research-grade files of a case with its record: that they are there, their sizes, and
/// the SHA-256 of all or of `sample` of them, from the first to the last. Needs no listing.
pub async fn verify(
    out: &Store,
    case: Case,
    sample: Option<usize>,
) -> Result<Verified, StoreError> {
    let folder = layout::folder(case);
    let mut found = Verified::default();
    let record = match record(out, &folder, &mut found.problems).await? {
        Some(record) => record,
        None => return Ok(found),
    };
    let listed = match out.can_list() {
        true => out.list(&folder).await?,
        false => probe_each(out, record.files.iter().map(|file| file.key.clone())).await?,
    };
    found.files = record.files.len();
    found.problems.extend(wrong_outputs(&record, &listed));
    let is_own = |info: &&ObjectMeta| output_month(&info.key).is_some_and(|(of, _)| of == case);
    let unrecorded = listed.iter().filter(is_own).filter(|info| record.file(&info.key).is_none());
    found.problems.extend(unrecorded.map(|info| format!("{} is not in the record", info.key)));

    let whole =
        |info: &&ObjectMeta| record.file(&info.key).filter(|file| file.content.size == info.size);
    let whole: Vec<(&ObjectMeta, &FileRecord)> =
        listed.iter().filter_map(|info| Some((info, whole(&info)?))).collect();
    let chosen = sampled(whole, sample);
    found.read = chosen.len();
    found.bytes = chosen.iter().map(|(info, _)| info.size).sum();
    let compare = async |(info, file): (&ObjectMeta, &FileRecord)| {
        let found = match sha256(out, info).await {
            Err(error) if error.is_not_found() => return Ok(Some(format!("{} is gone", info.key))),
            found => found?,
        };
        let recorded = &file.content.sha256;
        let problem = || format!("{} has SHA-256 {found}, recorded {recorded}", file.key);
        Ok::<_, StoreError>((found != *recorded).then(problem))
    };
    let compared = stream::iter(chosen).map(compare).buffered(READS);
    let wrong: Vec<Option<String>> = compared.try_collect().await?;
    found.problems.extend(wrong.into_iter().flatten());
    Ok(found)
}

/// The record of a case; what is wrong with it goes to `problems`.
async fn record(
    out: &Store,
    folder: &str,
    problems: &mut Vec<String>,
) -> Result<Option<CaseManifest>, StoreError> {
    for name in [COMPLETE, PARTIAL] {
        match CaseManifest::load(out, folder, name).await {
            Ok(None) => {}
            Ok(Some(record)) => {
                if name == PARTIAL {
                    problems.push(format!(
                        "{folder}/{COMPLETE} is not there: the case is not complete"
                    ));
                }
                return Ok(Some(record));
            }
            Err(CaseManifestError::Store(error)) => return Err(error),
            Err(error) => {
                problems.push(error.to_string());
                return Ok(None);
            }
        }
    }
    problems
        .push(format!("{folder}/{COMPLETE} is not there: nothing tells what the files should be"));
    Ok(None)
}

/// So many of all, spread evenly, with the first and the last.
fn sampled<T>(all: Vec<T>, sample: Option<usize>) -> Vec<T> {
    let len = all.len();
    let Some(wanted) = sample.filter(|wanted| *wanted < len) else { return all };
    let of = |n: usize| n * len.saturating_sub(1) / wanted.saturating_sub(1).max(1);
    let mut chosen = (0..wanted).map(of).peekable();
    let is_chosen = |(n, one): (usize, T)| chosen.next_if_eq(&n).map(|_| one);
    all.into_iter().enumerate().filter_map(is_chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_all() {
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(sampled(all.clone(), None), all);
        assert_eq!(sampled(all.clone(), Some(10)), all);
        assert_eq!(sampled(all.clone(), Some(1)), [0]);
        assert_eq!(sampled(all.clone(), Some(2)), [0, 9]);
        assert_eq!(sampled(all, Some(4)), [0, 3, 6, 9]);
    }
}
