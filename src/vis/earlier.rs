//! Whether what is there of a case is what a run would make: decided before anything is read for it.

use futures::{StreamExt, TryStreamExt, stream};

use super::VisError;
use super::record::CaseRecord;
use crate::case_manifest::{InputRecord, InputState, SettingDifference, first_digits};
use crate::model::Case;
use crate::research::PlanError;
use crate::store::{ObjectMeta, Store};

/// Files whose content is compared at the same time, where their times are others than recorded.
const HASHES: usize = 4;

/// What [`source`] calls the files of the archive.
pub const RAW_HISTORY: &str = "raw history";

/// The files that a result is made of, as they are now.
#[derive(Clone, Debug)]
pub struct CurrentInputs {
    /// Where they are.
    pub store: Store,
    /// What they are, each with what a record says of it.
    pub files: Vec<(ObjectMeta, InputRecord)>,
    /// Earlier versions of them that are known to have the same content.
    pub same: Vec<InputRecord>,
}

impl CurrentInputs {
    /// What a record says of them.
    pub fn records(&self) -> Vec<InputRecord> {
        self.files.iter().map(|(_, record)| record.clone()).collect()
    }
}

/// How an earlier result compares.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// It is the result of this run.
    Same,
    /// The same, but the files have other times by now: this is the record to keep.
    Touched(Box<CaseRecord>),
    /// It is of other files, or may be: their times are others, and no checksum is recorded.
    Other,
}

/// The settings in which an earlier result differs from `now` without being worse.
pub fn conflicts(earlier: &CaseRecord, now: &CaseRecord) -> Vec<SettingDifference> {
    let differ = |setting, recorded: String, now: String| {
        (recorded != now).then_some(SettingDifference { setting, recorded, now })
    };
    let [grid, grid_now] = [earlier, now].map(|record| record.settings.grid_sha256.as_deref());
    let [center, center_now] =
        [earlier, now].map(|r| serde_json::to_string(&r.settings.center).unwrap_or_default());
    // They follow from the grid, where that is another one.
    let made = |sha256: &str| format!("others (SHA-256 {})", first_digits(sha256));
    let weights =
        |record: &CaseRecord| made(record.settings.weights_sha256.as_deref().unwrap_or_default());
    let weights = (grid == grid_now)
        .then(|| differ("regridding weights", weights(earlier), weights(now)))
        .flatten();
    let ssh = earlier.settings.ssh.as_ref().zip(now.settings.ssh.as_ref());
    let ssh = ssh.filter(|(a, b)| !a.is_content(b));
    let file = |file: &InputRecord| format!("{} of {} bytes", file.key, file.size);
    let content = |file: &InputRecord| match &file.sha256 {
        Some(sha256) => format!("{} (SHA-256 {})", file.key, first_digits(sha256)),
        None => file.key.clone() + " written " + &file.modified,
    };
    let ssh = ssh.and_then(|(a, b)| {
        let [of_a, of_b] = [content(a), content(b)];
        differ("sea surface height", of_a, of_b)
            .or_else(|| differ("sea surface height", file(a), file(b)))
    });
    let kind =
        |record: &CaseRecord| format!("{} under the rules of {}", record.store, record.recipe);
    [
        differ("rules", kind(earlier), kind(now)),
        differ("kind of input", source(&earlier.inputs).to_owned(), source(&now.inputs).to_owned()),
        SettingDifference::of_grid(grid, grid_now),
        weights,
        differ("centre", center, center_now),
        ssh,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the inputs of a result are, in words; files are told apart by their names.
pub fn source(inputs: &[InputRecord]) -> &'static str {
    let key = inputs.first().map_or("", |input| input.key.as_str());
    match () {
        () if inputs.is_empty() => "files that are not recorded",
        () if key.contains("/ocn/hist/") => RAW_HISTORY,
        () if key.ends_with(".nc") => "research-grade files",
        () => "an analysis made before",
    }
}

/// Compares what is there of a case with what this run would make of `inputs`.
///
/// # Errors
/// [`PlanError::Settings`] when it was made with other settings, and this run would not better it.
pub async fn compare(
    case: Case,
    earlier: &CaseRecord,
    now: &CaseRecord,
    inputs: &CurrentInputs,
    url: String,
) -> Result<Comparison, VisError> {
    let differences = conflicts(earlier, now);
    if !differences.is_empty() {
        return Err(PlanError::Settings { case, url, differences }.into());
    }
    let is_same = earlier.missing_months == now.missing_months
        && earlier.settings.grid_sha256 == now.settings.grid_sha256
        && earlier.inputs.len() == inputs.files.len();
    if !is_same {
        return Ok(Comparison::Other);
    }
    let look = async |(info, now): &(ObjectMeta, InputRecord)| {
        let Some(recorded) = earlier.inputs.iter().find(|recorded| recorded.key == info.key) else {
            return Ok((InputState::Changed, now.clone()));
        };
        let checksums = || InputRecord { sha256: recorded.sha256.clone(), ..now.clone() };
        let state = match recorded.compare(&inputs.store, info).await? {
            InputState::Unknown if inputs.same.iter().any(|same| same.is_version(recorded)) => {
                InputState::Touched
            }
            state => state,
        };
        Ok::<_, VisError>((state, checksums()))
    };
    let looked: Vec<_> =
        stream::iter(&inputs.files).map(look).buffered(HASHES).try_collect().await?;
    let has = |state| looked.iter().any(|(found, _)| *found == state);
    match () {
        () if has(InputState::Changed) || has(InputState::Unknown) => Ok(Comparison::Other),
        () if has(InputState::Touched) => {
            let inputs = looked.into_iter().map(|(_, record)| record).collect();
            Ok(Comparison::Touched(Box::new(CaseRecord { inputs, ..earlier.clone() })))
        }
        () => Ok(Comparison::Same),
    }
}

/// Keeps the times that files have by now, so that their content need not be compared again; whoever
/// may only read goes without.
pub async fn renew(store: &Store, case: Case, record: &CaseRecord) {
    if let Err(error) = record.save(store, case).await {
        tracing::warn!("cannot record that the files of case {case} have other times: {error}");
    }
}

/// The settings in which a record of a case that is being written differs: two processes must not mix
/// their objects, though the one would make a better result.
fn mixes(begun: &CaseRecord, now: &CaseRecord) -> Vec<SettingDifference> {
    let mut differences = conflicts(begun, now);
    if differences.is_empty() && begun.settings.grid_sha256 != now.settings.grid_sha256 {
        let (recorded, now) = ("none".to_owned(), "one (--grid is given)".to_owned());
        differences.push(SettingDifference { setting: "grid", recorded, now });
    }
    differences
}

/// Refuses to go on when another process writes the case with other settings, has just done so, or was
/// stopped while it did.
pub async fn refuse_taken(store: &Store, case: Case, now: &CaseRecord) -> Result<(), VisError> {
    let begun = CaseRecord::load_begun(store, case).await?;
    let mut differences = begun.map(|begun| mixes(&begun, now)).unwrap_or_default();
    if differences.is_empty() {
        let made = CaseRecord::load(store, case).await?;
        differences = made.map(|made| conflicts(&made, now)).unwrap_or_default();
    }
    match differences.is_empty() {
        true => Ok(()),
        false => {
            let url = CaseRecord::url(store, case);
            Err(PlanError::Taken { case, url, differences }.into())
        }
    }
}
