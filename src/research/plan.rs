//! Planning of a case: compares raw files, research-grade files and the case manifest, and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::PlanError;
use super::recorded::{EarlierRuns, earlier};
use crate::case_manifest::{
    CASE_MANIFEST, CaseManifest, ConversionRecipe, FileRecord, InputRecord, InputState,
    PARTIAL_MANIFEST, SettingDifference,
};
use crate::encode::research as layout;
use crate::model::calendar::describe_months;
use crate::model::case::MONTHS;
use crate::model::{Case, YearMonth};
use crate::store::{ObjectMeta, Store, StoreError};

/// Requests at the same time where each month takes a request.
const CONCURRENT_PROBES: usize = 16;
/// Raw files that are compared with the manifest at the same time. A file with another modification time is
/// read for its checksum.
const CONCURRENT_COMPARISONS: usize = 4;

/// The conversion of one raw file.
#[derive(Clone, Debug)]
pub struct FileTask {
    /// Month of the file's name.
    pub month: YearMonth,
    /// Raw file in the archive.
    pub input: ObjectMeta,
    /// Key of the research-grade file.
    pub output: String,
    /// Why the file is converted.
    pub reason: Reason,
}

/// Why a file is converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The manifest has no entry.
    New,
    /// The raw file has other bytes than recorded, or its content is unknown.
    Input,
    /// The research-grade file does not exist.
    NoOutput,
    /// The research-grade file has another size than recorded.
    OutputSize,
    /// The file was converted without a grid file, and the options name one.
    Grid,
    /// `--force` converts all files.
    Forced,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::New => "not converted yet",
            Self::Input => "raw file has other bytes than recorded",
            Self::NoOutput => "research-grade file is gone",
            Self::OutputSize => "research-grade file has another size than recorded",
            Self::Grid => "converted without a grid file before",
            Self::Forced => "asked for with --force",
        })
    }
}

/// The plan of a case: files to convert, and files that are done.
#[derive(Clone, Debug)]
pub struct CasePlan {
    /// The planned case.
    pub case: Case,
    /// Files to convert, in the order of their months.
    pub steps: Vec<FileTask>,
    /// Months without a raw file.
    pub missing: Vec<YearMonth>,
    /// Case manifest with the entries of the files that are done. Invalid entries are removed.
    pub record: CaseManifest,
    /// Month and raw file of one of the files that are done.
    pub done: Option<(YearMonth, ObjectMeta)>,
    /// Recorded inputs of the files that are done.
    pub unchanged: Vec<InputRecord>,
    /// Whether the modification time of a raw file has changed and its content has not. The manifest is then
    /// written again.
    pub touched: bool,
    /// Number of files in the raw folder that are not monthly files of the case.
    pub skipped: usize,
    /// Whether the case is complete: its manifest exists and nothing is left to convert.
    pub complete: bool,
    /// Whether a partial manifest exists, which the conversion replaces.
    pub has_partial_manifest: bool,
    /// Whether a manifest of the complete case exists.
    pub has_manifest: bool,
}

impl CasePlan {
    /// Text about the months without a raw file; `None` when there are none.
    pub fn missing(&self) -> Option<String> {
        missing_in_words(&self.missing)
    }
}

/// Text about months without a file; `None` when there are none.
pub fn missing_in_words(months: &[YearMonth]) -> Option<String> {
    let text =
        || format!("{} of {MONTHS} months missing: {}", months.len(), describe_months(months));
    (!months.is_empty()).then(text)
}

/// Options of planning.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Convert files again that are done.
    pub force: bool,
    /// Accept a case with missing months.
    pub allow_missing: bool,
    /// Rules and grid file of the conversion.
    pub recipe: ConversionRecipe,
}

/// Key of the folder of a case's raw files in the archive.
pub fn raw_folder(case: Case) -> String {
    format!("{case}/ocn/hist")
}

/// The month in the name of a monthly raw file of `case`; `None` for other files.
pub fn month_in_name(case: Case, key: &str) -> Option<YearMonth> {
    let name = key.rsplit('/').next()?;
    let rest = name.strip_prefix(&format!("{case}.pop.h."))?;
    rest.ends_with(".nc").then(|| rest.get(..7)?.parse().ok())?
}

/// Plans a case. This takes three requests, whatever the state of the case; in an archive without
/// listings one request for each month.
///
/// # Errors
/// Months are missing and that is not allowed, the manifest is not valid or has other settings, or a
/// store failed.
pub async fn plan(
    raw: &Store,
    out: &Store,
    case: Case,
    options: &PlanOptions,
) -> Result<CasePlan, PlanError> {
    let (inputs, skipped) = monthly_files(raw, case).await?;
    let missing = missing_months(case, &inputs, options.allow_missing)?;
    let present = present_outputs(out, case).await?;
    let EarlierRuns { manifest: earlier, mut complete, taken } = match options.force {
        true => EarlierRuns::default(),
        false => earlier(out, case, &options.recipe, &present).await?,
    };
    let names = missing.iter().map(YearMonth::to_string).collect();
    // All files of a case have the part size of its manifest, whatever the options are now.
    let part_size = earlier.as_ref().map_or(out.multipart_size(), |earlier| earlier.part_size);
    let mut record = CaseManifest::new(case.to_string(), options.recipe.clone(), names, part_size);
    let versions: Vec<InputRecord> =
        inputs.values().map(|input| InputRecord::new(input, None)).collect();
    record.inputs_fingerprint = Some(InputRecord::fingerprint(versions.iter()));
    if let Some(earlier) = &earlier {
        refuse_loss(case, earlier, &missing)?;
        record.grid_shape = earlier.grid_shape;
    }
    complete &= earlier.as_ref().is_some_and(|e| e.missing_months == record.missing_months);
    let compare = async |(month, input): (YearMonth, ObjectMeta)| {
        let output = layout::key(case, month);
        let result = match &earlier {
            None if options.force => Err(Reason::Forced),
            None => Err(Reason::New),
            Some(earlier) => {
                let size = present.get(&output).copied();
                let recipe = &options.recipe;
                let compared =
                    compare_file(raw, &input, earlier, (output.as_str(), size), recipe).await?;
                // A changed raw file makes the case again, but not from an older version of the file.
                if compared.as_ref().is_err_and(|reason| *reason == Reason::Input)
                    && let Some(file) = earlier.file(&output)
                    && let Some(difference) = SettingDifference::of_older_input(&file.input, &input)
                {
                    let url = out.location().join(&layout::folder(case)).to_string();
                    return Err(PlanError::of_setting(case, url, difference));
                }
                compared
            }
        };
        Ok::<_, PlanError>((month, input, output, result))
    };
    let compared = stream::iter(inputs).map(compare).buffered(CONCURRENT_COMPARISONS);
    let compared: Vec<_> = compared.try_collect().await?;
    let (mut steps, mut done, mut unchanged, mut touched) = (Vec::new(), None, Vec::new(), false);
    for (month, input, output, result) in compared {
        match result {
            Ok((file, state)) => {
                touched |= state == InputState::Touched;
                let now = InputRecord::new(&input, file.input.sha256.clone());
                unchanged.push(file.input);
                record.insert(FileRecord { input: now, ..file });
                done = Some((month, input));
            }
            Err(reason) => steps.push(FileTask { month, input, output, reason }),
        }
    }
    complete &= steps.is_empty();
    // The complete case stays as it is. Its manifest may be deleted at any time.
    match taken {
        Some(taken) if !complete => return Err(taken),
        Some(_) => touched = false,
        None => {}
    }
    let folder = layout::folder(case);
    let exists = |name: &str| present.contains_key(&format!("{folder}/{name}"));
    let (has_partial_manifest, has_manifest) = (exists(PARTIAL_MANIFEST), exists(CASE_MANIFEST));
    Ok(CasePlan {
        case,
        steps,
        missing,
        record,
        done,
        unchanged,
        touched,
        skipped,
        complete,
        has_partial_manifest,
        has_manifest,
    })
}

/// Sizes of the research-grade files and manifests of a case, by key.
async fn present_outputs(out: &Store, case: Case) -> Result<BTreeMap<String, u64>, PlanError> {
    let folder = layout::folder(case);
    let files = case.months().map(|month| layout::key(case, month));
    let mut keys: BTreeSet<String> = files.collect();
    keys.extend([CASE_MANIFEST, PARTIAL_MANIFEST].map(|name| format!("{folder}/{name}")));
    let is_ours = {
        let keys = keys.clone();
        move |key: &str| keys.contains(key)
    };
    let listed = match out.list_expecting_files(&folder, is_ours).await {
        // A local folder can permit access to files and not to its listing.
        Err(StoreError::PermissionDenied { .. }) if out.location().is_local() => {
            probe_each(out, keys.into_iter()).await?
        }
        listed => listed?,
    };
    Ok(listed.into_iter().map(|object| (object.key, object.size)).collect())
}

/// Refuses a plan that drops converted months because their raw files are absent.
fn refuse_loss(case: Case, earlier: &CaseManifest, missing: &[YearMonth]) -> Result<(), PlanError> {
    let is_done = |month: &YearMonth| earlier.file(&layout::key(case, *month)).is_some();
    let months: Vec<YearMonth> = missing.iter().copied().filter(is_done).collect();
    match months.is_empty() {
        true => Ok(()),
        false => Err(PlanError::WouldLose { case, months }),
    }
}

/// Compares a raw file and its research-grade file with the manifest. Returns the entry of a file that
/// is done, or the reason to convert it.
async fn compare_file(
    raw: &Store,
    input: &ObjectMeta,
    earlier: &CaseManifest,
    (output, size): (&str, Option<u64>),
    recipe: &ConversionRecipe,
) -> Result<Result<(FileRecord, InputState), Reason>, PlanError> {
    let Some(file) = earlier.file(output) else { return Ok(Err(Reason::New)) };
    // Other recipes that are not refused differ only by the grid file, which is new.
    if earlier.recipe != *recipe {
        return Ok(Err(Reason::Grid));
    }
    match size {
        None => return Ok(Err(Reason::NoOutput)),
        Some(size) if size != file.content.size => return Ok(Err(Reason::OutputSize)),
        Some(_) => {}
    }
    Ok(match file.input.compare(raw, input).await? {
        state @ (InputState::Same | InputState::Touched) => Ok((file.clone(), state)),
        InputState::Changed | InputState::Unknown => Err(Reason::Input),
    })
}

/// Lists the raw files of a case by month.
///
/// # Errors
/// There is no file, a month has two files or lies outside the case, or the store failed.
pub async fn raw_files(
    raw: &Store,
    case: Case,
) -> Result<BTreeMap<YearMonth, ObjectMeta>, PlanError> {
    Ok(monthly_files(raw, case).await?.0)
}

/// The raw files of a case by month, and the number of other files in their folder.
async fn monthly_files(
    raw: &Store,
    case: Case,
) -> Result<(BTreeMap<YearMonth, ObjectMeta>, usize), PlanError> {
    let folder = raw_folder(case);
    let mut skipped = 0;
    let mut inputs: BTreeMap<YearMonth, ObjectMeta> = BTreeMap::new();
    let first = case.first_month();
    let objects = match raw.can_list() {
        true => {
            raw.list_expecting_files(&folder, move |key| month_in_name(case, key).is_some()).await?
        }
        false => probe(raw, case).await?,
    };
    for mut object in objects {
        if raw.location().is_local() {
            // A local ETag contains the inode, which differs for a copy of the file.
            object.etag = None;
        }
        let Some(month) = month_in_name(case, &object.key) else {
            skipped += 1;
            continue;
        };
        let url = || raw.location().join(&object.key).to_string();
        if !(0..MONTHS as i32).contains(&month.months_since(first)) {
            let last = first.plus(MONTHS as i32 - 1);
            return Err(PlanError::Outside { case, url: url(), month, first, last });
        }
        if let Some(other) = inputs.get(&month) {
            let other = raw.location().join(&other.key).to_string();
            return Err(PlanError::DuplicateMonth { case, month, first: other, second: url() });
        }
        inputs.insert(month, object);
    }
    if inputs.is_empty() {
        return Err(PlanError::NoFiles { case, folder: raw.location().join(&folder).to_string() });
    }
    Ok((inputs, skipped))
}

/// The months of a case that have no file.
///
/// # Errors
/// [`PlanError::Missing`] when months are missing and that is not `allowed`.
pub fn missing_months(
    case: Case,
    files: &BTreeMap<YearMonth, ObjectMeta>,
    allowed: bool,
) -> Result<Vec<YearMonth>, PlanError> {
    let months: Vec<_> = case.months().filter(|m| !files.contains_key(m)).collect();
    match months.is_empty() || allowed {
        true => Ok(months),
        false => Err(PlanError::Missing { case, months }),
    }
}

/// Requests each month of a case by its key, for stores without listings.
async fn probe(raw: &Store, case: Case) -> Result<Vec<ObjectMeta>, StoreError> {
    let name = |month| format!("{}/{case}.pop.h.{month}.nc", raw_folder(case));
    probe_each(raw, case.months().map(name)).await
}

/// The objects among `keys` that exist, by one request for each.
///
/// # Errors
/// A request failed for another reason than absence.
pub async fn probe_each(
    store: &Store,
    keys: impl Iterator<Item = String>,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let head = async |key: String| store.head(&key).await;
    let objects = stream::iter(keys).map(head).buffered(CONCURRENT_PROBES);
    objects.try_filter_map(async |object| Ok(object)).try_collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case() -> Case {
        "112-04".parse().unwrap()
    }

    #[test]
    fn only_monthly_files_of_the_case_have_a_month() {
        let case = case();
        let month = |name: &str| month_in_name(case, &format!("x/{name}"));
        assert_eq!(month(&format!("{case}.pop.h.0347-04.nc")).unwrap().to_string(), "0347-04");
        assert!(month(&format!("{case}.pop.h.0347-04 copy.nc")).is_some());
        assert!(month(&format!("{case}.pop.h.nday1.0347-04-01.nc")).is_none());
        assert!(month(&format!("{case}.pop.h.0347-04.nc.md5")).is_none());
        assert!(month("other.pop.h.0347-04.nc").is_none());
    }
}
