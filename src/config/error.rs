//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use super::SettingProvenance;
use crate::model::{ErrorKind, WithErrorKind};

/// A configuration that cannot be used. Every variant is for the user to correct.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for, or was found, cannot be read.
    #[error("cannot read the configuration file {} ({asked_by})", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why it was read: `--config`, a variable, or the search.
        asked_by: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser found.
        message: String,
    },
    /// The file has a key that nothing reads.
    #[error("{}:{line}: unknown key `{key}`{}", path.display(), did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key, with its table.
        key: String,
        /// The known key that is most like it.
        suggestion: Option<String>,
    },
    /// A value that its key does not take.
    #[error("`{key}` from {origin}: `{value}` cannot be used: {reason}")]
    BadValue {
        /// The key.
        key: String,
        /// The layer that has the value.
        origin: SettingProvenance,
        /// The value, secrets hidden.
        value: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A key without a value that a command needs.
    #[error("`{key}` is not set: give {flag}, {variable}, or {key} in dor.toml")]
    Unset {
        /// The key.
        key: &'static str,
        /// Flag that sets it.
        flag: &'static str,
        /// Environment variable that sets it.
        variable: &'static str,
    },
}

impl WithErrorKind for ConfigError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Config
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(key) => format!("; did you mean `{key}`?"),
        None => "; `dor config show` lists the keys".to_owned(),
    }
}
