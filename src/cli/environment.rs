//! The variables that the program is started with.

use std::env;

/// Whose variables we, or what we are built of, read.
const READ: [&str; 5] = ["AWS_", "DOR_", "OCEAN_", "SLURM_", "SSL_"];

/// Takes out of the environment what is set to nothing, which counts as not set. Batch systems and
/// scripts set variables like this, and not all that we are built of knows. No other thread may run yet.
pub(super) fn forget_empty() {
    let is_ours = |name: &str| {
        READ.iter().any(|prefix| name.starts_with(prefix))
            || name.to_ascii_lowercase().ends_with("_proxy")
    };
    let empty = env::vars_os().filter(|(_, value)| value.is_empty());
    for name in empty.filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_ours(name)) {
        // SAFETY: no other thread runs that could read or change the environment.
        unsafe { env::remove_var(name) };
    }
}
