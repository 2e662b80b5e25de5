//! Why a case cannot be planned.

use crate::case_manifest::{CaseManifestError, SettingDifference};
use crate::model::calendar::ranges;
use crate::model::case::MONTHS;
use crate::model::{Case, ErrorKind, WithErrorKind, YearMonth};
use crate::store::StoreError;

/// A case cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The case's record cannot be used.
    #[error(transparent)]
    Ledger(#[from] CaseManifestError),
    /// The case was made under other settings.
    #[error(
        "case {case} was made with other settings; {}; nothing was changed: give the settings of the record \
         ({url}), or make the case again with --force", list(.differences)
    )]
    Settings {
        /// Case.
        case: Case,
        /// Its record.
        url: String,
        /// The settings that differ.
        differences: Vec<SettingDifference>,
    },
    /// There are results that no record tells of.
    #[error(
        "{folder} holds {files} research-grade files of case {case} and {problem}; \
         bring their record back, move the files away, or make the case again with --force"
    )]
    NoRecord {
        /// Case.
        case: Case,
        /// Folder of its files.
        folder: String,
        /// How many there are.
        files: usize,
        /// What is the matter with the record.
        problem: String,
    },
    /// Another process makes the case under other settings, has just done so, or was stopped.
    #[error(
        "another process makes case {case} with other settings, has just made it, or was stopped while it did; \
         {}; this run stopped: give the settings of the record ({url}), or make the case again with --force \
         when no other process is at work", list(.differences)
    )]
    Taken {
        /// Case.
        case: Case,
        /// The record of the other process.
        url: String,
        /// The settings that differ.
        differences: Vec<SettingDifference>,
    },
    /// There is no raw file.
    #[error("no raw files of case {case} in {folder}: check --data-dir")]
    NoFiles {
        /// Case.
        case: Case,
        /// Where they should be.
        folder: String,
    },
    /// There is no research-grade file.
    #[error("no research-grade files of case {case} in {folder}: check --input-dir")]
    NoResearchFiles {
        /// Case.
        case: Case,
        /// Where they should be.
        folder: String,
    },
    /// There is no case at all.
    #[error("no case with raw files in {archive}: check --data-dir and the selection")]
    NoCases {
        /// The archive.
        archive: String,
    },
    /// Two files stand for one month.
    #[error("two files for {month} of case {case}: {first} and {second}; move one away")]
    DuplicateMonth {
        /// Case.
        case: Case,
        /// Month.
        month: YearMonth,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
    /// A file outside the 180 months.
    #[error(
        "{url} is for {month}, outside case {case}, which runs from {first} to {last}; move it away"
    )]
    Outside {
        /// Case.
        case: Case,
        /// File.
        url: String,
        /// Its month.
        month: YearMonth,
        /// First month of the case.
        first: YearMonth,
        /// Last month of the case.
        last: YearMonth,
    },
    /// What was made from files that are no longer there would be given up.
    #[error(
        "case {case} was made with months whose files are gone: {}; bring them back, \
         or give them up with --force", ranges(.months)
    )]
    WouldLose {
        /// Case.
        case: Case,
        /// The months.
        months: Vec<YearMonth>,
    },
    /// Months without a file.
    #[error(
        "case {case} lacks {} of {MONTHS} months: {}; bring them, \
         or use the others with --allow-missing (of `dor plan` where there is a plan)", .months.len(), ranges(.months)
    )]
    Missing {
        /// Case.
        case: Case,
        /// The months.
        months: Vec<YearMonth>,
    },
}

impl WithErrorKind for PlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Ledger(error) => error.kind(),
            Self::Settings { .. } | Self::Taken { .. } | Self::NoRecord { .. } => ErrorKind::Config,
            _ => ErrorKind::BadData,
        }
    }
}

/// Differences in words.
fn list(differences: &[SettingDifference]) -> String {
    differences.iter().map(SettingDifference::to_string).collect::<Vec<_>>().join("; ")
}
