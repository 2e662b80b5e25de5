//! What the allocator does with the memory of whole fields, and HDF5 with files.

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
