//! How this process is set up: its allocator, HDF5, its limits, its log.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::output::Log;
use crate::store::RESENT;

/// Tells glibc what to do with the memory of whole fields.
///
/// By itself it would raise its limit for giving memory back to the size of a field and spread half
/// a gigabyte over the arenas of its threads. Conversions give fields back and keep the pieces in
/// which files are read. Maps are made from many fields in a row, whose memory is kept, in one
/// arena: page faults would take as long as the work.
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

/// Tells HDF5 to lock no files, unless the user has told it otherwise: it writes none that others see, and file
/// systems such as those of /dvs_ro have no locks.
pub(super) fn lock_no_files() {
    const LOCKING: &str = "HDF5_USE_FILE_LOCKING";
    if std::env::var_os(LOCKING).is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(LOCKING, "FALSE") };
    }
}

/// A file that grows beyond the limit of the process (`ulimit -f`) fails to be written, which is told,
/// instead of ending the program; and as many files may be open as the system allows.
pub(super) fn outlive_limits() {
    // With a handler, the signal no longer ends the process; nobody waits for it.
    let _ = signal(SignalKind::from_raw(libc::SIGXFSZ));
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, fewer will do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

pub(super) fn init_logging(verbose: u8) {
    // What these warn of comes back to us as an error, and is reported.
    let warnings = "warn,aws_config=off,rustls_platform_verifier=off";
    let default = || match verbose {
        0 => EnvFilter::new(warnings),
        1 => EnvFilter::new(format!("{warnings},dor_atlas=info,{RESENT}")),
        2 => EnvFilter::new("info,dor_atlas=debug"),
        _ => EnvFilter::new("trace"),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default());
    // Fails only when a program that embeds this has its own logging, which then stays.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Log)
        .with_ansi(false)
        // A reader that is gone is no failure, and nowhere is left to tell of it.
        .log_internal_errors(false)
        .try_init();
}
