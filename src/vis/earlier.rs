//! Comparison of the result of a case in a store with the result that a run would compute. It needs
//! records and file metadata only, so a run decides before it reads input files.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use super::VisError;
use super::record::{CaseRecord, RecordedCases, ResultSettings};
use crate::case_manifest::{InputRecord, InputState, SettingDifference, first_digits};
use crate::model::Case;
use crate::research::PlanError;
use crate::store::{ObjectMeta, Store};

/// Largest number of files whose checksums are computed at the same time.
const CONCURRENCY: usize = 4;

/// Number of other cases of a store whose settings are compared with those of a new case.
const SAMPLED: usize = 8;

/// Kind of input that [`input_kind`] returns for files of the archive.
pub const RAW_HISTORY: &str = "raw history";

/// The current versions of the input files of a result.
#[derive(Clone, Debug)]
pub struct CurrentInputs {
    /// Location of the files.
    pub store: Store,
    /// Metadata of each file, with the record that a new result would have of it.
    pub files: Vec<(ObjectMeta, InputRecord)>,
    /// Earlier versions of the files with the same content.
    pub same: Vec<InputRecord>,
}

impl CurrentInputs {
    /// The records that a new result would have of the files.
    pub fn records(&self) -> Vec<InputRecord> {
        self.files.iter().map(|(_, record)| record.clone()).collect()
    }
}

/// Result of comparing a record in the store with the record of a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// The store has the result of this run.
    Same,
    /// The store has the result of this run, but input files have other times than recorded. The value is
    /// the record with the current times.
    Touched(Box<CaseRecord>),
    /// The store has a result of other files, or of files with other times and no recorded checksum.
    Other {
        /// An input file that is older than the recorded one, without a recorded checksum. If its result differs
        /// from that of the store, it must not replace it.
        older: Option<SettingDifference>,
    },
}

/// Returns the settings in which the record `earlier` of the store conflicts with the record `now` of a
/// run. A grid file in `now` is no conflict when `earlier` has none.
pub fn conflicts(earlier: &CaseRecord, now: &CaseRecord) -> Vec<SettingDifference> {
    let kind =
        |record: &CaseRecord| format!("{} under the rules of {}", record.store, record.recipe);
    let mut conflicts: Vec<SettingDifference> = [
        differ("rules", kind(earlier), kind(now)),
        differ(
            "kind of input",
            input_kind(&earlier.inputs).to_owned(),
            input_kind(&now.inputs).to_owned(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    conflicts.extend(setting_conflicts(&earlier.settings, &now.settings));
    conflicts.extend(center_conflict(&earlier.settings, &now.settings));
    conflicts
}

fn differ(setting: &'static str, recorded: String, now: String) -> Option<SettingDifference> {
    (recorded != now).then_some(SettingDifference { setting, recorded, now })
}

/// The conflicts of settings that all cases of a store have in common.
fn setting_conflicts(earlier: &ResultSettings, now: &ResultSettings) -> Vec<SettingDifference> {
    let [grid, grid_now] = [earlier, now].map(|settings| settings.grid_sha256.as_deref());
    // With another grid the weights differ as well, so they are compared for the same grid only.
    let text = |sha256: &str| format!("SHA-256 {}", first_digits(sha256));
    let weights =
        |settings: &ResultSettings| text(settings.weights_sha256.as_deref().unwrap_or_default());
    let weights = (grid == grid_now)
        .then(|| differ("regridding weights", weights(earlier), weights(now)))
        .flatten();
    let ssh = earlier.ssh.as_ref().zip(now.ssh.as_ref());
    let ssh = ssh.filter(|(a, b)| !a.has_same_content(b));
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
    let shapes = earlier.grid_shape.zip(now.grid_shape);
    let shape = shapes.and_then(|(was, is)| SettingDifference::of_shape(was, is));
    let grid = SettingDifference::of_grid(grid, grid_now);
    [grid, shape, weights, ssh].into_iter().flatten().collect()
}

/// The conflict of the centers of a polygon.
fn center_conflict(earlier: &ResultSettings, now: &ResultSettings) -> Option<SettingDifference> {
    let text =
        |settings: &ResultSettings| serde_json::to_string(&settings.center).unwrap_or_default();
    differ("center", text(earlier), text(now))
}

/// Checks that a new result of a case has the settings of the other cases of the store: the grid file, the
/// weights and the sea surface height of some of them, and the center of the other cases of its polygon.
/// A grid file is no conflict when the others have none.
///
/// # Errors
/// [`PlanError::Settings`] with the other case; the store fails.
pub async fn refuse_unlike_others(
    store: &Store,
    case: Case,
    now: &ResultSettings,
) -> Result<(), VisError> {
    let recorded = RecordedCases::of(store).await?.done;
    let others = || recorded.iter().copied().filter(|other| *other != case);
    let of_polygon = others().filter(|other| other.polygon() == case.polygon());
    let step = recorded.len().div_ceil(SAMPLED).max(1);
    let checked: BTreeSet<Case> = others().step_by(step).chain(of_polygon).collect();
    for other in checked {
        let Some(record) = CaseRecord::load(store, other).await? else { continue };
        // An adopted result states no settings.
        if record.settings.adopted {
            continue;
        }
        let mut differences = setting_conflicts(&record.settings, now);
        if other.polygon() == case.polygon() {
            differences.extend(center_conflict(&record.settings, now));
        }
        if !differences.is_empty() {
            let url = CaseRecord::url(store, other);
            return Err(PlanError::OtherCase { case, other, url, differences }.into());
        }
    }
    Ok(())
}

/// Returns the kind of the inputs of a result, which their keys determine.
pub fn input_kind(inputs: &[InputRecord]) -> &'static str {
    let key = inputs.first().map_or("", |input| input.key.as_str());
    match () {
        () if inputs.is_empty() => "files that are not recorded",
        () if key.contains("/ocn/hist/") => RAW_HISTORY,
        () if key.ends_with(".nc") => "research-grade files",
        () => "an analysis or excess store",
    }
}

/// Compares the record of a case in the store, `earlier`, with the record `now` of this run and its
/// `inputs`. `url` is the location of the earlier record, for messages.
///
/// # Errors
/// [`PlanError::Settings`] when the records differ in a setting, except that a run may add a grid file, or when
/// an input file is an older version than the recorded one.
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
        return Ok(Comparison::Other { older: None });
    }
    let state_of = async |(info, now): &(ObjectMeta, InputRecord)| {
        let Some(recorded) = earlier.inputs.iter().find(|recorded| recorded.key == info.key) else {
            return Ok((InputState::Changed, now.clone()));
        };
        let with_checksum = || InputRecord { sha256: recorded.sha256.clone(), ..now.clone() };
        let state = match recorded.compare(&inputs.store, info).await? {
            InputState::Unknown
                if inputs.same.iter().any(|same| same.is_same_version(recorded)) =>
            {
                InputState::Touched
            }
            state => state,
        };
        if state == InputState::Changed
            && let Some(difference) = SettingDifference::of_older_input(recorded, info)
        {
            return Err(PlanError::of_setting(case, url.clone(), difference).into());
        }
        Ok::<_, VisError>((state, with_checksum()))
    };
    let states: Vec<_> =
        stream::iter(&inputs.files).map(state_of).buffered(CONCURRENCY).try_collect().await?;
    let has = |state| states.iter().any(|(own, _)| *own == state);
    match () {
        () if has(InputState::Changed) || has(InputState::Unknown) => {
            let older = |(info, _): &(ObjectMeta, InputRecord)| {
                let mut recorded = earlier.inputs.iter();
                let recorded = recorded.find(|recorded| recorded.key == info.key)?;
                SettingDifference::of_older_input(recorded, info)
            };
            Ok(Comparison::Other { older: inputs.files.iter().find_map(older) })
        }
        () if has(InputState::Touched) => {
            let inputs = states.into_iter().map(|(_, record)| record).collect();
            Ok(Comparison::Touched(Box::new(CaseRecord { inputs, ..earlier.clone() })))
        }
        () => Ok(Comparison::Same),
    }
}

/// Writes a record with the current times of the input files, so that later runs need not compute their
/// checksums again. A failure is only a warning, because the store can be read-only.
pub async fn renew(store: &Store, case: Case, record: &CaseRecord) {
    if let Err(error) = record.save(store, case).await {
        tracing::warn!(
            "cannot update the times of the input files in the case manifest of {case}: {error}"
        );
    }
}

/// Returns the settings in which the partial record of another process differs. Unlike [`conflicts`] it
/// includes a grid file that only one of them has, because the objects of two processes must not mix.
fn differences_from_partial(partial: &CaseRecord, now: &CaseRecord) -> Vec<SettingDifference> {
    let mut differences = conflicts(partial, now);
    if differences.is_empty() && partial.settings.grid_sha256 != now.settings.grid_sha256 {
        let (recorded, now) = ("none".to_owned(), "one (--grid is given)".to_owned());
        differences.push(SettingDifference { setting: "grid", recorded, now });
    }
    differences
}

/// The error of a case that another process writes from other input files or with other settings.
pub fn taken(store: &Store, case: Case) -> VisError {
    let difference = SettingDifference {
        setting: "input files",
        recorded: "other files or other versions of them".to_owned(),
        now: "those of its input".to_owned(),
    };
    let url = CaseRecord::url(store, case);
    PlanError::Taken { case, url, differences: vec![difference] }.into()
}

/// Checks that no other process writes the case with other settings, has done so since the comparison, or
/// was stopped while it did.
///
/// # Errors
/// [`PlanError::Taken`].
pub async fn refuse_taken(store: &Store, case: Case, now: &CaseRecord) -> Result<(), VisError> {
    let partial = CaseRecord::load_partial(store, case).await?;
    let mut differences =
        partial.map(|partial| differences_from_partial(&partial, now)).unwrap_or_default();
    if differences.is_empty() {
        let complete = CaseRecord::load(store, case).await?;
        differences = complete.map(|complete| conflicts(&complete, now)).unwrap_or_default();
    }
    match differences.is_empty() {
        true => Ok(()),
        false => {
            let url = CaseRecord::url(store, case);
            Err(PlanError::Taken { case, url, differences }.into())
        }
    }
}
