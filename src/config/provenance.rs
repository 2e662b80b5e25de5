//! The source of a value, and the environment of a process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use serde::Serializer;

/// A value of the configuration and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The parsed value.
    pub value: T,
    /// The layer of the value.
    pub source: SettingProvenance,
}

/// The layer of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingProvenance {
    /// A command line flag, such as `--data-dir`.
    Flag(String),
    /// An environment variable of dor.
    Environment(String),
    /// A standard AWS variable, which the storage layer reads.
    AwsEnvironment(String),
    /// A line of `dor.toml`.
    File {
        /// Path on the local disk.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// A built-in S3 profile, by its name.
    Profile(&'static str),
    /// A file of the AWS tools, such as `~/.aws/config`.
    AwsFile,
    /// The built-in default.
    Default,
    /// Derived from the value of this other key.
    Derived(&'static str),
}

impl fmt::Display for SettingProvenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::AwsEnvironment(name) => write!(f, "environment {name} (read by storage)"),
            Self::File { path, line } => write!(f, "file {}:{line}", path.display()),
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::AwsFile => f.write_str("AWS configuration file"),
            Self::Default => f.write_str("default"),
            Self::Derived(key) => write!(f, "derived from {key}"),
        }
    }
}

/// Serializes a source as text.
pub(super) fn as_text<S: Serializer>(
    source: &Option<SettingProvenance>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match source {
        Some(source) => to.collect_str(source),
        None => to.serialize_none(),
    }
}

/// The part of the environment of a process that the configuration depends on.
///
/// Tests make their own, because changing the variables of a running process is not safe.
#[derive(Clone, Debug, Default)]
pub struct ProcessEnv {
    /// Environment variables by name.
    pub variables: BTreeMap<String, OsString>,
    /// The folder to which relative paths are relative. Empty: the working folder.
    pub folder: PathBuf,
}

impl ProcessEnv {
    /// The environment of this process.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v))).collect();
        Self { variables, folder: PathBuf::new() }
    }

    /// The variable `name`; an empty one counts as not set.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// The variable `name` as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from)
    }
}
