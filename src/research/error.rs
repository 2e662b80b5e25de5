//! Errors of planning a case.

use crate::case_manifest::{CaseManifestError, SettingDifference};
use crate::model::calendar::describe_months;
use crate::model::case::MONTHS;
use crate::model::{Case, ErrorKind, WithErrorKind, YearMonth};
use crate::store::StoreError;

/// A case cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The case manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] CaseManifestError),
    /// The case was converted with other settings.
    #[error(
        "case {case} was made with other settings; {}; nothing was changed: give the settings of the case manifest \
         ({url}), or make the case again with --force", list(.differences)
    )]
    Settings {
        /// Case that the error is about.
        case: Case,
        /// URL of the case manifest.
        url: String,
        /// Recorded and present value of each setting that differs.
        differences: Vec<SettingDifference>,
    },
    /// Another case of the map store was made with other settings.
    #[error(
        "case {other} of the same store was made with other settings; {}; nothing was changed: give the settings \
         of its case manifest ({url}), or make case {case} with --force", list(.differences), other = .other.short()
    )]
    OtherCase {
        /// Case that the error is about.
        case: Case,
        /// The other case.
        other: Case,
        /// URL of the case manifest of the other case.
        url: String,
        /// Recorded and present value of each setting that differs.
        differences: Vec<SettingDifference>,
    },
    /// The folder has research-grade files without a valid case manifest.
    #[error(
        "{folder} holds {files} research-grade files of case {case} and {problem}; \
         restore their case manifest, move the files away, or make the case again with --force"
    )]
    NoRecord {
        /// Case that the error is about.
        case: Case,
        /// URL of the folder.
        folder: String,
        /// Number of research-grade files.
        files: usize,
        /// Why the case manifest is not valid.
        problem: String,
    },
    /// Another process converts the case with other settings, has just completed it, or was stopped.
    #[error(
        "another process makes case {case} with other settings or input, has just made it, or was stopped before its end; \
         {}; this run stopped: give the settings of the case manifest ({url}), or make the case again with --force \
         when no other process runs", list(.differences)
    )]
    Taken {
        /// Case that the error is about.
        case: Case,
        /// URL of the other process's manifest.
        url: String,
        /// Recorded and present value of each setting that differs.
        differences: Vec<SettingDifference>,
    },
    /// The case has no raw file.
    #[error("no raw files of case {case} in {folder}: check --data-dir")]
    NoFiles {
        /// Case that the error is about.
        case: Case,
        /// URL of the folder of the files.
        folder: String,
    },
    /// The case has no research-grade file.
    #[error("no research-grade files of case {case} in {folder}: check --input")]
    NoResearchFiles {
        /// Case that the error is about.
        case: Case,
        /// URL of the folder of the files.
        folder: String,
    },
    /// The research-grade files of a case are those of a conversion that has not ended.
    #[error(
        "case {case} is not completely converted ({url} exists): wait for the conversion, or run `dor research-data \
         process-case {case}` again", case = .case.short()
    )]
    NotConverted {
        /// Case that the error is about.
        case: Case,
        /// URL of the partial manifest.
        url: String,
    },
    /// A research-grade file is not the one that the case manifest describes.
    #[error(
        "{url} is not as its case manifest tells: {problem}; run `dor research-data process-case {}` again",
        .case.short()
    )]
    NotAsRecorded {
        /// Case that the error is about.
        case: Case,
        /// URL of the file.
        url: String,
        /// The difference.
        problem: &'static str,
    },
    /// No selected case has raw files.
    #[error("no case with raw files in {archive}: check --data-dir and the selection")]
    NoCases {
        /// URL of the archive.
        archive: String,
    },
    /// Two files have the same month in their names.
    #[error("two files for {month} of case {case}: {first} and {second}; move one away")]
    DuplicateMonth {
        /// Case that the error is about.
        case: Case,
        /// Month of both names.
        month: YearMonth,
        /// URL of one file.
        first: String,
        /// URL of the other file.
        second: String,
    },
    /// A file has a month outside the 180 months of the case.
    #[error(
        "{url} is for {month}, outside case {case}, which runs from {first} to {last}; move it away"
    )]
    Outside {
        /// Case that the error is about.
        case: Case,
        /// URL of the file.
        url: String,
        /// Month of the file name.
        month: YearMonth,
        /// First month of the case.
        first: YearMonth,
        /// Last month of the case.
        last: YearMonth,
    },
    /// Research-grade files would be dropped because their raw files are absent.
    #[error(
        "case {case} was made with months whose raw files are gone: {}; restore them, \
         or drop these months with --force", describe_months(.months)
    )]
    WouldLose {
        /// Case that the error is about.
        case: Case,
        /// Months without a raw file, ascending.
        months: Vec<YearMonth>,
    },
    /// Months have no raw file, and that is not allowed.
    #[error(
        "case {case} lacks {} of {MONTHS} months: {}; add their files, \
         or convert the others with --allow-missing (of `dor plan` where there is a plan)",
        .months.len(), describe_months(.months)
    )]
    Missing {
        /// Case that the error is about.
        case: Case,
        /// Months without a raw file, ascending.
        months: Vec<YearMonth>,
    },
}

impl PlanError {
    /// The error of a result at `url` that differs in one setting.
    pub fn of_setting(case: Case, url: String, difference: SettingDifference) -> Self {
        Self::Settings { case, url, differences: vec![difference] }
    }
}

impl WithErrorKind for PlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Settings { .. }
            | Self::Taken { .. }
            | Self::OtherCase { .. }
            | Self::NoRecord { .. } => ErrorKind::Config,
            _ => ErrorKind::BadData,
        }
    }
}

/// The differences, separated by semicolons.
fn list(differences: &[SettingDifference]) -> String {
    differences.iter().map(SettingDifference::to_string).collect::<Vec<_>>().join("; ")
}
