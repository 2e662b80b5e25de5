//! Handling of the signals that request a stop.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::output::eprint_line;
use super::terminal::hung_up;

/// Time after a signal within which another signal counts as the same request.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// Cancels `stop` on SIGINT, SIGTERM or SIGHUP. A second signal ends the program at once. SIGHUP stays ignored
/// in a process that was started with SIGHUP ignored, as `nohup` does.
pub(super) fn stop_on_signals(stop: CancellationToken) {
    tokio::spawn(async move {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        let mut requested: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                () = hung_up() => {}
            }
            match requested {
                // One request can arrive twice: from the terminal or scheduler, and forwarded by a script.
                Some(at) if Instant::now() - at < SAME_REQUEST => continue,
                Some(_) => std::process::exit(Exit::Interrupted as i32),
                None => requested = Some(Instant::now()),
            }
            eprint_line("stopping: finished files are kept; send the signal again to stop at once");
            stop.cancel();
        }
    });
}
