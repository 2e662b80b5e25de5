//! Environment variables of the process.

use std::env;

/// Prefixes of the variables that the program and its libraries read.
const PREFIXES: [&str; 5] = ["AWS_", "DOR_", "OCEAN_", "SLURM_", "SSL_"];

/// Removes empty variables from the environment, so that they count as not set.
///
/// Batch systems and scripts set empty variables, and some libraries take an empty text for a value. Call it
/// before any other thread runs.
pub(super) fn forget_empty() {
    let is_ours = |name: &str| {
        PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || name.to_ascii_lowercase().ends_with("_proxy")
    };
    let empty = env::vars_os().filter(|(_, value)| value.is_empty());
    for name in empty.filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_ours(name)) {
        // SAFETY: no other thread runs that could read or change the environment.
        unsafe { env::remove_var(name) };
    }
}
