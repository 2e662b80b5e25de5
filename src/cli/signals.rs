//! Signals that request a stop.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::output::eprint_line;

/// A signal that follows another so soon is the same.
const AGAIN: Duration = Duration::from_millis(500);

/// Lets SIGINT, SIGTERM and SIGHUP request a stop; a second one ends the program at once. SIGHUP
/// stays ignored where it is: `nohup` is for that.
pub(super) fn stop_on_signals(stop: CancellationToken) {
    tokio::spawn(async move {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        let mut told: Option<Instant> = None;
        let mut hangup = if hangup_is_ignored() { None } else { signal(SignalKind::hangup()).ok() };
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                _ = hung_up => {}
            }
            match told {
                // One wish may come twice: from the terminal or the scheduler, and handed on by a script.
                Some(at) if Instant::now() - at < AGAIN => continue,
                Some(_) => std::process::exit(Exit::Interrupted as i32),
                None => told = Some(Instant::now()),
            }
            eprint_line("stopping: finished files are kept; once more to stop at once");
            stop.cancel();
        }
    });
}

/// Whether this process was started with SIGHUP ignored. Only Linux tells.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}
