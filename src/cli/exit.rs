//! How the program ends.

use std::process::ExitCode;

use crate::config::ConfigError;

/// The exit codes, for scripts and schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Done = 0,
    /// Some cases failed, and are listed.
    SomeFailed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The input is not what it should be; running again does not help.
    BadData = 65,
    /// Told to stop; safe to run again.
    Interrupted = 75,
    /// The configuration must be corrected; running again does not help.
    Configuration = 78,
}

impl Exit {
    /// The code for an error that ended a command.
    pub fn of(error: &anyhow::Error) -> Self {
        if error.chain().any(|cause| cause.is::<ConfigError>()) {
            Self::Configuration
        } else {
            Self::SomeFailed
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
