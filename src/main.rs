//! `dor`: parse, run, exit code.

use std::process::ExitCode;

use dor_atlas::cli::{self, Exit, Stdout};

fn main() -> ExitCode {
    return_large_buffers();
    let mut out = Stdout::new();
    let cli = match cli::parse(&mut out) {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run(&mut out)))
        .and_then(|exit| out.finish().map(|()| exit).map_err(anyhow::Error::from));
    done.unwrap_or_else(|error| {
        cli::report(&error);
        Exit::of(&error)
    })
    .into()
}

/// Makes glibc give the memory of whole fields back when it is freed, and keep that of the pieces
/// in which files are read. By itself it would raise its limit for that to the size of a field and
/// spread half a gigabyte over the arenas of its threads.
fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 3 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        libc::mallopt(libc::M_ARENA_MAX, cores as i32);
    }
}
