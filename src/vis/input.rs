//! Input files of a case: research-grade or raw monthly files.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::common_fields::CommonFields;
use super::earlier::CurrentInputs;
use super::{RunContext, VisError};
use crate::case_manifest::{
    CASE_MANIFEST, CaseManifest, FileRecord, InputRecord, PARTIAL_MANIFEST, sha256,
};
use crate::encode::research as layout;
use crate::executor::{PoolError, ReadMode, Reader};
use crate::model::case::MONTHS;
use crate::model::{Case, ETag, YearMonth};
use crate::read::ByteSource;
use crate::research::PlanError;
use crate::research::plan::{missing_months, probe_each, raw_files};
use crate::store::{ObjectMeta, Store};

/// A location with the monthly files of many cases.
#[derive(Clone, Debug)]
pub enum CaseSource {
    /// Research-grade files, `PPP/MM/*.nc`.
    Research(Store),
    /// Raw history, `CASE/ocn/hist/*.nc`.
    Raw(Store),
}

/// The monthly files of a case.
#[derive(Clone, Debug)]
pub struct CaseFiles {
    /// Case of these files.
    pub case: Case,
    /// Months without a file; empty unless missing months are allowed.
    pub missing: Vec<YearMonth>,
    store: Store,
    files: BTreeMap<YearMonth, ObjectMeta>,
    /// SHA-256 by key, for the files that the manifest of the case lists.
    sha256: BTreeMap<String, String>,
    /// Earlier versions of the files with the same content.
    same: Vec<InputRecord>,
    reader: Reader,
    /// What the months that were read have in common.
    pub(super) common: Arc<CommonFields>,
}

/// Files whose checksums are computed at the same time.
const CONCURRENT_READS: usize = 4;

impl CaseSource {
    fn store(&self) -> &Store {
        match self {
            Self::Research(store) | Self::Raw(store) => store,
        }
    }

    /// Finds the files of a case.
    ///
    /// # Errors
    /// Months are missing and `allow_missing` is not set, no month has a file, research-grade files are not
    /// those of their case manifest, or the store fails.
    pub async fn case(&self, case: Case, allow_missing: bool) -> Result<CaseFiles, VisError> {
        let mut files = match self {
            Self::Raw(store) => raw_files(store, case).await?,
            Self::Research(store) => research_files(store, case).await?,
        };
        if self.store().location().is_local() {
            // The ETag of a local file contains its inode, which differs for a copy of the file.
            files.values_mut().for_each(|info| info.etag = None);
        }
        let missing = missing_months(case, &files, allow_missing)?;
        let sha256 = match self {
            Self::Raw(_) => BTreeMap::new(),
            Self::Research(store) => checksums(store, case, &files).await?,
        };
        let (store, reader, same) = (self.store().clone(), Reader::default(), Vec::new());
        let common = Arc::default();
        Ok(CaseFiles { case, missing, store, files, sha256, same, reader, common })
    }
}

/// Finds the research-grade files of a case: by a listing, or one by one over https.
async fn research_files(
    store: &Store,
    case: Case,
) -> Result<BTreeMap<YearMonth, ObjectMeta>, PlanError> {
    let names: BTreeMap<String, YearMonth> =
        case.months().map(|month| (layout::key(case, month), month)).collect();
    let folder = layout::folder(case);
    let found = match store.can_list() {
        true => {
            let expected = names.clone();
            store.list_expecting_files(&folder, move |key| expected.contains_key(key)).await?
        }
        false => probe_each(store, names.keys().cloned()).await?,
    };
    let files: BTreeMap<_, _> =
        found.into_iter().filter_map(|info| Some((*names.get(&info.key)?, info))).collect();
    match files.is_empty() {
        true => Err(PlanError::NoResearchFiles {
            case,
            folder: store.location().join(&folder).to_string(),
        }),
        false => Ok(files),
    }
}

/// Reads the SHA-256 of research-grade files from the manifest of the case. Files that it does not list have
/// none; files of other programs have no manifest. A file that was written after its manifest is read and its
/// checksum compared, unless the ETag shows that it is the recorded one.
///
/// # Errors
/// The case is not completely converted, or a file has another size or content than its manifest tells: the
/// files may be of two results.
async fn checksums(
    store: &Store,
    case: Case,
    files: &BTreeMap<YearMonth, ObjectMeta>,
) -> Result<BTreeMap<String, String>, PlanError> {
    let folder = layout::folder(case);
    let manifest = match CaseManifest::load(store, &folder, CASE_MANIFEST).await {
        Ok(Some(manifest)) => manifest,
        Ok(None) => {
            let partial = format!("{folder}/{PARTIAL_MANIFEST}");
            return match store.head(&partial).await? {
                None => Ok(BTreeMap::new()),
                Some(_) => {
                    let url = store.location().join(&partial).to_string();
                    Err(PlanError::NotConverted { case, url })
                }
            };
        }
        Err(_) => return Ok(BTreeMap::new()),
    };
    let found: BTreeMap<&str, &ObjectMeta> =
        files.values().map(|info| (info.key.as_str(), info)).collect();
    let written = store.head(&format!("{folder}/{CASE_MANIFEST}")).await?.map(|info| info.modified);
    let check = async |file: FileRecord| {
        let content = &file.content;
        let problem = match found.get(file.key.as_str()) {
            None => "it does not exist",
            Some(info) if info.size != content.size => "it has another size",
            Some(info) => {
                let is_later = written.is_none_or(|written| info.modified > written);
                let etag = info.etag.as_deref().and_then(|etag| etag.parse::<ETag>().ok());
                if !is_later
                    || etag == Some(content.md5.etag())
                    || sha256(store, info).await? == content.sha256
                {
                    return Ok((file.key, file.content.sha256));
                }
                "it was written after the manifest and has another SHA-256"
            }
        };
        let url = store.location().join(&file.key).to_string();
        Err(PlanError::NotAsRecorded { case, url, problem })
    };
    stream::iter(manifest.files).map(check).buffered(CONCURRENT_READS).try_collect().await
}

/// The inputs of a result that is computed from a Zarr store of another program. `metadata` is an object
/// of that store which identifies it in records.
pub async fn inputs_from_zarr_store(
    store: &Store,
    metadata: &ObjectMeta,
) -> Result<CurrentInputs, VisError> {
    let mut record = InputRecord::new(metadata, Some(sha256(store, metadata).await?));
    if store.location().is_local() {
        record.etag = None;
    }
    let files = vec![(metadata.clone(), record)];
    Ok(CurrentInputs { store: store.clone(), files, same: Vec::new() })
}

impl CaseFiles {
    /// Iterates over the files, each with the number of months since the intervention and its month.
    pub fn iter(&self) -> impl Iterator<Item = (usize, YearMonth, &ObjectMeta)> {
        let first = self.case.first_month();
        self.files.iter().map(move |(&month, info)| {
            (usize::try_from(month.months_since(first)).unwrap_or(MONTHS), month, info)
        })
    }

    /// The month and file that is `elapsed` months after the intervention; `None` without a file.
    pub fn month(&self, elapsed: usize) -> Option<(YearMonth, &ObjectMeta)> {
        let month = self.case.first_month().plus(elapsed as i32);
        self.files.get(&month).map(|info| (month, info))
    }

    /// Size of all files, bytes.
    pub fn size(&self) -> u64 {
        self.files.values().map(|info| info.size).sum()
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The same files, read through `reader`.
    pub fn read_by(&self, reader: Reader) -> Self {
        Self { reader, ..self.clone() }
    }

    /// Keys of the files.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.files.values().map(|info| info.key.clone())
    }

    /// The bytes of a file, fetched by range.
    pub fn source(&self, info: &ObjectMeta, context: &RunContext) -> Box<dyn ByteSource> {
        let object = self.store.object_known(&info.key, info.clone());
        self.reader.source(object, &context.stop)
    }

    /// Runs `work` on a file, on a worker with `memory` bytes.
    pub async fn read<T: Send + 'static>(
        &self,
        info: &ObjectMeta,
        context: &RunContext,
        memory: u64,
        work: impl FnOnce(Box<dyn ByteSource>) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let RunContext { pool, stop, .. } = context;
        let object = self.store.object_known(&info.key, info.clone());
        let needs = (ReadMode::Parts, memory);
        Ok(self.reader.read(pool, object, needs, stop, |_| {}, work).await?.0)
    }

    /// The current versions of the files, for records and for the comparison with records.
    pub fn inputs(&self) -> CurrentInputs {
        let record =
            |info: &ObjectMeta| InputRecord::new(info, self.sha256.get(&info.key).cloned());
        let files = self.files.values().map(|info| (info.clone(), record(info))).collect();
        CurrentInputs { store: self.store.clone(), files, same: self.same.clone() }
    }

    /// The same files with a list of earlier versions that have the same content.
    pub fn with_same_content(self, same: Vec<InputRecord>) -> Self {
        Self { same, ..self }
    }
}

impl CaseSource {
    /// URL of the location, for messages.
    pub fn url(&self) -> String {
        self.store().location().to_string()
    }

    /// Lists the cases that have a folder; empty over https, which has no listing.
    pub async fn cases(&self) -> Result<Vec<Case>, VisError> {
        let store = self.store();
        if !store.can_list() {
            return Ok(Vec::new());
        }
        let folders = store.list_folders("").await?;
        let mut cases: Vec<Case> = match self {
            Self::Raw(_) => folders.iter().filter_map(|folder| folder.parse().ok()).collect(),
            Self::Research(_) => {
                let is_polygon =
                    |folder: &&String| folder.len() == 3 && folder.parse::<u16>().is_ok();
                let mut cases = Vec::new();
                for polygon in folders.iter().filter(is_polygon) {
                    let seasons = store.list_folders(polygon).await?;
                    cases.extend(
                        seasons.iter().filter_map(|s| s.replace('/', "-").parse::<Case>().ok()),
                    );
                }
                cases
            }
        };
        cases.sort_unstable();
        Ok(cases)
    }
}
