//! Where the months of a case come from: research-grade or raw files.

use std::collections::BTreeMap;

use super::earlier::CurrentInputs;
use super::{RunContext, VisError};
use crate::case_manifest::{COMPLETE, CaseManifest, InputRecord, sha256};
use crate::encode::research as layout;
use crate::executor::{PoolError, ReadMode, Reader};
use crate::model::case::MONTHS;
use crate::model::{Case, YearMonth};
use crate::read::ByteSource;
use crate::research::PlanError;
use crate::research::plan::{missing_months, probe_each, raw_files};
use crate::store::{ObjectMeta, Store};

/// Files of many cases.
#[derive(Clone, Debug)]
pub enum CaseSource {
    /// Research-grade files, `PPP/MM/*.nc`.
    Research(Store),
    /// Raw history, `CASE/ocn/hist/*.nc`.
    Raw(Store),
}

/// The files of a case.
#[derive(Clone, Debug)]
pub struct CaseFiles {
    /// The case.
    pub case: Case,
    /// Months without a file.
    pub missing: Vec<YearMonth>,
    store: Store,
    files: BTreeMap<YearMonth, ObjectMeta>,
    /// SHA-256 of files of which there is a record, by key.
    sha256: BTreeMap<String, String>,
    /// Earlier versions of the files that are known to have the same content.
    same: Vec<InputRecord>,
    reader: Reader,
}

impl CaseSource {
    fn store(&self) -> &Store {
        match self {
            Self::Research(store) | Self::Raw(store) => store,
        }
    }

    /// Finds the files of a case; all 180, unless months may be missing.
    pub async fn case(&self, case: Case, allow_missing: bool) -> Result<CaseFiles, VisError> {
        let mut files = match self {
            Self::Raw(store) => raw_files(store, case).await?,
            Self::Research(store) => research_files(store, case).await?,
        };
        if self.store().location().is_local() {
            // On disk an ETag names the inode, which a copy of the same file does not keep.
            files.values_mut().for_each(|info| info.etag = None);
        }
        let missing = missing_months(case, &files, allow_missing)?;
        let sha256 = match self {
            Self::Raw(_) => BTreeMap::new(),
            Self::Research(store) => checksums(store, case, &files).await,
        };
        let (store, reader, same) = (self.store().clone(), Reader::default(), Vec::new());
        Ok(CaseFiles { case, missing, store, files, sha256, same, reader })
    }
}

async fn research_files(
    store: &Store,
    case: Case,
) -> Result<BTreeMap<YearMonth, ObjectMeta>, PlanError> {
    let names: BTreeMap<String, YearMonth> =
        case.months().map(|month| (layout::key(case, month), month)).collect();
    let folder = layout::folder(case);
    let found = match store.can_list() {
        true => {
            let ours = names.clone();
            store.list_ours(&folder, move |key| ours.contains_key(key)).await?
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

/// SHA-256 of research-grade files, as far as the case's record tells of them; without a record that can
/// be read there are none.
async fn checksums(
    store: &Store,
    case: Case,
    files: &BTreeMap<YearMonth, ObjectMeta>,
) -> BTreeMap<String, String> {
    let record = CaseManifest::load(store, &layout::folder(case), COMPLETE).await;
    let Ok(Some(record)) = record else { return BTreeMap::new() };
    let of = |info: &ObjectMeta| {
        let file = record.file(&info.key).filter(|file| file.content.size == info.size)?;
        Some((file.key.clone(), file.content.sha256.clone()))
    };
    files.values().filter_map(of).collect()
}

/// A store that was made elsewhere: its metadata stands for it.
pub async fn made_before(store: &Store, metadata: &ObjectMeta) -> Result<CurrentInputs, VisError> {
    let mut record = InputRecord::new(metadata, Some(sha256(store, metadata).await?));
    if store.location().is_local() {
        record.etag = None;
    }
    let files = vec![(metadata.clone(), record)];
    Ok(CurrentInputs { store: store.clone(), files, same: Vec::new() })
}

impl CaseFiles {
    /// The files that there are, with the number of months since the intervention.
    pub fn iter(&self) -> impl Iterator<Item = (usize, YearMonth, &ObjectMeta)> {
        let first = self.case.first_month();
        self.files.iter().map(move |(&month, info)| {
            (usize::try_from(month.months_since(first)).unwrap_or(MONTHS), month, info)
        })
    }

    /// The file of the n-th month since the intervention.
    pub fn month(&self, elapsed: usize) -> Option<(YearMonth, &ObjectMeta)> {
        let month = self.case.first_month().plus(elapsed as i32);
        self.files.get(&month).map(|info| (month, info))
    }

    /// Bytes of all files.
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

    /// The same files, to be read by `reader`.
    pub fn read_by(&self, reader: Reader) -> Self {
        Self { reader, ..self.clone() }
    }

    /// Names of the files.
    pub fn keys(&self) -> impl Iterator<Item = String> {
        self.files.values().map(|info| info.key.clone())
    }

    /// The bytes of a file, for a look at what is in it.
    pub fn source(&self, info: &ObjectMeta, workshop: &RunContext) -> Box<dyn ByteSource> {
        let object = self.store.object_known(&info.key, info.clone());
        self.reader.source(object, &workshop.stop)
    }

    /// Does work on a file, on a worker with `memory` bytes.
    pub async fn read<T: Send + 'static>(
        &self,
        info: &ObjectMeta,
        workshop: &RunContext,
        memory: u64,
        work: impl FnOnce(Box<dyn ByteSource>) -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let RunContext { pool, stop, .. } = workshop;
        let object = self.store.object_known(&info.key, info.clone());
        let needs = (ReadMode::Parts, memory);
        Ok(self.reader.read(pool, object, needs, stop, |_| {}, work).await?.0)
    }

    /// The files as they are now, for records and to be compared with them.
    pub fn inputs(&self) -> CurrentInputs {
        let record =
            |info: &ObjectMeta| InputRecord::new(info, self.sha256.get(&info.key).cloned());
        let files = self.files.values().map(|info| (info.clone(), record(info))).collect();
        CurrentInputs { store: self.store.clone(), files, same: self.same.clone() }
    }

    /// The same files, of which these earlier versions are known to have the same content.
    pub fn known_as(self, same: Vec<InputRecord>) -> Self {
        Self { same, ..self }
    }
}

impl CaseSource {
    /// Name for messages.
    pub fn url(&self) -> String {
        self.store().location().to_string()
    }

    /// The cases that there are folders of; none where there is no listing.
    pub async fn cases(&self) -> Result<Vec<Case>, VisError> {
        let store = self.store();
        if !store.can_list() {
            return Ok(Vec::new());
        }
        let folders = store.list_prefixes("").await?;
        let mut cases: Vec<Case> = match self {
            Self::Raw(_) => folders.iter().filter_map(|folder| folder.parse().ok()).collect(),
            Self::Research(_) => {
                let is_polygon =
                    |folder: &&String| folder.len() == 3 && folder.parse::<u16>().is_ok();
                let mut cases = Vec::new();
                for polygon in folders.iter().filter(is_polygon) {
                    let seasons = store.list_prefixes(polygon).await?;
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
