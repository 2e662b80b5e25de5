//! Set-up of the process: allocator, HDF5 file locking, resource limits and logging.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::output::Log;
use crate::store::RETRY_LOG_FILTER;

/// Configures glibc's allocator for buffers of the size of whole fields. `keep`: keep freed memory for the next
/// field.
///
/// By default, glibc raises its threshold for `mmap` to the size of a field and keeps half a gigabyte in the
/// arenas of its threads. Conversions return the memory of fields to the system and keep that of the smaller
/// buffers in which files are read. Map commands allocate fields one after another. They keep the memory, in one
/// arena, because page faults would take as long as the computation.
pub(super) fn manage_large_buffers(keep: bool) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers; no other thread runs yet.
    unsafe {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let (limit, arenas) = if keep { (32 << 20, 1) } else { (3 << 20, cores as i32) };
        libc::mallopt(libc::M_MMAP_THRESHOLD, limit);
        libc::mallopt(libc::M_TRIM_THRESHOLD, if keep { 1 << 30 } else { 256 << 20 });
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
}

/// Turns off file locking in HDF5, unless the user has set the variable.
///
/// HDF5 writes no file that another process reads, and some file systems, such as `/dvs_ro`, have no locks.
pub(super) fn lock_no_files() {
    const LOCKING: &str = "HDF5_USE_FILE_LOCKING";
    if std::env::var_os(LOCKING).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(LOCKING, "FALSE") };
    }
}

/// Adapts to the resource limits of the process.
///
/// A file that grows beyond the limit of `ulimit -f` gives a write error instead of a signal that kills the
/// process. The soft limit of open files is raised to the hard limit.
pub(super) fn outlive_limits() {
    // With a handler, the signal does not kill the process. Nothing waits for the signal.
    let _ = signal(SignalKind::from_raw(libc::SIGXFSZ));
    let limit = getrlimit(Resource::Nofile);
    // A failure is ignored: the program also works with the soft limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Starts logging to standard error. `verbose`: number of `-v` flags. `RUST_LOG` takes precedence.
pub(super) fn init_logging(verbose: u8) {
    // These two crates also return what they warn of as errors, which the program reports.
    let warnings = "warn,aws_config=off,rustls_platform_verifier=off";
    let default = || match verbose {
        0 => EnvFilter::new(warnings),
        1 => EnvFilter::new(format!("{warnings},dor_atlas=info,{RETRY_LOG_FILTER}")),
        2 => EnvFilter::new("info,dor_atlas=debug"),
        _ => EnvFilter::new("trace"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default());
    // Fails only when an embedding program has its own logging, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Log)
        .with_ansi(false)
        // A failure to write to standard error cannot be reported.
        .log_internal_errors(false)
        .try_init();
}
