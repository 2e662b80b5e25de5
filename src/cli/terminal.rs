//! The terminal: text that is drawn again in place at its end, its width, and whether the reader of standard output
//! is gone.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, WeakProgressBar};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};

use super::escape::printable;

/// Width of a terminal that does not say it, in columns.
const WIDTH: usize = 80;
/// Moves the cursor to the first column. It ends text that fills its last line, so that the `^C` of a terminal does
/// not begin another line, which would not be removed.
const FIRST_COLUMN: &str = "\x1b[G";
/// Time between two looks at standard output.
const CLOSED_INTERVAL: Duration = Duration::from_secs(1);

/// The text that is drawn in place, of which there is at most one.
static IN_PLACE: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// Text at the end of the terminal that is drawn again in place, and removed when this value is dropped.
pub(super) struct InPlace(ProgressBar);

impl InPlace {
    /// Creates a progress bar on standard error, of a style that is made from `template`; `None` when that cannot
    /// draw in place. The template fills the line.
    pub fn bar(
        length: u64,
        template: &str,
        style: impl FnOnce(ProgressStyle) -> ProgressStyle,
    ) -> Option<Self> {
        let filled = ProgressStyle::with_template(&format!("{template}{FIRST_COLUMN}")).ok()?;
        Self::new(Some(length), ProgressDrawTarget::stderr(), style(filled))
    }

    /// Creates an empty block of lines on standard output; `None` when that cannot draw in place.
    pub fn block() -> Option<Self> {
        let style = ProgressStyle::with_template("{msg}").ok()?;
        Self::new(None, ProgressDrawTarget::stdout(), style)
    }

    fn new(length: Option<u64>, target: ProgressDrawTarget, style: ProgressStyle) -> Option<Self> {
        // A file, or a terminal without cursor movement.
        if target.is_hidden() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(length, target).with_style(style);
        *in_place() = Some(bar.downgrade());
        Some(Self(bar))
    }

    /// Draws a progress bar at this position of its length.
    pub fn set_position(&self, position: u64) {
        self.0.update(|bar| bar.set_pos(position));
    }

    /// Draws these lines in place of the earlier ones.
    pub fn set_lines(&self, text: &str) {
        let lines: Vec<String> = text.lines().map(printable).collect();
        let width = width_at(io::stdout());
        self.0.set_message(format!("{}\n{:width$}{FIRST_COLUMN}", lines.join("\n"), ""));
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn in_place() -> MutexGuard<'static, Option<WeakProgressBar>> {
    IN_PLACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `write`, which writes whole lines to the terminal. Text that is drawn in place moves below these lines.
pub(super) fn above<T>(write: impl FnOnce() -> T) -> T {
    let bar = in_place().as_ref().and_then(WeakProgressBar::upgrade);
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Writer to standard output. On a terminal, text that is drawn in place moves below what is written.
pub(super) struct AboveInPlace {
    stdout: io::Stdout,
    is_terminal: bool,
}

impl AboveInPlace {
    pub fn new() -> Self {
        let stdout = io::stdout();
        Self { is_terminal: stdout.is_terminal(), stdout }
    }

    /// Whether an error says that nobody reads standard output any more.
    pub fn is_closed(&self, error: &io::Error) -> bool {
        let is_hung_up = self.is_terminal && error.raw_os_error() == Some(libc::EIO);
        is_hung_up || error.kind() == io::ErrorKind::BrokenPipe
    }
}

impl Write for AboveInPlace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.is_terminal {
            true => above(|| self.stdout.write(bytes)),
            false => self.stdout.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.is_terminal {
            true => above(|| self.stdout.flush()),
            false => self.stdout.flush(),
        }
    }
}

/// Returns the width of the terminal at standard error, in columns.
pub(super) fn width() -> usize {
    width_at(io::stderr())
}

fn width_at(terminal: impl AsFd) -> usize {
    match tcgetwinsize(terminal) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => WIDTH,
    }
}

/// Waits until nobody reads standard output any more: the pipe is closed, or the terminal has hung up.
pub(super) async fn reader_is_gone() {
    let closed = async {
        while !stdout_is_closed() {
            tokio::time::sleep(CLOSED_INTERVAL).await;
        }
    };
    tokio::select! {
        () = hung_up() => {}
        () = closed => {}
    }
}

fn stdout_is_closed() -> bool {
    let stdout = io::stdout();
    let mut stdout = [PollFd::new(&stdout, PollFlags::empty())];
    let polled = poll(&mut stdout, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let [stdout] = stdout;
    polled.is_ok() && stdout.revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Waits for SIGHUP, which a terminal sends when it hangs up. Waits forever in a process that was started with SIGHUP
/// ignored.
pub(super) async fn hung_up() {
    if !hangup_is_ignored()
        && let Ok(mut hangup) = signal(SignalKind::hangup())
    {
        hangup.recv().await;
    } else {
        std::future::pending().await
    }
}

/// Whether this process was started with SIGHUP ignored. Known only on Linux; elsewhere `false`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}
