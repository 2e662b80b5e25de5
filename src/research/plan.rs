//! What there is to do for a case, found out before anything is done.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::PlanError;
use super::recorded::earlier;
use crate::case_manifest::{
    COMPLETE, CaseManifest, ConversionRecipe, FileRecord, InputRecord, InputState, PARTIAL,
};
use crate::encode::research as layout;
use crate::model::calendar::ranges;
use crate::model::case::MONTHS;
use crate::model::{Case, YearMonth};
use crate::store::{ObjectMeta, Store, StoreError};

/// Requests that are under way at the same time where each month is asked for.
const PROBES: usize = 16;
/// Files whose content is compared at the same time, where their times are others than recorded.
const HASHES: usize = 4;

/// A raw file and what becomes of it.
#[derive(Clone, Debug)]
pub struct FileTask {
    /// Month of the file's name.
    pub month: YearMonth,
    /// The raw file.
    pub input: ObjectMeta,
    /// Key of the research-grade file.
    pub output: String,
    /// Why it is to be converted.
    pub reason: Reason,
}

/// Why a file is to be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It was not before.
    New,
    /// The raw file has other bytes than when it was converted.
    Input,
    /// The research-grade file is not there.
    NoOutput,
    /// The research-grade file has another size than recorded.
    OutputSize,
    /// It was converted without a grid file, and there is one now.
    Grid,
    /// It is to be converted in any case.
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

/// What there is to do for a case.
#[derive(Clone, Debug)]
pub struct CasePlan {
    /// The case.
    pub case: Case,
    /// Files to convert, by month.
    pub steps: Vec<FileTask>,
    /// Months without a raw file.
    pub missing: Vec<YearMonth>,
    /// What is done already; entries that no longer hold are gone.
    pub record: CaseManifest,
    /// One of the files that are done.
    pub done: Option<(YearMonth, ObjectMeta)>,
    /// Inputs as the record has them, of the files that are done.
    pub unchanged: Vec<InputRecord>,
    /// Whether the time of one of them is another one by now, so that the record is to be renewed.
    pub touched: bool,
    /// Files in the folder of the raw files that are none of the case's months.
    pub skipped: usize,
    /// Whether the record of the complete case is in place and holds.
    pub complete: bool,
    /// Whether there was a record of a case that is not complete, which carrying out the plan replaces.
    pub begun_before: bool,
    /// Whether there was a record of the complete case.
    pub ended_before: bool,
}

impl CasePlan {
    /// Which months have no raw file, in words; `None` when all have one.
    pub fn missing(&self) -> Option<String> {
        missing_in_words(&self.missing)
    }
}

/// Which months have no file, in words; `None` when all have one.
pub fn missing_in_words(months: &[YearMonth]) -> Option<String> {
    let words = || format!("{} of {MONTHS} months missing: {}", months.len(), ranges(months));
    (!months.is_empty()).then(words)
}

/// Choices that a plan depends on.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Convert files again whose record holds.
    pub force: bool,
    /// Convert the months that are there.
    pub allow_missing: bool,
    /// Rules of the conversion.
    pub recipe: ConversionRecipe,
}

/// Folder of a case's raw files below the archive.
pub fn raw_folder(case: Case) -> String {
    format!("{case}/ocn/hist")
}

/// The month that the name of a raw file of `case` states; `None` for other files.
pub fn month_in_name(case: Case, key: &str) -> Option<YearMonth> {
    let name = key.rsplit('/').next()?;
    let rest = name.strip_prefix(&format!("{case}.pop.h."))?;
    rest.ends_with(".nc").then(|| rest.get(..7)?.parse().ok())?
}

/// Finds out what there is to do: three requests, whatever the case's state; over https one for
/// each month.
pub async fn plan(
    raw: &Store,
    out: &Store,
    case: Case,
    options: &PlanOptions,
) -> Result<CasePlan, PlanError> {
    let (inputs, skipped) = months_and_others(raw, case).await?;
    let missing = missing_months(case, &inputs, options.allow_missing)?;
    let folder = layout::folder(case);
    let names = case.months().map(|month| layout::key(case, month));
    let mut ours: BTreeSet<String> = names.collect();
    ours.extend([COMPLETE, PARTIAL].map(|name| format!("{folder}/{name}")));
    let is_ours = {
        let ours = ours.clone();
        move |key: &str| ours.contains(key)
    };
    let listed = match out.list_ours(&folder, is_ours).await {
        // A folder on disk may take files and show none: they are asked for by name.
        Err(StoreError::PermissionDenied { .. }) if out.location().is_local() => {
            probe_each(out, ours.into_iter()).await?
        }
        listed => listed?,
    };
    let present: BTreeMap<String, u64> = listed.into_iter().map(|o| (o.key, o.size)).collect();

    let (earlier, mut complete) = match options.force {
        true => (None, false),
        false => earlier(out, case, &options.recipe, &present).await?,
    };
    let names = missing.iter().map(YearMonth::to_string).collect();
    // The files of a case have parts of one size, whatever the options are by now.
    let part_size = earlier.as_ref().map_or(out.multipart_size(), |earlier| earlier.part_size);
    let mut record = CaseManifest::new(case.to_string(), options.recipe.clone(), names, part_size);
    let is_done = |month: &YearMonth| {
        let key = layout::key(case, *month);
        earlier.as_ref().is_some_and(|e| e.file(&key).is_some()) && present.contains_key(&key)
    };
    let lost: Vec<YearMonth> = missing.iter().copied().filter(is_done).collect();
    if !lost.is_empty() {
        return Err(PlanError::WouldLose { case, months: lost });
    }
    complete &= earlier.as_ref().is_some_and(|e| e.missing_months == record.missing_months);
    let is_better = earlier.as_ref().is_some_and(|e| e.recipe != record.recipe);
    let look = async |(month, input): (YearMonth, ObjectMeta)| {
        let output = layout::key(case, month);
        let entry = earlier.as_ref().and_then(|e| e.file(&output));
        let found = match entry {
            None if options.force => Err(Reason::Forced),
            None => Err(Reason::New),
            Some(_) if is_better => Err(Reason::Grid),
            Some(file) => match present.get(&output) {
                None => Err(Reason::NoOutput),
                Some(size) if *size != file.content.size => Err(Reason::OutputSize),
                Some(_) => match file.input.compare(raw, &input).await? {
                    state @ (InputState::Same | InputState::Touched) => Ok((file.clone(), state)),
                    InputState::Changed | InputState::Unknown => Err(Reason::Input),
                },
            },
        };
        Ok::<_, PlanError>((month, input, output, found))
    };
    let looked: Vec<_> = stream::iter(inputs).map(look).buffered(HASHES).try_collect().await?;
    let (mut steps, mut done, mut unchanged, mut touched) = (Vec::new(), None, Vec::new(), false);
    for (month, input, output, found) in looked {
        match found {
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
    let had = |name: &str| present.contains_key(&format!("{folder}/{name}"));
    let (begun_before, ended_before) = (had(PARTIAL), had(COMPLETE));
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
        begun_before,
        ended_before,
    })
}

/// The raw files of a case by month.
pub async fn raw_files(
    raw: &Store,
    case: Case,
) -> Result<BTreeMap<YearMonth, ObjectMeta>, PlanError> {
    Ok(months_and_others(raw, case).await?.0)
}

/// The same, with the number of other files in their folder.
async fn months_and_others(
    raw: &Store,
    case: Case,
) -> Result<(BTreeMap<YearMonth, ObjectMeta>, usize), PlanError> {
    let folder = raw_folder(case);
    let mut skipped = 0;
    let mut inputs: BTreeMap<YearMonth, ObjectMeta> = BTreeMap::new();
    let first = case.first_month();
    let found = match raw.can_list() {
        true => raw.list_ours(&folder, move |key| month_in_name(case, key).is_some()).await?,
        false => probe(raw, case).await?,
    };
    for mut object in found {
        if raw.location().is_local() {
            // On disk an ETag names the inode, which a copy of the same file does not keep.
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

/// The months of a case that have no file; an error unless that is allowed.
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

/// Asks for each of the case's months by its name, where there is no listing.
async fn probe(raw: &Store, case: Case) -> Result<Vec<ObjectMeta>, StoreError> {
    let name = |month| format!("{}/{case}.pop.h.{month}.nc", raw_folder(case));
    probe_each(raw, case.months().map(name)).await
}

/// Those of the objects that are there, by a request for each.
pub async fn probe_each(
    store: &Store,
    keys: impl Iterator<Item = String>,
) -> Result<Vec<ObjectMeta>, StoreError> {
    let find = async |key: String| store.head(&key).await;
    let found = stream::iter(keys).map(find).buffered(PROBES);
    found.try_filter_map(async |found| Ok(found)).try_collect().await
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
