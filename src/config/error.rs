//! The errors of the configuration.

use std::io;
use std::path::PathBuf;

use super::SettingProvenance;
use crate::model::similar::did_you_mean;
use crate::model::{ErrorKind, WithErrorKind};

/// An error of the configuration. The user can correct each of them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {} ({asked_by})", path.display())]
    Unreadable {
        /// Path on the local disk.
        path: PathBuf,
        /// Why dor reads this file: `--config`, a variable, or the default search.
        asked_by: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {message}", path.display())]
    Syntax {
        /// Path on the local disk.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The message of the parser.
        message: String,
    },
    /// The file has a key that dor does not know.
    #[error("{}:{line}: unknown key `{key}`; {}", path.display(), did_you_mean(suggestion.as_deref(), "`dor config show` lists the keys"))]
    UnknownKey {
        /// Path on the local disk.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key, with its table.
        key: String,
        /// The most similar known key. `None`: no key is similar.
        suggestion: Option<String>,
    },
    /// The value of a key is not valid.
    #[error("`{key}` from {origin}: `{value}` cannot be used: {reason}")]
    BadValue {
        /// Key that the error is about.
        key: String,
        /// The layer of the value.
        origin: SettingProvenance,
        /// The value, with secrets hidden.
        value: String,
        /// The reason, and the values that are valid.
        reason: String,
    },
    /// A key that a command needs is not set.
    #[error("`{key}` is not set: give {flag}, {variable}, or {key} in dor.toml")]
    Unset {
        /// Key that the error is about.
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
