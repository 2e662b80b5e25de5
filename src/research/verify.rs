//! Verification of research-grade files against their case manifest.

use futures::{StreamExt, TryStreamExt, stream};

use super::plan::probe_each;
use super::status::{output_month, wrong_outputs};
use crate::case_manifest::{
    CASE_MANIFEST, CaseManifest, CaseManifestError, FileRecord, PARTIAL_MANIFEST, sha256,
};
use crate::encode::research as layout;
use crate::model::Case;
use crate::store::{ObjectMeta, Store, StoreError};

/// Files that are read at the same time.
const CONCURRENT_READS: usize = 4;

/// Result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Number of files in the manifest.
    pub files: usize,
    /// Number of files whose checksum was compared.
    pub read: usize,
    /// Bytes of the files read.
    pub bytes: u64,
    /// Differences from the manifest, each with the key of its file.
    pub problems: Vec<String>,
}

/// Compares the research-grade files of a case with its manifest: existence, size, and the SHA-256 of all
/// files or of `sample` files. Works for stores without listings.
///
/// # Errors
/// A file or the manifest cannot be read.
pub async fn verify(
    out: &Store,
    case: Case,
    sample: Option<usize>,
) -> Result<Verified, StoreError> {
    let folder = layout::folder(case);
    let mut verified = Verified::default();
    let record = match record(out, &folder, &mut verified.problems).await? {
        Some(record) => record,
        None => return Ok(verified),
    };
    let listed = match out.can_list() {
        true => out.list(&folder).await?,
        false => probe_each(out, record.files.iter().map(|file| file.key.clone())).await?,
    };
    verified.files = record.files.len();
    verified.problems.extend(wrong_outputs(&record, &listed));
    let is_own = |info: &&ObjectMeta| output_month(&info.key).is_some_and(|(of, _)| of == case);
    let unrecorded = listed.iter().filter(is_own).filter(|info| record.file(&info.key).is_none());
    verified
        .problems
        .extend(unrecorded.map(|info| format!("{} is not in the case manifest", info.key)));

    let entry =
        |info: &&ObjectMeta| record.file(&info.key).filter(|file| file.content.size == info.size);
    // Files of another size are reported already.
    let of_recorded_size: Vec<(&ObjectMeta, &FileRecord)> =
        listed.iter().filter_map(|info| Some((info, entry(&info)?))).collect();
    let chosen = sampled(of_recorded_size, sample);
    verified.read = chosen.len();
    verified.bytes = chosen.iter().map(|(info, _)| info.size).sum();
    let compare = async |(info, file): (&ObjectMeta, &FileRecord)| {
        let present = match sha256(out, info).await {
            Err(error) if error.is_not_found() => return Ok(Some(format!("{} is gone", info.key))),
            present => present?,
        };
        let recorded = &file.content.sha256;
        let problem = || format!("{} has SHA-256 {present}, recorded {recorded}", file.key);
        Ok::<_, StoreError>((present != *recorded).then(problem))
    };
    let compared = stream::iter(chosen).map(compare).buffered(CONCURRENT_READS);
    let problems: Vec<Option<String>> = compared.try_collect().await?;
    verified.problems.extend(problems.into_iter().flatten());
    Ok(verified)
}

/// Reads the complete or the partial manifest of a case. A manifest that is partial, absent or not valid is
/// added to `problems`.
async fn record(
    out: &Store,
    folder: &str,
    problems: &mut Vec<String>,
) -> Result<Option<CaseManifest>, StoreError> {
    for name in [CASE_MANIFEST, PARTIAL_MANIFEST] {
        match CaseManifest::load(out, folder, name).await {
            Ok(None) => {}
            Ok(Some(record)) => {
                if name == PARTIAL_MANIFEST {
                    problems.push(format!(
                        "{folder}/{CASE_MANIFEST} is not there: the case is not complete"
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
    problems.push(format!(
        "{folder}/{CASE_MANIFEST} is not there: the case was not converted to this location, or its folder was renamed"
    ));
    Ok(None)
}

/// `sample` of the items, evenly spaced from the first to the last; all items when `sample` is absent.
fn sampled<T>(items: Vec<T>, sample: Option<usize>) -> Vec<T> {
    let len = items.len();
    let Some(count) = sample.filter(|count| *count < len) else { return items };
    let position = |n: usize| n * len.saturating_sub(1) / count.saturating_sub(1).max(1);
    let mut positions = (0..count).map(position).peekable();
    let chosen = |(n, item): (usize, T)| positions.next_if_eq(&n).map(|_| item);
    items.into_iter().enumerate().filter_map(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_evenly_spaced_from_the_first_to_the_last() {
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(sampled(all.clone(), None), all);
        assert_eq!(sampled(all.clone(), Some(10)), all);
        assert_eq!(sampled(all.clone(), Some(1)), [0]);
        assert_eq!(sampled(all.clone(), Some(2)), [0, 9]);
        assert_eq!(sampled(all, Some(4)), [0, 3, 6, 9]);
    }
}
